"""Interpolation across the seams of a mosaic: cut into files, a raster gives the values that it gives as a whole."""

import math
import os
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine

from rasteret_beam import (
    Collection,
    Quality,
    ReadPoints,
    SampleDeadLetters,
    SamplePoints,
    WriteSamplesToParquet,
    build_from_cogs,
    build_from_table,
    metrics,
)
from rasteret_beam.errors import TileReadError
from rasteret_beam.readers.tiles.protocol import TileRequest
from rasteret_beam.readers.tiles.source import TileSource
from rasteret_beam.schema import DEAD_LETTER_SCHEMA
from tests.support.mosaics import TEN_METRES, Piece, cut, interpolated, pieces, points_at, write_piece
from tests.support.pipelines import XY, read, run, sample_to
from tests.support.properties import examples

HEIGHT, WIDTH = 24, 30
OBLIQUE, SOUTH_UP = Affine(16, 8, 4096, 8, -16, 4096), Affine(8, 0, 0, 0, 8, 0)
GEOID = Path(os.environ.get("RASTERET_BEAM_REAL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "geoid"
DAY = datetime(2024, 5, 1)


def numbers(seed: int, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 120, shape)


def everywhere(seed: int, count: int, shape: tuple[int, int] = (HEIGHT, WIDTH)) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns in 16ths of a pixel, so that some lie on centres, and none on an edge of pixels."""
    rng = np.random.default_rng(seed)
    row, col = (rng.integers(0, size, count) + rng.integers(1, 16, count) / 16 for size in shape)
    return row, col


def values_of(collection: Collection, points: pa.Table, **options: Any) -> np.ndarray:
    """Values [n] of points that one record each contains, in their order."""
    rows = collection.sample_points(points, ["B1"], **{**XY, "resampling": "bilinear", **options})
    rows = rows.sort_by("point_index")
    assert rows["point_index"].to_pylist() == list(range(len(points)))
    return rows["value"].to_numpy()


def two(folder: Path, seed: int = 1, **settings: Any) -> tuple[Collection, np.ndarray]:
    """A raster of 12 x 20 pixels in two files, side by side, and the raster; settings are those of the second one."""
    raster = numbers(seed, (12, 20)).astype(np.uint8)
    return cut(folder, raster, pieces([0, 12], [0, 9, 20]), settings={1: settings}), raster


AT_SEAM = points_at(np.array([5.25, 5.25]), np.array([8.75, 9.25]))
"""A point on either side of the seam of :func:`two`."""


def at_seam(raster: np.ndarray) -> np.ndarray:
    """The values that the raster has there."""
    row, col = np.array([5.25, 5.25]), np.array([8.75, 9.25])
    return interpolated(raster.astype(float), np.ones(raster.shape, dtype=bool), row, col, "bilinear", False)


cuts = st.lists(st.integers(1, 23), max_size=2, unique=True).map(sorted)


@settings(max_examples=examples(64), deadline=None, derandomize=True)
@given(
    rows=cuts,
    cols=cuts,
    transform=st.sampled_from([TEN_METRES, TEN_METRES, SOUTH_UP, OBLIQUE]),
    resampling=st.sampled_from(["bilinear", "cubic"]),
    skip=st.booleans(),
    unscale=st.booleans(),
    share=st.sampled_from([0.0, 0.1, 0.5]),
    seed=st.integers(0, 1000),
)
def test_a_raster_in_pieces_has_the_values_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[int],
    cols: list[int],
    transform: Affine,
    resampling: Any,
    skip: bool,
    unscale: bool,
    share: float,
    seed: int,
) -> None:
    """Pieces of any size, down to strips of one pixel, with data types, nodata values, masks and scales that differ."""
    rng, stored = np.random.default_rng(seed), numbers(seed)
    left_out = rng.random(stored.shape) < share
    parts = pieces([0, *rows, HEIGHT], [0, *cols, WIDTH])
    physical, hrefs = stored.astype(float), []
    folder = tmp_path_factory.mktemp("pieces")
    for number, part in enumerate(parts):
        at = np.s_[part.row : part.row + part.height, part.col : part.col + part.width]
        dtype = rng.choice(["uint8", "int8", "uint16", "int32", "int64", "float32", "float64"])
        values, masked, profile = stored[at].astype(dtype), None, {}
        kind = rng.integers(0, 3)
        if kind == 0:
            masked = left_out[at]
        elif kind == 1 or values.dtype.kind != "f":
            profile["nodata"] = int(rng.choice([0, 121, 127]))
            values[left_out[at]] = profile["nodata"]
        else:
            values[left_out[at]] = np.nan
        if unscale:
            scale, offset = rng.choice([0.5, 2.0, -1.0]), rng.choice([0.0, 10.0])
            profile |= {"scales": [scale], "offsets": [offset]}
            physical[at] = stored[at] * scale + offset
        place = transform * Affine.translation(part.col, part.row)
        hrefs.append(write_piece(folder / f"{number}.tif", values, place, masked, **profile))
    row, col = everywhere(seed, 300)
    options = {"resampling": resampling, "skip_nodata": skip, "unscale": unscale, "invalid": "null"}
    found = values_of(build_from_cogs(hrefs), points_at(row, col, transform), **options)
    expected = interpolated(physical, ~left_out, row, col, resampling, skip)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("resampling", "skip"), [("cubic", False), pytest.param("bilinear", True, marks=pytest.mark.slow)]
)
def test_the_pipeline_gives_the_same(tmp_path: Path, resampling: Any, skip: bool) -> None:
    raster = numbers(7).astype(np.uint8)
    raster[np.random.default_rng(7).random(raster.shape) < 0.05] = 0
    parts = pieces([0, 8, 9, 24], [0, 1, 17, 30])
    collection = cut(tmp_path, raster, parts, settings={number: {"nodata": 0} for number in range(9)})
    row, col = everywhere(7, 400)
    pq.write_table(points_at(row, col), tmp_path / "points.parquet")
    options = {"resampling": resampling, "skip_nodata": skip, "bands": ["B1"]}
    piped, _ = sample_to(tmp_path / "out", str(tmp_path / "points.parquet"), collection, **options)
    expected = interpolated(raster.astype(float), raster != 0, row, col, resampling, skip)
    np.testing.assert_allclose(piped["value"].to_numpy(), expected, rtol=1e-12)


def test_a_point_keeps_its_own_record_and_pixel(tmp_path: Path) -> None:
    collection, raster = two(tmp_path)
    extra = ["pixel_row", "pixel_col", "status"]
    rows = collection.sample_points(AT_SEAM, ["B1"], **XY, resampling="bilinear", extra_columns=extra)
    rows = rows.sort_by("point_index")
    assert rows["record_id"].to_pylist() == ["p00", "p01"]
    assert rows["pixel_row"].to_pylist() == [5, 5] and rows["pixel_col"].to_pylist() == [8, 0]
    assert rows["status"].cast(pa.string()).to_pylist() == ["valid", "valid"]
    np.testing.assert_allclose(rows["value"].to_numpy(), at_seam(raster))


@pytest.mark.parametrize(
    ("other", "tolerance", "mixed"),
    [
        (DAY, "60s", True),
        (DAY + timedelta(seconds=60), "60s", True),
        (DAY - timedelta(seconds=61), "60s", False),
        (DAY - timedelta(seconds=61), "2min", True),
        (DAY + timedelta(days=1), "60s", False),
        (None, "60s", False),
    ],
)
def test_records_of_other_dates_are_not_mixed(
    tmp_path: Path, other: datetime | None, tolerance: str, mixed: bool
) -> None:
    raster = numbers(1, (12, 20)).astype(np.uint8)
    collection = cut(tmp_path, raster, pieces([0, 12], [0, 9, 20]), datetime=[DAY, other])
    found = values_of(collection, AT_SEAM, overlap_tolerance=tolerance)
    np.testing.assert_allclose(found, at_seam(raster) if mixed else [math.nan] * 2)


def test_the_nearest_in_time_gives_its_pixels_and_then_the_first_of_the_collection(tmp_path: Path) -> None:
    """Three records beside: those nearest in time of which the first has nothing but nodata, which stays nodata."""
    raster = numbers(2, (12, 20)).astype(np.uint8)
    left, right = pieces([0, 12], [0, 9, 20])
    times = [DAY, *(DAY + timedelta(seconds=seconds) for seconds in (20, 10, -10))]
    collection = cut(tmp_path, raster, [left, right, right, right], datetime=times)
    for number in (1, 3):
        write_piece(
            tmp_path / f"p0{number}.tif", np.full((12, 11), 200, np.uint8), TEN_METRES * Affine.translation(9, 0)
        )
    point = AT_SEAM.slice(0, 1)
    rows = collection.sample_points(point, ["B1"], **XY, resampling="bilinear")
    assert rows["value"].to_numpy() == pytest.approx(at_seam(raster)[:1])


@pytest.mark.parametrize(("shift", "mixed"), [(1e-9, True), (1e-7, True), (1e-3, False), (0.2, False)])
def test_grids_that_are_not_aligned_are_not_mixed(tmp_path: Path, shift: float, mixed: bool) -> None:
    _, raster = two(tmp_path)
    place = TEN_METRES * Affine.translation(9 + shift, 0)
    moved = write_piece(tmp_path / "moved.tif", raster[:, 9:], place)
    found = values_of(build_from_cogs([tmp_path / "p00.tif", moved]), AT_SEAM)
    np.testing.assert_allclose(found, at_seam(raster) if mixed else [math.nan] * 2, rtol=1e-6)
    lenient = values_of(build_from_cogs([tmp_path / "p00.tif", moved]), AT_SEAM, skip_nodata=True)
    assert np.isfinite(lenient).all() and np.allclose(lenient, at_seam(raster)) == mixed


@pytest.mark.parametrize("profile", [{"crs": "EPSG:32632"}, {"transform": Affine.scale(0.5)}])
def test_another_crs_or_pixel_size_is_not_mixed(tmp_path: Path, profile: dict[str, Any]) -> None:
    _, raster = two(tmp_path)
    place = TEN_METRES * Affine.translation(9, 0) * profile.pop("transform", Affine.identity())
    other = write_piece(tmp_path / "other.tif", raster[:, 9:], place, **profile)
    found = values_of(build_from_cogs([tmp_path / "p00.tif", other]), AT_SEAM.slice(0, 1))
    assert np.isnan(found).all()


@pytest.mark.parametrize("known", [True, False])
def test_other_scales_are_mixed_only_in_physical_units(tmp_path: Path, known: bool) -> None:
    """Also where the collection does not know them, and only the files can tell."""
    collection, raster = two(tmp_path, scales=[0.5], offsets=[3.0])
    if not known:
        collection = without_facts(collection)
    assert np.isnan(values_of(collection, AT_SEAM)).all()
    physical = raster.astype(float)
    physical[:, 9:] = physical[:, 9:] * 0.5 + 3
    np.testing.assert_allclose(values_of(collection, AT_SEAM, unscale=True), at_seam(physical))
    given = values_of(collection, AT_SEAM, unscale=True, scales={"B1": (2.0, 0.0)})
    np.testing.assert_allclose(given, 2 * at_seam(raster))


def test_equal_scales_are_mixed_as_stored(tmp_path: Path) -> None:
    tags = {"scales": [0.5], "offsets": [3.0]}
    raster = numbers(1, (12, 20)).astype(np.uint8)
    collection = cut(tmp_path, raster, pieces([0, 12], [0, 9, 20]), settings={0: tags, 1: tags})
    np.testing.assert_allclose(values_of(collection, AT_SEAM), at_seam(raster))


def test_tiles_that_overlap_give_each_pixel_once(tmp_path: Path) -> None:
    """Tiles that share a row or column of pixels, or more: each record of a point has the value of the whole."""
    raster = numbers(5).astype(np.int16)
    parts = [Piece(0, 0, 13, 16), Piece(0, 15, 13, 15), Piece(10, 0, 14, 18), Piece(12, 12, 12, 18)]
    collection = cut(tmp_path, raster, parts)
    row, col = everywhere(5, 400)
    for skip in (False, True):
        options = {"resampling": "cubic", "skip_nodata": skip}
        rows = collection.sample_points(points_at(row, col), ["B1"], **XY, **options)
        assert len(rows) > 450
        expected = interpolated(raster.astype(float), np.ones(raster.shape, dtype=bool), row, col, "cubic", skip)
        np.testing.assert_allclose(rows["value"].to_numpy(), expected[rows["point_index"].to_numpy()], rtol=1e-12)


def test_a_record_without_the_band_gives_nothing(tmp_path: Path) -> None:
    raster = np.stack([numbers(1, (12, 20)), numbers(2, (12, 20))]).astype(np.uint8)
    cut(tmp_path, raster, pieces([0, 12], [0, 9, 20]))
    left, right = ({"href": str(tmp_path / f"p0{number}.tif")} for number in range(2))
    assets = [
        {"B1": {**left, "band_index": 0}, "B2": {**left, "band_index": 1}},
        {"B1": None, "B2": {**right, "band_index": 1}},
    ]
    collection = build_from_table(pa.table({"id": ["a", "b"], "datetime": [DAY, DAY], "assets": assets}))
    rows = collection.sample_points(AT_SEAM.slice(0, 1), ["B1", "B2"], **XY, resampling="bilinear").sort_by("band")
    found = rows["value"].to_numpy()
    assert math.isnan(found[0]) and found[1] == pytest.approx(at_seam(raster[1])[0])


CLEAR = Quality("B2", keep=[4])


@pytest.mark.parametrize(
    "options", [{}, {"skip_nodata": True}, {"skip_nodata": True, "skip_invalid": True, "match": "latest"}]
)
def test_quality_rules_hold_on_both_sides(tmp_path: Path, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(4)
    raster = np.stack([numbers(4), rng.choice([4, 4, 4, 9], (HEIGHT, WIDTH))]).astype(np.uint8)
    collection = cut(tmp_path, raster, pieces([0, 11, 24], [0, 13, 30]))
    row, col = everywhere(4, 300)
    found = values_of(collection, points_at(row, col), quality=[CLEAR], **options)
    skip = "skip_nodata" in options
    expected = interpolated(raster[0].astype(float), raster[1] == 4, row, col, "bilinear", skip)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("missing", ["pass", "fail"])
def test_a_record_beside_without_the_quality_band(tmp_path: Path, missing: Any) -> None:
    raster = np.stack([numbers(1, (12, 20)), np.full((12, 20), 4)]).astype(np.uint8)
    cut(tmp_path, raster, pieces([0, 12], [0, 9, 20]))
    left, right = ({"href": str(tmp_path / f"p0{number}.tif")} for number in range(2))
    assets = [
        {"B1": {**left, "band_index": 0}, "B2": {**left, "band_index": 1}},
        {"B1": {**right, "band_index": 0}, "B2": None},
    ]
    collection = build_from_table(pa.table({"id": ["a", "b"], "datetime": [DAY, DAY], "assets": assets}))
    rule = Quality("B2", keep=[4], missing=missing)
    found = values_of(collection, AT_SEAM, quality=[rule])
    np.testing.assert_allclose(found, at_seam(raster[0]) if missing == "pass" else [math.nan] * 2)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int, int]]:
    """Record, band, row and column of the tiles that are asked for."""
    read_tiles, found = TileSource.each, []

    def each(source: TileSource, requests: Iterable[TileRequest], *others: Any) -> None:
        wanted = list(requests)
        found.extend((want.asset.record_id, want.asset.band, want.tile_row, want.tile_col) for want in wanted)
        read_tiles(source, wanted, *others)

    monkeypatch.setattr(TileSource, "each", each)
    return found


def test_tiles_beside_are_read_only_where_a_block_reaches(tmp_path: Path, asked: list[Any]) -> None:
    """One file of 3 x 2 tiles and one beside: a tile for each point, and for those at a seam those across it."""
    raster = numbers(3, (48, 48)).astype(np.uint8)
    collection = cut(tmp_path, raster, pieces([0, 48], [0, 32, 48]))

    def tiles(row: float, col: float, resampling: Any) -> list[tuple[str, int, int]]:
        asked.clear()
        collection.sample_points(points_at(np.array([row]), np.array([col])), ["B1"], **XY, resampling=resampling)
        return sorted((record, *place) for record, _, *place in asked)

    own, beside = ("p00", 0, 1), ("p01", 0, 0)
    assert tiles(8.0, 24.0, "cubic") == tiles(8.0, 30.4, "cubic") == tiles(8.0, 31.4, "bilinear") == [own]
    assert tiles(8.0, 30.6, "cubic") == tiles(8.0, 31.6, "bilinear") == [own, beside]
    assert tiles(8.0, 32.4, "bilinear") == [own, beside]
    assert tiles(15.9, 31.6, "bilinear") == [own, ("p00", 1, 1), beside, ("p01", 1, 0)]
    assert tiles(15.9, 31.9, "nearest") == [own]


AROUND: dict[str, dict[str, Any]] = {
    "bilinear": {"resampling": "bilinear"},
    "cubic": {"resampling": "cubic"},
    "square": {"statistics": ["mean"], "window_pixels": 3},
    "its own pixel": {"statistics": ["mean"], "window_pixels": 0},
    "disc": {"statistics": ["mean"], "radius": 33.0},
    "both": {"resampling": "bilinear", "statistics": ["max", "count"], "radius": 21.0},
}


@pytest.fixture(scope="module")
def two_dates(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Two dates of four pieces that overlap, one of them with another scale; blocks reach into those of one date."""
    raster = np.stack([numbers(3, (60, 70)), numbers(4, (60, 70))]).astype(np.uint8)
    parts = [Piece(0, 0, 33, 35), Piece(0, 35, 33, 35), Piece(32, 0, 28, 40), Piece(33, 39, 27, 31)]
    dates = [DAY] * 4 + [DAY + timedelta(days=1)] * 4
    other = {3: {"scales": [2, 1], "offsets": [0, 0]}}
    return cut(tmp_path_factory.mktemp("two"), raster, [*parts, *parts], settings=other, datetime=dates)


@pytest.mark.parametrize("match", ["all", "latest"])
@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("count", [1, 30])
def test_a_plan_has_the_tiles_that_a_run_reads(
    two_dates: Collection, asked: list[Any], match: Any, around: str, count: int
) -> None:
    options = {"match": match, **AROUND[around]}
    for seed in range(3):
        rng = np.random.default_rng(seed)
        points = points_at(rng.uniform(28, 38, count), rng.uniform(30, 44, count))
        asked.clear()
        two_dates.sample_points(points, ["B1", "B2"], **XY, **options)
        plan = two_dates.plan(points, ["B1", "B2"], **XY, **options).to_pylist()
        planned = [(row["record_id"], row["band"], row["tile_row"], row["tile_col"]) for row in plan]
        assert len(planned) == len(set(planned)) and set(planned) == set(asked)


def without_facts(collection: Collection) -> Collection:
    """A collection as another tool writes it, which does not know scales."""
    table = collection.to_table()
    return Collection.from_table(table.drop_columns([name for name in table.column_names if "_extra" in name]))


def lost_and_tried_again(
    collection: Collection, folder: Path, points: pa.Table, hidden: Path, **options: Any
) -> tuple[list[dict[str, Any]], pa.Table, pa.Table]:
    """Dead letters of a run without a file, and the samples of that run and of another one with it."""
    away = hidden.rename(folder / "away")

    def build(pipeline: Any) -> None:
        samples = pipeline | ReadPoints(points, **XY)
        outputs = samples | SamplePoints(collection, ["B1"], resampling="bilinear", on_error="dead_letter", **options)
        outputs.samples | "Samples" >> WriteSamplesToParquet(str(folder / "samples"))
        outputs.dead_letters | "Letters" >> WriteSamplesToParquet(str(folder / "dead"), schema=DEAD_LETTER_SCHEMA)

    counts = run(build)
    assert counts[metrics.VALUES_ROUTED] == counts[metrics.VALUES_SAMPLED] + counts[metrics.VALUES_DEAD_LETTERED]
    away.rename(hidden)
    options = {name: value for name, value in options.items() if name != "skip_invalid" and name != "match"}

    def again(pipeline: Any) -> None:
        letters = SampleDeadLetters(collection, str(folder / "dead-*.parquet"), resampling="bilinear", **options)
        (pipeline | letters).samples | WriteSamplesToParquet(str(folder / "again"))

    run(again)
    letters = [row for file in sorted(folder.glob("dead-*.parquet")) for row in pq.read_table(file).to_pylist()]
    return letters, read(folder / "samples"), read(folder / "again")


@pytest.mark.parametrize("known", [True, False])
def test_what_cannot_be_read_beside(tmp_path: Path, known: bool) -> None:
    """Nearest needs no other file; an error tells that file; a dead letter keeps the record, and can be tried again."""
    collection, raster = two(tmp_path)
    collection = collection if known else without_facts(collection)
    beside = tmp_path / "p01.tif"
    points = pa.concat_tables([AT_SEAM.slice(0, 1), points_at(np.array([5.25]), np.array([4.25]))])
    beside.rename(tmp_path / "hidden")
    assert values_of(collection, points, resampling="nearest").tolist() == [raster[5, 8], raster[5, 4]]
    with pytest.raises(TileReadError, match=r"'p01'.*p01\.tif"):
        values_of(collection, points)
    (tmp_path / "hidden").rename(beside)
    (letter,), samples, again = lost_and_tried_again(collection, tmp_path, points, beside)
    assert samples["point_index"].to_pylist() == [1]
    assert (letter["record_id"], letter["band"], letter["point_indexes"]) == ("p00", "B1", [0])
    assert letter["href"].endswith("p01.tif") and (letter["tile_row"], letter["tile_col"]) == (0, 0)
    assert again["record_id"].to_pylist() == ["p00"]
    np.testing.assert_allclose(again["value"].to_numpy(), at_seam(raster)[:1])


@pytest.mark.parametrize(
    "options", [pytest.param({}, marks=pytest.mark.slow), {"skip_invalid": True, "match": "latest"}]
)
def test_quality_that_cannot_be_read_beside(tmp_path: Path, options: dict[str, Any]) -> None:
    raster = numbers(1, (12, 20)).astype(np.uint8)
    assets = []
    for number, part in enumerate(pieces([0, 12], [0, 9, 20])):
        at, place = np.s_[:, part.col : part.col + part.width], TEN_METRES * Affine.translation(part.col, 0)
        value = write_piece(tmp_path / f"p{number}.tif", raster[at], place)
        quality = write_piece(tmp_path / f"q{number}.tif", np.full_like(raster[at], 4), place)
        assets.append({name: {"href": str(path), "band_index": 0} for name, path in (("B1", value), ("B2", quality))})
    collection = build_from_table(pa.table({"id": ["a", "b"], "datetime": [DAY, DAY], "assets": assets}))
    point, hidden = AT_SEAM.slice(0, 1), tmp_path / "q1.tif"
    (letter,), samples, again = lost_and_tried_again(
        collection, tmp_path, pa.concat_tables([point, points_at(np.array([3.5]), np.array([3.5]))]), hidden,
        quality=[CLEAR], **options,
    )  # fmt: skip
    assert samples["point_index"].to_pylist() == [1]
    assert (letter["record_id"], letter["band"], letter["point_indexes"]) == ("a", "B1", [0])
    assert letter["href"].endswith("q1.tif")
    np.testing.assert_allclose(again["value"].to_numpy(), at_seam(raster)[:1])


@pytest.mark.parametrize("layout", ["values", "columns"])
def test_wide_rows_across_a_seam(tmp_path: Path, layout: Any) -> None:
    raster = np.stack([numbers(band, (12, 20)) for band in range(3)]).astype(np.uint8)
    collection = cut(tmp_path, raster, pieces([0, 12], [0, 9, 20]))
    bands = ["B1", "B2", "B3"]
    rows = collection.sample_points(AT_SEAM, bands, **XY, resampling="bilinear", layout=layout).sort_by("point_index")
    expected = np.stack([at_seam(of_band) for of_band in raster], axis=1)
    found = rows["values"].to_pylist() if layout == "values" else np.stack([rows[band].to_numpy() for band in bands], 1)
    np.testing.assert_allclose(found, expected)


def windows_of(raster: np.ndarray, row: np.ndarray, col: np.ndarray, radius: int) -> np.ndarray:
    """Pixels [n, k] of the squares around points, NaN beyond the raster."""
    padded = np.pad(raster.astype(float), radius, constant_values=np.nan)
    squares = np.lib.stride_tricks.sliding_window_view(padded, (2 * radius + 1, 2 * radius + 1))
    return squares[row.astype(int), col.astype(int)].reshape(len(row), -1)


@pytest.mark.parametrize(("radius", "resampling"), [(1, "nearest"), (5, "bilinear"), (40, "nearest")])
def test_windows_reach_across_seams(tmp_path: Path, radius: int, resampling: Any) -> None:
    """Over strips of one pixel too, farther than the files beside, and with scales that differ."""
    raster = numbers(8)
    parts = pieces([0, 8, 9, 24], [0, 1, 17, 30])
    tags = {number: {"scales": [number + 1.0], "offsets": [float(number)]} for number in range(9)}
    collection = cut(tmp_path, raster.astype(np.int16), parts, settings=tags)
    physical = raster.astype(float)
    for number, part in enumerate(parts):
        physical[part.row : part.row + part.height, part.col : part.col + part.width] *= number + 1
        physical[part.row : part.row + part.height, part.col : part.col + part.width] += number
    row, col = everywhere(8, 80)
    options = {"statistics": ["count", "mean", "min", "variety", "valid_fraction"], "window_pixels": radius}
    rows = collection.sample_points(
        points_at(row, col), ["B1"], **XY, resampling=resampling, unscale=True, invalid="null", **options
    ).sort_by("point_index")
    around = windows_of(physical, row, col, radius)
    np.testing.assert_array_equal(rows["count"].to_numpy(), np.isfinite(around).sum(axis=1))
    np.testing.assert_allclose(rows["valid_fraction"].to_numpy(), np.isfinite(around).mean(axis=1))
    np.testing.assert_allclose(rows["mean"].to_numpy(), np.nanmean(around, axis=1))
    np.testing.assert_array_equal(rows["min"].to_numpy(), np.nanmin(around, axis=1))
    assert rows["variety"].to_pylist() == [len(np.unique(each[np.isfinite(each)])) for each in around]
    alone = collection.sample_points(points_at(row, col), ["B1"], **XY, **options).sort_by("point_index")
    assert (alone["count"].to_numpy() <= rows["count"].to_numpy()).all()
    assert (alone["count"].to_numpy() < rows["count"].to_numpy()).any()


def test_a_grid_around_the_earth_goes_on_at_its_other_side(tmp_path: Path) -> None:
    values = numbers(6, (18, 36)).astype(np.float32)
    path = write_piece(tmp_path / "globe.tif", values, Affine(10, 0, -180, 0, -10, 90), crs="EPSG:4326")
    rng = np.random.default_rng(6)
    lon, row = rng.uniform(170, 190, 100), 2 + rng.uniform(0, 14, 100)
    points = pa.table({"x": np.where(lon > 180, lon - 360, lon), "y": 90 - 10 * row})
    found = values_of(build_from_cogs([path]), points, geometry_crs=4326, resampling="cubic")
    turned = np.roll(values, 18, axis=1).astype(float)
    expected = interpolated(turned, np.ones(turned.shape, dtype=bool), row, lon / 10, "cubic", False)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.skipif(not GEOID.is_dir(), reason=f"no real rasters in {GEOID} (set RASTERET_BEAM_REAL_DATA)")
def test_proj_goes_around_the_earth_as_well() -> None:
    grid = GEOID / "us_nga_egm96_15.tif"
    rng = np.random.default_rng(16)
    lon, lat = rng.uniform(179.5, 180.5, 2000), rng.uniform(-80, 80, 2000)
    lon = np.where(lon > 180, lon - 360, lon)
    steps = f"+step +proj=unitconvert +xy_in=deg +xy_out=rad +step +proj=vgridshift +grids={grid} +multiplier=1"
    *_, height = pyproj.Transformer.from_pipeline(f"+proj=pipeline {steps}").transform(lon, lat, np.zeros(2000))
    found = values_of(build_from_cogs([grid]), pa.table({"x": lon, "y": lat}), geometry_crs=4326)
    np.testing.assert_allclose(found, height, atol=1e-6, rtol=0)
