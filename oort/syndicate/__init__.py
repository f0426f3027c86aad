"""The syndicate protocol, and the connection of a caller to a syndicate."""
