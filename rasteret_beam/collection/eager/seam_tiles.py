"""Tiles of records beside those of points, into which the blocks of an interpolation reach."""

from collections.abc import Iterator, Sequence

import numpy as np

from rasteret_beam.collection.eager.touched_tiles import Group, LayersOf
from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.layers import Pick
from rasteret_beam.kernels.sampling.gather import tiles_of
from rasteret_beam.kernels.sampling.interpolation import SIZES, reach
from rasteret_beam.model import TileKey
from rasteret_beam.options import SampleOptions
from rasteret_beam.readers.jobs.sample_job import SampleJob
from rasteret_beam.readers.jobs.seams import Seam


class SeamTiles:
    """Collects the pixels beyond the grids of one of a matcher's picks over all batches, each of them once.

    Parameters
    ----------
    index : CollectionIndex
    layers : callable
        From a group of hits to the (record, bandset) of its layers.
    options : SampleOptions
    """

    def __init__(self, index: CollectionIndex, layers: LayersOf, options: SampleOptions):
        self._job = SampleJob(index.routing, index.assets, "", index.routing.bands, options)
        self._layers, self._size = layers, SIZES[options.resampling]
        self._beyond = np.empty((4, 0), dtype=np.int64)
        """Group, grid, row and column of each pixel."""

    def add(self, pick: Pick) -> None:
        hits, grids = pick.hits, self._job.routing.grids
        height, width = grids.height[hits.grid], grids.width[hits.grid]
        row, col = hits.row.astype(np.int64), hits.col.astype(np.int64)
        above, below = reach(hits.row - row, self._size)
        before, after = reach(hits.col - col, self._size)
        near = (row < above) | (row + below >= height) | (col < before) | (col + after >= width)
        at = np.flatnonzero(near)
        down, across = (part.reshape(-1) for part in np.mgrid[: 2 * self._size, : 2 * self._size] - self._size)
        used = (-above[at, None] <= down) & (down <= below[at, None])
        used &= (-before[at, None] <= across) & (across <= after[at, None])
        of, cell = np.nonzero(used)
        at = at[of]
        pixel = np.stack([pick.group[at], hits.grid[at], row[at] + down[cell], col[at] + across[cell]])
        outside = (pixel[2] < 0) | (pixel[2] >= height[at]) | (pixel[3] < 0) | (pixel[3] >= width[at])
        self._beyond = np.unique(np.concatenate([self._beyond, pixel[:, outside]], axis=1), axis=1)

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
