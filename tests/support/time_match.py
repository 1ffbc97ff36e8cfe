"""Which records points should be matched with: brute force over all pairs, with pandas, pyproj and shapely."""

from dataclasses import dataclass, field
from functools import cache, partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pyproj
import shapely
from hypothesis import strategies as st

from rasteret_beam.kernels.geo.grids import GridTable
from rasteret_beam.kernels.routing.index import RoutingIndex, build_index
from rasteret_beam.kernels.routing.layers import NO_DATETIME, Layers
from rasteret_beam.model import Grid, MatchRules
from rasteret_beam.schema import points_schema

projector = cache(partial(pyproj.Transformer.from_crs, always_xy=True))

ZONES = ("EPSG:32631", "EPSG:32632")
EAST, NORTH = (int(value) for value in projector("EPSG:4326", ZONES[0]).transform(6, 52))
HOUR = 3_600_000_000

COLUMNS = ["point", "record", "band", "moment", "order", "depth"]


@dataclass(frozen=True)
class Scene:
    """A record: its datetime in microseconds or None, and the grid of each band."""

    id: str
    moment: int | None
    grids: dict[str, Grid] = field(default_factory=dict)


def index_of(scenes: list[Scene], rules: MatchRules, bands: list[str] | None = None) -> RoutingIndex:
    """The routing index of scenes, as a collection has it: the bands of a record on one grid are one layer.

    ``bands`` are those to sample, by default all.
    """
    grids = list(dict.fromkeys(grid for scene in scenes for grid in scene.grids.values()))
    layers, bandsets = [], []
    for number, scene in enumerate(scenes):
        for grid in dict.fromkeys(scene.grids.values()):
            on_grid = tuple(sorted(band for band, its_grid in scene.grids.items() if its_grid == grid))
            if on_grid not in bandsets:
                bandsets.append(on_grid)
            layers.append((number, grids.index(grid), bandsets.index(on_grid)))
    moments = [NO_DATETIME if scene.moment is None else scene.moment for scene in scenes]
    return build_index(
        [scene.id for scene in scenes],
        np.array(moments, dtype=np.int64),
        GridTable.from_grids(grids),
        [grid.crs for grid in grids],
        Layers(*np.array(layers, dtype=np.int64).reshape(-1, 3).T, bandsets),
        rules,
        bands,
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


def ranked(found: pd.DataFrame, times: list[int | None], rules: MatchRules) -> dict[tuple[int, str], list[str]]:
    """For each point and band, the records in question, the best one first."""
    in_time = rules.time_column is not None
    best_first = {}
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
        best_first[point, band] = [row["record"] for row in rows]
    return best_first


def expected(
    found: pd.DataFrame, times: list[int | None], rules: MatchRules
) -> tuple[set[tuple[int, str, str]], dict[int, str]]:
    """The (point, record, band) that are taken of the candidates, and the reasons of the other points."""
    in_time = rules.time_column is not None
    taken: set[tuple[int, str, str]] = set()
    for (point, band), records in ranked(found, times, rules).items():
        most = rules.limit or (len(records) if rules.match == "all" else 1)
        taken |= {(point, record, band) for record in records[:most]}
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


def grid_near(zone: str, east: int, north: int, pixel: int = 10, size: int = 400) -> Grid:
    """A square of so many metres whose upper left corner is so many metres from 6 degrees east, 52 north."""
    x, y = projector(ZONES[0], zone).transform(EAST, NORTH)
    left, top = round(x / 20) * 20 + east, round(y / 20) * 20 + north
    side = size // pixel
    return Grid(zone, (float(pixel), 0.0, float(left), 0.0, -float(pixel), float(top)), side, side, 16, 16)


def points_of(
    places: list[tuple[int, int]], times: list[int | None], kind: pa.DataType | None = None
) -> pa.RecordBatch:
    east = [EAST + x + 0.1234 for x, _ in places]
    north = [NORTH + y + 0.3456 for _, y in places]
    moments = pa.array(times, pa.timestamp("us"))
    arrays = [
        pa.array(range(len(places)), pa.int64()),
        pa.array(east),
        pa.array(north),
        moments.cast(kind or moments.type),
    ]
    kept = [pa.field("when", arrays[-1].type)]
    return pa.RecordBatch.from_arrays(arrays, schema=points_schema(kept, ZONES[0]))


moments = st.none() | st.integers(-3, 12).map(lambda hours: hours * HOUR)


@st.composite
def collections(draw: st.DrawFn) -> list[Scene]:
    """Some scenes on a few grids in two zones that overlap; some lack a band, or have it on a coarser grid."""
    corner = st.sampled_from([(-300, 300), (-200, 300), (-300, 200), (0, 200), (-100, 100)])
    grids = [
        (grid_near(zone, *at, pixel=10), grid_near(zone, *at, pixel=20))
        for zone, at in draw(st.lists(st.tuples(st.sampled_from(ZONES), corner), min_size=1, max_size=4, unique=True))
    ]
    scenes = []
    for number in range(draw(st.integers(1, 9))):
        fine, coarse = draw(st.sampled_from(grids))
        bands = draw(st.sampled_from([{"A": fine}, {"A": fine, "B": fine}, {"A": fine, "B": coarse}, {"B": coarse}]))
        moment = draw(moments)
        seconds = draw(st.sampled_from([0, 0, 30, 60, 61])) * 1_000_000
        scenes.append(Scene(f"r{number}", None if moment is None else moment + seconds, bands))
    return scenes


@st.composite
def all_rules(draw: st.DrawFn) -> MatchRules:
    match = draw(st.sampled_from(["all", "latest", "nearest", "before", "after"]))
    tolerance = draw(st.none() | st.sampled_from([0, HOUR, 2 * HOUR + 60_000_000])) if match != "latest" else None
    limit = draw(st.none() | st.integers(1, 3)) if match != "latest" else None
    in_time = match in ("nearest", "before", "after") or tolerance is not None or limit is not None
    overlap = draw(st.sampled_from(["all", "first"]))
    apart = draw(st.sampled_from([0, 60_000_000, 2 * HOUR])) if overlap == "first" else 60_000_000
    return MatchRules(match, "when" if in_time else None, tolerance, limit, overlap, apart)
