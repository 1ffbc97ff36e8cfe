"""Local files: open only regular files and detect changed ones.

A file's state is its size and a digest of its header (:func:`.tiff_header.header_digest`), not its modification time,
so that a copy of a collection and its rasters remains valid. The digest is computed once per file and process, and
again when the file system reports a change.
"""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from threading import Lock

from rasteret_beam.readers.gdal.tiff_header import header_digest
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.readers.storage.stores import local_path

STALE = "the file was changed after the collection was built, so its index is stale; build it again"

KEPT = 1 << 16
"""Number of files whose digests are cached."""

KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}

Version = tuple[int, ...]
"""Facts of the file system that change whenever a file is written."""

_digests: dict[tuple[str, Version], str] = {}
_lock = Lock()


class LocalFileError(Exception):
    """A local file is not regular, or has changed since it was indexed."""


def check_kind(path: str) -> None:
    """Refuse files that may have no end or block when they are opened.

    Raises
    ------
    LocalFileError
        It is a device, a named pipe or a socket.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return  # missing, or a name for GDAL; opening it gives the reason
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise LocalFileError(f"it is {KINDS.get(stat.S_IFMT(mode), 'something else')}, not a regular file")


@contextmanager
def opened(path: str) -> Iterator[tuple[FileIO, os.stat_result]]:
    """A regular file, opened for unbuffered reading.

    Raises
    ------
    LocalFileError
        It is not a regular file.
    OSError
        It cannot be opened.
    """
    check_kind(path)
    with open(path, "rb", buffering=0, opener=_without_waiting) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise LocalFileError(f"it is {KINDS.get(stat.S_IFMT(found.st_mode), 'something else')}, not a regular file")
        yield file, found


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def version_of(found: os.stat_result) -> Version:
    """The file system's facts about a file."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def check_unchanged(path: str, file: FileIO, found: os.stat_result, size: int | None, digest: str | None) -> None:
    """Compare an open file with the state in a collection, as far as it is known.

    Raises
    ------
    LocalFileError
        It has another size or another header.
    """
    if size is not None and found.st_size != size:
        raise LocalFileError(f"{STALE} (it has {found.st_size} bytes, in the collection {size})")
    if digest is None:
        return
    key = path, version_of(found)
    known = _digests.get(key)
    if known is None:
        known = header_digest(file, found.st_size)
        with _lock:
            if len(_digests) >= KEPT:
                _digests.clear()
            _digests[key] = known
    if known != digest:
        raise LocalFileError(f"{STALE} (the digest of its header is {known}, in the collection {digest})")


def check_file(href: str, size: int | None, digest: str | None) -> Version | None:
    """Check a file before GDAL opens it; returns the state of a regular file.

    Raises
    ------
    LocalFileError
        As :func:`check_kind` and :func:`check_unchanged`.
    """
    if Location.of(href).is_remote or href.startswith("/vsi"):
        return None
    path = local_path(href)
    check_kind(path)
    if not os.path.isfile(path):
        return None
    try:
        with opened(path) as (file, found):
            check_unchanged(path, file, found, size, digest)
            return version_of(found)
    except OSError:
        return None  # it cannot be opened, and GDAL gives the reason
