"""A reader of record batches that are made on demand.

PyArrow's ``RecordBatchReader.from_batches`` does not close its generator when the reader is closed, and ``from_stream``
turns errors of the generator into texts. A reader of an Arrow IPC stream in this process avoids both, at the cost of
one copy of the data.
"""

import io
from collections.abc import Generator
from typing import Any

import pyarrow as pa

from rasteret_beam.errors import InputError

END = b"\xff\xff\xff\xff\0\0\0\0"
"""The end of an IPC stream."""


class _Messages(io.RawIOBase):
    """Batches as an IPC stream; each batch is made and written when its first byte is read."""

    def __init__(self, schema: pa.Schema, batches: Generator[pa.RecordBatch]):
        self._batches = batches
        self.ended = self.is_cut = False
        empty = pa.BufferOutputStream()
        pa.ipc.new_stream(empty, schema).close()
        self._waiting = io.BytesIO(empty.getvalue().to_pybytes()[: -len(END)])
        self._writer: Any = None
        self._schema = schema

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        found = self._waiting.read(size)
        while not found and size and not self.ended:
            self._next()
            found = self._waiting.read(size)
        return found

    def _next(self) -> None:
        if self.is_cut:
            raise InputError("the reader of samples is closed; call sample_batches again for another one")
        batch = next(self._batches, None)
        start = 0
        if self._writer is None:  # it starts with the schema, which has been read already
            start = self._waiting.tell()
            self._waiting = io.BytesIO()
            self._writer = pa.ipc.new_stream(pa.PythonFile(self._waiting, mode="w"), self._schema)
        self._waiting.seek(0)
        self._waiting.truncate()
        if batch is None:
            self._writer.close()
            self.ended = True
        else:
            self._writer.write_batch(batch)
        self._waiting.seek(start)


class SampleReader(pa.ipc.RecordBatchStreamReader):  # type: ignore[misc]
    """A ``pyarrow.RecordBatchReader`` that raises the errors of its generator, and closes it when it is closed.

    Parameters
    ----------
    schema : Schema
        The schema of every batch.
    batches : generator of RecordBatch
    """

    def __init__(self, schema: pa.Schema, batches: Generator[pa.RecordBatch]):
        self._batches = batches
        self._messages = _Messages(schema, batches)
        super().__init__(self._messages)

    def close(self) -> None:
        """Stop reading: end the threads and close the files."""
        self._messages.is_cut = not self._messages.ended
        self._batches.close()

    def __exit__(self, *error: Any) -> None:
        self.close()
