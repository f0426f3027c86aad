"""oort: a persistent key/value store that any Redis client can talk to."""

__version__ = "0.1.0"
