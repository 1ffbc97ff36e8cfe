"""Raster files: headers, tiles, and the caches between them and a worker. No Beam."""
