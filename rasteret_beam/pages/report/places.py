"""Maps of the points, by value and by the reason why they are not sampled, over the footprints of the records."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from rasteret_beam.kernels.geo.crs import LONLAT, crs_label, crs_text, horizontal_crs, is_degrees, reaches, transform
from rasteret_beam.kernels.summary.cells import Cells
from rasteret_beam.kernels.summary.rows import Series
from rasteret_beam.kernels.summary.summary import Summary
from rasteret_beam.kernels.summary.tally import Floats
from rasteret_beam.kernels.summary.values import Values
from rasteret_beam.pages.colours import steps_of
from rasteret_beam.pages.frames import Frame, frame_of
from rasteret_beam.pages.maps import (
    WIDTH,
    Shapes,
    by_step,
    cells_at,
    drawing_of,
    extent,
    outlines,
    shapes_of,
)
from rasteret_beam.pages.markup import Html, tag
from rasteret_beam.pages.numbers import count, number
from rasteret_beam.pages.page import card, cards, choice
from rasteret_beam.pages.report.facts import Facts
from rasteret_beam.pages.svg import boxes, colour_bar, figure, legend, path
from rasteret_beam.schema import UNSAMPLED_REASONS

LOWEST, HIGHEST = 0.02, 0.98
"""Quantiles of the values that have the colours at the ends of the ramp."""

ZOOM = 3.0
"""A map shows all footprints if they extend at most so many times as far as the points."""


@dataclass(frozen=True)
class Placed:
    """Cells on the map: centres and sizes [n] of them, in the map's CRS, and their sums [n, m]."""

    lon: Floats
    lat: Floats
    wide: Floats
    tall: Floats
    sums: Floats

    def boxes(self) -> Floats:
        """[n, 4]: west, south, east, north."""
        half = np.stack([self.wide, self.tall], axis=1) / 2
        centre = np.stack([self.lon, self.lat], axis=1)
        return np.concatenate([centre - half, centre + half], axis=1)


def maps(summary: Summary, facts: Facts) -> Html:
    """Cards with maps; empty if no point has a place."""
    crs = map_crs(summary, facts)
    shapes = _footprints(facts, crs)
    bands = {band: _placed(summary.cells, band, facts, crs) for band in dict.fromkeys(of for _, of in summary.cells)}
    reasons = {each: _placed(summary.reason_cells, each, facts, crs) for _, each in summary.reason_cells}
    bands = {band: cells for band, cells in bands.items() if len(cells.lon)}
    reasons = {reason: cells for reason, cells in reasons.items() if len(cells.lon)}
    found = []
    if bands:
        frame = _frame([*bands.values()], shapes, crs)
        each = [(band, _value_map(band, cells, summary, shapes, frame)) for band, cells in bands.items()]
        note = _note(facts, crs, shapes)
        found.append(card(choice("map", each), note, heading="Values", wide=not reasons))
    if reasons:
        frame = _frame([*bands.values(), *reasons.values()], shapes, crs)
        found.append(card(_reason_map(reasons, shapes, frame), heading="Unsampled points", wide=not bands))
    return cards(*found) if found else Html("")


def map_crs(summary: Summary, facts: Facts) -> str | None:
    """The CRS of the maps: that of the footprints, longitude and latitude, or the points' own; None if unknown."""
    sources = dict.fromkeys(_source(code, facts) for code, _ in (*summary.cells, *summary.reason_cells))
    if not sources or None in sources:
        return None
    known = [each for each in sources if each is not None]
    own = horizontal_crs(known[0]).geodetic_crs
    targets = [facts.footprint_crs, LONLAT, crs_text(own.to_wkt()) if own is not None else ""]
    return next((each for each in targets if each and all(reaches(source, each) for source in known)), known[0])


def _source(code: int, facts: Facts) -> str | None:
    if facts.point_crs:
        return facts.point_crs
    return f"EPSG:{code}" if code else None


def _placed(groups: dict[tuple[int, str], Cells], name: str, facts: Facts, crs: str | None) -> Placed:
    """The cells of a name, of all CRSs of points, on the map."""
    found = []
    for (code, of), cells in groups.items():
        if of != name or not len(cells.counts):
            continue
        source, (x, y), size = _source(code, facts), cells.centres(), cells.size
        lon, lat = (x, y) if crs is None or source is None else transform(source, crs, x, y)
        wide, tall = (np.full(len(x), each) for each in size)
        if crs is not None and source is not None and source != crs and not is_degrees(source):
            wide, tall = _size(source, crs, (x, y), size)
        here = np.isfinite(lon) & np.isfinite(lat) & np.isfinite(wide) & np.isfinite(tall)
        if crs is not None and is_degrees(crs):
            here &= (np.abs(lat) <= 90.0) & (np.abs(lon) <= 360.0)
        found.append(np.concatenate([np.stack([lon, lat, wide, tall], axis=1), cells.tally.sums], axis=1)[here])
    joined = np.concatenate(found) if found else np.empty((0, 7))
    return Placed(joined[:, 0], joined[:, 1], joined[:, 2], joined[:, 3], joined[:, 4:])


def _size(source: str, crs: str, centres: tuple[Floats, Floats], size: tuple[float, float]) -> tuple[Floats, Floats]:
    """Width and height of cells of one CRS in another, about."""
    x, y = centres
    west, east = (transform(source, crs, x + side * size[0] / 2, y)[0] for side in (-1, 1))
    south, north = (transform(source, crs, x, y + side * size[1] / 2)[1] for side in (-1, 1))
    return np.abs((east - west + 180.0) % 360.0 - 180.0), np.abs(north - south)


def _footprints(facts: Facts, crs: str | None) -> Shapes:
    if not facts.footprints or crs is None or not reaches(facts.footprint_crs, crs):
        return np.empty(0, dtype=object)
    return shapes_of(facts.footprints)[0]


def _frame(cells: Sequence[Placed], shapes: Shapes, crs: str | None) -> Frame:
    """Around the points, and around the footprints unless these are far larger."""
    points = np.concatenate([each.boxes() for each in cells])
    geographic = crs is not None and is_degrees(crs)
    frame = frame_of(points, WIDTH, geographic)
    if len(shapes):
        around = shapely.bounds(shapely.get_parts(shapes)).reshape(-1, 4)
        whole = frame_of(np.concatenate([points, around]), WIDTH, geographic)
        if max((whole.east - whole.west) / (frame.east - frame.west), 0.0) <= ZOOM:
            return whole
    return frame


def _value_map(band: str, cells: Placed, summary: Summary, shapes: Shapes, frame: Frame) -> Html:
    rows, valid, total = cells.sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(valid > 0, total / valid, np.nan)
    low, high = _ends(summary.values.get(Series(band), Values()))
    rectangles = cells_at(cells.lon, cells.lat, cells.wide, cells.tall, frame)
    step = steps_of(mean, low, high)
    empty = np.flatnonzero(step < 0)
    blank = path(boxes(*(each[empty] for each in rectangles)), "cell none") if len(empty) else Html("")
    drawn = [outlines(shapes, frame), blank, *by_step(step, *rectangles)]
    about = f"{count(len(rows))} cells with {count(int(rows.sum()))} samples, between {extent(frame)}."
    below = [colour_bar(number(low), number(high), f"mean of {band} in a cell")]
    if len(empty):
        below.append(legend({"cells without a valid value": ("none", count(len(empty)))}))
    return figure(drawing_of(frame, f"Points coloured by {band}", about, drawn), *below)


def _ends(values: Values) -> tuple[float, float]:
    low, high = values.quantiles([LOWEST, HIGHEST])
    return (low, high) if low < high else (values.low, values.high) if values.count else (float("nan"), float("nan"))


def _reason_map(reasons: dict[str, Placed], shapes: Shapes, frame: Frame) -> Html:
    kinds = {reason: f"k{at % 8}" for at, reason in enumerate(dict.fromkeys((*UNSAMPLED_REASONS, *reasons)))}
    most_first = sorted(reasons, key=lambda reason: -len(reasons[reason].lon))
    drawn = [outlines(shapes, frame)]
    for reason in most_first:
        cells = reasons[reason]
        data = boxes(*cells_at(cells.lon, cells.lat, cells.wide, cells.tall, frame))
        drawn.append(path(data, f"cell {kinds[reason]}"))
    many = {reason: int(reasons[reason].sums[:, 0].sum()) for reason in most_first}
    about = "; ".join(f"{reason}: {count(points)} points" for reason, points in many.items())
    shown = legend({reason: (kinds[reason], count(points)) for reason, points in many.items()})
    return figure(drawing_of(frame, "Points without a sample, by reason", about, drawn), shown)


def _note(facts: Facts, crs: str | None, shapes: Shapes) -> Html:
    axes = "Coordinates are those of the points, whose CRS has no EPSG code." if crs is None else ""
    if crs is not None and crs != LONLAT:
        axes = f"Axes: {crs_label(crs)}."
    frames = f"Outlined areas are footprints of records{_in_brackets(facts.footprint_note)}." if len(shapes) else ""
    text = " ".join(each for each in (axes, frames) if each)
    return tag("p", text, class_="note") if text else Html("")


def _in_brackets(text: str) -> str:
    return f" ({text})" if text else ""
