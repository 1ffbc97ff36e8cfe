"""Coders of the elements that cross a shuffle. Importing this module registers them.

Without them Beam pickles a RecordBatch, and a pickled slice drags its parent's buffers along.
"""

import pyarrow as pa
from apache_beam import coders

from rasteret_beam.kernels.tables.ipc import from_ipc, to_ipc
from rasteret_beam.model import TileKey


class RecordBatchCoder(coders.Coder):
    """A RecordBatch as :func:`rasteret_beam.kernels.tables.ipc.to_ipc` writes it."""

    def __init__(self) -> None:
        self._last: tuple[pa.RecordBatch | None, bytes] = (None, b"")

    def encode(self, value: pa.RecordBatch) -> bytes:
        # Routing gives the chunk of one grid to each of its records in turn; it is packed once.
        last, encoded = self._last
        if value is not last:
            encoded = to_ipc(value).to_pybytes()
            self._last = (value, encoded)
        return encoded

    def estimate_size(self, value: pa.RecordBatch) -> int:
        # Beam asks for the size of some elements that are never encoded; packing those cost as much as all the others.
        return value.nbytes

    def decode(self, encoded: bytes) -> pa.RecordBatch:
        return from_ipc(encoded)

    def is_deterministic(self) -> bool:
        return False

    def to_type_hint(self) -> type:
        return pa.RecordBatch

    def __reduce__(self) -> tuple[type, tuple[()]]:
        return RecordBatchCoder, ()

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)

    def __hash__(self) -> int:
        return hash(type(self))


coders.registry.register_coder(pa.RecordBatch, RecordBatchCoder)
coders.registry.register_coder(TileKey, coders.RowCoder)
