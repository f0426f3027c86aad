"""syndicate-client: the command line of a syndicate."""
