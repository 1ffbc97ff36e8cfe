"""Samples in Iceberg tables, by a SQL catalog and by a REST catalog on loopback."""

import argparse
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from apache_beam.internal.cloudpickle import cloudpickle
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.display import DisplayData
from pyiceberg.catalog import load_catalog
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import BucketTransform, YearTransform
from pyiceberg.types import IntegerType, LongType, NestedField, StringType, TimestampType, TimestamptzType

from pipelines.cli.sinks import SinkOf, Sinks
from rasteret_beam import (
    Collection,
    ReadPoints,
    SampleOptions,
    SamplePoints,
    WriteSamplesToIceberg,
    WriteZonalStatisticsToIceberg,
    metrics,
)
from rasteret_beam.errors import InputError, MissingInputError, NoAnswerError, OutputError
from rasteret_beam.readers.storage import first_contact
from rasteret_beam.schema import kept_fields, samples_schema
from rasteret_beam.transforms.runtime import iceberg_catalog, iceberg_commit
from rasteret_beam.transforms.sinks import iceberg, partitioned_files
from rasteret_beam.zonal_options import ZonalOptions
from tests.support.iceberg_rest import LOST, RestCatalog, rest_catalog
from tests.support.pipelines import LOCAL, ORDER, XY, run

OPTIONS = PipelineOptions(LOCAL)
TOKEN = "s3cr3t-t0k3n"
SMALL = samples_schema()

Properties = dict[str, str]


@pytest.fixture
def sql(tmp_path: Path) -> Properties:
    properties = {"type": "sql", "uri": f"sqlite:///{tmp_path}/c.db", "warehouse": f"file://{tmp_path}/warehouse"}
    catalog = load_catalog("c", **properties)
    catalog.create_namespace("ns")
    catalog.close()
    return properties


@pytest.fixture
def rest(tmp_path: Path) -> Iterator[RestCatalog]:
    with rest_catalog(tmp_path, TOKEN) as found:
        yield found


@pytest.fixture
def by_rest(rest: RestCatalog) -> Properties:
    return {"type": "rest", "uri": rest.uri, "token": TOKEN}


@pytest.fixture(params=["sql", pytest.param("by_rest", marks=pytest.mark.slow)])
def properties(request: pytest.FixtureRequest) -> Properties:
    return request.getfixturevalue(request.param)


def batch(rows: int = 6, start: int = 0, schema: pa.Schema = SMALL) -> pa.RecordBatch:
    """Rows of two bands and three months, one of them without a datetime."""
    made = [
        {
            "point_index": number,
            "point_x": 1.5 * number,
            "record_id": f"scene-{number % 2}",
            "datetime": datetime(2023, 1 + number % 3, 28, 3, 4, 5, 678901) if number else None,
            "band": f"B{number % 2}",
            "value": float("nan") if number == 1 else number + 0.25,
        }
        for number in range(start, start + rows)
    ]
    return pa.RecordBatch.from_pylist(made, schema=schema)


def write(properties: Properties, *batches: pa.RecordBatch, **settings: Any) -> None:
    """Write rows as the steps of the sink do, without a pipeline around them."""
    sink, files = written(properties, *batches, **settings)
    list(sink.committing().process(files))


def written(properties: Properties, *batches: pa.RecordBatch, **settings: Any) -> tuple[Any, list[str]]:
    """A sink, and the files that it has written."""
    if batches:
        settings.setdefault("schema", batches[0].schema)
    sink = WriteSamplesToIceberg("c.ns.t", catalog_properties=properties, **settings)
    sink.check(OPTIONS)
    folder = iceberg._begin(None, sink.destination, sink.temporary(), sink.run_name)
    threads = partitioned_files.WriterThreads(2)
    files = partitioned_files.PartitionedFiles(folder, "zstd", sink.plan.terms, threads)
    for each in batches:
        if len(each):
            files.add(iceberg._fitting(each, sink.schema, sink.plan.schema, sink.schema_from))
    found = files.close()
    threads.close()
    return sink, found


def write_by_pipeline(properties: Properties, *batches: pa.RecordBatch, **settings: Any) -> dict[str, int]:
    if batches:
        settings.setdefault("schema", batches[0].schema)

    def build(pipeline: beam.Pipeline) -> None:
        made = pipeline | beam.Create([*batches], reshuffle=False).with_output_types(pa.RecordBatch)
        made | WriteSamplesToIceberg("c.ns.t", catalog_properties=properties, **settings)

    return run(build)


def table_of(properties: Properties, name: str = "ns.t") -> Any:
    return load_catalog("c", **properties).load_table(name)


def rows_of(properties: Properties, name: str = "ns.t") -> pa.Table:
    """The rows of a table, in the types of the rows that were written, by point."""
    found = table_of(properties, name).scan().to_arrow()
    fields = [field.with_type(pa.string()) if field.type == pa.large_string() else field for field in found.schema]
    order = [each for each in ORDER if each[0] in found.column_names]
    return found.cast(pa.schema(fields)).replace_schema_metadata().sort_by(order)


def folders(properties: Properties, tmp_path: Path) -> list[Path]:
    """Of runs of this package."""
    return sorted(tmp_path.glob("warehouse/**/rasteret_beam-*/"))


def spec_of(table: Any) -> list[tuple[str, str, str]]:
    schema = table.schema()
    return [(one.name, schema.find_column_name(one.source_id), str(one.transform)) for one in table.spec().fields]


# Rows


@pytest.mark.parametrize("kind", ["sql", pytest.param("by_rest", marks=pytest.mark.slow)])
def test_samples_of_a_collection_round_trip(
    kind: str, scenes: Collection, points: pa.Table, request: pytest.FixtureRequest
) -> None:
    points, properties = points.slice(0, 120), request.getfixturevalue(kind)
    reading = ReadPoints(points, **XY)
    schema = scenes.sample_schema(["B10", "B20"], kept_fields(reading.point_columns().schema))

    def build(pipeline: beam.Pipeline) -> None:
        samples = pipeline | reading | SamplePoints(scenes, ["B10", "B20"])
        samples | WriteSamplesToIceberg("c.ns.t", schema=schema, catalog_properties=properties)

    counts = run(build)
    eager = scenes.sample_points(points, ["B10", "B20"], **XY).sort_by(ORDER)
    wanted = eager.set_column(eager.column_names.index("kind"), "kind", eager["kind"].cast(pa.string()))
    found = rows_of(properties)
    assert found.schema.equals(wanted.schema.remove_metadata())
    np.testing.assert_equal(found.to_pydict(), wanted.to_pydict())
    assert counts[metrics.ROWS_WRITTEN] == len(found) > 200
    table = table_of(properties)
    months, bands = pc.strftime(found["datetime"], "%Y-%m"), found["band"]
    parts = table.inspect.partitions().to_pylist()
    epoch = [(each["partition"]["datetime_month"], each["partition"]["band"]) for each in parts]
    named = {(f"{1970 + month // 12}-{month % 12 + 1:02d}", band) for month, band in epoch}
    assert named == set(zip(months.to_pylist(), bands.to_pylist(), strict=True))
    assert len(table.scan(row_filter="band = 'B20'").to_arrow()) == pc.sum(pc.equal(bands, "B20")).as_py()


def test_each_file_holds_one_partition_and_the_ids_of_its_columns(sql: Properties, tmp_path: Path) -> None:
    assert write_by_pipeline(sql, batch(40), batch(20, 40))[metrics.ROWS_WRITTEN] == 60
    table = table_of(sql)
    assert spec_of(table) == [("datetime_month", "datetime", "month"), ("band", "band", "identity")]
    files = table.inspect.files().to_pylist()
    paths = {each["file_path"].removeprefix("file://"): each for each in files}
    assert {*map(str, tmp_path.rglob("*.parquet"))} == set(paths)
    for path, file in paths.items():
        stored = pq.read_table(path)
        ids = [int(field.metadata[b"PARQUET:field_id"]) for field in stored.schema]
        assert ids == [one.field_id for one in table.schema().fields]
        months = {None if each is None else each.month for each in stored["datetime"].to_pylist()}
        assert (len(months), len({*stored["band"].to_pylist()})) == (1, 1)
        assert file["record_count"] == len(stored)
    assert sorted(rows_of(sql)["point_index"].to_pylist()) == list(range(60))
    assert rows_of(sql)["datetime"].null_count == 1
    assert len(table.scan(row_filter="datetime >= '2023-03-01T00:00:00'").to_arrow()) == 20


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["values", "columns"])
def test_layouts_without_a_band_are_partitioned_by_month(
    layout: str, scenes: Collection, points: pa.Table, sql: Properties
) -> None:
    points = points.slice(0, 60)
    schema = scenes.sample_schema(["B10", "B20"], [], SampleOptions(layout=layout))

    def build(pipeline: beam.Pipeline) -> None:
        reading = ReadPoints(points, columns=[], **XY)
        samples = pipeline | reading | SamplePoints(scenes, ["B10", "B20"], layout=layout)
        samples | WriteSamplesToIceberg("c.ns.t", schema=schema, catalog_properties=sql)

    run(build)
    wanted = scenes.sample_points(points, ["B10", "B20"], columns=[], layout=layout, **XY).sort_by(ORDER[:2])
    found = rows_of(sql)
    np.testing.assert_equal(found.to_pylist(), wanted.to_pylist())
    assert spec_of(table_of(sql)) == [("datetime_month", "datetime", "month")]


def test_no_rows_make_an_empty_table(sql: Properties) -> None:
    write_by_pipeline(sql, run_id="nothing")
    assert rows_of(sql).num_rows == 0
    assert rows_of(sql).column_names == SMALL.names
    write(sql, batch(3))
    assert rows_of(sql).num_rows == 3


def test_zonal_statistics(sql: Properties) -> None:
    schema = ZonalOptions().schema()
    row = dict.fromkeys(schema.names) | {"datetime": datetime(2023, 1, 2), "band": "B1"}
    made = pa.RecordBatch.from_pylist([row], schema=schema)

    def build(pipeline: beam.Pipeline) -> None:
        rows = pipeline | beam.Create([made]).with_output_types(pa.RecordBatch)
        rows | WriteZonalStatisticsToIceberg("c.ns.z", catalog_properties=sql)

    run(build)
    assert rows_of(sql, "ns.z").to_pylist() == [row]
    assert [name for name, *_ in spec_of(table_of(sql, "ns.z"))] == ["datetime_month", "band"]


KEPT = {
    "yes": (pa.bool_(), True, True),
    "byte": (pa.int8(), -5, -5),
    "count": (pa.uint32(), 2**32 - 1, 2**32 - 1),
    "half": (pa.float16(), np.float16(0.5), 0.5),
    "text": (pa.large_string(), "é", "é"),
    "raw": (pa.binary(), b"\x00\xff", b"\x00\xff"),
    "fixed": (pa.binary(4), b"abcd", b"abcd"),
    "day": (pa.date64(), date(2023, 1, 2), date(2023, 1, 2)),
    "hour": (pa.time32("s"), time(3, 4, 5), time(3, 4, 5)),
    "seen": (pa.timestamp("ms", "Europe/Paris"), *2 * [datetime(2023, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)]),
    "civil": (pa.timestamp("ns"), *2 * [datetime(2023, 1, 2, 3, 4, 5, 678901)]),
    "price": (pa.decimal128(20, 5), *2 * [Decimal("123456789.12345")]),
    "kind": (pa.dictionary(pa.uint8(), pa.string()), "a", "a"),
    "tags": (pa.large_list(pa.string()), ["a", None], ["a", None]),
    "pair": (pa.list_(pa.float32(), 2), [0.5, 1.5], [0.5, 1.5]),
    "where": (pa.struct([("lon", pa.float64()), ("names", pa.list_(pa.uint8()))]), *2 * [{"lon": 3.0, "names": [1]}]),
    "by_key": (pa.map_(pa.string(), pa.int16()), [("a", 1)], [("a", 1)]),
    "record:eo:cloud_cover": (pa.float64(), 12.5, 12.5),
}


def test_columns_of_each_type(sql: Properties) -> None:
    columns = {name: pa.array([given, None], type=kind) for name, (kind, given, _) in KEPT.items()}
    made = pa.RecordBatch.from_arrays(
        [*batch(2).columns, *columns.values()], names=[*SMALL.names, *columns], metadata={"a": "b"}
    )
    write(sql, made)
    found = rows_of(sql)
    assert [found[name][0].as_py() for name in KEPT] == [wanted for *_, wanted in KEPT.values()]
    assert all(found[name][1].as_py() is None for name in KEPT)


@pytest.mark.parametrize(
    ("kind", "way_out"),
    [
        (pa.uint64(), "cast it to int64 or decimal128"),
        (pa.null(), "it has only nulls; cast it"),
        (pa.duration("s"), "cast it to int64"),
        (pa.decimal256(60, 2), "Iceberg keeps 38 digits"),
        (pa.list_(pa.uint64()), "column 'x.element' is uint64"),
    ],
)
def test_types_that_iceberg_has_not_are_refused_at_once(kind: pa.DataType, way_out: str) -> None:
    schema = SMALL.append(pa.field("x", kind))
    with pytest.raises(InputError, match=r"column 'x[.a-z]*' is .* leave it out with columns=") as error:
        WriteSamplesToIceberg("c.ns.t", schema=schema)
    assert way_out in str(error.value)


def test_nanoseconds_are_not_truncated(sql: Properties) -> None:
    made = batch(1).append_column("t", pa.array([1], pa.timestamp("ns")))
    with pytest.raises(Exception, match=r"column 't' cannot be written to Iceberg as timestamp\[us\].*would lose data"):
        write(sql, made)


# Partitions


@pytest.mark.parametrize("made", [batch(8), batch(1)])
def test_other_partitions(made: pa.RecordBatch, sql: Properties) -> None:
    write(sql, made, partition_by=["datetime:day", "record_id", "point_index"])
    assert [each[0] for each in spec_of(table_of(sql))] == ["datetime_day", "record_id", "point_index"]
    assert len(table_of(sql).inspect.files()) == len(made)
    assert rows_of(sql).num_rows == len(made)


def test_a_table_without_partitions(sql: Properties) -> None:
    write(sql, batch(50), partition_by=[])
    assert (spec_of(table_of(sql)), len(table_of(sql).inspect.files())) == ([], 1)
    assert rows_of(sql).num_rows == 50


def test_columns_are_partitioned_though_the_table_keeps_no_limits(sql: Properties) -> None:
    write(sql, batch(2))
    table = table_of(sql)
    with table.transaction() as transaction:
        transaction.set_properties({"write.metadata.metrics.default": "none"})
    write(sql, batch(20, 2))
    months = {each["partition"]["datetime_month"] for each in table_of(sql).inspect.partitions().to_pylist()}
    assert months == {None, 636, 637, 638}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["datetime:week"], "the transform can be one of identity, year, month, day, hour"),
        (["bnd"], r"names column 'bnd' \(did you mean 'band'\?\)"),
        (["value"], "column 'value' is double; it has to be a boolean, whole number, text, date or timestamp"),
        (["band:month"], "column 'band' is string; it has to be a date or timestamp"),
        (["band", "band"], "name each term once"),
        ("band", r"give a list of columns"),
    ],
)
def test_partitions_that_cannot_be(given: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        WriteSamplesToIceberg("c.ns.t", partition_by=given)


def test_many_partitions_hold_few_files_open(sql: Properties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, most = 0, 0

    class Counted(partitioned_files.ParquetFiles):
        def __init__(self, *args: Any) -> None:
            nonlocal opened, most
            super().__init__(*args)
            opened, most = opened + 1, max(most, opened + 1)

        def close(self) -> list[str]:
            nonlocal opened
            opened -= 1
            return super().close()

    monkeypatch.setattr(partitioned_files, "ParquetFiles", Counted)
    monkeypatch.setattr(partitioned_files.PartitionedFiles.__init__, "__defaults__", (2, 1 << 20, 1 << 20, 3))
    threads = partitioned_files.WriterThreads(2)
    terms = iceberg_catalog.partition_terms(["point_index"], SMALL)
    files = partitioned_files.PartitionedFiles(str(tmp_path), "zstd", terms, threads, 2, 1 << 20, 2_000, 3)
    rows = [batch(20) for _ in range(6)]
    monkeypatch.setattr(partitioned_files, "count", lambda counts: None)
    for each in rows:
        files.add(each)
    paths = files.close()
    threads.close()
    assert (opened, most <= 4, len(paths) >= 20) == (0, True, True)
    tables = [pq.read_table(path) for path in paths]
    assert all(pc.count_distinct(each["point_index"]).as_py() == 1 for each in tables)
    assert sorted(pa.concat_tables(tables)["point_index"].to_pylist()) == sorted([*range(20)] * 6)


# Tables that are there


def make_table(properties: Properties, schema: Schema, spec: PartitionSpec | None = None) -> Any:
    settings = {} if spec is None else {"partition_spec": spec}
    return load_catalog("c", **properties).create_table("ns.t", schema, **settings)


def some_columns(*names: str) -> pa.RecordBatch:
    return batch(6).select(names)


def test_rows_take_the_wider_types_and_the_partitions_of_a_table(sql: Properties) -> None:
    schema = Schema(
        NestedField(1, "note", StringType()),
        NestedField(2, "band", StringType(), required=True),
        NestedField(3, "datetime", TimestamptzType()),
        NestedField(4, "point_crs", LongType()),
    )
    make_table(sql, schema, PartitionSpec(PartitionField(3, 1000, YearTransform(), "year")))
    made = some_columns("point_crs", "datetime", "band")
    write(sql, made)
    found = table_of(sql).scan().to_arrow()
    assert found.column_names == ["note", "band", "datetime", "point_crs"]
    assert found.schema.field("datetime").type == pa.timestamp("us", "UTC")
    moments = [each for each in found["datetime"].to_pylist() if each is not None]
    assert sorted(moments) == [each.replace(tzinfo=UTC) for each in sorted(made["datetime"].to_pylist()[1:])]
    years = {each["partition"]["year"] for each in table_of(sql).inspect.partitions().to_pylist()}
    assert years == {None, 53}


def test_new_columns_are_refused_or_added(properties: Properties) -> None:
    write(properties, some_columns("point_index", "record_id"))
    with pytest.raises(InputError) as refused:
        write(properties, some_columns("point_index", "record_id", "value"))
    assert str(refused.value) == (
        "table c.ns.t has another schema than the rows: value (double) is not in the table. Keep other columns with "
        "columns=[...], let them be added with add_columns=True, alter the table, or write to another one"
    )
    more = some_columns("value", "record_id", "point_index").append_column(
        "l", pa.array([[1]] * 6, pa.list_(pa.int8()))
    )
    write(properties, more, add_columns=True)
    found = rows_of(properties)
    assert found.column_names == ["point_index", "record_id", "value", "l"]
    assert (found["value"].null_count, found["l"].null_count, len(found)) == (6, 6, 12)
    assert len(table_of(properties).snapshots()) == 2


def test_types_that_do_not_fit_are_named_with_both_sides(sql: Properties) -> None:
    schema = Schema(
        NestedField(1, "point_index", IntegerType()),
        NestedField(2, "band", LongType()),
        NestedField(3, "seen", TimestampType(), required=True),
    )
    make_table(sql, schema)
    with pytest.raises(InputError) as refused:
        write(sql, some_columns("point_index", "band", "value"), add_columns=True)
    assert str(refused.value).startswith(
        "table c.ns.t has another schema than the rows: point_index is int32 in the table, int64 in the rows; band is "
        "int64 in the table, string in the rows; seen (timestamp[us]) is required in the table, but the rows lack it. "
    )


def test_other_partitions_than_the_tables_are_refused(sql: Properties) -> None:
    write(sql, batch(2), partition_by=["band"])
    write(sql, batch(2), partition_by=["band"])
    with pytest.raises(InputError, match="is partitioned by band, but partition_by names datetime:month, band; leave"):
        write(sql, batch(2), partition_by=["datetime:month", "band"])


def test_partitions_by_which_rows_cannot_be_split_are_refused(sql: Properties) -> None:
    spec = PartitionSpec(PartitionField(1, 1000, BucketTransform(4), "b"))
    make_table(sql, Schema(NestedField(1, "band", StringType())), spec)
    with pytest.raises(InputError, match=r"is partitioned by bucket\[4\] of band, by which rows cannot be split here"):
        write(sql, some_columns("band"))


def test_a_required_column_takes_no_null(sql: Properties) -> None:
    make_table(sql, Schema(NestedField(1, "datetime", TimestampType(), required=True)))
    with pytest.raises(Exception, match=r"column 'datetime' has 1 null\(s\), but the table requires values"):
        write(sql, some_columns("datetime"))


# Runs


def test_a_rerun_adds_nothing_twice(properties: Properties, tmp_path: Path) -> None:
    write(properties, batch(6), run_id="one")
    before = sorted(tmp_path.rglob("*.parquet"))
    write(properties, batch(4, 100), run_id="one")
    assert (len(rows_of(properties)), sorted(tmp_path.rglob("*.parquet"))) == (6, before)
    write(properties, batch(4, 100), run_id="two")
    write(properties, batch(4, 200))
    assert len(rows_of(properties)) == 14
    summaries = [one.summary.additional_properties for one in table_of(properties).snapshots()]
    assert [each["rasteret-beam.run-id"] for each in summaries[:2]] == ["one", "two"]
    assert [path for path in tmp_path.rglob("_*") if path.name != "__init__.py"] == []


def test_a_run_that_was_rolled_back_is_run_again(sql: Properties) -> None:
    write(sql, batch(2), run_id="one")
    first = table_of(sql).current_snapshot().snapshot_id
    write(sql, batch(4), run_id="two")
    table_of(sql).manage_snapshots().rollback_to_snapshot(first).commit()
    write(sql, batch(4), run_id="two")
    assert len(rows_of(sql)) == 6


def committing(properties: Properties, run: str = "r", **settings: Any) -> tuple[Any, list[str]]:
    return written(properties, batch(6), run_id=run, **settings)


def test_a_retried_commit_adds_nothing_and_keeps_the_files(properties: Properties, tmp_path: Path) -> None:
    sink, files = committing(properties)
    snapshots = list(sink.committing().process(files))
    again = tmp_path / "copy.parquet"
    again.write_bytes(Path(files[0]).read_bytes())
    other = Path(files[0]).with_name("retried.parquet")
    other.write_bytes(again.read_bytes())
    assert list(sink.committing().process([str(other)])) == snapshots
    assert not other.exists()
    assert len(rows_of(properties)) == 6
    assert sorted(map(str, Path(sink.temporary()).glob("*"))) == sorted(files)


@pytest.mark.parametrize(
    ("kind", "runs"),
    [
        ("sql", ["a", "b", "c"]),
        ("by_rest", ["same"] * 3),
        pytest.param("by_rest", [*"abcdef"], marks=pytest.mark.slow),
        pytest.param("sql", ["same"] * 6, marks=pytest.mark.slow),
    ],
)
def test_writers_at_the_same_time(
    kind: str, runs: list[str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where all of them find that the table is missing."""
    properties = request.getfixturevalue(kind)
    monkeypatch.setattr(iceberg_commit, "LONGEST_WAIT", 0.2)
    ready = [committing(properties, run) for run in runs]
    start = threading.Barrier(len(runs))

    def commit(sink: Any, files: list[str]) -> iceberg_commit.Added:
        start.wait()
        return iceberg_commit.add_files(sink.destination, sink.plan, files, sink.run_name, sink.token)

    with ThreadPoolExecutor(len(runs)) as pool:
        added = [each.result() for each in [pool.submit(commit, *one) for one in ready]]
    assert sum(each.by_us for each in added) == len({*runs})
    assert len(rows_of(properties)) == 6 * len({*runs})


@pytest.mark.parametrize("fates", [[409, 503], [500, 504], [409, LOST]])
def test_commits_that_fail_or_whose_answer_is_lost(
    fates: list[Any], rest: RestCatalog, by_rest: Properties, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(iceberg_commit, "LONGEST_WAIT", 0.01)
    sink, files = committing(by_rest)
    rest.next_commits += fates
    assert len(list(sink.committing().process(files))) == 1
    assert len(rows_of(by_rest)) == 6
    assert len(table_of(by_rest).snapshots()) == 1
    assert rest.next_commits == []
    lists = [*tmp_path.rglob("snap-*.avro")]
    assert len(lists) == 1, "manifest lists of failed commits are deleted"


def test_a_commit_that_fails_keeps_the_files_and_the_next_run_names_them(
    rest: RestCatalog, by_rest: Properties, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(iceberg_commit, "LONGEST_WAIT", 0.001)
    monkeypatch.setattr(iceberg_commit, "TRIES", 4)
    rest.next_commits += [409] * 4
    with pytest.raises(OutputError, match=r"4 commits failed, the last with: .*No row was added; the 3 Par") as error:
        write(by_rest, batch(3))
    assert len(rows_of(by_rest)) == 0
    write(by_rest, batch(2))
    warned = [each.getMessage() for each in caplog.records if "was killed" in each.getMessage()]
    folder = warned[0].partition("/ has files")[0]
    assert f"kept in {folder}/" in str(error.value)
    assert len(rows_of(by_rest)) == 2
    assert len([*Path(folder).glob("*.parquet")]) == 3


def test_what_a_run_left_that_was_killed_after_its_commit_is_in_the_table(
    sql: Properties, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(iceberg._CommitFn, "_clean", lambda self, added: None)
        write(sql, batch(6))
    [marker] = Path(sql["warehouse"].removeprefix("file://")).rglob("_unfinished.json")
    write(sql, batch(1, 50))
    assert f"has the rows of a run that was killed just after it had added {marker.parent}/" in caplog.text
    assert not marker.exists()
    caplog.clear()
    write(sql, batch(0))
    assert "was killed" not in caplog.text
    assert len(rows_of(sql)) == 7


def test_a_table_that_has_changed_since_the_job_began_is_refused(sql: Properties) -> None:
    write(sql, some_columns("point_index"))
    sink, _ = committing(sql, add_columns=True)
    with table_of(sql).update_schema() as update:
        update.add_column("note", StringType())
    with pytest.raises(
        OutputError, match=r"has changed since the job began: column\(s\) .* have other ids; run the job"
    ):
        list(sink.committing().process([]))


# What is wrong is known early


def sink_of(properties: Properties, table: str = "c.ns.t", **settings: Any) -> WriteSamplesToIceberg:
    return WriteSamplesToIceberg(table, catalog_properties=properties, **settings)


def check_error(sink: WriteSamplesToIceberg) -> str:
    with pytest.raises((InputError, OutputError, NoAnswerError)) as error:
        sink.check(OPTIONS)
    return str(error.value)


@pytest.mark.parametrize("table", ["t", "ns.t", "c..t", "c.ns. t", ""])
def test_names_of_tables(table: str) -> None:
    with pytest.raises(InputError, match=r"write it as CATALOG\.NAMESPACE\.TABLE"):
        WriteSamplesToIceberg(table)


def test_settings(sql: Properties) -> None:
    with pytest.raises(InputError, match="create_disposition is 'MAYBE'; it can be one of CREATE_IF_NEEDED, CREATE_"):
        sink_of(sql, create_disposition="MAYBE")
    with pytest.raises(InputError, match="run_id is 'a b'"):
        sink_of(sql, run_id="a b")
    with pytest.raises(InputError, match="catalog_properties is not a mapping"):
        WriteSamplesToIceberg("c.n.t", catalog_properties="uri")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="catalog_properties has 'uri', which is not text"):
        sink_of({"uri": 3})
    assert check_error(sink_of(sql, create_disposition="CREATE_NEVER")).startswith("there is no table c.ns.t; create")


def test_catalogs_and_namespaces_that_are_not_there(sql: Properties, by_rest: Properties) -> None:
    assert check_error(sink_of({}, "nowhere.ns.t")).startswith("Iceberg catalog 'nowhere' is not configured; give")
    message = check_error(sink_of(sql, "c.nss.t"))
    assert (
        message == "Iceberg catalog 'c' has no namespace 'nss' (did you mean 'ns'?); create it first, or name one of ns"
    )
    message = check_error(sink_of({**by_rest, "uri": "http://127.0.0.1:9"}))
    assert message.startswith("Iceberg catalog 'c' cannot be used: ") and "check the network and the uri" in message
    assert "nothing here" in check_error(sink_of({"type": "nothing here", "uri": "a:b"}))


def test_a_catalog_that_does_not_answer(by_rest: Properties, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_contact, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(iceberg_catalog, "open_catalog", lambda to: threading.Event().wait(1))
    assert "has not answered in 0 s; check the network" in check_error(sink_of(by_rest))


def test_a_location_that_cannot_be_written(sql: Properties, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    message = check_error(sink_of(sql, location=f"{tmp_path}/file/t"))
    assert message.startswith(f"output {tmp_path}/file/t/data/rasteret_beam-") and "cannot be written" in message
    assert "Beam has no filesystem for cos://" in check_error(sink_of(sql, location="cos://bucket/t"))


def test_workers_elsewhere_cannot_write_to_a_table_on_this_machine(sql: Properties) -> None:
    sinks = Sinks([SinkOf("samples", "WriteSamples", "--iceberg", sink_of(sql))])
    with pytest.raises(InputError, match=r"--iceberg /.*/warehouse/.* is on this machine"):
        sinks.check(PipelineOptions(["--runner=DataflowRunner"]), {}, argparse.Namespace())


def test_checking_changes_nothing(properties: Properties, tmp_path: Path) -> None:
    sink = sink_of(properties)
    sink.check(OPTIONS)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".db"] == []
    assert not load_catalog("c", **properties).table_exists("ns.t")


def test_other_rows_than_the_schemas_are_refused(sql: Properties) -> None:
    with pytest.raises(
        Exception, match=r"value is missing in the rows, double in the schema; .* give schema=collection"
    ):
        write(sql, some_columns("point_index"), schema=SMALL)


def test_streams_are_refused(sql: Properties) -> None:
    with beam.Pipeline() as pipeline:
        rows = pipeline | beam.Create([batch(1)]).with_output_types(pa.RecordBatch)
        windows = rows | beam.WindowInto(beam.window.FixedWindows(60))
        with pytest.raises(InputError, match=r"WriteSamplesToIceberg commits once, .* but the input is a stream"):
            windows | sink_of(sql)


def test_the_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyiceberg.table", None)
    with pytest.raises(MissingInputError, match=r"need pyiceberg, which is not installed: .*\[iceberg\]"):
        WriteSamplesToIceberg("c.ns.t")


# Secrets


def test_secrets_are_shown_nowhere(sql: Properties, by_rest: Properties, caplog: pytest.LogCaptureFixture) -> None:
    wrong = {**by_rest, "token": "wr0ng-t0k3n", "s3.secret-access-key": "s3cr3t-k3y"}
    message = check_error(sink_of(wrong))
    assert "cannot be used" in message and "check the credentials" in message
    unknown = {"py-catalog-impl": "no.such.Catalog", "token": "wr0ng-t0k3n"}
    messages = message + check_error(sink_of(unknown)) + repr(sink_of(wrong)) + caplog.text
    password = check_error(sink_of({"type": "sql", "uri": "sqlite:////no/such/user:p4ss@folder/x.db"}))
    for secret in ("wr0ng-t0k3n", "s3cr3t-k3y"):
        assert secret not in messages + password


def test_an_errors_traceback_has_no_secret() -> None:
    import traceback

    wrong = sink_of({"py-catalog-impl": "no.such.Catalog", "token": TOKEN})
    with pytest.raises(OutputError) as error:
        wrong.check(OPTIONS)
    shown = "".join(traceback.format_exception(error.value))
    assert TOKEN not in shown and "cannot be used" in shown


def test_secrets_travel_with_the_steps_that_need_the_catalog_alone(by_rest: Properties) -> None:
    pipeline = beam.Pipeline()
    rows = pipeline | beam.Create([batch(1)]).with_output_types(pa.RecordBatch)
    rows | sink_of(by_rest)
    holders = set()

    class Look(beam.pipeline.PipelineVisitor):
        def visit_transform(self, node: Any) -> None:
            shown = str(DisplayData.create_from(node.transform).items) if node.transform else ""
            assert TOKEN not in shown + node.full_label
            step = node.transform
            if isinstance(step, beam.ParDo) and TOKEN.encode() in cloudpickle.dumps((step.fn, step.args)):
                holders.add(node.full_label.rpartition("/")[2].partition("(")[0])

        enter_composite_transform = visit_transform

    pipeline.visit(Look())
    assert holders == {"CheckWorker", "Commit"}
