"""Routing against brute force: every point compared with every grid of every record, with pyproj and affine alone."""

import math
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyproj
import pytest
import rasterio
import rasterio.warp
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import rowcol

from rasteret_beam.errors import InputError
from rasteret_beam.kernels.geo.crs import crs_text, epsg_code, full_turn, same_crs, transform
from rasteret_beam.kernels.geo.footprints import footprint
from rasteret_beam.kernels.geo.grids import GridTable, inside, pixel_positions
from rasteret_beam.kernels.geo.regions import Region, region_of_box
from rasteret_beam.kernels.routing.chunks import ChunkRules, Routed, block_shapes, route
from rasteret_beam.kernels.routing.index import RoutingIndex, build_index, locate
from rasteret_beam.kernels.routing.layers import NO_DATETIME, Layers
from rasteret_beam.kernels.routing.match import matcher_of
from rasteret_beam.model import Grid, TileKey
from rasteret_beam.schema import PIXEL, POINT_EPSG_KEY, POINT_EXACT_CRS_KEY, POSITION, points_schema
from tests.support.properties import examples
from tests.support.rasters import pixel_of

BANDS = ("A", "B", "C")
FIRST_INDEX = 1000
SINUSOIDAL = pyproj.CRS("+proj=sinu +R=6371007.181 +type=crs").to_wkt()
QUICK = settings(deadline=None, derandomize=True, max_examples=examples(100))
QUICKER = settings(QUICK, max_examples=examples(50))


# Collections and points, in plain Python.


@dataclass(frozen=True)
class Record:
    """A record: its bands and the grid of each; ``moment`` in microseconds, or None."""

    id: str
    moment: int | None
    grids: dict[str, Grid]


class Sample(NamedTuple):
    point: int
    record: str
    band: str
    row: int
    col: int


Place = tuple[float | None, float | None]


@cache
def projector(source: str, target: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def project(source: str, target: str, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    return projector(source, target).transform(np.asarray(x, float), np.asarray(y, float), errcheck=False)


def place_of(affine: tuple[float, ...], col: Any, row: Any) -> tuple[Any, Any]:
    a, b, c, d, e, f = affine
    return col * a + row * b + c, col * d + row * e + f


def grid_at(crs: str, transform: tuple[float, ...], width: int = 8, height: int = 8, tile: int = 3) -> Grid:
    return Grid(crs, transform, width, height, tile, tile)  # type: ignore[arg-type]


def one_band(grid: Grid, name: str = "only", moment: int | None = None) -> Record:
    return Record(name, moment, {"A": grid})


def index_of(records: list[Record], match: str = "all") -> RoutingIndex:
    grids = list(dict.fromkeys(grid for record in records for grid in record.grids.values()))
    layers, bandsets = [], []
    for number, record in enumerate(records):
        for grid in dict.fromkeys(record.grids.values()):
            bands = tuple(band for band in BANDS if record.grids.get(band) == grid)
            if bands not in bandsets:
                bandsets.append(bands)
            layers.append((number, grids.index(grid), bandsets.index(bands)))
    columns = np.array(layers, dtype=np.int64).reshape(-1, 3).T
    return build_index(
        [record.id for record in records],
        np.array([NO_DATETIME if record.moment is None else record.moment for record in records], dtype=np.int64),
        GridTable.from_grids(grids),
        [grid.crs for grid in grids],
        Layers(*columns, bandsets),
        match,
    )


def batch_of(points: list[Place], crs: str | None) -> pa.RecordBatch:
    columns = [
        pa.array(range(FIRST_INDEX, FIRST_INDEX + len(points)), pa.int64()),
        pa.array([x for x, _ in points], pa.float64()),
        pa.array([y for _, y in points], pa.float64()),
        pa.array([-number for number in range(len(points))], pa.int32()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=points_schema([pa.field("kept", pa.int32())], crs))


# The oracle.


def whole_turns(crs: str) -> list[float]:
    return [0.0, -360.0, 360.0, -720.0, 720.0] if pyproj.CRS(crs).is_geographic else [0.0]


def pixel(grid: Grid, turns: list[float], x: float, y: float) -> tuple[int, int] | None:
    if not (math.isfinite(x) and math.isfinite(y)):
        return None
    inverse = tuple(~Affine(*grid.transform))[:6]
    for turn in turns:
        col, row = (math.floor(value) for value in place_of(inverse, x + turn, y))
        if 0 <= row < grid.height and 0 <= col < grid.width:
            return row, col
    return None


def usable(crs: str, x: float | None, y: float | None) -> str | None:
    """Why a point has no place on earth, or None."""
    if x is None or y is None:
        return "null"
    if not (math.isfinite(x) and math.isfinite(y)):
        return "not_finite"
    in_degrees = pyproj.CRS(crs).is_geographic
    return "out_of_range" if in_degrees and (abs(x) > 360 or abs(y) > 90) else None


def brute_force(records: list[Record], crs: str, points: list[Place]) -> set[Sample]:
    """Every (point, record, band) where the grid of the band contains the point."""
    good = [number for number, (x, y) in enumerate(points) if usable(crs, x, y) is None]
    given_x, given_y = [points[n][0] for n in good], [points[n][1] for n in good]
    found = set()
    for grid in {grid for record in records for grid in record.grids.values()}:
        turns = whole_turns(grid.crs)
        x, y = (values.tolist() for values in project(crs, grid.crs, given_x, given_y))
        for number, *place in zip(good, x, y, strict=True):
            where = pixel(grid, turns, *place)
            for record in records if where is not None else ():
                for band in (band for band, its_grid in record.grids.items() if its_grid == grid):
                    found.add(Sample(number, record.id, band, *where))
    return found


def newest_of(records: list[Record], samples: set[Sample]) -> set[Sample]:
    """Of the samples of each point and band, that of the newest record; without datetime last, then in order."""
    age = {record.id: (record.moment is None, -(record.moment or 0), number) for number, record in enumerate(records)}
    best: dict[tuple[int, str], Sample] = {}
    for sample in sorted(samples, key=lambda sample: age[sample.record]):
        best.setdefault((sample.point, sample.band), sample)
    return set(best.values())


def samples_of(index: RoutingIndex, records: list[Record], routed: Routed) -> set[Sample]:
    """What routing says; checks that nothing comes twice, and that keys name the grid of each band."""
    by_id = {record.id: record for record in records}
    found = []
    for key, chunk in routed.chunks:
        grid, bands = index.grid_of(key)
        assert (grid, bands) == (index.grid(key.grid), index.layers.bandsets[key.bandset])
        assert index.grid_crs[key.grid] == grid.crs
        assert all(by_id[key.record_id].grids[band] == grid for band in bands)
        columns = (chunk.column(name).to_pylist() for name in ("point_index", *PIXEL))
        for (number, row, col), band in product(zip(*columns, strict=True), bands):
            found.append(Sample(number - FIRST_INDEX, key.record_id, band, row, col))
    assert len(set(found)) == len(found)
    return set(found)


def samples(records: list[Record], crs: str, points: list[Place], match: str = "all", **rules: int) -> set[Sample]:
    index = index_of(records, match)
    return samples_of(index, records, route(index, batch_of(points, crs), None, ChunkRules(**rules)))


# Random collections. Pixel sizes are powers of two, so that corners of pixels are exact in every arithmetic.

AROUND = {
    "zone edge": ((6.0, 52.0), ("EPSG:32631", "EPSG:32632", "EPSG:4326", "EPSG:3857")),
    "antimeridian": ((180.0, 52.0), ("EPSG:32660", "EPSG:32601", "EPSG:4326", "EPSG:4269", "EPSG:3857")),
    "antimeridian, south": ((-180.0, -17.0), ("EPSG:32701", "EPSG:32760", "EPSG:4326", "EPSG:3832")),
    "north pole": ((0.0, 90.0), ("EPSG:3413", "EPSG:3995", "EPSG:4326", "EPSG:4269")),
    "south pole": ((0.0, -90.0), ("EPSG:3031", "EPSG:4326")),
    "0..360": ((240.0, 49.0), ("EPSG:4269", "EPSG:4326", "EPSG:32610", "EPSG:32611")),
}
LONLATS = ("EPSG:4326", "OGC:CRS84", "EPSG:4269")
TURNS = (-360.0, 0.0, 360.0)
MATRICES = ((1, 0, 0, -1), (1, 0, 0, 1), (-1, 0, 0, -1), (1, 1, 1, -1), (2, 0.5, 0, -1))
"""North-up, south-up, east on the left, rotated, sheared: factors of the pixel size."""
WORLDS = tuple(
    Grid(crs, (45.0, 0.0, west, 0.0, -45.0, 90.0), 8, 4, 3, 2)
    for crs, west in product(("EPSG:4326", "EPSG:4269"), (-180.0, 0.0))
)
ODD = (
    *((None, 5.0), (5.0, None), (None, math.nan), (None, math.inf), (math.nan, 5.0), (5.0, math.nan)),
    *((math.inf, 5.0), (math.nan, 95.0), (5.0, -math.inf), (361.0, 5.0), (-360.5, 5.0), (5.0, 90.001), (5.0, -91.0)),
    *((360.0, 90.0), (-360.0, -90.0), (180.0, 0.0), (-180.0, 0.0), (0.0, 0.0), (0.0, 90.0), (1e9, 1e9), (1e300, 0.0)),
)


@dataclass(frozen=True)
class Scene:
    """A collection and points to find in it; ``crs`` is that of the points."""

    records: list[Record]
    crs: str
    points: list[Place]


def small_grid(draw: Any, crs: str, lon: float, lat: float) -> Grid:
    """A grid of a few pixels around, or next to, a place."""
    degrees = pyproj.CRS(crs).is_geographic
    size = draw(st.sampled_from((2.0**-6, 2.0**-4) if degrees else (1024.0, 4096.0)))
    x, y = (float(value) for value in project("EPSG:4326", crs, lon, lat))
    if degrees:
        x += draw(st.sampled_from(TURNS if abs(x) < 180 else (0.0, -2 * x)))
    width, height = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    col, row = draw(st.integers(-2, width + 2)), draw(st.integers(-2, height + 2))
    a, b, d, e = (value * size for value in draw(st.sampled_from(MATRICES)))
    corner = size / 4
    left, top = corner * round((x - a * col - b * row) / corner), corner * round((y - d * col - e * row) / corner)
    return Grid(crs, (a, b, left, d, e, top), width, height, draw(st.integers(1, 4)), draw(st.integers(1, 4)))


def some_record(draw: Any, number: int, grids: list[Grid]) -> Record:
    bands = draw(st.lists(st.sampled_from(BANDS), min_size=1, max_size=3, unique=True))
    chosen = {band: draw(st.sampled_from(grids)) for band in sorted(bands)}
    if draw(st.booleans()):
        chosen = dict.fromkeys(chosen, next(iter(chosen.values())))
    return Record(f"r{number}", draw(st.sampled_from((None, -5, 0, 7, 7, 9))), chosen)


def some_point(draw: Any, crs: str, grids: list[Grid]) -> Place:
    """A place on a grid, on its edges and corners, or just beside them; or no place at all."""
    if draw(st.integers(0, 5)) == 0:
        return draw(st.sampled_from(ODD))
    grid = draw(st.sampled_from(grids))
    col = draw(st.integers(-4, 4 * grid.width + 4)) / 4 + draw(st.sampled_from((0.0, 2.0**-12, -(2.0**-12))))
    row = draw(st.integers(-4, 4 * grid.height + 4)) / 4 + draw(st.sampled_from((0.0, 2.0**-12, -(2.0**-12))))
    x, y = (float(value) for value in project(grid.crs, crs, *place_of(grid.transform, col, row)))
    if pyproj.CRS(crs).is_geographic:
        x += draw(st.sampled_from(TURNS))
    return x, y


@st.composite
def scenes(draw: Any) -> Scene:
    grids, point_crs = [], list(LONLATS)
    for name in draw(st.lists(st.sampled_from(sorted(AROUND)), min_size=1, max_size=2, unique=True)):
        (lon, lat), names = AROUND[name]
        point_crs.append(names[0])
        for crs in draw(st.lists(st.sampled_from(names), min_size=1, unique=True)):
            count = draw(st.sampled_from((1, 2, 10)))
            grids += [small_grid(draw, crs, lon, lat) for _ in range(count)]
    grids += draw(st.lists(st.sampled_from(WORLDS), max_size=2, unique=True))
    grids = list(dict.fromkeys(grids))
    records = [some_record(draw, number, grids) for number in range(draw(st.integers(1, 2 * len(grids))))]
    crs = draw(st.sampled_from(point_crs))
    return Scene(records, crs, [some_point(draw, crs, grids) for _ in range(draw(st.integers(1, 40)))])


def some_rules() -> st.SearchStrategy[ChunkRules]:
    return st.builds(
        ChunkRules,
        block=st.tuples(st.integers(1, 3), st.integers(1, 3)),
        max_bytes=st.integers(64, 600),
        group_bytes=st.integers(64, 2000),
    )


# Properties of routing.


@QUICK
@given(scenes())
def test_all_is_brute_force(scene: Scene) -> None:
    assert samples(scene.records, scene.crs, scene.points) == brute_force(scene.records, scene.crs, scene.points)


@QUICK
@given(scenes())
def test_latest_is_the_newest_of_brute_force(scene: Scene) -> None:
    every = brute_force(scene.records, scene.crs, scene.points)
    assert samples(scene.records, scene.crs, scene.points, "latest") == newest_of(scene.records, every)


@QUICKER
@given(scenes(), st.sampled_from(("all", "latest")))
def test_every_point_is_sampled_or_has_its_reason(scene: Scene, match: str) -> None:
    hit = {sample.point for sample in brute_force(scene.records, scene.crs, scene.points)}
    wanted = {
        FIRST_INDEX + number: usable(scene.crs, x, y) or "no_record"
        for number, (x, y) in enumerate(scene.points)
        if number not in hit
    }
    batch = batch_of(scene.points, scene.crs)
    routed = route(index_of(scene.records, match), batch, None, ChunkRules())
    left = routed.unsampled
    assert dict(zip(left["point_index"].to_pylist(), left["reason"].to_pylist(), strict=True)) == wanted
    assert routed.reasons == Counter(wanted.values())
    assert routed.sampled == len(hit)
    assert routed.sampled + len(left) == len(batch)
    assert left["kept"].to_pylist() == [FIRST_INDEX - number for number in wanted]
    assert set(left["point_crs"].to_pylist()) <= {epsg(scene.crs)}


def epsg(crs: str) -> int:
    return 4326 if crs == "OGC:CRS84" else int(crs.removeprefix("EPSG:"))


@QUICKER
@given(scenes(), some_rules(), st.sampled_from(("all", "latest")))
def test_chunks_keep_their_rules_and_lose_nothing(scene: Scene, rules: ChunkRules, match: str) -> None:
    index, batch = index_of(scene.records, match), batch_of(scene.points, scene.crs)
    chunks = list(route(index, batch, None, rules).chunks)
    for key, chunk in chunks:
        check_chunk(index, batch, rules, key, chunk)
    routed = Routed(iter(chunks), 0, batch, {})
    assert samples_of(index, scene.records, routed) == samples(scene.records, scene.crs, scene.points, match)


@QUICKER
@given(scenes(), st.integers(1, 3), st.sampled_from(("all", "latest")))
def test_small_chunks_have_a_key_each(scene: Scene, block: int, match: str) -> None:
    routed = route(
        index_of(scene.records, match), batch_of(scene.points, scene.crs), None, ChunkRules(block=(block, block))
    )
    assert max(Counter(key for key, _ in routed.chunks).values(), default=1) == 1


def check_chunk(
    index: RoutingIndex, batch: pa.RecordBatch, rules: ChunkRules, key: TileKey, chunk: pa.RecordBatch
) -> None:
    assert chunk.schema.names == [*PIXEL, *batch.schema.names]
    assert chunk.nbytes <= rules.max_bytes or len(chunk) == 1
    grid, _ = index.grid_of(key)
    row, col = (chunk[name].to_numpy() for name in PIXEL)
    tile_row, tile_col = row // grid.tile_height, col // grid.tile_width
    assert key.tile_row % rules.block[0] == key.tile_col % rules.block[1] == 0
    assert set(tile_row // rules.block[0]) == {key.tile_row // rules.block[0]}
    assert set(tile_col // rules.block[1]) == {key.tile_col // rules.block[1]}
    numbers = [number - FIRST_INDEX for number in chunk["point_index"].to_pylist()]
    assert chunk.select(batch.schema.names).to_pylist() == batch.take(pa.array(numbers, pa.int64())).to_pylist()


# Routing of things known by hand.

UTM = (16.0, 0.0, 500_000.0, 0.0, -16.0, 5_000_000.0)


def pixels(record: Record, crs: str, points: list[Place]) -> list[tuple[int, int] | None]:
    found = {sample.point: (sample.row, sample.col) for sample in samples([record], crs, points)}
    return [found.get(number) for number in range(len(points))]


def test_upper_and_left_edges_belong_to_a_grid_and_the_others_do_not() -> None:
    left, top, side = 500_000.0, 5_000_000.0, 8 * 16
    corners = [(left, top), (left + side, top), (left, top - side), (left + side, top - side)]
    assert pixels(one_band(grid_at("EPSG:32631", UTM)), "EPSG:32631", corners) == [(0, 0), None, None, None]
    just_inside = [(left + side - 1e-6, top - side + 1e-6), (left - 1e-6, top), (left, top + 1e-6)]
    assert pixels(one_band(grid_at("EPSG:32631", UTM)), "EPSG:32631", just_inside) == [(7, 7), None, None]


def test_a_south_up_grid_has_its_lower_edge() -> None:
    south_up = grid_at("EPSG:32631", (16.0, 0.0, 500_000.0, 0.0, 16.0, 5_000_000.0))
    points = [(500_000.0, 5_000_000.0), (500_040.0, 5_000_020.0), (500_000.0, 5_000_128.0)]
    assert pixels(one_band(south_up), "EPSG:32631", points) == [(0, 0), (1, 2), None]


def test_a_rotated_grid() -> None:
    rotated = grid_at("EPSG:32631", (16.0, 16.0, 500_000.0, 16.0, -16.0, 5_000_000.0))
    points = [(500_000.0, 5_000_000.0), (500_112.0, 5_000_016.0), (500_001.0, 5_000_100.0), (500_200.0, 5_000_000.0)]
    assert pixels(one_band(rotated), "EPSG:32631", points) == [(0, 0), (3, 4), None, (6, 6)]


def test_both_utm_zones_at_a_zone_edge() -> None:
    grids = {}
    for crs in ("EPSG:32631", "EPSG:32632"):
        x, y = (float(value) for value in project("EPSG:4326", crs, 6.0, 52.0))
        grids[crs] = grid_at(crs, (100.0, 0.0, x - 350.0, 0.0, -100.0, y + 250.0))
    records = [one_band(grid, crs) for crs, grid in grids.items()]
    assert samples(records, "EPSG:4326", [(6.0, 52.0)]) == {
        Sample(0, "EPSG:32631", "A", 2, 3),
        Sample(0, "EPSG:32632", "A", 2, 3),
    }


@pytest.mark.parametrize("lon", [-179.99, 180.01])
def test_a_utm_grid_across_the_antimeridian(lon: float) -> None:
    x, y = (float(value) for value in project("EPSG:4326", "EPSG:32660", lon, 52.0))
    across = one_band(grid_at("EPSG:32660", (1000.0, 0.0, x - 4500.0, 0.0, -1000.0, y + 1500.0)))
    elsewhere = one_band(grid_at("EPSG:32631", UTM), "elsewhere")
    found = samples([across, elsewhere], "EPSG:4326", [(lon, 52.0)])
    assert found == {Sample(0, "only", "A", 1, 4)}


@pytest.mark.parametrize("lon", [-130.0, 230.0])
def test_a_grid_on_0_to_360(lon: float) -> None:
    geoid = Grid("EPSG:4269", (1 / 64, 0.0, 229.0, 0.0, -1 / 64, 58.0), 640, 640, 64, 64)
    assert pixels(one_band(geoid), "EPSG:4269", [(lon, 57.0)]) == [(64, 64)]
    assert pixels(one_band(geoid), "EPSG:4326", [(lon, 56.99)]) == [(64, 64)]


def test_the_east_end_of_a_world_is_its_west_end() -> None:
    assert pixels(one_band(WORLDS[0]), "EPSG:4326", [(180.0, 90.0), (-180.0, 0.0), (540.0 - 360.0, -90.0)]) == [
        (0, 0),
        (2, 0),
        None,
    ]


def test_a_grid_of_more_than_a_turn_takes_the_longitude_as_given() -> None:
    wide = Grid("EPSG:4326", (10.0, 0.0, -190.0, 0.0, -10.0, 90.0), 38, 18, 8, 8)
    points = [(-185.0, 5.0), (175.0, 5.0), (185.0, 5.0), (-175.0, 5.0), (355.0, 5.0), (-200.0, 5.0)]
    assert pixels(one_band(wide), "EPSG:4326", points) == [(8, 0), (8, 36), (8, 37), (8, 1), (8, 18), (8, 35)]


def test_both_poles() -> None:
    arctic = grid_at("EPSG:3413", (1000.0, 0.0, -2500.0, 0.0, -1000.0, 5500.0))
    antarctic = grid_at("EPSG:3031", (1000.0, 0.0, -2500.0, 0.0, -1000.0, 5500.0))
    records = [one_band(arctic, "north"), one_band(antarctic, "south")]
    assert samples(records, "EPSG:4326", [(0.0, 90.0), (123.0, 90.0), (45.0, -90.0), (0.0, 89.0)]) == {
        Sample(0, "north", "A", 5, 2),
        Sample(1, "north", "A", 5, 2),
        Sample(2, "south", "A", 5, 2),
    }


def test_latest_goes_by_datetime_then_order_and_by_band() -> None:
    grid = grid_at("EPSG:32631", UTM)
    records = [
        Record("undated", None, dict.fromkeys("ABC", grid)),
        Record("old", 10, dict.fromkeys("AB", grid)),
        Record("first", 20, {"A": grid}),
        Record("second", 20, {"A": grid}),
    ]
    found = samples(records, "EPSG:32631", [(500_001.0, 4_999_999.0)], "latest")
    assert {(sample.band, sample.record) for sample in found} == {("A", "first"), ("B", "old"), ("C", "undated")}


def test_latest_looks_at_grids_not_at_records() -> None:
    near, far = grid_at("EPSG:32631", UTM), grid_at("EPSG:32631", (16.0, 0.0, 500_064.0, 0.0, -16.0, 5_000_000.0))
    records = [Record("old", 1, {"A": near}), Record("new", 2, {"A": far})]
    found = samples(records, "EPSG:32631", [(500_001.0, 4_999_999.0), (500_065.0, 4_999_999.0)], "latest")
    assert found == {Sample(0, "old", "A", 0, 0), Sample(1, "new", "A", 0, 0)}


@pytest.mark.parametrize("match", ["all", "latest"])
def test_no_hits_and_no_points(match: str) -> None:
    record = one_band(grid_at("EPSG:32631", UTM))
    assert samples([record], "EPSG:32631", [(0.0, 0.0)], match) == set()
    assert samples([record], "EPSG:32631", [], match) == set()
    assert samples([], "EPSG:32631", [(0.0, 0.0)], match) == set()


def test_locate_gives_points_grids_and_positions_on_them() -> None:
    first, second = grid_at("EPSG:32631", UTM), grid_at("EPSG:32631", (8.0, 0.0, 500_000.0, 0.0, -8.0, 5_000_000.0))
    index = index_of([one_band(first, "first"), one_band(second, "second")])
    x, y = np.array([np.nan, 500_020.0, 500_100.0]), np.array([0.0, 4_999_970.0, 4_999_968.0])
    hits = locate(index, "EPSG:32631", x, y)
    found = set(zip(*(column.tolist() for column in (hits.point, hits.grid, hits.row, hits.col)), strict=True))
    assert found == {(1, 0, 1.875, 1.25), (1, 1, 3.75, 2.5), (2, 0, 2.0, 6.25)}


CORNERED = {
    "10 m": Affine(10.0, 0.0, 499_980.0, 0.0, -10.0, 4_500_000.0),
    "geoid": Affine(1 / 60, 0.0, 230 - 1 / 120, 0.0, -1 / 60, 58 + 1 / 120),
    "arc seconds": Affine(1 / 3600, 0.0, 5 - 1 / 7200, 0.0, -1 / 3600, 52 + 1 / 7200),
    "odd": Affine(3.3, 0.0, 100_000.1, 0.0, -3.3, 5_000_000.7),
    "south-up": Affine(0.1, 0.0, -180.0, 0.0, 0.1, -90.0),
    "oblique": Affine(13.86, 8.0, 500_000.0, 8.0, -13.86, 4_500_000.0),
}


@pytest.mark.parametrize("name", CORNERED)
def test_inexact_corners_fall_where_rasterio_puts_them(name: str) -> None:
    affine, size = CORNERED[name], 400
    steps = np.arange(-1.0, size + 2)
    x, y = place_of(tuple(affine)[:6], *(values.ravel() for values in np.meshgrid(steps, steps)))
    grids, number = GridTable.from_grids([grid_at("EPSG:32631", tuple(affine)[:6], size, size)]), np.zeros(len(x), int)
    ours = pixel_positions(grids, number, x, y)
    theirs = pixel_of(affine, x, y)
    np.testing.assert_array_equal(np.floor(ours), theirs)
    in_grid = (theirs[0] >= 0) & (theirs[0] < size) & (theirs[1] >= 0) & (theirs[1] < size)
    np.testing.assert_array_equal(inside(grids, number, *ours), in_grid)


@pytest.mark.parametrize("name", CORNERED)
def test_other_points_fall_where_any_rasterio_puts_them(name: str) -> None:
    affine, size = CORNERED[name], 400
    x, y = place_of(tuple(affine)[:6], *np.random.default_rng(5).uniform(-1, size + 1, (2, 50_000)))
    grids, number = GridTable.from_grids([grid_at("EPSG:32631", tuple(affine)[:6], size, size)]), np.zeros(len(x), int)
    np.testing.assert_array_equal(np.floor(pixel_positions(grids, number, x, y)), rowcol(affine, x, y))


# Chunks.


def crowd(count: int) -> list[Place]:
    return [(500_000.5 + number % 16, 4_999_999.5) for number in range(count)]


def parts(count: int, **rules: int) -> list[tuple[int, int]]:
    """(part, rows) of the chunks of a crowd in one tile."""
    index = index_of([one_band(grid_at("EPSG:32631", UTM))])
    routed = route(index, batch_of(crowd(count), "EPSG:32631"), None, ChunkRules(**rules))
    return [(key.part, len(chunk)) for key, chunk in routed.chunks]


def test_a_crowd_is_one_group_up_to_its_bound() -> None:
    assert parts(25) == [(0, 25)]
    assert {part for part, _ in parts(64, max_bytes=200)} == {0}


def test_a_larger_crowd_has_a_part_for_each_range_of_points() -> None:
    row_bytes = 4 + 4 + 8 + 8 + 8 + 4
    pieces = parts(64, max_bytes=16 * row_bytes, group_bytes=16 * row_bytes)
    assert pieces == [((FIRST_INDEX + start) // 16, 16) for start in (0, 16, 32, 48)]
    assert len({part for part, _ in parts(64, max_bytes=16 * row_bytes, group_bytes=32 * row_bytes)}) <= 3


def test_blocks_of_tiles() -> None:
    wide = Grid("EPSG:32631", UTM, 64, 64, 4, 8)
    points = [(500_000.5 + 16 * col, 4_999_999.5 - 16 * row) for row, col in ((0, 0), (15, 7), (16, 7), (15, 8))]
    index = index_of([one_band(wide)])
    routed = route(index, batch_of(points, "EPSG:32631"), None, ChunkRules(block=(2, 2)))
    found = {(key.tile_row, key.tile_col): chunk["point_index"].to_pylist() for key, chunk in routed.chunks}
    assert found == {(0, 0): [1000, 1001], (2, 0): [1002], (0, 2): [1003]}


@pytest.mark.parametrize(
    ("tile", "bands", "shape"),
    [(256, 1, (4, 16)), (512, 2, (2, 16)), (1024, 4, (1, 4)), (1024, 64, (1, 1)), (8192, 1, (1, 1))],
)
def test_the_tiles_of_a_block_fit_into_a_cache(tile: int, bands: int, shape: tuple[int, int]) -> None:
    grid = grid_at("EPSG:32631", UTM, 20_000, 20_000, tile)
    index = index_of([one_band(grid)])
    layers = replace(index.layers, bandsets=[tuple(map(str, range(bands)))])
    index = replace(index, matcher=matcher_of("all", layers, index.datetimes, len(index.grids)))
    rows, cols = block_shapes(index, ChunkRules())
    assert (rows.tolist(), cols.tolist()) == ([shape[0]], [shape[1]])


def test_chunks_with_text_of_uneven_length_keep_to_the_limit() -> None:
    index = index_of([one_band(grid_at("EPSG:32631", UTM))])
    plain = batch_of(crowd(200), "EPSG:32631")
    text = pa.array(["note " * 20 if number >= 150 else None for number in range(200)])
    fields = [plain.schema.field("kept"), pa.field("text", pa.string())]
    batch = pa.RecordBatch.from_arrays([*plain.columns, text], schema=points_schema(fields, "EPSG:32631"))
    chunks = [chunk for _, chunk in route(index, batch, None, ChunkRules(max_bytes=2000)).chunks]
    assert sum(len(chunk) for chunk in chunks) == 200
    assert max(chunk.nbytes for chunk in chunks) <= 2000


def test_chunks_say_where_in_the_pixel_a_point_is_if_asked() -> None:
    points = [(500_000.0, 5_000_000.0), (500_020.0, 4_999_970.0), (500_100.0, 4_999_968.0)]
    index = index_of([one_band(grid_at("EPSG:32631", UTM))])
    routed = route(index, batch_of(points, "EPSG:32631"), None, ChunkRules(), with_position=True)
    ((_, chunk),) = routed.chunks
    assert chunk.schema.names[:5] == [*PIXEL, *POSITION, "point_index"]
    found = list(zip(*(chunk[name].to_pylist() for name in (*PIXEL, *POSITION)), strict=True))
    assert found == [(0, 0, 0.0, 0.0), (1, 1, 0.875, 0.25), (2, 6, 0.0, 0.25)]


def test_chunks_carry_the_points_epsg_code() -> None:
    index = index_of([one_band(WORLDS[0])])
    ((_, chunk),) = route(index, batch_of([(1.0, 2.0)], None), "OGC:CRS84", ChunkRules()).chunks
    assert chunk.schema.metadata == {POINT_EPSG_KEY: b"4326", POINT_EXACT_CRS_KEY: b"OGC:CRS84"}
    ((_, chunk),) = route(index, batch_of([(1.0, 2.0)], SINUSOIDAL), None, ChunkRules()).chunks
    assert chunk.schema.metadata == {POINT_EXACT_CRS_KEY: SINUSOIDAL.encode()}


# Refusals.


def test_points_without_a_crs_are_refused() -> None:
    with pytest.raises(InputError, match="the points have no CRS; give it with geometry_crs"):
        route(index_of([one_band(WORLDS[0])]), batch_of([(1.0, 2.0)], None), None, ChunkRules())


def test_points_in_two_crs_are_refused() -> None:
    batch = batch_of([(1.0, 2.0)], "EPSG:4326")
    with pytest.raises(InputError, match="geometry_crs is EPSG:32631, but the batch of points carries EPSG:4326"):
        route(index_of([one_band(WORLDS[0])]), batch, "EPSG:32631", ChunkRules())
    assert route(index_of([one_band(WORLDS[0])]), batch, "OGC:CRS84", ChunkRules()).sampled == 1


def test_a_batch_that_is_not_of_points_is_refused() -> None:
    batch = pa.RecordBatch.from_pydict({"x": [1.0], "y": [2.0]})
    message = r"column 0 of a batch of points must be point_index \(int64\); the batch has x \(double\), y \(double\)"
    with pytest.raises(InputError, match=message):
        route(index_of([one_band(WORLDS[0])]), batch, "EPSG:4326", ChunkRules())


def test_an_unknown_match_is_refused() -> None:
    with pytest.raises(InputError, match=r"match is 'first'; it can be one of \('all', 'latest', 'nearest', "):
        index_of([one_band(WORLDS[0])], "first")


def test_an_id_that_stands_twice_is_refused() -> None:
    records = [one_band(WORLDS[0], name) for name in ("one", "two", "one")]
    with pytest.raises(InputError, match=r"record id\(s\) one stand more than once in the collection"):
        index_of(records)


# Regions.

EXTENTS = {
    "EPSG:32631": (100e3, -1e6, 900e3, 9.9e6),
    "EPSG:32660": (-500e3, 0.0, 1500e3, 9e6),
    "EPSG:32701": (-500e3, 1e5, 1500e3, 1e7),
    "EPSG:4326": (-180.0, -90.0, 360.0, 90.0),
    "EPSG:4269": (-180.0, -90.0, 360.0, 90.0),
    "EPSG:4617": (-180.0, -90.0, 360.0, 90.0),
    "EPSG:4807": (-10.0, 40.0, 12.0, 60.0),
    "EPSG:3857": (-21e6, -2e7, 21e6, 2e7),
    "EPSG:3832": (-1e7, -1e7, 1e7, 1e7),
    "EPSG:3413": (-5e6, -5e6, 5e6, 5e6),
    "EPSG:3031": (-5e6, -5e6, 5e6, 5e6),
    "EPSG:6931": (-9e6, -9e6, 9e6, 9e6),
    "EPSG:6933": (-17.3e6, -7.3e6, 17.3e6, 7.3e6),
    "EPSG:3035": (1e6, 5e5, 8e6, 7e6),
    "EPSG:5070": (-3e6, 0.0, 3e6, 4e6),
    "EPSG:2193": (1e6, 4.7e6, 2.2e6, 6.3e6),
    "EPSG:27700": (0.0, 0.0, 7e5, 1.3e6),
    "ESRI:54009": (-1.8e7, -9e6, 1.8e7, 9e6),
    SINUSOIDAL: (-2e7, -1e7, 2e7, 1e7),
}


PART = st.integers(0, 10_000).map(lambda number: number / 10_000)


@st.composite
def boxes(draw: Any) -> tuple[str, np.ndarray]:
    """A CRS, and a box in it of any size and place."""
    crs = draw(st.sampled_from(sorted(EXTENTS)))
    west, south, east, north = EXTENTS[crs]
    width, height = (10 ** (-4 * draw(PART)) for _ in range(2))
    left, bottom = draw(PART) * (1 - width), draw(PART) * (1 - height)
    span = np.array([east - west, north - south] * 2)
    return crs, np.array([west, south] * 2) + span * (left, bottom, left + width, bottom + height)


def on_earth(crs: str, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Longitudes and latitudes of those places that some longitude and latitude leads to."""
    lon, lat = project(crs, "OGC:CRS84", x, y)
    again = project("OGC:CRS84", crs, lon, lat)
    apart = np.hypot(again[0] - x, again[1] - y)
    if pyproj.CRS(crs).is_geographic:
        apart = np.abs(again[1] - y)
    good = np.isfinite(lon) & np.isfinite(lat) & (apart < 1e-3)
    return lon[good], lat[good]


@settings(QUICK, max_examples=examples(300))
@given(boxes(), st.integers(0, 2**32 - 1))
def test_a_region_covers_all_of_its_box(box_in: tuple[str, np.ndarray], seed: int) -> None:
    crs, box = box_in
    region = region_of_box(crs, box)
    x, y = np.random.default_rng(seed).uniform(box[:2], box[2:], (200, 2)).T
    corners = np.array(list(product(box[[0, 2]], box[[1, 3]]))).T
    lon, lat = on_earth(crs, np.append(x, corners[0]), np.append(y, corners[1]))
    assert region is None or region.covers(lon, lat).all()


@pytest.mark.parametrize("crs", ["EPSG:3413", "EPSG:3031"])
def test_a_box_with_a_pole_has_no_region_and_one_beside_it_has(crs: str) -> None:
    assert region_of_box(crs, np.array([-1e5, -1e5, 2e5, 1e5])) is None
    beside = region_of_box(crs, np.array([1e3, -1e5, 2e5, 1e5]))
    assert beside is not None
    assert beside.half_width < 100


def test_regions_narrow() -> None:
    region = region_of_box("EPSG:32660", np.array([6e5, 5.5e6, 8e5, 5.6e6]))
    assert region is not None
    lon, lat = np.array([179.9, -179.9, 180.1, 0.0, 170.0, 179.9]), np.array([50.0, 50.0, 50.0, 50.0, 50.0, 40.0])
    assert region.covers(lon, lat).tolist() == [True, True, True, False, False, False]


def test_a_region_takes_longitudes_in_any_turn() -> None:
    region = Region(179.0, 2.0, -10.0, 10.0)
    lon = np.array([-539.0, -181.0, 177.0, 181.0, -179.0, 541.0, 176.9, 181.1, -178.9, np.nan])
    assert region.covers(lon, np.zeros(10)).tolist() == [True] * 6 + [False] * 4
    lat = np.array([10.0, -10.0, 10.1, np.inf])
    assert region.covers(np.full(4, 179.0), lat).tolist() == [True, True, False, False]


# Footprints.


def outside(box: tuple[float, ...], lon: np.ndarray, lat: np.ndarray) -> float:
    """By how many degrees places reach out of a box, at most; longitudes count in any turn."""
    west, south, east, north = box
    turned = np.where(np.abs(lon) > 180, (lon + 180) % 360 - 180, lon)
    beside = np.maximum(west - turned, turned - east)
    beside[np.abs(turned) == 180] = max(0.0, min(west + 180, 180 - east))
    return float(np.max(np.maximum.reduce([beside, south - lat, lat - north]), initial=0.0))


def grid_places(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Corners and centres of all pixels, as longitude and latitude."""
    col, row = (v.ravel() for v in np.meshgrid(np.arange(2 * grid.width + 1) / 2, np.arange(2 * grid.height + 1) / 2))
    return on_earth(grid.crs, *place_of(grid.transform, col, row))


def check_footprint(grid: Grid) -> tuple[float, float, float, float]:
    shape, box = footprint(grid)
    assert shapely.is_valid(shape)
    assert shape.geom_type in ("Polygon", "MultiPolygon")
    assert -180 <= box[0] < box[2] <= 180
    assert -90 <= box[1] < box[3] <= 90
    assert shapely.box(*box).covers(shape)
    assert outside(box, *grid_places(grid)) <= 1e-6  # a tenth of a metre
    return box


@st.composite
def gridded(draw: Any, names: tuple[str, ...], least: float) -> Grid:
    """A grid of up to 40 x 40 pixels, ``least`` to 1 times as wide as its CRS's extent; not much longer than wide."""
    crs = draw(st.sampled_from(names))
    west, south, east, north = EXTENTS[crs]
    share = least ** draw(PART)
    across, up = share * (east - west), share * (north - south) * (1 + draw(PART)) / 2
    left = west + draw(PART) * (east - west - across)
    low = south + draw(PART) * (north - south - up)
    width, height = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    if draw(st.booleans()):
        return Grid(crs, (across / width, 0.0, left, 0.0, up / height, low), width, height, 4, 4)
    return Grid(crs, (across / width, 0.0, left, 0.0, -up / height, low + up), width, height, 4, 4)


EVEN = ("EPSG:32631", "EPSG:4326", "EPSG:4269", "EPSG:3857", "EPSG:3832", "EPSG:6933", "EPSG:4807")
BENT = ("EPSG:32660", "EPSG:32701", "EPSG:3035", "EPSG:5070", "EPSG:2193", "EPSG:27700")
POLAR = ("EPSG:3413", "EPSG:3031")


@settings(QUICK, max_examples=examples(200))
@given(gridded(EVEN, 1e-4))
def test_a_footprint_holds_its_pixels(grid: Grid) -> None:
    check_footprint(grid)


@settings(QUICK, max_examples=examples(200))
@given(gridded(BENT, 1e-4))
def test_a_footprint_holds_the_bulge_of_its_edges(grid: Grid) -> None:
    check_footprint(grid)


@settings(QUICK, max_examples=examples(200))
@given(gridded(POLAR, 1e-3))
def test_a_footprint_near_a_pole_holds_its_pixels(grid: Grid) -> None:
    check_footprint(grid)


@QUICK
@given(st.data())
def test_a_footprint_of_a_small_grid_anywhere_holds_its_pixels(data: Any) -> None:
    (lon, lat), names = AROUND[data.draw(st.sampled_from(sorted(AROUND)))]
    grid = small_grid(data.draw, data.draw(st.sampled_from(names)), lon, lat)
    _, lats = place_of(grid.transform, *np.array(list(product((0, grid.width), (0, grid.height)))).T)
    if pyproj.CRS(grid.crs).is_geographic and np.abs(lats).max() > 90:
        shape, box = footprint(grid)
        assert shapely.is_valid(shape)
        assert -90 <= box[1] <= box[3] <= 90
    else:
        check_footprint(grid)


def test_a_wide_low_strip_bulges_out_of_its_corners() -> None:
    strip = Grid("EPSG:32631", (10.0, 0.0, 200_000.0, 0.0, -10.0, 6_000_000.0), 57_000, 20, 512, 512)
    x = np.linspace(200_000.0, 770_000.0, 57_001)
    lon, lat = on_earth(strip.crs, x, np.full(len(x), 6_000_000.0))
    assert outside(footprint(strip)[1], lon, lat) == 0.0


def test_an_arctic_tile_beside_the_pole() -> None:
    tile = Grid("EPSG:3413", (500.0, 0.0, -47_000.0, 0.0, -500.0, -10_000.0), 200, 200, 64, 64)
    assert check_footprint(tile)[3] == pytest.approx(89.91, abs=0.01)


@pytest.mark.parametrize(("crs", "pole"), [("EPSG:6931", 90.0), ("EPSG:6932", -90.0), ("EPSG:3413", 90.0)])
@pytest.mark.parametrize("reach", [9e6, 5e6, 1e5])
def test_a_grid_around_a_pole_reaches_it(crs: str, pole: float, reach: float) -> None:
    around = Grid(crs, (reach / 20, 0.0, -reach, 0.0, -reach / 20, reach), 40, 40, 8, 8)
    box = check_footprint(around)
    assert (box[0], box[2]) == (-180.0, 180.0)
    assert pole in (box[1], box[3])


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:4269", "EPSG:4617", "EPSG:4267"])
@pytest.mark.parametrize("west,width", [(0.0, 360), (170.0, 20), (100.0, 160), (170.3, 19)])
def test_a_geographic_grid_across_the_antimeridian(crs: str, west: float, width: int) -> None:
    check_footprint(Grid(crs, (1.0, 0.0, west, 0.0, -1.0, 60.0), width, 20, 8, 8))


@pytest.mark.parametrize("west", [-130.0, 230.0])
def test_the_footprint_of_a_grid_on_0_to_360(west: float) -> None:
    shape, box = footprint(Grid("EPSG:4269", (0.25, 0.0, west, 0.0, -0.25, 58.0), 80, 40, 8, 8))
    assert shape.bounds == pytest.approx((-130.0, 48.0, -110.0, 58.0), abs=1e-4)
    assert box == pytest.approx((-130.0, 48.0, -110.0, 58.0), abs=0.03)


def test_a_footprint_across_the_antimeridian_has_two_pieces() -> None:
    x, y = (float(value) for value in project("EPSG:4326", "EPSG:32660", 180.0, 52.0))
    grid = Grid("EPSG:32660", (1000.0, 0.0, x - 50_000, 0.0, -1000.0, y + 50_000), 100, 100, 64, 64)
    shape, box = footprint(grid)
    west, east = sorted((piece.bounds for piece in shape.geoms), key=lambda bounds: bounds[0])
    assert (west[0], east[2]) == (-180.0, 180.0)
    assert west[2] == pytest.approx(-179.27, abs=0.05)
    assert east[0] == pytest.approx(179.27, abs=0.05)
    assert (box[0], box[2]) == (-180.0, 180.0)
    assert shape.contains(shapely.points([179.9, -179.9], [52.0, 52.0])).all()
    assert not shape.contains(shapely.points(0.0, 52.0))


def test_a_grid_that_leaves_the_earth_gets_the_world() -> None:
    shape, box = footprint(Grid("ESRI:54009", (1e6, 0.0, -18e6, 0.0, -1e6, 9e6), 36, 18, 8, 8))
    assert box == (-180.0, -90.0, 180.0, 90.0)
    assert shape.bounds == box


# Coordinate reference systems.


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4326, "EPSG:4326"),
        (np.int64(4326), "EPSG:4326"),
        ("4326", "EPSG:4326"),
        (" epsg:4326 ", "EPSG:4326"),
        ("urn:ogc:def:crs:EPSG::4326", "EPSG:4326"),
        (pyproj.CRS(4326).to_wkt(), "EPSG:4326"),
        (pyproj.CRS(4326).to_json(), "EPSG:4326"),
        (pyproj.CRS(4326).to_json_dict(), "EPSG:4326"),
        (pyproj.CRS(4326), "EPSG:4326"),
        ("OGC:CRS84", "OGC:CRS84"),
        ("urn:ogc:def:crs:OGC:1.3:CRS84", "OGC:CRS84"),
        (pyproj.CRS("OGC:CRS84").to_json(), "OGC:CRS84"),
        (pyproj.CRS("OGC:CRS84").to_json_dict(), "OGC:CRS84"),
        (rasterio.CRS.from_epsg(4326), "EPSG:4326"),
        (rasterio.CRS.from_epsg(4326).to_wkt(), "EPSG:4326"),
        (rasterio.CRS.from_epsg(32631).to_wkt(), "EPSG:32631"),
        (rasterio.CRS.from_epsg(3857).to_wkt(), "EPSG:3857"),
        (rasterio.CRS.from_epsg(3413).to_wkt(), "EPSG:3413"),
        ("+proj=utm +zone=31 +datum=WGS84", "EPSG:32631"),
    ],
)
def test_crs_text(value: Any, text: str) -> None:
    assert crs_text(value) == text
    assert crs_text(text) == text


def test_a_crs_without_a_code_is_kept_as_wkt() -> None:
    text = crs_text("+proj=sinu +R=6371007.181")
    assert pyproj.CRS(text).to_wkt() == text
    assert pyproj.CRS(text).coordinate_operation.method_name == "Sinusoidal"
    assert crs_text(text) == text
    assert epsg_code(text) is None


@pytest.mark.parametrize(
    "value",
    ["nonsense", "EPSG:99999", 99999, "", None, 4326.5, ["x"], b"EPSG:4326", {"type": "nonsense"}, "\u00b2"],
)
def test_an_unreadable_crs_is_named(value: Any) -> None:
    with pytest.raises(InputError) as caught:
        crs_text(value)
    assert str(caught.value).startswith(f"CRS {value!r} cannot be read: ")
    assert str(caught.value).endswith('Give an EPSG code (4326 or "EPSG:4326"), WKT or PROJJSON.')


def test_a_long_unreadable_crs_is_cut() -> None:
    with pytest.raises(InputError) as caught:
        crs_text({"type": "x" * 5000, "name": "odd"})
    assert str(caught.value).startswith("CRS {'type': 'xxxx")
    assert "xxx... cannot be read" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "code"), [("OGC:CRS84", 4326), ("EPSG:4326", 4326), ("EPSG:32631", 32631), ("ESRI:54009", None)]
)
def test_epsg_code(text: str, code: int | None) -> None:
    assert epsg_code(text) == code


def test_full_turn() -> None:
    assert [full_turn(text) for text in ("EPSG:4326", "OGC:CRS84", "EPSG:4269")] == [360.0] * 3
    assert [full_turn(text) for text in ("EPSG:32631", "EPSG:3857", SINUSOIDAL)] == [None] * 3
    assert full_turn("EPSG:4807") == pytest.approx(400.0, abs=1e-9)
    assert full_turn("+proj=longlat +ellps=bessel +towgs84=1,2,3,4,5,6,7 +type=crs") == 360.0


def test_same_crs_knows_that_axis_order_does_not_count() -> None:
    assert same_crs("OGC:CRS84", "EPSG:4326")
    assert same_crs("EPSG:32631", "EPSG:32631")
    assert not same_crs("EPSG:4269", "EPSG:4326")


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:3857", "EPSG:3413", "EPSG:2193", "EPSG:3035", "OGC:CRS84"])
def test_transform_is_that_of_gdal(crs: str) -> None:
    lon, lat = np.array([6.0, 9.5, 12.0, 171.0, 15.0]), np.array([52.0, 48.25, 61.0, 62.0, 70.0])
    x, y = transform("EPSG:4326", crs, lon, lat)
    theirs = rasterio.warp.transform("EPSG:4326", crs, lon, lat)
    np.testing.assert_allclose([x, y], theirs, rtol=0, atol=1e-3)
    again = transform(crs, "EPSG:4326", x, y)
    np.testing.assert_allclose(again, [lon, lat], rtol=0, atol=1e-8)


def test_transform_gives_infinity_where_proj_has_no_answer() -> None:
    x, y = transform("EPSG:4326", "EPSG:32631", np.array([3.0, 3.0]), np.array([95.0, 45.0]))
    assert np.isinf([x[0], y[0]]).all()
    assert x[1] == pytest.approx(500_000.0, abs=1e-6)
    assert 4_980_000 < y[1] < 4_990_000
