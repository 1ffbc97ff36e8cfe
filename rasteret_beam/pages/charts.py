"""Charts as SVG, from arrays that are already counted: histograms, bars over time, stacked shares."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.pages.colours import Floats
from rasteret_beam.pages.markup import Content, Html, tag
from rasteret_beam.pages.numbers import count, day, number, share, short, ticks
from rasteret_beam.pages.svg import boxes, drawing, every_other, figure, legend, line, path, text

WIDTH, HEIGHT = 480.0, 232.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 12.0, 24.0, 30.0
ROW = 34.0

Counts = NDArray[np.int64] | Floats
Dates = NDArray[Any]
"""Of datetime64."""


def histogram(
    edges: Floats, counts: Counts, marks: Mapping[str, float] | None = None, *, title: str, caption: Content = ""
) -> Html:
    """Bars of counts between edges [n + 1], with some values marked, such as quantiles."""
    low, high = float(edges[0]), float(edges[-1])
    place = lambda value: LEFT + (np.asarray(value) - low) / ((high - low) or 1.0) * (WIDTH - LEFT - RIGHT)  # noqa: E731
    top = float(np.max(counts, initial=0.0)) or 1.0
    x = place(edges)
    bars = _bars(x[:-1], np.diff(x), counts, top)
    shown = [each for each in ticks(low, high, 5) if low <= each <= high]
    below = [
        text(float(place(each)), HEIGHT - 10, short(each), kind=kind)
        for each, kind in zip(shown, every_other(len(shown)), strict=True)
    ]
    marked = []
    for name, value in (marks or {}).items():
        at = float(place(value))
        if low <= value <= high:
            marked.append(line(at, TOP - 4, at, HEIGHT - BOTTOM, "mark"))
            marked.append(text(at, TOP - 9, name, kind="strong" if name == "median" else "odd"))
    quantiles = "; ".join(f"{name} {number(value)}" for name, value in (marks or {}).items())
    about = f"{count(round(float(np.sum(counts))))} values from {number(low)} to {number(high)}. {quantiles}"
    return figure(drawing(WIDTH, HEIGHT, title, about, _count_axis(top), bars, below, marked), caption=caption)


def _bars(x: Floats, width: Floats, counts: Counts, top: float) -> list[Html]:
    """A path for each bar, with its count on hover; bars that are there are at least a pixel high."""
    tall = np.asarray(counts, dtype=np.float64) / top * (HEIGHT - TOP - BOTTOM)
    tall = np.where((tall > 0) & (tall < 1.0), 1.0, tall)
    gap = np.where(width > 4, 1.0, 0.0)
    return [
        path(
            boxes(*(np.array([each]) for each in (x[at], HEIGHT - BOTTOM - tall[at], width[at] - gap[at], tall[at]))),
            "bar",
            count(round(float(counts[at]))),
        )
        for at in np.flatnonzero(tall)
    ]


def _count_axis(top: float) -> list[Html]:
    drawn = []
    for each in ticks(0.0, top, 4):
        y = HEIGHT - BOTTOM - each / top * (HEIGHT - TOP - BOTTOM)
        drawn.append(line(LEFT, y, WIDTH - RIGHT, y, "line" if each else "axis"))
        drawn.append(text(LEFT - 8, y + 4, short(each), "end"))
    return drawn


def time_bars(edges: Dates, counts: Counts, *, title: str, caption: Content = "") -> Html:
    """Bars of counts between dates [n + 1]."""
    place = edges.astype("M8[s]").astype(np.int64).astype(np.float64)
    low, high = place[0], place[-1]
    x = LEFT + (place - low) / ((high - low) or 1.0) * (WIDTH - LEFT - RIGHT)
    top = float(np.max(counts, initial=0.0)) or 1.0
    shown = _date_ticks(edges[0], edges[-1])
    seconds = shown.astype("M8[s]").astype(np.int64)
    at = LEFT + (seconds - low) / ((high - low) or 1.0) * (WIDTH - LEFT - RIGHT)
    names = [str(each) for each in shown]
    below = [
        text(float(np.clip(where, LEFT + 14, WIDTH - 28)), HEIGHT - 10, name, kind=kind)
        for where, name, kind in zip(at, names, every_other(len(names)), strict=True)
    ]
    about = f"{count(round(float(np.sum(counts))))} between {day(edges[0])} and {day(edges[-1])}."
    bars = _bars(x[:-1], np.diff(x), counts, top)
    return figure(drawing(WIDTH, HEIGHT, title, about, _count_axis(top), bars, below), caption=caption)


def _date_ticks(first: Any, last: Any) -> Dates:
    """Starts of years, months or days between two dates, about five, in that unit."""
    for unit, steps in (("Y", (100, 50, 20, 10, 5, 2, 1)), ("M", (6, 3, 2, 1)), ("D", (10, 5, 2, 1))):
        whole = np.arange(first.astype(f"M8[{unit}]"), last.astype(f"M8[{unit}]") + 1)
        whole = whole[(whole >= first) & (whole <= last)]
        for step in steps:
            found = whole[whole.astype(np.int64) % step == 0] if unit != "D" else whole[::step]
            if len(found) >= 4:
                return found
    return np.array([first.astype("M8[D]")])


def stacked_shares(rows: Sequence[tuple[str, Mapping[str, int]]], *, title: str, caption: Content = "") -> Html:
    """A bar for each row, cut into shares of its sum: [(label, {kind: count})]; kinds have the same order in all."""
    kinds = list(dict.fromkeys(kind for _, parts in rows for kind in parts))
    height = ROW * len(rows) + 4
    drawn: list[Html] = []
    for at, (label, parts) in enumerate(rows):
        total, y, x = sum(parts.values()), at * ROW, 0.0
        drawn.append(text(0, y + 13, label, "start", "strong"))
        drawn.append(text(WIDTH, y + 13, count(total), "end"))
        drawn.append(tag("rect", x="0", y=f"{y + 18:.1f}", width=f"{WIDTH:g}", height="9", class_="sea"))
        for kind, many in parts.items():
            wide = many / total * WIDTH if total else 0.0
            data = boxes(*(np.array([each]) for each in (x, y + 18, wide, 9.0)))
            hover = f"{label}, {kind}: {count(many)} ({share(many, total)})"
            drawn.append(path(data, f"k{kinds.index(kind) % 8}", hover) if many else Html(""))
            x += wide
    sums = {kind: sum(parts.get(kind, 0) for _, parts in rows) for kind in kinds}
    whole = sum(sums.values())
    entries = {
        kind: (f"k{kinds.index(kind) % 8}", f"{count(sums[kind])} ({share(sums[kind], whole)})") for kind in kinds
    }
    about = "; ".join(f"{kind}: {after}" for kind, (_, after) in entries.items())
    return figure(drawing(WIDTH, height, title, about, drawn), legend(entries), caption=caption)
