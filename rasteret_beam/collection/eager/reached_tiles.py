"""How far the blocks of pixels around points reach: into tiles beside the points' own, and beyond the grid."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.layers import Hits
from rasteret_beam.kernels.sampling.blocks import Blocks, WantedBlocks
from rasteret_beam.kernels.sampling.interpolation import Interpolation, WeightedBlocks
from rasteret_beam.kernels.sampling.parts import Spots
from rasteret_beam.kernels.sampling.validity import Mask
from rasteret_beam.kernels.statistics.shapes import Square, portions
from rasteret_beam.model import Grid
from rasteret_beam.readers.jobs.sample_job import SampleJob
from rasteret_beam.readers.jobs.windows import WINDOW_CELLS


class Reached(NamedTuple):
    """What the blocks of some hits reach.

    Attributes
    ----------
    hit : [m] int64
        Positions of hits.
    tile : [m] int64
        Number on the hit's grid of a tile that its block reaches into, row by row; the hit's own tile may be one.
    outside : [k] int64
        Positions of hits, for each pixel beyond their grid.
    row, col : [k] int64
        Those pixels.
    """

    hit: Ints
    tile: Ints
    outside: Ints
    row: Ints
    col: Ints


def reached(job: SampleJob, hits: Hits) -> Iterator[Reached]:
    """What the blocks of a job reach around hits; those that stay within the tile of their point may be left out."""
    if not isinstance(job.method, Interpolation) and job.window is None:
        return
    at = _near_edges(job, hits)
    at = at[np.argsort(hits.grid[at], kind="stable")]
    for here in np.split(at, np.flatnonzero(np.diff(hits.grid[at])) + 1) if len(at) else ():
        grid = job.routing.grid(int(hits.grid[here[0]]))
        row, col = np.floor(hits.row[here]).astype(np.int64), np.floor(hits.col[here]).astype(np.int64)
        spots = Spots(grid, row, col, hits.row[here] - row, hits.col[here] - col)
        for some, blocks in _blocks(job, spots):
            yield _reached(grid, blocks, here[some])


def _near_edges(job: SampleJob, hits: Hits) -> Ints:
    """Positions of the hits whose blocks may reach out of their tiles."""
    margin = 0
    if isinstance(job.method, Interpolation):
        margin = job.method.size
    if job.window is not None:
        if not isinstance(job.window, Square):
            return np.arange(len(hits.point))
        margin = max(margin, job.window.pixels)
    grids, grid = job.routing.grids, hits.grid
    inside = _clear(hits.row, grids.tile_height[grid], grids.height[grid], margin)
    return np.flatnonzero(~(inside & _clear(hits.col, grids.tile_width[grid], grids.width[grid], margin)))


def _clear(position: Ints | Floats, tile: Ints | int, count: Ints | int, margin: Ints | int) -> Mask:
    """Whether so many rows (or columns) to both sides are in the same tile, [n]."""
    pixel = position.astype(np.int64)
    in_tile = pixel % tile
    clear: Mask = (in_tile >= margin) & (in_tile + margin < tile) & (pixel + margin < count)
    return clear


def _blocks(job: SampleJob, spots: Spots) -> Iterator[tuple[Ints, Blocks]]:
    """The blocks that are read around spots, and of which of them each set is."""
    if isinstance(job.method, Interpolation):
        yield np.arange(len(spots.row)), WeightedBlocks.of(spots, job.method.size)
    if job.window is not None:
        grid, (down, across) = spots.grid, job.window.reach(spots)
        clear = _clear(spots.row, grid.tile_height, grid.height, down)
        near = np.flatnonzero(~(clear & _clear(spots.col, grid.tile_width, grid.width, across)))
        for some in portions(job.window, spots.take(near), WINDOW_CELLS):
            yield near[some], job.window.blocks(spots.take(near[some]))


def _reached(grid: Grid, blocks: Blocks, hit: Ints) -> Reached:
    wanted = WantedBlocks.on(grid, blocks)
    across = grid.tile_counts()[1]
    tiles = [(row * across + col, of_tile.point) for (row, col), of_tile in wanted.in_tile.items()]
    number = np.repeat([tile for tile, _ in tiles], [len(point) for _, point in tiles]).astype(np.int64)
    point = np.concatenate([np.empty(0, dtype=np.int64), *(point for _, point in tiles)])
    beyond = wanted.beyond
    return Reached(hit[point], number, hit[beyond.position % blocks.count], beyond.row, beyond.col)
