"""Checksums of table rows that do not depend on row order, row groups or encodings.

Each row gets a 32-bit multilinear hash modulo 2**64 (Lemire and Kaser, "Strongly universal string hashing is fast",
2014) with fixed weights. It detects damage, not forgery. Equal values give equal checksums in every integer, float,
string, list and timestamp width, and a missing column counts as nulls, so the checksums survive a rewrite by another
Arrow tool.
"""

import zlib
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasteret_beam.kernels.geo.grids import Ints

Words = NDArray[np.uint64]

NULL, VALID = np.uint64(0), np.uint64(0x9E3779B97F4A7C15)
FIRST_WEIGHTS = 1 << 10


def row_checksums(columns: Mapping[str, pa.Array]) -> NDArray[np.int32]:
    """Checksums [n] of the rows of named columns of ``n`` values, independent of the order of columns.

    Raises
    ------
    ArrowNotImplementedError, ArrowInvalid
        A column has a type that does not occur in a collection's index.
    """
    return (_row_words(columns) >> np.uint64(32)).astype(np.uint32).view(np.int32)


def _row_words(columns: Mapping[str, pa.Array]) -> Words:
    total = sum(_words(column) * _weight_of(name) for name, column in columns.items())
    return _mixed(np.asarray(total, dtype=np.uint64))


def _words(column: pa.Array) -> Words:
    """A number for each value, :data:`NULL` for nulls."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _taken(_words(column.dictionary), column.indices)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        encoded = pc.dictionary_encode(column.cast(pa.large_string()))
        return _taken(_text_words(encoded.dictionary), encoded.indices)
    if pa.types.is_struct(kind):
        return _where_valid(column, _struct_words(column))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _where_valid(column, _list_words(column))
    return _where_valid(column, _number_words(column))


def _number_words(column: pa.Array) -> Words:
    kind = column.type
    if pa.types.is_null(kind):
        return np.zeros(len(column), dtype=np.uint64)
    if pa.types.is_timestamp(kind):
        column = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    values = (pc.fill_null(column, 0) if column.null_count else column).to_numpy(zero_copy_only=False)
    if values.dtype.kind == "f":
        values = values.astype(np.float64) + 0.0  # no negative zero
        values[np.isnan(values)] = np.nan
        return values.view(np.uint64)
    return values.astype(np.int64).view(np.uint64)


def _struct_words(column: pa.Array) -> Words:
    return _row_words({field.name: pc.struct_field(column, field.name) for field in column.type})


def _list_words(column: pa.Array) -> Words:
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return _sums(_words(pc.list_flatten(column)), lengths)


def _text_words(texts: pa.LargeStringArray) -> Words:
    _, offsets, data = texts.buffers()
    ends = np.frombuffer(offsets, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    whole = np.frombuffer(data or b"", dtype=np.uint8)[ends[0] : ends[-1]]
    return _sums(whole.astype(np.uint64), np.diff(ends))


def _sums(words: Words, lengths: Ints) -> Words:
    """Mixed sums of consecutive runs of words, with these lengths, weighted by the position in the run."""
    longest = int(lengths.max(initial=0))
    weights = _weights(longest + 1)
    if longest and (lengths == longest).all():
        sums = words.reshape(-1, longest) @ weights[1 : longest + 1]
    else:
        ends = np.cumsum(lengths)
        position = np.arange(len(words)) - np.repeat(ends - lengths, lengths)
        summed = np.concatenate([[NULL], np.cumsum(words * weights[1:][position], dtype=np.uint64)])
        sums = summed[ends] - summed[ends - lengths]
    return _mixed(sums + weights[0] * (lengths.astype(np.uint64) + np.uint64(1)))


def _taken(words: Words, indices: pa.Array) -> Words:
    places = pc.fill_null(pc.add(indices.cast(pa.int64()), 1), 0).to_numpy(zero_copy_only=False)
    return np.concatenate([[NULL], words])[places]


def _where_valid(column: pa.Array, words: Words) -> Words:
    """The words, made different from :data:`NULL`, the word of nulls."""
    found = words + VALID
    if column.null_count:
        found[column.is_null().to_numpy(zero_copy_only=False)] = NULL
    return found


def _mixed(words: Words) -> Words:
    """A one-to-one mapping of words in which every bit depends on all bits (the end of SplitMix64); keeps 0."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def _weights(count: int) -> Words:
    """The first numbers of a fixed sequence of odd numbers, one per position in a list."""
    return _weight_table(max(FIRST_WEIGHTS, 1 << (count - 1).bit_length()))[:count]


@lru_cache(maxsize=32)
def _weight_table(count: int) -> Words:
    numbers = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    table = _mixed(numbers) | np.uint64(1)
    table.setflags(write=False)
    return table


@lru_cache(maxsize=4096)
def _weight_of(name: str) -> np.uint64:
    seed = zlib.crc32(name.encode()) + 1
    return _mixed(np.array([seed], dtype=np.uint64) * np.uint64(0xD1342543DE82EF95))[0] | np.uint64(1)
