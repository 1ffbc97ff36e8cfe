"""Spilling: with Beam's local runner, chunks wait on disk for their turn.

That runner holds all that goes through a shuffle in memory, three times while it hands it on, and the chunk of a grid
once for each record on it. Other runners have a shuffle that keeps to bounds.
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
    """The folder for the chunks of a pipeline that the local runner runs, which Beam deletes when it has run.

    None for other runners: their workers may be on other machines, or go on after ``pipeline.run()``.
    """
    return pipeline.local_tempdir if type(pipeline.runner).__name__ == "FnApiRunner" else None


def spilled(chunks: beam.PCollection) -> beam.PCollection[tuple[TileKey, pa.RecordBatch]]:
    """The chunks of a table as they should go through a shuffle; :func:`.unspilled` gives them back."""
    folder = spill_folder(chunks.pipeline)
    if folder is None:
        return chunks
    # In notebooks Beam leaves the folder there.
    weakref.finalize(chunks.pipeline, shutil.rmtree, folder, ignore_errors=True)
    spilling = beam.ParDo(SpillFn(folder))
    return chunks | "Spill" >> spilling.with_output_types(typehints.Tuple[TileKey, pa.RecordBatch])


class SpillFn(beam.DoFn):
    """Chunks beyond the first :data:`.IN_MEMORY_BYTES` to a file; batches that say where they lie go on.

    Where the disk takes no more, chunks go on in memory as they are.
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
        # Routing gives the chunk of one grid to each of its records in turn; it is written once.
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
                "points cannot wait on disk in %s: %s; they wait in memory. Free space there, or set TMPDIR to a "
                "folder on another disk",
                self.folder,
                one_line(error),
            )
            self.teardown()
            self._file = None
            return chunk
