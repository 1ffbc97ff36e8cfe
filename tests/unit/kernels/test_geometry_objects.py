"""What is taken for a box; GeoJSON objects, their CRS and what is none of them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import shapely

from rasteret_beam.collection.eager.geometries import boxes_of, read_geometries
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.geo.crs import LONLAT, same_crs
from rasteret_beam.kernels.tables.geometry_objects import are_numbers, geojson_crs, is_box
from rasteret_beam.kernels.tables.point_geometry import geometry_xy
from rasteret_beam.kernels.tables.polygon_geometry import read_polygons

SQUARE = shapely.box(1, 2, 3, 4)
WKB = shapely.to_wkb(SQUARE)
POINT = shapely.to_wkb(shapely.Point(1, 2))


@pytest.mark.parametrize("value", [(1, 2, 3, 4), [1.0, 2, 3, 4], np.array([1, 2, 3, 4]), range(1, 5)])
def test_boxes(value: Any) -> None:
    assert is_box(value) and boxes_of(value)[0].tolist() == [[1, 2, 3, 4]]
    assert read_polygons(value).shapes[0].equals(SQUARE)


@pytest.mark.parametrize("value", [(), "1234", WKB, bytearray(WKB), memoryview(WKB), [SQUARE], None, 4, {"a": 1}])
def test_what_is_no_box(value: Any) -> None:
    assert not are_numbers(value) and not is_box(value)


@pytest.mark.parametrize("value", [WKB, bytearray(WKB), memoryview(WKB)])
def test_bytes_of_any_kind_are_wkb_for_polygons_and_points(value: Any) -> None:
    assert read_polygons(value).shapes[0].equals(read_geometries(value, "points").shapes[0])
    assert read_polygons([value]).shapes[0].equals(SQUARE)


@pytest.mark.parametrize(
    ("crs", "expected"),
    [
        ({"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32631"}}, "EPSG:32631"),
        ({"type": "name", "properties": {}}, None),
        ({"type": "link"}, None),
        (None, None),
    ],
)
def test_a_crs_in_geojson(crs: Any, expected: str | None) -> None:
    collection = {"type": "FeatureCollection", "crs": crs, "features": [{"type": "Feature", "geometry": None}]}
    found = geojson_crs(collection)
    assert found is expected is None or same_crs(found, expected)
    assert same_crs(read_geometries(collection, "points").crs, expected or LONLAT)


def test_other_things_state_no_crs() -> None:
    assert geojson_crs([1, 2]) is geojson_crs(SQUARE) is geojson_crs({"type": "Point"}) is None


SHAPE = shapely.geometry.mapping(SQUARE)


@pytest.mark.parametrize(
    "value",
    [
        SHAPE,
        {"type": "Feature", "geometry": SHAPE, "properties": None},
        {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": SHAPE}]},
        {"type": "FeatureCollection", "features": [{"type": "FeatureCollection", "features": [SHAPE]}]},
    ],
    ids=["geometry", "feature", "collection", "collection in a collection"],
)
def test_geojson_is_read_alike_for_polygons_and_points(value: Any) -> None:
    assert [shape.equals(SQUARE) for shape in read_polygons(value).shapes] == [True]
    assert [shape.equals(SQUARE) for shape in read_geometries(value, "points").shapes] == [True]


KINDS = (
    "GeoJSON has a Feature, a FeatureCollection or one of GeometryCollection, LineString, MultiLineString, MultiPoint, "
    "MultiPolygon, Point, Polygon"
)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"type": "Square"}, f"is a dict with type 'Square'; {KINDS}"),
        ({"type": ["Polygon"]}, f"is a dict with type ['Polygon']; {KINDS}"),
        ({}, f"is a dict with type None; {KINDS}"),
        (
            {"type": "Feature", "geometry": SHAPE, "properties": "red"},
            "has a feature whose properties are a str, not an object",
        ),
    ],
)
def test_what_is_no_geojson(value: Any, message: str) -> None:
    with pytest.raises(InputError) as error:
        read_polygons(value)
    assert str(error.value) == f"geometry 0 {message}"
    with pytest.raises(InputError) as error:
        read_geometries(value, "the points")
    assert str(error.value) == f"number 0 of the points {message}"


def test_the_properties_of_a_feature_have_its_id() -> None:
    feature = {"type": "Feature", "id": 7, "geometry": SHAPE}
    assert read_geometries([feature, feature | {"properties": {"id": "own"}}], "points").properties == [
        {"id": 7},
        {"id": "own"},
    ]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
def test_a_value_that_is_no_wkb_is_shown_for_polygons_and_points(kind: pa.DataType) -> None:
    column = pa.array([WKB, None, b"junk"], type=kind)
    message = "row 2 of column 'geometry' is not WKB: b'junk'"
    with pytest.raises(InputError) as error:
        read_polygons(pa.table({"geometry": column}), geometry_crs=4326)
    assert str(error.value) == message
    with pytest.raises(InputError) as error:
        geometry_xy(pa.array([POINT, None, b"junk"], type=kind), 0, "geometry")
    assert str(error.value) == message
