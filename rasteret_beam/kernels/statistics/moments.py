"""Which records of a polygon make one row: each by itself, or all of one moment together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.candidates import Candidates
from rasteret_beam.kernels.routing.layers import NO_DATETIME

Members = tuple[tuple[int, int], ...]
"""Records of one row, each with the number of its grid, in collection order."""


@dataclass(frozen=True, eq=False)
class Choice:
    """What may be taken of a polygon for bands that are decided together.

    Attributes
    ----------
    zone : int
        Position of the polygon.
    bands : tuple of str
    ranked : sequence of Members
        The best first.
    hits : sequence of int
        Positions of the overlaps of the polygon with their grids.
    """

    zone: int
    bands: tuple[str, ...]
    ranked: Sequence[Members]
    hits: Sequence[int]


def choices_by_record(candidates: Candidates, grids: Ints) -> Iterator[Choice]:
    """Each record by itself; ``grids`` are those of the hits."""
    pairs = list(zip(candidates.record.tolist(), grids[candidates.hit].tolist(), strict=True))
    for zone, rows, hits in _by_zone(candidates):
        yield Choice(zone, candidates.bands, [(pair,) for pair in pairs[rows]], hits)


def choices_by_moment(
    candidates: Candidates, grids: Ints, datetimes: Ints, apart: int, most: int | None
) -> Iterator[Choice]:
    """The records of one moment together, in collection order; the moment of the best record comes first.

    Parameters
    ----------
    candidates : Candidates
        All of them, the best first.
    grids : [h] int64
        Of hits.
    datetimes : [r] int64
        Of records. All without one are of one moment.
    apart : int
        Microseconds from one record of a moment to the next one in time, at most.
    most : int or None
        Moments of a polygon, at most.
    """
    pairs = list(zip(candidates.record.tolist(), grids[candidates.hit].tolist(), strict=True))
    for zone, rows, hits in _by_zone(candidates):
        moments = _moments(datetimes[candidates.record[rows]], apart)
        members: dict[int, list[tuple[int, int]]] = {}
        for moment, pair in zip(moments.tolist(), pairs[rows], strict=True):
            members.setdefault(moment, []).append(pair)
        yield Choice(zone, candidates.bands, [tuple(sorted(each)) for each in members.values()][:most], hits)


def _moments(datetimes: Ints, apart: int) -> Ints:
    """Numbers of moments, [n], in the order of time."""
    order = np.argsort(datetimes, kind="stable")
    ordered = datetimes[order]
    undated = ordered == NO_DATETIME
    later = np.diff(np.where(undated, 0, ordered)) > apart
    number = np.empty(len(order), dtype=np.int64)
    number[order] = np.concatenate([[0], np.cumsum(later | (undated[1:] != undated[:-1]))])
    return number


def _by_zone(candidates: Candidates) -> Iterator[tuple[int, slice, list[int]]]:
    """The rows of each polygon, and the distinct hits."""
    zones, starts, counts = np.unique(candidates.point, return_index=True, return_counts=True)
    hit = candidates.hit.tolist()
    for zone, start, end in zip(zones.tolist(), starts.tolist(), (starts + counts).tolist(), strict=True):
        yield zone, slice(start, end), sorted(set(hit[start:end]))
