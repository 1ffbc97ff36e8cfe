"""Matchers: which of the records that contain a point are taken.

A matcher is made of the layers of an index, and picks among the hits of a batch. It decides before the shuffle.
"""

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.errors import InputError
from rasteret_beam.job_options import IN_TIME
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.candidates import Candidates, Searches, found
from rasteret_beam.kernels.routing.depth import GridDepth
from rasteret_beam.kernels.routing.layers import NO_DATETIME, Hits, Layers, Pick, bands_together, rows_of
from rasteret_beam.kernels.routing.ranked import Ranked
from rasteret_beam.kernels.routing.search import NEVER, Search
from rasteret_beam.kernels.routing.time_line import TimeLine
from rasteret_beam.model import MatchRules


class Matcher(Protocol):
    """Which of the records that contain a point are taken.

    Attributes
    ----------
    layers : Layers
        Arranged; bands that are decided together are in one set.
    one_record : bool
        A point has at most one record for each band.
    by_band : str
        What records are taken for each band apart, in words for errors; empty where whole records are taken.
    time_column : str or None
        Column of the points with their times, where these decide.
    most : int or None
        Records that a point has for each band, at most; None: any number.
    """

    @property
    def layers(self) -> Layers: ...

    @property
    def one_record(self) -> bool: ...

    @property
    def by_band(self) -> str: ...

    @property
    def time_column(self) -> str | None: ...

    @property
    def most(self) -> int | None: ...

    def picks(self, hits: Hits, points: int, times: Ints | None = None) -> Iterator[Pick]:
        """What is taken of the hits of so many points; always as many picks, in the same order.

        ``times`` [points] int64 are those of the points, where ``time_column`` names their column: microseconds since
        1970. All points that are hit have one.
        """
        ...

    def candidates(self, hits: Hits, points: int, times: Ints | None, most: int | None) -> Iterator[Candidates]:
        """The records in question at so many points, the best one first; once for each group of bands decided together.

        The matcher's own ``most`` does not count, but this one: how many of a point, at most; None: all. ``hits`` are
        all grids that contain the points.
        """
        ...

    def has_records(self, hits: Hits, points: int, times: Ints | None = None) -> NDArray[np.bool_]:
        """[points]: whether :meth:`picks` takes a record for a point."""
        ...


class WithoutTime:
    """What matchers have in common that do not go by the time of the point.

    Parameters
    ----------
    layers : Layers
    datetimes : [r] int64
    grid_count : int
    rank : [r] int64
        Of each record; 0 is the best.
    """

    time_column = None

    def __init__(self, layers: Layers, datetimes: Ints, grid_count: int, rank: Ints):
        self._given, self._datetimes, self._grid_count, self._rank = layers, datetimes, grid_count, rank

    def candidates(self, hits: Hits, points: int, times: Ints | None, most: int | None) -> Iterator[Candidates]:
        return found(self._by_band, hits, points, None, most)

    @cached_property
    def _by_band(self) -> Searches:
        groups, given = bands_together(self._given), self._given
        lines = [
            TimeLine.of_layers(given.record[rows], given.grid[rows], self._datetimes, self._grid_count)
            for rows in rows_of(given, groups)
        ]
        return [(bands, Search(line, MatchRules(), self._rank)) for (bands, _), line in zip(groups, lines, strict=True)]

    def has_records(self, hits: Hits, points: int, times: Ints | None = None) -> NDArray[np.bool_]:
        has = np.zeros(points, dtype=bool)
        has[hits.point[self._has_layers[hits.grid]]] = True
        return has

    @cached_property
    def _has_layers(self) -> NDArray[np.bool_]:
        """[g]: whether a grid has layers."""
        return np.bincount(self._given.grid, minlength=self._grid_count) > 0


class EveryRecord(WithoutTime):
    """``match="all"``: every record that contains the point."""

    one_record = False
    by_band = ""
    most = None

    def __init__(self, layers: Layers, datetimes: Ints, grid_count: int):
        super().__init__(layers, datetimes, grid_count, np.arange(len(datetimes)))
        self.layers = Layers.arranged(layers.record, layers.grid, layers.bandset, layers.bandsets)

    def picks(self, hits: Hits, points: int, times: Ints | None = None) -> Iterator[Pick]:
        yield Pick(hits, hits.grid, self.layers.on_grid)


class Newest(WithoutTime):
    """``match="latest"``: for each band, the newest record that has it and contains the point.

    Among equally new ones it is the first of the collection; records without a datetime come last.
    """

    one_record = True
    by_band = "the newest record"
    most = 1

    def __init__(self, layers: Layers, datetimes: Ints, grid_count: int):
        age = np.where(datetimes == NO_DATETIME, 0, -(datetimes - datetimes.max(initial=0)))
        age[datetimes == NO_DATETIME] = NEVER
        self._ranked = np.argsort(age, kind="stable")
        """Record at each rank; 0 is the newest."""
        rank = np.empty_like(self._ranked)
        rank[self._ranked] = np.arange(len(self._ranked))
        super().__init__(layers, datetimes, grid_count, rank)
        self.layers, self._best = self._arranged(layers, grid_count)

    def _arranged(self, layers: Layers, grid_count: int) -> tuple[Layers, Ints]:
        """Layers, and the best rank [grid, bandset] of each grid and set, or ``NEVER``.

        Bands whose newest record is the same on every grid are decided together, so the band
        sets of the layers are replaced by groups of such bands.
        """
        bands = list(dict.fromkeys(band for bandset in layers.bandsets for band in bandset))
        place = {band: column for column, band in enumerate(bands)}
        best = np.full((grid_count, len(bands)), NEVER, dtype=np.int64)
        for number, bandset in enumerate(layers.bandsets):
            rows = layers.bandset == number
            for band in bandset:
                np.minimum.at(best[:, place[band]], layers.grid[rows], self._rank[layers.record[rows]])
        groups: dict[bytes, list[int]] = {}
        for column in range(len(bands)):
            groups.setdefault(best[:, column].tobytes(), []).append(column)
        bandsets = [tuple(bands[column] for column in columns) for columns in groups.values()]
        firsts = [columns[0] for columns in groups.values()]
        return Layers.arranged(layers.record, layers.grid, layers.bandset, bandsets), best[:, firsts]

    def picks(self, hits: Hits, points: int, times: Ints | None = None) -> Iterator[Pick]:
        for bandset in range(len(self.layers.bandsets)):
            rank = self._best[hits.grid, bandset]
            winner = np.full(points, NEVER, dtype=np.int64)
            np.minimum.at(winner, hits.point, rank)
            won = hits.take(np.flatnonzero((rank == winner[hits.point]) & (rank != NEVER)))
            yield Pick(won, won.grid, lambda grid, bandset=bandset: [self._layer(grid, bandset)])  # type: ignore[misc]

    def _layer(self, grid: int, bandset: int) -> tuple[int, int]:
        return int(self._ranked[self._best[grid, bandset]]), bandset


MATCHERS: dict[str, Callable[[Layers, Ints, int], Matcher]] = {"all": EveryRecord, "latest": Newest}
"""By values of ``SampleOptions.match``: from layers, the records' datetimes and the number of grids."""

WAYS = (*MATCHERS, *IN_TIME)
"""The values of ``SampleOptions.match``; those that go by the time of the point have :class:`.ranked.Ranked`."""


def matcher_of(
    match: str | MatchRules, layers: Layers, datetimes: Ints, grid_count: int, depth: GridDepth | None = None
) -> Matcher:
    """The matcher of a name, or of rules, for layers of records with these datetimes on so many grids.

    ``depth`` is needed where one record is taken of those that overlap.

    Raises
    ------
    InputError
        The name is unknown.
    """
    check_match(match)
    rules = MatchRules(match) if isinstance(match, str) else match
    if rules.time_column is None and rules.overlap == "all":
        return MATCHERS[rules.match](layers, datetimes, grid_count)
    return Ranked(layers, datetimes, grid_count, rules, depth)


def check_match(match: str | MatchRules) -> None:
    """Refuse an unknown way to match.

    Raises
    ------
    InputError
    """
    name = match.match if isinstance(match, MatchRules) else match
    if not isinstance(name, str) or name not in (*MATCHERS, *IN_TIME):
        raise InputError(f"match is {name!r}; it can be one of {(*MATCHERS, *IN_TIME)}")
