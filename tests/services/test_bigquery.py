"""Samples in BigQuery, against emulators of it and of Cloud Storage that speak their protocols on loopback."""

import json
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.io.filesystems import FileSystems
from google.cloud import bigquery

from pipelines import sample_points
from rasteret_beam import Collection, ReadPoints, SamplePoints, WriteSamplesToBigQuery, metrics
from rasteret_beam.errors import InputError, OutputError
from rasteret_beam.kernels.bigquery.rows import json_rows
from rasteret_beam.kernels.bigquery.schema import bigquery_fields, differences, loadable
from rasteret_beam.schema import kept_fields, samples_schema
from rasteret_beam.transforms.sinks import commit as committing
from rasteret_beam.transforms.sinks.bigquery import _LoadFn, _uris
from tests.support.commands import as_flags, execute
from tests.support.emulators import BUCKET, DENIED, PROJECT, Answer, Cloud, Proxy, Request, refusing
from tests.support.pipelines import LOCAL, ORDER, XY, run

TEMP = f"gs://{BUCKET}/temp"
SMALL = samples_schema()
QUOTA = (403, "quotaExceeded", "Quota exceeded: Your project exceeded quota for imports per table.")


def sample_batch(rows: int = 3, start: int = 0) -> pa.RecordBatch:
    made = [
        {
            "point_index": start + number,
            "point_x": 1.5 * number,
            "point_y": -2.0,
            "point_crs": 4326,
            "record_id": f"scene-{number % 2}",
            "datetime": datetime(2023, 1, 2, 3, 4, 5, 678901),
            "collection": "c",
            "band": "B10",
            "value": float("nan") if number == 1 else number + 0.25,
            "raster_crs": None,
        }
        for number in range(rows)
    ]
    return pa.RecordBatch.from_pylist(made, schema=SMALL)


def write(table: str, *batches: pa.RecordBatch, options: tuple[str, ...] = (), **settings: Any) -> dict[str, int]:
    settings = {"temp_location": TEMP, **settings}
    if batches and "schema" not in settings:
        settings["schema"] = batches[0].schema

    def build(pipeline: beam.Pipeline) -> None:
        made = beam.Create([*batches], reshuffle=False).with_output_types(pa.RecordBatch)
        pipeline | made | WriteSamplesToBigQuery(table, **settings)

    return run(build, [*LOCAL, *options])


def rows_of(client: bigquery.Client, table: str, order: str = "point_index") -> list[dict[str, Any]]:
    found = client.query(f"SELECT * FROM `{table}` ORDER BY {order}").result()
    return [dict(row) for row in found]


def count_of(client: bigquery.Client, table: str) -> int:
    return next(iter(client.query(f"SELECT COUNT(*) AS n FROM `{table}`").result())).n


def files_in(folder: str) -> list[str]:
    return [entry.path for entry in FileSystems.match([folder.rstrip("/") + "/**"])[0].metadata_list]


# Rows


def test_samples_of_a_collection_round_trip(
    scenes: Collection, points: pa.Table, client: bigquery.Client, dataset: str
) -> None:
    points = points.slice(0, 300)
    settings = {"max_distance_pixels": 1, "return_neighbourhood": "always"}
    reading = ReadPoints(points, **XY)
    schema = samples_schema(kept_fields(reading.point_columns().schema), neighbourhood=True)

    def build(pipeline: beam.Pipeline) -> None:
        samples = pipeline | reading | SamplePoints(scenes, ["B10", "B20"], **settings)
        samples | WriteSamplesToBigQuery(f"{dataset}.t", schema=schema, temp_location=TEMP)

    counts = run(build)
    eager = scenes.sample_points(points, ["B10", "B20"], **XY, **settings).sort_by(ORDER)
    found = rows_of(client, f"{dataset}.t", "point_index, record_id, band")
    assert counts[metrics.ROWS_WRITTEN] == len(found) == len(eager) > 500
    wanted = eager.to_pylist()
    for row in wanted:
        row["datetime"] = row["datetime"].replace(tzinfo=UTC)
    np.testing.assert_equal(found, wanted)
    table = client.get_table(f"{dataset}.t")
    assert {field.name: (field.field_type, field.mode) for field in table.schema} == {
        "point_index": ("INTEGER", "NULLABLE"),
        "point_x": ("FLOAT", "NULLABLE"),
        "point_y": ("FLOAT", "NULLABLE"),
        "point_crs": ("INTEGER", "NULLABLE"),
        "record_id": ("STRING", "NULLABLE"),
        "datetime": ("TIMESTAMP", "NULLABLE"),
        "collection": ("STRING", "NULLABLE"),
        "band": ("STRING", "NULLABLE"),
        "value": ("FLOAT", "NULLABLE"),
        "raster_crs": ("INTEGER", "NULLABLE"),
        "neighbourhood_values": ("FLOAT", "REPEATED"),
        **{name: ("STRING", "NULLABLE") for name in eager.schema.names[11:] if name not in ("x", "y")},
        **{name: ("FLOAT", "NULLABLE") for name in eager.schema.names[11:] if name in ("x", "y")},
    }
    assert table.clustering_fields == ["record_id", "band"]
    assert files_in(TEMP) == []


KEPT = {
    "yes": (pa.bool_(), True),
    "byte": (pa.int8(), -5),
    "count": (pa.uint32(), 2**32 - 1),
    "big": (pa.int64(), 2**62),
    "half": (pa.float16(), np.float16(0.5)),
    "single": (pa.float32(), 0.25),
    "text": (pa.large_string(), "é"),
    "raw": (pa.binary(), b"\x00\xff"),
    "uuid": (pa.binary(4), b"abcd"),
    "day": (pa.date32(), date(2023, 1, 2)),
    "hour": (pa.time64("us"), time(3, 4, 5, 678901)),
    "seen": (pa.timestamp("us", "Europe/Paris"), datetime(2023, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)),
    "civil": (pa.timestamp("ns"), datetime(2023, 1, 2, 3, 4, 5, 678901)),
    "price": (pa.decimal128(20, 5), Decimal("123456789.12345")),
    "kind": (pa.dictionary(pa.int8(), pa.string()), "a"),
    "tags": (pa.list_(pa.string()), ["a", "b"]),
    "pair": (pa.list_(pa.float32(), 2), [0.5, 1.5]),
    "where": (pa.struct([("lon", pa.float64()), ("names", pa.list_(pa.string()))]), {"lon": 3.0, "names": ["x"]}),
    "seens": (
        pa.list_(pa.struct([("moment", pa.timestamp("ms", "UTC"))])),
        [{"moment": datetime(2023, 1, 2, tzinfo=UTC)}],
    ),
}


def kept_batch(values: bool = True) -> pa.RecordBatch:
    """A sample with a kept column of each type, then one with nulls."""
    columns = {name: pa.array([one if values else None, None], type=data) for name, (data, one) in KEPT.items()}
    first = sample_batch(2)
    return pa.RecordBatch.from_arrays(
        [*first.columns, *columns.values()],
        schema=pa.schema([*SMALL, *(pa.field(name, data) for name, (data, _) in KEPT.items())]),
    )


def test_kept_columns_round_trip(client: bigquery.Client, dataset: str) -> None:
    write(f"{dataset}.t", kept_batch())
    full, nulls = rows_of(client, f"{dataset}.t")
    assert {name: full[name] for name in KEPT} == {name: value for name, (_, value) in KEPT.items()}
    lists = {"tags", "pair", "seens"}
    assert {name: nulls[name] for name in KEPT} == {name: [] if name in lists else None for name in KEPT}


@pytest.mark.parametrize("layout", ["values", "columns"])
def test_wide_layouts(scenes: Collection, points: pa.Table, client: bigquery.Client, dataset: str, layout: str) -> None:
    bands = ["B10"]
    settings = {"layout": layout}
    schema = samples_schema(layout=layout, bands=bands)
    reading = ReadPoints(points.slice(0, 200).select(["x", "y"]), **XY, columns=[])

    def build(pipeline: beam.Pipeline) -> None:
        samples = pipeline | reading | SamplePoints(scenes, bands, **settings)
        samples | WriteSamplesToBigQuery(f"{dataset}.t", schema=schema, temp_location=TEMP)

    run(build)
    eager = scenes.sample_points(points.slice(0, 200), bands, **XY, columns=[], **settings)
    wanted = {
        (row["point_index"], row["record_id"]): row[bands[0] if layout == "columns" else "values"]
        for row in eager.to_pylist()
    }
    found = {
        (row["point_index"], row["record_id"]): row[bands[0] if layout == "columns" else "values"]
        for row in rows_of(client, f"{dataset}.t")
    }
    assert found == wanted and len(found) > 100
    assert client.get_table(f"{dataset}.t").clustering_fields == ["record_id"]


def test_null_in_values_becomes_nan() -> None:
    schema = samples_schema(layout="values")
    batch = pa.RecordBatch.from_pylist(
        [{"values": [9.0]}, {"values": [1.0, None]}, {"values": None}, {"values": []}], schema=schema
    )
    np.testing.assert_equal(loadable(batch.slice(1))["values"].to_pylist(), [[1.0, float("nan")], None, []])


# Columns that cannot be


@pytest.mark.parametrize(
    "name, data, part",
    [
        ("n", pa.null(), "only nulls"),
        ("u", pa.uint64(), "cast it to int64"),
        ("d", pa.duration("s"), "cast it to int64"),
        ("m", pa.map_(pa.string(), pa.int64()), "list of structs"),
        ("deep", pa.list_(pa.list_(pa.int64())), "list of lists"),
        ("s", pa.struct([("inner", pa.list_(pa.duration("s")))]), "'s.inner'"),
        ("wide", pa.decimal256(76, 0), "38 digits"),
        ("two words", pa.int64(), "'two words'"),
        ("_TABLE_x", pa.int64(), "_TABLE_"),
        ("VALUE", pa.int64(), "differ only in case"),
    ],
)
def test_columns_that_bigquery_has_no_place_for(name: str, data: pa.DataType, part: str) -> None:
    with pytest.raises(InputError, match=part) as refused:
        WriteSamplesToBigQuery("p:d.t", schema=samples_schema([pa.field(name, data)]))
    assert name in str(refused.value)


@pytest.mark.parametrize(
    "data, value, part",
    [
        (pa.list_(pa.int64()), [1, None], "a list with a null"),
        (pa.timestamp("ns"), 1_000_001, "would lose data"),
    ],
)
def test_values_that_would_be_lost(data: pa.DataType, value: Any, part: str) -> None:
    with pytest.raises(InputError, match=part) as refused:
        loadable(pa.RecordBatch.from_arrays([pa.array([value], type=data)], names=["mine"]))
    assert "'mine'" in str(refused.value)


def test_decimals_take_the_smaller_type_that_holds_them() -> None:
    fields = bigquery_fields(pa.schema([("a", pa.decimal128(38, 9)), ("b", pa.decimal256(60, 30))]))
    assert [field["type"] for field in fields] == ["NUMERIC", "BIGNUMERIC"]


def test_names_of_types_that_mean_the_same_do_not_differ() -> None:
    found = [
        {"name": "A", "type": "INT64"},
        {"name": "s", "type": "STRUCT", "fields": [{"name": "f", "type": "FLOAT64"}]},
    ]
    wanted = [
        {"name": "s", "type": "RECORD", "mode": "NULLABLE", "fields": [{"name": "f", "type": "FLOAT"}]},
        {"name": "a", "type": "INTEGER", "mode": "NULLABLE"},
    ]
    assert list(differences(found, wanted)) == []


@pytest.mark.parametrize(
    "settings, part",
    [
        ({"table": "nothing"}, "PROJECT:DATASET.TABLE"),
        ({"table": "d.t"}, "has no project"),
        ({"method": "LOADS"}, "FILE_LOADS"),
        ({"write_disposition": "APPEND"}, "WRITE_APPEND"),
        ({"create_disposition": "NEVER"}, "CREATE_NEVER"),
        ({"cluster_by": ["nothing"]}, "'nothing'"),
        ({"cluster_by": ["value"]}, "FLOAT"),
        ({"partition_by": "band"}, "STRING"),
        ({"partition_by": "datetime:WEEK"}, "MONTH"),
        ({"run_id": "a b"}, "run_id"),
        ({"run_id": "a", "method": "STREAMING_INSERTS"}, "FILE_LOADS"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError, match=part):
        WriteSamplesToBigQuery(**{"table": "p:d.t", **settings})


# Dispositions


def test_append_truncate_and_write_empty(client: bigquery.Client, dataset: str) -> None:
    table = f"{dataset}.t"
    write(table, sample_batch(3), write_disposition="WRITE_EMPTY")
    write(table, sample_batch(2, 10))
    assert [row["point_index"] for row in rows_of(client, table)] == [0, 1, 2, 10, 11]
    write(table, sample_batch(2, 20), write_disposition="WRITE_TRUNCATE")
    assert [row["point_index"] for row in rows_of(client, table)] == [20, 21]
    with pytest.raises(InputError, match="already has 2 rows"):
        write(table, sample_batch(1), write_disposition="WRITE_EMPTY")
    assert client.get_table(table).clustering_fields == ["record_id", "band"]


def test_a_table_that_may_not_be_created(dataset: str) -> None:
    with pytest.raises(InputError, match="there is no table"):
        write(f"{dataset}.t", sample_batch(), create_disposition="CREATE_NEVER")


def test_clustering_and_partitions(client: bigquery.Client, dataset: str) -> None:
    write(f"{dataset}.t", sample_batch(), cluster_by=["band"], partition_by="datetime:MONTH")
    table = client.get_table(f"{dataset}.t")
    assert table.clustering_fields == ["band"]
    assert (table.time_partitioning.field, table.time_partitioning.type_) == ("datetime", "MONTH")


def test_no_rows(client: bigquery.Client, dataset: str) -> None:
    table = f"{dataset}.t"
    write(table)
    assert count_of(client, table) == 0 and len(client.get_table(table).schema) == len(SMALL)
    write(table, sample_batch())
    write(table)
    assert count_of(client, table) == 3
    write(table, write_disposition="WRITE_TRUNCATE")
    assert count_of(client, table) == 0
    assert files_in(TEMP) == []


# Refusals before anything is read


def test_a_table_of_another_schema_is_refused_before_pixels_are_read(
    scenes: Collection, points: pa.Table, client: bigquery.Client, dataset: str
) -> None:
    fields = [field for field in bigquery_fields(SMALL) if field["name"] != "band"]
    next(field for field in fields if field["name"] == "value")["type"] = "INTEGER"
    fields.append({"name": "mine", "type": "STRING", "mode": "NULLABLE"})
    made = bigquery.Table(f"{dataset}.t", schema=[bigquery.SchemaField.from_api_repr(field) for field in fields])
    client.create_table(made)
    decoded = metrics.PROGRESS.snapshot().get(metrics.TILES_DECODED, 0)
    with beam.Pipeline(runner=LOCAL[0].removeprefix("--runner=")) as pipeline:
        samples = pipeline | ReadPoints(points, **XY, columns=[]) | SamplePoints(scenes, ["B10"])
        for disposition in ("WRITE_APPEND", "WRITE_TRUNCATE"):
            with pytest.raises(InputError) as refused:
                samples | disposition >> WriteSamplesToBigQuery(
                    f"{dataset}.t", temp_location=TEMP, write_disposition=disposition
                )
            text = str(refused.value)
            assert "value is INTEGER in the table, FLOAT in the rows" in text
            assert "band (STRING) is not in the table" in text and "mine (STRING) is in the table only" in text
        assert metrics.PROGRESS.snapshot().get(metrics.TILES_DECODED, 0) == decoded


def test_missing_and_closed_places(client: bigquery.Client, dataset: str, proxy: Proxy) -> None:
    with pytest.raises(OutputError, match=r"dataset proj.nothing cannot be used: .*check the names"):
        write(f"{PROJECT}.nothing.t", sample_batch())
    with pytest.raises(OutputError, match=r"bucket gs://no-bucket of temp_location cannot be used"):
        write(f"{dataset}.t", sample_batch(), temp_location="gs://no-bucket/x")
    for place in (None, "/tmp/here", "gs://"):
        with pytest.raises(InputError, match="temp_location"):
            write(f"{dataset}.t", sample_batch(), temp_location=place)
    proxy.refuse = refusing("GET", "/datasets/", DENIED)
    with pytest.raises(OutputError, match=r"grant roles/bigquery.dataEditor on " + dataset):
        write(f"{dataset}.t", sample_batch())
    proxy.refuse = refusing("POST", "/jobs", DENIED, b"SELECT 1")
    with pytest.raises(OutputError, match=r"grant roles/bigquery.jobUser on project proj"):
        write(f"{dataset}.t", sample_batch())
    proxy.refuse = refusing("GET", "/datasets/", (404, "notFound", "Not found: Project wrong"))
    with pytest.raises(OutputError, match="Not found: Project wrong; check the names"):
        write("wrong:d.t", sample_batch())
    assert not proxy.loads()


def test_a_bucket_at_another_location(client: bigquery.Client, service: Cloud, proxy: Proxy) -> None:
    made = bigquery.Dataset(f"{PROJECT}.e{uuid4().hex[:8]}")
    made.location = "EU"
    client.create_dataset(made)
    with pytest.raises(OutputError, match=r"temp_location is in US, dataset .* in EU"):
        write(f"{made.project}.{made.dataset_id}.t", sample_batch())


# Failures, retries and reruns


def kept_files(error: BaseException) -> list[str]:
    """The temporary files that an error names."""
    folder = str(error).split("are kept in ")[1].split("/:")[0]
    return files_in(folder)


def test_files_are_kept_and_named_after_a_failure(client: bigquery.Client, dataset: str, proxy: Proxy) -> None:
    proxy.refuse = refusing("POST", "/jobs", QUOTA, b'"load"')
    with pytest.raises(Exception, match="a quota is exceeded") as failed:
        write(f"{dataset}.t", sample_batch())
    (path,) = kept_files(failed.value)
    with FileSystems.open(path) as file:
        assert len(pq.read_table(pa.BufferReader(file.read()))) == 3
    FileSystems.delete([path])
    assert count_of(client, f"{dataset}.t") == 0  # the table was made, and stays empty


def test_a_load_job_that_fails(client: bigquery.Client, dataset: str) -> None:
    with pytest.raises(OutputError, match=r"No files found.* No row was added; the 1 Parquet"):
        list(loading(f"{dataset}.t").process([f"{TEMP}/nothing.parquet"]))


def loading(table: str, **settings: Any) -> _LoadFn:
    """The last step of a pipeline, by itself."""
    sink = WriteSamplesToBigQuery(table, temp_location=TEMP, **settings)
    options = beam.Pipeline(options=None).options
    return _LoadFn(sink.destination(options), sink.job_name, sink.temporary(options), sink.schema, "zstd")


def test_a_step_that_is_tried_again_loads_once(client: bigquery.Client, dataset: str, proxy: Proxy) -> None:
    step = loading(f"{dataset}.t")
    path = f"{step.temporary}/a.parquet"
    with FileSystems.create(path) as file:
        pq.write_table(pa.Table.from_batches([loadable(sample_batch())]), file)
    first, again = list(step.process([path])), list(step.process([path]))
    assert first == again and len(proxy.loads()) == 1
    assert count_of(client, f"{dataset}.t") == 3


def test_a_load_that_another_worker_submitted(client: bigquery.Client, dataset: str, proxy: Proxy) -> None:
    """The answer to the submission is lost: the job is there when it is asked for again."""
    step = loading(f"{dataset}.t")
    path = f"{step.temporary}/a.parquet"
    with FileSystems.create(path) as file:
        pq.write_table(pa.Table.from_batches([loadable(sample_batch())]), file)

    def lose(request: Request) -> Answer | None:
        if request.method == "POST" and b'"load"' in request.body and not lost:
            lost.append(True)
            # handed on all the same, as another worker's
            client._connection.api_request("POST", f"/projects/{PROJECT}/jobs", data=json.loads(request.body))
            return 409, "duplicate", "Already Exists: Job"
        return None

    lost: list[bool] = []
    proxy.refuse = lose
    assert len(list(step.process([path]))) == 1
    assert lost and count_of(client, f"{dataset}.t") == 3


def test_a_rerun_with_the_same_run_id_adds_nothing(client: bigquery.Client, dataset: str, proxy: Proxy) -> None:
    for _ in range(2):
        write(f"{dataset}.t", sample_batch(), run_id="2023-01-02", write_disposition="WRITE_EMPTY")
    assert count_of(client, f"{dataset}.t") == 3 and len(proxy.loads()) == 1
    write(f"{dataset}.t", sample_batch(), run_id="2023-01-03")
    write(f"{dataset}.t", sample_batch())
    assert count_of(client, f"{dataset}.t") == 9
    assert files_in(TEMP) == []


def test_a_run_id_can_be_used_again_after_a_failure(client: bigquery.Client, dataset: str) -> None:
    with pytest.raises(OutputError, match="No files found"):
        list(loading(f"{dataset}.t", run_id="r").process([f"{TEMP}/nothing.parquet"]))
    write(f"{dataset}.t", sample_batch(), run_id="r")
    write(f"{dataset}.t", sample_batch(), run_id="r")
    assert count_of(client, f"{dataset}.t") == 3


def test_very_many_files_are_named_by_a_wildcard(service: Cloud) -> None:
    folder = f"{TEMP}/many"
    paths = [f"{folder}/{name}.parquet" for name in "abc"]
    for path in [*paths, f"{folder}/failed.parquet"]:
        with FileSystems.create(path) as file:
            file.write(b"x")
    for _ in range(2):
        assert _uris(paths, folder, most=2) == [f"{folder}/complete/*.parquet"]
        assert [path.rsplit("/", 1)[1] for path in sorted(files_in(f"{folder}/complete"))] == [
            "a.parquet",
            "b.parquet",
            "c.parquet",
        ]
    FileSystems.delete(files_in(folder))


def test_batches_of_other_columns_than_the_schema_given(dataset: str) -> None:
    with pytest.raises(Exception, match=r"yes \(BOOLEAN\) is in the table only|yes \(BOOLEAN\) is not in the table"):
        write(f"{dataset}.t", kept_batch(), schema=SMALL)


# Row by row, by Beam's own sink


def test_streaming_inserts(client: bigquery.Client, dataset: str) -> None:
    table = f"{dataset}.t"
    client.create_table(
        bigquery.Table(table, schema=[bigquery.SchemaField.from_api_repr(one) for one in bigquery_fields(SMALL)])
    )
    counts = write(table, sample_batch(), method="STREAMING_INSERTS", options=(f"--project={PROJECT}",))
    assert counts[metrics.ROWS_WRITTEN] == 3
    found = rows_of(client, table)
    assert [row["point_index"] for row in found] == [0, 1, 2]
    assert found[0]["datetime"] == datetime(2023, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert found[0]["value"] == 0.25 and np.isnan(found[1]["value"])


def test_rows_of_streaming_inserts_are_json() -> None:
    row, _ = json_rows(kept_batch())
    shown = json.loads(json.dumps(row, allow_nan=False))
    assert shown == row
    assert (row["raw"], row["price"], row["civil"]) == ("AP8=", "123456789.12345", "2023-01-02T03:04:05.678901")
    schema = pa.schema([("f", pa.float64())])
    batch = pa.RecordBatch.from_pylist([{"f": one} for one in (float("nan"), float("inf"), -float("inf"), 1.5)], schema)
    assert [row["f"] for row in json_rows(batch)] == ["NaN", "Infinity", "-Infinity", 1.5]


def test_the_storage_write_api_needs_java(dataset: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(OutputError, match=r"STORAGE_WRITE_API cannot be set up: .*needs Java"):
        write(f"{dataset}.t", sample_batch(), method="STORAGE_WRITE_API")


def test_types_that_the_storage_write_api_does_not_take() -> None:
    schema = samples_schema([pa.field("day", pa.date32())])
    with pytest.raises(InputError, match=r"column\(s\) day"):
        WriteSamplesToBigQuery("p:d.t", schema=schema, method="STORAGE_WRITE_API")


# On the command line


@pytest.fixture
def asked(scenes: Collection, points: pa.Table, dataset: str, tmp_path: Path) -> dict[str, Any]:
    """The flags of a command that samples 100 points into a new table."""
    scenes.export(tmp_path / "collection")
    pq.write_table(points.slice(0, 100), tmp_path / "points.parquet")
    return {
        "points": tmp_path / "points.parquet",
        **XY,
        "collection": tmp_path / "collection",
        "bands": "B10",
        "bigquery": f"{dataset.replace('.', ':')}.t",
        "temp_location": TEMP,
    }


@pytest.mark.usefixtures("same_signal_handlers")
def test_the_command(asked: dict[str, Any], client: bigquery.Client, dataset: str, proxy: Proxy) -> None:
    flags = as_flags(**asked, bq_run_id="one", bq_partition_by="datetime:YEAR", bq_write_disposition="WRITE_APPEND")
    done = execute(sample_points.main, *flags)
    assert (done.code, done.err) == (0, "") and f"{dataset}.t" in done.out
    assert done.figures["rows"] == count_of(client, f"{dataset}.t") > 50
    assert client.get_table(f"{dataset}.t").time_partitioning.type_ == "YEAR"
    again = execute(sample_points.main, *flags)
    assert again.code == 0 and "run one has its rows in" in again.out and len(proxy.loads()) == 1


@pytest.mark.usefixtures("same_signal_handlers")
def test_the_command_refuses_before_it_reads(asked: dict[str, Any], dataset: str) -> None:
    def error(**changed: Any) -> str:
        done = execute(sample_points.main, *as_flags(**asked | changed))
        assert done.code in (1, 2) and done.out == "" and done.err.count("\n") == 1
        return done.err

    decoded = metrics.PROGRESS.snapshot().get(metrics.TILES_DECODED, 0)
    assert "temp_location" in error(temp_location=None)
    assert "dataset proj.no cannot be used" in error(bigquery="proj:no.t")
    assert "--bq_run_id given without --bigquery" in error(bigquery=None, output="o/s", bq_run_id="a")
    assert "not allowed with argument" in error(output="o/s")
    assert "there is no table" in error(bq_create_disposition="CREATE_NEVER")
    assert metrics.PROGRESS.snapshot().get(metrics.TILES_DECODED, 0) == decoded


@pytest.mark.usefixtures("same_signal_handlers")
def test_the_command_names_what_it_keeps(
    asked: dict[str, Any], client: bigquery.Client, dataset: str, proxy: Proxy
) -> None:
    proxy.refuse = refusing("POST", "/jobs", QUOTA, b'"load"')
    done = execute(sample_points.main, *as_flags(**asked))
    assert done.code == 1 and "a quota is exceeded" in done.err and done.err.count("\n") == 2
    kept = files_in(done.err.split("are kept in ")[1].split("/:")[0])
    assert [path.endswith(".parquet") for path in kept].count(True) == 1
    proxy.refuse = lambda _: None
    again = execute(sample_points.main, *as_flags(**asked), "--resume")
    assert again.code == 0 and again.figures["rows"] == count_of(client, f"{dataset}.t") > 50
    assert files_in(kept[0].rpartition("/")[0]) == []


@pytest.mark.usefixtures("same_signal_handlers")
def test_a_failed_command_names_the_table_that_has_its_rows(
    asked: dict[str, Any], client: bigquery.Client, dataset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files that go with it are put in place once the rows are loaded."""

    def full(*_: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(committing, "commit", full)
    done = execute(sample_points.main, *as_flags(**asked, unsampled=f"{tmp_path}/left"))
    assert done.code == 1
    assert done.err == f"error: the disk is full\nalready in place: {dataset.replace(':', '.')}.t\n"
    assert count_of(client, f"{dataset}.t") > 50
    assert not list(tmp_path.glob("*left*"))
