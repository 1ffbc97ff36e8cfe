"""A summary of numbers: count, extremes, mean, standard deviation, and a sketch of their distribution.

The sketch counts values by the leading bits of their floating-point form, as many bits as keep to a limit of counts.
So up to that many different values are counted exactly, as of an 8-bit band, and of others the values of one count
differ by a relative error that :attr:`Values.relative_error` gives. This is the idea of DDSketch (Masson, Rim and Lee,
2019), with bits for logarithms. The state follows from the values alone: neither their order nor how they are divided
makes a difference.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.kernels.summary.tally import Floats, Ints, Tally, level_of

DENSE = 4
"""Keys are counted in an array if their range is at most so many times their number."""

SIGN = np.int64(np.iinfo(np.int64).min)


def keys_of(values: Floats) -> Ints:
    """Whole numbers in the order of float64 values, equal for equal values."""
    bits = (values + 0.0).view(np.int64)  # -0.0 becomes 0.0
    return np.where(bits >= 0, bits, SIGN - bits) if (bits < 0).any() else bits


def values_of(keys: Ints) -> Floats:
    """The values of whole numbers that :func:`keys_of` gives."""
    return np.where(keys >= 0, keys, SIGN - keys).astype(np.int64).view(np.float64)


def counted(keys: NDArray[Any]) -> tuple[Ints, Ints]:
    """The different ones of keys [n], n > 0, in order, and how many there are of each."""
    low, high = int(keys.min()), int(keys.max())
    if high - low > DENSE * len(keys) + 1024:
        ordered = np.sort(keys)
        starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
        return ordered[starts], np.diff(starts, append=len(ordered))
    many = np.bincount(keys - low)
    there = np.flatnonzero(many)
    return there + low, many[there]


def whole_numbers(values: NDArray[Any]) -> NDArray[np.int32] | None:
    """Values as integers, if all are, and in a range that can be counted in an array."""
    low, high = values.min(), values.max()
    if not (low >= -(2**31) and high < 2**31 and float(high) - float(low) <= DENSE * len(values) + 65_536):
        return None
    whole = values.astype(np.int32)
    return whole if values.dtype.kind in "iu" or (whole == values).all() else None


@dataclass
class Values:
    """A summary of numbers that are finite.

    Attributes
    ----------
    count : int
    mean, squares : float
        Of the values; sum of the squares of their differences from the mean.
    low, high : float
        The extremes; infinite where there is no value.
    tally : Tally
        Of the sketch.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    low: float = np.inf
    high: float = -np.inf
    tally: Tally = field(default_factory=lambda: Tally(1))

    def add(self, values: NDArray[Any]) -> None:
        """Add finite numbers [n] of any type."""
        if not len(values):
            return
        whole = whole_numbers(values)
        if whole is not None:
            found, many = counted(whole)
            self._add_counts(found.astype(np.float64), many)
            return
        numbers = values.astype(np.float64, copy=False)
        with np.errstate(over="ignore", invalid="ignore"):  # of values whose squares are beyond float64
            mean = float(numbers.mean())
            self._add_moments(len(numbers), mean, float(np.square(numbers - mean).sum()))
        self.low, self.high = min(self.low, float(numbers.min())), max(self.high, float(numbers.max()))
        keys = keys_of(numbers)
        if len(self.tally.keys) < self.tally.limit // 4:  # its level is not found yet
            self.tally.coarsen(level_of(np.sort(keys), self.tally.limit, self.tally.level))
        keys, many = counted(keys >> self.tally.level)
        self.tally.add(keys, many[:, None].astype(np.float64), self.tally.level)

    def _add_counts(self, found: Floats, many: Ints) -> None:
        """Add different values, in order, each so many times."""
        count = int(many.sum())
        mean = float((found * many).sum()) / count
        self._add_moments(count, mean, float((np.square(found - mean) * many).sum()))
        self.low, self.high = min(self.low, float(found[0])), max(self.high, float(found[-1]))
        self.tally.add(keys_of(found), many[:, None].astype(np.float64), 0)

    def merge(self, other: "Values") -> None:
        """Add another summary."""
        self._add_moments(other.count, other.mean, other.squares)
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.tally.merge(other.tally)

    def _add_moments(self, count: int, mean: float, squares: float) -> None:
        """Chan, Golub and LeVeque (1979)."""
        if not count:
            return
        total, apart = self.count + count, mean - self.mean
        self.squares += squares + apart * apart * (self.count / total) * count
        self.mean += apart * (count / total)
        self.count = total

    @property
    def std(self) -> float:
        """The standard deviation of the population; NaN of no values."""
        return float(np.sqrt(self.squares / self.count)) if self.count else float("nan")

    @property
    def is_exact(self) -> bool:
        """Whether every different value is counted apart."""
        return self.tally.level == 0

    @property
    def relative_error(self) -> float:
        """Of a quantile, at most: the values of one count differ by this part of them, but for those near 0."""
        return 0.0 if self.tally.level == 0 else float(2.0 ** min(self.tally.level - 52, 0))

    def bins(self) -> tuple[Floats, Floats, Floats]:
        """The least and the greatest value [k] of each count, in order, and the counts."""
        keys, level = self.tally.keys, self.tally.level
        first = values_of(keys << level)
        last = values_of((keys << level) + ((1 << level) - 1)) if level else first
        inside = np.nan_to_num(np.stack([first, last]), nan=0.0, posinf=np.inf, neginf=-np.inf)
        first, last = np.clip(inside, self.low, self.high)
        return first, last, self.tally.sums[:, 0]

    def quantiles(self, parts: list[float]) -> list[float]:
        """The values at or below which these parts of all values lie; NaN of no values."""
        first, last, many = self.bins()
        if not len(many):
            return [float("nan")] * len(parts)
        wanted = np.clip(np.ceil(np.round(np.array(parts) * self.count, 6)), 1, self.count)
        at = np.searchsorted(np.cumsum(many), wanted)
        middle = first / 2 + last / 2
        found = np.where(first == last, first, middle)[at]
        found = np.where(np.array(parts) <= 0, self.low, np.where(np.array(parts) >= 1, self.high, found))
        return [float(each) for each in found]

    def histogram(self, edges: Floats) -> Floats:
        """Counts between edges; a count of the sketch that lies across an edge is shared by its length."""
        first, last, many = self.bins()
        up_to = np.concatenate([[0.0], np.cumsum(many)])
        if not len(many):
            return np.zeros(len(edges) - 1)
        at = np.searchsorted(last, edges, side="left")  # counts that end before each edge
        inner = np.minimum(at, len(many) - 1)
        wide = last[inner] - first[inner]
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(wide > 0, (edges - first[inner]) / wide, 0.0)
        below = up_to[at] + np.where(at < len(many), many[inner] * np.clip(share, 0.0, 1.0), 0.0)
        below[-1] = up_to[-1] if edges[-1] >= self.high else below[-1]
        return np.diff(below)
