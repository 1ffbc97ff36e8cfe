"""HTML pages in one file, with charts as SVG: no network, no script, no dependency."""

from rasteret_beam.pages.charts import histogram, stacked_shares, time_bars
from rasteret_beam.pages.maps import footprint_map
from rasteret_beam.pages.markup import Html, html, tag
from rasteret_beam.pages.page import Section, card, cards, choice, figures, fragment, more, page, table

__all__ = [
    "Html",
    "Section",
    "card",
    "cards",
    "choice",
    "figures",
    "footprint_map",
    "fragment",
    "histogram",
    "html",
    "more",
    "page",
    "stacked_shares",
    "table",
    "tag",
    "time_bars",
]
