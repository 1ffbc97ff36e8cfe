"""Values of zones that are held, sorted, for statistics that cannot be made of sums."""

from dataclasses import dataclass

import numpy as np

from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.statistics.segments import running_sums

TIE = 1e-12
"""Relative difference of two weights that are equal but for rounding."""


@dataclass(frozen=True, eq=False)
class HeldValues:
    """Values of zones as columns [k].

    Attributes
    ----------
    zone : int64
    value : float64
    weight : float64
        The share of one pixel; or, of distinct values, the sum of the shares of their pixels.
    distinct : bool
        Whether a value stands once for each zone.
    in_order : bool
        Whether rows are by zone, then by value, then by weight.
    """

    zone: Ints
    value: Floats
    weight: Floats
    distinct: bool
    in_order: bool = False

    @classmethod
    def of_values(cls, zone: Ints, value: Floats, shares: Floats | None, distinct: bool) -> "HeldValues":
        """From pixels in any order.

        Parameters
        ----------
        shares : [p] float64, optional
            By default each pixel counts 1, and equal values are held together.
        distinct : bool
            Hold equal values together in any case: quantiles of shares need each pixel, all else does not.
        """
        weight = np.ones(len(value)) if shares is None else shares
        return cls(zone, value, weight, distinct or shares is None)._small()

    def _small(self) -> "HeldValues":
        """In order at once where that makes fewer of them; others are ordered when they are all there."""
        return self.ordered() if self.distinct else self

    def ordered(self) -> "HeldValues":
        """The same in order."""
        if self.in_order:
            return self
        keys = (self.value, self.zone) if self.distinct else (self.weight, self.value, self.zone)
        order = np.lexsort(keys)
        zone, value, weight = self.zone[order], self.value[order], self.weight[order]
        if self.distinct and len(zone):
            first = np.flatnonzero(_begins(zone, value))
            zone, value, weight = zone[first], value[first], np.add.reduceat(weight, first)
        return HeldValues(zone, value, weight, self.distinct, in_order=True)

    def merged(self, other: "HeldValues") -> "HeldValues":
        """The values of both, of the same zones."""
        if not len(other.zone) or not len(self.zone):
            return self if len(self.zone) else other
        zone = np.concatenate([self.zone, other.zone])
        value, weight = (np.concatenate(pair) for pair in ((self.value, other.value), (self.weight, other.weight)))
        return HeldValues(zone, value, weight, self.distinct)._small()

    def variety(self, zones: int) -> Ints:
        """Distinct values of each of so many zones, [zones]; of values in order, as all that follows."""
        return np.bincount(self.zone[_begins(self.zone, self.value)], minlength=zones)

    def majority(self, zones: int) -> Floats:
        """The value with the largest weight of each zone, of several the least, [zones]; NaN without values."""
        found = np.full(zones, np.nan)
        if len(self.zone):
            first = np.flatnonzero(_begins(self.zone, self.value))
            zone, value, weight = self.zone[first], self.value[first], np.add.reduceat(self.weight, first)
            most = np.zeros(zones)
            np.maximum.at(most, zone, weight)
            # Backwards, so that the least of several values is what stays.
            best = np.flatnonzero(weight >= most[zone] * (1 - TIE))[::-1]
            found[zone[best]] = value[best]
        return found

    def quantile(self, zones: int, share: float, whole: bool) -> Floats:
        """The value below which a share of the pixels lies, [zones]; NaN without values.

        Where pixels count whole, linear between the two nearest, as NumPy's default. Else value k of n in ascending
        order stands at ``k * w[k] + (n - 1) * sum(w[:k])``, from 0 to ``(n - 1) * sum(w)``, and values between two of
        them are linear: the definition of exactextract, which is NumPy's where all weights are equal.
        """
        counts = np.bincount(self.zone, minlength=zones)
        some = np.flatnonzero(counts)
        found = np.full(zones, np.nan)
        if not len(some):
            return found
        starts, sizes = (np.cumsum(counts) - counts)[some], counts[some]
        row = np.repeat(np.arange(len(some)), sizes)
        weight = np.add.reduceat(self.weight, starts)
        own = self.weight if whole else self.weight / weight[row]
        before = running_sums(own, sizes) - own
        if whole:
            target = (weight - 1) * share
            below = np.floor(target)
            part = target - below
            left = starts + np.add.reduceat((before <= below[row]).astype(np.int64), starts) - 1
            above = np.minimum(below + 1, weight - 1)
            right = starts + np.add.reduceat((before <= above[row]).astype(np.int64), starts) - 1
        else:
            number = np.arange(len(self.zone)) - np.repeat(starts, sizes)
            place = number * own + (sizes[row] - 1) * before
            target = (sizes.astype(np.float64) - 1) * share
            left = starts + np.add.reduceat((place <= target[row]).astype(np.int64), starts) - 1
            right = np.minimum(left + 1, starts + sizes - 1)
            span = place[right] - place[left]
            part = np.divide(target - place[left], span, out=np.zeros(len(span)), where=span > 0)
        found[some] = _between(self.value[left], self.value[right], part)
        return found


def _begins(zone: Ints, value: Floats) -> np.ndarray:
    """Where another zone or value begins, of rows sorted by both."""
    begins = np.ones(len(zone), dtype=bool)
    begins[1:] = (zone[1:] != zone[:-1]) | (value[1:] != value[:-1])
    return begins


def _between(low: Floats, high: Floats, part: Floats) -> Floats:
    """Linear between two values, rounded as NumPy does it: from the nearer one."""
    with np.errstate(invalid="ignore"):
        step = high - low
        found = np.where(part < 0.5, low + step * part, high - step * (1 - part))
    return np.where(low == high, low, found)
