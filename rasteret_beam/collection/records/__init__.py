"""Records and their files, as record tables give them."""
