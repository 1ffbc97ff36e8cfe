"""The samples by date."""

import numpy as np

from rasteret_beam.kernels.summary.summary import Summary
from rasteret_beam.pages.charts import Counts, Dates, time_bars
from rasteret_beam.pages.markup import Html, tag
from rasteret_beam.pages.numbers import count
from rasteret_beam.pages.page import card

MOST_BARS = {"D": 62, "M": 97}
"""Bars at most of each unit of time; with more, the next is used."""

NAMES = {"D": "day", "M": "month", "Y": "year"}


def bars(summary: Summary) -> tuple[Dates, Counts, str] | None:
    """Edges of days, months or years, the rows in each, and the unit; None if no row has a date."""
    dates, counts = summary.dates.sorted()
    if not len(dates):
        return None
    for unit in ("D", "M", "Y"):
        if list(NAMES).index(unit) < list(NAMES).index(summary.dates.unit):
            continue
        placed = dates.astype(f"M8[{unit}]")
        first, last = placed[0].astype(np.int64), placed[-1].astype(np.int64)
        if unit == "Y" or last - first < MOST_BARS[unit]:
            break
    many = np.bincount(placed.astype(np.int64) - first, weights=counts, minlength=last - first + 1)
    edges = np.arange(first, last + 2).astype(f"M8[{unit}]")
    return edges, many, unit


def time_card(summary: Summary) -> Html:
    """A card: rows over time, by the datetime of their record."""
    found = bars(summary)
    missing = f"{count(summary.dates.without)} rows have no datetime." if summary.dates.without else ""
    if found is None:
        return card(tag("p", missing or "There are no rows."), heading="Time")
    edges, many, unit = found
    filled = int(np.count_nonzero(many))
    name = NAMES[unit]
    dates = len(summary.dates.counts)
    text = f"{count(dates)} different {_plural(NAMES[summary.dates.unit], dates)} from {edges[0]} to {edges[-1] - 1}"
    text += f"; {count(filled)} of {count(len(many))} {_plural(name, len(many))} {_have(filled)} samples. {missing}"
    return card(time_bars(edges, many, title=f"Rows by {name}", caption=text), heading=f"Rows by {name}")


def _have(many: int) -> str:
    return "has" if many == 1 else "have"


def _plural(name: str, many: int) -> str:
    return name if many == 1 else f"{name}s"
