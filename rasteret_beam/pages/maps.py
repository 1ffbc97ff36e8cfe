"""Maps as SVG, without a background from the network: footprints, a graticule, and cells with points."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from rasteret_beam.pages.colours import STEPS, Floats, steps_of
from rasteret_beam.pages.frames import Frame, frame_of
from rasteret_beam.pages.markup import Content, Html, tag
from rasteret_beam.pages.numbers import angle_ticks, count, day, latitude, longitude, number, ticks
from rasteret_beam.pages.svg import boxes, colour_bar, drawing, figure, line, path, text

WIDTH = 760.0
MOST_SHAPES = 1500
"""Different footprints that are drawn one by one; more become cells with the number of footprints."""

COVER_CELLS = 96
SMALLEST_CELL = 3.2
"""Size of a drawn cell at least, so that one point can be seen."""

Shapes = NDArray[np.object_]


def footprint_map(
    footprints: Sequence[Any],
    values: Sequence[Any] | None = None,
    *,
    title: str = "Footprints of the records",
    value_label: str = "",
    format_value: Callable[[Any], str] | None = None,
    geographic: bool = True,
    caption: Content = "",
) -> Html:
    """A map of polygons in longitude and latitude.

    Parameters
    ----------
    footprints : sequence of shapely geometries, WKB bytes or None
        Polygons and multipolygons; those across the antimeridian in two parts, as in GeoJSON (RFC 7946).
    values : sequence of numbers or datetime64, optional
        One a footprint, shown by colour; NaN, NaT and None are drawn without.
    title, value_label : str
        What the map and the colours show.
    format_value : function, optional
        The text of a value in the legend (default: a date, or a number).
    geographic : bool
        False: the coordinates are those of a plane, and the axes are numbered as they are.
    caption : text or markup

    Returns
    -------
    Html
        A ``figure`` with an SVG. Of more than 1,500 different footprints, cells are coloured by how many cover them.
    """
    shapes, kept = shapes_of(footprints)
    frame = frame_of(shapely.bounds(shapely.get_parts(shapes)).reshape(-1, 4), WIDTH, geographic)
    numbers, legend = _coloured(values, kept, value_label, format_value)
    unique = np.unique(shapely.to_wkb(shapes)) if len(shapes) > MOST_SHAPES else shapes
    drawn: Content
    if len(unique) > MOST_SHAPES:
        drawn, legend = cover(shapes, frame)
    elif numbers is None:
        drawn = outlines(shapes, frame)
    else:
        drawn = _tinted(shapes, numbers, frame)
    about = f"{count(len(shapes))} footprints between {extent(frame)}."
    return figure(drawing_of(frame, title, about, drawn), legend, caption=caption)


def drawing_of(frame: Frame, title: str, about: str, *content: Content) -> Html:
    """A map: the ground, what is drawn on it, and the graticule with its labels."""
    ground = tag("rect", width=f"{frame.width:g}", height=f"{frame.height:g}", class_="sea")
    return drawing(frame.width, frame.height, title, about, ground, *content, graticule(frame), kind="map")


def shapes_of(footprints: Sequence[Any]) -> tuple[Shapes, NDArray[np.int64]]:
    """Geometries that are there and not empty, and which they are."""
    given = np.empty(len(footprints), dtype=object)
    for at, each in enumerate(footprints):
        given[at] = shapely.from_wkb(each, on_invalid="ignore") if isinstance(each, bytes | memoryview) else each
    kept = np.flatnonzero(~(shapely.is_missing(given) | shapely.is_empty(given)))
    return given[kept], kept


def _coloured(
    values: Sequence[Any] | None, kept: NDArray[np.int64], label: str, shown: Callable[[Any], str] | None
) -> tuple[Floats | None, Html | str]:
    """Values as numbers, and the legend of their colours."""
    if values is None:
        return None, ""
    array = np.asarray(values)
    if array.dtype == object:
        array = np.array([np.nan if each is None else each for each in values])
    array = array[kept]
    if array.dtype.kind == "M":
        numbers = np.where(np.isnat(array), np.nan, array.astype("M8[us]").astype(np.int64).astype(np.float64))
        shown = shown or day
    else:
        numbers = array.astype(np.float64)
        shown = shown or number
    there = np.flatnonzero(np.isfinite(numbers))
    if not len(there):
        return None, ""
    first, last = array[there[np.argmin(numbers[there])]], array[there[np.argmax(numbers[there])]]
    return numbers, colour_bar(shown(first), shown(last), label)


def outlines(shapes: Shapes, frame: Frame) -> Html:
    """Footprints as areas with an outline, all in one path."""
    return path("".join(dict.fromkeys(_data(shapes, frame))), "foot")


def _tinted(shapes: Shapes, values: Floats, frame: Frame) -> list[Html]:
    """Footprints coloured by value, those with the lowest below."""
    finite = values[np.isfinite(values)]
    step = steps_of(np.where(np.isfinite(values), values, np.nan), float(finite.min()), float(finite.max()))
    data = np.array(_data(shapes, frame), dtype=object)
    plain = path("".join(dict.fromkeys(data[step < 0])), "foot") if (step < 0).any() else Html("")
    found = [(each, "".join(dict.fromkeys(data[step == each]))) for each in range(STEPS)]
    return [plain, *(path(each, f"tint r{at}") for at, each in found if each)]


def _data(shapes: Shapes, frame: Frame) -> list[str]:
    """The path of each shape."""
    parts, shape = shapely.get_parts(
        _turned(shapes, frame), return_index=True
    )  # multipolygons have no rings for Shapely
    rings, part = shapely.get_rings(parts, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    xy = np.round(np.stack([frame.x(points[:, 0]), frame.y(points[:, 1])], axis=1), 1)
    data = [""] * len(shapes)
    edges = np.searchsorted(ring, np.arange(len(rings) + 1))
    for at in range(len(rings)):
        corners = xy[edges[at] : edges[at + 1]]
        moved = np.append(True, (np.diff(corners, axis=0) != 0).any(axis=1))
        data[shape[part[at]]] += "M" + "L".join(f"{x:g} {y:g}" for x, y in corners[moved].tolist()) + "z"
    return data


def _turned(shapes: Shapes, frame: Frame) -> Shapes:
    """Shapes in the turn of longitudes that the map shows, those across the antimeridian in one piece."""
    if not frame.geographic:
        return shapes
    parts, owner = shapely.get_parts(shapes, return_index=True)
    west, _, east, _ = shapely.bounds(parts).T
    turn = 360.0 * np.round(((frame.west + frame.east) / 2 - (west + east) / 2) / 360.0)
    points, part = shapely.get_coordinates(parts, return_index=True)
    moved = shapely.set_coordinates(parts, points + np.stack([turn[part], np.zeros(len(part))], axis=1))
    many = np.bincount(owner, minlength=len(shapes))
    found = moved[np.searchsorted(owner, np.arange(len(shapes)))] if len(parts) else moved
    for at in np.flatnonzero(many > 1):
        found[at] = shapely.union_all(moved[owner == at])
    return found


def cover(shapes: Shapes, frame: Frame) -> tuple[list[Html], Html]:
    """Cells coloured by how many boxes of shapes cover their centres, and the legend."""
    rows = max(1, round(COVER_CELLS * frame.height / frame.width))
    box = shapely.bounds(shapely.get_parts(shapes))
    west = frame.lon(box[:, 0])
    left, right = (
        np.clip(np.ceil(frame.x(x) / frame.width * COVER_CELLS - 0.5), 0, COVER_CELLS).astype(np.int64)
        for x in (west, west + box[:, 2] - box[:, 0])
    )
    top, bottom = (
        np.clip(np.ceil(frame.y(y) / frame.height * rows - 0.5), 0, rows).astype(np.int64)
        for y in (box[:, 3], box[:, 1])
    )
    change = np.zeros((rows + 1, COVER_CELLS + 1), dtype=np.int64)
    for row, col, by in ((top, left, 1), (top, right, -1), (bottom, left, -1), (bottom, right, 1)):
        np.add.at(change, (row, col), by)
    found = change.cumsum(axis=0).cumsum(axis=1)[:rows, :COVER_CELLS]
    row, col = np.nonzero(found)
    many = found[row, col].astype(np.float64)
    width, height = frame.width / COVER_CELLS, frame.height / rows
    size = np.full(len(row), width), np.full(len(row), height)
    low, high = (float(many.min()), float(many.max())) if len(many) else (0.0, 0.0)
    cells = by_step(steps_of(many, low, high), col * width, row * height, *size)
    return cells, colour_bar(count(int(low)), count(int(high)), "footprints that cover a cell")


def by_step(step: NDArray[np.int64], x: Floats, y: Floats, width: Floats, height: Floats) -> list[Html]:
    """Rectangles coloured by steps of the ramp, a path for each step."""
    found = [(each, np.flatnonzero(step == each)) for each in np.unique(step[step >= 0])]
    return [path(boxes(x[at], y[at], width[at], height[at]), f"cell r{each}") for each, at in found]


def cells_at(lon: Floats, lat: Floats, wide: Floats, tall: Floats, frame: Frame) -> tuple[Floats, ...]:
    """Rectangles (x, y, width, height) of cells around centres, in the drawing; none too small to be seen."""
    across = np.maximum(wide / (frame.east - frame.west) * frame.width, SMALLEST_CELL)
    up = np.maximum(tall / (frame.north - frame.south) * frame.height, SMALLEST_CELL)
    return frame.x(frame.lon(lon)) - across / 2, frame.y(lat) - up / 2, across, up


def graticule(frame: Frame) -> list[Html]:
    """Lines of round longitudes and latitudes, with labels inside the drawing."""
    rounds = angle_ticks if frame.geographic else ticks
    name_x, name_y = (longitude, latitude) if frame.geographic else (number, number)
    drawn = []
    for at, lon in enumerate(rounds(frame.west, frame.east, 6)):
        x = float(frame.x(np.array(lon)))
        if 24 <= x <= frame.width - 24:
            drawn.append(line(x, 0, x, frame.height, "grid"))
            drawn.append(text(x, frame.height - 7, name_x(lon), kind="over odd" if at % 2 else "over"))
    for at, lat in enumerate(rounds(frame.south, frame.north, 5)):
        y = float(frame.y(np.array(lat)))
        if 12 <= y <= frame.height - 26:
            drawn.append(line(0, y, frame.width, y, "grid"))
            drawn.append(text(6, y - 4, name_y(lat), "start", kind="over odd" if at % 2 else "over"))
    return drawn


def extent(frame: Frame) -> str:
    """The coordinates of a map in words."""
    if not frame.geographic:
        return f"x {number(frame.west)} to {number(frame.east)}, y {number(frame.south)} to {number(frame.north)}"
    west, east = longitude(round(frame.west, 3)), longitude(round(frame.east, 3))
    return f"{west} and {east}, {latitude(round(frame.south, 3))} and {latitude(round(frame.north, 3))}"
