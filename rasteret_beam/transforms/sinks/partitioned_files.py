"""Write rows to Parquet files that hold one partition each, with a limit of open files and of rows that wait."""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import apache_beam as beam
import pyarrow as pa
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

from rasteret_beam import metrics
from rasteret_beam.kernels.iceberg.names import PartitionTerm
from rasteret_beam.kernels.iceberg.partitions import Key, split
from rasteret_beam.readers.tiles.budget import ROW_GROUP_BYTES, ROW_GROUP_ROWS
from rasteret_beam.transforms.runtime.beam_metrics import count
from rasteret_beam.transforms.runtime.one_list import InOneList
from rasteret_beam.transforms.runtime.shared_resources import acquire, release
from rasteret_beam.transforms.sinks.parquet_files import FILE_BYTES, Measured, ParquetFiles, WriterThreads

HELD_BYTES = 4 * ROW_GROUP_BYTES
"""Bytes of the rows of all partitions that wait for a row group."""

MOST_OPEN = 16
"""Partitions with open files; each file has a buffer of some megabytes."""


@dataclass
class _Held:
    """Rows of a partition that wait to become a row group."""

    batches: list[pa.RecordBatch] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0

    def add(self, batch: pa.RecordBatch) -> None:
        self.batches.append(batch)
        self.rows += len(batch)
        self.bytes += batch.nbytes


class PartitionedFiles:
    """Files of a folder, each with the rows of one partition.

    Rows wait until they fill a row group; when all that wait are too many, those of the largest partition are written.
    Where too many partitions have open files, that which was written longest ago is completed, and later rows of it go
    to another file. It belongs to one thread.

    Parameters
    ----------
    folder, compression : str
    terms : sequence of PartitionTerm
    threads : WriterThreads
    row_group_rows, file_bytes, held_bytes, most_open : int
    """

    def __init__(
        self,
        folder: str,
        compression: str,
        terms: Sequence[PartitionTerm],
        threads: WriterThreads,
        row_group_rows: int = ROW_GROUP_ROWS,
        file_bytes: int = FILE_BYTES,
        held_bytes: int = HELD_BYTES,
        most_open: int = MOST_OPEN,
    ):
        self._settings = folder, Measured(compression), threads, file_bytes
        self.terms = terms
        self.row_group_rows = row_group_rows
        self.held_bytes = held_bytes
        self.most_open = most_open
        self._held: dict[Key, _Held] = {}
        self._bytes = 0
        self._open: OrderedDict[Key, ParquetFiles] = OrderedDict()
        self._complete: list[str] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Take rows; some may be written."""
        for key, rows in split(batch, self.terms):
            held = self._held.setdefault(key, _Held())
            held.add(rows)
            self._bytes += rows.nbytes
            if held.rows >= self.row_group_rows or held.bytes >= ROW_GROUP_BYTES:
                self._write(key)
        while self._bytes >= self.held_bytes:
            self._write(max(self._held, key=lambda key: self._held[key].bytes))

    def close(self) -> list[str]:
        """Write what waits and complete all files; returns their paths."""
        for key in list(self._held):
            self._write(key, last=True)
        while self._open:
            self._complete += self._open.popitem(last=False)[1].close()
        return self._complete

    def abandon(self) -> None:
        """Give up all files, which stay in the folder."""
        for files in self._open.values():
            files.abandon()
        self._open.clear()
        self._held.clear()

    def _write(self, key: Key, last: bool = False) -> None:
        held = self._held.pop(key)
        self._bytes -= held.bytes
        # Many small parts would each be encoded apart.
        rows = pa.Table.from_batches(held.batches).combine_chunks().to_batches()
        self._files(key).write(rows, last)
        count({metrics.ROWS_WRITTEN: held.rows})

    def _files(self, key: Key) -> ParquetFiles:
        files = self._open.pop(key, None) or ParquetFiles(*self._settings)
        self._open[key] = files  # the last one
        if len(self._open) > self.most_open:
            self._complete += self._open.popitem(last=False)[1].close()
        return files


@dataclass(eq=False)
class WritePartitions(beam.PTransform):
    """Write batches of rows to Parquet files of one partition each; returns one list of successful bundles' files.

    Each bundle writes its own files. A retried bundle leaves files that are not in the list.
    """

    folder: str
    terms: Sequence[PartitionTerm]
    compression: str = "zstd"
    row_group_rows: int = ROW_GROUP_ROWS
    file_bytes: int = FILE_BYTES

    def expand(self, rows: beam.PCollection) -> beam.PCollection[list[str]]:
        writing = _WriteFn(self.folder, self.terms, self.compression, self.row_group_rows, self.file_bytes)
        return rows | "Write" >> beam.ParDo(writing).with_output_types(str) | "Collect" >> InOneList()


class _WriteFn(beam.DoFn):
    def __init__(
        self, folder: str, terms: Sequence[PartitionTerm], compression: str, row_group_rows: int, file_bytes: int
    ):
        self.folder = folder
        self.terms = terms
        self.compression = compression
        self.row_group_rows = row_group_rows
        self.file_bytes = file_bytes
        self._files: PartitionedFiles | None = None

    def setup(self) -> None:
        self._threads: WriterThreads = acquire(WriterThreads, WriterThreads)

    def teardown(self) -> None:
        self._abandon()
        release(WriterThreads)

    def _abandon(self) -> None:
        if self._files is not None:
            self._files.abandon()
            self._files = None

    def start_bundle(self) -> None:
        self._abandon()  # what a failed bundle left
        self._files = PartitionedFiles(
            self.folder, self.compression, self.terms, self._threads, self.row_group_rows, self.file_bytes
        )

    def process(self, batch: pa.RecordBatch) -> None:
        assert self._files is not None
        if len(batch):
            self._files.add(batch)

    def finish_bundle(self) -> Iterator[WindowedValue]:
        assert self._files is not None
        written = self._files.close()
        self._files = None
        for path in written:
            yield WindowedValue(path, GlobalWindow().max_timestamp(), (GlobalWindow(),))
