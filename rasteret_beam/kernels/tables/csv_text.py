"""Columns of a table as CSV holds them: numbers and text; all else as text in a form that other programs read.

Times are in ISO 8601, lists and structs JSON, geometries WKT, other binary values hexadecimal, durations seconds.
"""

import json
import os
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely

from rasteret_beam.kernels.tables.geoparquet import is_geometry, storage_of

OUTPUT_ENDINGS = (".csv", ".csv.gz")

PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}

Kind = tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], pa.Array]]


def is_csv(path: str | os.PathLike[str]) -> bool:
    """Whether a path is that of a CSV file to write."""
    return os.fspath(path).lower().endswith(OUTPUT_ENDINGS)


def csv_batch(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch in which every column is one that :mod:`pyarrow.csv` writes."""
    columns = [
        _wkt(storage_of(column)) if is_geometry(field) else _plain(column)
        for field, column in zip(batch.schema, batch.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def csv_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of :func:`csv_batch`."""
    return csv_batch(pa.RecordBatch.from_pylist([], schema=schema)).schema


def csv_batches(batches: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """The same of several batches."""
    return [csv_batch(batch) for batch in batches]


def _plain(column: pa.Array) -> pa.Array:
    if isinstance(column, pa.ExtensionArray):
        return _plain(column.storage)
    if isinstance(column, pa.DictionaryArray):
        return _plain(column.dictionary_decode())
    return next((make(column) for matches, make in KINDS if matches(column.type)), column)


def json_text(column: pa.Array) -> pa.Array:
    """JSON of the values of a column of any type, as strings; ``null`` for null and for numbers that are not finite."""
    kind = column.type
    if isinstance(column, pa.ExtensionArray):
        return json_text(column.storage)
    if isinstance(column, pa.DictionaryArray):
        return json_text(column.dictionary_decode())
    if pa.types.is_struct(kind):
        text = _json_of_struct(column)
    elif pa.types.is_nested(kind):
        text = _json_of_lists(column)
    elif pa.types.is_floating(kind):
        number = column.cast(pa.float32()) if kind == pa.float16() else column
        text = pc.if_else(pc.is_finite(number), number.cast(pa.string()), pa.scalar(None, pa.string()))
    elif pa.types.is_duration(kind):
        text = _durations(column).cast(pa.string())
    elif pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_decimal(kind):
        text = column.cast(pa.string())
    else:
        text = _quoted(_plain(column).cast(pa.string()))
    return pc.fill_null(text, "null")


def _quoted(text: pa.Array) -> pa.Array:
    """Strings in quotes; each distinct one is escaped once."""
    coded = text.dictionary_encode()
    escaped = [json.dumps(each, ensure_ascii=False) for each in coded.dictionary.to_pylist()]
    return pa.array(escaped, pa.string()).take(coded.indices)


def _json_of_struct(column: pa.Array) -> pa.Array:
    parts = []
    for field, values in zip(column.type, column.flatten(), strict=True):
        name = json.dumps(field.name, ensure_ascii=False)
        parts.append(pc.binary_join_element_wise(name, json_text(values), ":"))
    inside = pc.binary_join_element_wise(*parts, ",") if parts else pa.repeat("", len(column))
    return _enclosed("{", inside, "}", column)


def _json_of_lists(column: pa.Array) -> pa.Array:
    """Lists of any kind; maps as lists of structs."""
    if pa.types.is_map(column.type):
        entries = pa.struct([("key", column.type.key_type), ("value", column.type.item_type)])
        column = column.cast(pa.list_(entries))
    kind = column.type.value_type
    if not pa.types.is_list(column.type):  # of a fixed size, or large
        column = column.cast(pa.list_(kind))
    sizes = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))
    lists = pa.ListArray.from_arrays(offsets, json_text(column.flatten()))
    return _enclosed("[", pc.binary_join(lists, ","), "]", column)


def _enclosed(first: str, inside: pa.Array, last: str, column: pa.Array) -> pa.Array:
    text = pc.binary_join_element_wise(first, inside, last, "")
    return pc.if_else(column.is_valid(), text, pa.scalar(None, pa.string()))


def _json_or_null(column: pa.Array) -> pa.Array:
    return pc.if_else(column.is_valid(), json_text(column), pa.scalar(None, pa.string()))


def _timestamps(column: pa.Array) -> pa.Array:
    """``2023-06-01T10:30:00``; UTC with ``Z`` if the column has a zone; fractions of seconds where there are some."""
    if column.type.tz is not None:
        column = column.cast(pa.timestamp(column.type.unit, "UTC"))
    return _whole_seconds(pc.replace_substring(column.cast(pa.string()), " ", "T", max_replacements=1))


def _whole_seconds(text: pa.Array) -> pa.Array:
    """Times without fractions of seconds that are 0."""
    return pc.replace_substring_regex(text, r"\.0+(Z?)$", r"\1")


def _durations(column: pa.Array) -> pa.Array:
    # Not safe: more than 2**53 nanoseconds (104 days) are rounded.
    return pc.divide(column.cast(pa.int64()).cast(pa.float64(), safe=False), PER_SECOND[column.type.unit])


def _hexadecimal(column: pa.Array) -> pa.Array:
    """Two digits for each byte."""
    column = column.cast(pa.large_binary())
    _, offsets, data = column.buffers()
    starts = np.frombuffer(offsets, np.int64)[column.offset : column.offset + len(column) + 1]
    digits = data[starts[0] : starts[-1]].to_pybytes().hex().encode() if data is not None else b""
    mask = (
        None
        if not column.null_count
        else pa.py_buffer(np.packbits(column.is_valid().to_numpy(zero_copy_only=False), bitorder="little"))
    )
    buffers = [mask, pa.py_buffer((starts - starts[0]) * 2), pa.py_buffer(digits)]
    return pa.Array.from_buffers(pa.large_string(), len(column), buffers)


def _wkt(wkb: pa.Array) -> pa.Array:
    shapes = shapely.from_wkb(wkb.to_numpy(zero_copy_only=False))
    return pa.array(shapely.to_wkt(shapes, rounding_precision=-1), pa.string(), from_pandas=True)


def _is_binary(kind: pa.DataType) -> bool:
    return (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or (kind == pa.binary_view())
    )


def _as_text(column: pa.Array) -> pa.Array:
    return column.cast(pa.string())


KINDS: tuple[Kind, ...] = (
    (pa.types.is_timestamp, _timestamps),
    (pa.types.is_duration, _durations),
    (pa.types.is_temporal, lambda column: _whole_seconds(column.cast(pa.string()))),
    (pa.types.is_null, _as_text),
    (lambda kind: kind == pa.float16(), lambda column: column.cast(pa.float32())),
    (lambda kind: kind == pa.string_view(), _as_text),
    (_is_binary, _hexadecimal),
    (pa.types.is_nested, _json_or_null),
)
"""How columns become others that CSV holds, by the first that applies; the rest stay as they are."""
