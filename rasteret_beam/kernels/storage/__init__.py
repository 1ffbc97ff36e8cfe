"""Globs, byte ranges, hosts, manifests, checksums and TIFF facts."""
