"""Jobs of zonal statistics in tests: running them, and reading what they write."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq

from rasteret_beam import Collection, ReadPolygons, WriteZonalStatisticsToParquet, ZonalOutputs, ZonalStatistics
from rasteret_beam.schema import ZONAL_DEAD_LETTER_SCHEMA, kept_polygon_fields, unmatched_schema
from tests.support.pipelines import run

ORDER = [(name, "ascending") for name in ("geometry_id", "datetime", "record_id", "band")]


def zones_of(prefix: Path) -> pa.Table:
    """The rows of an output, in order."""
    table = table_of(prefix)
    return table.sort_by([(name, how) for name, how in ORDER if name in table.column_names])


def table_of(prefix: Path) -> pa.Table:
    files = sorted(prefix.parent.glob(f"{prefix.name}-*-of-*.parquet"))
    return pa.concat_tables(pq.read_table(file) for file in files)


def zonal(
    collection: Collection,
    polygons: Any,
    bands: Sequence[str],
    prefix: Path,
    options: list[str] | None = None,
    **how: Any,
) -> dict[str, int]:
    """Make statistics into files, and beside them unmatched polygons and dead letters; gives the counters."""
    reading = ReadPolygons(polygons, geometry_crs=32631, time_column=how.get("time_column"))
    kept = kept_polygon_fields(reading.polygon_columns().schema)

    def build(pipeline: beam.Pipeline) -> None:
        transform = ZonalStatistics(collection, bands, with_unmatched=True, **how)
        write(pipeline | reading | transform, prefix, collection.zonal_schema(kept, transform.options), kept)

    return run(build, options)


def write(found: Any, prefix: Path, schema: pa.Schema, kept: Sequence[pa.Field] = ()) -> None:
    """Write the outputs of a transform."""
    found = found if isinstance(found, ZonalOutputs) else ZonalOutputs(found)
    sinks = {
        "statistics": (str(prefix), schema),
        "unmatched": (f"{prefix}_left", unmatched_schema(kept)),
        "dead_letters": (f"{prefix}_dead", ZONAL_DEAD_LETTER_SCHEMA),
    }
    for name, (place, columns) in sinks.items():
        rows = getattr(found, name)
        if rows is not None:
            rows | f"Write {name}" >> WriteZonalStatisticsToParquet(place, schema=columns)
