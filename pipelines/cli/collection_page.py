"""A collection as a page of HTML."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from pipelines.cli.collection_maps import footprint_groups
from pipelines.cli.collection_text import BAND_HEAD, NUMBERS, band_rows, map_title, summary
from rasteret_beam.collection.collection import Collection
from rasteret_beam.pages import Html, Section, card, cards, figures, footprint_map, page, table, tag, time_bars

MOST_CRS = 200


def collection_page(collection: Collection, facts: Mapping[str, Any], program: str) -> str:
    """A whole page, which needs no network."""
    shown = summary(facts, MOST_CRS)
    numbers = {
        "records": shown["records"],
        "bands": f"{len(facts['bands']):,}",
        "tiles": f"{facts['tiles']:,}" if facts["rasters"] else "unknown",
        "CRSs": f"{len(facts['records_by_crs']):,}",
    }
    facts_card = card(table(("", ""), shown.items()), wide=True)
    sections = [Section("Overview", figures(numbers)), Section("Facts", facts_card)]
    if facts["records"]:
        sections.append(Section("Footprints", _maps(collection)))
        if facts["months"]:
            sections.append(Section("Dates", card(_dates(facts["months"]), wide=True)))
        rows = band_rows(facts, 40)
        sections.append(Section("Bands", card(table(BAND_HEAD, rows, NUMBERS), wide=True)))
    return page(f"Collection {facts['name']}".rstrip(), sections, lead=facts["source"], foot=program)


def _maps(collection: Collection) -> Html:
    groups, why = footprint_groups(collection)
    drawn = [
        card(
            footprint_map(
                list(found.shapes),
                list(found.last),
                title=map_title(found),
                value_label="newest date",
                geographic=found.in_degrees,
                caption=map_title(found),
            ),
            wide=True,
        )
        for found in groups
    ]
    return cards(*drawn) if drawn else tag("p", why)


def _dates(months: Mapping[str, int]) -> Html:
    """Records by month, with the months that have none between them, or by year."""
    first, last = np.datetime64(min(months), "M"), np.datetime64(max(months), "M")
    unit = "M" if (last - first).astype(int) < 120 else "Y"
    edges = np.arange(first.astype(f"M8[{unit}]"), last.astype(f"M8[{unit}]") + 2)
    counts = np.zeros(len(edges) - 1, dtype=np.int64)
    for month, many in months.items():
        counts[int((np.datetime64(month, "M").astype(f"M8[{unit}]") - edges[0]).astype(int))] += many
    name = "month" if unit == "M" else "year"
    return time_bars(edges, counts, title=f"Records by {name}", caption=f"records by {name}")
