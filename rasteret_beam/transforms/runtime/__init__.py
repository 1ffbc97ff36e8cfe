"""What every transform needs of Beam: coders, metrics, shared resources, windows and files."""
