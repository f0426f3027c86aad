"""The commands that Python executes, and the command table, which describes every command."""
