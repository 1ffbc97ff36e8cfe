"""Spill chunks to disk with Beam's local runner.

That runner holds all data of a shuffle in memory, temporarily three times, and the chunk of a grid once per record.
Other runners limit the memory of a shuffle.
"""

import logging
import shutil
import weakref
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam import typehints

from rasteret_beam.errors import one_line
from rasteret_beam.model import TileKey
from rasteret_beam.readers.jobs.spill import IN_MEMORY_BYTES, LEAST_CHUNK_BYTES, SpillFile

log = logging.getLogger(__name__)


def spill_folder(pipeline: beam.Pipeline) -> str | None:
    """The folder for the chunks of a pipeline on the local runner, which Beam deletes after the run.

    None for other runners, whose workers may be on other machines or continue after ``pipeline.run()``.
    """
    return pipeline.local_tempdir if type(pipeline.runner).__name__ == "FnApiRunner" else None


def spilled(chunks: beam.PCollection) -> beam.PCollection[tuple[TileKey, pa.RecordBatch]]:
    """The chunks of a bounded input, spilled for the shuffle if needed; :func:`.unspilled` restores them."""
    folder = spill_folder(chunks.pipeline)
    if folder is None:
        return chunks
    # In notebooks Beam does not delete the folder.
    weakref.finalize(chunks.pipeline, shutil.rmtree, folder, ignore_errors=True)
    spilling = beam.ParDo(SpillFn(folder))
    return chunks | "Spill" >> spilling.with_output_types(typehints.Tuple[TileKey, pa.RecordBatch])


class SpillFn(beam.DoFn):
    """Writes chunks beyond the first :data:`.IN_MEMORY_BYTES` to a file and emits references to them.

    If the disk is full, further chunks are emitted unchanged.
    """

    def __init__(self, folder: str):
        self.folder = folder

    def setup(self) -> None:
        self._file: SpillFile | None = SpillFile(self.folder)
        self._held = 0
        self._last: tuple[pa.RecordBatch | None, pa.RecordBatch | None] = None, None

    def teardown(self) -> None:
        if self._file is not None:
            self._file.close()

    def process(self, element: tuple[TileKey, pa.RecordBatch]) -> Iterator[Any]:
        key, chunk = element
        if self._file is None or self._held < IN_MEMORY_BYTES:
            self._held += max(LEAST_CHUNK_BYTES, chunk.nbytes)
            yield element
            return
        # Routing emits the chunk of one grid for each of its records in turn; write it once.
        last, reference = self._last
        if chunk is not last:
            reference = self._spilled(self._file, chunk)
            self._last = chunk, reference
        yield key, reference

    def _spilled(self, file: SpillFile, chunk: pa.RecordBatch) -> pa.RecordBatch:
        try:
            return file.write(chunk)
        except OSError as error:
            log.warning(
                "points cannot be written to disk in %s: %s; they stay in memory. Free space there, or set TMPDIR to a "
                "folder on another disk",
                self.folder,
                one_line(error),
            )
            self.teardown()
            self._file = None
            return chunk
