"""Rows to Parquet, BigQuery and GeoTIFF."""
