"""TIFFs whose headers contradict themselves, or are hostile: rasterio's values, or one error that names the file."""

import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from pipelines.sample_points import main as sample_points
from rasteret_beam import Collection, build_from_cogs
from rasteret_beam.errors import BuildError, TileReadError
from rasteret_beam.kernels.storage.tiff_index import LERC
from rasteret_beam.model import Grid, StoredBand
from rasteret_beam.readers.gdal.headers import try_headers
from rasteret_beam.readers.tiles.decode import DecodeError, decode_tile
from rasteret_beam.readers.tiles.gdal import RasterioEngine
from rasteret_beam.readers.tiles.indexed import IndexedEngine, fallback_reason
from tests.support import rasters, tiles
from tests.support.commands import execute

XY = {"x_column": "x", "y_column": "y", "geometry_crs": 32631}
WIDTH, PREDICTOR, PLANAR, TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_BYTE_COUNTS = 256, 317, 284, 322, 323, 324, 325


def patch(path: Path, tag: int, value: object) -> None:
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags[tag].overwrite(value)


def patch_count(path: Path, tag: int, count: int) -> None:
    """How many values an entry claims to have; they lie where they did."""
    patch_entry(path, tag, 4, struct.pack("<I", count))


def patch_entry(path: Path, tag: int, at: int, content: bytes) -> None:
    """Write over a part of an entry of a TIFF's first directory: its tag, type, count and value or offset."""
    with tifffile.TiffFile(path) as tiff:
        start = tiff.pages[0].tags[tag].offset
    with open(path, "r+b") as file:
        file.seek(start + at)
        file.write(content)


def check_equal(path: Path) -> Collection:
    """Values of this package and of rasterio at points all over a file; gives its collection."""
    x, y = rasters.points_for(path, 100, 1)
    with rasterio.open(path) as dataset:
        inside = (dataset.bounds.left <= x) & (x < dataset.bounds.right)
        inside &= (dataset.bounds.bottom < y) & (y <= dataset.bounds.top)
        x, y = x[inside], y[inside]
        expected = np.array(list(dataset.sample(zip(x, y, strict=True))))
    collection = build_from_cogs([path])
    samples = collection.sample_points(pa.table({"x": x, "y": y}), collection.bands, **XY)
    found = np.full(expected.shape, np.nan)
    band = [collection.bands.index(name) for name in samples["band"].to_pylist()]
    found[samples["point_index"].to_numpy(), band] = samples["value"].to_numpy()
    np.testing.assert_array_equal(found, expected)
    return collection


def reason(collection: Collection, band: str = "B1") -> str | None:
    row = collection.plan(pa.table({"x": [500_008.0], "y": [4_499_992.0]}), [band], **XY)
    return row["reason"][0].as_py()


PLANAR_FILE = rasters.RasterCase(
    name="planar", dtype="int16", count=3, options={"COMPRESS": "DEFLATE", "INTERLEAVE": "BAND"}
)
PIXEL_FILE = rasters.RasterCase(
    name="pixel", dtype="int16", count=3, options={"COMPRESS": "DEFLATE", "INTERLEAVE": "PIXEL"}
)


class TestPlaces:
    """Which tiles are a band's follows from the planar configuration, and only where their number is right."""

    def test_more_offsets_than_tiles(self, tmp_path: Path) -> None:
        """Of bands that lie interleaved; they were once taken for those of bands that lie apart."""
        path = PIXEL_FILE.write(tmp_path)
        patch(path, WIDTH, 130)  # 3 tiles across, of 4
        collection = check_equal(path)
        assert reason(collection) == "it has 12 offsets and 12 byte counts for 9 tiles"

    def test_narrowed_planar_file(self, tmp_path: Path) -> None:
        path = PLANAR_FILE.write(tmp_path)
        patch(path, WIDTH, 150)
        assert reason(check_equal(path)) == "it has 36 offsets and 36 byte counts for 27 tiles"

    def test_widened_planar_file(self, tmp_path: Path) -> None:
        """All bands were once read from the places of the first."""
        path = PLANAR_FILE.write(tmp_path)
        patch(path, WIDTH, 300)
        collection = build_from_cogs([path])
        assert reason(collection) == "it has 36 offsets and 36 byte counts for 45 tiles"
        x, y = 500_008.0, 4_499_992.0
        with rasterio.open(path) as dataset:
            expected = next(dataset.sample([(x, y)])).tolist()
        samples = collection.sample_points(pa.table({"x": [x], "y": [y]}), ["B1", "B2", "B3"], **XY).sort_by("band")
        assert samples["value"].to_pylist() == expected
        assert len(set(expected)) == 3

    @pytest.mark.parametrize(("tag", "given"), [(TILE_OFFSETS, (11, 12)), (TILE_BYTE_COUNTS, (12, 11))])
    def test_one_place_is_missing(self, tag: int, given: tuple[int, int], tmp_path: Path) -> None:
        path = rasters.case("deflate_noise").write(tmp_path)
        patch_count(path, tag, 11)
        (header,) = try_headers(str(path))
        assert header.fallback_reason == "it has {} offsets and {} byte counts for 12 tiles".format(*given)
        assert len(header.tile_offsets) == 0

    def test_offset_beyond_the_file(self, tmp_path: Path) -> None:
        path = rasters.case("deflate_noise").write(tmp_path)
        with tifffile.TiffFile(path) as tiff:
            offsets = list(tiff.pages[0].dataoffsets)
        offsets[7] = 2**31
        patch(path, TILE_OFFSETS, offsets)
        wants = tiles.wants_of(path)
        size = path.stat().st_size
        why = fallback_reason(wants[0].asset, wants[0].grid)
        assert (
            why is not None
            and why.startswith("tile number 7 has ")
            and why.endswith(f" bytes at offset {2**31} of a file of {size} bytes")
        )
        found = list(tiles.read(RasterioEngine(), wants).values())
        assert [number for number, tile in enumerate(found) if isinstance(tile, TileReadError)] == [7]

    def test_a_tag_that_stands_there_twice(self, tmp_path: Path) -> None:
        path = rasters.case("deflate_noise").write(tmp_path)
        patch_entry(path, 277, 0, struct.pack("<H", PLANAR))
        assert reason(check_equal(path)) == "its TIFF header is irregular: tag 284 stands in its directory twice"

    def test_places_of_strips_beside_those_of_tiles(self, tmp_path: Path) -> None:
        path = rasters.case("tiles_pixel").write(tmp_path)
        patch_entry(path, 338, 0, struct.pack("<HHII", 273, 4, 1, 8))
        (header, *_) = try_headers(str(path))
        assert header.fallback_reason == "its TIFF header is irregular: it has tiles, and places of strips"

    def test_a_code_of_another_field_type(self, tmp_path: Path) -> None:
        """libtiff does not take a predictor from an offset of type IFD, and goes on without."""
        path = rasters.case("predictor3_float32").write(tmp_path)
        patch_entry(path, PREDICTOR, 2, struct.pack("<HI", 13, 1))
        assert reason(check_equal(path)) == f"its TIFF header is irregular: tag {PREDICTOR} has field type 13"


class TestPredictors:
    @pytest.mark.parametrize(
        ("number", "why"),
        [(3, "predictor 3, which is for floating-point numbers, in uint8"), (4, "predictor 4")],
    )
    def test_one_that_does_not_fit(self, number: int, why: str, tmp_path: Path) -> None:
        path = rasters.case("predictor2_uint8").write(tmp_path)
        patch(path, PREDICTOR, number)
        collection = build_from_cogs([path])
        assert reason(collection) == why
        with pytest.raises(TileReadError, match=f"^record 'predictor2_uint8', band B1: {path}, tile "):
            collection.sample_points(pa.table({"x": [500_008.0], "y": [4_499_992.0]}), ["B1"], **XY)

    @pytest.mark.parametrize("compression", [None, "packbits"])
    @pytest.mark.parametrize("number", [2, 3])
    def test_of_a_compression_that_takes_none(self, compression: str | None, number: int, tmp_path: Path) -> None:
        path = tmp_path / "file.tif"
        values = np.random.default_rng(1).integers(0, 255, (64, 64)).astype(np.uint8)
        tag = [(PREDICTOR, 3, 1, number, True)]
        tifffile.imwrite(path, values, tile=(32, 32), compression=compression, extratags=tag, metadata=None)
        wkt = CRS.from_epsg(32631).to_wkt()
        path.with_suffix(".tif.aux.xml").write_text(
            f"<PAMDataset><SRS>{wkt}</SRS><GeoTransform>500000,16,0,4500000,0,-16</GeoTransform></PAMDataset>"
        )
        assert reason(check_equal(path)) is None


class TestSizes:
    def test_tiles_of_a_billion_pixels(self, tmp_path: Path) -> None:
        path = rasters.case("one_pixel").write(tmp_path)
        for tag in (TILE_WIDTH, TILE_LENGTH):
            patch_entry(path, tag, 2, struct.pack("<HII", 4, 1, 1 << 30))
        found = try_headers(str(path))
        if isinstance(found, str):
            assert "TIFF" in found or "block" in found.lower()
            return
        collection = build_from_cogs([path])
        with pytest.raises(TileReadError, match=str(path)):
            collection.sample_points(pa.table({"x": [500_008.0], "y": [4_499_992.0]}), ["B1"], **XY)

    def test_more_tiles_than_an_index_holds(self, tmp_path: Path) -> None:
        """Their places are not read; rasterio reads the few that are wanted."""
        path = tmp_path / "many.tif"
        write_many_tiles(path, 1 << 18)
        (header,) = try_headers(str(path))
        assert (header.grid.width, len(header.tile_offsets)) == (1 << 22, 0)
        assert header.fallback_reason == f"it has {1 << 28} tiles, of which the index would hold {1 << 22}"

    @pytest.mark.parametrize("size", [0, 3, 8, 9, 100, 250])
    def test_cut_off_in_the_header(self, size: int, tmp_path: Path) -> None:
        path = rasters.case("deflate_noise").write(tmp_path)
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(BuildError, match=str(path)):
            build_from_cogs([path])

    def test_a_file_of_very_many_bands(self, tmp_path: Path) -> None:
        path = rasters.case("deflate_noise").write(tmp_path)
        patch(path, 277, 50_000)
        with pytest.raises(BuildError, match=f"{path}: the file has 50000 bands; choose at most 10000 of them with"):
            build_from_cogs([path])


def write_many_tiles(path: Path, across: int) -> None:
    """A BigTIFF of 1,024 rows of tiles of 16 x 16 pixels, none of which is in the file; its arrays are a hole."""
    width, height = 16 * across, 16 * 1024
    tile_count = across * 1024
    arrays = 4096
    tags = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, 8),
        (259, 3, 1, 8),
        (262, 3, 1, 1),
        (277, 3, 1, 1),
        (322, 3, 1, 16),
        (323, 3, 1, 16),
        (324, 16, tile_count, arrays),
        (325, 16, tile_count, arrays + 8 * tile_count),
        (33550, 12, 3, 1024),
        (33922, 12, 6, 1100),
        (34735, 3, 16, 1200),
    ]
    head = struct.pack("<2sHHHQ", b"II", 43, 8, 0, 16) + struct.pack("<Q", len(tags))
    head += b"".join(struct.pack("<HHQQ", *tag) for tag in tags) + struct.pack("<Q", 0)
    with open(path, "wb") as file:
        file.write(head)
        for at, form, values in (
            (1024, "<3d", (16, 16, 0)),
            (1100, "<6d", (0, 0, 0, 500_000, 4_500_000, 0)),
            (1200, "<16H", (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 1, 3072, 0, 1, 32631)),
        ):
            file.seek(at)
            file.write(struct.pack(form, *values))
        file.truncate(arrays + 16 * tile_count)


class TestOnlyRegularFiles:
    """What is no file would be waited for without end; both engines, when a collection is built and sampled."""

    @pytest.fixture(params=["a named pipe", "a socket"])
    def special(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str]]:
        path = tmp_path / "deflate_noise.tif"
        if request.param == "a named pipe":
            os.mkfifo(path)
            yield path, request.param
            return
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
            yield path, request.param

    def test_built(self, special: tuple[Path, str]) -> None:
        path, kind = special
        with pytest.raises(BuildError, match=f"{path}: it is {kind}, not a regular file"):
            build_from_cogs([path])

    def test_a_device(self) -> None:
        with pytest.raises(BuildError, match="/dev/zero: it is a character device, not a regular file"):
            build_from_cogs(["/dev/zero"])

    @pytest.mark.parametrize("name", ["deflate_noise", "strips_7"])
    def test_sampled(self, name: str, tmp_path: Path) -> None:
        path = rasters.case(name).write(tmp_path)
        collection = build_from_cogs([path])
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(TileReadError, match=r"it is a named pipe, not a regular file$"):
            collection.sample_points(pa.table({"x": [500_008.0], "y": [4_499_992.0]}), ["B1"], **XY)


class TestBadTiles:
    """Whatever a decoder raises is the error of one tile."""

    GRID = Grid("EPSG:32631", (16.0, 0.0, 500_000.0, 0.0, -16.0, 4_500_000.0), 64, 64, 64, 64)

    @pytest.mark.parametrize(
        "error", [TypeError("no"), MemoryError(), OverflowError("far"), IndexError("out"), KeyError(1)]
    )
    def test_any_error_of_a_decoder(self, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = rasters.case("lzw_noise").write(tmp_path)

        def fail(*_: object, **__: object) -> None:
            raise error

        wants = tiles.wants_of(path)[:2]
        monkeypatch.setattr(imagecodecs, "lzw_decode", fail)
        for tile in tiles.read(IndexedEngine(), wants).values():
            assert isinstance(tile, TileReadError)
            assert str(tile).startswith(f"record 'lzw_noise', band B1: {path}, tile (0, ")
            assert f"it cannot be decoded: {type(error).__name__}: " in str(tile)

    @pytest.mark.parametrize("error", [MemoryError("all gone"), TypeError("no"), OverflowError("far")])
    def test_any_error_of_gdal_s(self, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = rasters.case("strips_7").write(tmp_path)

        def fail(*_: object) -> None:
            raise error

        wants = tiles.wants_of(path)[:1]
        monkeypatch.setattr("rasteret_beam.readers.tiles.gdal.stored_bytes", fail)
        (tile,) = tiles.read(RasterioEngine(), wants).values()
        assert isinstance(tile, TileReadError) and str(path) in str(tile) and tile.kind == type(error).__name__

    def test_dead_letters_take_them(self, tmp_path: Path) -> None:
        good = rasters.case("predictor2_uint16").write(tmp_path)
        bad = rasters.case("predictor2_uint8").write(tmp_path)
        patch(bad, PREDICTOR, 3)
        build_from_cogs([good, bad]).export(tmp_path / "collection")
        pq.write_table(pa.table({"x": [500_008.0], "y": [4_499_992.0]}), tmp_path / "points.parquet")
        flags = {
            "points": tmp_path / "points.parquet",
            "x_column": "x",
            "y_column": "y",
            "geometry_crs": 32631,
            "collection": tmp_path / "collection",
            "bands": "B1",
            "output": tmp_path / "samples",
            "dead_letter": tmp_path / "dead",
        }
        done = execute(sample_points, *(f"--{name}={value}" for name, value in flags.items()))
        assert done.code == 3
        (letter,) = pq.read_table(next(tmp_path.glob("dead-*"))).to_pylist()
        assert (letter["record_id"], letter["band"], letter["href"]) == ("predictor2_uint8", "B1", str(bad))
        (row,) = pq.read_table(next(tmp_path.glob("samples-*"))).to_pylist()
        assert row["record_id"] == "predictor2_uint16"

    @pytest.mark.parametrize("rows", [1 << 20, 65])
    def test_lerc_blob_of_another_size(self, rows: int) -> None:
        """Its claim is refused before memory is taken for it."""
        blob = bytearray(imagecodecs.lerc_encode(np.zeros((64, 64), dtype=np.float32)))
        version = struct.unpack_from("<i", blob, 6)[0]
        assert blob[:6] == b"Lerc2 " and version >= 3
        struct.pack_into("<i", blob, 14, rows)
        stored = StoredBand("float32", "little", LERC, lerc_compression=0)
        with pytest.raises(DecodeError, match=f"a blob of {rows} x 64 pixels"):
            decode_tile(bytes(blob), stored, self.GRID, 64)

    @given(st.binary(max_size=200))
    def test_lerc_of_any_bytes(self, tail: bytes) -> None:
        stored = StoredBand("float32", "little", LERC, lerc_compression=0)
        with pytest.raises(DecodeError):
            decode_tile(b"Lerc2 " + tail, stored, self.GRID, 64)

    def test_lerc_bomb_in_zstd(self) -> None:
        """64 MB of zeros in a few kilobytes, where a tile is 16 kB."""
        stored = StoredBand("float32", "little", LERC, lerc_compression=2)
        with pytest.raises(DecodeError):
            decode_tile(imagecodecs.zstd_encode(bytes(64 << 20)), stored, self.GRID, 64)


def test_every_error_of_a_header_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise KeyError("somewhere\ndeep")

    good, bad = rasters.case("deflate_noise").write(tmp_path), rasters.case("zstd_noise").write(tmp_path)
    monkeypatch.setattr("rasteret_beam.readers.gdal.headers.read_headers", fail)
    assert try_headers(str(good)) == r"KeyError: 'somewhere\ndeep'"
    with pytest.raises(BuildError) as raised:
        build_from_cogs([good, bad])
    assert [href for href, _ in raised.value.failures] == [str(good), str(bad)]


def test_threads_do_not_hang_on_pipes(tmp_path: Path) -> None:
    """A build of many files goes on past one that nobody writes to."""
    os.mkfifo(tmp_path / "pipe.tif")
    good = rasters.case("deflate_noise").write(tmp_path)
    found: list[Collection] = []
    build = threading.Thread(
        target=lambda: found.append(build_from_cogs([tmp_path / "pipe.tif", good], on_error="skip")), daemon=True
    )
    build.start()
    build.join(30)
    assert [len(collection) for collection in found] == [1]
