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
    wants: Sequence[TileRequest]

    @property
    def remote(self) -> bool:
        """Whether a server is waited for."""
        return Location.of(self.wants[0].asset.href).is_remote

    def run(
        self, counters: Counters, take: Callable[[TileRequest, Tile | TileReadError], None], stop: CancelToken
    ) -> None:
        """Read the tiles, and hand each over as soon as it is there."""
        stop.check()
        with in_memory(f"what is read of {self.wants[0].asset.href}"):
            for want, tile in self.engine.read(self.wants, counters, stop):
                take(want, tile)


class Engines:
    """The engines of a process.

    Parameters
    ----------
    indexed : TileEngine, optional
    rasterio : TileEngine, optional
    """

    def __init__(self, indexed: TileEngine | None = None, rasterio: TileEngine | None = None):
        self.indexed = indexed or IndexedEngine()
        self.rasterio = rasterio or RasterioEngine()

    def plan(self, wants: Sequence[TileRequest]) -> list[TileRead]:
        """The reads that give the wanted tiles."""
        reads = []
        indexed: dict[int, bool] = {}
        chosen: dict[bool, list[TileRequest]] = {True: [], False: []}
        for want in wants:
            if want.mask:
                chosen[False].append(want)
                continue
            known = indexed.get(id(want.asset))
            if known is None:
                known = indexed[id(want.asset)] = fallback_reason(want.asset, want.grid) is None
            chosen[known].append(want)
        for known, engine in ((True, self.indexed), (False, self.rasterio)):
            reads += [TileRead(engine, together) for together in engine.plan(chosen[known])] if chosen[known] else []
        return reads

    def close(self) -> None:
        """Close what is open."""
        self.indexed.close()
        self.rasterio.close()
