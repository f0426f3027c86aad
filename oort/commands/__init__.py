"""The commands that Python executes, and what the command table says of every command."""
