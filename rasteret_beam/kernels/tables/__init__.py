"""Columns of point and polygon tables."""
