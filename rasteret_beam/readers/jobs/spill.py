"""Store chunks on disk between two steps of a job, instead of in the memory of its runner."""

import os
from typing import NamedTuple
from uuid import uuid4

import pyarrow as pa

from rasteret_beam.errors import InputError, one_line
from rasteret_beam.kernels.routing.chunks import split_kept, with_kept
from rasteret_beam.kernels.tables.ipc import from_ipc, to_ipc
from rasteret_beam.schema import SPILLED_KEY

IN_MEMORY_BYTES = 64 << 20
"""Bytes in the shuffle before chunks are spilled, so that small jobs write no temporary file."""

LEAST_CHUNK_BYTES = 1024
"""Minimum size of a chunk, for its schema."""


class Spilled(NamedTuple):
    """The place of a chunk on disk: its points, followed by its kept columns.

    Attributes
    ----------
    path : str
    offset, point_bytes, kept_bytes : int
        ``kept_bytes`` is 0 for a chunk without kept columns.
    """

    path: str
    offset: int
    point_bytes: int
    kept_bytes: int

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> "Spilled | None":
        """Parse a batch of :meth:`reference`; None for a chunk that was not spilled."""
        found = (batch.schema.metadata or {}).get(SPILLED_KEY)
        if found is None:
            return None
        *numbers, path = found.decode().split(" ", 3)
        return cls(path, *map(int, numbers))

    def reference(self) -> pa.RecordBatch:
        """A batch without rows that goes through a shuffle instead of the chunk."""
        text = f"{self.offset} {self.point_bytes} {self.kept_bytes} {self.path}"
        return pa.RecordBatch.from_arrays([], schema=pa.schema([], metadata={SPILLED_KEY: text}))

    def points(self) -> pa.RecordBatch:
        """The chunk without its kept columns."""
        return from_ipc(self._read(self.offset, self.point_bytes))

    def kept(self) -> pa.RecordBatch:
        """The kept columns of the chunk, which must have some."""
        return from_ipc(self._read(self.offset + self.point_bytes, self.kept_bytes))

    def _read(self, offset: int, size: int) -> bytes:
        try:
            with open(self.path, "rb", buffering=0) as file:
                file.seek(offset)
                found = file.read(size)
        except OSError as error:
            raise InputError(_lost(self.path, one_line(error))) from error
        if len(found) != size:
            raise InputError(_lost(self.path, f"it ends at byte {offset + len(found)}, not {offset + size}"))
        return found


def unspilled(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The chunk that a batch refers to, or the batch itself if it is a chunk."""
    found = Spilled.of(batch)
    if found is None:
        return batch
    return with_kept(found.points(), found.kept()) if found.kept_bytes else found.points()


def _lost(path: str, why: str) -> str:
    return (
        f"temporary file {path}, which holds points of this job, cannot be read: {why}; do not change temporary files "
        "while a job runs, or set TMPDIR to another folder"
    )


class SpillFile:
    """A file of chunks in a folder; one thread writes it, and the first chunk creates it.

    Parameters
    ----------
    folder : str
        The caller deletes it with its content.
    """

    def __init__(self, folder: str):
        self.path = os.path.join(folder, f"chunks-{uuid4().hex}")
        self._file: int | None = None
        self._end = 0

    def write(self, chunk: pa.RecordBatch) -> pa.RecordBatch:
        """Append a chunk; returns the batch that refers to it (:meth:`Spilled.reference`).

        Raises
        ------
        OSError
            The disk is full. Chunks that were written before can be read.
        """
        points, kept = split_kept(chunk)
        parts = [to_ipc(points), to_ipc(kept)] if kept is not None else [to_ipc(points)]
        if self._file is None:
            os.makedirs(os.path.dirname(self.path), exist_ok=True)  # it was deleted, if a pipeline runs a second time
            self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        start = self._end
        for part in parts:
            self._append(memoryview(part))
        sizes = [part.size for part in parts]
        return Spilled(self.path, start, sizes[0], sum(sizes[1:])).reference()

    def _append(self, data: memoryview) -> None:
        assert self._file is not None
        while len(data):
            written = os.pwrite(self._file, data, self._end)
            self._end += written
            data = data[written:]

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
