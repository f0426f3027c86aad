"""oort-bench: a load generator for any Redis-protocol server that checks what it reads."""
