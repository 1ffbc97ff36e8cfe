"""Columns of the collection that rows of the sample table have, such as its cloud cover."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa


@dataclass(frozen=True, eq=False)
class RecordColumns:
    """Some columns of a collection.

    Attributes
    ----------
    positions : {record id: int}
        Place of each record in the columns.
    columns : {name: array [r]}
        Repeated texts are in a dictionary, to take little memory.
    types : {name: DataType}
        Those that rows have.
    """

    positions: Mapping[str, int] = field(default_factory=dict)
    columns: Mapping[str, pa.Array] = field(default_factory=dict)
    types: Mapping[str, pa.DataType] = field(default_factory=dict)

    def of(self, record_id: str) -> dict[str, pa.Array]:
        """The values of a record, each an array of length 1."""
        if not self.columns:
            return {}
        at = self.positions[record_id]
        return {name: _plain(column.slice(at, 1), self.types[name]) for name, column in self.columns.items()}


def held_column(parts: Sequence[pa.ChunkedArray]) -> pa.Array:
    """A column of several files as it is held: one array, of texts with each once."""
    chunks = [chunk for part in parts for chunk in part.chunks]
    whole = pa.chunked_array(chunks, type=parts[0].type).combine_chunks()
    is_text = pa.types.is_string(whole.type) or pa.types.is_large_string(whole.type)
    return whole.dictionary_encode() if is_text else whole


def _plain(one: pa.Array, kind: pa.DataType) -> pa.Array:
    """A value as it is given: without the parts of its column around it."""
    if pa.types.is_dictionary(one.type):
        plain = one.dictionary_decode()
        return plain if plain.type == kind else plain.dictionary_encode().cast(kind)
    return one
