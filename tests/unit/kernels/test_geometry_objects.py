"""What is taken for a box, and the CRS that GeoJSON objects state."""

from typing import Any

import numpy as np
import pytest
import shapely

from rasteret_beam.collection.eager.geometries import boxes_of, read_geometries
from rasteret_beam.kernels.geo.crs import LONLAT, same_crs
from rasteret_beam.kernels.tables.geometry_objects import are_numbers, geojson_crs, is_box
from rasteret_beam.kernels.tables.polygon_geometry import read_polygons

SQUARE = shapely.box(1, 2, 3, 4)
WKB = shapely.to_wkb(SQUARE)


@pytest.mark.parametrize("value", [(1, 2, 3, 4), [1.0, 2, 3, 4], np.array([1, 2, 3, 4]), range(1, 5)])
def test_boxes(value: Any) -> None:
    assert is_box(value) and boxes_of(value).tolist() == [[1, 2, 3, 4]]
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
