"""Decoded tiles, from a cache or read in threads."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from rasteret_beam import metrics
from rasteret_beam.errors import TileReadError
from rasteret_beam.metrics import Tally
from rasteret_beam.readers.ahead import Ahead
from rasteret_beam.readers.cache import BytesCache
from rasteret_beam.readers.engine import Tile, TileWant, owned
from rasteret_beam.readers.engines import Engines
from rasteret_beam.readers.stopping import Stop

REMOTE_READS = 24
"""Requests under way at the same time: with 30 ms each, 800 a second."""

Take = Callable[[TileWant, Tile | TileReadError], None]


class TileSource:
    """Gives decoded tiles; one object serves all threads of a process.

    Parameters
    ----------
    engines : Engines, optional
    threads : int, optional
        Tiles of local files decoded at the same time.
    cache_bytes : int
        Decoded tiles kept, for crowded tiles whose points come in several portions, and for windows beside each other.
    """

    def __init__(self, engines: Engines | None = None, threads: int | None = None, cache_bytes: int = 64 << 20):
        self.engines = engines or Engines()
        self._cache: BytesCache[Tile] = BytesCache(cache_bytes)
        self._local = ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1), thread_name_prefix="tiles")
        self._remote = ThreadPoolExecutor(REMOTE_READS, thread_name_prefix="remote-tiles")

    def each(self, wants: Iterable[TileWant], take: Take, tally: Tally, stop: Stop | None = None) -> None:
        """Hand over every wanted tile, or the error that it cannot be read; returns when all are handed over.

        ``take`` is called from several threads at the same time, once for each want.

        Raises
        ------
        Stopped
            ``stop`` was given, and the job has ended; then nothing is under way any more.
        """
        stop = stop or Stop()
        missing = []
        for want in wants:
            tile = self._cache.get(_key(want))
            if tile is not None and len(tile) >= min(want.rows, want.shape[0]):
                tally.add(metrics.TILE_CACHE_HITS)
                take(want, tile)
            else:
                missing.append(want)

        def keep(want: TileWant, tile: Tile | TileReadError) -> None:
            if not isinstance(tile, TileReadError):
                own = owned(tile)
                self._cache.put(_key(want), own, own.nbytes)
            take(want, tile)

        reads = self.engines.plan(missing)
        local: Ahead[None] = Ahead(self._local, len(reads))
        remote: Ahead[None] = Ahead(self._remote, len(reads))
        try:
            for read in reads:
                list((remote if read.remote else local).push(partial(read.run, tally, keep, stop)))
            list(remote.drain())
            list(local.drain())
        finally:
            remote.cancel()
            local.cancel()

    def close(self) -> None:
        """End the threads and close what is open."""
        self._local.shutdown(cancel_futures=True)
        self._remote.shutdown(cancel_futures=True)
        self.engines.close()


def _key(want: TileWant) -> tuple[str, int, int, int]:
    return want.asset.href, want.asset.band_index, want.tile_row, want.tile_col
