"""Names, types and partitions of Iceberg tables."""
