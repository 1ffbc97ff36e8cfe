"""Ownership of temporary folders: an active process holds a lock on a file in its folder."""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rasteret_beam.readers.storage.location import Location
from rasteret_beam.transforms.runtime.files import delete_folder
from rasteret_beam.transforms.sinks.commit import Output

OWNER = "_owner"


@contextmanager
def owner(output: Output) -> Iterator[None]:
    """Hold the lock of an output's local temporary folder; a killed process releases it."""
    if Location.of(output.path).is_remote:
        yield
        return
    os.makedirs(output.temporary, exist_ok=True)
    descriptor = os.open(f"{output.temporary}/{OWNER}", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def remove_abandoned(output: Output) -> tuple[Sequence[str], Sequence[str]]:
    """Remove the temporary folders of killed runs beside an output.

    Returns
    -------
    removed, left : sequence of str
        Folders in ``left`` may belong to active runs: they are locked, were not made by a local command, or are in a
        bucket.
    """
    removed, left = [], []
    for folder in output.others():
        if is_abandoned(folder):
            delete_folder(folder)
            removed.append(folder)
        else:
            left.append(folder)
    return removed, left


def is_active(folder: str) -> bool:
    """Whether a process of this machine uses a temporary folder; never for a folder in a bucket."""
    is_marked = not Location.of(folder).is_remote and os.path.exists(f"{folder}/{OWNER}")
    return is_marked and not is_abandoned(folder)


def is_abandoned(folder: str) -> bool:
    """Whether a temporary folder belongs to a local command that was killed."""
    path = f"{folder}/{OWNER}"
    if Location.of(folder).is_remote or not os.path.exists(path):
        return False
    descriptor = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True
