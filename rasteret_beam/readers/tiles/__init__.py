"""Decoded tiles: the two engines, and the caches above them."""
