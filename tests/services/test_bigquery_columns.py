"""Extra columns and rows of a left join in BigQuery, in each way of writing, with their types and names."""

from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.io.gcp.bigquery_tools import beam_row_from_dict
from google.cloud import bigquery

from pipelines import sample_points
from rasteret_beam import Collection, ReadPoints, SampleOptions, SamplePoints, WriteSamplesToBigQuery, load, metrics
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.bigquery.rows import python_rows
from rasteret_beam.kernels.bigquery.schema import bigquery_fields, loadable
from rasteret_beam.schema import kept_fields
from tests.support.commands import as_flags, execute
from tests.support.emulators import BUCKET, PROJECT
from tests.support.pipelines import LOCAL, ORDER, XY, run

TEMP = f"gs://{BUCKET}/temp"
PLACES = ["pixel_x", "pixel_lat", "distance", "nodata", "scale", "offset", "candidate"]
RECORD = ["record:eo:cloud_cover", "record:platform", "record:bbox", "record:geometry", "record:tags", "record:year"]
TYPES = {
    "status": "STRING",
    **dict.fromkeys(PLACES, "FLOAT") | {"candidate": "INTEGER"},
    "record_eo_cloud_cover": "FLOAT",
    "record_platform": "STRING",
    "record_bbox": "RECORD",
    "record_geometry": "BYTES",
    "record_tags": "STRING",
    "record_year": "INTEGER",
}
OPTIONS = SampleOptions(match="latest", join="left", extra_columns=["status", *PLACES, *RECORD])


@pytest.fixture(scope="module")
def collection(scenes: Collection, tmp_path_factory: pytest.TempPathFactory) -> Collection:
    folder = tmp_path_factory.mktemp("columns")
    table = scenes.to_table()
    numbers = range(len(table))
    tags = pa.array([["a", "b"][: number % 3] for number in numbers], pa.list_(pa.string()))
    table = table.append_column("tags", tags)
    platform = pa.array([None if number % 3 == 2 else f"s{number}" for number in numbers])
    table = table.append_column("platform", platform)
    Collection.from_table(table, name="columns").export(folder / "collection")
    return load(folder / "collection")


@pytest.fixture(scope="module")
def some(points: pa.Table) -> pa.Table:
    """100 points, of which ten have no coordinates."""
    table = points.slice(0, 100).select(["x", "y"])
    x = pa.array(table["x"].to_pylist(), mask=np.arange(100) % 10 == 3)
    return table.set_column(0, "x", x)


def renamed(rows: pa.Table) -> list[dict[str, Any]]:
    """Rows as BigQuery gives them: null lists are empty, and the datetime is in UTC."""
    place = rows.schema.get_field_index("datetime")
    rows = rows.set_column(place, "datetime", rows["datetime"].cast(pa.timestamp("us", "UTC")))
    found = []
    for row in rows.to_pylist():
        row["record:tags"] = row["record:tags"] or []
        found.append({name.replace(":", "_"): value for name, value in row.items()})
    return found


def rows_of(client: bigquery.Client, table: str) -> list[dict[str, Any]]:
    found = client.query(f"SELECT * FROM `{table}` ORDER BY point_index, band").result()
    return [dict(row) for row in found]


def eagerly(collection: Collection, some: pa.Table) -> pa.Table:
    return collection.sample_points(some, ["B10"], columns=[], options=OPTIONS, **XY).sort_by(ORDER)


@pytest.mark.usefixtures("same_signal_handlers")
def test_the_command_loads_them(
    collection: Collection, some: pa.Table, client: bigquery.Client, dataset: str, tmp_path: Path
) -> None:
    pq.write_table(some, tmp_path / "points.parquet")
    done = execute(
        sample_points.main,
        *as_flags(points=tmp_path / "points.parquet", **XY, collection=collection.path, bands="B10"),
        *as_flags(bigquery=f"{dataset.replace('.', ':')}.t", temp_location=TEMP, bq_cluster_by="record_platform"),
        *as_flags(match="latest", join="left", extra_columns=",".join(OPTIONS.extra_columns)),
        "--columns=",
    )
    assert (done.code, done.err) == (0, "")
    found = rows_of(client, f"{dataset}.t")
    np.testing.assert_equal(found, renamed(eagerly(collection, some)))
    assert len(found) == done.figures["rows"] == 100 and [row["status"] for row in found].count("null") == 10
    table = client.get_table(f"{dataset}.t")
    assert {field.name: field.field_type for field in table.schema if field.name in TYPES} == TYPES
    assert table.clustering_fields == ["record_platform"]


def test_streaming_inserts(collection: Collection, some: pa.Table, client: bigquery.Client, dataset: str) -> None:
    reading = ReadPoints(some, **XY, columns=[])
    schema = collection.sample_schema(["B10"], kept_fields(reading.point_columns().schema), OPTIONS)
    made = [bigquery.SchemaField.from_api_repr(one) for one in bigquery_fields(schema)]
    client.create_table(bigquery.Table(f"{dataset}.t", schema=made))

    def build(pipeline: beam.Pipeline) -> None:
        samples = pipeline | reading | SamplePoints(collection, ["B10"], options=OPTIONS)
        samples | WriteSamplesToBigQuery(f"{dataset}.t", schema=schema, method="STREAMING_INSERTS")

    counts = run(build, [*LOCAL, f"--project={PROJECT}"])
    assert counts[metrics.ROWS_WRITTEN] == 100
    np.testing.assert_equal(rows_of(client, f"{dataset}.t"), renamed(eagerly(collection, some)))


def test_rows_for_the_storage_write_api(collection: Collection, some: pa.Table) -> None:
    """Beam's rows take the names and the types."""
    eager = eagerly(collection, some)
    WriteSamplesToBigQuery("p:d.t", schema=eager.schema, method="STORAGE_WRITE_API")
    fields = {"fields": bigquery_fields(eager.schema)}
    made = [beam_row_from_dict(row, fields) for batch in eager.to_batches() for row in python_rows(batch)]
    assert [row.status for row in made] == eager["status"].to_pylist()
    assert [row.record_eo_cloud_cover for row in made] == eager["record:eo:cloud_cover"].to_pylist()
    assert [row.record_tags for row in made] == [tags or [] for tags in eager["record:tags"].to_pylist()]


def test_lists_of_points_without_a_sample(collection: Collection, some: pa.Table) -> None:
    """Bands of points without a sample are NaN in lists, as bands that a record lacks are."""
    options = {"layout": "values", "join": "left", "match": "latest"} | XY
    wide = collection.sample_points(some, ["B10"], **options).combine_chunks().to_batches()[0]
    values = loadable(wide)["values"].to_pylist()
    missing = [record is None for record in wide["record_id"].to_pylist()]
    assert [bool(np.isnan(value).all()) for value in values] == missing and 10 <= sum(missing) < 50


@pytest.mark.parametrize("name, part", [("record:span", "out of extra_columns"), ("record:a b", "")])
def test_names_and_types_of_columns_of_the_collection(name: str, part: str) -> None:
    kind = pa.duration("s") if part else pa.int64()
    schema = pa.schema([pa.field(name, kind)])
    if part:
        with pytest.raises(InputError, match=rf"column '{name}' is duration\[s\].* leave it {part}"):
            bigquery_fields(schema)
    else:
        assert [field["name"] for field in bigquery_fields(schema)] == ["record_a_b"]


def test_names_that_become_equal() -> None:
    schema = pa.schema([("record:a:b", pa.int64()), ("record_a_b", pa.int64())])
    with pytest.raises(
        InputError, match=r"columns record:a:b, record_a_b have one name in BigQuery, where : and \. are _; rename"
    ):
        bigquery_fields(schema)
