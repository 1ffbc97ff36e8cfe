"""Local files: kinds of paths, files of folders and globs, and errors of reading and writing."""

import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from errno import EACCES, EDQUOT, EFBIG, ELOOP, ENOSPC, EPERM, EROFS
from functools import cache
from typing import Literal

from rasteret_beam.errors import (
    InputError,
    OutOfMemoryError,
    OutputError,
    PermissionDeniedError,
    RasteretBeamError,
    one_line,
    without_secrets,
)
from rasteret_beam.kernels.storage.globs import Selection

log = logging.getLogger(__name__)

Kind = Literal["file", "folder"]

OTHERS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


def denied(path: str) -> PermissionDeniedError:
    """The error about a path without read permission; names the folder or file that denies it."""
    closed = path = path.rstrip("/") or path
    while not os.path.lexists(closed) and os.path.dirname(closed) not in ("", closed):
        closed = os.path.dirname(closed)
    inside = "" if closed == path else f", so {path} cannot be reached"
    need = "read and search permission (r-x)" if os.path.isdir(closed) else "read permission"
    return PermissionDeniedError(
        f"permission denied: {closed} may not be read by user {os.geteuid()}{inside}; give it {need}, or run this as "
        "another user"
    )


def stat_of(path: str) -> os.stat_result | None:
    """The kind of a path, with links followed; None if it does not exist.

    Raises
    ------
    PermissionDeniedError
        A parent folder may not be searched.
    """
    try:
        return os.stat(path)
    except PermissionError as error:
        raise denied(path) from error
    except (OSError, ValueError):  # missing, a loop of links, a file instead of a folder, or an invalid name
        return None


def exists(path: str) -> bool:
    """As ``os.path.exists``, except that a parent folder without search permission is an error.

    Raises
    ------
    PermissionDeniedError
    """
    return stat_of(path) is not None


def kind_of(path: str) -> Kind | None:
    """Whether a path is a regular file or a folder; None if it does not exist.

    Raises
    ------
    InputError
        It is something else, and reading it might block.
    PermissionDeniedError
    """
    found = stat_of(path)
    if found is None:
        return None
    if stat.S_ISREG(found.st_mode):
        return "file"
    if stat.S_ISDIR(found.st_mode):
        return "folder"
    raise InputError(
        f"{path} is {OTHERS.get(stat.S_IFMT(found.st_mode), 'something else')}, not a regular file; files are read "
        "more than once and at random positions, so write it to a file first"
    )


WAYS_OUT = {
    ENOSPC: "free space on its disk, or write to another",
    EDQUOT: "free some of the quota of this user, or write to another disk",
    EFBIG: "the file is too large for its disk or for the limit of this process (ulimit -f)",
    EROFS: "its disk is mounted read-only; write to another",
    EACCES: "give this user write permission there, or write to another folder",
    EPERM: "give this user write permission there, or write to another folder",
}
MORE_MEMORY = "give the machine more memory, run fewer worker processes on it, or lower cache_bytes"


@contextmanager
def writing(path: str, what: str = "output") -> Iterator[None]:
    """Turn errors of writing a local file, and out-of-memory errors, into errors that name the file and what to do.

    Raises
    ------
    OutputError, OutOfMemoryError
    """
    try:
        yield
    except RasteretBeamError:
        raise
    except MemoryError as error:
        raise OutOfMemoryError(
            f"memory ran out while {what} {without_secrets(path)} was written; {MORE_MEMORY}"
        ) from error
    except OSError as error:
        if error.errno is None:
            raise
        raise OutputError(f"{what} {without_secrets(path)} cannot be written: {why_not_written(error)}") from error


def why_not_written(error: OSError) -> str:
    """A system error on one line, with advice if there is any."""
    way_out = WAYS_OUT.get(error.errno or 0)
    return one_line(error) + (f"; {way_out}" if way_out else "")


@contextmanager
def in_memory(what: str, way_out: str = MORE_MEMORY) -> Iterator[None]:
    """Name the data that does not fit into memory.

    Raises
    ------
    OutOfMemoryError
    """
    try:
        yield
    except RasteretBeamError:
        raise
    except MemoryError as error:
        raise OutOfMemoryError(f"{without_secrets(what)} does not fit into memory; {way_out}") from error


@dataclass(frozen=True)
class _Folder:
    """A folder of the walk: its path with ``/``, its real path, and the identities of its parents."""

    path: str
    real: str
    above: frozenset[tuple[int, int]] = frozenset()
    is_linked: bool = False


@dataclass
class Walk:
    """The regular files of a selection as (path, real path, whether a part of the path below the root is a link).

    A link to a parent folder is not followed. Folders without links in their paths come first, and if all files are
    selected each folder is entered once, so that a link beside its target adds nothing.
    """

    selection: Selection
    _seen: set[tuple[int, int]] = field(default_factory=set)

    def __iter__(self) -> Iterator[tuple[str, str, bool]]:
        root = self.selection.root
        top = os.path.realpath(root or ".")
        waiting, linked = [_Folder(root, top)], list[_Folder]()
        while waiting or linked:
            folder = waiting.pop() if waiting else linked.pop(0)
            entered = self._enter(folder)
            if entered is None:
                continue
            for entry in _entries(folder.path):
                path = folder.path + entry.name
                enters, takes = self.selection.folders.fullmatch(path + "/"), self.selection.files.fullmatch(path)
                if not (enters or takes):
                    continue
                is_link = entry.is_symlink()
                real = os.path.realpath(path) if is_link else os.path.join(folder.real, entry.name)
                if _is_folder(entry):
                    if enters:
                        (linked if is_link else waiting).append(
                            _Folder(path + "/", real, entered, folder.is_linked or is_link)
                        )
                elif takes and _is_regular(entry):
                    yield path, real, folder.is_linked or is_link

    def _enter(self, folder: _Folder) -> frozenset[tuple[int, int]] | None:
        """The identities of the folder and its parents; None if it must not be read again."""
        found = stat_of(folder.path or ".")
        if found is None:
            return None
        identity = found.st_dev, found.st_ino
        if identity in (self._seen if self.selection.is_whole else folder.above):
            return None
        self._seen.add(identity)
        return folder.above | {identity}


def _entries(folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder or ".") as found:
            return sorted(found, key=lambda entry: entry.name)
    except PermissionError as error:
        raise denied(folder) from error
    except (FileNotFoundError, NotADirectoryError):
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except PermissionError as error:
        raise denied(entry.path) from error
    except OSError as error:
        if error.errno == ELOOP:
            return False
        raise


@cache
def _report(path: str, target: str) -> None:
    """Log once per process, as files are listed more than once."""
    log.warning("ignoring %s: it is a link to %s, which does not exist", path, target)


def _is_regular(entry: os.DirEntry[str]) -> bool:
    """Whether it is a regular file; a dangling link is logged and skipped."""
    if not entry.is_symlink():
        return entry.is_file(follow_symlinks=False)
    found = stat_of(entry.path)
    if found is None:
        _report(os.path.abspath(entry.path), os.readlink(entry.path))
    return found is not None and stat.S_ISREG(found.st_mode)
