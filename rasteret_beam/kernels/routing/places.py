"""Picks by place: points that need several grids are keyed by one of these, for each record or once for all records.

The worker that samples a place finds the other grids, and ranks the records, itself.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.errors import InputError
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.candidates import Candidates
from rasteret_beam.kernels.routing.layers import Hits, Layers, Pick
from rasteret_beam.kernels.routing.match import Matcher
from rasteret_beam.model import ALL_BANDS, ALL_RECORDS, MatchRules

MatcherOf = Callable[[Layers, int], Matcher]
"""Makes a matcher of layers on so many grids."""


def places_of(rules: MatchRules, matcher: Matcher) -> str:
    """How points are keyed by place: "", "record" or "point"; see :class:`rasteret_beam.model.MatchRules`."""
    if rules.places or not rules.wide or in_one_row(matcher):
        return rules.places
    return "point" if matcher.by_band else "record"


def in_one_row(matcher: Matcher) -> bool:
    """Whether the bands of each record that is taken lie on one grid, and are of one record."""
    if matcher.by_band:
        return len(matcher.layers.bandsets) < 2
    return bool(np.bincount(matcher.layers.record).max(initial=0) < 2)


class Placed:
    """A matcher whose picks are places: one for each point, or one for each point and record.

    Candidates and all else are those of the matcher.
    """

    def __init__(self, matcher: Matcher, grid_count: int):
        self.matcher, self._grid_count = matcher, grid_count
        self.layers, self.one_record, self.by_band = matcher.layers, matcher.one_record, matcher.by_band
        self.time_column, self.most = matcher.time_column, matcher.most

    def candidates(self, hits: Hits, points: int, times: Ints | None, most: int | None) -> Iterator[Candidates]:
        return self.matcher.candidates(hits, points, times, most)

    def has_records(self, hits: Hits, points: int, times: Ints | None = None) -> NDArray[np.bool_]:
        return self.matcher.has_records(hits, points, times)


class PlacesOfPoints(Placed):
    """One place for each point that has a record: on the first of the grids that contain it and have layers."""

    def __init__(self, matcher: Matcher, grid_count: int):
        super().__init__(matcher, grid_count)
        self._has_layers = np.bincount(matcher.layers.grid, minlength=grid_count) > 0

    def picks(self, hits: Hits, points: int, times: Ints | None = None) -> Iterator[Pick]:
        has = self.matcher.has_records(hits, points, times)
        rows = np.flatnonzero(has[hits.point] & self._has_layers[hits.grid])
        chosen = hits.take(rows[_first_grids(hits.point[rows], hits.grid[rows])])
        yield Pick(chosen, chosen.grid, lambda grid: [(ALL_RECORDS, ALL_BANDS)])


class PlacesOfRecords(Placed):
    """One place for each point and record that is taken: on the first of the record's grids that contain the point.

    Records with the same grids are matched together, as though these were one grid.

    Parameters
    ----------
    matcher : Matcher
        One that takes whole records, each whatever the others are.
    made : callable
        From other layers, on so many grids, to a matcher with the same rules.
    """

    def __init__(self, matcher: Matcher, grid_count: int, made: MatcherOf):
        super().__init__(matcher, grid_count)
        record, layer_grid = self.layers.record, self.layers.grid
        order = np.lexsort((layer_grid, record))
        records, starts = np.unique(record[order], return_index=True)
        sets: dict[bytes, int] = {}
        grids = [members.tobytes() for members in np.split(layer_grid[order], starts[1:])] if len(records) else []
        number = np.array([sets.setdefault(each, len(sets)) for each in grids], dtype=np.int64)
        together = Layers(records, number, np.zeros(len(records), dtype=np.int64), [("",)])
        self._of_sets = made(together, len(sets))
        members = [np.frombuffer(each, dtype=np.int64) for each in sets]
        self._pairs = _sorted_pairs(members)

    def picks(self, hits: Hits, points: int, times: Ints | None = None) -> Iterator[Pick]:
        at, number = self._hits_of_sets(hits)
        # Where each hit stands travels as its row.
        of_sets = Hits(hits.point[at], number, at.astype(np.float64), np.zeros(len(at)))
        for pick in self._of_sets.picks(of_sets, points, times):
            chosen = hits.take(pick.hits.row.astype(np.int64))
            group = pick.group * self._grid_count + chosen.grid
            yield Pick(chosen, group, partial(self._layers_at, pick))

    def _layers_at(self, pick: Pick, group: int) -> list[tuple[int, int]]:
        return [(record, ALL_BANDS) for record, _ in pick.layers(group // self._grid_count)]

    def _hits_of_sets(self, hits: Hits) -> tuple[Ints, Ints]:
        """Positions of hits, and a set of grids of which each is on the first that contains the point."""
        grid, number = self._pairs
        low, high = np.searchsorted(grid, hits.grid, "left"), np.searchsorted(grid, hits.grid, "right")
        counts = high - low
        at = np.repeat(np.arange(len(hits.point)), counts)
        number = number[np.arange(len(at)) - np.repeat(np.cumsum(counts) - counts - low, counts)]
        rows = _first_grids(hits.point[at] * (len(self._pairs[0]) + 1) + number, hits.grid[at])
        return at[rows], number[rows]


def _sorted_pairs(members: Sequence[Ints]) -> tuple[Ints, Ints]:
    """Pairs of a grid and the number of a set that has it, sorted by grid."""
    if not members:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    grid, number = np.concatenate(members), np.repeat(np.arange(len(members)), list(map(len, members)))
    order = np.argsort(grid, kind="stable")
    return grid[order], number[order]


def _first_grids(point: Ints, grid: Ints) -> Ints:
    """Rows [m] with the lowest grid of each point, sorted by point."""
    order = np.lexsort((grid, point))
    return order[np.concatenate([[True], np.diff(point[order]) != 0])[: len(order)]]


def check_quality_bands(
    rules: MatchRules,
    record_ids: Sequence[str],
    wanted: Layers,
    grids_of: Callable[[str], Ints],
    purpose: str = "sample",
) -> None:
    """Refuse records that have bands to sample, but lack a quality band that they must have.

    Parameters
    ----------
    wanted : Layers
        Of the bands to sample.
    grids_of : callable
        From a band to the number of the grid on which each record has it, or -1.
    purpose : str
        What the bands are there for, in words for the error.

    Raises
    ------
    InputError
        Names the band, how many records, and the first of them.
    """
    for band in dict.fromkeys(band for band, missing in rules.quality if missing == "error"):
        has = np.zeros(len(record_ids), dtype=bool)
        has[wanted.record] = True
        lacking = np.flatnonzero(has & (grids_of(band) < 0))
        if len(lacking):
            raise InputError(
                f"quality band {band} is not in {len(lacking)} of the {int(has.sum())} records to {purpose}, the first "
                f'of them {record_ids[lacking[0]]!r}; set missing="pass" or missing="fail" in the Quality of {band}, '
                "or leave such records out with subset or where"
            )
