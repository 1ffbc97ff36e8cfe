"""The catalogue of datasets, and what a collection shows of itself."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyarrow as pa
import pytest
import shapely

import rasteret_beam
from pipelines import sample_points
from pipelines.cli.flags import access_of_collection
from rasteret_beam import Access, Collection, load, register
from rasteret_beam.collection import catalogue
from rasteret_beam.errors import InputError, MissingInputError
from tests.support.lookalike import build_lookalike


@pytest.fixture(autouse=True)
def own_catalogue(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing registered, and no file of the person who runs the tests."""
    monkeypatch.setattr(catalogue, "_registered", {})
    monkeypatch.setattr(catalogue, "USER_FILE", str(tmp_path / "none.json"))
    monkeypatch.delenv(catalogue.FILE_VARIABLE, raising=False)


@pytest.fixture(scope="module")
def aef(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return build_lookalike(tmp_path_factory.mktemp("aef"))


@pytest.fixture(scope="module")
def folder(aef: Collection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "collection"
    aef.export(path)
    return path


def test_alphaearth_is_known() -> None:
    entry = catalogue.entries()["aef/v1-annual"]
    assert entry.data == "s3://us-west-2.opendata.source.coop/terrafloww/aef-v1-annual-rasteret/data"
    assert entry.access == Access(anonymous=True, region="us-west-2")
    shipped = json.loads(Path(catalogue.__file__).with_name("catalogue.json").read_text())["aef/v1-annual"]
    assert shipped["bands"] == [f"A{number:02d}" for number in range(64)]
    assert shipped["index"].endswith("/index.parquet")
    assert (shipped["nodata"], shipped["years"]) == (-128, [2018, 2023])


def test_its_bucket_is_read_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, Access]] = []

    def stop(path: str, access: Access) -> None:
        opened.append((path, access))
        raise MissingInputError("not here")

    monkeypatch.setattr("rasteret_beam.collection.collection.open_dataset", stop)
    with pytest.raises(MissingInputError):
        load("aef/v1-annual")
    entry = catalogue.entries()["aef/v1-annual"]
    assert opened == [(entry.data, entry.access)]


def test_flags_leave_the_rest_of_an_entry(folder: Path) -> None:
    known = Access(anonymous=True, region="eu-west-1", drivers=["netCDF"])
    register("public/scenes", folder, anonymous=True, region="eu-west-1", drivers=["netCDF"])
    flags = sample_points.parser().parse_known_args(["--collection=public/scenes", "--points=p", "--vrt"])[0]
    assert access_of_collection(flags) == replace(known, vrt=True)
    flags = sample_points.parser().parse_known_args(["--collection=public/scenes", "--points=p"])[0]
    assert access_of_collection(flags) is None
    flags = sample_points.parser().parse_known_args([f"--collection={folder}", "--points=p", "--vrt"])[0]
    assert access_of_collection(flags) == Access(vrt=True)


def test_a_registered_id_loads(aef: Collection, folder: Path) -> None:
    register("test/aef", folder)
    loaded = load("test/aef")
    assert (len(loaded), loaded.bands, loaded.name, loaded.path) == (4, ["A00", "A01"], "aef", str(folder))
    register("test/aef", folder, name="mine")
    assert load("test/aef").name == "mine"
    assert load("test/aef", name="given").name == "given"


def test_a_shipped_id_can_be_pointed_elsewhere(folder: Path) -> None:
    register("aef/v1-annual", folder)
    assert len(load("aef/v1-annual")) == 4


def test_what_was_loaded_by_id_needs_no_catalogue_on_a_worker(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register("test/aef", folder)
    pickled = pickle.dumps(load("test/aef").subset(ids="aef_32632_2023"))
    monkeypatch.setattr(catalogue, "_registered", {})
    assert len(pickle.loads(pickled)) == 1


@pytest.mark.parametrize("by_variable", [True, False])
def test_a_user_s_own_file(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_variable: bool) -> None:
    (tmp_path / "here").symlink_to(folder)
    file = tmp_path / "catalogue.json"
    described = {"data": "s3://b/c", "anonymous": True, "endpoint": "http://localhost:1"}
    file.write_text(json.dumps({"my/relative": {"data": "here", "name": "n"}, "my/bucket": described}))
    if by_variable:
        monkeypatch.setenv(catalogue.FILE_VARIABLE, str(file))
    else:
        monkeypatch.setattr(catalogue, "USER_FILE", str(file))
    assert load("my/relative").name == "n"
    assert catalogue.entries()["my/bucket"].access == Access(True, None, "http://localhost:1")
    described = {"data": "s3://b/c", "vrt": True, "drivers": ["netCDF"], "allow_local": True}
    file.write_text(json.dumps({"my/relative": {"data": "here", "name": "n"}, "my/bucket": described}))
    opened = Access(vrt=True, drivers=("netCDF",), allow_local=True)
    assert catalogue.entries()["my/bucket"].access == opened
    register("my/own", "s3://b/c", vrt=True, drivers=["netCDF"], allow_local=True)
    assert catalogue.entries()["my/own"].access == opened
    assert "aef/v1-annual" in catalogue.entries()


def test_an_unknown_id_lists_the_known_ones(folder: Path) -> None:
    register("team/plots", folder)
    with pytest.raises(MissingInputError, match=r"'aef/v2'.*known ids: aef/v1-annual, team/plots"):
        load("aef/v2")


def test_paths_are_not_taken_for_ids(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("/gone", "./gone", "gone.parquet", "a/gone.parquet", Path("gone")):
        with pytest.raises(MissingInputError, match=r"there is no file or folder /"):
            load(place)
    monkeypatch.chdir(folder.parent)
    assert len(load("collection")) == 4  # exists
    assert len(load(f"file://{folder}")) == 4


@pytest.mark.parametrize("id", ["", "/absolute", "s3://bucket", "a.parquet", "./a"])
def test_ids_that_look_like_paths_are_refused(id: str) -> None:
    with pytest.raises(InputError, match="looks like a path"):
        register(id, "/data")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "is a JSON list; it has to map ids"),
        ('{"a/b": {"path": 1}}', "entry 'a/b' .* 'data'"),
    ],
)
def test_files_that_cannot_be_used_are_named(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(catalogue.FILE_VARIABLE, str(tmp_path / "c.json"))
    with pytest.raises(MissingInputError, match=r"RASTERET_BEAM_CATALOGUE is .*c.json, but that file does not exist"):
        load("some/id")
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(InputError, match=message):
        load("some/id")


def test_a_collection_describes_itself(folder: Path) -> None:
    facts = load(folder).describe()
    west, south, east, north = facts.pop("bounds")
    assert west < 11.3 and east > 11.5 and south < -0.002 and north > 0.001
    first, last = facts.pop("date_range")
    assert (first.year, last.year) == (2022, 2023)
    hrefs = {each["A00"]["href"] for each in load(folder).to_table(["assets"])["assets"].to_pylist()}
    raster = {
        "records": 4,
        "dtype": ["int8"],
        "nodata": [-128.0],
        "width": (480, 480),
        "height": (16, 16),
        "tile_size": [(64, 16)],
        "tiles": 4 * 8,
    }
    assert facts == {
        "name": "aef",
        "source": str(folder),
        "records": 4,
        "bounds_crs": "OGC:CRS84",
        "crs": ["EPSG:32632", "EPSG:32732"],
        "bands": ["A00", "A01"],
        "dtype": ["int8"],
        "nodata": [-128.0],
        "units": {band: [{"scale": 1.0, "offset": 0.0, "records": 4}] for band in ("A00", "A01")},
        "rasters": {"A00": raster, "A01": raster},
        "tiles": 64,
        "files": 4,
        "bytes": sum(Path(href).stat().st_size for href in hrefs),
        "files_of_unknown_size": 0,
        "months": {"2022-01": 2, "2023-01": 2},
        "undated": 0,
        "records_by_crs": {"EPSG:32632": 2, "EPSG:32732": 2},
        "columns": {},
    }


def test_a_notebook_shows_a_table(aef: Collection) -> None:
    shown = Collection.from_table(aef.to_table(), name="<a&b>")._repr_html_()
    assert "Collection &lt;a&amp;b&gt;" in shown
    for text in ("2022-01-01 to 2023-01-01", "EPSG:32632, EPSG:32732", "A00, A01", "int8, nodata -128", "in memory"):
        assert text in shown
    assert "none" in aef.subset(date_range=("1990", "1991"))._repr_html_()


SOUTH = shapely.box(11.3, -0.002, 11.5, -0.001)
FAR = shapely.box(50, 50, 51, 51)


@pytest.mark.parametrize(
    "geometries",
    [
        SOUTH,
        [FAR, SOUTH],
        (11.3, -0.002, 11.5, -0.001),
        [(50, 50, 51, 51), (11.3, -0.002, 11.5, -0.001)],
        (170.0, -0.002, 12.0, -0.001),
        shapely.to_wkb(SOUTH),
        [shapely.to_wkb(SOUTH), None],
        shapely.geometry.mapping(SOUTH),
        {"type": "Feature", "geometry": shapely.geometry.mapping(SOUTH), "properties": {}},
        shapely.to_geojson(SOUTH),
        pa.array([shapely.to_wkb(SOUTH), None]),
        pa.chunked_array([[shapely.to_wkb(FAR)], [shapely.to_wkb(SOUTH)]]),
        geopandas.GeoSeries([SOUTH], crs=4326),
        geopandas.GeoSeries([SOUTH], crs=4326).to_arrow(geometry_encoding="WKB"),
        geopandas.GeoDataFrame(geometry=[SOUTH], crs=4326),
        geopandas.GeoSeries([SOUTH.centroid], crs=4326).to_arrow(geometry_encoding="geoarrow"),
    ],
    ids=range(16),
)
def test_subset_by_geometries(aef: Collection, geometries: Any) -> None:
    found = aef.subset(geometries=geometries).to_table()["id"].to_pylist()
    assert found == ["aef_32732_2022", "aef_32732_2023"]


@pytest.mark.slow
def test_subset_by_thousands_of_geometries(aef: Collection) -> None:
    rng = np.random.default_rng(1)
    points = list(shapely.points(rng.uniform(20, 30, 5000), rng.uniform(-5, 5, 5000)))
    assert len(aef.subset(geometries=points)) == 0
    assert len(aef.subset(geometries=[*points, SOUTH])) == 2
    assert len(aef.subset(date_range=("2023", "2023")).subset(geometries=[*points, SOUTH])) == 1


@pytest.mark.parametrize(
    ("geometries", "message"),
    [
        ([None, shapely.Point()], "geometries are all null or empty"),
        (geopandas.GeoDataFrame(geometry=[SOUTH], crs=32632), "geometries are in EPSG:32632"),
        (geopandas.GeoSeries([SOUTH], crs=32632), "geometries are in EPSG:32632; give them in longitude and latitude"),
        ([1, 2], "number 0 of geometries is a int"),
        (3.5, "geometries are a float"),
    ],
)
def test_geometries_that_cannot_be_used(aef: Collection, geometries: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        aef.subset(geometries=geometries)


def test_subset_by_ids(aef: Collection) -> None:
    assert aef.subset(ids="aef_32632_2023").to_table()["id"].to_pylist() == ["aef_32632_2023"]
    assert len(aef.subset(ids=["aef_32632_2023", "aef_32732_2022", "other"])) == 2
    assert len(aef.subset(ids=[])) == 0


def test_register_is_public() -> None:
    assert rasteret_beam.register is register
