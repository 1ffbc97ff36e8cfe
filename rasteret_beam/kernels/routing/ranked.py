"""Matching in time, and one record of those that overlap: the records of each point, ranked, and the best of them."""

from collections.abc import Iterator, Sequence
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.candidates import Candidates, Searches, found
from rasteret_beam.kernels.routing.depth import GridDepth
from rasteret_beam.kernels.routing.layers import NO_DATETIME, Hits, Layers, Pick, bands_together, rows_of
from rasteret_beam.kernels.routing.search import NEVER, Search
from rasteret_beam.kernels.routing.time_line import TimeLine
from rasteret_beam.model import MatchRules

BY_BAND = {
    "all": "the set of records",
    "latest": "the newest record",
    "nearest": "the record nearest in time",
    "before": "the newest record at or before a time",
    "after": "the oldest record at or after a time",
}


class Ranked:
    """For each band, the records that contain a point and are in time, or the best of them.

    Better is what is nearer in time, then earlier, then first in the collection (for ``match="latest"``: newer, then
    first in the collection).
    """

    def __init__(
        self, layers: Layers, datetimes: Ints, grid_count: int, rules: MatchRules, depth: GridDepth | None = None
    ):
        self.time_column = rules.time_column
        self.most = rules.limit or (None if rules.match == "all" else 1)
        self.one_record = self.most == 1
        alone = self.most is not None or rules.overlap == "first"
        self.by_band = BY_BAND[rules.match] if alone else ""
        self._rank = _ranks(datetimes, newest_first=rules.match == "latest")
        if self.time_column is not None:
            dated = datetimes[layers.record] != NO_DATETIME
            layers = Layers(layers.record[dated], layers.grid[dated], layers.bandset[dated], layers.bandsets)

        def search(rows: Ints) -> Search:
            line = TimeLine.of_layers(layers.record[rows], layers.grid[rows], datetimes, grid_count)
            return Search(line, rules, self._rank, depth)

        self._search, self._given, self._alone = search, layers, alone
        groups = bands_together(layers) if alone else _as_they_are(layers)
        rows = rows_of(layers, groups)
        self._searches = list(map(search, rows))
        self.layers = _layers_of(layers, rows, [bands for bands, _ in groups])

    def picks(self, hits: Hits, points: int, times: Ints | None = None) -> Iterator[Pick]:
        at = np.zeros(points, dtype=np.int64) if times is None else times
        for number, search in enumerate(self._searches):
            hit, place = search.taken(hits, points, at, self.most)
            yield Pick(hits.take(hit), place, partial(self._layers_at, number))

    def _layers_at(self, number: int, place: int) -> list[tuple[int, int]]:
        """The layers of a group: those at a place of a time line, or (beyond its end) all on a grid."""
        line = self._searches[number].line
        if place < len(line):
            return [(int(line.record[place]), number)]
        return [(record, number) for record in line.on_grid(place - len(line)).tolist()]

    def candidates(self, hits: Hits, points: int, times: Ints | None, most: int | None) -> Iterator[Candidates]:
        return found(self._by_band, hits, points, times, most)

    @cached_property
    def _by_band(self) -> Searches:
        """The searches by bands that are decided together, each band in one of them."""
        if self._alone:
            return list(zip(self.layers.bandsets, self._searches, strict=True))
        groups = bands_together(self._given)
        return list(zip((bands for bands, _ in groups), map(self._search, rows_of(self._given, groups)), strict=True))

    def has_records(self, hits: Hits, points: int, times: Ints | None = None) -> NDArray[np.bool_]:
        at = np.zeros(points, dtype=np.int64) if times is None else times
        has = np.zeros(points, dtype=bool)
        for search in self._searches:
            has |= search.has_records(hits, points, at)
        return has


def _ranks(datetimes: Ints, newest_first: bool) -> Ints:
    """Rank of each record, [r], among those equally near: by datetime, then in collection order."""
    keys = np.where(datetimes == NO_DATETIME, NEVER, -datetimes) if newest_first else datetimes
    ranks = np.empty(len(datetimes), dtype=np.int64)
    ranks[np.argsort(keys, kind="stable")] = np.arange(len(datetimes))
    return ranks


def _as_they_are(layers: Layers) -> list[tuple[tuple[str, ...], list[int]]]:
    """The band sets of layers, each with its number."""
    return [(layers.bandsets[number], [number]) for number in np.unique(layers.bandset).tolist()]


def _layers_of(layers: Layers, rows: Sequence[Ints], bandsets: list[tuple[str, ...]]) -> Layers:
    """Arranged layers: for each band set, those at some rows."""
    if not rows:
        none = np.empty(0, dtype=np.int64)
        return Layers.arranged(none, none, none, bandsets)
    at = np.concatenate(rows)
    return Layers.arranged(
        layers.record[at], layers.grid[at], np.repeat(np.arange(len(rows)), list(map(len, rows))), bandsets
    )
