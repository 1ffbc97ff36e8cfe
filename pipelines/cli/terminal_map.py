"""Draw footprints as a map of characters: Braille patterns, of which each holds 2 x 4 dots, or ``#``."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from rasterio.enums import MergeAlg
from rasterio.features import rasterize
from rasterio.transform import from_bounds

from rasteret_beam.pages.frames import Frame, frame_of
from rasteret_beam.pages.numbers import latitude, longitude, number

Counts = NDArray[np.int64]

ACROSS, DOWN = 2, 4
"""Dots of a character."""

BITS = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])
"""Of the dots of a Braille pattern, in Unicode from U+2800."""

MOST_ROWS = 24
FEW = 24
"""Footprints that are drawn as outlines; more are filled."""

RAMP = (25, 31, 36, 71, 142, 172)
"""Colours of xterm from few to many records, which can be seen on a dark and on a light ground."""

PLAIN = str.maketrans("┌┐└┘─│", "++++-|")


@dataclass(frozen=True)
class Style:
    """What the terminal shows.

    Attributes
    ----------
    width : int
        Columns.
    unicode : bool
    colour : bool
    """

    width: int
    unicode: bool = True
    colour: bool = False


def map_lines(shapes: Sequence[Any], records: Counts, style: Style, geographic: bool = True) -> list[str]:
    """A map of footprints with the coordinates of its sides.

    Parameters
    ----------
    shapes : [n] shapely polygons
        Those across the antimeridian in two parts, as collections have them.
    records : [n] int64
        How many records have each footprint; with colours, their sum at a place is shown.
    style : Style
    geographic : bool
        The coordinates are longitudes and latitudes in degrees.
    """
    parts, owner = shapely.get_parts(np.asarray(shapes, dtype=object), return_index=True)
    frame = frame_of(shapely.bounds(parts).reshape(-1, 4), 1.0, geographic)
    names = _sides(frame)
    margin = max(len(names["north"]), len(names["south"])) + 1
    columns = max(16, min(style.width, 100) - margin - 2)
    rows = max(2, round(frame.height * columns / 2))
    if rows > MOST_ROWS:
        rows, columns = MOST_ROWS, max(16, round(columns * MOST_ROWS / rows))
    many = _dots(_turned(parts, frame), records[owner], frame, (rows * DOWN, columns * ACROSS), len(shapes) <= FEW)
    lines = _cells(many, style)
    left = [names["north"], *[""] * (rows - 2), names["south"]]
    framed = [f"{name:>{margin - 1}} │{line}│" for name, line in zip(left, lines, strict=True)]
    edge = "─" * columns
    below = names["west"] + names["east"].rjust(columns - len(names["west"]))
    drawn = [f"{'':{margin}}┌{edge}┐", *framed, f"{'':{margin}}└{edge}┘", f"{'':{margin + 1}}{below}"]
    drawn = drawn if style.unicode else [line.translate(PLAIN).replace("°", "") for line in drawn]
    return drawn + (_legend(many, margin + 1) if style.colour else [])


def _sides(frame: Frame) -> dict[str, str]:
    """The coordinates of the sides, to a hundredth of the extent."""
    digits = max(0, 2 - int(np.floor(np.log10(max(frame.east - frame.west, frame.north - frame.south)))))
    across, up = (longitude, latitude) if frame.geographic else (number, number)
    named = {"west": across, "east": across, "south": up, "north": up}
    return {side: name(round(float(getattr(frame, side)), digits)) for side, name in named.items()}


def _turned(parts: NDArray[np.object_], frame: Frame) -> NDArray[np.object_]:
    """Polygons in the turn of longitudes that the frame shows."""
    if not frame.geographic:
        return parts
    bounds = shapely.bounds(parts)
    middle = (frame.west + frame.east) / 2
    turn = 360.0 * np.round((middle - (bounds[:, 0] + bounds[:, 2]) / 2) / 360.0)
    moved = parts.copy()
    for by in np.unique(turn[turn != 0]):
        moved[turn == by] = shapely.transform(parts[turn == by], lambda xy, by=by: xy + np.array([by, 0.0]))
    return moved


def _dots(parts: NDArray[np.object_], records: Counts, frame: Frame, shape: tuple[int, int], outlined: bool) -> Counts:
    """The number of records at each dot; a polygon has a dot at least."""
    affine = from_bounds(frame.west, frame.south, frame.east, frame.north, shape[1], shape[0])
    boxes = shapely.bounds(parts)
    is_box = np.isclose(shapely.area(parts), (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]), rtol=1e-9)
    if outlined:
        drawn = shapely.boundary(parts)
        pairs = list(zip(drawn.tolist(), records.tolist(), strict=True))
        return rasterize(pairs, shape, transform=affine, merge_alg=MergeAlg.add, all_touched=False, dtype="int64")
    many = _of_boxes(boxes[is_box], records[is_box], affine, shape)
    pairs = list(zip(parts[~is_box].tolist(), records[~is_box].tolist(), strict=True))
    if pairs:
        many += rasterize(pairs, shape, transform=affine, merge_alg=MergeAlg.add, dtype="int64")
        centres = shapely.get_coordinates(shapely.point_on_surface(parts[~is_box]))
        cols, rows = ~affine * (centres[:, 0], centres[:, 1])
        at = np.clip(rows.astype(int), 0, shape[0] - 1), np.clip(cols.astype(int), 0, shape[1] - 1)
        np.maximum.at(many, at, records[~is_box])
    return many


def _of_boxes(boxes: NDArray[np.float64], records: Counts, affine: Any, shape: tuple[int, int]) -> Counts:
    """As :func:`_dots`, for any number of boxes: sums of where they begin and end."""
    left, top = ~affine * (boxes[:, 0], boxes[:, 3])
    right, bottom = ~affine * (boxes[:, 2], boxes[:, 1])
    first_col, end_col = _span(left, right, shape[1])
    first_row, end_row = _span(top, bottom, shape[0])
    change = np.zeros((shape[0] + 1, shape[1] + 1), dtype=np.int64)
    np.add.at(change, (first_row, first_col), records)
    np.add.at(change, (first_row, end_col), -records)
    np.add.at(change, (end_row, first_col), -records)
    np.add.at(change, (end_row, end_col), records)
    return change.cumsum(axis=0).cumsum(axis=1)[:-1, :-1]


def _span(low: NDArray[np.float64], high: NDArray[np.float64], size: int) -> tuple[Counts, Counts]:
    """The dots whose centres are between two places, as first and end; at least one."""
    first = np.clip(np.floor(low + 0.5), 0, size - 1).astype(np.int64)
    return first, np.clip(np.floor(high + 0.5).astype(np.int64), first + 1, size)


def _cells(many: Counts, style: Style) -> list[str]:
    """Lines of characters, each for its dots."""
    rows, columns = many.shape[0] // DOWN, many.shape[1] // ACROSS
    dots = many.reshape(rows, DOWN, columns, ACROSS).swapaxes(1, 2)
    code = ((dots > 0) * BITS).sum(axis=(2, 3))
    highest = dots.max(axis=(2, 3))
    step = _steps(highest)
    character = np.array([" ", *map(chr, range(0x2801, 0x2900))] if style.unicode else [" ", *"#" * 255])
    if not style.colour:
        return ["".join(character[line]) for line in code]
    return [_coloured(character[line], step[at]) for at, line in enumerate(code)]


def _steps(many: Counts) -> Counts:
    """The colour for each number of records: evenly from the least to the greatest, -1 for none."""
    there = many[many > 0]
    if not len(there):
        return np.full(many.shape, -1)
    low, high = int(there.min()), int(there.max())
    step = (many - low) * (len(RAMP) - 1) // max(1, high - low)
    return np.where(many > 0, step, -1)


def _coloured(characters: NDArray[np.str_], step: Counts) -> str:
    """Characters with a code where the colour changes."""
    line, before = "", -1
    for character, now in zip(characters.tolist(), step.tolist(), strict=True):
        if now != before:
            line += f"\033[38;5;{RAMP[now]}m" if now >= 0 else "\033[0m"
            before = now
        line += character
    return line + ("\033[0m" if before >= 0 else "")


def _legend(many: Counts, margin: int) -> list[str]:
    there = many[many > 0]
    if not len(there) or there.min() == there.max():
        return []
    bar = "".join(f"\033[38;5;{colour}m■" for colour in RAMP)
    return [f"{'':{margin}}{there.min():,} {bar}\033[0m {there.max():,} records"]
