"""Matching in time, and one record of those that overlap: the records of each point, ranked, and the best of them.

All is decided on arrays. The layers that a grid has of some bands lie sorted by datetime, so those around the time of
a point are found by bisection, and only as many are looked at as can be taken. All records of a point are compared
only where several could be of one moment.
"""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.depth import GridDepth
from rasteret_beam.kernels.routing.layers import NO_DATETIME, Hits, Layers, Pick
from rasteret_beam.kernels.routing.time_line import TimeLine, one_moment
from rasteret_beam.model import MatchRules

NEVER = np.iinfo(np.int64).max
LONGEST = 1 << 61
"""Microseconds; a longer tolerance is as good as this one."""

MOST_CANDIDATES = 1 << 22
"""Records of all points that are compared at once, which bounds memory."""

BY_BAND = {
    "all": "the set of records",
    "latest": "the newest record",
    "nearest": "the record nearest in time",
    "before": "the newest record at or before a time",
    "after": "the oldest record at or after a time",
}

Taken = tuple[Ints, Ints]
"""Positions of hits, and the place on a time line that each of them has."""


class Ranked:
    """For each band, the records that contain a point and are in time, or the best of them.

    Better is what is nearer in time, then earlier, then first in the collection (for ``match="latest"``: newer, then
    first in the collection).
    """

    def __init__(
        self, layers: Layers, datetimes: Ints, grid_count: int, rules: MatchRules, depth: GridDepth | None = None
    ):
        self.time_column = rules.time_column
        self._rules, self._depth = rules, depth
        self._most = rules.limit or (None if rules.match == "all" else 1)
        self._tolerance = None if rules.tolerance is None else min(rules.tolerance, LONGEST)
        self.one_record = self._most == 1
        alone = self._most is not None or rules.overlap == "first"
        self.by_band = BY_BAND[rules.match] if alone else ""
        self._rank = _ranks(datetimes, newest_first=rules.match == "latest")
        if self.time_column is not None:
            dated = datetimes[layers.record] != NO_DATETIME
            layers = Layers(layers.record[dated], layers.grid[dated], layers.bandset[dated], layers.bandsets)
        groups = _bands_together(layers) if alone else _as_they_are(layers)
        rows = [np.flatnonzero(np.isin(layers.bandset, members)) for _, members in groups]
        self._lines = [TimeLine.of_layers(layers.record[at], layers.grid[at], datetimes, grid_count) for at in rows]
        self._firsts = [_first_places(line, self._rank) for line in self._lines]
        self.layers = _layers_of(layers, rows, [bands for bands, _ in groups])

    def of_records(self, records: Sequence[int]) -> list[int]:
        return sorted(records, key=lambda record: self._rank[record])[: self._most]

    def picks(self, hits: Hits, points: int, times: Ints | None = None) -> Iterator[Pick]:
        at = np.zeros(points, dtype=np.int64) if times is None else times
        for number, line in enumerate(self._lines):
            parts = [self._of_part(number, hits, rows, points, at) for rows in self._portions(line, hits, points)]
            hit, place = (np.concatenate(columns) for columns in zip(*parts, strict=True))
            yield Pick(hits.take(hit), place, partial(self._layers_at, number))

    def _layers_at(self, number: int, place: int) -> list[tuple[int, int]]:
        """The layers of a group: those at a place of a time line, or (beyond its end) all on a grid."""
        line = self._lines[number]
        if place < len(line):
            return [(int(line.record[place]), number)]
        return [(record, number) for record in line.on_grid(place - len(line)).tolist()]

    def _portions(self, line: TimeLine, hits: Hits, points: int) -> list[Ints]:
        """Positions of hits, the points of which are compared at once."""
        several = self._rules.overlap == "first" or self._most is None
        each = line.longest if several else 2 * min(self._most or 1, line.longest)
        count = max(1, -(-len(hits.point) * each // MOST_CANDIDATES))
        if count == 1:
            return [np.arange(len(hits.point))]
        part = hits.point * count // max(points, 1)
        order = np.argsort(part, kind="stable")
        return np.split(order, np.searchsorted(part[order], np.arange(1, count)))

    def _of_part(self, number: int, hits: Hits, rows: Ints, points: int, times: Ints) -> Taken:
        """What is taken of the hits at some positions."""
        line = self._lines[number]
        if self._rules.overlap == "all":
            hit, place = self._without_overlap(number, hits.take(rows), points, times)
            return rows[hit], place
        of_part = hits.take(rows)
        several = np.bincount(of_part.point, minlength=points) > 1
        contested = several[of_part.point] | line.has_close(self._rules.overlap_tolerance)[of_part.grid]
        plain, rest = np.flatnonzero(~contested), np.flatnonzero(contested)
        hit, place = self._without_overlap(number, of_part.take(plain), points, times)
        other, other_place = self._deepest(line, of_part.take(rest), times)
        return rows[np.concatenate([plain[hit], rest[other]])], np.concatenate([place, other_place])

    def _without_overlap(self, number: int, hits: Hits, points: int, times: Ints) -> Taken:
        """What is taken where no two records of a point are of one moment, or all of them are to be had."""
        line = self._lines[number]
        if self._most is None and self.time_column is None:
            there = np.flatnonzero(np.diff(line.starts)[hits.grid])
            return there, len(line) + hits.grid[there]
        if self._most is None:
            return _expanded(*self._range(line, hits, times))
        if self.time_column is None:  # the newest, of points that lie on one grid
            there = np.flatnonzero(np.diff(line.starts)[hits.grid])
            return there, self._firsts[number][hits.grid[there]]
        if self._most == 1:
            return self._nearest(line, hits, points, times)
        hit, place = self._around(line, hits, times, min(self._most, line.longest))
        return self._best(line, hits, hit, place, times)

    def _range(self, line: TimeLine, hits: Hits, times: Ints) -> tuple[Ints, Ints]:
        """First and last place (excluded), [n] each, of the records in time of each hit."""
        grid, at = hits.grid, times[hits.point]
        low, high = line.starts[grid], line.starts[grid + 1]
        if self._tolerance is not None:
            low = line.first_not_before(grid, at - self._tolerance)
            high = line.first_after(grid, at + self._tolerance)
        if self._rules.match == "before":
            high = line.first_after(grid, at)
        elif self._rules.match == "after":
            low = line.first_not_before(grid, at)
        return low, high

    def _around(self, line: TimeLine, hits: Hits, times: Ints, count: int) -> Taken:
        """So many records on each side of the time of each hit, the nearest, as far as they are in time."""
        grid, at = hits.grid, times[hits.point]
        step, found = np.arange(count), []
        if self._rules.match != "after":
            before = line.first_after(grid, at)[:, None] - 1 - step
            hit, column = np.nonzero(before >= line.starts[grid][:, None])
            found.append((hit, line.back[before[hit, column]]))
        if self._rules.match != "before":
            exact = self._rules.match == "after"
            after = (line.first_not_before if exact else line.first_after)(grid, at)[:, None] + step
            hit, column = np.nonzero(after < line.starts[grid + 1][:, None])
            found.append((hit, after[hit, column]))
        hit, place = (np.concatenate(columns) for columns in zip(*found, strict=True))
        if self._tolerance is None:
            return hit, place
        near = np.abs(line.moment[place] - at[hit]) <= self._tolerance
        return hit[near], place[near]

    def _nearest(self, line: TimeLine, hits: Hits, points: int, times: Ints) -> Taken:
        """The best record of each point, without sorting."""
        hit, place = self._around(line, hits, times, 1)
        for cost in (np.abs(line.moment[place] - times[hits.point[hit]]), None):
            point = hits.point[hit]
            if len(point) < 2 or np.bincount(point, minlength=points).max() == 1:
                break
            cost = self._rank[line.record[place]] if cost is None else cost
            least = np.full(points, NEVER, dtype=np.int64)
            np.minimum.at(least, point, cost)
            best = cost == least[point]
            hit, place = hit[best], place[best]
        return hit, place

    def _best(self, line: TimeLine, hits: Hits, hit: Ints, place: Ints, times: Ints) -> Taken:
        """Of candidates, those that are taken for each point."""
        point = hits.point[hit]
        apart = np.abs(line.moment[place] - times[point]) if self.time_column is not None else np.zeros_like(point)
        order = np.lexsort((self._rank[line.record[place]], apart, point))
        first = np.searchsorted(point[order], point[order])
        best = order[np.arange(len(order)) - first < (NEVER if self._most is None else self._most)]
        return hit[best], place[best]

    def _deepest(self, line: TimeLine, hits: Hits, times: Ints) -> Taken:
        """What is taken where of records of one moment one is left, whose grid holds the point deepest inside."""
        assert self._depth is not None
        hit, place = _expanded(*self._range(line, hits, times))
        point, moment, record = hits.point[hit], line.moment[place], line.record[place]
        order = np.lexsort((record, moment, point))
        same = one_moment(point[order], moment[order], self._rules.overlap_tolerance)
        number = np.empty(len(order), dtype=np.int64)
        number[order] = np.cumsum(np.concatenate([[True], ~same])[: len(order)])
        order = np.lexsort((record, -self._depth.of(hits)[hit], number))
        chosen = order[_firsts(number[order])]
        return self._best(line, hits, hit[chosen], place[chosen], times)


def _ranks(datetimes: Ints, newest_first: bool) -> Ints:
    """Rank of each record, [r], among those equally near: by datetime, then in collection order."""
    keys = np.where(datetimes == NO_DATETIME, NEVER, -datetimes) if newest_first else datetimes
    ranks = np.empty(len(datetimes), dtype=np.int64)
    ranks[np.argsort(keys, kind="stable")] = np.arange(len(datetimes))
    return ranks


def _first_places(line: TimeLine, rank: Ints) -> Ints:
    """The place of each grid's best record, [g]; of a grid without a record it has no meaning."""
    grid = np.repeat(np.arange(len(line.starts) - 1), np.diff(line.starts))
    order = np.lexsort((rank[line.record], grid))
    return np.append(order, 0)[line.starts[:-1]]


def _as_they_are(layers: Layers) -> list[tuple[tuple[str, ...], list[int]]]:
    """The band sets of layers, each with its number."""
    return [(layers.bandsets[number], [number]) for number in np.unique(layers.bandset).tolist()]


def _bands_together(layers: Layers) -> list[tuple[tuple[str, ...], list[int]]]:
    """Bands that the same records have on the same grids, and the numbers of the band sets that these have."""
    sets_of_band: dict[str, list[int]] = {}
    for number in np.unique(layers.bandset).tolist():
        for band in layers.bandsets[number]:
            sets_of_band.setdefault(band, []).append(number)
    order = list(dict.fromkeys(band for bandset in layers.bandsets for band in bandset))
    together: dict[tuple[int, ...], list[str]] = {}
    for band in order:
        if band in sets_of_band:
            together.setdefault(tuple(sets_of_band[band]), []).append(band)
    return [(tuple(bands), list(members)) for members, bands in together.items()]


def _layers_of(layers: Layers, rows: Sequence[Ints], bandsets: list[tuple[str, ...]]) -> Layers:
    """Arranged layers: for each band set, those at some rows."""
    if not rows:
        none = np.empty(0, dtype=np.int64)
        return Layers.arranged(none, none, none, bandsets)
    at = np.concatenate(rows)
    return Layers.arranged(
        layers.record[at], layers.grid[at], np.repeat(np.arange(len(rows)), list(map(len, rows))), bandsets
    )


def _expanded(low: Ints, high: Ints) -> Taken:
    """Each position of [n] ranges with each place in its range."""
    counts = np.maximum(high - low, 0)
    hit = np.repeat(np.arange(len(low)), counts)
    return hit, np.arange(len(hit)) - np.repeat(np.cumsum(counts) - counts - low, counts)


def _firsts(group: Ints) -> NDArray[np.bool_]:
    """Whether a row is the first of its group, of rows sorted by group."""
    return np.concatenate([[True], group[1:] != group[:-1]])[: len(group)]
