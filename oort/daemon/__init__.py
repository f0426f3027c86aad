"""oortd as a process: boot, the main loop, stop, reload, and control of all of them."""
