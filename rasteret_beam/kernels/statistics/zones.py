"""Statistics of zones: of the valid pixels of many polygons, as states that are merged window by window.

Means and variances are merged by the formula of Chan, Golub and LeVeque (1983), which does not lose digits where the
mean is large. Values are held, sorted, only for statistics that need them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.statistics.held_values import HeldValues
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
)


class Needs(NamedTuple):
    """What statistics need beyond count, sum, mean, variance, least and greatest value.

    Attributes
    ----------
    distinct : bool
        The distinct values with their weights.
    ordered : bool
        All values in order.
    """

    distinct: bool = False
    ordered: bool = False

    @classmethod
    def of(cls, statistics: Iterable[str]) -> "Needs":
        """The needs of some names."""
        names = tuple(statistics)
        ordered = any(name == MEDIAN or percentile_of(name) is not None for name in names)
        return cls(any(name in (MAJORITY, VARIETY) for name in names), ordered)

    @property
    def holds(self) -> bool:
        return self.distinct or self.ordered


class Column(NamedTuple):
    """A statistic of zones, [z]: the values, and where it is null (or nowhere)."""

    values: NDArray[np.generic]
    null: NDArray[np.bool_] | None


@dataclass(frozen=True, eq=False)
class ZoneStates:
    """What is known of the valid pixels of z zones.

    Attributes
    ----------
    pixels : [z] int64
        How many.
    weight : [z] float64
        The sum of their shares; their number where each counts whole.
    total, mean, squares : [z] float64
        Weighted sum, mean, and sum of squared differences from the mean.
    low, high : [z] float64
        Least and greatest value; infinite without pixels.
    held : HeldValues or None
    """

    pixels: Ints
    weight: Floats
    total: Floats
    mean: Floats
    squares: Floats
    low: Floats
    high: Floats
    held: HeldValues | None = None

    @classmethod
    def of_values(cls, values: Floats, counts: Ints, shares: Floats | None, needs: Needs) -> "ZoneStates":
        """The states of zones whose valid pixels are given one zone after the other.

        Parameters
        ----------
        values : [p] float64
        counts : [z] int64
            Pixels of each zone.
        shares : [p] float64, optional
            More than 0; by default each pixel counts whole.
        """
        some = np.flatnonzero(counts)
        starts = (np.cumsum(counts) - counts)[some]

        def filled(of_some: Floats, empty: float = 0.0) -> Floats:
            whole = np.full(len(counts), empty)
            whole[some] = of_some
            return whole

        def summed(numbers: Floats) -> Floats:
            return np.add.reduceat(numbers, starts) if len(starts) else np.empty(0)

        with np.errstate(invalid="ignore", over="ignore"):
            weight = counts[some].astype(np.float64) if shares is None else summed(shares)
            total = summed(values if shares is None else values * shares)
            mean = total / weight
            apart = values - np.repeat(mean, counts[some])
            squares = summed(apart * apart if shares is None else apart * apart * shares)
        low, high = (most.reduceat(values, starts) if len(starts) else np.empty(0) for most in (np.minimum, np.maximum))
        held = None
        if needs.holds:
            held = HeldValues.of_values(np.repeat(np.arange(len(counts)), counts), values, shares, not needs.ordered)
        extremes = filled(low, np.inf), filled(high, -np.inf)
        return cls(counts, filled(weight), filled(total), filled(mean), filled(squares), *extremes, held)

    def merged(self, other: "ZoneStates") -> "ZoneStates":
        """The states of the same zones with the pixels of both."""
        weight = self.weight + other.weight
        with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
            part = np.where(weight > 0, other.weight / weight, 0.0)
            apart = np.where((self.weight > 0) & (other.weight > 0), other.mean - self.mean, 0.0)
            mean = np.where(self.weight > 0, self.mean, other.mean) + apart * part
            squares = self.squares + other.squares + apart * apart * self.weight * part
        return ZoneStates(
            self.pixels + other.pixels,
            weight,
            self.total + other.total,
            mean,
            squares,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            None if self.held is None or other.held is None else self.held.merged(other.held),
        )

    def columns(self, statistics: Sequence[str], valid_fraction: Floats | None, whole: bool) -> dict[str, Column]:
        """The statistics of each zone by name.

        Parameters
        ----------
        valid_fraction : [z] float64, optional
            Needed for the statistic of that name.
        whole : bool
            Each pixel counts whole, so the count is a whole number.
        """
        found: dict[str, NDArray[np.generic]] = {COUNT: self.pixels if whole else self.weight}
        found |= {SUM: self.total, MEAN: self.mean, MIN: self.low, MAX: self.high}
        with np.errstate(invalid="ignore", divide="ignore"):
            found[STD] = np.sqrt(np.maximum(self.squares, 0.0) / self.weight)
        if valid_fraction is not None:
            found[VALID_FRACTION] = valid_fraction
        none = self.pixels == 0
        held = None if self.held is None else self.held.ordered()
        columns = {}
        for name in statistics:
            values = found[name] if name in found else _of_held(held, name, len(none), whole)
            columns[name] = Column(values, None if name in NEVER_NULL else none)
        return columns


def _of_held(held: HeldValues | None, name: str, zones: int, whole: bool) -> NDArray[np.generic]:
    """A statistic of values in order, [zones]."""
    assert held is not None
    if name == VARIETY:
        return held.variety(zones)
    if name == MAJORITY:
        return held.majority(zones)
    share = 0.5 if name == MEDIAN else (percentile_of(name) or 0.0) / 100
    return held.quantile(zones, share, whole)


def joined(columns: Sequence[Mapping[str, Column]], name: str) -> Column:
    """A statistic of several lists of zones, one after the other."""
    nulls = [each[name].null for each in columns]
    values = np.concatenate([each[name].values for each in columns])
    return Column(values, None if nulls[0] is None else np.concatenate([null for null in nulls if null is not None]))
