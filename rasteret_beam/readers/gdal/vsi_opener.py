"""Remote files for GDAL, read with the same byte ranges as everything else.

GDAL's HTTP client accepts an incomplete answer as complete, so that a raster may open without its CRS, and discards the
error. So rasterio gets an opener (its ``MultiByteRangeResourceContainer``) whose files use
:class:`.byte_ranges.RangeReader`, with its retry policy, its check of size and ETag, and its errors.

The process has one opener: for each opener rasterio adds a file system to GDAL and removes it with the dataset, while
GDAL searches the list of file systems without a lock in all threads. One opener per file leads to segmentation faults.
"""

import io
import re
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context
from itertools import count
from os import SEEK_CUR, SEEK_END, SEEK_SET
from threading import Lock
from weakref import finalize

import rasterio
from rasterio.abc import MultiByteRangeResourceContainer
from rasterio.io import DatasetReader

from rasteret_beam.kernels.storage.coalescing import coalesce
from rasteret_beam.metrics import Counters
from rasteret_beam.readers.gdal.drivers import HEAD_BYTES, TIFF, driver_of_bytes
from rasteret_beam.readers.gdal.vrt import MAX_BYTES, is_virtual, sources, why_not_content
from rasteret_beam.readers.jobs.cancellation import CancelToken
from rasteret_beam.readers.storage.byte_ranges import FileState, RangeError, RangeReader
from rasteret_beam.readers.storage.location import WEB, Location

BLOCK_BYTES = 32 << 10
"""Bytes per request when GDAL reads a few bytes of a header."""

KEPT_BLOCKS = 4

SIDE = re.compile(r"\.(msk|ovr)$", re.IGNORECASE)
"""Masks and overviews beside a raster, which GDAL opens with any driver."""

HTML = re.compile(rb"\s*<(?:!doctype\s+html|html)\b", re.IGNORECASE)

UNSURE = re.compile(rb"\s*(?:\{|\xef\xbb\xbf|<(?!PAMDataset))")
"""Beginnings of JSON and XML that are not GDAL metadata."""


class GdalFiles:
    """A remote raster and its sidecar files for GDAL (masks, world files, metadata).

    GDAL ignores errors that are raised here and continues without the data. So the first failure is kept and raised by
    :meth:`serving` when GDAL is done; until then reads return nothing.

    Parameters
    ----------
    file : FileState
        The raster.
    skip_sidecars : bool
        Do not look for files beside a TIFF, which has all of its bands.

    Attributes
    ----------
    name : str
        Its URL without user, password and query, as GDAL and rasterio log it.
    sources : set of str or None
        Files that a virtual raster names; None for other rasters.
    """

    def __init__(self, file: FileState, skip_sidecars: bool = False):
        self.file = file
        self.skip_sidecars = skip_sidecars
        self.ranges = RangeReader()
        self.failure: BaseException | None = None
        self.counters, self.cancel = Counters(), CancelToken()
        scheme, self._root, path = Location.of(file.href).parts
        self._shown_root = f"{scheme}://{self._root.rpartition('@')[2].rpartition('://')[2]}"
        self.name = f"{self._shown_root}/{path.partition('?')[0] if scheme in WEB else path}"
        self.sources: set[str] | None = None
        self.first_bytes = b""
        self._ahead = memoryview(b"")
        self._ahead_at = 0
        self._states: dict[str, FileState | None] = {} if file.size is None else {self.name: file}

    @contextmanager
    def serving(self, counters: Counters, cancel: CancelToken) -> Iterator[None]:
        """Count the requests of the block; they end when the job is cancelled.

        Raises
        ------
        RangeError, Cancelled
            A request of the block failed, even if GDAL ignored it.
        """
        self.counters, self.cancel = counters, cancel
        try:
            yield
        except Exception:
            if self.failure is None:
                raise
        if self.failure is not None:
            raise self.failure

    def state(self, path: str) -> FileState:
        """The state of a file by its name for GDAL: from the collection, or from its server.

        Raises
        ------
        FileNotFoundError
            The file does not exist, or the server has failed.
        """
        if path not in self._states:
            self._states[path] = self._ask_state(path)
        state = self._states[path]
        if state is None:
            raise FileNotFoundError(path)
        return state

    def _ask_state(self, path: str) -> FileState | None:
        beside = path != self.name
        href = self._root + path.removeprefix(self._shown_root) if beside else self.file.href
        if self.failure or not Location.of(href).has_ranges or (beside and not self._may_lie_beside(path)):
            return None
        try:
            return self.ranges.state(FileState(href, access=self.file.access), self.cancel)
        except RangeError as error:
            if not (beside and error.status is not None and 400 <= error.status < 500):
                self.failure = error
        except BaseException as error:
            self.failure = error
        return None

    def _may_lie_beside(self, path: str) -> bool:
        """Whether a sidecar file may exist; a signed URL has none."""
        if self.skip_sidecars and self.first_bytes[:4] in TIFF:
            return False
        return path.startswith(f"{self._shown_root}/") and "?" not in self.file.href

    def open(self, path: str) -> "GdalFile":
        opened = GdalFile(self, self.state(path))
        if path != self.name and (self.sources is not None or SIDE.search(path)):
            self._check_beside(path, opened)
        return opened

    def _check_beside(self, path: str, file: "GdalFile") -> None:
        """Refuse sidecar files that GDAL would open with any driver, and forbidden files of a virtual raster."""
        head = file.read(HEAD_BYTES)
        why = None
        if HTML.match(head):
            raise FileNotFoundError(path)  # some servers send it instead of 404
        if SIDE.search(path):
            why = None if head[:4] in TIFF else "it is not TIFF, so it is not read as a mask or overviews"
        elif self.sources is not None:
            whole = head + file.read(MAX_BYTES) if is_virtual(head) else b""
            if path in self.sources or driver_of_bytes(head) is not None or UNSURE.match(head):
                why = why_not_content(head, whole, path, self.file.access)
            if whole and not why:
                self.sources |= set(sources(whole, path))
        file.seek(0)
        if why:
            self.fail(RangeError(f"its sidecar file {path}: {why}"))
            raise FileNotFoundError(path)

    def fetch(self, start: int, stop: int, counters: Counters, cancel: CancelToken) -> None:
        """Read bytes of the raster before GDAL requests them; raises as :meth:`serving`."""
        self._ahead, self._ahead_at = memoryview(self.ranges.read(self.file, start, stop, counters, cancel)), start

    def has(self, file: FileState, start: int, stop: int) -> bool:
        """Whether the bytes were fetched."""
        inside = self._ahead_at <= start and stop <= self._ahead_at + len(self._ahead)
        return inside and file.href == self.file.href

    def keep(self, data: bytes) -> None:
        """Serve the whole raster from these bytes, which were checked."""
        self._ahead, self._ahead_at = memoryview(data), 0

    def forget(self) -> None:
        """Release the fetched bytes."""
        self._ahead = memoryview(b"")

    def fail(self, error: BaseException) -> None:
        """Keep the first failure."""
        self.failure = self.failure or error

    def read(self, file: FileState, start: int, stop: int) -> bytes:
        """Bytes of a file; empty after a failure."""
        if self.has(file, start, stop):
            return bytes(self._ahead[start - self._ahead_at : stop - self._ahead_at])
        if self.failure is None:
            try:
                data = bytes(self.ranges.read(file, start, stop, self.counters, self.cancel))
            except BaseException as error:
                self.failure = error
            else:
                if start == 0 and file.href == self.file.href:
                    self.first_bytes = data[:HEAD_BYTES]
                return data
        return b""


class GdalFile:
    """One seekable file of :class:`GdalFiles`."""

    def __init__(self, files: GdalFiles, file: FileState):
        self._files = files
        self._file = file
        self._size = file.size or 0
        self._at = 0
        self._blocks: OrderedDict[int, bytes] = OrderedDict()

    def __enter__(self) -> "GdalFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._blocks.clear()

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        self._at = {SEEK_SET: 0, SEEK_CUR: self._at, SEEK_END: self._size}[whence] + offset
        return self._at

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size < 0 else min(self._size, self._at + size)
        data = self._bytes(self._at, stop) if self._at < stop else b""
        self._at += len(data)
        return data

    def get_byte_ranges(self, offsets: list[int], sizes: list[int]) -> list[bytes]:
        """Several ranges, with one request for neighbours: the tiles or strips of a window."""
        stops = [start + size for start, size in zip(offsets, sizes, strict=True)]
        found = [b""] * len(offsets)
        if max(stops, default=0) > self._size:
            # GDAL would use uninitialized memory for the missing bytes.
            self._files.fail(
                RangeError(f"the file ends at byte {self._size}, but has a tile up to byte {max(stops)}", of_file=False)
            )
            return found
        for together in coalesce(offsets, stops):
            first = offsets[together[0]]
            data = self._bytes(first, max(stops[at] for at in together))
            for at in together:
                found[at] = data[offsets[at] - first : stops[at] - first]
        return found

    def _bytes(self, start: int, stop: int) -> bytes:
        if stop - start >= BLOCK_BYTES or self._files.has(self._file, start, stop):
            return self._files.read(self._file, start, stop)
        numbers = range(start // BLOCK_BYTES, -(-stop // BLOCK_BYTES))
        data = b"".join(map(self._block, numbers))
        first = numbers[0] * BLOCK_BYTES
        return data[start - first : stop - first]

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            start = number * BLOCK_BYTES
            self._blocks[number] = self._files.read(self._file, start, min(self._size, start + BLOCK_BYTES))
            if len(self._blocks) > KEPT_BLOCKS:
                self._blocks.popitem(last=False)
        self._blocks.move_to_end(number)
        return self._blocks[number]


class Opener(MultiByteRangeResourceContainer):
    """The thread-safe file system of all :class:`GdalFiles`, each in a separate folder."""

    ANCHOR = "anchor/anchor.vrt"
    EMPTY = (
        b'<VRTDataset rasterXSize="1" rasterYSize="1"><GeoTransform>0, 1, 0, 1, 0, -1</GeoTransform>'
        b'<VRTRasterBand dataType="Byte" band="1" /></VRTDataset>'
    )
    """A dataset that stays open to keep the opener alive."""

    def __init__(self) -> None:
        self._files: dict[str, GdalFiles] = {}
        self._numbers = count()
        self._lock = Lock()
        self._anchor: DatasetReader | None = None
        # rasterio keeps openers, their open files and GDAL's errors in context variables.
        self._context = Context()

    def install(self) -> None:
        """Register it with GDAL once, before threads use it."""
        with self._lock:
            if self._anchor is None:
                anchor = self._context.run(rasterio.open, self.ANCHOR, opener=self)
                self._context.run(anchor.read)  # creates all context variables
                self._anchor = anchor

    def close(self) -> None:
        """Remove it from GDAL."""
        if self._anchor is not None:
            self._context.run(self._anchor.close)

    def context(self) -> Context:
        """A context for reading with separate errors; one thread at a time may use it."""
        context = self._context.copy()
        for variable, value in self._context.items():
            if isinstance(value, list):
                context.run(variable.set, [])
        return context

    def add(self, files: GdalFiles) -> tuple[str, str]:
        """Serve files; returns the names of their folder and of the raster for GDAL."""
        assert self._anchor is not None
        folder = str(next(self._numbers))
        self._files[folder] = files
        return folder, f"{self._anchor.name.removesuffix(self.ANCHOR)}{folder}/{files.name}"

    def remove(self, folder: str) -> None:
        """Stop serving the files of a folder."""
        self._files.pop(folder, None)

    def _files_of(self, path: str) -> tuple[GdalFiles, str]:
        folder, _, name = path.partition("/")
        if folder not in self._files:
            raise FileNotFoundError(path)
        return self._files[folder], name

    def open(self, path: str, mode: str = "rb", **_: object) -> "GdalFile | io.BytesIO":  # type: ignore[override]
        if path == self.ANCHOR:
            return io.BytesIO(self.EMPTY)
        files, name = self._files_of(path)
        return files.open(name)

    def size(self, path: str) -> int:
        if path == self.ANCHOR:
            return len(self.EMPTY)
        files, name = self._files_of(path)
        return files.state(name).size or 0

    def isfile(self, path: str) -> bool:
        try:
            return self.size(path) >= 0
        except FileNotFoundError:
            return False

    def isdir(self, path: str) -> bool:
        return False

    def ls(self, path: str) -> list[str]:
        """Refuse listings, so that GDAL requests each sidecar file by name."""
        raise FileNotFoundError(path)

    def mtime(self, path: str) -> int:
        return 0

    def rm(self, path: str) -> None:
        raise PermissionError(path)


OPENER = Opener()
# Finalizers run in reverse order at exit, so datasets that use the opener are closed before it.
finalize(OPENER, OPENER.close)
