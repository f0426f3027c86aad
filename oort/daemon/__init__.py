"""oortd: boot, the main loop, and every command that is not on the data path."""
