"""Arrow schemas and rows as BigQuery has them."""
