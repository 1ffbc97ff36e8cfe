"""Coders of the elements that cross a shuffle. Importing this module registers them with Beam.

Without them Beam pickles a RecordBatch, and a pickled slice includes the buffers of its parent.
"""

import pyarrow as pa
from apache_beam import coders

from rasteret_beam.kernels.tables.ipc import from_ipc, to_ipc
from rasteret_beam.model import TileKey


class RecordBatchCoder(coders.Coder):
    """Encodes a RecordBatch with :func:`rasteret_beam.kernels.tables.ipc.to_ipc`."""

    def __init__(self) -> None:
        self._last: tuple[pa.RecordBatch | None, bytes] = (None, b"")

    def encode(self, value: pa.RecordBatch) -> bytes:
        # Routing emits the chunk of one grid for each of its records in turn; encode it once.
        last, encoded = self._last
        if value is not last:
            encoded = to_ipc(value).to_pybytes()
            self._last = (value, encoded)
        return encoded

    def estimate_size(self, value: pa.RecordBatch) -> int:
        # Beam requests the size of elements that it does not encode; encoding them for that would double the cost.
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
