"""Rows of a bundle as batches of bounded size."""

from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.utils.windowed_value import WindowedValue

from rasteret_beam.errors import InputError
from rasteret_beam.transforms.rows.columns import array_of, field_values
from rasteret_beam.transforms.rows.types import is_list, plain, row_name

BATCH_BYTES = 16 << 20
"""Of the texts, bytes and lists of the rows that wait for a batch."""


class BatchRowsFn(beam.DoFn):
    """Combine the rows of a bundle by window, and by time too if batches are to keep that of each row.

    Parameters
    ----------
    schema : pyarrow.Schema
    most : int
        Rows of a batch.
    by_time : bool
        A batch has rows of one time; otherwise it has the earliest time of its rows.
    what : str
        What the rows are, for errors.
    """

    def __init__(self, schema: pa.Schema, most: int, by_time: bool, what: str):
        self.schema = schema
        self.most = most
        self.by_time = by_time
        self.what = what

    def start_bundle(self) -> None:
        self._held: dict[Any, list[Any]] = {}
        self._earliest: dict[Any, Any] = {}
        self._rows = self._bytes = 0
        self._sized = [row_name(field.name) for field in self.schema if _is_sized(plain(field.type))]

    def process(
        self, row: Any, time: Any = beam.DoFn.TimestampParam, window: Any = beam.DoFn.WindowParam
    ) -> Iterator[WindowedValue]:
        key = (window, time) if self.by_time else (window, None)
        self._held.setdefault(key, []).append(row)
        self._earliest[key] = min(time, self._earliest.get(key, time))
        self._rows += 1
        self._bytes += self._size(row)
        if self._rows >= self.most or self._bytes >= BATCH_BYTES:
            yield from self.finish_bundle()

    def _size(self, row: Any) -> int:
        values = (getattr(row, name, None) for name in self._sized)
        return sum(8 * len(value) if isinstance(value, list) else len(value) for value in values if value is not None)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        for key, rows in self._held.items():
            yield WindowedValue(as_batch(rows, self.schema, self.what), self._earliest[key], (key[0],))
        self.start_bundle()


def _is_sized(kind: pa.DataType) -> bool:
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_string, pa.types.is_large_string)
    return is_list(kind) or any(test(kind) for test in tests)


def as_batch(rows: Sequence[Any], schema: pa.Schema, what: str) -> pa.RecordBatch:
    """Dicts, Beam Rows or NamedTuples as an Arrow batch; missing keys of a dict are null.

    Raises
    ------
    InputError
        A value does not fit the type of its column, or a row other than a dict lacks a column.
    """
    try:
        columns = field_values(rows, list(schema))
    except AttributeError as error:
        raise InputError(
            f"{what} has a {type(error.obj).__name__} without {error.name!r}; give dicts, Beam Rows or NamedTuples "
            "with the columns of the schema, or Arrow batches, as .with_output_types(pa.RecordBatch)"
        ) from error
    arrays = [_array(values, field, what) for values, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(values: Sequence[Any], field: pa.Field, what: str) -> pa.Array:
    try:
        made = array_of(values, field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError) as error:
        raise InputError(f"column {field.name!r} of {what} should be {field.type}: {error}") from error
    if made.null_count and not field.nullable:
        raise InputError(f"column {field.name!r} of {what} has a null, but its schema says that it has none")
    return made
