"""Columns of the collection in the sample table: against a join of both tables, by eager calls and pipelines."""

from pathlib import Path
from typing import Any

import apache_beam as beam
import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from rasteret_beam import (
    Collection,
    ReadPoints,
    SampleOptions,
    SamplePoints,
    WriteSamplesToParquet,
    build_from_cogs,
    load,
    metrics,
)
from rasteret_beam.collection.parquet.versions import IndexVersions, look
from rasteret_beam.errors import InputError
from tests.support.pipelines import ORDER, XY, Kept, read, run
from tests.support.rasters import RasterCase

NAMES = ["eo:cloud_cover", "platform", "tags", "bbox", "geometry", "seen", "kind", "checked", "id", "year"]
EXTRA = [f"record:{name}" for name in NAMES]


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Four records in two files, of which the second lacks some columns; others are of every kind of type."""
    folder = tmp_path_factory.mktemp("records")
    size = {"dtype": "int16", "count": 1, "width": 64, "height": 64, "tile": (32, 32)}
    paths = [RasterCase(name=f"r{number}", **size).write(folder) for number in range(4)]
    table = build_from_cogs(paths, datetime=[f"202{number}-01-01" for number in range(4)], name="c").to_table()
    more = {
        "eo:cloud_cover": pa.array([10.5, None, 30.0, 5.0]),
        "platform": pa.array(["s2a", "s2b", None, "s2a"]),
        "tags": pa.array([["a", "b"], [], None, ["c"]], pa.list_(pa.string())),
        "seen": pa.array([1, 2, None, 4], pa.timestamp("ms", "UTC")),
        "kind": pa.array(["x", "y", "x", None]).dictionary_encode(),
        "checked": pa.array([True, False, None, True]),
    }
    for name, column in more.items():
        table = table.append_column(name, column)
    Collection.from_table(table, name="c").export(folder / "collection")
    return load(folder / "collection")


@pytest.fixture(scope="module")
def points() -> pa.Table:
    rng = np.random.default_rng(2)
    x, y = 500_000 + rng.uniform(-100, 64 * 16, 200), 4_500_000 - rng.uniform(0, 64 * 16, 200)
    return pa.table({"x": x, "y": y})


def joined(samples: pa.Table, collection: Collection) -> dict[str, list[Any]]:
    """The columns that samples have by their record, looked up in the collection."""
    records = {row["id"]: row for row in collection.to_table(NAMES).to_pylist()}
    return {f"record:{name}": [records[each][name] for each in samples["record_id"].to_pylist()] for name in NAMES}


@pytest.mark.parametrize("layout", ["long", "values", "columns"])
@pytest.mark.parametrize("in_memory", [False, True])
def test_values_are_those_of_the_record(collection: Collection, points: pa.Table, layout: str, in_memory: bool) -> None:
    if in_memory:
        collection = Collection.from_table(collection.to_table(), name="c")
    samples = collection.sample_points(points, ["B1"], extra_columns=EXTRA, layout=layout, **XY)
    assert len(samples) > 500
    assert samples.select(EXTRA).to_pydict() == joined(samples, collection)
    wanted = [collection.schema.field(name).type for name in NAMES]
    assert samples.select(EXTRA).schema.types == wanted
    assert samples.select(EXTRA).to_pandas()["record:platform"].isin(["s2a", "s2b", None]).all()


def test_pipeline_and_schema(collection: Collection, points: pa.Table, tmp_path: Path) -> None:
    options = SampleOptions(extra_columns=[*EXTRA, "status"], match="latest")
    kept = Kept()

    def build(pipeline: beam.Pipeline) -> None:
        samples = pipeline | ReadPoints(points, **XY) | SamplePoints(collection, ["B1"], options=options)
        samples | "Keep" >> beam.Map(kept.append)
        samples | WriteSamplesToParquet(str(tmp_path / "s"))

    run(build)
    eager = collection.sample_points(points, ["B1"], options=options, **XY).sort_by(ORDER)
    found = pa.Table.from_batches(kept).sort_by(ORDER)
    assert found.equals(eager) and found.select(EXTRA).to_pydict() == joined(found, collection)
    assert found.schema == collection.sample_schema(
        ["B1"], [pa.field("x", pa.float64()), pa.field("y", pa.float64())], options
    )
    written = read(tmp_path / "s").sort_by(ORDER)
    assert written.select(EXTRA).to_pydict() == joined(written, collection)
    assert written["status"].to_pylist() == eager["status"].to_pylist()


def test_columns_that_only_some_files_have(collection: Collection, points: pa.Table, tmp_path: Path) -> None:
    """They are null for the records of the others; a subset keeps the places of records."""
    Collection.from_table(collection.to_table().slice(0, 2), name="c").export(tmp_path / "c" / "a")
    rest = collection.to_table().slice(2).drop_columns(["platform", "eo:cloud_cover"])
    Collection.from_table(rest, name="c").export(tmp_path / "c" / "b")
    both = load(tmp_path / "c")
    extra = ["record:platform", "record:eo:cloud_cover"]
    found = both.sample_points(points, ["B1"], extra_columns=extra, ids=["r1", "r3"], **XY).to_pandas()
    assert set(found["record_id"]) == {"r1", "r3"}
    expected = found["record_id"].map({"r1": "s2b", "r3": None})
    assert found["record:platform"].where(found["record:platform"].notna(), None).tolist() == expected.tolist()
    assert found["record:eo:cloud_cover"].isna().all()


def test_a_column_with_the_name_of_a_type(collection: Collection, points: pa.Table) -> None:
    table = collection.to_table()
    named = table.append_column("string", pa.array([f"{name}!" for name in table["id"].to_pylist()]))
    found = Collection.from_table(named).sample_points(points, ["B1"], extra_columns=["record:string"], **XY)
    assert found["record:string"].to_pylist() == [f"{name}!" for name in found["record_id"].to_pylist()]


def test_a_collection_that_grows(collection: Collection, points: pa.Table, tmp_path: Path) -> None:
    """Later files are read with the types of before; what they lack is null, and what they add is not seen."""
    table = collection.to_table()
    Collection.from_table(table.slice(0, 2), name="c").export(tmp_path / "c")
    grown = load(tmp_path / "c")
    types = {name: grown.schema.field(name).type for name in ("eo:cloud_cover", "platform")}
    versions = IndexVersions(grown, ["B1"], "all", 64 << 20, grown.schema, tuple(types))
    before = versions.at(look(str(tmp_path / "c"))).records
    more = table.slice(2).drop_columns(["platform"]).append_column("new", pa.array([1, 2]))
    place = more.column_names.index("eo:cloud_cover")
    more = more.set_column(place, "eo:cloud_cover", pa.array([30, 5], pa.int16()))
    Collection.from_table(more, name="c").export(tmp_path / "c" / "more")
    after = versions.at(look(str(tmp_path / "c"))).records
    assert before.types == after.types == types
    values = {
        name: {each: one.to_pylist() for each, one in after.of(name).items()} for name in ("r0", "r1", "r2", "r3")
    }
    assert values == {
        "r0": {"eo:cloud_cover": [10.5], "platform": ["s2a"]},
        "r1": {"eo:cloud_cover": [None], "platform": ["s2b"]},
        "r2": {"eo:cloud_cover": [30.0], "platform": [None]},
        "r3": {"eo:cloud_cover": [5.0], "platform": [None]},
    }
    assert all(one.type == types[name] for name, one in after.of("r2").items())


def test_other_consumers(collection: Collection, points: pa.Table) -> None:
    """Streams of batches, DuckDB and pandas take the columns."""
    extra = ["record:platform", "record:tags", "status", "record:kind"]
    with collection.sample_batches(points, ["B1"], extra_columns=extra, **XY) as reader:
        connection = duckdb.connect()
        connection.register("samples", reader)
        table = connection.sql(
            'SELECT record_id, "record:platform" AS p, status::VARCHAR AS s, count(*) AS n, '
            'any_value("record:tags") AS t FROM samples GROUP BY ALL ORDER BY record_id'
        ).fetchall()
    eager = collection.sample_points(points, ["B1"], extra_columns=extra, **XY)
    frame = eager.to_pandas()
    assert isinstance(frame["status"].dtype, pd.CategoricalDtype)
    counts = frame.groupby("record_id").size()
    assert [(row[0], row[3]) for row in table] == list(counts.items())
    assert [row[1] for row in table] == ["s2a", "s2b", None, "s2a"] and {row[2] for row in table} == {"valid"}
    assert [row[4] for row in table] == [["a", "b"], [], None, ["c"]]


ERRORS = {
    "unknown": (
        {"extra_columns": ["record:platfrom"]},
        "extra_columns have 'record:platfrom', but the collection has no column 'platfrom' (did you mean 'platform'?); "
        "it has id, datetime, ",
    ),
    "of files": (
        {"extra_columns": ["record:assets"]},
        "extra_columns have 'record:assets', but column assets holds facts of files, of all bands; use the extra "
        "columns href, nodata, scale and offset",
    ),
    "offsets": ({"extra_columns": ["record:B1_metadata"]}, "extra_columns have 'record:B1_metadata', but column"),
    "record of an unknown band": (
        {"extra_columns": ["B2_record_id"], "layout": "columns"},
        "extra_columns have 'B2_record_id', but 'B2' is not one of the bands; they are B1",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors_come_before_pixels(collection: Collection, points: pa.Table, case: str) -> None:
    given, message = ERRORS[case]
    decoded = metrics.PROGRESS.snapshot()
    with pytest.raises(InputError) as eager:
        collection.sample_points(points, ["B1"], **given, **XY)
    with pytest.raises(InputError) as in_batches:
        collection.sample_batches(points, ["B1"], **given, **XY)
    with pytest.raises(InputError) as built:
        beam.Pipeline() | ReadPoints(points, **XY) | SamplePoints(collection, ["B1"], **given)
    with pytest.raises(InputError) as schema:
        collection.sample_schema(["B1"], options=SampleOptions(**given))
    texts = {str(each.value) for each in (eager, in_batches, built, schema)}
    assert len(texts) == 1 and texts.pop().startswith(message)
    assert metrics.PROGRESS.snapshot() == decoded


def test_names_that_clash(collection: Collection, points: pa.Table) -> None:
    named = points.append_column("record:platform", pa.array(["mine"] * len(points)))
    with pytest.raises(InputError, match=r"^extra_columns adds column\(s\) record:platform, but the sample table has"):
        collection.sample_points(named, ["B1"], extra_columns=["record:platform"], **XY)
    with pytest.raises(InputError, match=r"whose type is that of the collection's column; Collection.sample_schema"):
        SampleOptions(extra_columns=["record:platform"]).schema()


def test_records_of_bands(collection: Collection, points: pa.Table) -> None:
    found = collection.sample_points(points, ["B1"], extra_columns=["B1_record_id"], layout="values", **XY)
    assert found["B1_record_id"].equals(found["record_id"])
