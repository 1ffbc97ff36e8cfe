"""Statistics of pixels: of windows around points, and of polygons."""
