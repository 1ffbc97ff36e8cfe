"""Collections on disk."""
