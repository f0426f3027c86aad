"""Configuration: every setting, the layers it comes from, and the page that documents it."""
