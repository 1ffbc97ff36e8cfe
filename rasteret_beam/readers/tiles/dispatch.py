"""Both engines behind one: the index reads the bands that it knows enough of, and rasterio the others.

Masks are always read by rasterio.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rasteret_beam.errors import TileReadError
from rasteret_beam.metrics import Counters
from rasteret_beam.readers.jobs.cancellation import CancelToken
from rasteret_beam.readers.storage.local_files import in_memory
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.readers.tiles.gdal import RasterioEngine
from rasteret_beam.readers.tiles.indexed import IndexedEngine, fallback_reason
from rasteret_beam.readers.tiles.protocol import Tile, TileEngine, TileRequest


@dataclass(frozen=True, eq=False)
class TileRead:
    """Tiles that one engine reads at once."""

    engine: TileEngine
    requests: Sequence[TileRequest]

    @property
    def remote(self) -> bool:
        """Whether a server is waited for."""
        return Location.of(self.requests[0].asset.href).is_remote

    def run(
        self, counters: Counters, on_tile: Callable[[TileRequest, Tile | TileReadError], None], cancel: CancelToken
    ) -> None:
        """Read the tiles, and hand each over as soon as it is there."""
        cancel.check()
        with in_memory(f"what is read of {self.requests[0].asset.href}"):
            for request, tile in self.engine.read(self.requests, counters, cancel):
                on_tile(request, tile)


class Engines:
    """The engines of a process.

    Parameters
    ----------
    indexed : TileEngine, optional
    rasterio : RasterioEngine, optional
    """

    def __init__(self, indexed: TileEngine | None = None, rasterio: RasterioEngine | None = None):
        self.indexed = indexed or IndexedEngine()
        self.rasterio = rasterio or RasterioEngine()

    def plan(self, requests: Sequence[TileRequest]) -> list[TileRead]:
        """The reads that give the wanted tiles."""
        reads = []
        indexed: dict[int, bool] = {}
        chosen: dict[bool, list[TileRequest]] = {True: [], False: []}
        for request in requests:
            if request.mask:
                chosen[False].append(request)
                continue
            known = indexed.get(id(request.asset))
            if known is None:
                known = indexed[id(request.asset)] = fallback_reason(request.asset, request.grid) is None
            chosen[known].append(request)
        for known, engine in ((True, self.indexed), (False, self.rasterio)):
            reads += [TileRead(engine, together) for together in engine.plan(chosen[known])] if chosen[known] else []
        return reads

    def close(self) -> None:
        """Close what is open."""
        self.indexed.close()
        self.rasterio.close()
