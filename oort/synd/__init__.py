"""synd: the server that stores rings and distributes them to the nodes."""
