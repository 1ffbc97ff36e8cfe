"""Windows of pixels put together from tiles."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

import numpy as np

from rasteret_beam.errors import TileReadError
from rasteret_beam.kernels.routing.chip_windows import PixelWindow
from rasteret_beam.kernels.sampling.validity import Mask, may_be_masked
from rasteret_beam.metrics import Counters
from rasteret_beam.model import Asset, Grid
from rasteret_beam.readers.jobs.cancellation import CancelToken
from rasteret_beam.readers.tiles.protocol import NO_MASK, Tile, TileRequest
from rasteret_beam.readers.tiles.source import TileSource

Part = tuple[slice, slice]
"""Rows and columns."""


class TilePart(NamedTuple):
    """A tile, and what a window and the tile have in common: as part of the window, and of the tile."""

    tile_row: int
    tile_col: int
    in_window: Part
    in_tile: Part


Place = tuple[int, int]
"""Row and column of a tile."""


@dataclass(frozen=True, eq=False)
class BandWindow:
    """One band in a window, as far as its tiles could be read.

    Attributes
    ----------
    shape : (int, int)
        Height and width.
    parts : dict
        What each tile under the window gives of it.
    tiles, masks : dict of [height, width] arrays
        Tiles in the file's dtype; and the file's own masks, where it may have one.
    errors : dict of TileReadError
        Why the other tiles, or their masks, could not be read.
    """

    shape: tuple[int, int]
    parts: dict[Place, TilePart]
    tiles: dict[Place, Tile] = field(default_factory=dict)
    masks: dict[Place, Tile] = field(default_factory=dict)
    errors: dict[Place, TileReadError] = field(default_factory=dict)

    def put(self, request: TileRequest, tile: Tile | TileReadError) -> None:
        """Take a tile, a mask, or the error of one; threads may do so at the same time."""
        place = request.tile_row, request.tile_col
        if not isinstance(tile, TileReadError):
            (self.masks if request.mask else self.tiles)[place] = tile
        elif not request.mask or place not in self.errors:
            self.errors[place] = tile

    def pixels(self) -> Tile:
        """The raw values, [height, width], of a window without errors."""
        whole = np.empty(self.shape, dtype=next(iter(self.tiles.values())).dtype)
        for place, part in self.parts.items():
            whole[part.in_window] = self.tiles[place][part.in_tile]
        return whole

    def file_mask(self) -> Mask | None:
        """Where the file's own mask says that pixels are valid, [height, width]; None if it has none."""
        if not self.masks or any(mask is NO_MASK for mask in self.masks.values()):
            return None
        left_in = np.empty(self.shape, dtype=bool)
        for place, part in self.parts.items():
            left_in[part.in_window] = self.masks[place][part.in_tile] != 0
        return left_in


def read_window(
    source: TileSource,
    assets: Sequence[Asset],
    grid: Grid,
    window: PixelWindow,
    counters: Counters,
    cancel: CancelToken,
    keep_errors: bool = False,
) -> list[BandWindow]:
    """Some bands in a window of their grid: the tiles under it, whole, and their masks.

    Parameters
    ----------
    keep_errors : bool
        Keep the errors of tiles that cannot be read instead of raising the first.

    Raises
    ------
    TileReadError
        A tile cannot be read; names the record, the band, the file and the tile. It ends the job of ``cancel``.
    Cancelled
        The job of ``cancel`` has ended.
    """
    parts = {(part.tile_row, part.tile_col): part for part in tile_parts(grid, window)}
    found = {asset.band: BandWindow(window.shape, parts) for asset in assets}

    def on_tile(request: TileRequest, tile: Tile | TileReadError) -> None:
        if isinstance(tile, TileReadError) and not keep_errors:
            cancel.cancel(tile)  # so that the job's other reads are left undone
            raise tile
        found[request.asset.band].put(request, tile)

    masked = [asset for asset in assets if may_be_masked(asset)]
    requests = chain(
        (TileRequest(asset, grid, *place, grid.tile_height) for asset in assets for place in parts),
        (TileRequest(asset, grid, *place, 0, mask=True) for asset in masked for place in parts),
    )
    source.each(requests, on_tile, counters, cancel)
    return [found[asset.band] for asset in assets]


def tile_parts(grid: Grid, window: PixelWindow) -> Iterator[TilePart]:
    """The tiles under a window, row by row."""
    high, wide = grid.tile_height, grid.tile_width
    bottom, right = window.row + window.height, window.col + window.width
    for tile_row in range(window.row // high, (bottom - 1) // high + 1):
        for tile_col in range(window.col // wide, (right - 1) // wide + 1):
            top, left = max(window.row, tile_row * high), max(window.col, tile_col * wide)
            below, beside = min(bottom, (tile_row + 1) * high), min(right, (tile_col + 1) * wide)
            yield TilePart(
                tile_row,
                tile_col,
                (slice(top - window.row, below - window.row), slice(left - window.col, beside - window.col)),
                (
                    slice(top - tile_row * high, below - tile_row * high),
                    slice(left - tile_col * wide, beside - tile_col * wide),
                ),
            )
