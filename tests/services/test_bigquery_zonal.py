"""Zonal statistics in BigQuery: types, names and values, of the transform and of the command."""

from datetime import UTC
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from google.cloud import bigquery

from pipelines import zonal_statistics
from rasteret_beam import Collection, ReadPolygons, WriteZonalStatisticsToBigQuery, ZonalStatistics, metrics
from rasteret_beam.errors import InputError
from rasteret_beam.schema import kept_polygon_fields
from tests.support.commands import as_flags, execute
from tests.support.emulators import BUCKET, Proxy
from tests.support.pipelines import run

TEMP = f"gs://{BUCKET}/temp"
BANDS = ["B10", "B20"]
STATISTICS = ["count", "mean", "percentile_97.5", "variety"]


@pytest.fixture(scope="module")
def fields() -> pa.Table:
    """Six fields over the scenes, and one outside."""
    left = 500_000.0 + 700 * np.arange(7)
    shapes = shapely.box(left, 5_399_000.0, left + 150, 5_399_200.0)
    shapes[-1] = shapely.box(0, 0, 9, 9)
    return pa.table({"geometry": shapely.to_wkb(shapes), "crop": list("abcabca")})


def test_statistics_round_trip(scenes: Collection, fields: pa.Table, client: bigquery.Client, dataset: str) -> None:
    how = {"statistics": STATISTICS, "join": "left", "extra_columns": ["record:eo:cloud_cover"]}
    reading = ReadPolygons(fields, geometry_crs=32631)
    transform = ZonalStatistics(scenes, BANDS, **how)
    schema = scenes.zonal_schema(kept_polygon_fields(reading.polygon_columns().schema), transform.options)

    def build(pipeline: beam.Pipeline) -> None:
        rows = pipeline | reading | transform
        rows | WriteZonalStatisticsToBigQuery(f"{dataset}.t", schema=schema, temp_location=TEMP)

    counts = run(build)
    order = [(name, "ascending") for name in ("geometry_id", "record_id", "band")]
    wanted = scenes.zonal_statistics(fields, BANDS, geometry_crs=32631, **how).sort_by(order).to_pylist()
    for row in wanted:
        row["datetime"] = row["datetime"] and row["datetime"].replace(tzinfo=UTC)
        row["record_eo_cloud_cover"] = row.pop("record:eo:cloud_cover")
        row["percentile_97_5"] = row.pop("percentile_97.5")
    found = [
        dict(row) for row in client.query(f"SELECT * FROM `{dataset}.t` ORDER BY geometry_id, record_id, band").result()
    ]
    assert counts[metrics.ROWS_WRITTEN] == len(found) == len(wanted) > 30
    assert found == wanted
    table = client.get_table(f"{dataset}.t")
    assert {field.name: field.field_type for field in table.schema} == {
        "geometry_id": "INTEGER",
        "record_id": "STRING",
        "datetime": "TIMESTAMP",
        "collection": "STRING",
        "band": "STRING",
        "raster_crs": "INTEGER",
        "count": "INTEGER",
        "mean": "FLOAT",
        "percentile_97_5": "FLOAT",
        "variety": "INTEGER",
        "record_eo_cloud_cover": "FLOAT",
        "crop": "STRING",
    }
    assert table.clustering_fields == ["record_id", "band"]


def test_batches_of_other_columns_than_the_schema_given(scenes: Collection, fields: pa.Table, dataset: str) -> None:
    def build(pipeline: beam.Pipeline) -> None:
        rows = pipeline | ReadPolygons(fields, geometry_crs=32631) | ZonalStatistics(scenes, BANDS, match="latest")
        rows | WriteZonalStatisticsToBigQuery(f"{dataset}.t", temp_location=TEMP)

    with pytest.raises(Exception, match=r"crop .*; give schema=collection.zonal_schema\(kept columns, options\)"):
        run(build)


def test_a_column_that_the_rows_lack() -> None:
    with pytest.raises(InputError, match="cluster_by names column 'plot'; the rows have geometry_id, record_id"):
        WriteZonalStatisticsToBigQuery("p:d.t", cluster_by=["plot"])


@pytest.mark.usefixtures("same_signal_handlers")
def test_the_command(
    scenes: Collection, fields: pa.Table, client: bigquery.Client, dataset: str, proxy: Proxy, tmp_path: Path
) -> None:
    """A second run of the same name loads nothing; what cannot be loaded is refused before pixels are read."""
    scenes.export(tmp_path / "collection")
    pq.write_table(fields, tmp_path / "fields.parquet")
    asked = {
        "polygons": tmp_path / "fields.parquet",
        "geometry_crs": 32631,
        "collection": tmp_path / "collection",
        "bands": "B10",
        "match": "latest",
        "bigquery": f"{dataset.replace('.', ':')}.t",
        "temp_location": TEMP,
    }
    flags = as_flags(**asked, bq_run_id="one", unmatched=tmp_path / "left")
    done = execute(zonal_statistics.main, *flags)
    assert (done.code, done.err) == (0, "") and f"{dataset}.t" in done.out
    rows = next(iter(client.query(f"SELECT COUNT(*) AS n FROM `{dataset}.t`").result())).n
    assert done.figures["rows"] == rows == 6
    again = execute(zonal_statistics.main, *flags)
    assert again.code == 0 and "run one has its rows in" in again.out and len(proxy.loads()) == 1
    decoded = metrics.PROGRESS.snapshot().get(metrics.TILES_DECODED, 0)
    other = execute(zonal_statistics.main, *as_flags(**asked, statistics="median"))
    assert other.code == 1 and "median (FLOAT) is not in the table" in other.err
    assert metrics.PROGRESS.snapshot().get(metrics.TILES_DECODED, 0) == decoded
