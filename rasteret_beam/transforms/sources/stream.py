"""Turn a stream of points, as rows or Arrow batches, into batches of points with ids from the data."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindows

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.geo.crs import same_crs
from rasteret_beam.kernels.tables.point_columns import PointColumns, choose_columns, point_batch
from rasteret_beam.kernels.tables.point_geometry import data_crs
from rasteret_beam.transforms.rows.batching import BatchRowsFn
from rasteret_beam.transforms.rows.known import schema_of, with_schema
from rasteret_beam.transforms.rows.to_batches import schema_of_rows

SOURCE = "the stream of points"


@dataclass(eq=False)
class PointBatches(beam.PTransform):
    """Turn rows or Arrow batches of a stream (or another input) into batches of points.

    A batch has the rows of one bundle and window, and the earliest timestamp of its rows. An Arrow batch stays one
    batch with its window and timestamp, without Python code per point; prefer Arrow batches if the source allows them.

    Parameters
    ----------
    index_column : str
        Whole numbers that become ``point_index``. They must be unique and the same when a message is delivered again:
        an id in the data, or one from its position in the source (such as ``partition << 48 | offset``), never a
        counter, the time or a random number.
    x_column, y_column, geometry_column, geometry_crs, columns : optional
        As in :class:`rasteret_beam.ReadPoints`.
    schema : pyarrow.Schema, optional
        Columns and types of dicts or Arrow batches. Beam Rows and NamedTuples have their own.
    batch_rows : int
        Maximum number of rows of a batch.

    Yields
    ------
    RecordBatch
        As in :class:`rasteret_beam.ReadPoints`.

    Raises
    ------
    InputError
        When applied: a column, the CRS or the schema is missing, or rows of a stream have no windows. While running: a
        batch has other columns than the schema or geometries in another CRS, a row does not fit the schema, or an id is
        null.
    """

    index_column: str
    _: KW_ONLY
    x_column: str | None = None
    y_column: str | None = None
    geometry_column: str | None = None
    geometry_crs: Any = None
    columns: Sequence[str] | None = None
    schema: pa.Schema | None = None
    batch_rows: int = 16_384

    def point_columns(self, schema: pa.Schema) -> PointColumns:
        """The columns with the points, and the schema of the output batches."""
        return choose_columns(
            schema,
            x_column=self.x_column,
            y_column=self.y_column,
            geometry_column=self.geometry_column,
            geometry_crs=self.geometry_crs,
            columns=self.columns,
            index_column=self.index_column,
            source=SOURCE,
        )

    def expand(self, rows: beam.PCollection) -> beam.PCollection[pa.RecordBatch]:
        schema = self.schema or schema_of(rows)
        if schema is None:
            schema = schema_of_rows(rows.element_type, SOURCE)
        chosen = self.point_columns(schema)
        batches = rows
        if rows.element_type is not pa.RecordBatch:
            if not rows.is_bounded and isinstance(rows.windowing.windowfn, GlobalWindows):
                raise InputError(
                    f"rows of {SOURCE} are in the global window, so a batch would have one timestamp for points of "
                    "many windows; window them first, for example with beam.WindowInto(beam.window.FixedWindows(60))"
                )
            batching = BatchRowsFn(schema, self.batch_rows, by_time=False, what=SOURCE)
            batches = rows | "Batch" >> beam.ParDo(batching).with_output_types(pa.RecordBatch)
        points = batches | "Points" >> beam.Map(_points, schema, chosen).with_output_types(pa.RecordBatch)
        return with_schema(points, chosen.schema)


@lru_cache(maxsize=64)
def _crs_of(schema: bytes, geometry: str) -> str | None:
    return data_crs(pa.ipc.read_schema(pa.py_buffer(schema)), geometry)


def _check_crs(batch: pa.RecordBatch, chosen: PointColumns) -> None:
    found = _crs_of(batch.schema.serialize().to_pybytes(), chosen.geometry) if chosen.geometry is not None else None
    if found is not None and not same_crs(found, chosen.crs):
        raise InputError(
            f"column {chosen.geometry!r} of a batch of {SOURCE} is in {found}, but its points are expected in "
            f"{chosen.crs}; use one PointBatches per CRS"
        )


def _points(batch: pa.RecordBatch, schema: pa.Schema, chosen: PointColumns) -> pa.RecordBatch:
    for name in chosen.needed:
        wanted, places = schema.field(name).type, batch.schema.get_all_field_indices(name)
        if len(places) != 1 or batch.schema.field(name).type != wanted:
            raise InputError(
                f"a batch of {SOURCE} should have one column {name!r} of type {wanted}; it has "
                f"{listed(f'{field.name} ({field.type})' for field in batch.schema)}"
            )
    _check_crs(batch, chosen)
    return point_batch(batch, 0, chosen)
