"""Keep a reader open where a slice of a table ends, for the slice that begins there.

Parquet row groups and CSV files can be read only from their starts, so each slice would read again what others have
read. The rows of a slice do not depend on it: a process without the reader reads the part from its start.
"""

from collections.abc import Callable, Hashable, Iterator
from threading import Lock
from typing import NamedTuple

import pyarrow as pa


class Held(NamedTuple):
    """A reader: the number of its next row, rows that were read already, and the following ones."""

    row: int
    rest: pa.RecordBatch | None
    batches: Iterator[pa.RecordBatch]


_held: dict[Hashable, Held] = {}
_lock = Lock()


def rows_of(
    key: Hashable, opened: Callable[[], Iterator[pa.RecordBatch]], skip: int, most: int
) -> Iterator[pa.RecordBatch]:
    """At most ``most`` rows of a part of a table, after the first ``skip``.

    Parameters
    ----------
    key : hashable
        Identifies the part and the columns that are read.
    opened : callable
        Reads the part from its start.
    """
    reader = _take(key, skip) or Held(0, None, opened())
    while reader.row < skip + most:
        batch = reader.rest if reader.rest is not None else next(reader.batches, None)
        if batch is None:
            return
        end = reader.row + len(batch)
        wanted = batch.slice(max(0, skip - reader.row), max(0, min(end, skip + most) - max(skip, reader.row)))
        rest = batch.slice(skip + most - reader.row) if end > skip + most else None
        reader = Held(min(end, skip + most), rest, reader.batches)
        if len(wanted):
            yield wanted
    with _lock:
        _held.clear()
        _held[key] = reader


def _take(key: Hashable, row: int) -> Held | None:
    with _lock:
        found = _held.pop(key, None)
    return found if found is not None and found.row == row else None


def close_readers() -> None:
    """Close the reader that the last slice has left."""
    with _lock:
        _held.clear()
