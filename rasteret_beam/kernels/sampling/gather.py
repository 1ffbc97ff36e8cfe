"""Gathering: values under pixels of decoded tiles."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.kernels.geo.grids import Ints
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
    def place(self) -> tuple[int, int]:
        """Row and column of the tile."""
        return self.tile_row, self.tile_col

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
    tile, across = _tiles(grid, row, col), grid.tile_counts()[1]
    order = _sorted(tile)
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


def tile_order(grid: Grid, row: Ints, col: Ints) -> Ints:
    """Positions [n] of pixels of a grid in the order of :func:`by_tile`."""
    return _sorted(_tiles(grid, row, col))


def tiles_of(grid: Grid, row: Ints, col: Ints) -> set[tuple[int, int]]:
    """Rows and columns of the tiles that pixels of a grid are in."""
    across = grid.tile_counts()[1]
    return {divmod(number, across) for number in np.unique(_tiles(grid, row, col)).tolist()}


def _tiles(grid: Grid, row: Ints, col: Ints) -> Ints:
    return (row // grid.tile_height) * grid.tile_counts()[1] + col // grid.tile_width


def _sorted(tile: Ints) -> Ints:
    first = tile.min() if len(tile) else 0
    # numpy sorts 16-bit numbers by radix, in a fraction of the time.
    narrow = len(tile) and tile.max() - first < 1 << 16
    return np.argsort((tile - first).astype(np.uint16) if narrow else tile, kind="stable")


class TilePixels(Protocol):
    """What a tile has of the pixels that are wanted, such as :class:`TilePoints`."""

    @property
    def point(self) -> Ints:
        """Points that need the tile."""
        ...

    @property
    def last_row(self) -> int:
        """The last row of the tile that is needed."""
        ...

    def take(self, tile: NDArray[np.generic]) -> Iterator[tuple[Ints | slice, NDArray[np.generic]]]:
        """Where pixels of the decoded tile go, and the pixels."""
        ...


@dataclass(frozen=True, eq=False)
class Wanted:
    """Pixels to gather: ``size`` positions, and what each tile has of them, by its row and column."""

    size: int
    in_tile: Mapping[tuple[int, int], TilePixels]

    @classmethod
    def at_points(cls, grid: Grid, row: Ints, col: Ints) -> "Wanted":
        """The pixels [n] that points lie in."""
        return cls(len(row), {points.place: points for points in by_tile(grid, row, col)})


class PixelValues:
    """What is gathered of one band at ``size`` pixels: their values in the band's own dtype, and the file's mask.

    Threads may put tiles of different pixels at the same time. Pixels of which no tile is put hold anything.
    """

    def __init__(self, size: int):
        self.size = size
        self._values: NDArray[np.generic] | None = None
        self._left_in: Mask | None = None
        self._lock = Lock()

    def put(self, tile: NDArray[np.generic], points: TilePixels) -> None:
        """Take the values at pixels of a decoded tile [height, width]."""
        with self._lock:
            if self._values is None:
                self._values = np.empty(self.size, dtype=tile.dtype)
        for at, pixels in points.take(tile):
            self._values[at] = pixels

    def put_mask(self, tile: NDArray[np.generic], points: TilePixels) -> None:
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
