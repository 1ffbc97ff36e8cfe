"""Points and polygons from tables, files, streams and BigQuery."""
