"""Points and polygons of GeoPackages, FlatGeobuf and shapefiles, against GeoPandas and the same rows as GeoParquet."""

import json
import os
import shutil
import sqlite3
import struct
import sys
import zipfile
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import rasterio
import shapely
from affine import Affine
from pyproj import Transformer

import rasteret_beam
from pipelines import sample_points, zonal_statistics
from rasteret_beam import ReadPoints, ReadPolygons
from rasteret_beam.errors import InputError, MissingInputError, PermissionDeniedError
from rasteret_beam.model import DEFAULT_ACCESS
from rasteret_beam.transforms.sources import local_copies, vector_files
from rasteret_beam.transforms.sources.local_copies import local_copy
from rasteret_beam.transforms.sources.slices import within
from rasteret_beam.transforms.sources.table_files import _read_split
from rasteret_beam.transforms.sources.vector_files import VectorFile
from tests.support.server import RasterServer

DRIVERS = {"gpkg": "GPKG", "fgb": "FlatGeobuf", "shp": "ESRI Shapefile"}
ROWS = 25

pytestmark = pytest.mark.filterwarnings("ignore:'crs' was not provided", "ignore:Non-conformant content")


def frame(rows: int = ROWS, crs: Any = 4326, **columns: Any) -> geopandas.GeoDataFrame:
    x, y = np.random.default_rng(1).uniform(2.1, 5.1, (2, rows)).round(6)
    given = columns or {"plot": [f"{n:03}" for n in range(rows)], "n": np.arange(rows) + (1 << 40)}
    return geopandas.GeoDataFrame(given, geometry=geopandas.points_from_xy(x, y + 40), crs=crs)


def write(table: geopandas.GeoDataFrame, path: Path, **settings: Any) -> str:
    pyogrio.write_dataframe(table, path, driver=DRIVERS[path.suffix[1:]], **settings)
    return str(path)


def read(source: Any, reader: Any = ReadPoints, **settings: Any) -> pa.Table:
    reading = reader(source, **settings)
    return pa.Table.from_batches(list(reading.batches()), reading.point_columns().schema)


@pytest.fixture(params=DRIVERS)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"p.{request.param}"


def without_order(table: geopandas.GeoDataFrame, path: Path) -> geopandas.GeoDataFrame:
    """The rows as the file has them: the index of FlatGeobuf orders them."""
    return geopandas.read_file(path) if path.suffix == ".fgb" else table


# Values


def test_points_are_those_of_geoparquet(path: Path, tmp_path: Path) -> None:
    write(frame(), path)
    without_order(frame(), path).to_parquet(tmp_path / "p.parquet")
    found, wanted = read(path), read(tmp_path / "p.parquet")
    assert found.schema.names == wanted.schema.names and found.schema.metadata == wanted.schema.metadata
    assert found.to_pylist() == wanted.to_pylist()
    assert found["point_index"].to_pylist() == list(range(ROWS)) and ReadPoints(path).point_columns().crs == "EPSG:4326"


def test_types_of_columns(tmp_path: Path) -> None:
    values = {
        "day": pa.array([date(2020, 1, 2), None]),
        "at": pa.array([datetime(2020, 1, 2, 3, 4, 5, 678_000, UTC), None], pa.timestamp("ms", "UTC")),
        "yes": pa.array([True, None]),
        "long": pa.array([2**62, None]),
        "short": pa.array([-7, None], pa.int16()),
        "single": pa.array([1.5, None], pa.float32()),
        "text": pa.array(["é", None]),
        "raw": pa.array([b"\xff", None]),
        "words": pa.array([["a", "b"], None], pa.list_(pa.string())),
    }
    wkb = pa.array([shapely.Point(3, 45).wkb, None], pa.binary())
    pyogrio.raw.write_arrow(
        pa.table({**values, "geom": wkb}),
        tmp_path / "p.gpkg",
        driver="GPKG",
        geometry_name="geom",
        geometry_type="Point",
        crs="EPSG:4326",
    )
    found = read(tmp_path / "p.gpkg")
    for name in [*values][:-1]:
        assert (
            found.schema.field(name).type == values[name].type and found[name].to_pylist() == values[name].to_pylist()
        )
    assert found.schema.field("words").type == pa.string()
    assert json.loads(found["words"][0].as_py()) == ["a", "b"]
    assert found["point_x"].to_pylist() == [3.0, None]
    assert all(field.metadata is None for field in found.schema)


@pytest.mark.parametrize("ending", ["gpkg", "fgb"])
def test_times_with_zones(tmp_path: Path, ending: str) -> None:
    """Each value may have its own zone; without one it is UTC."""
    texts = [
        "2020-01-02T04:04:05+01:00",
        "2020-06-02T04:04:05.250-02:30",
        "2020-06-02T04:04:05Z",
        "2020-06-02T04:04:05",
    ]
    times = pd.Series([pd.Timestamp(text) for text in texts], dtype=object)
    path = write(frame(4, at=times), tmp_path / f"p.{ending}", SPATIAL_INDEX="NO")
    found = read(path)["at"]
    assert found.type == pa.timestamp("ms", "UTC")
    wanted = [pd.Timestamp(text) for text in texts]
    assert found.to_pylist() == [(at if at.tzinfo else at.tz_localize("UTC")).to_pydatetime() for at in wanted]
    assert ReadPoints(path, time_column="at").point_columns().kept == ("at",)


KINDS = {
    "Z": "POINT Z (3 45 9)",
    "M": "POINT M (3 45 9)",
    "ZM": "POINT ZM (3 45 9 8)",
    "multi": "MULTIPOINT ((3 45))",
    "empty": "POINT EMPTY",
    "null": None,
}


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_points(tmp_path: Path, kind: str) -> None:
    text = KINDS[kind]
    wkb = text and shapely.to_wkb(shapely.from_wkt(text), flavor="iso", output_dimension=4)
    (row,) = read(as_geopackage(tmp_path, [wkb])).to_pylist()
    wanted = {"null": "(None, None)", "empty": "(nan, nan)"}.get(kind, "(3.0, 45.0)")
    assert str((row["point_x"], row["point_y"])) == wanted


def as_geopackage(folder: Path, values: Sequence[bytes | None], kind: str = "GEOMETRY") -> str:
    """A GeoPackage of geometries that pyogrio does not write."""
    plain = [value and shapely.Point(0, 0).wkb for value in values]
    table = pa.table({"a": pa.array(range(len(values)), pa.int64()), "geom": pa.array(plain, pa.binary())})
    path = folder / "odd.gpkg"
    pyogrio.raw.write_arrow(
        table, path, driver="GPKG", geometry_name="geom", geometry_type="Unknown", crs="EPSG:4326", SPATIAL_INDEX="NO"
    )
    with changed(path) as base:
        for row, value in enumerate(values, 1):
            if value is not None:
                base.execute(
                    "UPDATE odd SET geom = ? WHERE fid = ?", (b"GP\0\1" + struct.pack("<i", 4326) + value, row)
                )
        base.execute("UPDATE gpkg_geometry_columns SET geometry_type_name = ?, z = 2, m = 2", (kind,))
    return str(path)


class changed:
    """A GeoPackage to change with SQLite, without its triggers, which need functions of GDAL."""

    def __init__(self, path: Path):
        self.base = sqlite3.connect(path)
        for (name,) in self.base.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            self.base.execute(f'DROP TRIGGER "{name}"')

    def __enter__(self) -> sqlite3.Connection:
        return self.base

    def __exit__(self, *error: object) -> None:
        self.base.commit()
        self.base.close()


def test_arcs_become_lines(tmp_path: Path) -> None:
    """A circle of radius 1 as two arcs, and the polygon that GDAL makes of it."""
    arcs = struct.pack("<BII", 1, 8, 5) + struct.pack("<10d", 3, 45, 4, 46, 5, 45, 4, 44, 3, 45)
    circle = struct.pack("<BII", 1, 10, 1) + arcs
    box = shapely.box(2, 44, 3, 45)
    path = as_geopackage(tmp_path, [box.wkb, circle, None])
    batch = ReadPolygons(path).first_batch()
    assert batch is not None
    plain, rounded, missing = shapely.from_wkb(batch["geometry"].to_pylist())
    assert plain.equals(box) and missing is None
    assert rounded.hausdorff_distance(shapely.Point(4, 45).buffer(1, quad_segs=500)) < 0.001
    assert batch["a"].to_pylist() == [0, 1, 2]


def test_encodings_of_shapefiles(tmp_path: Path) -> None:
    table = frame(2, name=["Київ", "a"])
    path = write(table, tmp_path / "p.shp", encoding="cp1251")
    assert (tmp_path / "p.cpg").read_text() == "CP1251"
    assert read(path)["name"].to_pylist() == ["Київ", "a"]
    (tmp_path / "p.cpg").unlink()
    with pytest.raises(InputError, match=r"row 0 of column 'name' of .*p.shp is not UTF-8: .*the side file p.cpg"):
        read(path)


@pytest.mark.parametrize("driver", DRIVERS)
def test_without_rows(tmp_path: Path, driver: str) -> None:
    path = write(frame(0, n=np.array([], dtype=np.int64)), tmp_path / f"p.{driver}", geometry_type="Point")
    found = read(path)
    assert (found.num_rows, found.column_names) == (0, ["point_index", "point_x", "point_y", "n"])
    assert ReadPoints(path).size().rows in (0, None)


# Rows and parts


def test_parts_give_the_same_rows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(frame(), path)
    whole = read(path)
    monkeypatch.setattr(vector_files, "PART_ROWS", 4)
    parts = VectorFile(str(path), DEFAULT_ACCESS).parts()
    assert parts == ([ROWS] if path.suffix == ".fgb" else [4, 4, 4, 4, 4, 4, 1])
    assert read(path).equals(whole)
    slices = ReadPoints(path).slices()
    assert slices is not None and list(slices.sizes) == parts
    assert slices_of(path, [(0, 3), (3, 9), (9, 25)]).equals(whole)


def slices_of(path: Path, ranges: Sequence[tuple[int, int]]) -> pa.Table:
    """Rows of ranges, each read as a round reads it."""
    slices = ReadPoints(path).slices()
    assert slices is not None
    found = [
        batch
        for first, stop in ranges
        for split in within(slices.splits, first, stop)  # type: ignore[attr-defined]
        for batch in _read_split(split, slices.rows, slices.files)  # type: ignore[attr-defined]
    ]
    return pa.Table.from_batches(found, ReadPoints(path).point_columns().schema)


def test_there_are_few_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(frame(), tmp_path / "p.gpkg")
    monkeypatch.setattr(vector_files, "PART_ROWS", 1)
    monkeypatch.setattr(vector_files, "MOST_PARTS", 3)
    assert VectorFile(path, DEFAULT_ACCESS).parts() == [9, 9, 7]


def test_deleted_rows_of_a_shapefile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows that are marked as deleted are not read, and do not shift the others."""
    path = write(frame(), tmp_path / "p.shp")
    table = bytearray((tmp_path / "p.dbf").read_bytes())
    head, width = struct.unpack("<HH", table[8:12])
    for row in (0, 7):
        table[head + width * row] = ord("*")
    (tmp_path / "p.dbf").write_bytes(table)
    monkeypatch.setattr(vector_files, "PART_ROWS", 4)
    found = read([path, write(frame(2), tmp_path / "q.shp")])
    left = [f"{row:03}" for row in range(ROWS) if row not in (0, 7)]
    assert found["plot"].to_pylist() == [*left, "000", "001"]
    assert found["point_index"].to_pylist() == list(range(ROWS))


def test_a_wrong_count_and_an_index_of_a_geopackage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are counted, not looked up; and SQLite does not take them in the order of an index."""
    path = Path(write(frame(), tmp_path / "p.gpkg"))
    with changed(path) as base:
        base.execute("UPDATE p SET n = -n")
        base.execute("CREATE INDEX by_n ON p (n)")
        base.execute("DELETE FROM p WHERE fid = 3")
        base.execute("UPDATE gpkg_ogr_contents SET feature_count = 5")
    monkeypatch.setattr(vector_files, "PART_ROWS", 4)
    found = read([path, write(frame(1), tmp_path / "q.gpkg")], columns=["n"])
    assert found["n"].to_pylist() == [-n - (1 << 40) for n in range(ROWS) if n != 2] + [1 << 40]
    assert found["point_index"].to_pylist() == list(range(ROWS))


def test_files_of_several_formats(tmp_path: Path) -> None:
    write(frame(3), tmp_path / "a.gpkg", geometry_name="geometry")
    write(frame(2), tmp_path / "b.shp")
    frame(2).to_parquet(tmp_path / "c.parquet")
    paths = [tmp_path / name for name in ("b.shp", "a.gpkg", "c.parquet")]
    found = read(paths, columns=["n"])
    assert [n - (1 << 40) for n in found["n"].to_pylist()] == [0, 1, 2, 0, 1, 0, 1]
    assert ReadPoints(paths, columns=["n"]).size().rows is None
    write(frame(2, n=[0.5, 1.5]), tmp_path / "b.shp")
    with pytest.raises(InputError, match=r"column 'n' of .*b.shp is double, but int64 in the first file"):
        read(paths, columns=["n"])
    with pytest.raises(InputError, match=r"b.shp is in EPSG:32631, but the points of the first file are in EPSG:4326"):
        read([tmp_path / "a.gpkg", write(frame(1, crs=32631), tmp_path / "b.shp")], columns=["plot"])


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "country=FR").mkdir()
    write(frame(2), tmp_path / "country=FR" / "p.shp")
    assert read(tmp_path)["country"].to_pylist() == ["FR", "FR"]
    write(frame(3), tmp_path / "q.shp")
    assert len(read(tmp_path, columns=["plot"])) == 5
    frame(4).to_parquet(tmp_path / "p.parquet")
    assert len(read(tmp_path)) == 4


# Layers and CRS


def test_layers(tmp_path: Path) -> None:
    path = write(frame(2), tmp_path / "p.gpkg", layer="first")
    pyogrio.write_dataframe(pd.DataFrame({"style": ["a"]}), path, layer="layer_styles", driver="GPKG")
    assert len(read(path)) == 2
    write(frame(3), tmp_path / "p.gpkg", layer="second one")
    with pytest.raises(
        InputError, match=r"p.gpkg has 2 layers: first, second one; choose one with layer \(--layer first\)"
    ):
        read(path)
    assert len(read(path, layer="second one")) == 3
    with pytest.raises(InputError, match=r"p.gpkg has no layer 'third'; it has first, second one, layer_styles"):
        read(path, layer="third")


def test_a_layer_without_geometries(tmp_path: Path) -> None:
    table = pd.DataFrame({"lon": [3.0, 4.0], "lat": [45.0, 44.0], "n": [1, 2]})
    pyogrio.write_dataframe(table, tmp_path / "p.gpkg", driver="GPKG")
    found = read(tmp_path / "p.gpkg", geometry_crs=4326)
    assert found.select(["point_x", "point_y", "n"]).to_pydict() == {
        "point_x": [3.0, 4.0],
        "point_y": [45.0, 44.0],
        "n": [1, 2],
    }


def test_layer_is_for_vector_files(tmp_path: Path) -> None:
    frame(1).to_parquet(tmp_path / "p.parquet")
    frame(1).to_file(tmp_path / "p.geojson")
    (tmp_path / "p.csv").write_text("lon,lat\n1,2\n")
    for source in (tmp_path / "p.parquet", tmp_path / "p.geojson", tmp_path / "p.csv", frame(1)):
        with pytest.raises(InputError, match=r"layer is 'a' \(--layer\), which .* to vector files, but .* omit it"):
            ReadPoints(source, layer="a", geometry_crs=4326).point_columns()
    with pytest.raises(InputError, match=r"csv_delimiter \(--csv_delimiter\) given, .* but .*p.gpkg is not CSV"):
        read(write(frame(1), tmp_path / "p.gpkg"), csv_delimiter=";")


def test_the_crs(path: Path) -> None:
    write(frame(2, crs=32631), path)
    assert (
        ReadPoints(path).point_columns().crs == ReadPoints(path, geometry_crs=32631).point_columns().crs == "EPSG:32631"
    )
    with pytest.raises(InputError, match=r"geometry_crs is EPSG:4326, but column '\w+' of .* says EPSG:32631"):
        read(path, geometry_crs=4326)


def test_without_a_crs(path: Path) -> None:
    write(frame(2, crs=None), path)
    with pytest.raises(InputError, match=r"geometry column '\w+' of .* has no CRS; give it with geometry_crs"):
        read(path)
    assert len(read(path, geometry_crs=4326)) == 2


@pytest.mark.parametrize("number", [-1, 0])
def test_the_undefined_crs_of_geopackage(tmp_path: Path, number: int) -> None:
    path = Path(write(frame(2), tmp_path / "p.gpkg"))
    with changed(path) as base:
        base.execute("UPDATE gpkg_geometry_columns SET srs_id = ?", (number,))
        base.execute("UPDATE gpkg_contents SET srs_id = ?", (number,))
    with pytest.raises(InputError, match="has no CRS"):
        read(path)
    assert len(read(path, geometry_crs=4326)) == 2


def test_a_crs_without_a_code(path: Path) -> None:
    crs = "+proj=laea +lat_0=10 +lon_0=20 +datum=WGS84"
    write(frame(2, crs=crs), path)
    found = Transformer.from_crs(ReadPoints(path).point_columns().crs, 4326, always_xy=True)
    assert found.transform(1e5, 2e5) == pytest.approx(
        Transformer.from_crs(crs, 4326, always_xy=True).transform(1e5, 2e5)
    )


# Archives, side files, damage


def zipped(archive: Path, *files: Path, folder: str = "") -> Path:
    with zipfile.ZipFile(archive, "a") as opened:
        for file in files:
            opened.write(file, f"{folder}{file.name}")
    return archive


def parts_of(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.stem}.*")) if path.suffix == ".shp" else [path]


@pytest.mark.parametrize("folder", ["", "data/"])
def test_archives(path: Path, folder: str) -> None:
    write(frame(), path)
    archive = zipped(path.with_suffix(".zip"), *parts_of(path), folder=folder)
    assert read(archive).equals(read(path))


def test_archives_of_several_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(frame(2), tmp_path / f"{name}.shp")
        zipped(tmp_path / "ab.zip", *parts_of(tmp_path / f"{name}.shp"))
    with pytest.raises(InputError, match=r"ab.zip has 2 vector files in it: a.shp, b.shp; .*\(--layer a\)"):
        read(tmp_path / "ab.zip")
    assert len(read(tmp_path / "ab.zip", layer="b")) == 2
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(InputError, match=r"no.zip has no .gpkg or .fgb or .shp file in it; it has x.txt"):
        read(zipped(tmp_path / "no.zip", tmp_path / "x.txt"))
    (tmp_path / "bad.zip").write_text("x")
    with pytest.raises(InputError, match=r"bad.zip cannot be read: File is not a zip file; write the file again"):
        read(tmp_path / "bad.zip")


def test_side_files_of_a_shapefile(tmp_path: Path) -> None:
    path = write(frame(2), tmp_path / "p.shp")
    (tmp_path / "p.dbf").unlink()
    assert read(path).column_names == ["point_index", "point_x", "point_y"]
    (tmp_path / "p.prj").unlink()
    with pytest.raises(InputError, match="has no CRS; give it with geometry_crs"):
        read(path)
    (tmp_path / "p.shx").unlink()
    with pytest.raises(InputError, match=r"p.shp has no side file p.shx, .* or give all of them in one .zip"):
        read(path)


@pytest.mark.parametrize("name", ["p.gpkg", "p.fgb", "p.shp", "p.dbf"])
def test_a_file_that_is_cut_off(tmp_path: Path, name: str) -> None:
    cut = tmp_path / name
    path = cut.with_suffix(".shp") if cut.suffix == ".dbf" else cut
    write(frame(2000), path)
    whole = cut.read_bytes()
    for share in (0.0, 0.01, 0.4, 0.7, 0.98):
        cut.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match=rf"{path} .*; write the file again, or convert it to GeoParquet"):
            read(path)


def test_a_file_that_is_missing_or_closed(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"no file, folder or match of .*p.gpkg"):
        read(tmp_path / "p.gpkg")
    path = write(frame(1), tmp_path / "p.gpkg")
    if os.geteuid():
        os.chmod(path, 0)
        with pytest.raises(PermissionDeniedError):
            read(path)


def test_names_that_pyogrio_misreads(tmp_path: Path) -> None:
    for name in ("a!b.gpkg", "a?b.shp", "GPKG:a.gpkg", "a b#c.fgb"):
        copied = write(frame(2), tmp_path / f"x{Path(name).suffix}")
        for file in parts_of(Path(copied)):
            shutil.move(file, tmp_path / f"{Path(name).stem}{file.suffix}")
        assert len(read(tmp_path / name, layer="x" if name.endswith("gpkg") else None)) == 2


def test_without_pyogrio(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(frame(1), path)
    monkeypatch.setitem(sys.modules, "pyogrio.raw", None)
    with pytest.raises(MissingInputError, match=r"is read with pyogrio, which is not installed: .*\[vector\]"):
        read(path)


# Remote files


def test_remote_files_are_copied_once(path: Path, tmp_path: Path) -> None:
    write(frame(), path)
    wanted = read(path)
    with RasterServer(tmp_path) as web:
        url, signed = f"{web.url}/{path.name}", f"{web.url}/{path.name}?key=1"
        assert read(url).equals(wanted)
        fetched = web.counts()["requests"]
        assert read(url).equals(wanted) and web.counts()["requests"] - fetched < fetched
        assert read(signed).equals(wanted)
        with local_copy(signed, DEFAULT_ACCESS) as local:
            assert Path(local).name == path.name and Path(local).read_bytes() == path.read_bytes()
        write(frame(3), path)
        assert len(read(url)) == len(read(signed)) == 3
        assert sum(not copy.users for copy in local_copies._copies.values()) <= local_copies.IDLE
        with pytest.raises(MissingInputError, match=r"none.gpkg cannot be opened"):
            read(f"{web.url}/none.gpkg")


# The command line


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("one")
    grid = {"width": 32, "height": 64, "transform": Affine(0.1, 0, 2, 0, -0.1, 46), "crs": "EPSG:4326"}
    with rasterio.open(place / "a.tif", "w", driver="GTiff", count=1, dtype="uint16", **grid) as file:
        file.write(np.arange(2048, dtype="uint16").reshape(1, 64, 32))
    rasteret_beam.build_from_cogs([str(place / "a.tif")]).export(place / "collection")
    return place


def test_samples(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "p.gpkg"
    write(frame(), path)
    common = ["--points", str(path), "--collection", f"{folder}/collection", "--bands", "B1"]
    assert sample_points.main([*common, "--output", f"{tmp_path}/s", "--round_points", "10"]) == 0
    found = pa.concat_tables(pq.read_table(each) for each in tmp_path.glob("s-*.parquet")).sort_by("point_index")
    table = frame()
    with rasterio.open(folder / "a.tif") as file:
        inside = table.geometry.within(shapely.box(*file.bounds))
        values = [float(value[0]) for value in file.sample(shapely.get_coordinates(table.geometry[inside]))]
    assert found["value"].to_pylist() == values and found["plot"].to_pylist() == table["plot"][inside].to_list()
    capsys.readouterr()
    assert sample_points.main([*common, "--plan"]) == 0
    assert f"points read{ROWS:>41}" in capsys.readouterr().out


def test_zonal_statistics_of_a_layer(folder: Path, tmp_path: Path) -> None:
    shapes = geopandas.GeoDataFrame({"plot": ["a", "b"]}, geometry=[shapely.box(2.1, 45, 3, 45.8)] * 2, crs=4326)
    write(shapes, tmp_path / "p.gpkg", layer="plots")
    write(frame(2), tmp_path / "p.gpkg", layer="trees")
    common = ["--polygons", f"{tmp_path}/p.gpkg", "--collection", f"{folder}/collection", "--bands", "B1"]
    flags = [*common, "--statistics", "count,sum", "--output", f"{tmp_path}/z"]
    with pytest.raises(InputError, match="has 2 layers: plots, trees"):
        zonal_statistics.main(flags)
    assert zonal_statistics.main([*flags, "--layer", "plots"]) == 0
    found = pa.concat_tables(pq.read_table(each) for each in tmp_path.glob("z-*.parquet"))
    with rasterio.open(folder / "a.tif") as file:
        window = file.read(1)[2:10, 1:10]
    columns = found.select(["plot", "count", "sum"]).sort_by("plot").to_pylist()
    assert columns == [{"plot": plot, "count": window.size, "sum": float(window.sum())} for plot in "ab"]
