"""The syndicate: the server that keeps rings (synd), its state, its command line."""
