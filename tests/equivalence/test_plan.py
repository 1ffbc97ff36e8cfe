"""A plan's figures are those that the run then counts, and it opens no file."""

from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import rasteret_beam
from pipelines import sample_points
from rasteret_beam import Collection, ReadPoints, SamplePoints, build_from_cogs, build_from_table, metrics
from rasteret_beam.collection.eager.plan import (
    CANDIDATES,
    COUNTED,
    PLAN_SCHEMA,
    RECORDS,
    TILES_OF_UNKNOWN_SIZE,
    crowded_tiles,
    plan_batches,
    plan_totals,
)
from rasteret_beam.collection.eager.plan_view import human_bytes
from rasteret_beam.collection.eager.touched_tiles import TileCounts
from rasteret_beam.errors import InputError
from rasteret_beam.model import MatchRules
from rasteret_beam.schema import points_schema
from tests.support import rasters
from tests.support.commands import as_flags, execute
from tests.support.pipelines import XY, run
from tests.support.scenes import scene_table

FIGURES = (*COUNTED, metrics.SAMPLES_OUT, metrics.TILES_DECODED, metrics.TILE_BYTES_READ, metrics.RANGE_REQUESTS)
TWO_BANDS = {"dtype": "uint16", "count": 2, "width": 640, "height": 512, "tile": (64, 64)}


def counted(collection: Collection, points: pa.Table, bands: list[str], match: str = "all") -> dict[str, int]:
    """What a run counts."""

    def build(pipeline: beam.Pipeline) -> None:
        pipeline | ReadPoints(points, **XY) | SamplePoints(collection, bands, match=match)

    counts = run(build)
    return {name: counts.get(name, 0) for name in FIGURES}


def planned(table: pa.Table) -> dict[str, int]:
    totals = plan_totals(table)
    return {name: totals[name] for name in FIGURES}


def points_in(path: Path, n: int) -> pa.Table:
    x, y = rasters.points_for(path, n, 5)
    return pa.table({"x": x, "y": y})


@pytest.fixture(scope="module")
def own_scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Collection, Path]:
    """The collection of the scenes, and the folder of its files."""
    folder = tmp_path_factory.mktemp("own")
    return build_from_table(scene_table(folder), name="own"), folder


@pytest.fixture(scope="module")
def runs(own_scenes: tuple[Collection, Path], points: pa.Table) -> dict[str, dict[str, int]]:
    """What runs over the scenes count, by match; afterwards their files are gone."""
    collection, folder = own_scenes
    found = {match: counted(collection, points, ["B10", "B20"], match) for match in ("all", "latest")}
    for path in folder.glob("*.tif"):
        path.unlink()
    return found


@pytest.mark.parametrize("match", ["all", "latest"])
def test_the_figures_are_those_of_a_run_and_no_file_is_opened(
    own_scenes: tuple[Collection, Path], runs: dict[str, dict[str, int]], points: pa.Table, match: str
) -> None:
    table = rasteret_beam.plan(own_scenes[0], points, ["B10", "B20"], **XY, match=match)
    assert table.schema.equals(PLAN_SCHEMA)
    assert planned(table) == runs[match]
    assert runs[match][metrics.SAMPLES_OUT] > 1000
    assert 2 < runs[match][metrics.RANGE_REQUESTS] < runs[match][metrics.TILES_DECODED]
    assert plan_totals(table)[RECORDS] == {"all": 6, "latest": 2}[match]
    assert own_scenes[0].plan(points, ["B10", "B20"], **XY, match=match).equals(table)


@pytest.mark.parametrize("n", [15, 400])
@pytest.mark.parametrize("interleave", ["PIXEL", "BAND"])
def test_two_bands_interleaved_and_apart(tmp_path: Path, interleave: str, n: int) -> None:
    options = {"COMPRESS": "DEFLATE", "INTERLEAVE": interleave}
    path = rasters.RasterCase(name="two", options=options, **TWO_BANDS).write(tmp_path)
    points = points_in(path, n)
    collection = build_from_cogs([path])
    expected = counted(collection, points, ["B1", "B2"])
    path.unlink()
    table = rasteret_beam.plan(collection, points, ["B1", "B2"], **XY)
    assert planned(table) == expected
    stored = table.filter(pa.compute.greater(table["bytes"], 0))
    assert len(stored) == (expected[metrics.TILES_DECODED] // (2 if interleave == "PIXEL" else 1))


@pytest.mark.parametrize("name", ["sparse", "sparse_pixel", "sparse_band", "sparse_nodata", "jpeg_gray", "webp_lossy"])
def test_sparse_files_and_files_for_rasterio(tmp_path: Path, name: str) -> None:
    path = rasters.case(name).write(tmp_path)
    points = points_in(path, 40)
    collection = build_from_cogs([path])
    expected = counted(collection, points, collection.bands)
    path.unlink()
    table = rasteret_beam.plan(collection, points, collection.bands, **XY)
    assert planned(table) == expected
    assert plan_totals(table)[TILES_OF_UNKNOWN_SIZE] == 0
    absent = table.filter(pa.compute.is_null(table["offset"]))
    assert set(absent["bytes"].to_pylist()) == ({0} if "sparse" in name else set())


def test_striped_files_have_tiles_of_unknown_size(tmp_path: Path) -> None:
    path = rasters.case("strips_7").write(tmp_path)
    points = points_in(path, 40)
    collection = build_from_cogs([path])
    expected = counted(collection, points, ["B1"])
    table = rasteret_beam.plan(collection, points, ["B1"], **XY)
    assert planned(table) | {metrics.TILE_BYTES_READ: expected[metrics.TILE_BYTES_READ]} == expected
    assert expected[metrics.RANGE_REQUESTS] == 0
    assert plan_totals(table)[TILES_OF_UNKNOWN_SIZE] == expected[metrics.TILES_DECODED] == len(table)
    assert set(table["engine"].to_pylist()) == {"rasterio"}
    assert set(table["reason"].to_pylist()) == {"the collection has no tile offsets for it: it is striped, or no TIFF"}
    assert (table["bytes"].null_count, table["offset"].null_count) == (len(table), len(table))


def test_rows_say_where_each_tile_is_and_how_many_points_it_holds(
    own_scenes: tuple[Collection, Path], runs: dict[str, dict[str, int]], points: pa.Table
) -> None:
    collection = own_scenes[0].subset(ids="P1_1")
    table = rasteret_beam.plan(own_scenes[0], points, ["B10"], **XY, ids="P1_1")
    (record,) = collection.to_table().to_pylist()
    col, row = (points["x"].to_numpy() - 502_000) / 10, (5_400_000 - points["y"].to_numpy()) / 10
    inside = (col >= 0) & (col < 300) & (row >= 0) & (row < 300)
    places, held = np.unique((row[inside] // 64 * 5 + col[inside] // 64).astype(int), return_counts=True)
    rows = {found["tile_row"] * 5 + found["tile_col"]: found for found in table.to_pylist()}
    assert {place: found["points"] for place, found in rows.items()} == dict(zip(places, held, strict=True))
    for place, found in rows.items():
        assert (found["record_id"], found["band"], found["engine"], found["reason"]) == ("P1_1", "B10", "indexed", None)
        assert found["href"] == record["assets"]["B10"]["href"]
        assert found["offset"] == record["B10_metadata"]["tile_offsets"][place]
        assert found["bytes"] == record["B10_metadata"]["tile_byte_counts"][place]


def test_points_that_no_record_contains_give_an_empty_plan(scenes: Collection) -> None:
    table = rasteret_beam.plan(scenes, pa.table({"x": [0.0, None], "y": [0.0, 1.0]}), ["B10"], **XY)
    assert (len(table), table.schema) == (0, PLAN_SCHEMA)
    totals = plan_totals(table)
    assert {name: number for name, number in totals.items() if number} == {
        metrics.POINTS_IN: 2,
        metrics.POINTS_UNSAMPLED: 2,
        metrics.unsampled("null"): 1,
        metrics.unsampled("no_record"): 1,
    }
    assert crowded_tiles(table) == []


def test_bad_arguments_are_refused_as_in_sampling(scenes: Collection, points: pa.Table) -> None:
    with pytest.raises(InputError, match=r"lacks band\(s\) B99"):
        rasteret_beam.plan(scenes, points, ["B99"], **XY)
    with pytest.raises(InputError, match="geometry_crs"):
        rasteret_beam.plan(scenes, points, ["B10"], x_column="x", y_column="y")


def test_tiles_are_counted_over_batches() -> None:
    rng = np.random.default_rng(3)
    batches = [rng.integers(0, 60, size) for size in (0, 5, 400, 30, 0, 900)]
    counts = TileCounts()
    for batch in batches:
        counts.add(batch)
    tiles, points = counts.total()
    expected = np.unique(np.concatenate(batches), return_counts=True)
    np.testing.assert_array_equal(tiles, expected[0])
    np.testing.assert_array_equal(points, expected[1])


@pytest.mark.parametrize("match", ["all", "latest"])
def test_the_command_prints_the_plan_and_writes_nothing(
    own_scenes: tuple[Collection, Path], runs: dict[str, dict[str, int]], points: pa.Table, tmp_path: Path, match: str
) -> None:
    own_scenes[0].export(tmp_path / "collection")
    pq.write_table(points.select(["plot", "x", "y"]), tmp_path / "points.parquet", row_group_size=300)
    before = sorted(tmp_path.rglob("*"))
    flags = as_flags(
        points=tmp_path / "points.parquet",
        x_column="x",
        y_column="y",
        geometry_crs=32631,
        collection=tmp_path / "collection",
        bands="B10,B20",
        match=match,
    )
    outcome = execute(sample_points.main, *flags, "--plan")
    assert (outcome.code, outcome.err) == (0, "")
    assert sorted(tmp_path.rglob("*")) == before
    counts = runs[match]
    assert outcome.figures == {
        "points read": 2000,
        "with a record": counts[metrics.POINTS_SAMPLED],
        "without": counts[metrics.POINTS_UNSAMPLED],
        "null": 1,
        "not_finite": 2,
        "no_record": counts[metrics.POINTS_UNSAMPLED] - 3,
        "records": {"all": 6, "latest": 2}[match],
        "rows": counts[metrics.SAMPLES_OUT],
        "tiles to decode": counts[metrics.TILES_DECODED],
        "requests": counts[metrics.RANGE_REQUESTS],
        "bytes of tiles to read": counts[metrics.TILE_BYTES_READ],
    }
    lines = outcome.out.splitlines()
    first = lines.index("the 10 most crowded tiles") + 1
    assert len(lines) == first + 10
    table = own_scenes[0].plan(points, ["B10", "B20"], **XY, match=match)
    most = max(table.to_pylist(), key=lambda row: row["points"])["points"]
    assert lines[first].split(" points in tile ")[0].strip() == f"{most:,}"
    assert all("of P" in line and ", B" in line for line in lines[first:])


def test_the_command_says_why_nothing_would_be_sampled(scenes: Collection, tmp_path: Path) -> None:
    scenes.export(tmp_path / "collection")
    pq.write_table(pa.table({"x": [48.0], "y": [3.0]}), tmp_path / "points.parquet")
    flags = as_flags(
        points=tmp_path / "points.parquet", geometry_crs=4326, collection=tmp_path / "collection", bands="B10"
    )
    outcome = execute(sample_points.main, *flags, "--plan")
    assert outcome.code == 0 and outcome.figures["rows"] == 0
    assert outcome.err.startswith("warning: none of the points lies in the collection")


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (285_432, "285.4 kB"), (20_000_000_000, "20.0 GB")],
)
def test_bytes_in_words(count: int, shown: str) -> None:
    assert human_bytes(count) == shown


def tile_points(x: np.ndarray, y: np.ndarray, taken: dict[str, np.ndarray], band: str) -> dict[tuple, int]:
    """Points of each tile of a band, by record, given which points are taken from each record of the scenes."""
    found = {}
    side = {"B10": 640, "B20": 1280}[band]
    for record, mask in taken.items():
        left = 500_000 if record.startswith("P0") else 502_000
        places = np.stack([(5_400_000 - y[mask]) // side, (x[mask] - left) // side], axis=1).astype(int)
        tiles, held = np.unique(places, axis=0, return_counts=True)
        found |= {(record, band, *tile): int(count) for tile, count in zip(tiles.tolist(), held, strict=True)}
    return found


@pytest.mark.parametrize(
    ("match", "places"), [("all", "record"), ("all", "point"), ("latest", "point"), ("nearest", "point")]
)
@pytest.mark.parametrize("bands", [["B10"], ["B20", "B10"]])
def test_tiles_of_quality_bands(
    scenes: Collection, points: pa.Table, match: str, places: str, bands: list[str]
) -> None:
    """Of the records that are taken, each once; their points are not counted as rows."""
    x, y = (points[name].to_numpy(zero_copy_only=False) for name in "xy")
    usable = np.isfinite(x) & np.isfinite(y) & (y <= 5_400_000) & (y > 5_397_000)
    inside = {place: usable & (x >= left) & (x < left + 3000) for place, left in (("P0", 500_000), ("P1", 502_000))}
    taken = {f"{place}_{number}": inside[place] for place in inside for number in range(3)}
    if match == "latest":
        taken = {"P0_2": inside["P0"], "P1_2": inside["P1"] & ~inside["P0"]}
    elif match == "nearest":
        taken = {"P0_0": inside["P0"], "P1_0": inside["P1"] & ~inside["P0"]}
    lacks = {record: mask for record, mask in taken.items() if record != "P1_1"}
    wanted = {"B10": tile_points(x, y, taken, "B10"), "B20": tile_points(x, y, lacks, "B20")}
    in_time = match == "nearest"
    rules = MatchRules(match, "when" if in_time else None, places=places, quality=(("B20", "pass"), ("B10", "error")))
    index = scenes.index(bands, rules)
    when = pa.array(["2022-01-01"] * len(points))
    batch = pa.record_batch(
        [pa.array(range(len(points))), points["x"].combine_chunks(), points["y"].combine_chunks(), when],
        schema=points_schema([pa.field("when", pa.string())], "EPSG:32631"),
    )
    table = plan_batches(index, [batch.slice(0, 700), batch.slice(700)], "EPSG:32631")
    names = ("record_id", "band", "tile_row", "tile_col")
    rows = {tuple(row[name] for name in names): row["points"] for row in table.to_pylist()}
    assert len(rows) == len(table)
    assert rows == wanted["B10"] | wanted["B20"]
    totals = plan_totals(table)
    assert totals[metrics.SAMPLES_OUT] == sum(sum(wanted[band].values()) for band in bands)
    assert totals[metrics.POINTS_SAMPLED] == np.count_nonzero(inside["P0"] | inside["P1"])
    assert totals[metrics.TILES_DECODED] == len(rows)


def test_records_that_skip_invalid_may_read(scenes: Collection, points: pa.Table, tmp_path: Path) -> None:
    """The plan has the best record of each point, and how many may be read."""
    table = scenes.plan(points, ["B10"], **XY, match="latest")
    skipping = scenes.plan(points, ["B10"], **XY, match="latest", skip_invalid=True, max_candidates=4)
    order = [(name, "ascending") for name in ("record_id", "tile_row", "tile_col")]
    left_out = ["request"]
    assert skipping.sort_by(order).drop_columns(left_out).equals(table.sort_by(order).drop_columns(left_out))
    assert plan_totals(skipping)[CANDIDATES] == 4 and CANDIDATES not in plan_totals(table)
    scenes.export(tmp_path / "collection")
    pq.write_table(points.select(["x", "y"]), tmp_path / "points.parquet")
    flags = as_flags(points=tmp_path / "points.parquet", **XY, collection=tmp_path / "collection", bands="B10")
    outcome = execute(sample_points.main, *flags, "--match=latest", "--skip_invalid", "--max_candidates=4", "--plan")
    assert outcome.code == 0
    assert "where the best record is not valid, up to 3 more are read" in outcome.out
