"""The index of a collection that workers hold."""
