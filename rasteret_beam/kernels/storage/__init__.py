"""Names of files, byte ranges, manifests and checksums."""
