"""Which records of a polygon make one row: each by itself, or all of one moment together."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.candidates import Candidates
from rasteret_beam.kernels.routing.layers import NO_DATETIME


@dataclass(frozen=True, eq=False)
class Choice:
    """What may be taken of a polygon for bands that are decided together.

    Attributes
    ----------
    zone : int
        Position of the polygon.
    bands : tuple of str
    ranked : sequence of tuples of (record, hit)
        The best first; what is in one tuple makes one row of each band. ``hit`` is the position of the overlap of the
        polygon with the grid of the record.
    """

    zone: int
    bands: tuple[str, ...]
    ranked: Sequence[tuple[tuple[int, int], ...]]


def choices_by_record(candidates: Candidates) -> Iterator[Choice]:
    """Each record by itself."""
    for zone, records, hits in _by_zone(candidates):
        yield Choice(zone, candidates.bands, [((record, hit),) for record, hit in zip(records, hits, strict=True)])


def choices_by_moment(candidates: Candidates, datetimes: Ints, apart: int, most: int | None) -> Iterator[Choice]:
    """The records of one moment together, in collection order; the moment of the best record comes first.

    Parameters
    ----------
    candidates : Candidates
        All of them, the best first.
    datetimes : [r] int64
        Of records. All without one are of one moment.
    apart : int
        Microseconds from one record of a moment to the next one in time, at most.
    most : int or None
        Moments of a polygon, at most.
    """
    for zone, records, hits in _by_zone(candidates):
        moment = datetimes[np.array(records)]
        order = np.argsort(moment, kind="stable")
        later = np.diff(moment[order].astype(np.float64)) > apart
        undated = moment[order] == NO_DATETIME
        number = np.empty(len(records), dtype=np.int64)
        number[order] = np.concatenate([[0], np.cumsum(later | (undated[1:] != undated[:-1]))])
        members: dict[int, list[tuple[int, int]]] = {}
        for place, record, hit in zip(number.tolist(), records, hits, strict=True):
            members.setdefault(place, []).append((record, hit))
        yield Choice(zone, candidates.bands, [tuple(sorted(each)) for each in list(members.values())[:most]])


def _by_zone(candidates: Candidates) -> Iterator[tuple[int, list[int], list[int]]]:
    """The records of each polygon, the best first, and the hits on their grids."""
    zones, starts = np.unique(candidates.point, return_index=True)
    ends = np.append(starts, len(candidates.point))[1:]  # none, where there is no start
    record, hit = candidates.record.tolist(), candidates.hit.tolist()
    for zone, start, end in zip(zones.tolist(), starts.tolist(), ends.tolist(), strict=True):
        yield zone, record[start:end], hit[start:end]
