"""The contract of a tile-reading engine."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.errors import TileReadError, one_line, without_secrets
from rasteret_beam.kernels.storage.coalescing import REMOTE, CoalesceRules, coalesce
from rasteret_beam.metrics import Counters
from rasteret_beam.model import Access, Asset, Grid
from rasteret_beam.readers.jobs.cancellation import CancelToken

Tile = NDArray[np.generic]


@dataclass(frozen=True, eq=False)
class TileRequest:
    """A tile of one band that is wanted, from its top down to a row.

    Attributes
    ----------
    asset : Asset
    grid : Grid
        Of this band; a file with another one is refused.
    tile_row, tile_col : int
        Address on the grid.
    rows : int
        Rows needed, from the top.
    mask : bool
        Wanted is not the values but the file's own mask of the tile.
    """

    asset: Asset
    grid: Grid
    tile_row: int
    tile_col: int
    rows: int
    mask: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the tile, clipped to the grid."""
        return self.grid.tile_shape(self.tile_row, self.tile_col)

    @property
    def span(self) -> tuple[int, int]:
        """First byte of the stored tile, and the one after its last, where the collection has its place; else 0, 0."""
        stored = self.asset.stored
        number = self.tile_row * self.grid.tile_counts()[1] + self.tile_col
        if stored is None or number >= len(stored.tile_offsets):
            return 0, 0
        start = int(stored.tile_offsets[number])
        return start, start + int(stored.tile_byte_counts[number])

    def failed(self, why: BaseException, what: str = "") -> TileReadError:
        """The error that this tile cannot be read, which names everything."""
        what_of = "mask of tile" if self.mask else "tile"
        return failed(self.asset, f"{what_of} ({self.tile_row}, {self.tile_col})", why, what)


def failed(asset: Asset, part: str, why: BaseException, what: str = "") -> TileReadError:
    """The error that a part of a band cannot be read, which names everything."""
    text = f"record {asset.record_id!r}, band {asset.band}: {asset.href}, {part}"
    error = TileReadError(without_secrets(f"{text}: {what}{one_line(why)}", asset.href))
    error.kind = type(why).__name__
    error.attempts = getattr(why, "attempts", 1)
    return error


TileName = tuple[str, str | None, int, int, int, bool, Access, str | None]
"""File, the state that it was indexed in, band index, tile row, tile column, whether it is the tile's mask, and on
whose word it is read: what an untrusted collection has of a file's tiles is not what another one gets.
"""


def tile_name(asset: Asset, tile_row: int, tile_col: int, mask: bool = False) -> TileName:
    """What a decoded tile is kept under; a file that was changed and indexed again has other names."""
    stored = asset.stored
    state = (stored.header_digest or stored.etag) if stored is not None else None
    return asset.href, state, asset.band_index, tile_row, tile_col, mask, asset.access, asset.access.origin


def is_absent(request: TileRequest) -> bool:
    """Whether the file leaves the tile out, or the collection does not have its place."""
    start, stop = request.span
    return start == stop


def neighbours(requests: Sequence[TileRequest], rules: CoalesceRules = REMOTE) -> list[list[TileRequest]]:
    """Tiles of one file in sets whose bytes are asked for by one request."""
    starts, stops = [request.span[0] for request in requests], [request.span[1] for request in requests]
    return [[requests[at] for at in together] for together in coalesce(starts, stops, rules)]


NO_MASK: Tile = np.empty((0, 0), dtype=np.uint8)
"""In place of the mask of a tile whose file has none: the nodata value decides."""


def owned(tile: Tile) -> Tile:
    """The tile, or a copy of one that is a part of something larger: a view would keep the whole in memory."""
    return tile if tile.base is None or tile.base.nbytes <= 1.5 * tile.nbytes else tile.copy()


class TileEngine(Protocol):
    """Reads decoded tiles; threads may call it at the same time."""

    def plan(self, requests: Sequence[TileRequest]) -> list[list[TileRequest]]:
        """The wanted tiles in sets, each of which is read at once (by one request, or from one place)."""
        ...

    def read(
        self, requests: Sequence[TileRequest], counters: Counters, cancel: CancelToken | None = None
    ) -> Iterator[tuple[TileRequest, Tile | TileReadError]]:
        """The tiles of one set of :meth:`plan`.

        Parameters
        ----------
        counters : Counters
            Takes the counts of files opened, requests made, tiles decoded and bytes read.
        cancel : CancelToken, optional
            Ends the waiting for a server that fails, by the error ``Cancelled``.

        Yields
        ------
        TileRequest, [height, width] array or TileReadError
            Each wanted tile once: raw values in the band's own dtype, native byte order, of at
            least ``rows`` rows, clipped to the grid. A mask is uint8 and whole, 0 where a pixel is
            left out; or :data:`NO_MASK`. Or, where a tile cannot be read, why; the others are still given.
        """
        ...

    def close(self) -> None:
        """Close what is open."""
        ...
