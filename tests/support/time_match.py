"""Which records points should be matched with: brute force over all pairs, with pandas, pyproj and shapely."""

from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np
import pandas as pd
import pyproj
import shapely

from rasteret_beam.kernels.geo.grids import GridTable
from rasteret_beam.kernels.routing.index import RoutingIndex, build_index
from rasteret_beam.kernels.routing.layers import NO_DATETIME, Layers
from rasteret_beam.model import Grid, MatchRules

projector = cache(partial(pyproj.Transformer.from_crs, always_xy=True))

COLUMNS = ["point", "record", "band", "moment", "order", "depth"]


@dataclass(frozen=True)
class Scene:
    """A record: its datetime in microseconds or None, and the grid of each band."""

    id: str
    moment: int | None
    grids: dict[str, Grid] = field(default_factory=dict)


def index_of(scenes: list[Scene], rules: MatchRules) -> RoutingIndex:
    """The routing index of scenes, as a collection has it: the bands of a record on one grid are one layer."""
    grids = list(dict.fromkeys(grid for scene in scenes for grid in scene.grids.values()))
    layers, bandsets = [], []
    for number, scene in enumerate(scenes):
        for grid in dict.fromkeys(scene.grids.values()):
            bands = tuple(sorted(band for band, its_grid in scene.grids.items() if its_grid == grid))
            if bands not in bandsets:
                bandsets.append(bands)
            layers.append((number, grids.index(grid), bandsets.index(bands)))
    moments = [NO_DATETIME if scene.moment is None else scene.moment for scene in scenes]
    return build_index(
        [scene.id for scene in scenes],
        np.array(moments, dtype=np.int64),
        GridTable.from_grids(grids),
        [grid.crs for grid in grids],
        Layers(*np.array(layers, dtype=np.int64).reshape(-1, 3).T, bandsets),
        rules,
    )


def candidates(scenes: list[Scene], crs: str, x: np.ndarray, y: np.ndarray) -> pd.DataFrame:
    """A row for each point, record and band whose grid holds the point, half open; with metres from the grid's edge."""
    inside = {grid: _inside(grid, crs, x, y) for scene in scenes for grid in scene.grids.values()}
    rows = [
        (point, scene.id, band, scene.moment, order, depth)
        for order, scene in enumerate(scenes)
        for band, grid in scene.grids.items()
        for point, depth in inside[grid].items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS, dtype=object)  # or None would become NaN


def _inside(grid: Grid, crs: str, x: np.ndarray, y: np.ndarray) -> dict[int, float]:
    """The points that a grid holds, each with its metres from the edge."""
    east, north = projector(crs, grid.crs).transform(x, y)
    corners = [(0, 0), (0, grid.width), (grid.height, grid.width), (grid.height, 0)]
    edge = shapely.linearrings([grid.to_world(row, col) for row, col in corners])
    depth = shapely.distance(edge, shapely.points(east, north)).round(3)
    row, col = grid.to_pixel(east, north)
    held = (row >= 0) & (row < grid.height) & (col >= 0) & (col < grid.width)
    return {int(point): float(depth[point]) for point in np.flatnonzero(held)}


def expected(
    found: pd.DataFrame, times: list[int | None], rules: MatchRules
) -> tuple[set[tuple[int, str, str]], dict[int, str]]:
    """The (point, record, band) that are taken of the candidates, and the reasons of the other points."""
    in_time = rules.time_column is not None
    taken: set[tuple[int, str, str]] = set()
    for (point, band), group in found.groupby(["point", "band"]):
        time = times[point]
        rows = group.to_dict("records")
        if in_time:
            rows = [row for row in rows if time is not None and _suits(row["moment"], time, rules)]
        if rules.overlap == "first":
            rows = _one_of_each_moment(rows, rules.overlap_tolerance)
        if rules.match == "latest":
            rows.sort(key=lambda row: (row["moment"] is None, -(row["moment"] or 0), row["order"]))
        elif in_time:
            rows.sort(key=lambda row: (abs(row["moment"] - time), row["moment"], row["order"]))
        most = rules.limit or (len(rows) if rules.match == "all" else 1)
        taken |= {(point, row["record"], band) for row in rows[:most]}
    held = set(found["point"])
    left = set(range(len(times))) - {point for point, *_ in taken}
    reasons = {
        point: "no_time" if in_time and times[point] is None else "out_of_tolerance" if point in held else "no_record"
        for point in left
    }
    return taken, reasons


def _suits(moment: int | None, time: int, rules: MatchRules) -> bool:
    if moment is None or (rules.tolerance is not None and abs(moment - time) > rules.tolerance):
        return False
    return {"before": moment <= time, "after": moment >= time}.get(rules.match, True)


def _one_of_each_moment(rows: list[dict], apart: int) -> list[dict]:
    """The deepest of those at most so far apart, one after the other; those without a datetime stay."""
    groups: list[list[dict]] = []
    for row in sorted(rows, key=lambda row: (row["moment"] is not None, row["moment"] or 0, row["order"])):
        last = groups[-1][-1]["moment"] if groups else None
        if last is not None and row["moment"] is not None and row["moment"] - last <= apart:
            groups[-1].append(row)
        else:
            groups.append([row])
    return [min(group, key=lambda row: (-row["depth"], row["order"])) for group in groups]
