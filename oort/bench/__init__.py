"""oort-bench: a load generator for any Redis-protocol server, which checks the values it reads."""
