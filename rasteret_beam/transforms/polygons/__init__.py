"""What jobs over polygons share: routing, and reading groups of polygons."""
