"""Sources of points and polygons: tables, files, streams and BigQuery."""
