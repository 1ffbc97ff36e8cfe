"""What a process may hold: its caches, from one number, and rows that wait to be written."""

import os
from dataclasses import dataclass

from rasteret_beam.job_options import DEFAULT_CACHE_BYTES, check_cache_bytes

ROW_GROUP_ROWS, ROW_GROUP_BYTES = 1 << 19, 64 << 20
"""Of a Parquet file of rows: a row group is written when it has as many, and held in memory until then."""

MOST_WRITERS = 8


def writers() -> int:
    """How many row groups a process writes at the same time: one for each core."""
    return min(MOST_WRITERS, os.cpu_count() or 1)


@dataclass(frozen=True)
class CacheBudget:
    """A quarter each for decoded tiles, open files, tile offsets of the collection's bands, and GDAL's blocks.

    Attributes
    ----------
    total : int
        Bytes.

    Raises
    ------
    InputError
        Fewer than :data:`rasteret_beam.job_options.LEAST_CACHE_BYTES`.
    """

    total: int = DEFAULT_CACHE_BYTES

    def __post_init__(self) -> None:
        check_cache_bytes(self.total)

    @property
    def share(self) -> int:
        """Bytes of each cache."""
        return self.total // 4
