"""Which ring this node is in: discovery, joining, following, and what a new ring changes."""
