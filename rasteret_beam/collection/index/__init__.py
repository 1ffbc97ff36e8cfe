"""The index of a collection, as workers hold it."""
