"""Open GDAL datasets through rasterio, and keep them open in a pool."""

import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from threading import Lock, RLock, local
from typing import Any, TypeVar
from weakref import finalize

import rasterio
from rasterio.io import DatasetReader

from rasteret_beam import metrics
from rasteret_beam.errors import without_secrets
from rasteret_beam.metrics import Counters
from rasteret_beam.model import DEFAULT_ACCESS, Access, tiles_along
from rasteret_beam.readers.gdal.opening import open_dataset
from rasteret_beam.readers.gdal.vsi_opener import BLOCK_BYTES, KEPT_BLOCKS, OPENER, GdalFiles
from rasteret_beam.readers.gdal.world_files import MAX_BYTES, Affine6, read_world_file
from rasteret_beam.readers.jobs.cancellation import CancelToken
from rasteret_beam.readers.storage.byte_ranges import FileState, RangeError
from rasteret_beam.readers.storage.file_state import LocalFileError, Version, check_file
from rasteret_beam.readers.storage.href_policy import why_refused
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.readers.storage.stores import local_path
from rasteret_beam.readers.tiles.budget import CacheBudget

Result = TypeVar("Result")

GDAL_OPTIONS = {
    # Each tile is read once, so GDAL's cache only needs to hold the blocks of one read.
    "GDAL_CACHEMAX": CacheBudget().share,
    # For GDAL's paths (/vsicurl/, /vsis3/ ...): time limits for servers that stop answering.
    "GDAL_HTTP_MAX_RETRY": 5,
    "GDAL_HTTP_RETRY_DELAY": 0.5,
    "GDAL_HTTP_CONNECTTIMEOUT": 30,
    "GDAL_HTTP_LOW_SPEED_TIME": 60,
    "GDAL_HTTP_LOW_SPEED_LIMIT": 1,
    "VSI_CACHE": "FALSE",
    # Look for sidecar files by name; with a listing GDAL would accept masks in any spelling.
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
    # A virtual raster could run Python, and a raw band can read any file as pixels.
    "GDAL_VRT_ENABLE_PYTHON": "NO",
    "GDAL_VRT_ENABLE_RAWRASTERBAND": "NO",
    # Otherwise GDAL caches a failed open for the lifetime of the process.
    "CPL_VSIL_CURL_NON_CACHED": ":".join(f"/vsi{name}/" for name in ("curl", "s3", "gs", "az", "adls", "oss")),
}
"""GDAL options for our reads; environment variables override them."""

HEADER_BYTES = 64 << 10
"""Estimated memory of an open file in GDAL, in addition to 16 bytes per tile."""


def _hide_secrets(record: logging.LogRecord) -> bool:
    """Remove signatures from GDAL's warnings, which contain the URLs that it requests."""
    record.msg, record.args = without_secrets(record.getMessage()), None
    return True


_thread = local()

_virtual = RLock()
"""Lock that is held while a raster is closed, and while a virtual raster is read from a server.

GDAL holds its lock of open datasets while it closes the parts of a virtual raster, and calls Python; rasterio holds the
GIL while it closes a dataset, and waits for GDAL's lock. Without this lock two threads could deadlock.
"""


def limit_gdal_cache(max_bytes: int) -> None:
    """Limit GDAL's block cache, which the process shares; applies to threads that have not read yet."""
    GDAL_OPTIONS["GDAL_CACHEMAX"] = max_bytes


def enter_gdal() -> None:
    """Enter a GDAL environment for the rest of this thread, once: entering it for each tile costs 50 microseconds."""
    if not hasattr(_thread, "env"):
        logging.getLogger("rasterio._env").addFilter(_hide_secrets)
        options = {name: value for name, value in GDAL_OPTIONS.items() if name not in os.environ}
        # GDAL's threads would open remote files without the opener, which is set per thread.
        _thread.env = rasterio.Env(**options, GDAL_NUM_THREADS=1)
        _thread.env.__enter__()
        OPENER.install()


OpenName = tuple[str, bool, Version | None, Access, str | None]
"""Key of an open raster: href, whether sidecars are skipped, state of a local file, access and origin.

A changed local file has another key, and so is opened again.
"""


class Raster:
    """An open raster file; one thread may use it at a time.

    Parameters
    ----------
    file : FileState
        A path, a URL or another name for GDAL, if :mod:`.href_policy` allows it.
    skip_sidecars : bool
        Read only the file itself: do not request sidecar files of a remote TIFF.

    Raises
    ------
    RasterioError
        GDAL cannot open it.
    RangeError, Cancelled
        It may not be opened (see :mod:`.href_policy`), its server fails, a local file is not regular or has changed
        since it was indexed, or the job ended.
    """

    def __init__(
        self, file: FileState, counters: Counters, cancel: CancelToken | None = None, skip_sidecars: bool = False
    ):
        self._file = file
        self.href = file.href
        self.skip_sidecars = skip_sidecars
        self.version = _checked(file)
        self._files = GdalFiles(file, skip_sidecars) if Location.of(file.href).has_ranges else None
        if self._files is None:
            _check_settings(file)
        self._folder = ""
        self._is_virtual = file.href.partition("?")[0].lower().endswith(".vrt")
        enter_gdal()
        self._context = OPENER.context()
        self._dataset: DatasetReader | None = None
        try:
            self._run(self._open, counters, cancel or CancelToken())
        except BaseException:
            self.close()
            raise
        counters.add(metrics.DATASETS_OPENED)

    def _open(self) -> None:
        name = self.href
        if self._files is not None:
            self._folder, name = OPENER.add(self._files)
        self._dataset = open_dataset(name, self._file, self._files)
        self._is_virtual = self._dataset.driver == "VRT"

    def read(
        self, work: Callable[[DatasetReader], Result], counters: Counters, cancel: CancelToken | None = None
    ) -> Result:
        """Run a function with the dataset and return its result; close the raster if it fails.

        Raises
        ------
        RangeError, Cancelled
            As when it is opened; and the errors of the function.
        """
        assert self._dataset is not None
        return self._run(partial(work, self._dataset), counters, cancel or CancelToken())

    @contextmanager
    def ahead(self, start: int, stop: int, counters: Counters, cancel: CancelToken | None = None) -> Iterator[None]:
        """Fetch the bytes of neighbouring tiles of a remote file with one request, for reads in the block.

        Raises
        ------
        RangeError, Cancelled
            They cannot be read.
        """
        if self._files is None:
            yield
            return
        self._files.fetch(start, stop, counters, cancel or CancelToken())
        try:
            yield
        finally:
            self._files.forget()

    @property
    def has_bytes(self) -> bool:
        """Whether its bytes can be read without GDAL."""
        return self._files is not None or self.is_local

    @property
    def name(self) -> OpenName:
        """Key of the raster in a pool."""
        return self.href, self.skip_sidecars, self.version, self._file.access, self._file.access.origin

    @property
    def is_local(self) -> bool:
        """Whether it is a regular local file."""
        return self.version is not None

    @contextmanager
    def open_bytes(self) -> Iterator[tuple[Any, int, str | None]]:
        """The bytes as a file object, the size and the ETag; for use in the function of :meth:`read`."""
        if self._files is not None:
            name = self._files.name
            state = self._files.state(name)
            yield self._files.open(name), state.size or 0, state.etag
            return
        with open(local_path(self.href), "rb") as file:
            yield file, os.fstat(file.fileno()).st_size, None

    def world_file(self) -> Affine6 | None:
        """The affine of the world file beside a remote raster; None if there is none or the raster is local.

        For use in the function of :meth:`read`. GDAL itself reads the world file of a local raster.
        """
        return read_world_file(self._beside, self._files.name) if self._files is not None else None

    def _beside(self, name: str) -> bytes | None:
        assert self._files is not None
        try:
            with self._files.open(name) as file:
                return file.read(MAX_BYTES)
        except FileNotFoundError:
            return None

    def _run(self, work: Callable[[], Result], counters: Counters, cancel: CancelToken) -> Result:
        enter_gdal()
        if self._files is None:
            return self._context.run(work)
        with _virtual if self._is_virtual else nullcontext(), self._files.serving(counters, cancel):
            return self._context.run(work)

    @property
    def held_bytes(self) -> int:
        """Estimated memory."""
        dataset = self._dataset
        assert dataset is not None
        height, width = dataset.block_shapes[0]
        blocks = tiles_along(dataset.height, height) * tiles_along(dataset.width, width)
        return HEADER_BYTES + 16 * blocks * dataset.count + (KEPT_BLOCKS * BLOCK_BYTES if self._files else 0)

    def close(self) -> None:
        if self._dataset is not None:
            with _virtual:
                self._context.run(self._dataset.close)
        OPENER.remove(self._folder)


def _checked(file: FileState) -> Version | None:
    if why := why_refused(file.href, file.access):
        raise RangeError(why)
    try:
        return check_file(file.href, file.size, file.digest)
    except LocalFileError as error:
        raise RangeError(str(error)) from None


def _check_settings(file: FileState) -> None:
    """Refuse access settings for an object that only GDAL can read, with its environment's settings."""
    if Location.of(file.href).is_in_bucket and file.access.of_bucket != DEFAULT_ACCESS.of_bucket:
        raise RangeError(
            "an object name with '?' or with an empty, '.' or '..' part is read by GDAL, which ignores access= "
            "(anonymous, endpoint, requester pays); rename the object, or set GDAL's environment variables "
            "instead of access="
        )


Idle = OrderedDict[OpenName, list[Raster]]


class RasterPool:
    """A pool of open rasters, limited in number and bytes; one thread at a time uses a raster."""

    def __init__(self, max_open: int = 256, max_bytes: int = CacheBudget().share, skip_sidecars: bool = False):
        self.skip_sidecars = skip_sidecars
        self.max_open = max_open
        self.max_bytes = max_bytes
        self._idle: Idle = OrderedDict()
        self._count = 0
        self._bytes = 0
        self._lock = Lock()
        # Close them before the interpreter exits, as GDAL would call Python later.
        finalize(self, _close_all, self._idle)

    def __len__(self) -> int:
        return self._count

    @contextmanager
    def borrow(
        self, file: FileState, counters: Counters, cancel: CancelToken | None = None, with_sidecars: bool = False
    ) -> Iterator[Raster]:
        """A raster from the pool, or newly opened, for the calling thread; errors as :class:`Raster`.

        ``with_sidecars`` opens sidecar files of a remote TIFF, such as its mask, even if the pool skips them.
        """
        skip_sidecars = self.skip_sidecars and not with_sidecars and Location.of(file.href).has_ranges
        raster = self._take((file.href, skip_sidecars, _checked(file), file.access, file.access.origin))
        if raster is None:
            raster = Raster(file, counters, cancel, skip_sidecars)
        else:
            counters.add(metrics.DATASET_CACHE_HITS)
        try:
            yield raster
        except BaseException:
            # Its state is unknown after an error, so a retry opens the file again.
            raster.close()
            raise
        self._give_back(raster)

    def _take(self, name: OpenName) -> Raster | None:
        with self._lock:
            return self._remove(name) if name in self._idle else None

    def _remove(self, name: OpenName) -> Raster:
        rasters = self._idle[name]
        raster = rasters.pop()
        if not rasters:
            del self._idle[name]
        self._count -= 1
        self._bytes -= raster.held_bytes
        return raster

    def _give_back(self, raster: Raster) -> None:
        evicted = []
        with self._lock:
            name = raster.name
            self._idle.setdefault(name, []).append(raster)
            self._idle.move_to_end(name)
            self._count += 1
            self._bytes += raster.held_bytes
            while self._count and (self._count > self.max_open or self._bytes > self.max_bytes):
                evicted.append(self._remove(next(iter(self._idle))))
        for oldest in evicted:
            oldest.close()

    def close(self) -> None:
        """Close all rasters; the pool can be used again."""
        with self._lock:
            self._count = self._bytes = 0
            _close_all(self._idle)


def _close_all(idle: Idle) -> None:
    while idle:
        for raster in idle.popitem()[1]:
            raster.close()
