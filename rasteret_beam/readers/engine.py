"""The contract of a tile-reading engine."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.metrics import Tally
from rasteret_beam.model import Grid

Tile = NDArray[np.generic]


class TileEngine(Protocol):
    """Reads decoded tiles of one file; threads may call it at the same time."""

    def read_tiles(
        self, href: str, band_indexes: Sequence[int], grid: Grid, tile_row: int, tile_col: int, tally: Tally
    ) -> list[Tile]:
        """One tile of some bands of a file.

        Parameters
        ----------
        href : str
            Path or URL of the file.
        band_indexes : sequence of int
            0-based; bands that lie interleaved in the file are decoded once for all of them.
        grid : Grid
            Of these bands; a file with another one is refused.
        tile_row, tile_col : int
            Address on the grid.
        tally : Tally
            Takes the counts of files opened, tiles decoded and bytes read.

        Returns
        -------
        list of [height, width] arrays
            In the file's own dtype, raw values; edge tiles are clipped to the grid.

        Raises
        ------
        TileReadError
            The file or the tile cannot be read, or the file is not the one that was indexed.
        """
        ...

    def close(self) -> None:
        """Close what is open."""
        ...
