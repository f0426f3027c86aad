"""The configuration of oortd: its settings, the layers they come from, and their documentation."""
