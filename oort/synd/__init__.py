"""synd: the server that keeps rings and hands them to the nodes."""
