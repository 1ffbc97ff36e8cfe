"""Boxes and GeoJSON objects, as quick scripts hold geometries."""

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from rasteret_beam.kernels.geo.crs import crs_text

BYTES = (str, bytes, bytearray, memoryview)
"""Sequences that hold WKB or text, not numbers."""


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
