"""Records and their files, from record tables."""
