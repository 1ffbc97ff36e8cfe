"""Polygons to statistics of the pixels in them."""
