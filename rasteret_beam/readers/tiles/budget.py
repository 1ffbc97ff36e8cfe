"""What a process may hold: its caches, from one number, and rows that wait to be written."""

from dataclasses import dataclass

from rasteret_beam.errors import InputError

DEFAULT_CACHE_BYTES = 256 << 20
"""Safe beside everything else on a worker of 4 GB, also with a process for each of 4 cores."""

LEAST_CACHE_BYTES = 4 << 20

ROW_GROUP_ROWS, ROW_GROUP_BYTES = 1 << 19, 64 << 20
"""Of a Parquet file of rows: a row group is written when it has as many, and held in memory until then."""


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
        Fewer than :data:`LEAST_CACHE_BYTES`.
    """

    total: int = DEFAULT_CACHE_BYTES

    def __post_init__(self) -> None:
        if isinstance(self.total, bool) or not isinstance(self.total, int) or self.total < LEAST_CACHE_BYTES:
            raise InputError(
                f"cache_bytes is {self.total!r}; it has to be a whole number of at least {LEAST_CACHE_BYTES}"
            )

    @property
    def share(self) -> int:
        """Bytes of each cache."""
        return self.total // 4
