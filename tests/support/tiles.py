"""Tiles of a file through an engine."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from rasteret_beam import build_from_cogs
from rasteret_beam.errors import TileReadError
from rasteret_beam.metrics import Counters
from rasteret_beam.model import TileKey
from rasteret_beam.readers.tiles.protocol import TileEngine, TileRequest


def wants_of(path: Path | str, bands: Iterable[str] | None = None) -> list[TileRequest]:
    """All tiles of a file, down to their last rows, as its collection knows them."""
    collection = build_from_cogs([path])
    index = collection.index(list(bands or collection.bands))
    grid, names = index.routing.grid_of(TileKey(index.routing.record_ids[0], 0, 0, 0, 0))
    assets = index.assets(index.routing.record_ids[0], names)
    down, across = grid.tile_counts()
    return [
        TileRequest(asset, grid, row, col, grid.tile_height)
        for asset in assets
        for row in range(down)
        for col in range(across)
    ]


def place_of(want: TileRequest) -> tuple[str, int, int]:
    return want.asset.band, want.tile_row, want.tile_col


def read(
    engine: TileEngine, wants: list[TileRequest], counters: Counters | None = None
) -> dict[tuple[str, int, int], np.ndarray | TileReadError]:
    """The tiles, or why not, by band and address."""
    counters = counters or Counters()
    found = [pair for together in engine.plan(wants) for pair in engine.read(together, counters)]
    assert len(found) == len(wants)
    return {place_of(want): tile for want, tile in found}
