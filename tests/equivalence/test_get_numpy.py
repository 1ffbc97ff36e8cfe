"""Chips under polygons equal those of rasterio.mask on the record's own file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import rasterio
import rasterio.mask
import shapely
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shapely.geometry import mapping

from rasteret_beam import Collection, build_from_cogs, build_from_table
from rasteret_beam.errors import InputError, RasteretBeamError, TileReadError
from rasteret_beam.kernels.routing.chip_windows import reprojected
from rasteret_beam.readers.tiles.indexed import IndexedEngine
from rasteret_beam.readers.tiles.protocol import TileRequest
from tests.support.polygons import Rasters, crs_of, on_raster, oracle, oracle_mask, polygons, star
from tests.support.properties import examples
from tests.support.rasters import LOWEST, NAN, RasterCase, case

GRIDS = (
    "type_uint16",
    "south_up",
    "east_left",
    "rotated",
    "rotated_30",
    "sheared",
    "not_square",
    "metres_10",
    "geographic",
    "arc_seconds_3",
    "web_mercator",
    "strips_7",
    "nodata_integer",
    "nodata_nan",
    "nodata_lowest",
    "nodata_and_nan",
    "nan_without_nodata",
    "infinity",
    "mask",
    "mask_rgb",
    "alpha",
    "alpha_gray",
    "sparse_nodata",
)


@pytest.fixture(scope="module")
def rasters(tmp_path_factory: pytest.TempPathFactory) -> Rasters:
    return Rasters(tmp_path_factory.mktemp("chips"))


def compare(path: Path, collection: Collection, shape: shapely.Geometry, **options: Any) -> bool:
    """Whether the shape overlaps the raster, after a comparison with rasterio."""
    bands = collection.bands
    asked = {"fill": "nodata", "all_touched": "all_touched"}
    theirs = {asked[name]: value for name, value in options.items()}
    try:
        expected = oracle(path, shape, **theirs)
    except ValueError as error:
        assert "overlap" in str(error) or "must be > 0" in str(error)
        expected = None
    with rasterio.open(path) as dataset:
        corners = shapely.Polygon([dataset.transform @ at for at in corner_pixels(dataset)])
    if expected is None or not shapely.relate_pattern(shape, corners, "T********"):
        with pytest.raises(InputError, match="overlaps no record"):
            collection.get_numpy(shape, bands, geometry_crs=crs_of(collection), **options)
        return False
    found, valid = collection.get_numpy([shape], bands, geometry_crs=crs_of(collection), return_mask=True, **options)
    expected_valid = oracle_mask(path, shape, **theirs)
    if len(bands) == 1:
        expected, expected_valid = expected[0], expected_valid[0]
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(found[0], expected, strict=True)
    np.testing.assert_array_equal(valid[0], expected_valid, strict=True)
    return True


def corner_pixels(dataset: Any) -> list[tuple[int, int]]:
    return [(0, 0), (dataset.width, 0), (dataset.width, dataset.height), (0, dataset.height)]


@pytest.mark.parametrize("name", GRIDS)
@settings(max_examples=examples(25), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_chips_equal_rasterio(rasters: Rasters, name: str, data: st.DataObject) -> None:
    path, collection = rasters(name)
    raster = case(name)
    shape = on_raster(path, data.draw(polygons(raster.width, raster.height)))
    if not shapely.is_valid(shape) or shape.is_empty:
        return
    options: dict[str, Any] = {"all_touched": data.draw(st.booleans())}
    if data.draw(st.booleans()):
        options["fill"] = 7
    compare(path, collection, shape, **options)


@pytest.mark.parametrize("all_touched", [False, True])
def test_slivers_that_touch_no_pixel_centre(rasters: Rasters, all_touched: bool) -> None:
    path, collection = rasters("type_uint16")
    sliver = on_raster(path, shapely.box(10.1, 10.1, 40.9, 10.2))
    found, valid = collection.get_numpy(
        sliver, ["B1"], geometry_crs=32631, all_touched=all_touched, return_mask=True, fill=9
    )
    assert found.shape == (1, 1, 31)
    assert valid.all() == all_touched and valid.any() == all_touched
    np.testing.assert_array_equal(found[0], oracle(path, sliver, all_touched=all_touched, nodata=9)[0])


def test_across_every_edge_and_around_the_whole_raster(rasters: Rasters) -> None:
    path, collection = rasters("type_uint16")
    for box in ((-5, 20, 9, 30), (190, 20, 300, 30), (20, -9, 30, 4), (20, 150, 30, 170), (-9, -9, 300, 300)):
        assert compare(path, collection, on_raster(path, shapely.box(*box)))
    for box in ((-5, 20, 0, 30), (203, 20, 210, 30), (20, -9, 30, 0), (300, 300, 310, 310)):
        assert not compare(path, collection, on_raster(path, shapely.box(*box)))


def test_a_box_that_meets_the_raster_where_its_polygon_does_not(rasters: Rasters) -> None:
    path, collection = rasters("type_uint16")
    around_the_corner = shapely.Polygon([(-9, -9), (9, -9), (9, -5), (-5, -5), (-5, 9), (-9, 9)])
    assert not compare(path, collection, on_raster(path, around_the_corner))


def test_several_bands_polygons_and_records(rasters: Rasters, tmp_path: Path) -> None:
    raster = RasterCase(name="one", dtype="int16", count=3, nodata=-1)
    other = RasterCase(name="two", dtype="int16", count=3, nodata=-1)
    paths = [raster.write(tmp_path), other.write(tmp_path)]
    collection = build_from_cogs([str(path) for path in paths])
    shapes = [on_raster(paths[0], shapely.Polygon(star(col, 70.0, [20.0] * 8))) for col in (100.0, 50.0, 60.0)]
    found = collection.get_numpy(shapes, ["B3", "B1"], geometry_crs="EPSG:32631")
    assert found.shape[:2] == (6, 2)
    expected = np.stack([oracle(path, shape)[[2, 0]] for shape in shapes for path in paths])
    np.testing.assert_array_equal(found, expected, strict=True)


def test_the_newest_record_alone(scenes: Collection) -> None:
    one = (500_505.0, 5_398_005.0, 500_995.0, 5_398_495.0)
    everything = scenes.get_numpy(one, ["B10"], geometry_crs=32631)
    newest = scenes.get_numpy(one, ["B10"], geometry_crs=32631, match="latest")
    assert everything.shape == (3, 49, 49) or everything.shape == (3, 50, 50)
    np.testing.assert_array_equal(newest, everything[-1:])


def test_bands_of_one_record_that_others_lack(scenes: Collection) -> None:
    right = (504_005.0, 5_398_005.0, 504_495.0, 5_398_495.0)
    with pytest.raises(InputError, match=r"record 'P1_1', which geometry 0 overlaps, has no band\(s\) B20"):
        scenes.get_numpy(right, ["B20", "B10"], geometry_crs=32631)
    # Asked for alone, a record that lacks the band is not one of those with it.
    assert len(scenes.get_numpy(right, ["B20"], geometry_crs=32631)) == 2


def test_dtypes(tmp_path: Path) -> None:
    paths = {
        dtype: RasterCase(name=dtype, dtype=dtype).write(tmp_path)
        for dtype in ("uint8", "int16", "int64", "uint64", "float32")
    }

    def stacked(*bands: str) -> np.ndarray:
        assets = {band: {"href": str(paths[band]), "band_index": 0} for band in bands}
        table = pa.Table.from_pylist([{"id": "a", "datetime": "2023-01-01", "assets": assets}])
        shape = on_raster(paths["uint8"], shapely.box(3, 3, 20, 20))
        found = build_from_table(table).get_numpy(shape, bands, geometry_crs=32631)
        for number, band in enumerate(bands):
            np.testing.assert_array_equal(found[0, number], oracle(paths[band], shape)[0])
        return found

    assert stacked("uint8", "int16").dtype == np.int16
    assert stacked("int16", "float32").dtype == np.float32
    for bands in (("int64", "float32"), ("int64", "uint64")):
        with pytest.raises(InputError, match="no dtype holds all values"):
            stacked(*bands)


# Inputs


def inputs(shape: shapely.Geometry) -> dict[str, Callable[[], Any]]:
    feature = {"type": "Feature", "properties": {}, "geometry": mapping(shape)}
    frame = gpd.GeoDataFrame({"plot": ["a"]}, geometry=[shape], crs="OGC:CRS84")
    wkb = shapely.to_wkb(shape)
    return {
        "box": lambda: shape.bounds,
        "list of boxes": lambda: [shape.bounds],
        "array": lambda: np.array(shape.bounds),
        "shapely": lambda: shape,
        "shapely array": lambda: np.array([shape]),
        "wkb": lambda: wkb,
        "ewkb": lambda: shapely.to_wkb(shapely.set_srid(shape, 4326), include_srid=True),
        "geojson": lambda: mapping(shape),
        "feature": lambda: feature,
        "feature collection": lambda: {"type": "FeatureCollection", "features": [feature]},
        "list of features": lambda: [feature],
        "geojson with crs": lambda: {
            "type": "FeatureCollection",
            "features": [feature],
            "crs": {"type": "name", "properties": {"name": "urn:ogc:def:crs:OGC:1.3:CRS84"}},
        },
        "geo series": lambda: frame.geometry,
        "geo frame": lambda: frame,
        "wkb table": lambda: pa.table(frame.to_arrow(geometry_encoding="WKB")),
        "geoarrow table": lambda: pa.table(frame.to_arrow(geometry_encoding="geoarrow")),
        "interleaved table": lambda: pa.table(frame.to_arrow(geometry_encoding="geoarrow", interleaved=False)),
        "record batch reader": lambda: pa.table(frame.to_arrow()).to_reader(),
        "array of wkb": lambda: pa.array([wkb]),
        "chunked wkb": lambda: pa.chunked_array([[wkb]], type=pa.large_binary()),
        "polars series": lambda: pl.Series([wkb]),
    }


@pytest.mark.parametrize("kind", list(inputs(shapely.box(0, 0, 1, 1))))
def test_inputs(rasters: Rasters, kind: str) -> None:
    path, collection = rasters("geographic")
    shape = shapely.box(5.1, 51.0, 5.4, 51.3)
    expected = oracle(path, shape)
    np.testing.assert_array_equal(collection.get_numpy(inputs(shape)[kind](), ["B1"]), expected)


@pytest.mark.parametrize("encoding", ["WKB", "geoarrow"])
def test_multipolygons_with_holes_in_tables(rasters: Rasters, encoding: str) -> None:
    path, collection = rasters("geographic")
    ring = shapely.Point(6.0, 51.0).buffer(0.4).difference(shapely.Point(6.0, 51.0).buffer(0.2))
    shapes = [shapely.MultiPolygon([ring, shapely.box(5.55, 50.6, 5.6, 50.7)]), shapely.MultiPolygon([ring])]
    frame = gpd.GeoDataFrame(geometry=shapes, crs=4326)
    table = pa.table(frame.to_arrow(geometry_encoding=encoding))
    for number in (0, 1):
        found = collection.get_numpy(table.slice(number, 1), ["B1"])
        np.testing.assert_array_equal(found, oracle(path, shapes[number]))


def test_plain_columns_of_polars(rasters: Rasters) -> None:
    path, collection = rasters("type_uint16")
    shape = on_raster(path, shapely.box(3, 3, 20, 20))
    frame = pl.DataFrame({"plot": ["a"], "outline": [shapely.to_wkb(shape)]})
    found = collection.get_numpy(frame, ["B1"], geometry_column="outline", geometry_crs=32631)
    np.testing.assert_array_equal(found, oracle(path, shape))


# Other CRSs


def test_edges_follow_their_curve() -> None:
    # Halfway along a parallel of 60 degrees north, UTM lies kilometres from the chord.
    wide = np.array([shapely.box(0.0, 60.0, 6.0, 60.5)], dtype=object)
    (bent,) = reprojected(wide, "OGC:CRS84", "EPSG:32631", 0.1)
    fine = shapely.segmentize(wide, 1e-3)  # its edges are within a millimetre of their curve
    (truth,) = reprojected(fine, "OGC:CRS84", "EPSG:32631", 1e9)
    assert shapely.hausdorff_distance(bent, truth) < 100
    assert bent.symmetric_difference(truth).area / truth.length < 0.1
    both = np.array([shapely.MultiPolygon([wide[0], shapely.box(0.0, 61.0, 1.0, 61.5)])], dtype=object)
    (parts,) = reprojected(both, "OGC:CRS84", "EPSG:32631", 0.1)
    assert parts.geoms[0].symmetric_difference(truth).area / truth.length < 0.1
    small = np.array([shapely.box(3.0, 60.0, 3.0001, 60.0001)], dtype=object)
    (kept,) = reprojected(small, "OGC:CRS84", "EPSG:32631", 0.1)
    assert len(kept.exterior.coords) == 5


def test_polygons_in_other_crs_than_the_raster(rasters: Rasters) -> None:
    for name, box in (("type_uint16", (3.005, 40.63, 3.02, 40.645)), ("web_mercator", (2.36, 48.83, 2.4, 48.84))):
        path, collection = rasters(name)
        shape = shapely.box(*box)
        dense = shapely.segmentize(shape, 1e-4)
        (moved,) = reprojected(np.array([dense], dtype=object), "OGC:CRS84", crs_of(collection), 1e9)
        np.testing.assert_array_equal(collection.get_numpy(shape, ["B1"]), oracle(path, moved))


def test_longitudes_of_another_turn(rasters: Rasters) -> None:
    path, collection = rasters("longitude_0_360")
    found = collection.get_numpy((-20.5, 10, -10.5, 20), ["B1"])
    np.testing.assert_array_equal(found, oracle(path, shapely.box(339.5, 10, 349.5, 20)))
    across = collection.get_numpy((175.5, 10, -175.5, 20), ["B1"])
    np.testing.assert_array_equal(across, oracle(path, shapely.box(175.5, 10, 184.5, 20)))
    with pytest.raises(InputError, match="both edges of a raster that goes around the globe"):
        collection.get_numpy((-5.0, 10, 5.0, 20), ["B1"])


def test_across_the_antimeridian(rasters: Rasters) -> None:
    path, collection = rasters("antimeridian")
    shape = shapely.segmentize(shapely.box(179.9, 44.9, 180.1, 45.0), 1e-4)
    (moved,) = reprojected(np.array([shape], dtype=object), "OGC:CRS84", "EPSG:32660", 1e9)
    np.testing.assert_array_equal(collection.get_numpy((179.9, 44.9, -179.9, 45.0), ["B1"]), oracle(path, moved))
    globe, around = rasters("longitude_0_360")
    (utm,) = reprojected(np.array([shapely.box(175.5, 10, 184.5, 20)], dtype=object), "OGC:CRS84", "EPSG:32660", 1.0)
    (back,) = reprojected(np.array([utm], dtype=object), "EPSG:32660", "OGC:CRS84", 1e-3)
    back = shapely.transform(back, lambda xy: xy + np.array([360.0, 0.0])) if back.bounds[0] < 0 else back
    assert back.bounds == pytest.approx((175.5, 10, 184.5, 20), abs=0.02)
    assert around.get_numpy(utm, ["B1"], geometry_crs=32660).shape == oracle(globe, back).shape


def test_a_polygon_that_is_cut_at_the_antimeridian(rasters: Rasters) -> None:
    """As RFC 7946 wants it: it is whole on a raster from 0 to 360 degrees."""
    path, collection = rasters("longitude_0_360")
    whole = shapely.Polygon([(172.5, 8.0), (187.5, 12.0), (184.0, 24.5), (171.0, 19.0)])
    west, east = shapely.box(-180, -90, 180, 90), shapely.box(180, -90, 540, 90)
    parts = [shapely.intersection(whole, west), shapely.transform(whole & east, lambda xy: xy - [360.0, 0.0])]
    cut = shapely.MultiPolygon(parts)
    assert cut.bounds[0] == -180.0 and cut.bounds[2] == 180.0
    np.testing.assert_array_equal(collection.get_numpy(cut, ["B1"]), oracle(path, whole))
    zones = collection.zonal_statistics([cut], ["B1"], statistics=["sum", "count"], coverage="fraction")
    expected = collection.zonal_statistics([whole], ["B1"], statistics=["sum", "count"], coverage="fraction")
    for name in ("sum", "count"):
        assert zones[name].to_pylist() == pytest.approx(expected[name].to_pylist(), rel=1e-12)


def test_a_world_wide_box_stays_whole() -> None:
    world = np.array([shapely.box(-20_000_000, -5_000_000, 20_000_000, 5_000_000)], dtype=object)
    (found,) = reprojected(world, "EPSG:3857", "OGC:CRS84", 1e-3)
    assert found.bounds == pytest.approx((-179.66, -40.9, 179.66, 40.9), abs=0.1)


def test_records_of_several_zones(tmp_path: Path) -> None:
    left = RasterCase(name="left", dtype="uint16", transform=Affine(1000, 0, 600_000, 0, -1000, 5_100_000))
    right = RasterCase(
        name="right", dtype="uint16", crs="EPSG:32632", transform=Affine(1000, 0, 200_000, 0, -1000, 5_100_000)
    )
    far = RasterCase(name="far", dtype="uint16", crs="EPSG:32660", transform=left.transform)
    paths = [raster.write(tmp_path) for raster in (left, right, far)]
    collection = build_from_cogs([str(path) for path in paths])
    for number, lon in enumerate((4.6, 6.9)):
        found = collection.get_numpy((lon, 45.5, lon + 0.1, 45.6), ["B1"])
        dense = shapely.segmentize(shapely.box(lon, 45.5, lon + 0.1, 45.6), 1e-3)
        crs = ("EPSG:32631", "EPSG:32632")[number]
        (moved,) = reprojected(np.array([dense], dtype=object), "OGC:CRS84", crs, 1e9)
        if number == 0:
            np.testing.assert_array_equal(found, oracle(paths[0], moved))
        else:
            assert moved.bounds[0] > 200_000


# Errors


BOWTIE = shapely.Polygon([(5, 51), (6, 52), (6, 51), (5, 52)])
GOOD = shapely.box(5.1, 51.0, 5.4, 51.3)
TABLE = pa.table({"plot": ["a"], "geometry": [shapely.to_wkb(GOOD)]})
REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "invalid": ([GOOD, BOWTIE], {}, r"geometry 1 is not a valid polygon: Self-intersection.*make_valid"),
    "invalid in a table": (
        pa.table({"geometry": [shapely.to_wkb(BOWTIE)]}),
        {"geometry_crs": 4326},
        r"row 0 of column 'geometry' is not a valid polygon: Self-intersection",
    ),
    "null": ([GOOD, None], {}, "geometry 1 is null"),
    "null in a table": (
        pa.table({"geometry": pa.array([shapely.to_wkb(GOOD), None])}),
        {"geometry_crs": 4326},
        "row 1 of column 'geometry' is null",
    ),
    "empty": ([shapely.Polygon()], {}, "geometry 0 is empty"),
    "point": ([shapely.Point(5, 51)], {}, r"geometry 0 is POINT \(5 51\); only polygons"),
    "nothing": ([], {}, "there are no geometries"),
    "three numbers": ((1, 2, 3), {}, r"geometry 0 has 3 number\(s\); a box is"),
    "box upside down": ((5.0, 52.0, 6.0, 51.0), {}, "geometry 0 is the box"),
    "box the wrong way round": ((6.0, 51.0, 5.0, 52.0), {"geometry_crs": 32631}, "xmin < xmax"),
    "not finite": ((5.0, 51.0, NAN, 52.0), {}, "geometry 0 is the box"),
    "not wkb": (b"abc", {}, "geometry 0 is not WKB"),
    "not wkb in a table": (pa.table({"geometry": [b"abc"]}), {"geometry_crs": 4326}, "row 0 of column 'geometry'"),
    "not geojson": ({"type": "Polygon"}, {}, "geometry 0 is not a GeoJSON"),
    "feature without geometry": ({"type": "Feature", "geometry": None}, {}, "geometry 0 is null"),
    "text": ("POLYGON", {}, "geometry 0 is a str; give a box"),
    "number": (5, {}, "geometry 0 is a int; give a box"),
    "no crs": (TABLE, {}, "geometry column 'geometry' has no CRS; give it with geometry_crs"),
    "unreadable crs": (GOOD, {"geometry_crs": "moon"}, "CRS 'moon' cannot be read"),
    "no such column": (TABLE, {"geometry_column": "shape"}, "has no column 'shape'; it has plot, geometry"),
    "no geometry column": (pa.table({"a": [1]}), {}, "no column known as a geometry"),
    "two geometry columns": (
        pa.table({"geom": [b""], "geometry": [b""]}),
        {},
        "more than one column that could be the geometry",
    ),
    "column of numbers": (TABLE, {"geometry_column": "plot", "geometry_crs": 4326}, "column 'plot' is string"),
    "column without a table": (GOOD, {"geometry_column": "geom"}, "are not a table; leave it out"),
    "srid in conflict": (shapely.set_srid(GOOD, 4326), {"geometry_crs": 32631}, "geometry_crs is EPSG:32631, but"),
    "two srids": ([shapely.set_srid(GOOD, 4326), shapely.set_srid(GOOD, 32631)], {}, "several SRIDs: 4326, 32631"),
    "crs in conflict": (
        gpd.GeoSeries([GOOD], crs=4326),
        {"geometry_crs": 32631},
        "geometry_crs is EPSG:32631, but the data say EPSG:4326",
    ),
    "elsewhere": ((50.0, 51.0, 51.0, 52.0), {}, r"geometry 0 overlaps no record: its bounds are \(50, 51, 51, 52\)"),
    "one of two elsewhere": ([GOOD, (50.0, 51.0, 51.0, 52.0)], {}, "geometry 1 overlaps no record"),
    "ragged": (
        [GOOD, shapely.box(5.1, 51.0, 5.4, 51.6)],
        {},
        r"2 shapes \(rows, columns\): \(2\d, 2\d\) for geometry 0 on record.*Read one geometry",
    ),
    "fill too large": (GOOD, {"fill": 1e10}, r"fill is 1e\+10, which int32 cannot hold"),
    "fill with a fraction": (GOOD, {"fill": 0.5}, "fill is 0.5, which int32 cannot hold"),
    "fill not a number": (GOOD, {"fill": "0"}, "fill is '0'; it has to be a number"),
    "match": (GOOD, {"match": "first"}, "match is 'first'"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused(rasters: Rasters, kind: str) -> None:
    _, collection = rasters("geographic")
    geometries, options, message = REFUSED[kind]
    with pytest.raises(InputError, match=message):
        collection.get_numpy(geometries, ["B1"], **options)


def test_bands_on_different_grids(scenes: Collection) -> None:
    left = (500_005.0, 5_398_005.0, 500_495.0, 5_398_495.0)
    message = r"bands B10 and B20 of record 'P0_0' lie on different grids \(300 x 300 pixels of 10 x 10"
    with pytest.raises(InputError, match=message):
        scenes.get_numpy(left, ["B10", "B20"], geometry_crs=32631)


def test_unknown_band(scenes: Collection) -> None:
    with pytest.raises(InputError, match=r"lacks band\(s\) B99; it has B10, B20"):
        scenes.get_numpy((0, 0, 1, 1), ["B99"])


def test_a_polygon_around_a_pole_on_a_geographic_raster(rasters: Rasters) -> None:
    _, collection = rasters("longitude_0_360")
    with pytest.raises(InputError, match="geometry 0 holds a pole"):
        collection.get_numpy(shapely.box(-1e6, -1e6, 1e6, 1e6), ["B1"], geometry_crs=3413)


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    path = RasterCase(name="gone", dtype="uint16").write(tmp_path)
    collection = build_from_cogs([str(path)])
    path.unlink()
    shape = on_raster_of_utm(shapely.box(3, 3, 20, 20))
    with pytest.raises(TileReadError, match=r"record 'gone', band B1: .*gone\.tif, tile \(0, 0\)"):
        collection.get_numpy(shape, ["B1"], geometry_crs=32631)


def on_raster_of_utm(shape: shapely.Geometry) -> shapely.Geometry:
    return shapely.transform(shape, lambda xy: xy * [16.0, -16.0] + [500_000.0, 4_500_000.0])


def test_a_file_of_another_dtype(tmp_path: Path) -> None:
    path = RasterCase(name="changed", dtype="uint16", tile=None, strip_rows=8).write(tmp_path)
    collection = build_from_cogs([str(path)])
    RasterCase(name="changed", dtype="float32", tile=None, strip_rows=8).write(tmp_path)
    with pytest.raises(RasteretBeamError, match="changed after the collection was built, so its index is stale"):
        collection.get_numpy(on_raster_of_utm(shapely.box(3, 3, 20, 20)), ["B1"], geometry_crs=32631)


# What is read


def test_only_touched_tiles_are_read_and_each_once(rasters: Rasters, monkeypatch: pytest.MonkeyPatch) -> None:
    path, collection = rasters("type_uint16")
    read: list[tuple[int, int]] = []
    original = IndexedEngine.read

    def watched(self: IndexedEngine, wants: list[TileRequest], *more: Any) -> Any:
        read.extend((want.tile_row, want.tile_col) for want in wants)
        return original(self, wants, *more)

    monkeypatch.setattr(IndexedEngine, "read", watched)
    shapes = [on_raster(path, shapely.box(col, 70, col + 10, 80)) for col in (66, 80, 100, 110)]
    collection.get_numpy(shapes, ["B1"], geometry_crs=32631)
    assert read == [(1, 1)]
    read.clear()
    collection.get_numpy(on_raster(path, shapely.box(60, 60, 70, 70)), ["B1"], geometry_crs=32631)
    assert sorted(read) == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_a_collection_that_does_not_say_what_masks_its_files_have(rasters: Rasters) -> None:
    path, collection = rasters("mask")
    bare = Collection.from_table(collection.to_table().drop_columns(["B1_extra"]))
    shape = on_raster(path, shapely.box(20, 20, 90, 90))
    assert compare(path, bare, shape, fill=5)


def test_lowest_float_is_nodata(rasters: Rasters) -> None:
    path, collection = rasters("nodata_lowest")
    shape = on_raster(path, shapely.box(20, 20, 90, 90))
    found, valid = collection.get_numpy(shape, ["B1"], geometry_crs=32631, return_mask=True)
    assert (found[~valid] == np.float32(LOWEST)).all() and 0 < valid.mean() < 1
