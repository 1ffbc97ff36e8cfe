"""Means of values by group and moment, of any number of rows, in bounded memory."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasteret_beam.plot.sample_columns import Batch

STEPS = {None: "us", "hour": "h", "day": "D", "month": "M", "year": "Y"}
"""What counts as one moment, from fine to coarse: NumPy's units."""

MAX_MOMENTS = 2_000
MAX_COUNTED = 10_000
"""Groups that are counted; of more, the number is not known."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Means:
    """A row for each group and moment.

    Attributes
    ----------
    group : [n] int64
        Number of the group.
    moment : [n] datetime64[us]
    count : [n] float64
        Valid values; 0 where all are invalid.
    mean, squares : [n] float64
        Of the valid values, and the sum of their squared distances from it.
    """

    group: NDArray[np.int64]
    moment: NDArray[np.datetime64]
    count: Floats
    mean: Floats
    squares: Floats

    @classmethod
    def empty(cls) -> "Means":
        return cls(np.empty(0, np.int64), np.empty(0, "datetime64[us]"), np.empty(0), np.empty(0), np.empty(0))

    def columns(self) -> tuple[NDArray[Any], ...]:
        return self.group, self.moment, self.count, self.mean, self.squares

    def take(self, rows: NDArray[Any]) -> "Means":
        return Means(*(column[rows] for column in self.columns()))

    def joined(self, other: "Means", unit: str) -> "Means":
        """Both, with a row for each group and moment of this unit (Chan, Golub and LeVeque 1979)."""
        group, moment, count, mean, squares = map(np.concatenate, zip(self.columns(), other.columns(), strict=True))
        moment = moment.astype(f"datetime64[{unit}]").astype("datetime64[us]")
        _, at = np.unique(moment.astype(np.int64), return_inverse=True)
        pairs = group * (len(at) + 1) + at
        _, first, row = np.unique(pairs, return_index=True, return_inverse=True)
        total = np.bincount(row, count, len(first)).astype(np.float64)
        with np.errstate(invalid="ignore"):
            middle = np.bincount(row, count * mean, len(first)) / total
        middle[total == 0] = 0.0
        apart = squares + count * (mean - middle[row]) ** 2
        squares = np.bincount(row, apart, len(first)).astype(np.float64)
        return Means(group[first], moment[first], total, middle.astype(np.float64), squares)

    def spread(self) -> Floats:
        """Standard deviations of the valid values."""
        with np.errstate(invalid="ignore"):
            return np.sqrt(self.squares / self.count)


class Groups:
    """The first groups, in the order of their names, as far as batches have been read.

    Parameters
    ----------
    by : str or None
        The column with the groups; all rows are one group without it.
    limit : int
    every : str or None
        Of :data:`STEPS`; a coarser one is taken where there are more than :data:`MAX_MOMENTS` moments.
    """

    def __init__(self, by: str | None, limit: int, every: str | None):
        self.by, self.limit, self.every = by, limit, every
        self.means = Means.empty()
        self.names: pa.Array | None = None
        self._known: pa.Array | None = None
        self.undated = 0
        self.more_than_counted = False

    @property
    def count(self) -> int:
        return len(self._known) if self._known is not None else 1

    def add(self, batch: Batch) -> None:
        """The rows of a batch, with its column ``datetime``."""
        moment = batch.moments("datetime")
        dated = ~np.isnat(moment)
        self.undated += int((~dated).sum())
        group = self._numbers(batch.columns[self.by]) if self.by is not None else np.zeros(len(batch), np.int64)
        chosen = dated & (group >= 0)
        value = batch.value[chosen]
        valid = np.isfinite(value)
        columns = group[chosen], moment[chosen], valid.astype(np.float64), np.where(valid, value, 0.0)
        self.means = self.means.joined(Means(*columns, np.zeros(len(value))), STEPS[self.every])
        coarser = list(STEPS)
        while len(np.unique(self.means.moment)) > MAX_MOMENTS and self.every != coarser[-1]:
            self.every = coarser[coarser.index(self.every) + 1]
            self.means = self.means.joined(Means.empty(), STEPS[self.every])

    def _numbers(self, column: pa.Array) -> NDArray[np.int64]:
        """The number of each row's group, -1 for those beyond the first ones."""
        here = pc.unique(column)
        self._count(here)
        earlier = self.names
        names = here if earlier is None else pc.unique(pa.concat_arrays([earlier, here]))
        self.names = names.take(pc.sort_indices(names)[: self.limit])
        if earlier is not None:
            moved = _places(earlier, self.names)[self.means.group]
            self.means = Means(moved, *self.means.columns()[1:]).take(moved >= 0)
        return _places(column, self.names)

    def _count(self, here: pa.Array) -> None:
        if self.more_than_counted:
            return
        known = here if self._known is None else pc.unique(pa.concat_arrays([self._known, here]))
        self.more_than_counted = len(known) > MAX_COUNTED
        self._known = known[:MAX_COUNTED]


def _places(names: pa.Array, among: pa.Array) -> NDArray[np.int64]:
    found = pc.fill_null(pc.index_in(names, value_set=among), -1)
    return found.to_numpy(zero_copy_only=False).astype(np.int64)
