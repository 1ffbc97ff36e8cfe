"""Rows as batches."""

from dataclasses import KW_ONLY, dataclass
from typing import Any

import apache_beam as beam
import pyarrow as pa

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam.errors import InputError
from rasteret_beam.transforms.rows.batching import BatchRowsFn
from rasteret_beam.transforms.rows.known import with_schema
from rasteret_beam.transforms.rows.types import arrow_schema, beam_schema

BATCH_ROWS = 16_384


@dataclass(eq=False)
class ToBatches(beam.PTransform):
    """Turn rows into Arrow batches: Beam Rows, NamedTuples or dicts.

    A batch has rows of one bundle, one window and one time, so it keeps the windows and the times of its rows. If each
    row of a stream has another time, batches have one row; for points use :class:`PointBatches`, which gives a batch
    the earliest time of its rows.

    Parameters
    ----------
    schema : pyarrow.Schema, optional
        Columns and types of the batches. Without it, rows of :class:`ToRows` become batches with the schema that they
        came from, and other rows with that of the PCollection. Dicts, and rows with decimals, need it. ISO 8601 text
        becomes times and dates where the schema has them.
    batch_rows : int
        Maximum number of rows of a batch; fewer if their texts, bytes and lists reach 16 MB.

    Yields
    ------
    RecordBatch

    Raises
    ------
    InputError
        When applied: the schema is not known, or has a type without an Arrow type. While running: a row lacks a column
        of the schema, or a value does not fit it without loss.
    """

    schema: pa.Schema | None = None
    _: KW_ONLY
    batch_rows: int = BATCH_ROWS

    def __post_init__(self) -> None:
        if self.schema is not None and not isinstance(self.schema, pa.Schema):
            raise InputError(f"schema is a {type(self.schema).__name__}; give a pyarrow.Schema")
        if isinstance(self.batch_rows, bool) or not isinstance(self.batch_rows, int) or self.batch_rows < 1:
            raise InputError(f"batch_rows is {self.batch_rows!r}; it has to be a whole number, 1 or more")

    def expand(self, rows: beam.PCollection) -> beam.PCollection[pa.RecordBatch]:
        schema = self.schema if self.schema is not None else schema_of_rows(rows.element_type, "the PCollection")
        batching = BatchRowsFn(schema, self.batch_rows, by_time=True, what="the rows")
        return with_schema(rows | "Batch" >> beam.ParDo(batching).with_output_types(pa.RecordBatch), schema)


def schema_of_rows(element_type: Any, what: str) -> pa.Schema:
    """The Arrow schema of Beam Rows and NamedTuples.

    Raises
    ------
    InputError
        The elements have no schema, or one with a type that Arrow lacks.
    """
    found = beam_schema(element_type)
    if found is None:
        raise InputError(f"elements of {what} are {element_type}, whose columns are unknown; give schema=")
    try:
        return arrow_schema(found)
    except InputError as error:
        raise InputError(f"{error}; give schema=") from error
