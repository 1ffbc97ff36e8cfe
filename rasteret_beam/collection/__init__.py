"""Collections: tables of raster records with an index of their bands. No Beam."""
