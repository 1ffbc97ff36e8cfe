"""From points and polygons to pixels: which records, which tiles, and the keys of the shuffle."""
