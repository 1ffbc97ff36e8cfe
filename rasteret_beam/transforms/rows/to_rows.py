"""Batches as rows."""

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import apache_beam as beam
import pyarrow as pa

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam.errors import InputError, listed
from rasteret_beam.transforms.rows.columns import python_values, text_times, with_text_times
from rasteret_beam.transforms.rows.known import schema_of
from rasteret_beam.transforms.rows.types import plain, row_class, row_schema

TIMES = ("instant", "nanos", "text")

SLICE_ROWS = 4096
"""Rows that are made at a time: a batch of a million points is not held as Python objects."""


@dataclass(eq=False)
class ToRows(beam.PTransform):
    """Turn batches into Beam Rows with a schema, which SqlTransform, ``Map(lambda row: row.value)``, WriteToJson and
    Beam YAML understand.

    Rows are per row by nature: they cost about 50 times as much as batches in a shuffle. Keep batches as long as
    possible, and choose columns before.

    A row is the NamedTuple that Beam makes for the schema, with the columns of the batch as attributes. Timestamps are
    ``apache_beam.utils.timestamp.Timestamp``, an instant of UTC where the column has no zone; dates ``datetime.date``,
    decimals ``Decimal``, structs NamedTuples, maps dicts. Whole numbers of 8 bits become INT16 and unsigned ones the
    next larger type. A name that cannot be that of an attribute is changed: ``record:eo:cloud_cover`` is
    ``record_eo_cloud_cover``, ``2023`` is ``c2023``, ``class`` is ``class_``. :class:`ToBatches` gives the same batches
    again.

    Parameters
    ----------
    schema : pyarrow.Schema, optional
        Schema of the batches. Without it, that of the transform which made them: ReadPoints, PointBatches,
        ReadPolygons, SamplePoints, ReadChips and ZonalStatistics know it, of each output, also before a WindowInto,
        a Reshuffle or a Flatten. It is needed where points or polygons come from a transform of yours.
    times : "instant", "nanos" or "text"
        What timestamps become: Beam's instants in microseconds, where a value with nanoseconds is an error; for columns
        in nanoseconds Beam's type with that precision, which few of its transforms know; or, as dates too, ISO 8601
        text, for sinks that write JSON, into which instants do not go. Text of those with a zone is in UTC and ends in
        Z.

    Yields
    ------
    Row
        One for each row of a batch, in its window and at its time.

    Raises
    ------
    InputError
        When applied: the schema is not known; or a column has a type that Beam's rows lack: unsigned 64-bit integers,
        times of day, durations, intervals, columns of nulls alone. While running: a batch has other columns than the
        schema; or a value does not fit, such as a decimal of more than 28 digits.
    """

    schema: pa.Schema | None = None
    _: KW_ONLY
    times: Literal["instant", "nanos", "text"] = "instant"

    def __post_init__(self) -> None:
        if self.times not in TIMES:
            raise InputError(f"times is {self.times!r}; it can be one of {TIMES}")
        if self.schema is not None and not isinstance(self.schema, pa.Schema):
            raise InputError(f"schema is a {type(self.schema).__name__}; give a pyarrow.Schema")

    def expand(self, batches: beam.PCollection) -> beam.PCollection[Any]:
        schema = self.schema if self.schema is not None else schema_of(batches)
        if schema is None:
            raise InputError(
                "the columns of the batches are not known, as they come from a step that does not say; give them with "
                "ToRows(schema=...)"
            )
        making = _RowsFn(schema, self.times)
        return batches | "Rows" >> beam.ParDo(making).with_output_types(making.row_class())


class _RowsFn(beam.DoFn):
    """The class of the rows has no name that a pickle could find, so it is made on the worker."""

    def __init__(self, schema: pa.Schema, times: str = "instant"):
        self.schema = schema
        self.as_text = times == "text"
        self.nanos = times == "nanos"

    def row_class(self) -> Any:
        return row_class(row_schema(with_text_times(self.schema) if self.as_text else self.schema, self.nanos))

    def setup(self) -> None:
        self.make = self.row_class()._make

    def process(self, batch: pa.RecordBatch) -> Iterator[Any]:
        check_columns(batch.schema, self.schema)
        for start in range(0, len(batch), SLICE_ROWS):
            part = batch.slice(start, SLICE_ROWS)
            columns = [self._values(part, name) for name in self.schema.names]
            yield from map(self.make, zip(*columns, strict=True))

    def _values(self, batch: pa.RecordBatch, name: str) -> list[Any]:
        column = batch.column(name)
        try:
            return python_values(text_times(column) if self.as_text else column, self.nanos)
        except InputError as error:
            raise InputError(f"column {name!r} ({column.type}) cannot become rows: {error}") from error


def check_columns(found: pa.Schema, wanted: pa.Schema) -> None:
    """Refuse a batch with other columns; a dictionary may stand for its values.

    Raises
    ------
    InputError
    """
    if found.equals(wanted):
        return
    columns = {field.name: plain(field.type) for field in found}
    if columns != {field.name: plain(field.type) for field in wanted} or len(found) != len(wanted):
        raise InputError(
            f"a batch has the columns {listed(f'{field.name} ({field.type})' for field in found)}; expected "
            f"{listed(f'{field.name} ({field.type})' for field in wanted)}"
        )
