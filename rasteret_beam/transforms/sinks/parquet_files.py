"""Several Parquet files that are written at the same time."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from threading import BoundedSemaphore, Lock
from uuid import uuid4

import pyarrow as pa

from rasteret_beam.kernels.tables.parquet_columns import ColumnStorage, column_storage
from rasteret_beam.readers.tiles.budget import writers
from rasteret_beam.transforms.sinks.parquet_file import ParquetFile

FILE_BYTES = 256 << 20
"""Size of a file, after which rows go to another."""


Prepare = Callable[[Sequence[pa.RecordBatch]], list[pa.RecordBatch]]


class WriterThreads:
    """The threads of a process that encode row groups, and the limit of row groups under way: one for each core."""

    def __init__(self, threads: int | None = None):
        threads = threads or writers()
        self.pool = ThreadPoolExecutor(threads, thread_name_prefix="write")
        self.free = BoundedSemaphore(threads)

    def close(self) -> None:
        self.pool.shutdown()


class Measured:
    """How columns are stored, measured on the first row group; several :class:`ParquetFiles` of like rows share it."""

    def __init__(self, compression: str):
        self.compression = compression
        self._storage: ColumnStorage | None = None
        self._measuring = Lock()

    def storage(self, batches: Sequence[pa.RecordBatch]) -> ColumnStorage:
        """The storage, measured on these rows if it is not yet known."""
        with self._measuring:
            if self._storage is None:
                self._storage = column_storage(pa.Table.from_batches(batches), self.compression)
            return self._storage


class ParquetFiles:
    """Files of rows in a folder; each row group goes to a file that is free.

    A new file is opened where all are in use, or full. So a job writes as many files at the same time as there are
    threads, and one file where its rows do not fill several row groups. It belongs to one thread.

    Parameters
    ----------
    folder : str
    measured : Measured
    threads : WriterThreads
    file_bytes : int
        Size of a file, after which it is closed.
    prepare : callable
        The batches of a row group as they are written; it runs in the threads.
    """

    def __init__(
        self,
        folder: str,
        measured: Measured,
        threads: WriterThreads,
        file_bytes: int = FILE_BYTES,
        prepare: Prepare = list,
    ):
        self.folder = folder
        self.measured = measured
        self.threads = threads
        self.file_bytes = file_bytes
        self.prepare = prepare
        self._free: list[ParquetFile] = []
        self._busy: dict[Future[None], ParquetFile] = {}
        self._complete: list[str] = []

    def write(self, batches: Sequence[pa.RecordBatch], last: bool = False) -> None:
        """Write batches as one row group, in a thread; waits until one is free.

        ``last`` is for the rest of the rows, which opens no further file.

        Raises
        ------
        OutputError
            Of this or of an earlier row group.
        """
        self.threads.free.acquire()
        try:
            file = self._file(last)
            writing = self.threads.pool.submit(self._append, file, batches)
        except BaseException:
            self.threads.free.release()
            raise
        self._busy[writing] = file
        # After it is known to be done, so that the next row group finds its file free.
        writing.add_done_callback(lambda _: self.threads.free.release())

    def close(self) -> list[str]:
        """Complete all files; returns their paths."""
        while self._busy:
            self._collect(wait(self._busy, return_when=FIRST_COMPLETED).done)
        while self._free:
            self._close(self._free.pop())
        return self._complete

    def abandon(self) -> None:
        """Give up all files, which stay in the folder."""
        wait(self._busy)
        for file in (*self._busy.values(), *self._free):
            file.abandon()
        self._busy, self._free = {}, []

    def _file(self, last: bool) -> ParquetFile:
        self._collect([future for future in self._busy if future.done()])
        if last and not self._free and self._busy:
            self._collect(wait(self._busy, return_when=FIRST_COMPLETED).done)
        if self._free:
            return self._free.pop(0)
        return ParquetFile(f"{self.folder}/{uuid4().hex}.parquet")

    def _collect(self, done: Iterable[Future[None]]) -> None:
        for future in done:
            file = self._busy.pop(future)
            future.result()
            if file.bytes < self.file_bytes:
                self._free.append(file)
            else:
                self._close(file)

    def _close(self, file: ParquetFile) -> None:
        file.close()
        self._complete.append(file.path)

    def _append(self, file: ParquetFile, batches: Sequence[pa.RecordBatch]) -> None:
        batches = self.prepare(batches)
        file.write(batches, self.measured.storage(batches))
