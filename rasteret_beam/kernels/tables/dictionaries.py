"""Text columns as Arrow dictionaries, which Parquet's writer takes without hashing each row."""

from collections.abc import Container, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

TEXT = pa.dictionary(pa.int32(), pa.string())


class DictionaryEncoder:
    """Encodes the text columns of batches; a column that several batches share is encoded once.

    The bands of a record share the columns of their points, and batches share columns with one value.
    It holds what it encoded, so use one for a few batches.
    """

    def __init__(self) -> None:
        self._encoded: dict[tuple[int, ...], pa.DictionaryArray] = {}
        self._constant: dict[tuple[int, ...], tuple[int, int, pa.Array]] = {}
        self._held: list[pa.Array] = []

    def encode(self, column: pa.ChunkedArray) -> pa.ChunkedArray:
        """A column of type string with one dictionary for all of its chunks."""
        chunks = [self._chunk(chunk) for chunk in column.chunks]
        return pa.chunked_array(chunks, type=TEXT).unify_dictionaries()

    def _chunk(self, chunk: pa.Array) -> pa.DictionaryArray:
        buffers = tuple(0 if buffer is None else buffer.address for buffer in chunk.buffers())
        start, stop = chunk.offset, chunk.offset + len(chunk)
        known = self._constant.get(buffers)
        if known is not None and known[0] <= start and stop <= known[1]:
            return _constant(known[2], len(chunk))
        if _is_constant(chunk):
            self._held.append(chunk)
            self._constant[buffers] = start, stop, chunk.slice(0, 1)
            return _constant(chunk.slice(0, 1), len(chunk))
        key = (*buffers, start, stop)
        if key not in self._encoded:
            self._held.append(chunk)
            self._encoded[key] = chunk.dictionary_encode()
        return self._encoded[key]


def as_dictionaries(batches: Sequence[pa.RecordBatch], names: Container[str]) -> pa.Table:
    """Batches of one schema as a table, in which text columns of these names are dictionaries."""
    encoder = DictionaryEncoder()
    table = pa.Table.from_batches(batches)
    columns = [
        encoder.encode(column) if _is_text(field) and field.name in names else column
        for field, column in zip(table.schema, table.columns, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=with_dictionaries(table.schema, names))


def with_dictionaries(schema: pa.Schema, names: Container[str]) -> pa.Schema:
    """The schema of :func:`as_dictionaries`."""
    fields = [field.with_type(TEXT) if _is_text(field) and field.name in names else field for field in schema]
    return pa.schema(fields, schema.metadata)


def _is_text(field: pa.Field) -> bool:
    return bool(field.type == pa.string())


def _is_constant(chunk: pa.Array) -> bool:
    if not len(chunk) or chunk.null_count or chunk[0] != chunk[-1]:
        return False
    return bool(pc.all(pc.equal(chunk, chunk[0])).as_py())


def _constant(value: pa.Array, rows: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(_zeros(1 << (rows - 1).bit_length()).slice(0, rows), value, safe=False)


@lru_cache(maxsize=32)
def _zeros(rows: int) -> pa.Array:
    return pa.array(np.zeros(rows, dtype=np.int32))
