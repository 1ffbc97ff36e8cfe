"""The two engines: equal tiles, which one is chosen and why, and what a bad tile does."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasteret_beam import metrics
from rasteret_beam.errors import TileReadError
from rasteret_beam.kernels.storage.coalescing import CoalesceRules, coalesce
from rasteret_beam.metrics import Counters
from rasteret_beam.model import Asset
from rasteret_beam.readers.tiles.dispatch import Engines
from rasteret_beam.readers.tiles.gdal import RasterioEngine
from rasteret_beam.readers.tiles.indexed import IndexedEngine, fallback_reason
from rasteret_beam.readers.tiles.protocol import TileRequest
from tests.support import rasters, tiles

STRIPED = "the collection has no tile offsets for it: it is striped, or no TIFF"
JPEG, WEBP = "TIFF compression 7", "TIFF compression 50001"
NOT_INDEXED = {
    "nbits12_uint16": "12 bits a sample in uint16",
    "nbits1_uint8": "1 bits a sample in uint8",
    # Newer GDALs know such a file as one of float16.
    "nbits16_float32": "16 bits a sample in float32" if rasters.GDAL < (3, 11) else None,
    "big_lerc": "LERC in a big-endian file",
} | dict.fromkeys(
    "jpeg_gray jpeg_gray_own_tables jpeg_ycbcr jpeg_rgb jpeg_planar sparse_jpeg mask_rgb cog_jpeg_mask".split(), JPEG
)
NOT_INDEXED |= dict.fromkeys(["webp_lossy", "webp_lossless", "webp_alpha"], WEBP)

for photometric, names in {
    5: "cmyk cmyk_lzw cmyk_none cmyk_planar cmyk_uint16",
    8: "cielab",
    9: "icclab",
    10: "itulab",
}.items():
    reason = f"photometric interpretation {photometric}, which GDAL may convert"
    NOT_INDEXED |= dict.fromkeys(names.split(), reason)
NOT_INDEXED |= {"lerc_alpha": "LERC with alpha, which may be kept as a mask"}
NOT_INDEXED |= dict.fromkeys(
    ["lerc_nan_pixel", "lerc_zstd_nan_pixel"],
    "LERC of floating-point bands that lie interleaved, whose NaN may be kept as masks",
)


def expected_reason(case: rasters.RasterCase) -> str | None:
    return STRIPED if case.tile is None else NOT_INDEXED.get(case.name)


@pytest.mark.parametrize("case", rasters.CASES, ids=lambda case: case.name)
def test_each_file_is_read_by_its_engine(case: rasters.RasterCase, tmp_path: Path) -> None:
    wants = tiles.wants_of(case.write(tmp_path))
    reason = expected_reason(case)
    assert {fallback_reason(want.asset, want.grid) for want in wants} == {reason}
    chosen = {type(read.engine) for read in Engines().plan(wants)}
    assert chosen == {IndexedEngine if reason is None else RasterioEngine}


@pytest.mark.parametrize(
    "case", [case for case in rasters.CASES if expected_reason(case) is None], ids=lambda case: case.name
)
def test_the_indexed_engine_gives_rasterio_s_tiles(case: rasters.RasterCase, tmp_path: Path) -> None:
    wants = tiles.wants_of(case.write(tmp_path))
    indexed, counters = tiles.read(IndexedEngine(), wants, counted := Counters()), counted.snapshot()
    by_gdal = RasterioEngine()
    expected = tiles.read(by_gdal, wants)
    by_gdal.close()
    for place, tile in expected.items():
        assert indexed[place].dtype == tile.dtype and indexed[place].dtype.isnative
        np.testing.assert_array_equal(indexed[place], tile)
    for rows in (1, 13, 40):
        for place, tile in tiles.read(IndexedEngine(), [replace(want, rows=rows) for want in wants]).items():
            np.testing.assert_array_equal(tile[:rows], expected[place][:rows])
    assert metrics.DATASETS_OPENED not in counters  # no header is read
    assert counters.get(metrics.TILES_DECODED) == counters.get(metrics.TILES_INDEXED)


@pytest.mark.parametrize("codec", ["deflate", "zstd"])
def test_a_tile_is_decoded_no_further_than_its_last_wanted_row(codec: str, tmp_path: Path) -> None:
    wants = tiles.wants_of(rasters.case(f"{codec}_noise").write(tmp_path))
    found = tiles.read(IndexedEngine(), [replace(wants[0], rows=5)])
    assert {len(tile) for tile in found.values()} == {5}


def test_bands_that_lie_interleaved_are_fetched_and_decoded_once(tmp_path: Path) -> None:
    wants = tiles.wants_of(rasters.case("predictor2_pixel").write(tmp_path))
    counters = Counters()
    tiles.read(IndexedEngine(), wants, counters)
    stored = wants[0].asset.stored
    assert stored is not None and len({want.asset.band for want in wants}) == 3
    assert counters.snapshot()[metrics.TILE_BYTES_READ] == sum(stored.tile_byte_counts)
    assert counters.snapshot()[metrics.TILES_DECODED] == len(wants)


class TestBadTiles:
    """A tile that cannot be decoded names everything, and touches no other."""

    @pytest.mark.parametrize("name", ["deflate_noise", "zstd_noise", "lzw_noise", "lerc_int16", "lerc_zstd_float32"])
    def test_corrupt(self, name: str, tmp_path: Path) -> None:
        path = rasters.case(name).write(tmp_path)
        wants = tiles.wants_of(path)
        good = tiles.read(IndexedEngine(), wants)
        stored = wants[0].asset.stored
        assert stored is not None
        with open(path, "r+b") as file:
            file.seek(stored.tile_offsets[5])
            file.write(b"\xff" * stored.tile_byte_counts[5])
        bad = tiles.read(IndexedEngine(), wants)
        failed = [place for place, tile in bad.items() if isinstance(tile, TileReadError)]
        assert failed == [("B1", 1, 1)]
        message = str(bad["B1", 1, 1])
        assert message.startswith(f"record '{name}', band B1: {path}, tile (1, 1): it cannot be decoded: ")
        for place, tile in good.items():
            if place not in failed:
                np.testing.assert_array_equal(bad[place], tile)

    def test_a_flipped_bit_in_a_whole_tile_fails_its_checksum(self, tmp_path: Path) -> None:
        path = rasters.case("deflate_smooth").write(tmp_path)
        wants = tiles.wants_of(path)[:1]
        stored = wants[0].asset.stored
        assert stored is not None
        last = stored.tile_offsets[0] + stored.tile_byte_counts[0] - 1  # in the checksum itself
        content = bytearray(path.read_bytes())
        content[last] ^= 1
        path.write_bytes(content)
        (tile,) = tiles.read(IndexedEngine(), wants).values()
        assert isinstance(tile, TileReadError)

    def test_a_file_cut_short_fails_only_the_tiles_it_lost(self, tmp_path: Path) -> None:
        path = rasters.case("deflate_noise").write(tmp_path)
        wants = [replace(want, asset=forgetful(want)) for want in tiles.wants_of(path)]
        good = tiles.read(IndexedEngine(), wants)
        stored = wants[0].asset.stored
        assert stored is not None
        order = np.argsort(stored.tile_offsets)
        with open(path, "r+b") as file:
            file.truncate(stored.tile_offsets[order[-3]] + 1)
        found = list(tiles.read(IndexedEngine(), wants).values())
        for number, tile in enumerate(found):
            if number in order[-3:]:
                assert isinstance(tile, TileReadError) and "so its index is stale; build it again" in str(tile)
            else:
                np.testing.assert_array_equal(tile, list(good.values())[number])

    def test_a_changed_file_is_stale(self, tmp_path: Path) -> None:
        path = rasters.case("deflate_noise").write(tmp_path)
        wants = tiles.wants_of(path)
        size = path.stat().st_size
        with open(path, "ab") as file:
            file.write(b"more")
        (first, *others) = tiles.read(IndexedEngine(), wants).values()
        assert str(first) == (
            f"record 'deflate_noise', band B1: {path}, tile (0, 0): the file was changed after the collection was "
            f"built, so its index is stale; build it again (it has {size + 4} bytes, in the collection {size})"
        )
        assert all(isinstance(tile, TileReadError) for tile in others)

    def test_a_missing_file(self, tmp_path: Path) -> None:
        path = rasters.case("deflate_noise").write(tmp_path)
        wants = tiles.wants_of(path)[:1]
        path.unlink()
        (tile,) = tiles.read(IndexedEngine(), wants).values()
        assert str(tile) == f"record 'deflate_noise', band B1: {path}, tile (0, 0): no such file"


def forgetful(want: TileRequest) -> Asset:
    """The asset of a collection that does not know its files' sizes."""
    assert want.asset.stored is not None
    return replace(want.asset, stored=replace(want.asset.stored, file_size=None))


class TestCoalesce:
    RULES = CoalesceRules(max_gap=100, max_waste=0.5, max_bytes=1000)

    def test_neighbours_are_one_request(self) -> None:
        assert coalesce([0, 100, 200], [100, 200, 300], self.RULES) == [[0, 1, 2]]

    def test_any_order_in_and_by_start_out(self) -> None:
        assert coalesce([200, 0, 100], [300, 100, 200], self.RULES) == [[1, 2, 0]]

    def test_a_wide_gap_is_another_request(self) -> None:
        assert coalesce([0, 1100], [1000, 1200], self.RULES) == [[0], [1]]
        assert coalesce([0, 301], [200, 400], self.RULES) == [[0], [1]]

    def test_gaps_are_a_bounded_share(self) -> None:
        assert coalesce([0, 60], [10, 70], self.RULES) == [[0], [1]]

    def test_a_request_is_bounded_unless_a_single_range_is_longer(self) -> None:
        assert coalesce([0, 600], [600, 1200], self.RULES) == [[0], [1]]
        assert coalesce([0, 5000], [5000, 5100], self.RULES) == [[0], [1]]

    def test_nothing(self) -> None:
        assert coalesce([], [], self.RULES) == []

    @given(st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 800)), max_size=40))
    def test_holds_for_any_ranges(self, ranges: list[tuple[int, int]]) -> None:
        starts = [start for start, _ in ranges]
        stops = [start + length for start, length in ranges]
        requests = coalesce(starts, stops, self.RULES)
        assert sorted(at for request in requests for at in request) == list(range(len(ranges)))
        for request in requests:
            covered: set[int] = set()
            for at in request:
                covered.update(range(starts[at], stops[at]))
            span = max(stops[at] for at in request) - min(starts[at] for at in request)
            assert span - len(covered) <= self.RULES.max_waste * len(covered)
            longest = max(stops[at] - starts[at] for at in request)
            assert span <= max(self.RULES.max_bytes, longest)
