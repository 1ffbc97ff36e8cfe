"""Conversions between Arrow and BigQuery."""
