"""The process oortd: boot, main loop, reload, control and stop."""
