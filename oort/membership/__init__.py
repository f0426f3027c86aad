"""The node's membership in a ring: discovery, joining, following, and the effects of new rings."""
