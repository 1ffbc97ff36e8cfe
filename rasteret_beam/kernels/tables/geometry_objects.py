"""Boxes and GeoJSON objects, as quick scripts hold geometries."""

from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any, NamedTuple

import numpy as np

from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.geo.crs import crs_text

BYTES = (str, bytes, bytearray, memoryview)
"""Sequences that hold WKB or text, not numbers."""

GEOJSON_GEOMETRIES = frozenset(
    "Point MultiPoint LineString MultiLineString Polygon MultiPolygon GeometryCollection".split()
)


def are_numbers(value: Any) -> bool:
    """Whether it is a sequence or an array of numbers alone, and not empty: a box, if there are four."""
    is_sequence = isinstance(value, Sequence | np.ndarray) and not isinstance(value, BYTES)
    return is_sequence and len(value) > 0 and all(isinstance(side, Real | np.number) for side in value)


def is_box(value: Any) -> bool:
    """Whether it is (west, south, east, north)."""
    return are_numbers(value) and len(value) == 4


def geojson_crs(value: Any) -> str | None:
    """The CRS that a GeoJSON object states, as the edition of 2008 had it and GDAL still writes it; None for others.

    Without one, RFC 7946 has longitude and latitude on WGS 84.
    """
    crs = value.get("crs") if isinstance(value, Mapping) else None
    name = (crs.get("properties") or {}).get("name") if isinstance(crs, Mapping) else None
    return crs_text(name) if name is not None else None


class GeoJSONPart(NamedTuple):
    """A GeoJSON geometry, or None; the properties of its feature (its ``id`` among them); the CRS if it is stated."""

    geometry: Mapping[str, Any] | None
    properties: dict[str, Any]
    crs: str | None


def geojson_parts(value: Any, label: str) -> Iterator[GeoJSONPart]:
    """The geometries of a GeoJSON geometry, Feature or FeatureCollection; their coordinates are not looked at.

    Parameters
    ----------
    value : mapping
        Parsed JSON.
    label : str
        What an error calls it.

    Raises
    ------
    InputError
        It is none of the three, or a feature is not one.
    """
    if not isinstance(value, Mapping):
        raise InputError(f"{label} has a feature that is a {type(value).__name__}, not a GeoJSON Feature")
    kind, crs = value.get("type"), geojson_crs(value)
    if kind == "FeatureCollection":
        for feature in value.get("features") or []:
            for part in geojson_parts(feature, label):
                yield part if part.crs is not None else part._replace(crs=crs)
    elif kind == "Feature":
        yield GeoJSONPart(value.get("geometry"), _properties(value, label), crs)
    elif isinstance(kind, str) and kind in GEOJSON_GEOMETRIES:
        yield GeoJSONPart(value, {}, crs)
    else:
        raise InputError(
            f"{label} is a dict with type {kind!r}; GeoJSON has a Feature, a FeatureCollection or one of "
            f"{listed(sorted(GEOJSON_GEOMETRIES))}"
        )


def _properties(feature: Mapping[str, Any], label: str) -> dict[str, Any]:
    given = feature.get("properties") or {}
    if not isinstance(given, Mapping):
        raise InputError(f"{label} has a feature whose properties are a {type(given).__name__}, not an object")
    identity = {} if feature.get("id") is None else {"id": feature["id"]}
    return {**given, **{name: value for name, value in identity.items() if name not in given}}
