"""Remote files as GDAL reads them: by the ranges that everything else is read by.

GDAL's own reading of servers takes an answer that breaks off for the whole of it, so that a raster opens without its
CRS, and forgets the failure. So rasterio is given an opener (its ``MultiByteRangeResourceContainer``) whose files ask
by :class:`.byte_ranges.RangeReader`, with its patience, its check of size and ETag, and its errors.

It is one opener for the process: rasterio has GDAL add a file system for each, and remove it with the dataset, and GDAL
looks through its list of them without a lock, in all threads. Openers of single files end in a segmentation fault.
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
from rasteret_beam.readers.storage.stores import WEB, has_ranges, split_url

BLOCK_BYTES = 32 << 10
"""Asked for at once where GDAL reads a few bytes of a header."""

KEPT_BLOCKS = 4

SIDE = re.compile(r"\.(msk|ovr)$", re.IGNORECASE)
"""Masks and overviews beside a raster, which GDAL opens by any driver."""

HTML = re.compile(rb"\s*<(?:!doctype\s+html|html)\b", re.IGNORECASE)

UNSURE = re.compile(rb"\s*(?:\{|\xef\xbb\xbf|<(?!PAMDataset))")
"""How JSON and XML begin that are no metadata of GDAL's."""


class GdalFiles:
    """A remote raster and what GDAL looks for beside it (masks, world files, metadata).

    GDAL does not hear an error that is raised here, and goes on without what it asked for, so the first failure is kept
    and raised by :meth:`serving` when GDAL is done; until then there is nothing more to read.

    Parameters
    ----------
    file : FileState
        The raster.
    alone : bool
        Look for nothing beside a TIFF, whose bands are all in it.

    Attributes
    ----------
    name : str
        Its URL for GDAL and rasterio, which log it: without user, password and query.
    sources : set of str or None
        Files that a virtual raster leads to; None of other rasters.
    """

    def __init__(self, file: FileState, skip_sidecars: bool = False):
        self.file = file
        self.skip_sidecars = skip_sidecars
        self.ranges = RangeReader()
        self.failure: BaseException | None = None
        self.counters, self.cancel = Counters(), CancelToken()
        scheme, self._root, path = split_url(file.href)
        self._shown_root = f"{scheme}://{self._root.rpartition('@')[2].rpartition('://')[2]}"
        self.name = f"{self._shown_root}/{path.partition('?')[0] if scheme in WEB else path}"
        self.sources: set[str] | None = None
        self.first_bytes = b""
        self._ahead = memoryview(b"")
        self._ahead_at = 0
        self._states: dict[str, FileState | None] = {} if file.size is None else {self.name: file}

    @contextmanager
    def serving(self, counters: Counters, cancel: CancelToken) -> Iterator[None]:
        """Requests of the block are counted, and end with the job.

        Raises
        ------
        RangeError, Cancelled
            Something that was asked for in the block could not be read, whatever GDAL made of it.
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
        """A file, by its name for GDAL, as the collection has it, or where that knows nothing, as its server does.

        Raises
        ------
        FileNotFoundError
            There is no such file, or the server has failed.
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
        if self.failure or not has_ranges(href) or (beside and not self._may_lie_beside(path)):
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
        """No file lies beside a signed URL."""
        if self.skip_sidecars and self.first_bytes[:4] in TIFF:
            return False
        return path.startswith(f"{self._shown_root}/") and "?" not in self.file.href

    def open(self, path: str) -> "GdalFile":
        opened = GdalFile(self, self.state(path))
        if path != self.name and (self.sources is not None or SIDE.search(path)):
            self._check_beside(path, opened)
        return opened

    def _check_beside(self, path: str, file: "GdalFile") -> None:
        """Refuse what GDAL would open by any driver, and what a virtual raster leads to that it may not."""
        head = file.read(HEAD_BYTES)
        why = None
        if HTML.match(head):
            raise FileNotFoundError(path)  # what some servers send in place of 404
        if SIDE.search(path):
            why = None if head[:4] in TIFF else "it is no TIFF, so it is not read as a mask or overviews"
        elif self.sources is not None:
            whole = head + file.read(MAX_BYTES) if is_virtual(head) else b""
            if path in self.sources or driver_of_bytes(head) is not None or UNSURE.match(head):
                why = why_not_content(head, whole, path, self.file.access)
            if whole and not why:
                self.sources |= set(sources(whole, path))
        file.seek(0)
        if why:
            self.fail(RangeError(f"{path}, which lies beside it: {why}"))
            raise FileNotFoundError(path)

    def fetch(self, start: int, stop: int, counters: Counters, cancel: CancelToken) -> None:
        """Ask for bytes of the raster before GDAL does; raises as :meth:`serving`."""
        self._ahead, self._ahead_at = memoryview(self.ranges.read(self.file, start, stop, counters, cancel)), start

    def has(self, file: FileState, start: int, stop: int) -> bool:
        """Whether bytes are among those fetched."""
        inside = self._ahead_at <= start and stop <= self._ahead_at + len(self._ahead)
        return inside and file.href == self.file.href

    def keep(self, data: bytes) -> None:
        """Have GDAL read the whole raster, which was looked at, as it was then."""
        self._ahead, self._ahead_at = memoryview(data), 0

    def forget(self) -> None:
        """Let go of what was fetched."""
        self._ahead = memoryview(b"")

    def fail(self, error: BaseException) -> None:
        """Keep the first failure."""
        self.failure = self.failure or error

    def read(self, file: FileState, start: int, stop: int) -> bytes:
        """Bytes of a file; none after a failure."""
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
    """One file of :class:`GdalFiles`, to be read from anywhere."""

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
        """Several ranges, neighbouring ones by one request: the stored tiles, or strips, of a window."""
        stops = [start + size for start, size in zip(offsets, sizes, strict=True)]
        found = [b""] * len(offsets)
        if max(stops, default=0) > self._size:
            # GDAL would take whatever its memory holds for the bytes that are missing.
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
    """The file system of all :class:`GdalFiles`, each in a folder of its own; threads may call it at the same time."""

    ANCHOR = "anchor/anchor.vrt"
    EMPTY = (
        b'<VRTDataset rasterXSize="1" rasterYSize="1"><GeoTransform>0, 1, 0, 1, 0, -1</GeoTransform>'
        b'<VRTRasterBand dataType="Byte" band="1" /></VRTDataset>'
    )
    """An open dataset keeps its opener; this one stays open."""

    def __init__(self) -> None:
        self._files: dict[str, GdalFiles] = {}
        self._numbers = count()
        self._lock = Lock()
        self._anchor: DatasetReader | None = None
        # rasterio keeps openers, the files that they have opened, and GDAL's errors, in variables of the context.
        self._context = Context()

    def install(self) -> None:
        """Have GDAL know it, once; before threads read by it."""
        with self._lock:
            if self._anchor is None:
                anchor = self._context.run(rasterio.open, self.ANCHOR, opener=self)
                self._context.run(anchor.read)  # for all of the variables to be there
                self._anchor = anchor

    def close(self) -> None:
        """Have GDAL forget it."""
        if self._anchor is not None:
            self._context.run(self._anchor.close)

    def context(self) -> Context:
        """A context to read in, with errors of its own; one thread may be in it at a time."""
        context = self._context.copy()
        for variable, value in self._context.items():
            if isinstance(value, list):
                context.run(variable.set, [])
        return context

    def add(self, files: GdalFiles) -> tuple[str, str]:
        """Serve files from now on; gives the name of their folder, and of the raster for GDAL."""
        assert self._anchor is not None
        folder = str(next(self._numbers))
        self._files[folder] = files
        return folder, f"{self._anchor.name.removesuffix(self.ANCHOR)}{folder}/{files.name}"

    def remove(self, folder: str) -> None:
        """Serve some files no longer."""
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
        """No listing: GDAL then asks for each file that it looks for."""
        raise FileNotFoundError(path)

    def mtime(self, path: str) -> int:
        return 0

    def rm(self, path: str) -> None:
        raise PermissionError(path)


OPENER = Opener()
# The finalizers of a program that ends run in reverse order: those of what is read by the opener come before.
finalize(OPENER, OPENER.close)
