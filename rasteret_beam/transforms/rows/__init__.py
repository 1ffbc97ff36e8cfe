"""Batches as Beam Rows, and rows as batches."""
