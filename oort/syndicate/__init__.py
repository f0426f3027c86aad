"""The protocol of a syndicate, and a caller's connection to a syndicate."""
