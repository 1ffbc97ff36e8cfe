"""The criteria of a subset."""
