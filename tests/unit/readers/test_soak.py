"""Memory of a process that reads tiles for a long time."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rasteret_beam import metrics
from rasteret_beam.errors import TileReadError
from rasteret_beam.metrics import Counters
from rasteret_beam.readers.tiles.protocol import Tile, TileRequest
from rasteret_beam.readers.tiles.source import TileSource
from tests.support import rasters, tiles

READS = 200_000
AT_ONCE = 500
NAMES = (
    "deflate_noise zstd_noise lzw_noise packbits_noise none_noise lerc_zstd_float32 predictor2_pixel "
    "predictor3_float32 sparse_nodata big_predictor2_uint16 cog jpeg_gray strips_7 webp_lossless"
).split()


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs Linux's /proc to see the process's memory")
def test_memory_is_flat_after_the_first_tenth(tmp_path: Path) -> None:
    wants = [want for name in NAMES for want in tiles.wants_of(rasters.case(name).write(tmp_path))]
    damaged = rasters.case("deflate_smooth").write(tmp_path)
    wants += tiles.wants_of(damaged)
    damaged.write_bytes(b"II*\0" + b"\xff" * (damaged.stat().st_size - 4))
    rng, counters = np.random.default_rng(1), Counters()
    source = TileSource(cache_bytes=8 << 10)
    read, failed = 0, 0
    after_a_tenth = 0

    def take(want: TileRequest, tile: Tile | TileReadError) -> None:
        nonlocal failed
        failed += isinstance(tile, TileReadError)

    while read < READS:
        chosen = [wants[number] for number in rng.integers(len(wants), size=AT_ONCE)]
        source.each([replace(want, rows=int(rng.integers(1, 65))) for want in chosen], take, counters)
        read += AT_ONCE
        if read == READS // 10:
            after_a_tenth = resident_bytes()
    source.close()
    counts = counters.snapshot()
    assert counts[metrics.TILES_DECODED] > READS / 2 and counts[metrics.TILES_INDEXED] > READS / 4
    assert READS / 40 < failed < READS / 5
    assert resident_bytes() - after_a_tenth < 32 << 20
