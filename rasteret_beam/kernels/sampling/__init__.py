"""From pixels to rows."""
