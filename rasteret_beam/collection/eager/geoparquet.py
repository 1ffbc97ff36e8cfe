"""Write samples that an eager call returns to a GeoParquet file."""

import os
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from rasteret_beam.columns import GEOMETRY
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.tables.geoparquet import GeoSummary, check_geometry, geo_batches, has_geometry
from rasteret_beam.readers.storage.local_files import writing
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.readers.storage.stores import absolute
from rasteret_beam.readers.tiles.budget import ROW_GROUP_BYTES, ROW_GROUP_ROWS


def write_geoparquet(
    samples: Any,
    path: str | os.PathLike[str],
    *,
    geometry: Literal["point", "pixel"] | None = None,
    compression: str = "zstd",
) -> None:
    """Write samples to one GeoParquet 1.1 file, as :class:`rasteret_beam.WriteSamplesToParquet` does in a pipeline.

    An earlier file is replaced when the new one is complete.

    Parameters
    ----------
    samples : Table, RecordBatchReader, or anything with an Arrow C stream
        Of :meth:`Collection.sample_points`, :meth:`Collection.sample_batches` (row by row group, in bounded memory) or
        :meth:`Collection.zonal_statistics`, with the column ``geometry`` that their option of this name adds.
    path : str or pathlib.Path
        On a local disk.
    geometry : "point" or "pixel", optional
        What the geometry is to be. "point" makes that of samples without one.
    compression : str

    Raises
    ------
    InputError
        The rows have no geometry, or a column has the name of one that is added.
    OutputError
        The file cannot be written.
    """
    check_geometry(geometry)
    place = absolute(path)
    if Location.of(place).is_remote:
        raise InputError(f"path is {os.fspath(path)!r}; write a local file, or use WriteSamplesToParquet in a pipeline")
    reader = pa.RecordBatchReader.from_stream(samples)
    schema = geo_batches([pa.RecordBatch.from_pylist([], schema=reader.schema)], geometry)[0].schema
    if not has_geometry(schema):
        raise InputError(
            f'the rows have no column {GEOMETRY!r} of WKB with a CRS; sample with geometry="point" or '
            'geometry="pixel", or give geometry="point" here'
        )
    fresh = f"{place}.{uuid.uuid4().hex[:8]}.part"
    try:
        with writing(place):
            _write(reader, schema, fresh, geometry, compression)
            os.replace(fresh, place)
    finally:
        with suppress(FileNotFoundError):
            os.remove(fresh)


def _write(reader: pa.RecordBatchReader, schema: pa.Schema, path: str, geometry: str | None, compression: str) -> None:
    summary = GeoSummary.of(schema)
    assert summary is not None
    with pq.ParquetWriter(path, schema, compression=compression) as writer:
        for group in _row_groups(reader):
            batches = geo_batches(group, geometry)
            summary.add(batches)
            writer.write_table(pa.Table.from_batches(batches, schema), ROW_GROUP_ROWS)
        writer.add_key_value_metadata(summary.metadata())


def _row_groups(reader: pa.RecordBatchReader) -> Iterator[list[pa.RecordBatch]]:
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in reader:
        for start in range(0, len(batch), ROW_GROUP_ROWS):
            held.append(batch.slice(start, ROW_GROUP_ROWS))
            rows, size = rows + len(held[-1]), size + held[-1].nbytes
            if rows >= ROW_GROUP_ROWS or size >= ROW_GROUP_BYTES:
                yield held
                held, rows, size = [], 0, 0
    if held:
        yield held
