"""Points to samples."""
