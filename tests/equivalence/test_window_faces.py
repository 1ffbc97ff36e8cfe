"""Statistics of windows through pipelines, dead letters, wide rows, schemas and the command line."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rasterio.transform import Affine

from pipelines import sample_points
from rasteret_beam import (
    Collection,
    ReadPoints,
    SampleDeadLetters,
    SampleOptions,
    SamplePoints,
    WriteSamplesToParquet,
    build_from_cogs,
    build_from_table,
    metrics,
)
from rasteret_beam.errors import InputError, TileReadError
from rasteret_beam.kernels.bigquery.schema import bigquery_fields, loadable
from rasteret_beam.readers.tiles.source import TileSource
from rasteret_beam.schema import DEAD_LETTER_SCHEMA
from tests.support.commands import execute
from tests.support.mosaics import TEN_METRES, cut, pieces, points_at, write_piece
from tests.support.pipelines import ORDER, XY, read, run

NAMES = ["mean", "count", "percentile_97.5", "majority"]
ROUND: dict[str, Any] = {"statistics": NAMES, "radius": 33.0}
VALUES = np.random.default_rng(5).integers(0, 9, (40, 48)).astype(np.int16)
COLUMNS = ["point_index", "record_id", "band", "value", *NAMES]


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    """Two files, side by side."""
    return cut(tmp_path, VALUES, pieces([0, 40], [0, 20, 48]), settings={0: {"nodata": 0}, 1: {"nodata": 0}})


def some(count: int = 80) -> pa.Table:
    rng = np.random.default_rng(6)
    return points_at(rng.uniform(0, 40, count), rng.uniform(0, 48, count))


def rows(table: pa.Table) -> list[dict[str, Any]]:
    return table.sort_by(ORDER).select(COLUMNS).to_pylist()


def test_a_tile_that_cannot_be_read_can_be_tried_again(collection: Collection, tmp_path: Path) -> None:
    """The dead letters hold just the points whose windows need the tile, and where in their pixels they lie."""
    points, hidden, broken = some(), tmp_path / "hidden", tmp_path / "p01.tif"
    wanted = collection.sample_points(points, ["B1"], **XY, **ROUND)
    broken.rename(hidden)
    with pytest.raises(TileReadError, match=r"p01\.tif"):
        collection.sample_points(points, ["B1"], **XY, **ROUND)

    def build(pipeline: Any) -> None:
        outputs = (
            pipeline | ReadPoints(points, **XY) | SamplePoints(collection, ["B1"], **ROUND, on_error="dead_letter")
        )
        outputs.samples | "Samples" >> WriteSamplesToParquet(str(tmp_path / "samples"))
        outputs.dead_letters | "Letters" >> WriteSamplesToParquet(str(tmp_path / "dead"), schema=DEAD_LETTER_SCHEMA)

    counts = run(build)
    assert counts[metrics.VALUES_ROUTED] == counts[metrics.VALUES_SAMPLED] + counts[metrics.VALUES_DEAD_LETTERED] == 80
    first = read(tmp_path / "samples")
    east = (points["x"].to_numpy() - 500_000) / 10
    assert set(first["point_index"].to_pylist()) >= set(np.flatnonzero(east < 16.5).tolist())
    assert set(first["point_index"].to_pylist()) <= set(np.flatnonzero(east < 19.5).tolist())
    hidden.rename(broken)

    def again(pipeline: Any) -> None:
        outputs = pipeline | SampleDeadLetters(collection, str(tmp_path / "dead-*.parquet"), **ROUND)
        outputs.samples | WriteSamplesToParquet(str(tmp_path / "again"))

    run(again)
    assert rows(pa.concat_tables([first, read(tmp_path / "again")])) == rows(wanted)


def test_dead_letters_of_a_run_without_positions(collection: Collection, tmp_path: Path) -> None:
    (tmp_path / "p01.tif").unlink()

    def build(pipeline: Any) -> None:
        outputs = pipeline | ReadPoints(some(), **XY) | SamplePoints(collection, ["B1"], on_error="dead_letter")
        outputs.dead_letters | WriteSamplesToParquet(str(tmp_path / "dead"), schema=DEAD_LETTER_SCHEMA)

    run(build)

    def again(pipeline: Any) -> None:
        pipeline | SampleDeadLetters(collection, str(tmp_path / "dead-*.parquet"), **ROUND)

    with pytest.raises(
        Exception, match=r"radius is 33\.0, but the dead letters come from a run with None; try them again"
    ):
        run(again)


def test_wide_rows_of_several_grids_and_records(tmp_path: Path) -> None:
    """Bands of 10 and 20 metres, of which one record lacks the second: each has the statistics of the long rows."""
    coarse = Affine(20, 0, 500_000, 0, -20, 4_500_000)
    fine = write_piece(tmp_path / "a.tif", VALUES, TEN_METRES, nodata=0)
    wide = write_piece(tmp_path / "b.tif", VALUES[:20, :24].astype(np.float32), coarse)
    other = write_piece(tmp_path / "c.tif", VALUES[::-1].copy(), TEN_METRES, nodata=0)
    band = {"band_index": 0}
    assets = [{"A": {"href": str(fine)} | band, "B": {"href": str(wide)} | band}, {"A": {"href": str(other)} | band}]
    table = pa.Table.from_pylist([{"id": f"r{at}", "datetime": None, "assets": each} for at, each in enumerate(assets)])
    collection = build_from_table(table, name="grids")
    options: dict[str, Any] = {**XY, **ROUND}
    long = {(row["point_index"], row["record_id"], row["band"]): row for row in long_rows(collection, options)}
    columns = collection.sample_points(some(), ["A", "B"], layout="columns", **options)
    of_bands = ["A", *(f"A_{name}" for name in NAMES), "B", *(f"B_{name}" for name in NAMES)]
    assert columns.column_names[7:17] == of_bands
    lists = collection.sample_points(some(), ["A", "B"], layout="values", **options)
    assert lists.column_names[7:12] == ["values", *NAMES]
    assert lists.schema.field("count").type == pa.list_(pa.int64(), 2)
    assert lists.schema.field("mean").type == pa.list_(pa.float64(), 2)
    seen = 0
    for row, of_lists in zip(columns.to_pylist(), lists.to_pylist(), strict=True):
        for place, name in enumerate(["A", "B"]):
            own = long.get((row["point_index"], row["record_id"], name), {})
            seen += bool(own)
            assert row[name] == of_lists["values"][place] == own.get("value")
            for each in NAMES:
                assert row[f"{name}_{each}"] == of_lists[each][place] == own.get(each)
    assert seen == len(long) == 240


def long_rows(collection: Collection, options: dict[str, Any]) -> list[dict[str, Any]]:
    return collection.sample_points(some(), ["A", "B"], **options).to_pylist()


def test_rows_of_points_without_a_sample_have_no_statistics(collection: Collection) -> None:
    points = points_at(np.array([5.5, 500.0]), np.array([5.5, 5.5]))
    found = collection.sample_points(points, ["B1"], **XY, **ROUND, match="latest", join="left").sort_by("point_index")
    assert found["count"].to_pylist() == [found["count"][0].as_py(), None]
    assert [found[name][1].as_py() for name in NAMES] == [None] * 4
    lists = collection.sample_points(points, ["B1"], **XY, **ROUND, match="latest", join="left", layout="values")
    assert lists.sort_by("point_index")["count"].to_pylist()[1] == [None]
    wide = collection.sample_points(points, ["B1"], **XY, **ROUND, match="latest", join="left", layout="columns")
    assert wide.sort_by("point_index")["B1_mean"].to_pylist()[1] is None


@pytest.mark.parametrize("layout", ["long", "values", "columns"])
@pytest.mark.parametrize("value_type", ["float64", "float32", "raw"])
def test_schemas_are_known_before(collection: Collection, layout: Any, value_type: Any) -> None:
    """Statistics have their types, whatever those of the values are."""
    options = SampleOptions(**ROUND, layout=layout, value_type=value_type)
    schema = collection.sample_schema(["B1"], options=options)
    found = collection.sample_points(some(), ["B1"], **XY, columns=[], options=options)
    assert found.schema.equals(schema)
    plain = collection.sample_points(some(), ["B1"], **XY, columns=[], statistics=NAMES, radius=33, layout=layout)
    name = {"long": "mean", "values": "mean", "columns": "B1_mean"}[layout]
    assert found.sort_by("point_index")[name].equals(plain.sort_by("point_index")[name])


def test_names_that_are_taken(collection: Collection) -> None:
    points = some().append_column("count", pa.array(range(80)))
    message = r"^statistics adds column\(s\) count, but the sample table has columns of these names; leave them out, or"
    with pytest.raises(InputError, match=message):
        collection.sample_points(points, ["B1"], **XY, **ROUND)
    found = collection.sample_points(points, ["B1"], **XY, **ROUND, columns=[])
    assert found["count"].null_count == 0
    assert collection.sample_points(points, ["B1"], **XY, **ROUND, layout="columns")["count"].to_pylist() != []
    points = some().append_column("B1_mean", pa.array(range(80)))
    with pytest.raises(InputError, match=r"^layout='columns' adds column\(s\) B1_mean, but the sample table has"):
        collection.sample_points(points, ["B1"], **XY, **ROUND, layout="columns")


def test_bigquery_takes_them(collection: Collection) -> None:
    long = collection.sample_schema(["B1"], options=SampleOptions(**ROUND))
    fields = {each["name"]: each["type"] for each in bigquery_fields(long)}
    assert [fields[name] for name in ("mean", "count", "percentile_97_5")] == ["FLOAT", "INTEGER", "FLOAT"]
    wide = collection.sample_schema(["B1"], options=SampleOptions(**ROUND, layout="columns"))
    assert {"B1_percentile_97_5", "B1_mean"} <= {each["name"] for each in bigquery_fields(wide)}
    # Nulls of statistics in lists become NaN; whole numbers of a band that a record lacks cannot.
    points = points_at(np.array([5.1]), np.array([5.1]))
    lists = collection.sample_points(points, ["B1"], **XY, statistics=NAMES, radius=0.5, layout="values")
    (row,) = loadable(lists.to_batches()[0]).to_pylist()
    assert row["count"] == [0] and np.isnan(row["percentile_97_5"]).all() and np.isnan(row["mean"]).all()
    kept = pa.schema([("percentile_97.5", pa.float64()), ("percentile_97_5", pa.float64())])
    with pytest.raises(InputError, match=r"have one name in BigQuery, where : and \. are _"):
        bigquery_fields(kept)


def test_only_tiles_with_a_cell_are_read(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A circle of 25 m around the middle of a pixel does not reach the corners of its block."""
    seen: list[tuple[int, int]] = []
    original = TileSource.each

    def each(source: TileSource, requests: Any, *others: Any) -> None:
        asked = list(requests)
        seen.extend((request.tile_row, request.tile_col) for request in asked)
        original(source, asked, *others)

    monkeypatch.setattr(TileSource, "each", each)

    def tiles(**window: Any) -> list[tuple[int, int]]:
        seen.clear()
        points = points_at(np.array([14.5]), np.array([14.5]))
        collection.sample_points(points, ["B1"], **XY, statistics=["count"], **window)
        return sorted(seen)

    assert tiles(radius=25) == [(0, 0), (0, 1), (1, 0)]
    assert tiles(window_pixels=2) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert tiles(window_pixels=1) == [(0, 0)]


def test_the_command(collection: Collection, tmp_path: Path) -> None:
    collection.export(tmp_path / "collection")
    pq.write_table(some(), tmp_path / "points.parquet")
    words = [f"--collection={tmp_path / 'collection'}", f"--points={tmp_path / 'points.parquet'}", "--bands=B1"]
    columns = ["--x_column=x", "--y_column=y", "--geometry_crs=32631"]
    window = ["--statistics", ",".join(NAMES), "--radius=33"]
    assert sample_points.main([*words, *columns, *window, f"--output={tmp_path / 'out'}"]) == 0
    assert rows(read(tmp_path / "out")) == rows(collection.sample_points(some(), ["B1"], **XY, **ROUND))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["--statistics=mean"],
            "--statistics are mean, but neither --window_pixels nor --radius is given; give the pixels "
            "around the point with --window_pixels R, or the distance with --radius METRES",
        ),
        (["--radius=30"], "--radius is 30.0, but --statistics are not given; name them with --statistics A,B"),
        (["--statistics=mean", "--radius=-3"], "--radius is -3.0; it has to be a number of metres above 0"),
        (["--statistics=mena", "--radius=3"], "--statistics have 'mena' (did you mean 'mean'?); there are count"),
        (["--statistics=mean", "--radius=nan"], "--radius is nan; it has to be a number of metres above 0"),
        (["--statistics=mean,mean", "--radius=3"], "error: --statistics are mean, mean; name each of them once"),
        (["--statistics=mean", "--window_pixels=x"], "argument --window_pixels: invalid int value: 'x'"),
    ],
)
def test_errors_of_the_command_name_flags(tmp_path: Path, given: list[str], message: str) -> None:
    build_from_cogs([write_piece(tmp_path / "a.tif", VALUES, TEN_METRES)]).export(tmp_path / "collection")
    pq.write_table(some(), tmp_path / "points.parquet")
    what = [f"--collection={tmp_path / 'collection'}", f"--points={tmp_path / 'points.parquet'}", "--bands=B1"]
    where = ["--x_column=x", "--y_column=y", "--geometry_crs=32631", f"--output={tmp_path / 'out'}"]
    ended = execute(sample_points.main, *what, *where, *given)
    assert ended.code != 0 and message in ended.err
