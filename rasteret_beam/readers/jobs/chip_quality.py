"""Quality rules under a window: which of its pixels pass, by bands of the record that may lie on other grids."""

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import NamedTuple

import numpy as np

from rasteret_beam.errors import TileReadError
from rasteret_beam.kernels.routing.chip_windows import PixelWindow
from rasteret_beam.kernels.sampling.nearest import UnderCentres, under_centres
from rasteret_beam.kernels.sampling.validity import Mask, is_valid, may_be_masked
from rasteret_beam.metrics import Counters
from rasteret_beam.model import Asset, Grid
from rasteret_beam.quality import Quality
from rasteret_beam.readers.jobs.cancellation import CancelToken
from rasteret_beam.readers.tiles.protocol import NO_MASK, Tile, TileRequest
from rasteret_beam.readers.tiles.source import TileSource


class QualityRead(NamedTuple):
    """A rule, and where the record has its band: None where it lacks the band."""

    rule: Quality
    asset: Asset | None
    grid: Grid | None


class LostTile(NamedTuple):
    """The first tile of a quality band, row by row, that could not be read, and why."""

    asset: Asset
    tile_row: int
    tile_col: int
    error: TileReadError


@dataclass(frozen=True, eq=False)
class _Tiles:
    """Tiles of a band with their masks, and the errors of those that could not be read."""

    tiles: dict[tuple[int, int], Tile]
    masks: dict[tuple[int, int], Tile]
    errors: dict[tuple[int, int], TileReadError]

    def put(self, request: TileRequest, tile: Tile | TileReadError) -> None:
        """Take a tile, a mask, or the error of one; threads may do so at the same time."""
        place = request.tile_row, request.tile_col
        if isinstance(tile, TileReadError):
            self.errors.setdefault(place, tile)
        else:
            (self.masks if request.mask else self.tiles)[place] = tile


class WindowQuality:
    """Which of some pixels of a window pass all rules; found once for the bands of the window, by the first to ask.

    Parameters
    ----------
    source : TileSource
    reads : sequence of QualityRead
    grid : Grid
        Of the window.
    window : PixelWindow
    wanted : [height, width] bool
        The pixels that matter; only tiles under their centres are read.
    """

    def __init__(self, source: TileSource, reads: Sequence[QualityRead], grid: Grid, window: PixelWindow, wanted: Mask):
        self._source, self._reads = source, reads
        self._grid, self._window, self._wanted = grid, window, wanted
        self._lock = Lock()
        self._found: Mask | LostTile | None = None

    def passing(self, counters: Counters, stop: CancelToken, keep_errors: bool) -> Mask | LostTile:
        """The wanted pixels that pass, [height, width]; or the tile that cannot be read, if errors are to be kept.

        Raises
        ------
        TileReadError
            A tile cannot be read; names the record, the band, the file and the tile. It ends the job of ``stop``.
        InputError
            A rule cannot be applied to the data type of its band.
        """
        if not self._reads:
            return self._wanted
        with self._lock:
            if self._found is None:
                self._found = self._find(counters, stop, keep_errors)
            return self._found

    def _find(self, counters: Counters, stop: CancelToken, keep_errors: bool) -> Mask | LostTile:
        passing = self._wanted
        for read in self._reads:
            if read.asset is None or read.grid is None:
                passing = passing if read.rule.missing == "pass" else np.zeros_like(passing)
                continue
            at = under_centres(self._grid, self._window, passing, read.grid)
            found = self._tiles(read.asset, read.grid, at, counters, stop, keep_errors)
            if found.errors:
                place = min(found.errors)
                return LostTile(read.asset, *place, found.errors[place])
            passing = np.zeros_like(passing)
            passing.reshape(-1)[at.place] = _passes(read.rule, read.asset, read.grid, at, found)
        return passing

    def _tiles(
        self, asset: Asset, grid: Grid, at: UnderCentres, counters: Counters, stop: CancelToken, keep_errors: bool
    ) -> _Tiles:
        """The tiles that hold the pixels."""
        found = _Tiles({}, {}, {})

        def on_tile(request: TileRequest, tile: Tile | TileReadError) -> None:
            if isinstance(tile, TileReadError) and not keep_errors:
                stop.cancel(tile)  # so that the job's other reads are left undone
                raise tile
            found.put(request, tile)

        places = np.unique(np.stack([at.row // grid.tile_height, at.col // grid.tile_width]), axis=1).T.tolist()
        requests = [TileRequest(asset, grid, row, col, grid.tile_height) for row, col in places]
        if may_be_masked(asset):
            requests += [TileRequest(asset, grid, row, col, 0, mask=True) for row, col in places]
        self._source.each(requests, on_tile, counters, stop)
        return found


def _passes(rule: Quality, asset: Asset, grid: Grid, at: UnderCentres, found: _Tiles) -> Mask:
    """Whether pixels pass a rule, [n]."""
    passing = np.zeros(len(at.place), dtype=bool)
    for (tile_row, tile_col), tile in found.tiles.items():
        there = np.flatnonzero((at.row // grid.tile_height == tile_row) & (at.col // grid.tile_width == tile_col))
        pixel = at.row[there] - tile_row * grid.tile_height, at.col[there] - tile_col * grid.tile_width
        mask = found.masks.get((tile_row, tile_col), NO_MASK)
        file_mask = None if mask is NO_MASK else mask[pixel] != 0
        values = tile[pixel]
        passing[there] = rule.passes(values, is_valid(values, asset.nodata, file_mask))
    return passing
