"""Statistics of windows: of the valid pixels around n points, vectorised over the points.

A window's k cells are those of a block, row by row: arrays are [k, n]. Numbers are float64, in which integers of up to
32 bits are exact; those of 64 bits are compared and sorted as they are, and rounded afterwards.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.sampling.validity import Mask, Pixels, has_long_integers
from rasteret_beam.kernels.sampling.value_types import numpy_dtype
from rasteret_beam.statistics import (
    COUNT,
    MAJORITY,
    MAX,
    MEAN,
    MEDIAN,
    MIN,
    NEVER_NULL,
    STD,
    SUM,
    VALID_FRACTION,
    VARIETY,
    percentile_of,
    statistic_type,
)

PORTION_CELLS = 1 << 17
"""Cells whose statistics are computed at a time: as float64 they fit into a processor's cache."""

FEW_CELLS = 64
"""Windows of more cells are computed one by one: the pixels of each are brought together in memory."""

Maker = Callable[["_Windows"], NDArray[np.generic]]


class Statistic(NamedTuple):
    """A statistic of n windows: int64 or float64 [n], and where it is null; None where it never is."""

    values: NDArray[np.generic]
    null: Mask | None

    def array(self) -> pa.Array:
        return pa.array(self.values, mask=self.null)

    def take(self, rows: Ints | slice) -> "Statistic":
        """Those of some of the windows."""
        return Statistic(self.values[rows], None if self.null is None else self.null[rows])

    @classmethod
    def joined(cls, parts: "Sequence[Statistic]") -> "Statistic":
        """Those of all windows of some parts."""
        values = np.concatenate([each.values for each in parts])
        if all(each.null is None for each in parts):
            return cls(values, None)
        nulls = [np.zeros(len(each.values), dtype=bool) if each.null is None else each.null for each in parts]
        return cls(values, np.concatenate(nulls))


def window_statistics(
    names: Sequence[str],
    pixels: Pixels,
    valid: Mask,
    cells: Mask | None = None,
) -> dict[str, Statistic]:
    """Statistics of n windows over their valid pixels; see :mod:`rasteret_beam.statistics` for what each is.

    Parameters
    ----------
    names : sequence of str
    pixels : [k, n]
        In the band's own dtype, or in physical units; anything where they are not valid.
    valid : [k, n] bool
        Pixels that count; none beyond the cells of a window.
    cells : [k, n] bool, optional
        Which pixels of its block are cells of a window; all by default.
    """
    k, count = pixels.shape
    made = {name: np.empty(count, dtype=numpy_dtype(statistic_type(name))) for name in names}
    none = np.zeros(count, dtype=bool)
    step = max(1, PORTION_CELLS // k)
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):  # pixels that do not count may be anything
        for start in range(0, count, step):
            at = slice(start, start + step)
            windows = _Windows.of(names, pixels[:, at], valid[:, at], None if cells is None else cells[:, at])
            none[at] = windows.count == 0
            for name in names:
                made[name][at] = windows.statistic(name)
    null = none if none.any() else None
    return {name: Statistic(values, None if name in NEVER_NULL else null) for name, values in made.items()}


@dataclass(frozen=True, eq=False)
class _Windows:
    """A portion of m windows.

    Attributes
    ----------
    pixels : [k, m]
        Numbers that are compared: float64, or 64-bit integers.
    valid : [k, m] bool, optional
        None if all are.
    count, cells : [m] int64
        Valid pixels and cells of each window.
    sorts : bool
        Whether a statistic needs the pixels in order.
    """

    pixels: Pixels
    valid: Mask | None
    count: Ints
    cells: Ints
    sorts: bool

    @classmethod
    def of(cls, names: Sequence[str], pixels: Pixels, valid: Mask, cells: Mask | None) -> "_Windows":
        k, m = pixels.shape
        if k > FEW_CELLS:
            pixels, valid = np.asfortranarray(pixels), np.asfortranarray(valid)
        if not has_long_integers(pixels.dtype.name):
            pixels = pixels.astype(np.float64)
        whole = bool(valid.all())
        count = np.full(m, k) if whole else np.count_nonzero(valid, axis=0)
        of_window = np.full(m, k) if cells is None else np.count_nonzero(cells, axis=0)
        sorts = any(name in _SORTED or percentile_of(name) is not None for name in names)
        return cls(pixels, None if whole else valid, count, of_window, sorts)

    def statistic(self, name: str) -> NDArray[np.generic]:
        """[m]; anything where no pixel is valid, but for those that are 0 there."""
        number = percentile_of(name)
        return _MADE[name](self) if number is None else self.percentile(number)

    @cached_property
    def numbers(self) -> Floats:
        """[k, m]: 0 where a pixel is not valid."""
        found: Floats = self._filled(self.pixels.dtype.type(0)).astype(np.float64, copy=False)
        return found

    @cached_property
    def total(self) -> Floats:
        return _sums(self.numbers)

    @cached_property
    def mean(self) -> Floats:
        return self.total / self.count

    def std(self) -> Floats:
        """In two passes: from the mean, and then the deviations from it."""
        deviations = self.numbers - self.mean
        deviations *= deviations
        if self.valid is not None:
            deviations[~self.valid] = 0.0
        return np.sqrt(_sums(deviations) / self.count)

    def least(self) -> Pixels:
        return self.ordered[0] if self.sorts else np.minimum.reduce(self._filled(self._limit(top=True)), axis=0)

    def greatest(self) -> Pixels:
        if self.sorts:
            return self._in_order(self.count - 1)
        return np.maximum.reduce(self._filled(self._limit(top=False)), axis=0)

    @cached_property
    def ordered(self) -> Pixels:
        """[k, m]: the valid pixels of each window in ascending order, then anything."""
        return np.sort(self._filled(self._limit(top=True)), axis=0)

    def percentile(self, number: float) -> Floats:
        """Between the two pixels around its place in the order, as NumPy's default ("linear")."""
        place = number / 100 * np.maximum(self.count - 1, 0)
        before = np.floor(place).astype(np.int64)
        part = place - before
        low = self._in_order(before).astype(np.float64)
        high = self._in_order(np.minimum(before + 1, self.count - 1)).astype(np.float64)
        between = np.where(part < 0.5, low + (high - low) * part, high - (high - low) * (1 - part))
        return np.where((part == 0) | (low == high), low, between)

    @cached_property
    def runs(self) -> "_Runs":
        return _Runs.of(self.ordered, self.count)

    def _in_order(self, place: Ints) -> Pixels:
        found: Pixels = self.ordered[np.maximum(place, 0), np.arange(len(place))]
        return found

    def _filled(self, value: np.generic) -> Pixels:
        return self.pixels if self.valid is None else np.where(self.valid, self.pixels, value)

    def _limit(self, top: bool) -> np.generic:
        """The greatest number of the dtype, or the least."""
        dtype = self.pixels.dtype
        if dtype.kind == "f":
            return dtype.type(np.inf if top else -np.inf)
        limits = np.iinfo(dtype)  # type: ignore[type-var]
        return dtype.type(limits.max if top else limits.min)


@dataclass(frozen=True, eq=False)
class _Runs:
    """Runs of equal pixels in order: how many each of m windows has, and the value of the first of the longest."""

    variety: Ints
    majority: Pixels

    @classmethod
    def of(cls, ordered: Pixels, count: Ints) -> "_Runs":
        """Of pixels [k, m], the first ``count`` [m] of each window valid."""
        by_window = ordered.T
        m, k = by_window.shape
        starts = np.ones((m, k), dtype=bool)
        starts[:, 1:] = by_window[:, 1:] != by_window[:, :-1]
        cut = np.flatnonzero(count < k)
        starts[cut, count[cut]] = True  # where those that are not valid begin
        start = np.flatnonzero(starts)
        window, place = np.divmod(start, k)
        length = np.diff(start, append=m * k)
        length[place >= count[window]] = 0
        first = np.searchsorted(start, np.arange(m) * k)
        longest = np.maximum.reduceat(length, first)
        _, of_window = np.unique(window[length == longest[window]], return_index=True)
        at = np.flatnonzero(length == longest[window])[of_window]
        variety = np.bincount(window[length > 0], minlength=m)
        return cls(variety, by_window[window[at], place[at]])


def _sums(numbers: Floats) -> Floats:
    """Sums [m] over numbers [k, m], added up in an order that does not depend on how many windows there are."""
    if len(numbers) > FEW_CELLS:
        summed: Floats = np.add.reduce(numbers, axis=0)  # the numbers of a window lie together
        return summed
    total = numbers[0].copy()
    for cell in numbers[1:]:
        total += cell
    return total


_SORTED = (MEDIAN, MAJORITY, VARIETY)
"""Statistics that need the pixels in order, beside percentiles."""

_MADE: Mapping[str, Maker] = {
    COUNT: lambda windows: windows.count,
    VALID_FRACTION: lambda windows: windows.count / np.maximum(windows.cells, 1),
    MEAN: lambda windows: windows.mean,
    MEDIAN: lambda windows: windows.percentile(50.0),
    STD: lambda windows: windows.std(),
    MIN: lambda windows: windows.least(),
    MAX: lambda windows: windows.greatest(),
    SUM: lambda windows: windows.total,
    MAJORITY: lambda windows: windows.runs.majority,
    VARIETY: lambda windows: windows.runs.variety,
}
