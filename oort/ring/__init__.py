"""Rings, which map each partition of the keys to nodes: reading, building, files, oort-ring."""
