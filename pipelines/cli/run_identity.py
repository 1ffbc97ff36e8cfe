"""What the rows of a run depend on, to tell whether a run can be resumed."""

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from rasteret_beam import __version__
from rasteret_beam.collection.collection import Collection
from rasteret_beam.collection.parquet.versions import files_now
from rasteret_beam.errors import InputError, MissingInputError, without_secrets
from rasteret_beam.model import Access
from rasteret_beam.quality import Quality
from rasteret_beam.readers.storage.byte_ranges import FileState, RangeError, RangeReader
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.transforms.runtime.files import find_files
from rasteret_beam.transforms.sources.vector_files import side_files

NOT_IN_ROWS = ("resume", "verbose", "plan", "cache_mb", "round_points", "iceberg_property")
"""Flags that do not change the rows of a run."""

Identity = dict[str, str]
"""Facts by name, such as ``--match`` or ``file of --points a.parquet``."""


def identity(
    flags: argparse.Namespace, collection: Collection, points_access: Access, sizes: Sequence[int | None]
) -> Identity:
    """The program, flags, input files, parts of these, and files of the collection of a run.

    Raises
    ------
    MissingInputError
        A file cannot be found.
    """
    found = {"rasteret_beam": __version__}
    for name, value in vars(flags).items():
        if name not in NOT_IN_ROWS and value not in (None, False):
            found[f"--{name}"] = _shown(value)
    for path in find_files(flags.points, points_access):
        found[f"{without_secrets(path)} of --points"] = _state(path, points_access)
        for beside in side_files(path):
            with suppress(MissingInputError, FileNotFoundError):
                found[f"{without_secrets(beside)} of --points"] = _state(beside, points_access)
    found["the number of row groups of --points"] = f"{len(sizes)}"
    rows = [size for size in sizes if size is not None]
    found["the number of rows of --points"] = f"{sum(rows)}" + ("" if len(rows) == len(sizes) else " or more")
    found |= dict(_files(collection))
    return found


def _files(collection: Collection) -> Iterator[tuple[str, str]]:
    assert collection.path is not None
    for file in files_now(collection.path, collection.access):
        mark = f"ETag {file.etag}" if Location.of(file.url).is_remote else _time(int(file.etag))
        yield f"{without_secrets(file.url)} of --collection", f"{file.size} bytes, {mark}"


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return ",".join(f"{name}:{each}" for name, each in value.items())
    if isinstance(value, list | tuple):
        separator = "; " if any(isinstance(each, Quality) for each in value) else ","
        return separator.join(without_secrets(str(each)) for each in value)
    return without_secrets(str(value))


def _state(path: str, access: Access) -> str:
    if not Location.of(path).is_remote:
        found = os.stat(path)
        return f"{found.st_size} bytes, {_time(found.st_mtime_ns)}"
    try:
        state = RangeReader().state(FileState(path, access=access))
    except RangeError as error:
        raise MissingInputError(f"{without_secrets(path)} cannot be read: {error}") from error
    return f"{state.size} bytes, ETag {state.etag}"


def _time(nanoseconds: int) -> str:
    return f"changed {datetime.fromtimestamp(nanoseconds // 10**9, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds % 10**9:09d}Z"


def check_same(before: Mapping[str, str], now: Mapping[str, str], began: str) -> None:
    """Refuse to resume a run that would give other rows.

    Raises
    ------
    InputError
        Names the first difference, and both values.
    """
    for name in [*now, *(name for name in before if name not in now)]:
        old, new = before.get(name, "not given"), now.get(name, "not given")
        if old != new:
            raise InputError(
                f"--resume cannot continue the run that began {began}: {name} was {old} and is {new}; restore it, or "
                "leave out --resume to start anew"
            )
