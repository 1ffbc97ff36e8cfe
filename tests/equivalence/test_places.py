"""Points keyed by place, and the records in question there, against brute force with pandas."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasteret_beam.errors import InputError
from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.routing import overlaps, search
from rasteret_beam.kernels.routing.chunks import ChunkRules, block_shapes, route
from rasteret_beam.kernels.routing.index import RoutingIndex, locate
from rasteret_beam.kernels.routing.layers import Hits
from rasteret_beam.kernels.routing.time_line import Taken
from rasteret_beam.kernels.tables.point_times import point_times
from rasteret_beam.model import ALL_BANDS, Grid, MatchRules
from rasteret_beam.schema import PIXEL, POINT_CRS_KEY, kept_fields
from tests.support.properties import examples
from tests.support.time_match import (
    HOUR,
    ZONES,
    Scene,
    all_rules,
    candidates,
    collections,
    expected,
    grid_near,
    index_of,
    moments,
    points_of,
    projector,
    ranked,
)

QUICK = settings(deadline=None, derandomize=True, max_examples=examples(80))
PLACES_AND_TIMES = st.lists(
    st.tuples(st.tuples(st.integers(-400, 450), st.integers(-300, 350)), moments), min_size=1, max_size=12
)


def coordinates_of(points: pa.RecordBatch) -> tuple[Floats, Floats]:
    return points["point_x"].to_numpy(), points["point_y"].to_numpy()


def best_first(index: RoutingIndex, points: pa.RecordBatch, most: int | None) -> dict[tuple[int, str], list[str]]:
    """The records in question for each point and band, the best one first, as the matcher gives them."""
    times = point_times(points, "when")
    x, y = coordinates_of(points)
    hits = locate(index, ZONES[0], x, y)
    in_time = index.matcher.time_column is not None
    if in_time:
        hits = hits.take(points["when"].is_valid().to_numpy(zero_copy_only=False)[hits.point])
    found: dict[tuple[int, str], list[str]] = {}
    for group in index.matcher.candidates(hits, len(points), times if in_time else None, most):
        assert np.array_equal(group.point, hits.point[group.hit])
        for band in group.bands:
            assert np.array_equal(hits.grid[group.hit], index.band_grids(band)[group.record])
            for point, record, depth in zip(group.point, group.record, group.depth, strict=True):
                records = found.setdefault((int(point), band), [])
                assert depth == len(records)
                records.append(index.record_ids[record])
    return found


@QUICK
@given(
    collections(),
    all_rules(),
    PLACES_AND_TIMES,
    st.sampled_from([1, 2, 3, 10, None]),
    st.sampled_from(["", "point"]),
    st.sampled_from([3, search.MOST_CANDIDATES]),
    st.booleans(),
)
def test_candidates(
    scenes: list[Scene],
    rules: MatchRules,
    points: list[tuple[tuple[int, int], int | None]],
    most: int | None,
    places: str,
    at_once: int,
    sparse: bool,
) -> None:
    """The best first, without the limit; each band once, also where few records are compared at once, or those alone
    that can be taken."""
    index = index_of(scenes, replace(rules, places=places))
    times = [time for _, time in points]
    batch = points_of([place for place, _ in points], times)
    wanted = ranked(candidates(scenes, ZONES[0], *coordinates_of(batch)), times, rules)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(search, "MOST_CANDIDATES", at_once)
        if sparse:
            patched.setattr(overlaps, "MANY_RECORDS", 0)
            patched.setattr(overlaps, "FEW_POINTS", 0)
        found = best_first(index, batch, most)
    assert found == {at: records[:most] for at, records in wanted.items() if records}


def test_ten_of_many_records(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many records a grid has, few are looked at."""
    grids = [grid_near(ZONES[0], -200, 200), grid_near(ZONES[0], -180, 180), grid_near(ZONES[1], -200, 200)]
    scenes = [Scene(f"r{number:04}", (number * 7919 % 300) * HOUR, {"A": grids[number % 3]}) for number in range(900)]
    times = [(number * 131 % 320) * HOUR for number in range(12)]
    batch = points_of([(number - 6, number - 6) for number in range(12)], times)
    frame = candidates(scenes, ZONES[0], *coordinates_of(batch))
    looked_at: list[int] = []
    best = search.Search._best

    def counted(self: search.Search, hits: Hits, near: Taken, *rest: Any) -> Taken:
        looked_at.append(len(near[0]))
        return best(self, hits, near, *rest)

    monkeypatch.setattr(search.Search, "_best", counted)
    for rules in (
        MatchRules(),
        MatchRules("latest"),
        MatchRules("nearest", "when"),
        MatchRules("before", "when", 20 * HOUR),
        MatchRules("after", "when", None, 2),
    ):
        found = best_first(index_of(scenes, rules), batch, 10)
        wanted = ranked(frame, times, rules)
        assert found == {at: records[:10] for at, records in wanted.items() if records}
        assert max(looked_at) <= 12 * 3 * 2 * 10


def placed(
    scenes: list[Scene], points: pa.RecordBatch, rules: MatchRules, bands: list[str] | None = None
) -> tuple[RoutingIndex, list[tuple[int, str, Grid]], dict[int, str]]:
    """The (point, record, grid) of each place that points are keyed by, and the reasons of the other points."""
    index = index_of(scenes, rules, bands)
    out = route(index, points, ZONES[0], ChunkRules(block=(2, 2)), with_position=True)
    in_time = ["__time"] if rules.time_column else []
    x, y = coordinates_of(points)
    found = []
    for key, chunk in out.chunks:
        assert chunk.schema.names == [*PIXEL, *in_time, "point_index", "point_x", "point_y", "when"]
        assert chunk.schema.metadata[POINT_CRS_KEY] == ZONES[0].encode()
        assert [field.name for field in kept_fields(chunk.schema)] == ["when"]
        grid, wanted = index.grid_of(key)
        assert key.bandset == ALL_BANDS and wanted == index.bands
        number = chunk["point_index"].to_numpy()
        assert not in_time or chunk["__time"].equals(chunk["when"].cast(pa.int64()))
        east, north = projector(ZONES[0], grid.crs).transform(x[number], y[number])
        tiles = (key.tile_row, grid.tile_height), (key.tile_col, grid.tile_width)
        for name, place, (first, side) in zip(PIXEL, grid.to_pixel(east, north), tiles, strict=True):
            assert chunk[name].to_pylist() == np.floor(place).astype(int).tolist()
            assert set(np.floor(place / side) - first) <= {0, 1}
        found += [(int(point), key.record_id, grid) for point in number]
    reasons = dict(zip(out.unsampled["point_index"].to_pylist(), out.unsampled["reason"].to_pylist(), strict=True))
    assert out.sampled == len({point for point, *_ in found}) == len(points) - len(reasons)
    return index, found, reasons


def first_grid(index: RoutingIndex, grids: Iterable[Grid], point: int, x: Floats, y: Floats) -> Grid:
    """Of the grids of an index that hold a point, the first of some."""
    for number in range(len(index.grids)):
        grid = index.grid(number)
        row, col = grid.to_pixel(*projector(ZONES[0], grid.crs).transform(x[point], y[point]))
        if grid in grids and 0 <= row < grid.height and 0 <= col < grid.width:
            return grid
    raise AssertionError(f"no grid holds point {point}")


@QUICK
@given(collections(), all_rules(), PLACES_AND_TIMES, st.sampled_from([["A"], ["B"], ["B", "A"], None]))
def test_places_of_points(
    scenes: list[Scene],
    rules: MatchRules,
    points: list[tuple[tuple[int, int], int | None]],
    bands: list[str] | None,
) -> None:
    """Each point that has a record once, on the first grid with bands to sample; other bands decide nothing."""
    times = [time for _, time in points]
    batch = points_of([place for place, _ in points], times)
    x, y = coordinates_of(batch)
    frame = candidates(scenes, ZONES[0], x, y)
    rules = replace(rules, places="point", quality=(("A", "pass"), ("B", "fail")))
    index, found, reasons = placed(scenes, batch, rules, bands)
    to_sample = frame if bands is None else frame[frame["band"].isin(bands)]
    taken, wanted = expected(to_sample, times, rules)
    assert reasons == wanted
    assert sorted(point for point, *_ in found) == sorted({point for point, *_ in taken})
    in_time = rules.time_column is not None
    grids = {
        grid
        for scene in scenes
        for band, grid in scene.grids.items()
        if band in index.bands and not (in_time and scene.moment is None)
    }
    for point, record, grid in found:
        assert record == "" and grid == first_grid(index, grids, point, x, y)


@QUICK
@given(collections(), all_rules(), PLACES_AND_TIMES)
def test_places_of_records(
    scenes: list[Scene], rules: MatchRules, points: list[tuple[tuple[int, int], int | None]]
) -> None:
    """Each point and record once, on the first grid of the record that holds the point."""
    times = [time for _, time in points]
    batch = points_of([place for place, _ in points], times)
    x, y = coordinates_of(batch)
    rules = replace(rules, match="all", limit=None, overlap="all", places="record")
    rules = replace(rules, time_column="when" if rules.tolerance is not None else None)
    _, found, reasons = placed(scenes, batch, rules)
    taken, wanted = expected(candidates(scenes, ZONES[0], x, y), times, rules)
    assert reasons == wanted
    assert sorted(place[:2] for place in found) == sorted({(point, record) for point, record, _ in taken})
    index = index_of(scenes, rules)
    grids = {scene.id: set(scene.grids.values()) for scene in scenes}
    for point, record, grid in found:
        assert grid == first_grid(index, grids[record], point, x, y)


@pytest.mark.parametrize(
    ("match", "apart", "together"),
    [(MatchRules(), "record", ""), (MatchRules("latest"), "point", ""), (MatchRules("nearest", "when"), "point", "")],
)
def test_wide_rows(match: MatchRules, apart: str, together: str) -> None:
    """Are keyed by place only where bands lie on several grids, or are not of one record."""
    fine, coarse = (grid_near(ZONES[0], -200, 200, pixel) for pixel in (10, 20))
    for scenes, places in (
        ([Scene("x", 0, {"A": fine, "B": coarse})], apart),
        ([Scene("x", 0, {"A": fine, "B": fine}), Scene("y", 0, {"A": coarse, "B": coarse})], together),
        ([Scene("x", 0, {"A": fine, "B": fine}), Scene("y", HOUR, {"B": fine})], apart if match.match != "all" else ""),
    ):
        assert index_of(scenes, replace(match, wide=True)).places == places
        assert index_of(scenes, match).places == ""
        assert index_of(scenes, replace(match, wide=True, places="point")).places == "point"


def test_a_block_covers_the_tile_of_the_coarsest_band() -> None:
    """So that no other block reads it; and the tiles of all records in question count."""
    fine = Grid("EPSG:32631", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), 10_980, 10_980, 512, 512)
    coarse = replace(fine, transform=(20.0, 0.0, 0.0, 0.0, -20.0, 0.0), width=5490, height=5490)
    scenes = [Scene(f"r{number}", number, {"A": fine, "Q": coarse}) for number in range(40)]
    for rules, shapes in (
        (MatchRules("latest"), [(4, 16), (4, 16)]),
        (MatchRules("latest", places="point", candidates=10), [(2, 2), (1, 1)]),
        (MatchRules("latest", places="point"), [(2, 16), (2, 16)]),
        (MatchRules("latest", places="point", candidates=2), [(2, 2), (1, 2)]),
        (MatchRules("nearest", "when", places="point", candidates=2), [(2, 2), (1, 1)]),
        (MatchRules(places="record"), [(2, 16), (2, 16)]),
        (MatchRules(places="point"), [(2, 2), (1, 1)]),
    ):
        rows, cols = block_shapes(index_of(scenes, replace(rules, quality=(("Q", "error"),)), ["A"]), ChunkRules())
        assert list(zip(rows.tolist(), cols.tolist(), strict=True)) == shapes, rules


def test_records_without_a_quality_band() -> None:
    """Are refused before anything is read, unless the rule decides otherwise; records without bands to sample pass."""
    fine, coarse = (grid_near(ZONES[0], -200, 200, pixel) for pixel in (10, 20))
    scenes = [
        Scene("x", 0, {"A": fine, "Q": coarse}),
        Scene("y", 0, {"A": fine}),
        Scene("z", 0, {"A": fine}),
        Scene("w", 0, {"B": fine}),
    ]
    for missing in ("pass", "fail"):
        index = index_of(scenes, MatchRules("latest", places="point", quality=(("Q", missing),)), ["A"])
        assert index.bands == ("A",) and index.layers.bandsets == [("A",)]
        at = [index.grid(number) if number >= 0 else None for number in index.band_grids("Q").tolist()]
        assert at == [coarse, None, None, None]
        assert index.grid_of_band("x", "Q") == coarse and index.grid_of_band("y", "Q") is None
    rules = MatchRules(places="record", quality=(("Q", "pass"), ("Q", "error")))
    with pytest.raises(
        InputError,
        match=r"^quality band Q is not in 2 of the 3 records to sample, the first of them 'y'; set missing=\"pass\" or "
        r"missing=\"fail\" in the Quality of Q, or leave such records out with subset or where$",
    ):
        index_of(scenes, rules, ["A"])
