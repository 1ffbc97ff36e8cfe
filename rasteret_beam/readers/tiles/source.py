"""Decoded tiles, from a cache or read in threads."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

from rasteret_beam import metrics
from rasteret_beam.errors import TileReadError
from rasteret_beam.metrics import Counters
from rasteret_beam.model import Asset
from rasteret_beam.readers.gdal.rasters import RasterPool, limit_gdal_cache
from rasteret_beam.readers.jobs.cancellation import CancelToken
from rasteret_beam.readers.jobs.ordered_pool import OrderedPool
from rasteret_beam.readers.tiles.budget import CacheBudget
from rasteret_beam.readers.tiles.cache import BytesCache
from rasteret_beam.readers.tiles.dispatch import Engines
from rasteret_beam.readers.tiles.gdal import RasterioEngine
from rasteret_beam.readers.tiles.indexed import IndexedEngine
from rasteret_beam.readers.tiles.protocol import Tile, TileName, TileRequest, owned, tile_name

REMOTE_READS = 24
"""Requests under way at the same time: with 30 ms each, 800 a second."""

CALLERS = 32
"""Threads of :attr:`TileSource.waiting`."""

OnTile = Callable[[TileRequest, Tile | TileReadError], None]


class TileSource:
    """Gives decoded tiles; one object serves all threads of a process.

    Parameters
    ----------
    engines : Engines, optional
    threads : int, optional
        Tiles of local files decoded at the same time.
    cache_bytes : int
        Decoded tiles kept, for crowded tiles whose points come in several work units, and for neighbouring windows.

    Attributes
    ----------
    waiting : ThreadPoolExecutor
        For work that calls :meth:`each`, and mostly waits for tiles.
    """

    def __init__(self, engines: Engines | None = None, threads: int | None = None, cache_bytes: int = 64 << 20):
        self.engines = engines or Engines()
        self._cache: BytesCache[Tile] = BytesCache(cache_bytes)
        self._underway: dict[TileName, _Claim] = {}
        self._lock = Lock()
        self._local = ThreadPoolExecutor(threads or min(8, os.cpu_count() or 1), thread_name_prefix="tiles")
        self._remote = ThreadPoolExecutor(REMOTE_READS, thread_name_prefix="remote-tiles")
        self.waiting = ThreadPoolExecutor(CALLERS, thread_name_prefix="work-units")

    @classmethod
    def of_budget(cls, budget: CacheBudget, prefix_reads: bool = False) -> "TileSource":
        """A source whose caches, together with GDAL's, hold no more than a budget."""
        limit_gdal_cache(budget.share)
        indexed = IndexedEngine(prefix_reads=prefix_reads)
        engines = Engines(indexed, RasterioEngine(RasterPool(max_bytes=budget.share, skip_sidecars=True)))
        return cls(engines, cache_bytes=budget.share)

    def each(
        self, requests: Iterable[TileRequest], on_tile: OnTile, counters: Counters, cancel: CancelToken | None = None
    ) -> None:
        """Hand over every wanted tile, or the error that it cannot be read; returns when all are handed over.

        ``on_tile`` is called from several threads at the same time, once for each request. A tile that another call
        decodes just now is waited for, after the others.

        Raises
        ------
        Cancelled
            ``cancel`` was given, and the job has ended; then nothing is under way any more.
        """
        cancel = cancel or CancelToken()
        missing, waiting = [], []
        claims: dict[TileName, _Claim] = {}
        try:
            for request in requests:
                tile, waiter = self._find(request, on_tile, claims)
                if tile is not None:
                    counters.add(metrics.TILE_CACHE_HITS)
                    on_tile(request, tile)
                elif waiter is not None:
                    waiting.append(waiter)
                else:
                    missing.append(request)
            if missing:
                self._read(missing, partial(self._keep, claims, on_tile), counters, cancel)
        finally:
            self._give_up(claims)
        again = [waiter.request for waiter in waiting if not waiter.served.result()]
        if len(waiting) > len(again):
            counters.add(metrics.TILE_CACHE_HITS, len(waiting) - len(again))
        if again:
            self.each(again, on_tile, counters, cancel)

    def with_units(self, asset: Asset, counters: Counters, cancel: CancelToken | None = None) -> Asset:
        """An asset with what it lacks of scale and offset, by the tags of its file.

        Raises
        ------
        TileReadError
            The file cannot be read.
        Cancelled
            The job has ended.
        """
        return self.engines.rasterio.with_units(asset, counters, cancel)

    def _find(
        self, request: TileRequest, on_tile: OnTile, claims: "dict[TileName, _Claim]"
    ) -> "tuple[Tile | None, _Waiter | None]":
        """A decoded tile; or a place in the queue for one that is decoded just now; or neither, and it is claimed."""
        name, rows = _name(request), 0 if request.mask else min(request.rows, request.shape[0])
        with self._lock:
            tile = self._cache.get(name)
            if tile is not None and len(tile) >= rows:
                return tile, None
            claim = self._underway.get(name)
            if claim is None:
                claims[name] = self._underway[name] = _Claim(rows)
            elif claim.rows >= rows:
                claim.waiters.append(_Waiter(request, on_tile))
                return None, claim.waiters[-1]
            return None, None

    def _keep(
        self, claims: "dict[TileName, _Claim]", on_tile: OnTile, request: TileRequest, tile: Tile | TileReadError
    ) -> None:
        """Take a tile, and hand it at once to the threads that wait for it."""
        if not isinstance(tile, TileReadError):
            own = owned(tile)
            with self._lock:
                self._cache.put(_name(request), own, own.nbytes)
                claim = claims.pop(_name(request), None)
                if claim is not None:
                    del self._underway[_name(request)]
            for waiter in claim.waiters if claim is not None else ():
                waiter.serve(own)
        on_tile(request, tile)

    def _give_up(self, claims: "dict[TileName, _Claim]") -> None:
        """Let those who wait for tiles that were not read try for themselves."""
        with self._lock:
            for name in claims:
                del self._underway[name]
        for claim in claims.values():
            for waiter in claim.waiters:
                waiter.served.set_result(False)

    def _read(self, requests: list[TileRequest], on_tile: OnTile, counters: Counters, cancel: CancelToken) -> None:
        reads = self.engines.plan(requests)
        if len(reads) == 1 and reads[0].engine is self.engines.indexed and not reads[0].remote:
            reads[0].run(counters, on_tile, cancel)  # not worth another thread; GDAL would open a file in each
            return
        local: OrderedPool[None] = OrderedPool(self._local, len(reads))
        remote: OrderedPool[None] = OrderedPool(self._remote, len(reads))
        try:
            for read in reads:
                list((remote if read.remote else local).push(partial(read.run, counters, on_tile, cancel)))
            list(remote.drain())
            list(local.drain())
        finally:
            remote.cancel()
            local.cancel()

    def close(self) -> None:
        """End the threads and close what is open."""
        self.waiting.shutdown(cancel_futures=True)
        self._local.shutdown(cancel_futures=True)
        self._remote.shutdown(cancel_futures=True)
        self.engines.close()


@dataclass(frozen=True, eq=False)
class _Waiter:
    """Somebody who wants a tile that another call decodes; ``served`` tells later whether it was handed over."""

    request: TileRequest
    on_tile: OnTile
    served: "Future[bool]" = field(default_factory=Future)

    def serve(self, tile: Tile) -> None:
        try:
            self.on_tile(self.request, tile)
        except BaseException as error:
            self.served.set_exception(error)
        else:
            self.served.set_result(True)


@dataclass(frozen=True, eq=False)
class _Claim:
    """A tile that somebody decodes, down to which row, and who else waits for it."""

    rows: int
    waiters: list[_Waiter] = field(default_factory=list)


def _name(request: TileRequest) -> TileName:
    return tile_name(request.asset, request.tile_row, request.tile_col, request.mask)
