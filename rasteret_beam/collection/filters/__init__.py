"""Filters that select records of a collection."""
