"""How each column of a table is stored in Parquet, measured on some of its rows.

Encodings are plain and dictionary only, because all readers of Parquet support these.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

STRETCHES = 64
GOLDEN = (5**0.5 - 1) / 2
SAMPLE_ROWS, SAMPLE_BYTES = 1 << 16, 8 << 20
"""Rows that are measured: values are counted in stretches of rows, pages are compressed from consecutive rows."""

DICTIONARY_BYTES = 1 << 20
"""Size of a dictionary above which pyarrow's writer gives it up."""

LEAST_GAIN = 0.2
"""Fraction of its bytes that a dictionary or compression has to save."""

STEADY = 1.5
"""A column has a limited number of values if twice the rows have less than so many times the values."""


@dataclass(frozen=True)
class ColumnStorage:
    """Settings of a Parquet writer.

    Attributes
    ----------
    dictionary : list of str
        Paths of the columns with dictionary encoding.
    compression : {path: codec}
        For all columns; ``NONE`` where the codec saves too little.
    """

    dictionary: list[str]
    compression: dict[str, str]


def column_storage(rows: pa.Table, codec: str) -> ColumnStorage:
    """Choose the storage of each column of a row group.

    Parameters
    ----------
    rows : Table
        At least one row.
    codec : str
        Compression where it saves bytes; as for :class:`pyarrow.parquet.ParquetWriter`.
    """
    length = min(len(rows), SAMPLE_ROWS, max(STRETCHES, SAMPLE_BYTES * len(rows) // max(1, rows.nbytes)))
    sample = _stretches(rows, length)
    leaves = [leaf for column in sample.columns for leaf in _leaves(column.combine_chunks())]
    paths = _paths(rows.schema)
    dictionary = [path for path, leaf in zip(paths, leaves, strict=True) if _repeats(leaf, len(rows) / len(sample))]
    group = _written(rows.slice(0, length), codec, dictionary).row_group(0)
    compression = {}
    for number, path in enumerate(paths):
        stored = group.column(number)
        pays = stored.total_compressed_size <= (1 - LEAST_GAIN) * stored.total_uncompressed_size
        compression[path] = codec if pays else "NONE"
    return ColumnStorage(dictionary, compression)


def _stretches(rows: pa.Table, length: int) -> pa.Table:
    """Stretches of rows, ``length`` rows in all, or all rows if there are not many more.

    Their distances differ, as the same points repeat at equal ones: for each band.
    """
    each = length // STRETCHES
    if len(rows) < 2 * length:
        return rows
    starts = [int((len(rows) - each) * (number * GOLDEN % 1)) for number in range(STRETCHES)]
    return pa.concat_tables([rows.slice(start, each) for start in starts])


def _paths(schema: pa.Schema) -> list[str]:
    """Paths of the leaf columns, as Parquet names them."""
    stored = _written(schema.empty_table(), "NONE", []).schema
    return [stored.column(number).path for number in range(len(stored))]


def _written(rows: pa.Table, codec: str, dictionary: Sequence[str]) -> pq.FileMetaData:
    """Metadata of the rows as a file with one row group."""
    file = pa.BufferOutputStream()
    pq.write_table(
        rows, file, row_group_size=len(rows) or None, compression=codec, use_dictionary=dictionary, store_schema=False
    )
    return pq.read_metadata(pa.BufferReader(file.getvalue()))


def _leaves(column: pa.Array) -> Iterator[pa.Array]:
    """The leaf columns of a column, in Parquet's order."""
    kind = column.type
    if isinstance(column, pa.ExtensionArray):
        yield from _leaves(column.storage)
    elif pa.types.is_map(kind):
        yield from _leaves(column.keys)
        yield from _leaves(column.items)
    elif pa.types.is_struct(kind):
        for part in column.flatten():
            yield from _leaves(part)
    elif pa.types.is_nested(kind):
        yield from _leaves(column.flatten())
    else:
        yield column


def _repeats(values: pa.Array, scale: float) -> bool:
    """Whether a dictionary saves bytes for ``scale`` times as many values of this kind."""
    kind = values.type
    if pa.types.is_dictionary(kind) or kind in (pa.string_view(), pa.binary_view()):  # pyarrow does not count views
        return True
    if not len(values) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return False
    distinct = pc.count_distinct(values).as_py()
    if distinct >= STEADY * pc.count_distinct(values.slice(0, len(values) // 2)).as_py():
        distinct *= scale
    plain = values.nbytes * scale
    dictionary = distinct * values.nbytes / len(values)
    indices = len(values) * scale * _index_bits(distinct) / 8
    return dictionary <= DICTIONARY_BYTES and dictionary + indices <= (1 - LEAST_GAIN) * plain


def _index_bits(distinct: float) -> int:
    return max(0, int(distinct) - 1).bit_length()
