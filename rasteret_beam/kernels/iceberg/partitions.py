"""Split rows by the partition of an Iceberg table that they belong to.

Source: Apache Iceberg, table specification, "Partition Transforms".
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_beam.kernels.iceberg.names import PartitionTerm

Key = tuple[Any, ...]
"""A value for each term; equal for rows of one partition, and hashable. Null is a partition."""


def split(batch: pa.RecordBatch, terms: Sequence[PartitionTerm]) -> Iterator[tuple[Key, pa.RecordBatch]]:
    """The rows of each partition, in their order.

    Parts are copies, so that a small one does not keep the batch in memory; a batch of one partition is given as it is.

    Parameters
    ----------
    batch : RecordBatch
        n > 0 rows.
    terms : sequence of PartitionTerm
        Of columns of the batch.
    """
    keys = [_encoded(batch.column(term.column), term.transform) for term in terms]
    codes = np.zeros(len(batch), dtype=np.int64)
    for indices, values in keys:
        codes = codes * len(values) + indices
    found, first, counts = np.unique(codes, return_index=True, return_counts=True)
    parts = [batch]
    if len(found) > 1:
        order = np.argsort(codes, kind="stable")
        parts = [batch.take(pa.array(rows)) for rows in np.split(order, np.cumsum(counts)[:-1])]
    for row, part in zip(first, parts, strict=True):
        yield tuple(values[indices[row]] for indices, values in keys), part


def _encoded(column: pa.Array, transform: str) -> tuple[np.ndarray, list[Any]]:
    """[n] numbers of transformed values, and the values by number; one of them may be None."""
    moved = column if transform == "identity" else pc.floor_temporal(column, unit=transform)
    encoded = moved.dictionary_encode(null_encoding="encode")
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64), encoded.dictionary.to_pylist()
