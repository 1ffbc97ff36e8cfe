"""Blocks: rectangles of pixels around points, and what each tile has of them.

The k = height x width pixels of the blocks of n points come as arrays [k, n], row by row of the block: one pixel of all
points is contiguous, so that sums run over whole arrays. Flat positions are those in these arrays.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.sampling.gather import TilePoints, Wanted, by_tile
from rasteret_beam.kernels.sampling.validity import Mask
from rasteret_beam.model import Grid


@dataclass(frozen=True, eq=False)
class Blocks:
    """The pixels around n points.

    Attributes
    ----------
    height, width : int
        Pixels of a block, down and across.
    top, left : [n] int64
        Row and column of the first pixel; those of a point near the edge can lie outside the raster.
    """

    height: int
    width: int
    top: Ints
    left: Ints

    @property
    def cells(self) -> int:
        """Pixels of a block, k."""
        return self.height * self.width

    @property
    def count(self) -> int:
        """Points, n."""
        return len(self.top)

    def used(self, points: Ints) -> Mask:
        """Which pixels [k, m] of some of the points matter."""
        return np.ones((self.cells, len(points)), dtype=bool)

    def pixels(self) -> "BlockPixels":
        """All pixels that matter."""
        cell, point = np.nonzero(self.used(np.arange(self.count)))
        return self.at(cell, point)

    def at(self, cell: Ints, point: Ints) -> "BlockPixels":
        """Some pixels, by cell of the block and point, [m] each."""
        row, col = self.top[point] + cell // self.width, self.left[point] + cell % self.width
        return BlockPixels(cell * self.count + point, row, col)


AnyBlocks = TypeVar("AnyBlocks", bound=Blocks)


@dataclass(frozen=True, eq=False)
class BlockPixels:
    """Single pixels of blocks, [m] each: their flat positions, and where they lie on the grid, or beyond it."""

    position: Ints
    row: Ints
    col: Ints

    def inside(self, grid: Grid) -> Mask:
        """Which of them lie on the grid."""
        inside: Mask = (self.row >= 0) & (self.row < grid.height) & (self.col >= 0) & (self.col < grid.width)
        return inside

    def take(self, chosen: Ints | Mask) -> "BlockPixels":
        return BlockPixels(self.position[chosen], self.row[chosen], self.col[chosen])


@dataclass(frozen=True, eq=False)
class TileBlocks:
    """What a tile has of blocks.

    Attributes
    ----------
    tile_row, tile_col : int
    blocks : Blocks
    whole : TilePoints, optional
        First pixels of the blocks that lie in the tile as a whole.
    cells : TilePoints, optional
        Single pixels of other blocks; their positions are flat ones.
    """

    tile_row: int
    tile_col: int
    blocks: Blocks
    whole: TilePoints | None = None
    cells: TilePoints | None = None

    @property
    def point(self) -> Ints:
        """Points that need the tile, each once."""
        parts = [self.whole.point] if self.whole else []
        return np.concatenate([*parts, np.unique(self.cells.point % self.blocks.count)] if self.cells else parts)

    @property
    def last_row(self) -> int:
        """The last row of the tile that is needed."""
        of_whole = self.whole.last_row + self.blocks.height - 1 if self.whole else 0
        return max(of_whole, self.cells.last_row) if self.cells else of_whole

    def take(self, tile: NDArray[np.generic]) -> Iterator[tuple[Ints | slice, NDArray[np.generic]]]:
        """Where pixels of the decoded tile go, and the pixels."""
        if self.whole is not None:
            few = len(self.whole.point) < self.blocks.cells
            yield from self._by_block(tile, self.whole) if few else self._by_cell(tile, self.whole)
        if self.cells is not None:
            yield from self.cells.take(tile)

    def _by_cell(self, tile: NDArray[np.generic], whole: TilePoints) -> Iterator[tuple[Ints, NDArray[np.generic]]]:
        """One pixel of all blocks at a time."""
        flat, across = tile.ravel(), tile.shape[1]
        first = whole.row * across + whole.col
        for cell in range(self.blocks.cells):
            down, aside = divmod(cell, self.blocks.width)
            yield whole.point + cell * self.blocks.count, flat[down * across + aside :].take(first)

    def _by_block(self, tile: NDArray[np.generic], whole: TilePoints) -> Iterator[tuple[slice, NDArray[np.generic]]]:
        """All pixels of one block at a time, where there are more of them than blocks."""
        height, width = self.blocks.height, self.blocks.width
        for point, row, col in zip(whole.point.tolist(), whole.row.tolist(), whole.col.tolist(), strict=True):
            yield slice(point, None, self.blocks.count), tile[row : row + height, col : col + width].ravel()


@dataclass(frozen=True, eq=False)
class WantedBlocks(Wanted, Generic[AnyBlocks]):
    """Blocks of pixels to gather; positions are flat ones.

    Attributes
    ----------
    blocks : Blocks
    beyond : BlockPixels
        Their pixels that matter and lie beyond the grid.
    """

    blocks: AnyBlocks
    beyond: BlockPixels

    @classmethod
    def on(cls, grid: Grid, blocks: AnyBlocks) -> "WantedBlocks[AnyBlocks]":
        """Blocks on a grid."""
        in_tile, beyond = _by_tile(grid, blocks)
        return cls(blocks.cells * blocks.count, in_tile, blocks, beyond)

    def inside(self, grid: Grid) -> BlockPixels:
        """Their pixels that matter and lie on the grid."""
        pixels = self.blocks.pixels()
        return pixels.take(pixels.inside(grid))


def _by_tile(grid: Grid, blocks: Blocks) -> tuple[Mapping[tuple[int, int], TileBlocks], BlockPixels]:
    """What tiles have of blocks, of the pixels that matter, by tile row and column; and those beyond the grid."""
    row, col = blocks.top % grid.tile_height, blocks.left % grid.tile_width
    in_one = (row + blocks.height <= grid.tile_height) & (col + blocks.width <= grid.tile_width)
    in_one &= (blocks.top >= 0) & (blocks.left >= 0)
    in_one &= (blocks.top + blocks.height <= grid.height) & (blocks.left + blocks.width <= grid.width)
    whole, others = np.flatnonzero(in_one), np.flatnonzero(~in_one)
    found: dict[tuple[int, int], TileBlocks] = {}
    for points in by_tile(grid, blocks.top[whole], blocks.left[whole]):
        at = replace(points, point=whole[points.point])
        found[points.place] = TileBlocks(*points.place, blocks, at)
    cell, other = np.nonzero(blocks.used(others))
    pixels = blocks.at(cell, others[other])
    inside = pixels.inside(grid)
    there = pixels.take(inside)
    for cells in by_tile(grid, there.row, there.col):
        at = replace(cells, point=there.position[cells.point])
        found[cells.place] = replace(found.get(cells.place, TileBlocks(*cells.place, blocks)), cells=at)
    return found, pixels.take(~inside)
