"""Polygons to chips."""
