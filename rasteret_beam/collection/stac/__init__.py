"""Collections of STAC items."""
