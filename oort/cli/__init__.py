"""oort-cli: a command line client for any Redis-protocol server."""
