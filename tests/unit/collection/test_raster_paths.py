"""Where rasters are: file: URIs, hrefs relative to their table, subdatasets, and what places a raster."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC

from rasteret_beam import Collection, build_from_cogs, build_from_table, load
from rasteret_beam.collection.records.hrefs import absolute, folder_of, resolved
from rasteret_beam.errors import BuildError, MissingInputError
from rasteret_beam.readers.gdal.world_files import parse_world_file, world_endings
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.readers.storage.stores import local_path
from tests.support.server import RasterServer

UTM = Affine(10, 0, 500_000, 0, -10, 5_000_160)
WORLD = "10\n0\n0\n-10\n500005\n5000155\n"


def write(path: Path, seed: int = 1, **more: Any) -> Path:
    """A uint8 raster of 16 x 16 pixels."""
    profile = {"driver": "GTiff", "width": 16, "height": 16, "count": 1, "dtype": "uint8", "crs": "EPSG:32631"}
    values = np.random.default_rng(seed).integers(1, 255, (1, 16, 16), "uint8")
    with rasterio.open(path, "w", **(profile | {"transform": UTM} | more)) as out:
        out.write(values)
    return path


def check_values(collection: Collection, name: str | Path) -> None:
    """All pixels of the only record are what rasterio gives for the raster of this name."""
    x, y = (part.ravel() for part in np.meshgrid(500_005 + 10.0 * np.arange(16), 5_000_155 - 10.0 * np.arange(16)))
    with rasterio.open(name) as raster:
        want = [float(value[0]) for value in raster.sample(zip(x, y, strict=True))]
    samples = collection.sample_points(pa.table({"x": x, "y": y}), bands=[collection.bands[0]], geometry_crs=32631)
    assert samples.sort_by("point_index")["value"].to_pylist() == want


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a blank, an umlaut and a percent sign in its name, and a raster in it."""
    place = tmp_path / "my data ü 100%"
    place.mkdir()
    write(place / "s#1.tif")
    return place


def test_a_file_uri_is_decoded(folder: Path) -> None:
    path = folder / "s#1.tif"
    uri = path.as_uri()
    assert "%20" in uri and "%23" in uri
    for href in (uri, uri.replace("file://", "file://localhost"), uri.replace("file://", "file:"), path, str(path)):
        collection = build_from_cogs([href])
        assert collection.to_table()["assets"].to_pylist() == [{"B1": {"href": str(path), "band_index": 0}}]
        check_values(collection, path)


def test_a_path_is_not_decoded(tmp_path: Path) -> None:
    path = write(tmp_path / "a%20b.tif")
    check_values(build_from_cogs([path]), path)
    with pytest.raises(BuildError, match=r"a b.tif: no such file"):
        build_from_cogs([f"file://{path}"])
    assert local_path("file:x") == "file:x"


def records(*hrefs: str) -> pa.Table:
    return pa.table(
        {"id": [f"r{n}" for n in range(len(hrefs))], "datetime": ["2023"] * len(hrefs), "path": list(hrefs)}
    )


def test_relative_hrefs_begin_at_their_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "tables").mkdir()
    pq.write_table(records("../s#1.tif"), folder / "tables" / "items.parquet")
    monkeypatch.chdir("/")
    for table in (
        folder / "tables" / "items.parquet",
        folder / "tables",
        (folder / "tables" / "items.parquet").as_uri(),
    ):
        check_values(build_from_table(table, href_column="path"), folder / "s#1.tif")
    assets = records().drop_columns(["path"])
    pq.write_table(records("x"), folder / "tables" / "items.parquet")
    with pytest.raises(BuildError, match=rf"{folder}/tables/x: no such file"):
        build_from_table(folder / "tables", href_column="path")
    assert assets.num_rows == 0
    monkeypatch.chdir(folder)
    check_values(build_from_table(records("s#1.tif"), href_column="path"), folder / "s#1.tif")


def test_relative_hrefs_of_assets_begin_at_their_table(folder: Path) -> None:
    rows = [{"id": "a", "datetime": "2023", "assets": json.dumps({"red": {"href": "./s#1.tif", "type": "image/tiff"}})}]
    pq.write_table(pa.Table.from_pylist(rows), folder / "items.parquet")
    check_values(build_from_table(folder / "items.parquet"), folder / "s#1.tif")


def test_relative_hrefs_of_a_table_on_a_server(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    path = write(tmp_path / "s.tif")
    pq.write_table(records("../s.tif", "/s.tif"), tmp_path / "deep" / "items.parquet")
    with RasterServer(tmp_path) as server:
        collection = build_from_table(f"{server.url}/deep/items.parquet", href_column="path")
        hrefs = [row["B1"]["href"] for row in collection.to_table()["assets"].to_pylist()]
        assert hrefs == [f"{server.url}/s.tif"] * 2
        check_values(collection.subset(ids="r0"), path)


@pytest.mark.parametrize(
    ("href", "folder", "want"),
    [
        ("s.tif", "/data", "/data/s.tif"),
        ("./a/../s.tif", "/data", "/data/s.tif"),
        ("/else/s.tif", "/data", "/else/s.tif"),
        ("s.tif", "s3://bucket/deep", "s3://bucket/deep/s.tif"),
        ("../s.tif", "gs://bucket/deep/er", "gs://bucket/deep/s.tif"),
        ("s.tif", "s3://bucket", "s3://bucket/s.tif"),
        ("s.tif", "https://user:word@host/deep", "https://user:word@host/deep/s.tif"),
        ("/s.tif?sig=1", "https://host/deep", "https://host/s.tif?sig=1"),
        ("s3://other/s.tif", "s3://bucket/deep", "s3://other/s.tif"),
        ("/vsizip/a.zip/s.tif", "https://host/deep", "/vsizip/a.zip/s.tif"),
        ("/vsis3/bucket/s.tif", "/data", "/vsis3/bucket/s.tif"),
        ("file:///x/a%20b.tif", "s3://bucket", "/x/a b.tif"),
        ("NETCDF:f.nc:t", "/data", "NETCDF:/data/f.nc:t"),
        ('NETCDF:"f.nc":t', "/data", 'NETCDF:"/data/f.nc":t'),
        ('HDF5:"../f.h5"://group/t', "/data/deep", 'HDF5:"/data/f.h5"://group/t'),
        ("GTIFF_DIR:2:f.tif", "/data", "GTIFF_DIR:2:/data/f.tif"),
        ("GTIFF_DIR:off:408:f.tif", "/data", "GTIFF_DIR:off:408:/data/f.tif"),
        ('ZARR:"f.zarr":/t', "/data", 'ZARR:"/data/f.zarr":/t'),
        ("NETCDF:/abs/f.nc:t", "/data", "NETCDF:/abs/f.nc:t"),
        ('ZARR:"/vsicurl/https://host/f.zarr":/t', "/data", 'ZARR:"/vsicurl/https://host/f.zarr":/t'),
        ("NETCDF:/vsizip/a.zip/f.nc:t", "/data", "NETCDF:/vsizip/a.zip/f.nc:t"),
    ],
)
def test_how_a_name_is_made_absolute(href: str, folder: str, want: str) -> None:
    assert resolved(href, folder) == want
    assert resolved(want, "/nowhere") == want


def test_folders_of_tables() -> None:
    assert folder_of("s3://bucket/a/items.parquet") == "s3://bucket/a"
    assert folder_of("s3://bucket/items.parquet") == "s3://bucket"
    assert folder_of("https://host/a/items.parquet?sig=a/b") == "https://host/a"
    assert folder_of("file:///data/a%20b/items.parquet") == "/data/a b"


def test_a_local_file_named_as_a_subdataset_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "NETCDF:x.tif")
    monkeypatch.chdir(tmp_path)
    assert absolute("NETCDF:x.tif") == str(path)
    check_values(build_from_cogs(["NETCDF:x.tif"]), path)


def test_what_is_a_local_file() -> None:
    assert not Location.of('HDF5:"/a.h5"://t').is_remote and not Location.of('HDF5:"/a.h5"://t').is_local
    assert (
        Location.of("https://host/a.tif").is_remote
        and Location.of("vrt:///a.tif").is_remote
        and not Location.of("/vsizip/a.zip/a.tif").is_local
    )
    assert (
        Location.of("/a.tif").is_local
        and Location.of("file:///a.tif").is_local
        and Location.of("file://localhost/a.tif").is_local
    )


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A tiled TIFF of two images, whose pixels differ."""
    tiles = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}
    path = write(tmp_path / "pages.tif", 1, **tiles)
    return write(path, 2, APPEND_SUBDATASET="YES", **tiles)


@pytest.mark.parametrize("page", [1, 2])
def test_a_page_of_a_tiff_is_the_one_named(
    pages: Path, page: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"GTIFF_DIR:{page}:{pages}"
    with rasterio.open(f"GTIFF_DIR:1:{pages}") as one, rasterio.open(f"GTIFF_DIR:2:{pages}") as two:
        assert (one.read() != two.read()).any()
    monkeypatch.chdir(tmp_path)
    for href in (name, f"GTIFF_DIR:{page}:pages.tif"):
        collection = build_from_cogs([href])
        check_values(collection, name)
        collection.check_files()
    collection.export(tmp_path / "c")
    check_values(load(tmp_path / "c"), name)


def test_a_variable_of_a_netcdf_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a:b.nc"
    rasterio.shutil.copy(write(tmp_path / "s.tif"), path, driver="netCDF")
    monkeypatch.chdir("/")
    plain = path.rename(tmp_path / "b.nc").with_name("a:b.nc")
    for name in (f"NETCDF:{tmp_path}/b.nc:Band1", f'NETCDF:"{tmp_path}/b.nc":Band1'):
        check_values(build_from_cogs([name]), name)
    (tmp_path / "b.nc").rename(plain)
    monkeypatch.chdir(tmp_path)
    table = build_from_table(records('NETCDF:"a:b.nc":Band1'), href_column="path").to_table()
    assert table["assets"].to_pylist()[0]["B1"]["href"] == f'NETCDF:"{path}":Band1'


def test_a_subdataset_that_is_not_there_says_what_gdal_says(pages: Path) -> None:
    with pytest.raises(BuildError) as raised:
        build_from_cogs([f"GTIFF_DIR:7:{pages}"])
    assert f"GTIFF_DIR:7:{pages}: " in str(raised.value) and "no such file" not in str(raised.value)


def test_a_file_in_an_archive(tmp_path: Path) -> None:
    path = write(tmp_path / "s.tif")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(path, "s.tif")
    name = f"/vsizip/{tmp_path}/a.zip/s.tif"
    collection = build_from_cogs([name])
    check_values(collection, name)
    collection.check_files()


def test_local_files_that_are_gone_are_still_found_out(folder: Path) -> None:
    collection = build_from_cogs([folder / "s#1.tif"])
    (folder / "s#1.tif").unlink()
    with pytest.raises(MissingInputError, match="1 of 1 files of the collection are missing"):
        collection.check_files()


CORNERS = [
    GroundControlPoint(row, col, 2.0 + col / 16, 48.0 - row / 16) for row, col in ((0, 0), (0, 16), (16, 0), (16, 16))
]

TERMS = [1.0] * 20
COEFFICIENTS = RPC(
    *(0.0, 1.0, 48.0, 1.0, TERMS, TERMS, 8.0, 1.0, 2.0, 1.0, TERMS, TERMS, 8.0, 1.0),
    err_bias=None,
    err_rand=None,
)


@pytest.mark.parametrize(
    ("placed", "words"),
    [
        ({"gcps": CORNERS, "crs": "EPSG:4326"}, "ground control points .4 GCPs. .*gdalwarp -t_srs"),
        (
            {"rpcs": COEFFICIENTS},
            "RPCs.*gdalwarp -rpc",
        ),
    ],
)
def test_a_raster_placed_by_points_or_polynomials_alone(tmp_path: Path, placed: dict, words: str) -> None:
    profile = {"driver": "GTiff", "width": 16, "height": 16, "count": 1, "dtype": "uint8"}
    with rasterio.open(tmp_path / "p.tif", "w", **profile, **placed) as out:
        out.write(np.zeros((1, 16, 16), "uint8"))
    with pytest.raises(BuildError, match=rf"p.tif: the file is georeferenced by .*{words}"):
        build_from_cogs([tmp_path / "p.tif"])


WORLDS = {
    "tfw": {"w.tfw": WORLD},
    "capitals": {"w.TFW": WORLD},
    "whole ending": {"w.tifw": WORLD},
    "wld": {"w.wld": WORLD},
    "order": {"w.tfw": WORLD, "w.tifw": WORLD.replace("10", "20"), "w.wld": WORLD.replace("10", "30")},
    "too short": {"w.tfw": "10\n0\n0\n", "w.wld": WORLD},
    "no width": {"w.tfw": "0\n0\n0\n0\n5\n5\n", "w.tifw": WORLD},
    "turned": {"w.tfw": " 10.5 \r\n1,0\r\n2\r\n-10\r\n500005.25\r\n5000155 m\r\nmore\r\n"},
}


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("driver", ["GTiff", "own", "points"])
def test_a_world_file_counts_on_a_server_as_on_a_disk(tmp_path: Path, name: str, driver: str) -> None:
    more = {"own": {"transform": Affine(5, 0, 1, 0, -5, 1)}, "points": {"gcps": CORNERS}}.get(driver, {})
    path = write(tmp_path / "w.tif", **({"transform": None} | more))
    for file, text in WORLDS[name].items():
        (tmp_path / file).write_text(text)
    with rasterio.open(path) as raster:
        want = tuple(raster.transform[:6])
    with RasterServer(tmp_path) as server:
        for href in (path, f"{server.url}/w.tif"):
            grids = build_from_cogs([href]).to_table()["grids"].to_pylist()
            assert tuple(grids[0][0]["transform"]) == want


def test_no_world_file_on_a_server(tmp_path: Path) -> None:
    write(tmp_path / "w.tif", transform=None)
    with RasterServer(tmp_path) as server, pytest.raises(BuildError, match="no usable georeferencing"):
        build_from_cogs([f"{server.url}/w.tif"])


def test_endings_of_world_files() -> None:
    assert world_endings("/a.b/x.png") == ["pgw", "PGW", "pngw", "PNGW", "wld", "WLD"]
    assert world_endings("/x.tiff")[:3] == ["tfw", "TFW", "tiffw"]
    assert parse_world_file(b"") is None and parse_world_file(b"1\n2\n3\nx\n5\n6") == (1.0, 3.0, 3.0, 2.0, 0.0, 5.0)
