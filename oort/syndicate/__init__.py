"""The syndicate: the server that keeps rings (synd), how nodes find and join it, its command line."""
