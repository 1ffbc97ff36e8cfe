"""Rasters of other celestial bodies and in engineering CRSs: built, routed and sampled in their own CRS."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
import rasterio
import rasterio.mask
import rasterio.shutil
import shapely
import tifffile
from affine import Affine
from pyproj import Transformer
from rasterio.crs import CRS

from pipelines import build_collection, read_chips, sample_points
from rasteret_beam import Collection, build_from_cogs, load
from rasteret_beam.collection.eager.plan import plan_totals
from rasteret_beam.collection.records import headers
from rasteret_beam.errors import BuildError, InputError
from rasteret_beam.kernels.geo.crs import crs_label, crs_text, reaches, same_crs
from rasteret_beam.kernels.geo.footprints import footprint
from rasteret_beam.model import Grid
from tests.support.commands import execute

MARS = (
    'GEOGCS["GCS_Mars_2000",DATUM["D_Mars_2000",SPHEROID["Mars_2000_IAU_IAG",3396190,169.894447223612]],'
    'PRIMEM["Reference_Meridian",0],UNIT["degree",0.0174532925199433]]'
)
MARS_METRES = (
    f'PROJCS["Mars",{MARS},PROJECTION["Equirectangular"],PARAMETER["standard_parallel_1",0],'
    'PARAMETER["central_meridian",0],PARAMETER["false_easting",0],PARAMETER["false_northing",0],UNIT["metre",1]]'
)
SITE = 'LOCAL_CS["Site",UNIT["metre",1]]'
DEGREES = Affine(0.1, 0, 10, 0, -0.1, 20)
METRES = Affine(10, 0, 600, 0, -10, 1200)
KINDS = {
    "utm": ("EPSG:32631", Affine(10, 0, 500_000, 0, -10, 5_000_640)),
    "mars": (MARS, DEGREES),
    "mars in metres": (MARS_METRES, METRES),
    "mars of the IAU": ("IAU_2015:49900", DEGREES),
    "mars, polar": ("IAU_2015:49930", METRES),
    "moon": ("IAU_2015:30100", DEGREES),
    "moon of ESRI": ("ESRI:104903", DEGREES),
    "site": (SITE, METRES),
    "site in feet": ('LOCAL_CS["Site in feet",UNIT["foot",0.3048]]', METRES),
    "degrees with heights": ("EPSG:4326+5773", DEGREES),
    "site with heights": (f'COMPD_CS["both",{SITE},VERT_CS["up",VERT_DATUM["up",2005],UNIT["metre",1]]]', METRES),
    "geocentric": ("EPSG:4978", METRES),
    "with heights": ("EPSG:7415", Affine(10, 0, 155_000, 0, -10, 463_000)),
    "heights on the ellipsoid": ("EPSG:4979", DEGREES),
    "bound": ("+proj=tmerc +lon_0=9 +ellps=bessel +towgs84=598.1,73.7,418.2 +type=crs", METRES),
    "ellipsoid alone": ("+proj=utm +zone=31 +ellps=intl +type=crs", Affine(10, 0, 500_000, 0, -10, 5_000_640)),
    "rotated pole": ("+proj=ob_tran +o_proj=longlat +o_lat_p=39.25 +lon_0=18 +R=6371229 +type=crs", DEGREES),
}
ON_EARTH = {
    "utm",
    "degrees with heights",
    "with heights",
    "heights on the ellipsoid",
    "bound",
    "ellipsoid alone",
    "rotated pole",
}


def write(folder: Path, kind: str, crs: str | None = None, transform: Affine | None = None) -> Path:
    """An int16 raster of 64 x 64 pixels whose values are all different."""
    path, tiles = folder / f"{kind}.tif".replace(" ", "_"), {"tiled": True, "blockxsize": 32, "blockysize": 32}
    known = KINDS.get(kind, ("", METRES))
    profile = {"crs": CRS.from_user_input(crs or known[0]), "transform": transform or known[1], "compress": "deflate"}
    with rasterio.open(
        path, "w", driver="GTiff", width=64, height=64, count=1, dtype="int16", **tiles, **profile
    ) as out:
        out.write(np.arange(4096, dtype="int16").reshape(1, 64, 64))
    return path


def points_on(path: Path, count: int = 50) -> tuple[pa.Table, list[float], str]:
    """Random points on a raster and a little beyond, what rasterio gives for those on it, and the raster's CRS."""
    with rasterio.open(path) as raster:
        west, south, east, north = raster.bounds
        rng = np.random.default_rng(1)
        x, y = rng.uniform(west, east + (east - west) / 4, count), rng.uniform(south, north, count)
        on_it = [(a, b) for a, b in zip(x, y, strict=True) if a < east]
        return pa.table({"x": x, "y": y}), [float(value[0]) for value in raster.sample(on_it)], raster.crs.to_wkt()


def sampled(collection: Collection, points: pa.Table, crs: str, **options: Any) -> list[float]:
    table = collection.sample_points(points, bands=["B1"], geometry_crs=crs, **options)
    return table.sort_by("point_index")["value"].to_pylist()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A raster of each kind."""
    folder = tmp_path_factory.mktemp("mixed")
    return {kind: write(folder, kind) for kind in KINDS}


@pytest.fixture(scope="module")
def together(mixed: dict[str, Path]) -> Collection:
    return build_from_cogs(mixed.values())


@pytest.mark.parametrize("kind", KINDS)
def test_a_raster_alone_is_sampled_in_its_own_crs(mixed: dict[str, Path], kind: str) -> None:
    points, want, crs = points_on(mixed[kind])
    collection = build_from_cogs([mixed[kind]])
    assert sampled(collection, points, crs) == want
    assert plan_totals(collection.plan(points, bands=["B1"], geometry_crs=crs))["samples_out"] == len(want)


@pytest.mark.parametrize("kind", ["utm", "mars", "moon", "site", "geocentric"])
def test_beside_all_other_kinds_points_keep_to_their_body(
    mixed: dict[str, Path], together: Collection, kind: str
) -> None:
    points, want, crs = points_on(mixed[kind])
    table = together.sample_points(points, bands=["B1"], geometry_crs=crs)
    own = table.filter(pa.compute.equal(table["record_id"], mixed[kind].stem)).sort_by("point_index")
    assert own["value"].to_pylist() == want
    bodies = {"mars": {"mars", "mars_of_the_IAU", "mars_in_metres", "mars,_polar"}, "moon": {"moon", "moon_of_ESRI"}}
    if kind in bodies:
        assert set(table["record_id"].to_pylist()) <= bodies[kind]
    if kind in ("site", "geocentric"):
        assert set(table["record_id"].to_pylist()) == {kind}
    if kind == "utm":
        assert not set(table["record_id"].to_pylist()) & {"mars", "moon", "site", "geocentric"}


def test_points_in_degrees_reach_rasters_in_metres_of_the_same_body(tmp_path: Path) -> None:
    path = write(tmp_path, "mars in metres")
    points, want, _ = points_on(path)
    back = Transformer.from_crs(MARS_METRES, MARS, always_xy=True)
    lon, lat = back.transform(points["x"].to_numpy(), points["y"].to_numpy())
    assert sampled(build_from_cogs([path]), pa.table({"x": lon, "y": lat}), MARS) == want


@pytest.mark.parametrize("crs", ["EPSG:4326+5773", "+proj=longlat +ellps=bessel +towgs84=598.1,73.7,418.2 +type=crs"])
def test_longitudes_meet_with_heights_and_bound_transformations(tmp_path: Path, crs: str) -> None:
    path = write(tmp_path, "turned", crs, Affine(1, 0, 200, 0, -1, 30))
    with rasterio.open(path) as raster:
        want = float(next(raster.sample([(210.5, 10.5)]))[0])
    collection = build_from_cogs([path])
    assert collection.bounds == pytest.approx((-160.0, -34.0, -96.0, 30.0), abs=0.1)
    for longitude, given in ((-149.5, crs), (210.5, crs), (-149.5, "EPSG:4326"), (210.5, "OGC:CRS84")):
        assert sampled(collection, pa.table({"x": [longitude], "y": [10.5]}), given) == [want]


def test_longitudes_of_mars_meet_on_0_to_360(tmp_path: Path) -> None:
    path = write(tmp_path, "mars", transform=Affine(1, 0, 200, 0, -1, 30))
    with rasterio.open(path) as raster:
        want = float(next(raster.sample([(210.5, 10.5)]))[0])
    assert sampled(build_from_cogs([path]), pa.table({"x": [-149.5], "y": [10.5]}), MARS) == [want]


@pytest.mark.parametrize("match", ["all", "latest"])
@pytest.mark.parametrize(
    ("kind", "crs"), [("mars", "EPSG:4326"), ("site", "EPSG:32631"), ("utm", MARS), ("moon", SITE)]
)
def test_no_raster_in_reach_is_an_error_that_names_both(
    mixed: dict[str, Path], kind: str, crs: str, match: str
) -> None:
    collection = build_from_cogs([mixed[kind]])
    with pytest.raises(InputError, match="PROJ has no transformation to the CRS of any raster") as raised:
        sampled(collection, pa.table({"x": [11.0], "y": [19.0]}), crs, match=match)
    said = str(raised.value)
    assert said.startswith("the points are in ")
    names = {MARS: "ESRI:104905", SITE: "'Site'"}
    assert names.get(crs, crs) in said and crs_label(collection.crs[0]) in said
    with pytest.raises(InputError, match="the polygons are in"):
        collection.get_numpy([shapely.box(11, 18, 12, 19)], bands=["B1"], geometry_crs=crs)


def test_points_out_of_reach_of_some_records_are_sampled_from_the_others(mixed: dict[str, Path]) -> None:
    points, want, crs = points_on(mixed["utm"])
    collection = build_from_cogs([mixed[kind] for kind in ("mars", "site", "utm")])
    assert sampled(collection, points, crs) == want
    assert sampled(collection, points, crs, match="latest") == want


@pytest.mark.parametrize("kind", ["mars", "mars in metres", "site", "geocentric"])
def test_polygons_are_cropped_as_rasterio_does(mixed: dict[str, Path], kind: str) -> None:
    path, other = mixed[kind], mixed["utm"]
    with rasterio.open(path) as raster:
        a, _, c, _, e, f = raster.transform[:6]
        shape = shapely.Polygon([(c + 3.5 * a, f + 2.5 * e), (c + 20 * a, f + 4 * e), (c + 9 * a, f + 30 * e)])
        want, _ = rasterio.mask.mask(raster, [shape], crop=True, filled=True)
        crs = raster.crs.to_wkt()
    for paths in ([path], [other, path]):
        pixels = build_from_cogs(paths).get_numpy([shape], bands=["B1"], geometry_crs=crs)
        assert np.array_equal(pixels[0], want[0])


FOOTPRINTS = {
    "mars": "ESRI:104905",
    "mars in metres": "ESRI:104905",
    "mars of the IAU": "IAU_2015:49900",
    "mars, polar": "IAU_2015:49900",
    "moon": "IAU_2015:30100",
    "moon of ESRI": "ESRI:104903",
}
"""CRSs of footprints on other bodies."""


def test_footprints_are_in_the_geographic_crs_of_their_body(
    mixed: dict[str, Path], together: Collection, tmp_path: Path
) -> None:
    table = together.to_table()
    found = dict(zip(mixed, table["footprint_crs"].to_pylist(), strict=True))
    there = dict(zip(mixed, table["bbox"].is_valid().to_pylist(), strict=True))
    assert {kind for kind, known in there.items() if not known} == {"geocentric"}
    assert {kind: found[kind] for kind in FOOTPRINTS} == FOOTPRINTS
    assert {kind for kind in mixed if found[kind] is None} == {*ON_EARTH, "geocentric"}
    own = dict(zip(mixed, table["crs"].to_pylist(), strict=True))
    assert all(found[kind] == own[kind] for kind in ("site", "site in feet"))
    together.export(tmp_path / "c.parquet")
    geo = json.loads(pq.read_schema(tmp_path / "c.parquet").metadata[b"geo"])
    assert geo["columns"]["geometry"]["geometry_types"] == ["Polygon"]
    assert geo["columns"]["geometry"]["crs"] is None  # of several
    loaded = load(tmp_path / "c.parquet")
    earth = [box for box, kind in zip(table["bbox"].to_pylist(), mixed, strict=True) if kind in ON_EARTH]
    west, east = min(box["xmin"] for box in earth), max(box["xmax"] for box in earth)
    assert loaded.bounds == together.bounds is not None and (loaded.bounds[0], loaded.bounds[2]) == (west, east)
    assert together.bounds_crs == "OGC:CRS84"
    points, want, crs = points_on(mixed["mars"])
    assert sampled(pickle.loads(pickle.dumps(loaded)).subset(ids="mars"), points, crs) == want


def test_a_collection_without_longitudes_on_earth(mixed: dict[str, Path], tmp_path: Path) -> None:
    collection = build_from_cogs([mixed["mars"], mixed["site"]])
    collection.export(tmp_path / "c")
    for one in (collection, load(tmp_path / "c")):
        assert one.bounds is None and one.describe()["bounds"] is None and one.bounds_crs is None
        assert "none" in one._repr_html_() and "several CRSs: " in one._repr_html_()
        with pytest.raises(InputError, match=r"bbox needs footprints in one CRS, but they are in .*footprint_crs"):
            one.subset(bbox=(-180, -90, 180, 90))
        with pytest.raises(InputError, match="footprints are in several CRSs"):
            one.explore("matplotlib")
        on_mars = one.where(pc.field("footprint_crs") == "ESRI:104905")
        assert on_mars.subset(bbox=(0, 0, 90, 90)).to_table(["id"])["id"].to_pylist() == ["mars"]
        site = one.subset(ids="site")
        assert site.bounds == (600.0, 560.0, 1240.0, 1200.0)
        assert len(site.subset(bbox=(1239, 0, 2000, 600))) == 1
        with pytest.raises(InputError, match="no records after subset and where: no record intersects"):
            sampled(site.subset(bbox=(2000, 0, 3000, 600)), pa.table({"x": [105.0], "y": [50.0]}), SITE)
        with pytest.raises(InputError, match="each minimum first"):
            site.subset(bbox=(2000, 0, 1000, 600))


def test_the_name_tells_engineering_crss_apart() -> None:
    assert same_crs(SITE, CRS.from_wkt(SITE).to_wkt(version="WKT2_2019"))
    assert not same_crs(SITE, SITE.replace("Site", "Another"))
    assert not reaches(SITE, SITE.replace("Site", "Another"))
    assert not reaches(SITE, SITE.replace('"metre",1', '"foot",0.3048'))
    assert not reaches("EPSG:5773", "EPSG:4326") and reaches("EPSG:5773", "EPSG:5773")


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:4267", MARS])
def test_metres_tagged_as_degrees_fail_alone(tmp_path: Path, crs: str) -> None:
    wrong = write(tmp_path, "wrong", crs, Affine(10, 0, 500_000, 0, -10, 5_000_640))
    good = write(tmp_path, "utm")
    with pytest.raises(
        BuildError, match=r"wrong.tif: its coordinates \(x 500000 to 500640, y 5e\+06 .* not longitudes"
    ):
        build_from_cogs([good, wrong])
    built = build_from_cogs([wrong, good], on_error="skip")
    assert [href for href, _ in built.failures] == [str(wrong)]
    assert built.to_table(["id"])["id"].to_pylist() == ["utm"]


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:4267"])
@pytest.mark.parametrize(
    "transform",
    [
        (1.0, 0.0, 600.0, 0.0, -1.0, 60.0),
        (500.0, 0.0, -700.0, 0.0, -1.0, 60.0),
        (1e-15, 0.0, 10.0, 0.0, -1e-15, 10.0),
        (1.0, 0.0, 10.0, 0.0, -1.0, 170.0),
        (1.0, 0.0, 0.0, 0.0, -100.0, 5000.0),
    ],
)
def test_every_grid_in_degrees_has_a_footprint_in_the_world(crs: str, transform: tuple) -> None:
    found = footprint(Grid(crs, transform, 2, 60, 2, 60))
    assert found is not None
    shape, (west, south, east, north) = found
    assert shapely.is_valid(shape) and shape.area > 0
    assert -180 <= west <= east <= 180 and -90 <= south <= north <= 90


def test_a_header_beyond_what_columns_hold_fails_alone(tmp_path: Path) -> None:
    good = write(tmp_path, "utm")
    broken = tmp_path / "broken.tif"
    rasterio.shutil.copy(good, broken, driver="GTiff", BIGTIFF="YES", TILED="YES", BLOCKXSIZE=32, BLOCKYSIZE=32)
    with tifffile.TiffFile(broken) as tiff:
        at = tiff.pages[0].tags["TileOffsets"].valueoffset
    with broken.open("r+b") as file:
        file.seek(at)
        file.write(b"\xff" * 8)
    built = build_from_cogs([broken, good], on_error="skip")
    assert "utm" in built.to_table(["id"])["id"].to_pylist()
    assert len(built) + len(built.failures) == 2 and {href for href, _ in built.failures} <= {str(broken)}


def test_whatever_fails_of_one_file_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = write(tmp_path, "utm"), write(tmp_path, "mars")

    def failing(grid: Grid) -> Any:
        if grid.transform[0] == 0.1:
            raise IndexError("list index out of range")
        return footprint(grid)

    monkeypatch.setattr(headers, "footprint", failing)
    with pytest.raises(BuildError, match=rf"{bad}: list index out of range"):
        build_from_cogs([good, bad])
    assert build_from_cogs([bad, good], on_error="skip").failures == ((str(bad), "list index out of range"),)


def test_points_beside_all_rasters_of_mars(mixed: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    table = build_from_cogs([mixed["mars"]]).sample_points(
        pa.table({"x": [100.0], "y": [70.0]}), bands=["B1"], geometry_crs=MARS
    )
    assert len(table) == 0
    assert "they span x 100 to 100, y 70 to 70 in ESRI:104905, the records about x 9.9 to 16.5" in caplog.text


def test_the_commands_take_rasters_of_several_bodies(mixed: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "rasters"
    folder.mkdir()
    for kind in ("utm", "mars", "site"):
        (folder / mixed[kind].name).write_bytes(mixed[kind].read_bytes())
    write(folder, "wrong", "EPSG:4326", Affine(10, 0, 500_000, 0, -10, 5_000_640))
    flags = ("--cogs", folder, "--output", tmp_path / "built", "--name", "mixed")
    outcome = execute(build_collection.main, *flags)
    assert outcome.code == 1 and f"{folder}/wrong.tif: its coordinates (x 500000" in outcome.err
    outcome = execute(build_collection.main, *flags, "--on_error", "skip")
    assert outcome.code == 0 and outcome.out.startswith("3 of 4 records")
    collection = load(tmp_path / "built")
    table = collection.to_table()
    assert dict(zip(table["id"].to_pylist(), table["bbox"].is_valid().to_pylist(), strict=True)) == {
        "utm": True,
        "mars": True,
        "site": True,
    }

    points, want, crs = points_on(mixed["site"])
    pq.write_table(points, tmp_path / "points.parquet")
    given = ("--points", tmp_path / "points.parquet", "--x_column", "x", "--y_column", "y")
    reading = ("--collection", tmp_path / "built", "--bands", "B1")
    outcome = execute(
        sample_points.main,
        *given,
        "--geometry_crs",
        crs,
        *reading,
        "--output",
        tmp_path / "out",
        "--unsampled",
        tmp_path / "left",
    )
    assert outcome.code == 0, outcome.err
    rows = pq.read_table(next(tmp_path.glob("out*.parquet"))).sort_by("point_index")
    assert rows["value"].to_pylist() == want
    left = pq.read_table(next(tmp_path.glob("left*.parquet")))
    assert (len(left), set(left["reason"].to_pylist())) == (len(points) - len(want), {"no_record"})

    moon = ("--geometry_crs", "ESRI:104903")
    for place in (("--output", tmp_path / "none"), ("--plan",)):
        outcome = execute(sample_points.main, *given, *moon, *reading, *place)
        assert outcome.code == 1
        assert "the points are in ESRI:104903, from which PROJ has no transformation" in outcome.err
    assert not list(tmp_path.glob("none*"))


def test_chips_on_mars_by_the_command(mixed: dict[str, Path], tmp_path: Path) -> None:
    build_from_cogs([mixed["mars"], mixed["utm"]]).export(tmp_path / "built")
    shape = shapely.box(11.05, 18.05, 12.05, 19.05)
    table = pa.table({"wkt": [shape.wkt]})
    csv.write_csv(table, tmp_path / "shapes.csv")
    outcome = execute(
        read_chips.main,
        *("--polygons", tmp_path / "shapes.csv", "--geometry_column", "wkt", "--geometry_crs", MARS),
        *("--collection", tmp_path / "built", "--bands", "B1", "--output", tmp_path / "chips"),
        *("--geotiff", tmp_path / "tiffs"),
    )
    assert outcome.code == 0, outcome.err
    (chip,) = pq.read_table(next(tmp_path.glob("chips*.parquet"))).to_pylist()
    with rasterio.open(mixed["mars"]) as raster:
        want, transform = rasterio.mask.mask(raster, [shape], crop=True)
        crs = raster.crs
    assert chip["record_id"] == "mars"
    assert np.frombuffer(chip["array"], "<i2").reshape(chip["shape"]).tolist() == want[0].tolist()
    with rasterio.open(next((tmp_path / "tiffs").glob("*.tif"))) as written:
        assert written.transform == transform
        assert same_crs(crs_text(written.crs.to_wkt()), crs_text(crs.to_wkt()))
