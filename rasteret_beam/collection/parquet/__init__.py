"""Collections as Parquet: layout, checks, versions, reading and writing."""
