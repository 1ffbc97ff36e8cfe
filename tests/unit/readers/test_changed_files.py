"""A local file that was changed after its collection was built is an error; a copy of it is not."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from affine import Affine

import rasteret_beam
from rasteret_beam import Collection, build_from_cogs
from rasteret_beam.errors import TileReadError
from rasteret_beam.readers.storage import file_state
from rasteret_beam.readers.tiles.indexed import IndexedEngine
from tests.support import rasters, tiles

XY = {"x_column": "x", "y_column": "y", "geometry_crs": 32631}
POINTS = pa.table({"x": [500_008.0 + 160 * n for n in range(20)], "y": [4_499_992.0 - 120 * n for n in range(20)]})
INDEXED = rasters.RasterCase(name="scene", dtype="int16", options={"COMPRESS": "DEFLATE"})
STRIPED = replace(INDEXED, tile=None, strip_rows=7)
MASKED = replace(INDEXED, dtype="uint8", count=4, options={"ALPHA": "YES", "PHOTOMETRIC": "RGB"})
SPARSE = replace(INDEXED, sparse=True, options={"COMPRESS": "DEFLATE", "SPARSE_OK": "TRUE"})

Read = Callable[[Collection], object]


def points(collection: Collection) -> pa.Table:
    return collection.sample_points(POINTS, ["B1"], **XY).drop_columns(["collection"])


def nearby(collection: Collection) -> object:
    return collection.sample_points(POINTS, ["B1"], **XY, max_distance_pixels=2)


def chips(collection: Collection) -> object:
    return collection.get_numpy([shapely.box(500_100, 4_498_000, 501_000, 4_499_000)], ["B1"], geometry_crs=32631)


def write_moved(case: rasters.RasterCase, path: Path) -> None:
    """The file again, of the same size and its georeference moved by a pixel."""
    size = path.stat().st_size
    moved = replace(case, transform=case.transform * Affine.translation(1, 0)).write(path.parent)
    assert moved == path and path.stat().st_size == size


@pytest.fixture(autouse=True)
def in_a_process_that_knows_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_state, "_digests", {})


@pytest.mark.parametrize("read", [points, nearby, chips])
@pytest.mark.parametrize("case", [INDEXED, STRIPED, MASKED, SPARSE], ids=["indexed", "striped", "alpha", "sparse"])
@pytest.mark.parametrize("read_before", [False, True])
def test_moved_by_a_pixel(case: rasters.RasterCase, read: Read, read_before: bool, tmp_path: Path) -> None:
    path = case.write(tmp_path)
    collection = build_from_cogs([path])
    if read_before:
        read(collection)
    write_moved(case, path)
    with pytest.raises(TileReadError) as raised:
        read(collection)
    before, after = (
        made.to_table()["B1_extra"][0]["header_digest"].as_py() for made in (collection, build_from_cogs([path]))
    )
    text = str(raised.value)
    assert f"band B1: {path}, tile (" in text
    assert "changed after the collection was built, so its index is stale; build it again (the digest of its " in text
    assert f"header is {after}, in the collection {before})" in text
    read(build_from_cogs([path]))  # what is built again is read again, by what is kept of neither


def test_one_absent_tile_of_a_changed_file(tmp_path: Path) -> None:
    """Nothing is read of a tile that the file leaves out, and the file is looked at nevertheless."""
    path = SPARSE.write(tmp_path)
    (absent,) = [want for want in tiles.wants_of(path) if (want.tile_row, want.tile_col) == (0, 1)]
    assert absent.span == (0, 0)
    write_moved(SPARSE, path)
    (tile,) = tiles.read(IndexedEngine(), [absent]).values()
    assert isinstance(tile, TileReadError) and "build it again" in str(tile)
    path.unlink()
    (tile,) = tiles.read(IndexedEngine(), [absent]).values()
    assert str(tile).endswith(f"{path}, tile (0, 1): no such file")


def test_a_tag_of_another_value(tmp_path: Path) -> None:
    path = replace(INDEXED, nodata=11).write(tmp_path)
    collection = build_from_cogs([path])
    content = path.read_bytes()
    assert content.count(b"11\0") >= 1
    path.write_bytes(content.replace(b"11\0", b"12\0"))
    with rasterio.open(path) as dataset:
        assert dataset.nodata == 12
    with pytest.raises(TileReadError, match="build it again"):
        points(collection)


def test_a_file_that_is_no_tiff(tmp_path: Path) -> None:
    path = tmp_path / "scene.png"
    values = np.random.default_rng(1).integers(0, 255, (1, 40, 40)).astype(np.uint8)

    def write(values: np.ndarray) -> None:
        profile = {"driver": "PNG", "width": 40, "height": 40, "count": 1, "dtype": "uint8", "crs": "EPSG:32631"}
        with rasterio.open(path, "w", transform=INDEXED.transform, ZLEVEL=1, **profile) as dataset:
            dataset.write(values)

    write(values)
    collection = build_from_cogs([path])
    points(collection)
    size = path.stat().st_size
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.write_bytes(content)
    assert path.stat().st_size == size
    with pytest.raises(TileReadError, match="build it again"):
        points(collection)


class TestSameContent:
    """What was copied, moved or touched has another time and place on its disk, and the same header."""

    @pytest.mark.parametrize("case", [INDEXED, STRIPED], ids=["indexed", "striped"])
    def test_copied_and_touched(self, case: rasters.RasterCase, tmp_path: Path) -> None:
        path = case.write(tmp_path)
        collection = build_from_cogs([path])
        collection.export(tmp_path / "collection")
        expected = points(collection)
        shutil.copyfile(path, tmp_path / "copy")
        path.unlink()
        shutil.move(tmp_path / "copy", path)
        os.utime(path, (1, 1))
        assert points(rasteret_beam.load(tmp_path / "collection")).equals(expected)

    def test_the_digest_is_taken_once(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        taken = []

        def header_digest(file: object, size: int) -> str:
            taken.append(size)
            return digest_of(file, size)

        digest_of = file_state.header_digest
        monkeypatch.setattr(file_state, "header_digest", header_digest)
        path = INDEXED.write(tmp_path)
        wants = tiles.wants_of(path)
        tiles.read(IndexedEngine(), wants)
        tiles.read(IndexedEngine(), wants)
        assert taken == [path.stat().st_size]

    def test_a_collection_that_has_no_digest(self, tmp_path: Path) -> None:
        """As older versions of this package have made them: the size alone is compared."""
        path = INDEXED.write(tmp_path)
        expected = points(build_from_cogs([path]))
        table = build_from_cogs([path]).to_table()
        kept = ["scale", "offset", "mask", "byte_order", "bits_per_sample", "fill_order", "file_size"]
        extra = table["B1_extra"].combine_chunks()
        fields = [extra.field(name) for name in kept]
        older = pa.StructArray.from_arrays(fields, names=kept)
        at = table.column_names.index("B1_extra")
        pq.write_table(table.set_column(at, "B1_extra", older), tmp_path / "older.parquet")
        assert points(rasteret_beam.load(tmp_path / "older.parquet")).equals(expected)
