"""Gathering: values under pixels of decoded tiles."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.sampling.interpolation import Blocks
from rasteret_beam.kernels.sampling.validity import Mask, Status, Statuses, is_valid, pixel_status
from rasteret_beam.model import Grid


@dataclass(frozen=True, eq=False)
class TilePoints:
    """The points of a chunk in one tile, as positions in the chunk and pixels in the tile, [n] each."""

    tile_row: int
    tile_col: int
    point: Ints
    row: Ints
    col: Ints

    @property
    def last_row(self) -> int:
        """The last row of the tile that is needed."""
        return int(self.row.max())

    def take(self, tile: NDArray[np.generic]) -> Iterator[tuple[Ints, NDArray[np.generic]]]:
        """Where pixels of the decoded tile go, and the pixels."""
        yield self.point, tile[self.row, self.col]


def by_tile(grid: Grid, row: Ints, col: Ints) -> Iterator[TilePoints]:
    """Sort pixels of a grid by the tile they are in; tiles come in row-major order."""
    if not len(row):
        return
    _, across = grid.tile_counts()
    tile = (row // grid.tile_height) * across + col // grid.tile_width
    first = tile.min()
    # numpy sorts 16-bit numbers by radix, in a fraction of the time.
    order = np.argsort((tile - first).astype(np.uint16) if tile.max() - first < 1 << 16 else tile, kind="stable")
    starts = np.flatnonzero(np.diff(tile[order])) + 1
    for points in np.split(order, starts):
        tile_row, tile_col = divmod(int(tile[points[0]]), across)
        yield TilePoints(
            tile_row,
            tile_col,
            points,
            row[points] - tile_row * grid.tile_height,
            col[points] - tile_col * grid.tile_width,
        )


@dataclass(frozen=True, eq=False)
class TileBlocks:
    """What a tile has of the blocks of k pixels around the n points of a chunk, as positions in an array [k * n].

    Attributes
    ----------
    tile_row, tile_col : int
    count, size : int
        n; and pixels on each side of a block.
    whole : TilePoints, optional
        First pixels of the blocks that lie in the tile as a whole.
    cells : TilePoints, optional
        Single pixels of other blocks; their positions are those in the array.
    """

    tile_row: int
    tile_col: int
    count: int
    size: int
    whole: TilePoints | None = None
    cells: TilePoints | None = None

    @property
    def point(self) -> Ints:
        """Points that need the tile, each once."""
        parts = [self.whole.point] if self.whole else []
        return np.concatenate([*parts, np.unique(self.cells.point % self.count)] if self.cells else parts)

    @property
    def last_row(self) -> int:
        """The last row of the tile that is needed."""
        of_whole = self.whole.last_row + self.size - 1 if self.whole else 0
        return max(of_whole, self.cells.last_row) if self.cells else of_whole

    def take(self, tile: NDArray[np.generic]) -> Iterator[tuple[Ints | slice, NDArray[np.generic]]]:
        """Where pixels of the decoded tile go, and the pixels."""
        if self.whole is not None:
            flat, across = tile.ravel(), tile.shape[1]
            first = self.whole.row * across + self.whole.col
            for cell in range(self.size * self.size):
                down, aside = divmod(cell, self.size)
                yield self.whole.point + cell * self.count, flat[first + (down * across + aside)]
        if self.cells is not None:
            yield from self.cells.take(tile)


def blocks_by_tile(grid: Grid, blocks: Blocks) -> tuple[dict[tuple[int, int], TileBlocks], Ints]:
    """What tiles have of blocks, of the pixels that have a weight; and positions [k * n] of those beyond the grid."""
    count, size = len(blocks.top), blocks.size
    row, col = blocks.top % grid.tile_height, blocks.left % grid.tile_width
    in_one = (row + size <= grid.tile_height) & (col + size <= grid.tile_width)
    inside = (blocks.top >= 0) & (blocks.left >= 0)
    inside &= (blocks.top + size <= grid.height) & (blocks.left + size <= grid.width)
    whole, others = np.flatnonzero(in_one & inside), np.flatnonzero(~(in_one & inside))
    found: dict[tuple[int, int], TileBlocks] = {}
    for points in by_tile(grid, blocks.top[whole], blocks.left[whole]):
        at = replace(points, point=whole[points.point])
        found[points.tile_row, points.tile_col] = TileBlocks(points.tile_row, points.tile_col, count, size, at)
    cell, other = np.nonzero(blocks.used(others))
    point = others[other]
    rows, cols = blocks.top[point] + cell // size, blocks.left[point] + cell % size
    there = (rows >= 0) & (rows < grid.height) & (cols >= 0) & (cols < grid.width)
    positions = cell * count + point
    for cells in by_tile(grid, rows[there], cols[there]):
        place = cells.tile_row, cells.tile_col
        at = replace(cells, point=positions[there][cells.point])
        found[place] = replace(found.get(place, TileBlocks(*place, count, size)), cells=at)
    return found, positions[~there]


class PixelValues:
    """What is gathered of one band at ``size`` pixels: their values in the band's own dtype, and the file's mask.

    Threads may put tiles of different pixels at the same time. Pixels of which no tile is put hold anything.
    """

    def __init__(self, size: int):
        self.size = size
        self._values: NDArray[np.generic] | None = None
        self._left_in: Mask | None = None
        self._lock = Lock()

    def put(self, tile: NDArray[np.generic], points: "TilePoints | TileBlocks") -> None:
        """Take the values at pixels of a decoded tile [height, width]."""
        with self._lock:
            if self._values is None:
                self._values = np.empty(self.size, dtype=tile.dtype)
        for at, pixels in points.take(tile):
            self._values[at] = pixels

    def put_mask(self, tile: NDArray[np.generic], points: "TilePoints | TileBlocks") -> None:
        """Take what the file's mask, 0 where a pixel is left out, has at pixels of a tile."""
        with self._lock:
            if self._left_in is None:
                self._left_in = np.ones(self.size, dtype=bool)
        for at, pixels in points.take(tile):
            self._left_in[at] = pixels != 0

    def values(self) -> NDArray[np.generic]:
        """The values, [size], in the band's own dtype; of a band of which no tile is put, bool, which casts to any."""
        return np.zeros(self.size, dtype=bool) if self._values is None else self._values

    def valid(self, nodata: float | None) -> Mask:
        """Which pixels are valid, [size]."""
        if self._values is None:
            return np.zeros(self.size, dtype=bool)
        return is_valid(self._values, nodata, self._left_in)

    def status(self, nodata: float | None, flags: str | None) -> Statuses:
        """The status of each pixel, [size]; ``flags`` are those of the band's mask."""
        if self._values is None:
            return np.full(self.size, Status.NODATA, dtype=np.uint8)
        return pixel_status(self._values, nodata, self._left_in, flags)
