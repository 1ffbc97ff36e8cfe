"""Local copies of remote files, for libraries that read only local ones."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.filesystems import FileSystems

from rasteret_beam.errors import MissingInputError, RasteretBeamError, one_line, without_secrets
from rasteret_beam.model import Access
from rasteret_beam.readers.storage.byte_ranges import FileState, RangeError, RangeReader
from rasteret_beam.readers.storage.local_files import denied, writing
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.readers.storage.objects import is_denied
from rasteret_beam.transforms.runtime.files import open_file

IDLE = 2
"""Copies that are kept for the next reader of a file, besides those in use."""

MISREAD = "!?"
"""Characters of paths that pyogrio takes for parts of a URI."""


@dataclass(eq=False)
class _Copy:
    """A folder with a copy of a file and of its side files."""

    folder: tempfile.TemporaryDirectory = field(
        default_factory=lambda: tempfile.TemporaryDirectory(prefix="rasteret-beam-")
    )
    lock: Lock = field(default_factory=Lock)
    users: int = 0
    is_whole: bool = False


_copies: dict[tuple, _Copy] = {}
_lock = Lock()


@contextmanager
def local_copy(path: str, access: Access, beside: Sequence[str] = (), job: str = "") -> Iterator[str]:
    """The absolute path of a local file, or of a copy of a remote one, which is kept while it is in use.

    Parameters
    ----------
    path : str
    access : Access
    beside : sequence of str
        Endings of side files, which replace that of the file; those that do not exist are left out.
    job : str
        Names the job that shares a copy where the server does not tell by an ETag whether the file has changed.

    Raises
    ------
    MissingInputError, PermissionDeniedError, OutputError
        The file cannot be read, or the copy cannot be written.
    """
    if not Location.of(path).is_remote and not any(mark in path for mark in MISREAD):
        _check_local(path)
        yield os.path.abspath(path)
        return
    key = path, access, _state(path, access, job)
    with _lock:
        copy = _copies.pop(key, None) or _Copy()
        _copies[key] = copy  # the latest are at the end
        copy.users += 1
    try:
        with copy.lock:
            local = os.path.join(copy.folder.name, local_name(path))
            if not copy.is_whole:
                _fill(path, access, beside, local)
                copy.is_whole = True
        yield local
    finally:
        _release(copy)


def _release(copy: _Copy) -> None:
    with _lock:
        copy.users -= 1
        idle = [key for key, each in _copies.items() if not each.users]
        for key in idle[: max(0, len(idle) - IDLE)]:
            _copies.pop(key).folder.cleanup()


def local_name(path: str) -> str:
    """The name of a file, without characters that have a meaning in URIs, and without the query of a URL."""
    name = os.path.basename(_split(path)[0])
    return "".join("_" if mark in MISREAD else mark for mark in name)


def side_file(path: str, ending: str) -> str:
    """The path of a side file: another ending in the same case, and the same query of a URL."""
    name, query = _split(path)
    stem, own = os.path.splitext(name)
    return stem + (ending.upper() if own.isupper() else ending) + query


def _split(path: str) -> tuple[str, str]:
    """A path, and the query of a URL with its question mark."""
    name, mark, query = path.partition("?") if Location.of(path).is_web else (path, "", "")
    return name, mark + query


def _check_local(path: str) -> None:
    try:
        with open(path, "rb"):
            return
    except PermissionError as error:
        raise denied(path) from error
    except OSError as error:
        raise MissingInputError(f"{path} cannot be opened: {one_line(error)}") from error


def _state(path: str, access: Access, job: str) -> str:
    """What changes with a remote file."""
    name = without_secrets(path)
    try:
        if not Location.of(path).is_remote:
            found = os.stat(path)
            return f"{found.st_size} {found.st_mtime_ns}"
        if Location.of(path).is_object:
            state = RangeReader().state(FileState(path, access=access))
            return f"{state.size} {state.etag or job}"
        (match,) = FileSystems.match([path])[0].metadata_list
        return f"{match.size_in_bytes} {match.last_updated_in_seconds}"
    except (RangeError, BeamIOError, OSError, ValueError) as error:
        raise MissingInputError(f"{name} cannot be opened: {one_line(error)}") from error


def _fill(path: str, access: Access, beside: Sequence[str], local: str) -> None:
    try:
        _fetch(path, access, local)
    except RasteretBeamError:
        raise
    except (OSError, BeamIOError) as error:
        raise MissingInputError(f"{without_secrets(path)} cannot be read: {one_line(error)}") from error
    for ending in beside:
        try:
            _fetch(side_file(path, ending), access, os.path.splitext(local)[0] + ending)
        except (OSError, BeamIOError) as error:
            # A bucket without permission to list answers 403 for missing objects.
            if not (isinstance(error, FileNotFoundError | BeamIOError) or is_denied(error)):
                raise


def _fetch(path: str, access: Access, local: str) -> None:
    with (
        open_file(path, access, to_the_end=True) as source,
        writing(local, "the local copy"),
        open(local, "wb") as file,
    ):
        shutil.copyfileobj(source, file, 4 << 20)
