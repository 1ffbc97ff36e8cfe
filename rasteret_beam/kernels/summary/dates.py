"""Rows counted by day; or by month or year, where there are too many days."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.kernels.summary.tally import Ints

UNITS = ("D", "M", "Y")
MOST_DATES = 4096
MICROSECONDS_OF_DAY = 86_400_000_000


@dataclass
class Dates:
    """Counts by date.

    Attributes
    ----------
    unit : str
        Of :data:`UNITS`: the finest in which the dates are not more than the limit.
    counts : {number since 1970: count}
    without : int
        Rows without a date.
    """

    unit: str = "D"
    counts: dict[int, int] = field(default_factory=dict)
    without: int = 0

    def add(self, microseconds: Ints) -> None:
        """Add moments since 1970 [n]."""
        if not len(microseconds):
            return
        if microseconds[0] == microseconds[-1] and (microseconds == microseconds[0]).all():
            days, many = microseconds[:1] // MICROSECONDS_OF_DAY, np.array([len(microseconds)])
        else:
            days, many = np.unique(microseconds // MICROSECONDS_OF_DAY, return_counts=True)
        self._add(days, many, "D")

    def merge(self, other: "Dates") -> None:
        """Add other counts."""
        if UNITS.index(other.unit) > UNITS.index(self.unit):
            self._coarsen(other.unit)
        self._add(np.array([*other.counts], dtype=np.int64), np.array([*other.counts.values()]), other.unit)
        self.without += other.without

    def _add(self, keys: Ints, many: Any, unit: str) -> None:
        for key, count in zip(_as(keys, unit, self.unit).tolist(), many.tolist(), strict=True):
            self.counts[key] = self.counts.get(key, 0) + int(count)
        while len(self.counts) > MOST_DATES and self.unit != UNITS[-1]:
            self._coarsen(UNITS[UNITS.index(self.unit) + 1])

    def _coarsen(self, unit: str) -> None:
        counts, before = self.counts, self.unit
        self.counts, self.unit = {}, unit
        self._add(np.array([*counts], dtype=np.int64), np.array([*counts.values()]), before)

    def sorted(self) -> tuple[NDArray[Any], Ints]:
        """The dates, as datetime64 of the unit, and their counts."""
        keys = np.array(sorted(self.counts), dtype=np.int64)
        return keys.astype(f"M8[{self.unit}]"), np.array([self.counts[key] for key in keys.tolist()], dtype=np.int64)


def _as(keys: Ints, unit: str, wanted: str) -> Ints:
    return keys if unit == wanted else keys.astype(f"M8[{unit}]").astype(f"M8[{wanted}]").astype(np.int64)
