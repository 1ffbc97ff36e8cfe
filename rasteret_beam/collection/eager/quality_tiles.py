"""The tiles of quality bands that are read at points, beside those of the bands to sample."""

from collections.abc import Iterator, Sequence

import numpy as np

from rasteret_beam.collection.eager.touched_tiles import Group, TouchedTiles
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.index import RoutingIndex
from rasteret_beam.kernels.routing.layers import Hits, Pick


class QualityTiles:
    """The tiles of quality bands, of the records that are taken of points, over all batches.

    A point and record counts once, however many bands are sampled there.
    """

    def __init__(self, routing: RoutingIndex, first_tile: Ints):
        self._routing, self._bands = routing, routing.rules.quality_bands
        # Where all records are taken, those with the same grids are one group: pairs with each would be too many.
        self._together = routing.records_together() if self._bands and routing.takes_all else None
        self._numbers: dict[tuple[int, int, int], int] = {}
        self._layers: list[list[tuple[int, int]]] = []
        self._touched = TouchedTiles(routing, first_tile, self._layers_of, [(band,) for band in self._bands])

    def groups(self) -> Iterator[Group]:
        return self._touched.groups()

    def add(self, hits: Hits, points: int, picks: Sequence[Pick]) -> None:
        """Add the tiles of a batch of so many points.

        Parameters
        ----------
        hits : Hits
            All grids that contain the points.
        picks : sequence of Pick
            What is taken of the bands to sample.
        """
        if not self._bands:
            return
        lookup = _Lookup(hits, len(self._routing.grids))
        if self._together is not None:
            for pick in self._together.picks(self._routing.to_sample(hits), points):
                self._add_groups(pick, lookup)
        else:
            self._add_pairs(*_pairs(picks, len(self._routing.record_ids)), lookup)

    def _layers_of(self, group: int) -> list[tuple[int, int]]:
        if self._together is not None:
            return self._layers[group]
        record, band = divmod(group, len(self._bands))
        return [(record, band)]

    def _add_groups(self, pick: Pick, lookup: "_Lookup") -> None:
        for group in np.unique(pick.group).tolist():
            records = np.array([record for record, _ in pick.layers(group)], dtype=np.int64)
            point = pick.hits.point[pick.group == group]
            for band, name in enumerate(self._bands):
                grids = self._routing.band_grids(name)[records]
                for grid in np.unique(grids[grids >= 0]).tolist():
                    number = self._numbers.setdefault((group, band, grid), len(self._numbers))
                    if number == len(self._layers):
                        self._layers.append([(record, band) for record in records[grids == grid].tolist()])
                    hits, _ = lookup.of(point, np.full(len(point), grid))
                    self._touched.add(Pick(hits, np.full(len(hits.point), number), self._layers_of))

    def _add_pairs(self, point: Ints, record: Ints, lookup: "_Lookup") -> None:
        for band, name in enumerate(self._bands):
            hits, rows = lookup.of(point, self._routing.band_grids(name)[record])
            self._touched.add(Pick(hits, record[rows] * len(self._bands) + band, self._layers_of))


class _Lookup:
    """Hits by point and grid."""

    def __init__(self, hits: Hits, grid_count: int):
        keys = hits.point * grid_count + hits.grid
        self._order = np.argsort(keys)
        self._keys, self._hits, self._grid_count = keys[self._order], hits, grid_count

    def of(self, point: Ints, grid: Ints) -> tuple[Hits, Ints]:
        """The hits of points on grids (-1: on none), and the positions of those that are there."""
        wanted = point * self._grid_count + grid
        at = np.searchsorted(self._keys, wanted)
        there = grid >= 0
        there[there] = self._keys[np.minimum(at[there], len(self._keys) - 1)] == wanted[there]
        rows = np.flatnonzero(there)
        return self._hits.take(self._order[at[rows]]), rows


def _pairs(picks: Sequence[Pick], records: int) -> tuple[Ints, Ints]:
    """Points and records of picks, each pair once."""
    found = [np.empty(0, dtype=np.int64)]
    for pick in picks:
        groups, number = np.unique(pick.group, return_inverse=True)
        of_groups = [[record for record, _ in pick.layers(group)] for group in groups.tolist()]
        lengths = np.array(list(map(len, of_groups)), dtype=np.int64)
        starts = np.cumsum(lengths) - lengths
        flat = np.array([record for group in of_groups for record in group], dtype=np.int64)
        counts = lengths[number]
        hit = np.repeat(np.arange(len(counts)), counts)
        at = np.arange(len(hit)) - np.repeat(np.cumsum(counts) - counts - starts[number], counts)
        found.append(pick.hits.point[hit] * records + flat[at])
    point, record = np.divmod(np.unique(np.concatenate(found)), max(records, 1))
    return point, record
