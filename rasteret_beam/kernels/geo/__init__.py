"""Coordinates, grids and footprints."""
