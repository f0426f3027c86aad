"""The ring: which nodes hold which partition of the keys (reading, building, files, oort-ring)."""
