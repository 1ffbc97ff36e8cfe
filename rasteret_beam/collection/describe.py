"""What a collection shows of itself in a notebook."""

from collections.abc import Mapping
from html import escape
from typing import Any

from rasteret_beam.errors import listed


def html_table(facts: Mapping[str, Any]) -> str:
    """The facts of :meth:`Collection.describe` as an HTML table."""
    first, last = facts["date_range"]
    shown = {
        "records": f"{facts['records']:,}",
        "dates": f"{first:%Y-%m-%d} to {last:%Y-%m-%d}" if first else "none",
        "bounds": ", ".join(f"{side:.4f}" for side in facts["bounds"] or ()) or "none",
        "crs": listed(facts["crs"], 6),
        "bands": listed(facts["bands"], 12),
        "pixels": f"{listed(facts['dtype'])}, nodata {listed(facts['nodata']) or 'none'}",
        "source": facts["source"],
    }
    rows = "".join(f"<tr><th>{name}</th><td>{escape(value)}</td></tr>" for name, value in shown.items())
    return f"<table><caption>Collection {escape(facts['name'])}</caption>{rows}</table>"
