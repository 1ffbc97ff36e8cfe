"""Tiles of records beside those of points, into which the blocks around the points reach."""

from collections.abc import Iterator, Sequence

import numpy as np

from rasteret_beam.collection.eager.reached_tiles import Reached
from rasteret_beam.collection.eager.touched_tiles import Group, LayersOf
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.layers import Pick
from rasteret_beam.kernels.sampling.gather import tiles_of
from rasteret_beam.model import TileKey
from rasteret_beam.readers.jobs.sample_job import SampleJob
from rasteret_beam.readers.jobs.seams import Seam


class SeamTiles:
    """Collects the pixels beyond the grids of one of a matcher's picks over all batches, each of them once.

    Parameters
    ----------
    job : SampleJob
    layers : callable
        From a group of hits to the (record, bandset) of its layers.
    """

    def __init__(self, job: SampleJob, layers: LayersOf):
        self._job, self._layers = job, layers
        self._beyond = np.empty((4, 0), dtype=np.int64)
        """Group, grid, row and column of each pixel."""

    def add(self, pick: Pick, blocks: Reached) -> None:
        """Add what blocks around hits of a pick reach."""
        at = blocks.outside
        beyond = np.stack([pick.group[at], pick.hits.grid[at], blocks.row, blocks.col])
        self._beyond = np.unique(np.concatenate([self._beyond, beyond], axis=1), axis=1)

    def groups(self) -> Iterator[Group]:
        """The tiles of each record beside, with no points; a tile can come several times."""
        changes = np.flatnonzero(np.diff(self._beyond[:2]).any(axis=0)) + 1
        for pixels in np.split(self._beyond, changes, axis=1) if self._beyond.size else ():
            for record, bandset in self._layers(int(pixels[0, 0])):
                bands = self._job.routing.layers.bandsets[bandset]
                yield from self._of_record(record, int(pixels[1, 0]), bands, pixels[2], pixels[3])

    def _of_record(self, record: int, number: int, bands: Sequence[str], row: Ints, col: Ints) -> Iterator[Group]:
        routing = self._job.routing
        assets = self._job.assets(routing.record_ids[record], bands)
        seam = Seam(self._job, routing.grid(number), assets, row, col, lambda asset: asset)
        for share in seam.shares():
            grid = routing.grid(share.neighbour.grid)
            places = np.array(sorted(tiles_of(grid, *share.place(seam))))
            key = TileKey(routing.record_ids[share.neighbour.record], share.neighbour.grid, 0, 0, 0)
            yield key, tuple(share.assets), grid, places[:, 0], places[:, 1], np.zeros(len(places), dtype=np.int64)
