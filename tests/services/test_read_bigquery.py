"""Points from BigQuery, against its emulator and a Storage Read API that speak their protocols on loopback."""

import pickle
import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import apache_beam as beam
import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from apache_beam.options.pipeline_options import PipelineOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud import bigquery

from pipelines import sample_points
from rasteret_beam import BigQueryQuery, BigQueryTable, Collection, ReadPoints, SamplePoints, WriteSamplesToParquet
from rasteret_beam.errors import InputError, MissingInputError
from rasteret_beam.kernels.bigquery.arrow import arrow_schema, check_readable, in_schema
from rasteret_beam.kernels.tables.point_columns import choose_columns, point_batch
from rasteret_beam.schema import kept_fields, samples_schema
from rasteret_beam.transforms.sources import bigquery as bigquery_source
from rasteret_beam.transforms.sources.bigquery import STORAGE_HOST, gathered, look_at, open_streams
from rasteret_beam.transforms.sources.bigquery_rows import _first_rows, _ReadStreamFn
from rasteret_beam.transforms.sources.points import _PointRows
from tests.support.commands import as_flags, execute
from tests.support.emulators import DENIED, PROJECT, Cloud, Proxy, Request, refusing
from tests.support.front import Front
from tests.support.paths import ROOT
from tests.support.pipelines import EMBEDDED, LOCAL, ORDER, read, run
from tests.support.scenes import elsewhere
from tests.support.storage_read import StorageRead, storage_read

XY = {"x_column": "x", "y_column": "y", "geometry_crs": 32631}
PAGE = (ROOT / "docs" / "inputs.md").read_text()
DENIED_HERE = (grpc.StatusCode.PERMISSION_DENIED, "Permission 'bigquery.readsessions.create' denied on resource")


@pytest.fixture(scope="module")
def direct(service: Cloud) -> bigquery.Client:
    """A client that goes past the proxy."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BIGQUERY_EMULATOR_HOST", service.bigquery)
        return bigquery.Client(project=PROJECT, credentials=AnonymousCredentials())


@pytest.fixture(scope="module")
def server(service: Cloud, direct: bigquery.Client) -> Iterator[StorageRead]:
    """The Storage Read API, as this process meets it."""
    with storage_read(direct, service.reading) as found, pytest.MonkeyPatch.context() as patch:
        patch.setenv(STORAGE_HOST, found.address)
        yield found


@pytest.fixture
def reading(server: StorageRead) -> Iterator[StorageRead]:
    """The server, with nothing asked and its settings as they are by default, before and after."""
    server.sessions.clear()
    server.reads.clear()
    yield server
    server.streams, server.message_rows = 1, 1000
    server.refuse, server.breaks = lambda method, request: None, {}


PLOTS = 2000
POINT = ["point_index", "point_x", "point_y"]


@pytest.fixture(scope="module")
def plots(points: pa.Table) -> pa.Table:
    """The shared points with a number of their own, in no order; those without a finite place have none."""
    rng = np.random.default_rng(3)
    finite = [value if value is not None and np.isfinite(value) else None for value in points["x"].to_pylist()]
    north = [value if np.isfinite(value) else None for value in points["y"].to_pylist()]
    columns = {
        "plot": points["plot"],
        "x": pa.array(finite, pa.float64()),
        "y": pa.array(north, pa.float64()),
        "number": pa.array(rng.permutation(PLOTS) + 10_000),
        "unused": pa.array(["much text"] * PLOTS),
    }
    return pa.table(columns)


@pytest.fixture(scope="module")
def loaded(direct: bigquery.Client, plots: pa.Table) -> str:
    """The plots in a table, by a load job."""
    direct.create_dataset(f"{PROJECT}.plots", exists_ok=True)
    return load(direct, f"{PROJECT}.plots.t", plots)


def load(client: bigquery.Client, table: str, rows: pa.Table) -> str:
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    kinds = {pa.float64(): "FLOAT64", pa.int64(): "INT64", pa.string(): "STRING"}
    schema = [bigquery.SchemaField(one.name, kinds[one.type]) for one in rows.schema]
    client.create_table(bigquery.Table(table, schema=schema), exists_ok=True)
    config = bigquery.LoadJobConfig(source_format="PARQUET")
    client.load_table_from_file(pa.BufferReader(sink.getvalue()), table, job_config=config).result()
    return table


COLLECTED: list[pa.RecordBatch] = []


def collect(batch: pa.RecordBatch) -> None:
    """Keep a batch: the local runner works in this process, and takes this function by its name."""
    COLLECTED.append(batch)


def read_points(source: Any, **settings: Any) -> pa.Table:
    """What a pipeline reads, in the order of point_index."""
    transform = ReadPoints(source, **settings)
    COLLECTED.clear()

    def build(pipeline: beam.Pipeline) -> None:
        pipeline | transform | beam.Map(collect)

    run(build, LOCAL)
    return pa.Table.from_batches(COLLECTED, transform.point_columns().schema).sort_by("point_index")


def read_here(source: Any, **settings: Any) -> pa.Table:
    """The same without a pipeline."""
    transform = ReadPoints(source, **settings)
    return pa.Table.from_batches(transform.batches(), transform.point_columns().schema)


def same_rows(found: pa.Table, wanted: pa.Table) -> None:
    order = [("plot", "ascending")]
    assert found.select(wanted.column_names).sort_by(order).to_pylist() == wanted.sort_by(order).to_pylist()


# Rows and their numbers


def test_rows_of_a_table(loaded: str, plots: pa.Table, reading: StorageRead, tmp_path: Path) -> None:
    found = read_points(BigQueryTable(loaded), **XY, columns=["plot", "x", "y"])
    assert found["point_index"].to_pylist() == list(range(PLOTS))
    same_rows(found, plots.select(["plot", "x", "y"]))
    assert found["point_x"].to_pylist() == found["x"].to_pylist()
    pq.write_table(plots, tmp_path / "plots.parquet")
    assert found.equals(read_points(str(tmp_path / "plots.parquet"), **XY, columns=["plot", "x", "y"]))


def test_rows_through_the_emulators_own_interface(
    loaded: str, plots: pa.Table, service: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(STORAGE_HOST, service.reading)
    found = read_points(BigQueryTable(loaded), **XY)
    assert found["point_index"].to_pylist() == list(range(PLOTS))
    same_rows(found, plots)


def test_streams_are_numbered_one_after_another(loaded: str, plots: pa.Table, reading: StorageRead) -> None:
    """Five streams of 200, 400, 600, 800 and no rows, in messages of 300: a row's number is its place in them."""
    reading.streams, reading.message_rows = 5, 300
    found = read_points(BigQueryTable(loaded), **XY)
    assert len(COLLECTED) == 4
    assert found["point_index"].to_pylist() == list(range(PLOTS))
    assert found["plot"].to_pylist() == plots["plot"].to_pylist()
    assert sorted(int(request.read_stream[-1]) for request in reading.reads) == [0, 1, 2, 3, 4]


def test_a_connection_that_breaks_off_is_taken_up_where_it_was(
    loaded: str, plots: pa.Table, reading: StorageRead
) -> None:
    reading.streams, reading.message_rows = 3, 100
    reading.breaks = {0: [2, 3], 1: [0, 1]}
    found = read_points(BigQueryTable(loaded), **XY)
    assert found["plot"].to_pylist() == plots["plot"].to_pylist()
    offsets = {number: [one.offset for one in reading.reads if one.read_stream[-1] == number] for number in "012"}
    assert offsets == {"0": [0, 200, 500], "1": [0, 0, 100], "2": [0]}


def test_a_bundle_that_is_tried_again_gives_the_same(loaded: str, reading: StorageRead) -> None:
    reading.streams, reading.message_rows = 3, 100
    transform = ReadPoints(BigQueryTable(loaded), **XY)
    chosen, extract = transform._read()
    streams = open_streams(extract, chosen.needed)
    step = _ReadStreamFn(extract, _PointRows(chosen))
    first, again = ([list(step.process(stream)) for stream in streams] for _ in range(2))
    rows = [sum(len(piece[2]) for piece in pieces[:-1]) for pieces in first]
    assert rows == [667, 1333, 0] == [pieces[-1].value[1] for pieces in first]
    for one, other in zip(first, again, strict=True):
        assert [piece[:2] for piece in one[:-1]] == [piece[:2] for piece in other[:-1]]
        assert all(a[2].equals(b[2]) for a, b in zip(one[:-1], other[:-1], strict=True))
        assert one[-1].value == other[-1].value


def test_first_rows_of_streams_that_come_in_any_order() -> None:
    assert _first_rows([(2, 5), (0, 3), (3, 1), (1, 0)]) == {0: 0, 1: 3, 2: 3, 3: 8}


def test_only_the_needed_columns_of_one_session_are_read(loaded: str, reading: StorageRead) -> None:
    before = datetime.now(UTC)
    read_points(BigQueryTable(loaded), **XY, columns=["plot"])
    check, session = reading.sessions
    for request in (check, session):
        assert list(request.read_session.read_options.selected_fields) == ["x", "y", "plot"]
        assert request.read_session.table == "projects/proj/datasets/plots/tables/t"
        assert request.parent == "projects/proj"
    assert check.read_session.table_modifiers == session.read_session.table_modifiers
    assert before <= session.read_session.table_modifiers.snapshot_time <= datetime.now(UTC)
    assert (check.max_stream_count, session.max_stream_count) == (1, 1000)


def test_a_job_reads_the_table_as_it_was_when_it_was_built(
    client: bigquery.Client, dataset: str, reading: StorageRead
) -> None:
    def add(*names: str) -> None:
        client.query(
            f"INSERT INTO `{dataset}.t` VALUES {', '.join(f'({name!r}, 1.5, 2.5)' for name in names)}"
        ).result()

    client.query(f"CREATE TABLE `{dataset}.t` (plot STRING, x FLOAT64, y FLOAT64)").result()
    add("a", "b")
    transform = ReadPoints(BigQueryTable(f"{dataset}.t"), **XY)
    transform.point_columns()
    between = datetime.now(UTC)
    add("c")
    COLLECTED.clear()
    run(lambda pipeline: pipeline | transform | beam.Map(collect), LOCAL)
    assert pa.Table.from_batches(COLLECTED)["plot"].to_pylist() == ["a", "b"]
    for moment in (between, between.replace(tzinfo=None), between.isoformat()):
        assert read_here(BigQueryTable(f"{dataset}.t", snapshot_time=moment), **XY)["plot"].to_pylist() == ["a", "b"]
    assert read_here(BigQueryTable(f"{dataset}.t"), **XY)["plot"].to_pylist() == ["a", "b", "c"]


def test_a_clock_that_is_behind_sees_what_was_written() -> None:
    now = datetime.now(UTC)
    assert bigquery_source._snapshot(None, now, now + timedelta(seconds=9)) == now + timedelta(
        seconds=9, milliseconds=1
    )
    assert bigquery_source._snapshot(None, now, now - timedelta(seconds=9)) == now
    with pytest.raises(InputError, match="snapshot_time is 'yesterday'; write it as"):
        BigQueryTable("proj:plots.t", snapshot_time="yesterday")


def test_a_column_can_give_the_index(loaded: str, plots: pa.Table, reading: StorageRead) -> None:
    found = []
    for reading.streams in (1, 4):
        found.append(read_points(BigQueryTable(loaded, index_column="number"), **XY, columns=["plot"]))
    assert found[0].equals(found[1])
    wanted = plots.sort_by("number")
    assert found[0]["point_index"].to_pylist() == wanted["number"].to_pylist()
    assert found[0]["plot"].to_pylist() == wanted["plot"].to_pylist()
    with pytest.raises(
        InputError, match=r"index_column 'plot' of table proj.plots.t is string; it has to hold integers"
    ):
        ReadPoints(BigQueryTable(loaded, index_column="plot"), **XY).point_columns()


def test_an_index_is_never_null_and_may_be_called_point_index() -> None:
    table = pa.table({"x": [1.0, 2.0], "y": [1.0, 2.0], "point_index": [7, None]})
    chosen = choose_columns(table.schema, geometry_crs=4326, index_column="point_index")
    assert chosen.kept == ("x", "y")
    assert point_batch(table.to_batches()[0].slice(0, 1), 0, chosen)["point_index"].to_pylist() == [7]
    with pytest.raises(InputError, match="row 41 of column 'point_index' is null"):
        point_batch(table.to_batches()[0], 40, chosen)


def test_an_empty_table(client: bigquery.Client, dataset: str, reading: StorageRead) -> None:
    client.query(f"CREATE TABLE `{dataset}.t` (x FLOAT64, y FLOAT64)").result()
    source = BigQueryTable(f"{dataset}.t")
    assert len(read_points(source, **XY)) == len(read_here(source, **XY)) == 0


@pytest.mark.slow
def test_on_a_portable_runner(loaded: str, reading: StorageRead, scenes: Collection, tmp_path: Path) -> None:
    reading.streams = 4
    transform = ReadPoints(BigQueryTable(loaded), **XY)

    def build(pipeline: beam.Pipeline) -> None:
        samples = pipeline | transform | SamplePoints(scenes, ["B10"])
        schema = samples_schema(kept_fields(transform.point_columns().schema))
        samples | WriteSamplesToParquet(str(tmp_path / "s"), schema=schema)

    run(build, EMBEDDED)
    wanted = scenes.sample_points(read_here(BigQueryTable(loaded), **XY).drop(POINT), ["B10"], **XY)
    found = read(tmp_path / "s")
    assert len(found) > 500 and found.equals(wanted.select(found.column_names).sort_by(ORDER))


def test_what_crosses_the_shuffle_is_arrow(loaded: str, reading: StorageRead) -> None:
    pipeline = beam.Pipeline(options=PipelineOptions(LOCAL))
    pipeline | "Read" >> ReadPoints(BigQueryTable(loaded), **XY)
    proto, _ = pipeline.to_runner_api(return_context=True)
    (spread,) = [one for one in proto.components.transforms.values() if one.unique_name == "Read/SpreadPieces"]
    (pieces,) = spread.inputs.values()
    parts = proto.components.coders[proto.components.pcollections[pieces].coder_id].component_coder_ids
    kinds = [proto.components.coders[part] for part in parts]
    assert [kind.spec.urn for kind in kinds[:2]] == ["beam:coder:varint:v1"] * 2
    assert b"RecordBatchCoder" in kinds[2].spec.payload or "RecordBatchCoder" in kinds[2].spec.urn


# Types


def test_geography_is_the_place_of_a_point(
    client: bigquery.Client, dataset: str, reading: StorageRead, scenes: Collection
) -> None:
    rng = np.random.default_rng(5)
    lon, lat = rng.uniform(2.99, 3.04, 50).tolist(), rng.uniform(48.72, 48.76, 50).tolist()
    fields = [bigquery.SchemaField("plot", "INTEGER"), bigquery.SchemaField("place", "GEOGRAPHY")]
    client.create_table(bigquery.Table(f"{dataset}.t", schema=fields))
    values = [f"({number}, ST_GEOGPOINT({x!r}, {y!r}))" for number, (x, y) in enumerate(zip(lon, lat, strict=True))]
    client.query(f"INSERT INTO `{dataset}.t` VALUES {', '.join(values)}, (50, NULL)").result()
    found = read_here(BigQueryTable(f"{dataset}.t"))
    assert found["point_x"].to_pylist() == [*lon, None] and found["point_y"].to_pylist() == [*lat, None]
    assert found.column_names == ["point_index", "point_x", "point_y", "plot"]
    named = ReadPoints(BigQueryTable(f"{dataset}.t"), geometry_column="place", geometry_crs="EPSG:4326")
    assert named.point_columns().crs == "OGC:CRS84"
    with pytest.raises(InputError, match=r"geometry_crs is EPSG:3857, but column 'place' of table .* says OGC:CRS84"):
        ReadPoints(BigQueryTable(f"{dataset}.t"), geometry_crs=3857).point_columns()
    client.query(f"INSERT INTO `{dataset}.t` VALUES (51, ST_GEOGFROMTEXT('LINESTRING(3 48, 4 49)'))").result()
    with pytest.raises(InputError, match=r"row 51 of column 'place' is LINESTRING \(3 48, 4 49\); only points"):
        list(ReadPoints(BigQueryTable(f"{dataset}.t")).batches())


def test_geography_in_any_arrow_table(scenes: Collection) -> None:
    rng = np.random.default_rng(6)
    shapes = shapely.points(rng.uniform(2.99, 3.04, 40), rng.uniform(48.72, 48.76, 40))
    field = pa.field(
        "place", pa.string(), metadata=arrow_schema([{"name": "p", "type": "GEOGRAPHY"}]).field(0).metadata
    )
    table = pa.table([pa.array(shapely.to_wkt(shapes, rounding_precision=-1))], schema=pa.schema([field]))
    xy = pa.table({"lon": shapely.get_x(shapes), "lat": shapely.get_y(shapes)})
    found = scenes.sample_points(table, ["B10"])
    wanted = scenes.sample_points(xy, ["B10"], geometry_crs="OGC:CRS84", columns=[])
    assert len(found) > 20 and found.sort_by(ORDER).equals(wanted.sort_by(ORDER))


WKT = {
    "POINT(1 2)": (1.0, 2.0),
    "POINT (-1.5 .25)": (-1.5, 0.25),
    "POINT(1e-7 -2.5E+1)": (1e-7, -25.0),
    "POINT(-179.99999999999997 89.9)": (-179.99999999999997, 89.9),
}


def test_points_of_wkt() -> None:
    chosen = choose_columns(arrow_schema([{"name": "g", "type": "GEOGRAPHY"}]))

    def places(*texts: str | None) -> list[Any]:
        batch = pa.record_batch(
            [pa.array(texts, pa.string())], schema=arrow_schema([{"name": "g", "type": "GEOGRAPHY"}])
        )
        points = point_batch(batch, 10, chosen)
        return list(zip(points["point_x"].to_pylist(), points["point_y"].to_pylist(), strict=True))

    assert places(*WKT, None) == [*WKT.values(), (None, None)]
    assert places(*WKT, "MULTIPOINT((5 6))", "POINT Z (7 8 9)", None) == [*WKT.values(), (5, 6), (7, 8), (None, None)]
    assert str(places("POINT(1 2)", "POINT EMPTY")) == "[(1.0, 2.0), (nan, nan)]"
    with pytest.raises(InputError, match="row 11 of column 'g' is not WKT: 'POINT 1 2'"):
        places(None, "POINT 1 2")


def test_kept_columns_have_their_own_types(client: bigquery.Client, dataset: str, reading: StorageRead) -> None:
    kinds = "FLOAT64 INT64 NUMERIC BOOL STRING BYTES DATE TIME DATETIME TIMESTAMP".split()
    fields = [bigquery.SchemaField(f"c_{kind.lower()}", kind) for kind in kinds]
    inner = [bigquery.SchemaField("a", "INT64"), bigquery.SchemaField("b", "STRING", mode="REPEATED")]
    fields += [bigquery.SchemaField("c_struct", "RECORD", fields=inner)]
    fields += [bigquery.SchemaField("c_list", "FLOAT64", mode="REPEATED")]
    client.create_table(bigquery.Table(f"{dataset}.t", schema=fields))
    client.query(
        f"INSERT INTO `{dataset}.t` VALUES (2.5, 48, NUMERIC '3.25', true, 'é', b'ab', DATE '2023-01-02', "
        "TIME '01:02:03.5', DATETIME '2023-01-02 03:04:05', TIMESTAMP '2023-01-02 03:04:05+02', STRUCT(1, ['q']), "
        "[1.5, 2.5]), (2.5, 48, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, [])"
    ).result()
    source = BigQueryTable(f"{dataset}.t")
    found = read_here(source, x_column="c_float64", y_column="c_int64", geometry_crs=4326)
    assert found.schema.types[3:] == [
        pa.float64(),
        pa.int64(),
        pa.decimal128(38, 9),
        pa.bool_(),
        pa.string(),
        pa.binary(),
        pa.date32(),
        pa.time64("us"),
        pa.timestamp("us"),
        pa.timestamp("us", "UTC"),
        pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]),
        pa.list_(pa.float64()),
    ]
    rows = found.select(found.column_names[3:]).to_pylist()
    assert list(rows[0].values()) == [
        2.5,
        48,
        Decimal("3.25"),
        True,
        "é",
        b"ab",
        date(2023, 1, 2),
        time(1, 2, 3, 500_000),
        datetime(2023, 1, 2, 3, 4, 5),
        datetime(2023, 1, 2, 1, 4, 5, tzinfo=UTC),
        {"a": 1, "b": ["q"]},
        [1.5, 2.5],
    ]
    assert list(rows[1].values()) == [2.5, 48, *[None] * 9, []]
    numbers = read_here(source, x_column="c_numeric", y_column="c_float64", geometry_crs=4326, columns=[])
    assert numbers["point_x"].to_pylist() == [3.25, None]
    with pytest.raises(InputError, match=r"column 'c_string' of table .* is string; coordinates must be numbers"):
        ReadPoints(source, x_column="c_string", y_column="c_int64", geometry_crs=4326).point_columns()


def test_schemas_of_fields() -> None:
    fields = [
        {"name": "price", "type": "NUMERIC", "precision": "10", "scale": "2"},
        {"name": "whole", "type": "BIGNUMERIC", "precision": "40"},
        {"name": "big", "type": "BIGNUMERIC"},
        {"name": "doc", "type": "JSON"},
        {"name": "yes", "type": "BOOL", "mode": "REQUIRED"},
        {"name": "places", "type": "GEOGRAPHY", "mode": "REPEATED"},
        {"name": "one", "type": "STRUCT", "fields": [{"name": "wait", "type": "INTERVAL"}]},
        {"name": "span", "type": "RANGE", "rangeElementType": {"type": "DATE"}},
    ]
    schema = arrow_schema(fields)
    assert schema.types[:6] == [
        pa.decimal128(10, 2),
        pa.decimal256(40, 0),
        pa.decimal256(76, 38),
        pa.string(),
        pa.bool_(),
        pa.list_(pa.string()),
    ]
    assert not schema.field("places").metadata
    check_readable(fields, schema.names[:6], "table t")
    with pytest.raises(
        InputError, match=r"column\(s\) one.wait \(INTERVAL\), span \(RANGE\) of table t cannot be read"
    ):
        check_readable(fields, schema.names, "table t")


def test_batches_of_another_type_than_promised() -> None:
    schema = pa.schema([("n", pa.decimal128(38, 9)), ("l", pa.list_(pa.float64()))])
    inner = pa.list_(pa.field("l", pa.float64()))
    given = pa.record_batch({"l": pa.array([[1.0]], inner), "n": pa.array([Decimal("1.25")], pa.decimal128(18, 3))})
    assert in_schema(given, schema, "t").to_pylist() == [{"n": Decimal("1.25"), "l": [1.0]}]
    with pytest.raises(InputError, match=r"column 'n' of t was sent as string, not as int64"):
        in_schema(pa.record_batch({"n": ["x"]}), pa.schema([("n", pa.int64())]), "t")
    with pytest.raises(InputError, match=r"t was sent without column\(s\) m; it has n"):
        in_schema(pa.record_batch({"n": ["x"]}), pa.schema([("m", pa.int64())]), "t")


def test_small_messages_are_gathered_and_large_ones_cut() -> None:
    rows = pa.record_batch({"n": np.arange(100)})
    sizes = [3, 4, 0, 1, 30, 2, 60]
    starts = np.cumsum([0, *sizes])
    parts = [rows.slice(start, size) for start, size in zip(starts, sizes, strict=False)]
    made = list(gathered(parts, most_rows=10, most_bytes=1 << 20))
    assert [len(one) for one in made] == [8, 10, 10, 10, 2, 10, 10, 10, 10, 10, 10]
    assert pa.Table.from_batches(made)["n"].to_pylist() == list(range(100))
    cut = list(gathered(parts, most_rows=50, most_bytes=200))
    assert [len(one) for one in cut] == [8, 25, 7, 25, 25, 10]
    assert pa.Table.from_batches(cut)["n"].to_pylist() == list(range(100))


# Queries


def query_jobs(proxy: Proxy) -> list[Request]:
    """The queries that ran, but for dry runs."""
    posts = [one for one in proxy.seen if one.method == "POST" and b'"query"' in one.body]
    return [one for one in posts if b'"dryRun": true' not in one.body]


def test_a_query_runs_once(loaded: str, plots: pa.Table, reading: StorageRead, proxy: Proxy) -> None:
    reading.streams = 3
    sql = f"SELECT plot, x + 1 AS x, y, number FROM `{loaded}` WHERE x > 500000 ORDER BY plot"
    proxy.seen.clear()
    found = read_points(BigQueryQuery(sql), **XY, columns=["plot"])
    assert len(query_jobs(proxy)) == 1
    wanted = plots.filter(pa.compute.greater(plots["x"], 500_000)).sort_by("plot")
    assert found["point_index"].to_pylist() == list(range(len(wanted)))
    assert found["plot"].to_pylist() == wanted["plot"].to_pylist()
    assert found["point_x"].to_pylist() == pa.compute.add(wanted["x"], 1).to_pylist()
    (session,) = reading.sessions
    assert list(session.read_session.read_options.selected_fields) == ["x", "y", "plot"]
    assert not session.read_session.table_modifiers


def test_a_step_that_is_tried_again_finds_the_result(loaded: str, reading: StorageRead, proxy: Proxy) -> None:
    extract = look_at(BigQueryQuery(f"SELECT x, y FROM `{loaded}`", project=PROJECT))
    proxy.seen.clear()
    again = pickle.loads(pickle.dumps(extract))
    assert len(open_streams(extract, ["x"])) == len(open_streams(again, ["x"])) == 1
    first, second = reading.sessions
    assert first.read_session.table == second.read_session.table
    assert len(query_jobs(proxy)) == 1


def test_a_query_without_rows(loaded: str, reading: StorageRead) -> None:
    assert len(read_here(BigQueryQuery(f"SELECT x, y FROM `{loaded}` WHERE x < 0"), **XY)) == 0


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELEC x", "the query cannot be run: .*(?i:syntax error)"),
        ("SELECT nope FROM `TABLE`", "the query cannot be run: .*nope"),
        ("SELECT x FROM plots.nothing", "the query cannot be run: .*plots.nothing.*check the names"),
        ("INSERT INTO `TABLE` (x) VALUES (1)", "the query is a INSERT; give one SELECT statement"),
        ("SELECT 1 AS x; SELECT 2 AS y", "the query is a SCRIPT; give one SELECT statement"),
        ("SELECT x AS a, y FROM `TABLE`", "the query has no column 'x'; it has a, y"),
    ],
)
def test_queries_that_cannot_be(loaded: str, reading: StorageRead, sql: str, said: str, proxy: Proxy) -> None:
    with pytest.raises(InputError, match=said):
        ReadPoints(BigQueryQuery(sql.replace("TABLE", loaded)), **XY).point_columns()


def test_a_query_without_a_project(monkeypatch: pytest.MonkeyPatch, reading: StorageRead, tmp_path: Path) -> None:
    for name in ("GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(InputError, match=r"there is no project to run the query in: .*; give project="):
        ReadPoints(BigQueryQuery("SELECT 1 AS x, 2 AS y"), **XY).point_columns()


def test_the_example_of_the_docs(client: bigquery.Client, dataset: str, reading: StorageRead) -> None:
    kinds = {"plot_number": "INTEGER", "geog": "GEOGRAPHY", "planted": "STRING"}
    fields = [bigquery.SchemaField(name, kind) for name, kind in kinds.items()]
    client.create_table(bigquery.Table(f"{dataset}.plots", schema=fields))
    client.query(f"INSERT INTO `{dataset}.plots` VALUES (7, ST_GEOGPOINT(3, 48), '2021-01-01')").result()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", PAGE, re.S) if "BigQueryTable" in block]
    code = code.replace("project:dataset.", f"{dataset.replace('.', ':')}.").replace("project.dataset.", f"{dataset}.")
    pipeline = beam.Pipeline(options=PipelineOptions(LOCAL))
    names: dict[str, Any] = {"pipeline": pipeline, "ReadPoints": ReadPoints}
    exec(code, names)
    COLLECTED.clear()
    names["points"] | beam.Map(collect)
    pipeline.run()
    (batch,) = COLLECTED
    assert batch.to_pylist() == [
        {"point_index": 7, "point_x": 3.0, "point_y": 48.0, "plot_number": 7, "planted": "2021-01-01"}
    ]


# Refusals and failures


def look(table: str, **settings: Any) -> None:
    ReadPoints(BigQueryTable(table, **settings), **XY).point_columns()


def test_tables_that_cannot_be(loaded: str, client: bigquery.Client, dataset: str, reading: StorageRead) -> None:
    with pytest.raises(MissingInputError, match=r"table proj.plots.nothing cannot be read: .*check the names of"):
        look(f"{PROJECT}:plots.nothing")
    with pytest.raises(MissingInputError, match=r"table proj.nothing.t cannot be read: .*check the names of"):
        look("nothing.t", project=PROJECT)
    with pytest.raises(InputError, match=r"'plots.t' has no project; write it as PROJECT:DATASET.TABLE"):
        look("plots.t")
    with pytest.raises(InputError, match=r"table proj.plots.t has no column 'lon'; it has plot, x, y, number, unused"):
        ReadPoints(BigQueryTable(loaded), x_column="lon", y_column="y", geometry_crs=4326).point_columns()
    with pytest.raises(InputError, match="plain coordinate columns have no CRS"):
        ReadPoints(BigQueryTable(loaded)).point_columns()
    client.query(f"CREATE VIEW `{dataset}.v` AS SELECT x, y FROM `{loaded}`").result()
    with pytest.raises(InputError, match=rf"{dataset}.v is a VIEW, .*give a query .*: SELECT \* FROM `{dataset}.v`"):
        look(f"{dataset}.v")


def test_places_that_are_closed(
    loaded: str, reading: StorageRead, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.refuse = refusing("GET", "/tables/", DENIED)
    with pytest.raises(MissingInputError, match=r"Access Denied.*; grant roles/bigquery.dataViewer on proj.plots to"):
        look(loaded)
    proxy.refuse = refusing("GET", "/tables/", (404, "notFound", "Not found: Project wrong"))
    with pytest.raises(MissingInputError, match="Not found: Project wrong; check the names"):
        look("wrong:d.t")
    proxy.refuse = refusing("POST", "/jobs", DENIED)
    with pytest.raises(
        InputError, match=r"; grant roles/bigquery.jobUser on project proj and roles/bigquery.dataViewer on"
    ):
        ReadPoints(BigQueryQuery("SELECT 1 AS x, 2 AS y"), **XY).point_columns()
    proxy.refuse = lambda request: None
    reading.refuse = lambda method, request: DENIED_HERE
    with pytest.raises(
        MissingInputError, match=r"denied on resource; grant roles/bigquery.readSessionUser on project proj"
    ):
        look(loaded)
    reading.refuse = lambda method, request: (grpc.StatusCode.RESOURCE_EXHAUSTED, "Quota exceeded: concurrent sessions")
    with pytest.raises(MissingInputError, match=r"Quota exceeded: .*; a quota is exceeded: wait"):
        look(loaded)
    old = "Invalid snapshot time 1577836800000. Cannot read before 1700000000000."
    reading.refuse = lambda method, request: (grpc.StatusCode.INVALID_ARGUMENT, old)
    with pytest.raises(MissingInputError, match=r"Cannot read before .*; give a snapshot_time within"):
        look(loaded, snapshot_time="2020-01-01")
    monkeypatch.setattr(bigquery_source.service, "CHECK_SECONDS", 0.5)
    reading.refuse = lambda method, request: (grpc.StatusCode.UNAVAILABLE, "nobody is here")
    with pytest.raises(
        MissingInputError, match=r"table proj.plots.t cannot be read: no answer in time: .*nobody is here"
    ):
        look(loaded)


def test_a_session_that_is_over(loaded: str, reading: StorageRead) -> None:
    def refuse(method: str, request: Any) -> Any:
        expired = (grpc.StatusCode.FAILED_PRECONDITION, "Session expired at 2023-01-01 00:00:00")
        return expired if method == "ReadRows" else None

    reading.refuse = refuse
    with pytest.raises(
        Exception, match=r"table proj.plots.t cannot be read: .*Session expired .*; a read session lasts 6"
    ):
        read_points(BigQueryTable(loaded), **XY)


def test_an_answer_too_large(loaded: str, reading: StorageRead, proxy: Proxy) -> None:
    source = BigQueryQuery(f"SELECT x, y FROM `{loaded}`")
    transform = ReadPoints(source, **XY)
    transform.point_columns()
    proxy.refuse = refusing("POST", "/jobs", (403, "responseTooLarge", "Response too large to return"))
    with pytest.raises(
        MissingInputError, match=r"the query failed: Response too large .*; write the result into a table"
    ):
        next(transform.batches())


def test_nothing_secret_travels(loaded: str, reading: StorageRead) -> None:
    extract = look_at(BigQueryTable(loaded))
    assert not any(word in pickle.dumps(extract) for word in (b"secret", b"token", b"credential"))
    assert pickle.loads(pickle.dumps(extract)) == extract


# On the command line


@pytest.fixture
def asked(scenes: Collection, loaded: str, reading: StorageRead, tmp_path: Path) -> dict[str, Any]:
    """The flags of a command that samples the plots."""
    scenes.export(tmp_path / "collection")
    table = loaded.replace(".", ":", 1)
    return {"points_table": table, **XY, "collection": tmp_path / "collection", "bands": "B10,B20"}


@pytest.mark.usefixtures("same_signal_handlers")
def test_the_command_gives_the_rows_of_a_file(
    asked: dict[str, Any], plots: pa.Table, loaded: str, reading: StorageRead, tmp_path: Path
) -> None:
    reading.streams, reading.message_rows = 4, 500
    pq.write_table(plots, tmp_path / "plots.parquet")

    def rows(name: str, **changed: Any) -> tuple[pa.Table, pa.Table]:
        outputs = {"output": tmp_path / name, "unsampled": tmp_path / f"{name}_left"}
        done = execute(sample_points.main, *as_flags(**asked | outputs | changed))
        assert (done.code, done.err) == (0, "") and done.figures["points read"] == PLOTS
        samples, left = read(tmp_path / name), read(tmp_path / f"{name}_left")
        return samples.sort_by(ORDER), left.sort_by("point_index")

    table = rows("table")
    query = rows("query", points_table=None, points_query=f"SELECT * FROM `{loaded}`")
    file = rows("file", points_table=None, points=tmp_path / "plots.parquet")
    assert len(file[0]) > 1000 and len(file[1]) > 50
    for found in (table, query):
        assert found[0].equals(file[0]) and found[1].equals(file[1])
    indexed = rows("indexed", points_index="number")[0]
    by_plot = [(name, "ascending") for name in ("plot", "record_id", "band")]
    assert indexed["point_index"].to_pylist() == indexed["number"].to_pylist()
    others = [name for name in indexed.column_names if name != "point_index"]
    assert indexed.sort_by(by_plot).select(others).equals(file[0].sort_by(by_plot).select(others))


@pytest.mark.usefixtures("same_signal_handlers")
def test_the_command_plans(asked: dict[str, Any], loaded: str, proxy: Proxy) -> None:
    planned = execute(sample_points.main, *as_flags(**asked, plan=True))
    assert planned.code == 0 and planned.figures["points read"] == PLOTS
    proxy.seen.clear()
    query = {"points_table": None, "points_query": f"SELECT x, y FROM `{loaded}`"}
    again = execute(sample_points.main, *as_flags(**asked | query, plan=True))
    assert again.out == planned.out and len(query_jobs(proxy)) == 1


@pytest.mark.usefixtures("same_signal_handlers")
def test_the_command_says_what_is_wrong(
    asked: dict[str, Any], client: bigquery.Client, dataset: str, loaded: str, tmp_path: Path
) -> None:
    def error(code: int = 1, **changed: Any) -> str:
        done = execute(sample_points.main, *as_flags(**asked | {"output": tmp_path / "o"} | changed))
        assert done.code == code and done.err.count("\n") == 1
        return done.err

    client.query(f"CREATE TABLE `{dataset}.t` (x FLOAT64, y FLOAT64)").result()
    assert "holds no points" in error(points_table=f"{dataset}.t")
    assert "not allowed with argument" in error(2, points="p.parquet")
    assert "not allowed with argument" in error(2, points_query="SELECT 1")
    assert "required: --bands" in error(2, bands=None)
    assert "--points_index given without --points_table" in error(points_table=None, points="p", points_index="n")
    assert "--points_index does not go with --retry" in error(
        points_table=None, retry="p", points_index="n", x_column=None, y_column=None, geometry_crs=None, bands=None
    )
    query = {"points_table": None, "points_query": f"SELECT x, y FROM `{loaded}` WHERE x < 0"}
    assert "write FOR SYSTEM_TIME AS OF" in error(**query, points_snapshot="2023-01-01")
    assert "the query gave no row" in error(0, **query)
    assert not (tmp_path / "o").exists()


@pytest.mark.usefixtures("same_signal_handlers")
def test_the_command_says_why_nothing_is_sampled(
    asked: dict[str, Any], loaded: str, reading: StorageRead, proxy: Proxy, tmp_path: Path
) -> None:
    far = {"points_table": None, "points_query": f"SELECT x + 1e6 AS x, y FROM `{loaded}` WHERE x IS NOT NULL"}
    flags = as_flags(**asked | far, output=tmp_path / "o")
    proxy.seen.clear()
    done = execute(sample_points.main, *flags)
    assert done.code == 0 and done.figures["rows"] == 0 and done.err.startswith("warning: none of the points")
    assert len(query_jobs(proxy)) == 1

    def refuse(method: str, request: Any) -> Any:
        """Only the job may read."""
        return DENIED_HERE if len(reading.sessions) > 1 else None

    reading.sessions.clear()
    reading.refuse = refuse
    done = execute(sample_points.main, *flags)
    assert done.code == 0 and "no point is sampled, and points cannot be read again to say why: the query" in done.err


@pytest.mark.slow
@pytest.mark.usefixtures("same_signal_handlers")
def test_a_dry_run_for_dataflow_runs_no_query(
    asked: dict[str, Any],
    loaded: str,
    service: Cloud,
    proxy: Proxy,
    reading: StorageRead,
    scenes: Collection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = {"runner": "DataflowRunner", "region": "r", "project": PROJECT, "dry_run": True}
    folders = {"temp_location": "gs://bucket/temp", "staging_location": "gs://bucket/staging"}
    query = {"points_table": None, "points_query": f"SELECT x, y FROM `{loaded}`"}
    places = {"collection": "gs://bucket/collection", "output": "gs://bucket/out/s"}
    with Front(service.storage, gcs=True) as front:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", front.url)
        elsewhere(scenes, "gs://bucket/scene.tif").export(places["collection"])
        proxy.seen.clear()
        flags = as_flags(**asked | query | options | folders | places, sdk_container_image="a/b:1")
        done = execute(sample_points.main, *flags)
    assert done.code == 0 and "dry run: the job can be built" in done.out, done.err
    assert query_jobs(proxy) == [] and reading.sessions == []
