"""The page that shows what a sampling job has given, made of its summary."""
