"""Sinks for Parquet, BigQuery and GeoTIFF."""
