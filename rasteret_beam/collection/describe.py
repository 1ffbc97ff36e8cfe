"""A summary of a collection, as a dict and as HTML for notebooks."""

from collections.abc import Mapping
from typing import Any

from rasteret_beam.collection.explore.footprints import footprints_of
from rasteret_beam.collection.index.band_facts import first_records
from rasteret_beam.collection.index.band_summaries import count_crs, count_months, further_columns, summarise_bands
from rasteret_beam.collection.index.unit_columns import UnitCounts, count_units
from rasteret_beam.collection.parquet.layout import SPAN, time_span
from rasteret_beam.collection.parquet.row_groups import Columns
from rasteret_beam.collection.records.selection import RecordSelection
from rasteret_beam.errors import InputError, listed, without_secrets
from rasteret_beam.kernels.geo.crs import LONLAT, crs_label
from rasteret_beam.pages import Html, card, cards, footprint_map, fragment, table, tag
from rasteret_beam.schema import METADATA_SUFFIX

MAX_BOXES = 10_000
"""Footprints of the map."""

MAX_COUNTED = 50_000
"""Records whose scales and offsets are counted for the HTML."""


def describe(collection: RecordSelection) -> dict[str, Any]:
    """The facts of :meth:`Collection.describe`."""
    return {**_summary(collection), **_counts(collection)}


def _summary(collection: RecordSelection) -> dict[str, Any]:
    """The facts that are found fast in a collection of any size."""
    moments = ["datetime", *(name for name in SPAN if name in collection.schema.names)]
    return {
        "name": collection.name,
        "source": without_secrets(collection.path or collection.data_source or "in memory"),
        "records": len(collection),
        "date_range": time_span(collection.to_table(moments)),
        "bounds": collection.bounds,
        "bounds_crs": collection.bounds_crs,
        "crs": collection.crs,
        "bands": collection.bands,
        **_pixels(collection),
    }


def _counts(collection: RecordSelection) -> dict[str, Any]:
    """What all records are like: their bands, files, dates and CRSs."""
    found = summarise_bands(collection)
    months, undated = count_months(collection)
    return {
        "units": _units(found.units),
        "rasters": found.bands,
        "tiles": sum(facts["tiles"] for facts in found.bands.values()),
        "files": found.files.files,
        "bytes": found.files.bytes,
        "files_of_unknown_size": found.files.unknown,
        "months": months,
        "undated": undated,
        "records_by_crs": count_crs(collection),
        "columns": further_columns(collection),
    }


def _units(counts: Mapping[str, UnitCounts]) -> dict[str, list[dict[str, Any]]]:
    """What ``unscale`` applies, by band: each pair of scale and offset, and the number of its records.

    None stands for what the collection does not say, and the files may.
    """
    return {
        band: [{"scale": scale, "offset": offset, "records": records} for (scale, offset), records in pairs.items()]
        for band, pairs in counts.items()
    }


def _units_text(units: Mapping[str, list[dict[str, Any]]]) -> str:
    """The units of bands that have any, those of like bands together."""
    alike: dict[str, list[str]] = {}
    for band, pairs in units.items():
        if any((pair["scale"], pair["offset"]) != (1, 0) for pair in pairs):
            shown = (f"{_side(pair['scale'])}, {_side(pair['offset'])} ({pair['records']:,} records)" for pair in pairs)
            alike.setdefault("; ".join(shown), []).append(band)
    texts = [f"{listed(bands, 12)}: {text}" for text, bands in alike.items()]
    return " | ".join(texts) or "stored numbers"


def _side(number: float | None) -> str:
    return "of the file" if number is None else f"{number:.15g}"


def _pixels(collection: RecordSelection) -> dict[str, Any]:
    """Data types and nodata values of the first record's bands."""
    columns = set(collection.schema.names)
    described = [band + METADATA_SUFFIX for band in collection.bands if band + METADATA_SUFFIX in columns]
    parts: Columns = {f"{part} {name}": (name, part) for name in described for part in ("dtype", "nodata")}
    found = first_records(collection, parts)
    rows = found.slice(0, 1).to_pylist() if len(found) else []
    values = {part: [row[f"{part} {name}"] for row in rows for name in described] for part in ("dtype", "nodata")}
    return {part: [value for value in dict.fromkeys(each) if value is not None] for part, each in values.items()}


def html_of(collection: RecordSelection) -> str:
    """The facts of a collection as HTML for notebooks: a table, and a map of the footprints.

    No raster is opened, and the size is bounded.
    """
    facts = _summary(collection)
    few = facts["records"] <= MAX_COUNTED
    first, last = facts["date_range"]
    shown = {
        "records": f"{facts['records']:,}",
        "dates": f"{first:%Y-%m-%d} to {last:%Y-%m-%d}" if first else "none",
        "bounds": _bounds_text(facts),
        "crs": listed(map(crs_label, facts["crs"]), 6),
        "bands": listed(facts["bands"], 12),
        "pixels": f"{listed(facts['dtype'])}, nodata {listed(facts['nodata']) or 'none'}",
        "scale, offset": _units_text(_units(count_units(collection))) if few else "see describe()",
        "source": facts["source"],
    }
    rows = table(("", ""), shown.items())
    title = tag("h3", f"Collection {facts['name']}")
    return (
        fragment(cards(card(title, rows), card(_map(collection)))) if facts["records"] else fragment(card(title, rows))
    )


def _bounds_text(facts: Mapping[str, Any]) -> str:
    """The box, with its CRS where that is not longitude and latitude on the Earth."""
    sides, crs = facts["bounds"], facts["bounds_crs"]
    shown = ", ".join(f"{side:.4f}" for side in sides or ()) or "none"
    return shown if crs in (None, LONLAT) or sides is None else f"{shown} in {crs_label(crs)}"


def _map(collection: RecordSelection) -> Html:
    """The footprints by date, or why there are none."""
    try:
        found = footprints_of(collection, MAX_BOXES, boxes=True)
    except InputError as error:
        return tag("p", str(error))
    where = "" if found.on_earth else f"in {crs_label(found.crs)}"
    return footprint_map(
        list(found.shapes),
        list(found.last),
        value_label="newest date",
        geographic=found.in_degrees,
        caption=", ".join(text for text in (where, found.note()) if text),
    )
