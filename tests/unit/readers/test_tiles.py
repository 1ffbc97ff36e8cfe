"""Tiles that several calls want at the same time."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rasteret_beam import metrics
from rasteret_beam.errors import TileReadError
from rasteret_beam.metrics import Counters
from rasteret_beam.readers.jobs.cancellation import CancelToken
from rasteret_beam.readers.tiles.dispatch import Engines
from rasteret_beam.readers.tiles.indexed import IndexedEngine
from rasteret_beam.readers.tiles.protocol import Tile, TileRequest
from rasteret_beam.readers.tiles.source import TileSource
from tests.support import rasters, tiles


class SlowEngine(IndexedEngine):
    """Waits before it reads until it is told to go on; can fail its first reads."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__()
        self.may = threading.Event()
        self.begun = threading.Semaphore(0)
        self.failures = failures

    def read(
        self, wants: Sequence[TileRequest], counters: Counters, stop: CancelToken | None = None
    ) -> Iterator[tuple[TileRequest, Tile | TileReadError]]:
        self.begun.release()
        assert self.may.wait(20)
        for want, tile in super().read(wants, counters, stop):
            self.failures -= 1
            yield want, want.failed(ValueError("broken")) if self.failures >= 0 else tile


def twice(engine: SlowEngine, wants: list[list[TileRequest]]) -> tuple[list[dict], Counters]:
    """Two calls at the same time: what each was handed."""
    source, counters = TileSource(Engines(engine), cache_bytes=0), Counters()
    found: list[dict] = [{}, {}]

    def call(number: int) -> None:
        def take(want: TileRequest, tile: Tile | TileReadError) -> None:
            assert tiles.place_of(want) not in found[number]
            found[number][tiles.place_of(want)] = tile

        source.each(wants[number], take, counters)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(call, 0)
        engine.begun.acquire()
        second = pool.submit(call, 1)
        while not engine.may.is_set() and not second.done():
            with source._lock:
                if any(claim.waiters for claim in source._underway.values()):
                    engine.may.set()
        first.result(20)
        second.result(20)
    assert not source._underway
    source.close()
    return found, counters


@pytest.fixture
def wants(tmp_path: Path) -> list[TileRequest]:
    return tiles.wants_of(rasters.case("deflate_noise").write(tmp_path))


def test_a_tile_is_decoded_once_for_both(wants: list[TileRequest]) -> None:
    found, counters = twice(SlowEngine(), [wants, wants])
    expected = tiles.read(IndexedEngine(), wants)
    for handed in found:
        assert handed.keys() == expected.keys()
        for place, tile in handed.items():
            np.testing.assert_array_equal(tile, expected[place])
    assert counters.snapshot()[metrics.TILES_DECODED] == len(wants)
    assert counters.snapshot()[metrics.TILE_CACHE_HITS] == len(wants)


@pytest.mark.parametrize(("case", "is_handed_over"), [("deflate_noise", False), ("bigtiff_strips", True)])
def test_only_a_few_threads_read_by_gdal(tmp_path: Path, case: str, is_handed_over: bool) -> None:
    """Each of them opens the file; a lone tile that the index describes is decoded by who asks for it."""
    wants = tiles.wants_of(rasters.case(case).write(tmp_path))
    readers: set[str] = set()
    source = TileSource(threads=1)

    def take(want: TileRequest, tile: Tile | TileReadError) -> None:
        assert not isinstance(tile, TileReadError)
        readers.add(threading.current_thread().name)

    for want in wants:
        source.each([want], take, Counters())
    source.close()
    assert readers == {"tiles_0" if is_handed_over else threading.current_thread().name}


def test_who_needs_more_rows_reads_for_himself(wants: list[TileRequest]) -> None:
    engine = SlowEngine()
    engine.may.set()
    found, _ = twice(engine, [[replace(want, rows=3) for want in wants], wants])
    expected = tiles.read(IndexedEngine(), wants)
    for place, tile in found[1].items():
        np.testing.assert_array_equal(tile, expected[place])


def test_who_waits_for_a_tile_that_fails_tries_for_himself(wants: list[TileRequest]) -> None:
    found, _ = twice(SlowEngine(failures=1), [wants[:1], wants[:1]])
    (first,), (second,) = (list(handed.values()) for handed in found)
    assert isinstance(first, TileReadError) and str(first).endswith("broken")
    np.testing.assert_array_equal(second, next(iter(tiles.read(IndexedEngine(), wants[:1]).values())))
