"""A collection as text for the terminal: its facts, bands and dates, and a map of its footprints."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.cli.collection_maps import footprint_groups
from pipelines.cli.terminal_map import Style, map_lines
from rasteret_beam.collection.collection import Collection
from rasteret_beam.collection.eager.plan_view import human_bytes
from rasteret_beam.collection.explore.footprints import Footprints
from rasteret_beam.errors import listed
from rasteret_beam.kernels.geo.crs import LONLAT, crs_label, is_degrees
from rasteret_beam.pages.numbers import latitude, longitude, number

LABEL = 10
MOST_BARS = 24
"""Months that are shown; of more, the years are."""

BAR = 30
NUMBERS = (1,)
"""Columns of the table of bands that are aligned on the right."""


def collection_text(collection: Collection, facts: Mapping[str, Any], style: Style) -> str:
    """What ``inspect`` prints."""
    lines = [f"Collection {facts['name']}".rstrip(), *summary_lines(facts, style.width)]
    if facts["records"]:
        lines += ["", *table_lines(BAND_HEAD, band_rows(facts, 24), NUMBERS, style)]
        lines += ["", *date_lines(facts, style)]
        lines += ["", *_maps(collection, style)]
    return "\n".join(lines if style.unicode else [_in_ascii(line) for line in lines])


def summary(facts: Mapping[str, Any], most: int = 6) -> dict[str, str]:
    """The facts of the whole collection by label, at most so many CRSs."""
    first, last = facts["date_range"]
    crs = [f"{crs_name(code)} ({many:,})" for code, many in facts["records_by_crs"].items()]
    columns = [f"{name} ({textwrap.shorten(kind, 40, placeholder='...')})" for name, kind in facts["columns"].items()]
    shown = {
        "source": facts["source"],
        "records": f"{facts['records']:,}",
        "bands": f"{len(facts['bands']):,}: {_names(facts['bands'], 60)}",
        "dates": f"{_date(first)} to {_date(last)}" if first else "none",
        "extent": extent(facts["bounds"], facts["bounds_crs"]),
        "CRS": listed(crs, most) or "unknown",
        "size": size(facts),
        "columns": listed(columns, 20) or "none beside those of every collection",
    }
    if facts["undated"]:
        records = "record" if facts["undated"] == 1 else "records"
        shown["dates"] += f"; {facts['undated']:,} {records} without a datetime"
    return shown


def crs_name(text: str) -> str:
    """An EPSG code, or the name of a CRS without its definition."""
    return crs_label(text).partition(" (")[0]


def size(facts: Mapping[str, Any]) -> str:
    """Tiles, files and bytes."""
    if not facts["rasters"]:
        return "unknown: the collection was built without headers"
    known, unknown = facts["files"] - facts["files_of_unknown_size"], facts["files_of_unknown_size"]
    text = f"{facts['tiles']:,} tiles in {facts['files']:,} file{'s' * (facts['files'] != 1)}"
    if known:
        text += f" of {human_bytes(facts['bytes'])}"
    return f"{text}, {unknown:,} of unknown size" if unknown else text


def extent(bounds: Sequence[float] | None, crs: str | None) -> str:
    """The box of all records, with its CRS where that is not longitude and latitude on the Earth."""
    if bounds is None:
        return "unknown in longitude and latitude"
    name_x, name_y = (longitude, latitude) if crs is None or is_degrees(crs) else (number, number)
    west, south, east, north = (round(side, 4) for side in bounds)
    shown = f"{name_x(west)} to {name_x(east)}, {name_y(south)} to {name_y(north)}"
    return shown if crs in (None, LONLAT) else f"{shown} in {crs_name(crs)}"


def _date(moment: Any) -> str:
    return f"{moment:%Y-%m-%d}"


def summary_lines(facts: Mapping[str, Any], width: int) -> list[str]:
    """The facts of the whole collection, wrapped."""
    lines = []
    for label, value in summary(facts).items():
        indent = " " * (LABEL + 2)
        lines += textwrap.wrap(
            f"{label:<{LABEL}}  {value}", max(40, min(width, 100)), subsequent_indent=indent, break_on_hyphens=False
        )
    return lines


BAND_HEAD = ("band", "records", "type", "pixels", "tile", "nodata", "scale, offset")


def band_rows(facts: Mapping[str, Any], room: int) -> list[tuple[str, ...]]:
    """A row of :data:`BAND_HEAD` for each kind of band; names of like bands share a row, in ``room`` characters."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for band in facts["bands"]:
        found = facts["rasters"].get(band)
        cells = _band_cells(found, facts["units"].get(band, ())) if found else ("?",) * (len(BAND_HEAD) - 1)
        alike.setdefault(cells, []).append(band)
    return [(_counted(bands, facts["bands"], room), *cells) for cells, bands in alike.items()]


def _counted(bands: Sequence[str], known: Sequence[str], room: int) -> str:
    """Names of bands, as a range where they follow each other, and their number if not all are named."""
    first = known.index(bands[0])
    names = _names(bands, room)
    if "..." in names and list(known[first : first + len(bands)]) != list(bands):
        names = f"{listed(bands[:3])}, ..."
    return f"{names} ({len(bands)})" if "..." in names else names


def _names(bands: Sequence[str], room: int) -> str:
    whole = ", ".join(bands)
    return whole if len(whole) <= room else f"{bands[0]} ... {bands[-1]}"


def _band_cells(found: Mapping[str, Any], units: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    tiles = [f"{width} x {height}" for width, height in found["tile_size"]]
    pairs = [(unit["scale"], unit["offset"]) for unit in units]
    scaled = ["file's own" if None in pair else f"{pair[0]:.15g}, {pair[1]:.15g}" for pair in pairs]
    return (
        f"{found['records']:,}",
        listed(found["dtype"], 3),
        f"{_range(found['width'])} x {_range(found['height'])}",
        listed(tiles, 2) or "none",
        listed((f"{value:.17g}" for value in found["nodata"]), 3) or "none",
        listed(dict.fromkeys("none" if pair == "1, 0" else pair for pair in scaled), 2),
    )


def _range(ends: tuple[int, int] | None) -> str:
    if ends is None:
        return "?"
    return str(ends[0]) if ends[0] == ends[1] else f"{ends[0]}-{ends[1]}"


def table_lines(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int], style: Style) -> list[str]:
    """A table for the terminal; where it is too narrow, each row becomes lines of a label and a value."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) > style.width:
        return _stacked(head, rows)
    cells = [
        [cell.rjust(width) if at in numbers else cell.ljust(width) for at, (cell, width) in enumerate(pairs)]
        for pairs in (list(zip(row, widths, strict=True)) for row in (head, *rows))
    ]
    return ["  ".join(row).rstrip() for row in cells]


def _stacked(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = []
    for row in rows:
        lines.append(f"{head[0]} {row[0]}")
        lines += [f"  {label:<14}{cell}" for label, cell in zip(head[1:], row[1:], strict=True)]
    return lines


def periods(months: Mapping[str, int]) -> dict[str, int]:
    """Numbers of records by month, or by year where there are many months."""
    if len(months) <= MOST_BARS:
        return dict(months)
    years: dict[str, int] = {}
    for month, many in months.items():
        year = month.rpartition("-")[0]
        years[year] = years.get(year, 0) + many
    return years


def date_lines(facts: Mapping[str, Any], style: Style) -> list[str]:
    """A bar for the records of each month or year."""
    found = periods(facts["months"])
    if not found:
        return ["no record has a datetime"]
    most, room = max(found.values()), max(8, min(BAR, style.width - 24))
    full = "█" if style.unicode else "#"
    return [
        "records by " + ("year" if len(next(iter(found))) == 4 else "month"),
        *(f"  {period:<8}{many:>10,}  {full * max(1, round(many / most * room))}" for period, many in found.items()),
    ]


def _maps(collection: Collection, style: Style) -> list[str]:
    groups, why = footprint_groups(collection)
    maps = [
        [map_title(found), *map_lines(list(found.shapes), found.records, style, found.in_degrees)] for found in groups
    ]
    lines = [line for drawn in maps for line in ["", *drawn]]
    return lines[1:] or textwrap.wrap(why, max(40, style.width))


def map_title(found: Footprints) -> str:
    """What a map shows, and what it leaves out."""
    where = "" if found.on_earth else f" in {crs_name(found.crs)}"
    note = f" ({found.note()})" if found.note() else ""
    return f"{len(found):,} different footprint{'s' if len(found) != 1 else ''}{where}{note}"


def _in_ascii(line: str) -> str:
    """A line for a terminal that has no other characters."""
    return line.replace("°", "").encode("ascii", "replace").decode()
