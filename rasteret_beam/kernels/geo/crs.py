"""Coordinate reference systems. x is always longitude or easting, y latitude or northing."""

import math
from functools import lru_cache
from typing import Any

import numpy as np
import pyproj
from numpy.typing import NDArray
from pyproj.exceptions import CRSError, ProjError

from rasteret_beam.errors import InputError

LONLAT = "OGC:CRS84"

Floats = NDArray[np.float64]


def crs_text(value: Any) -> str:
    """The text this package keeps of a CRS: its authority code, or WKT where it has none.

    Parameters
    ----------
    value
        Anything pyproj reads: ``4326``, ``"EPSG:4326"``, WKT, PROJJSON (text or dict), a CRS object.

    Raises
    ------
    InputError
        pyproj cannot read it.
    """
    if isinstance(value, str):
        return _text_of(value.strip())  # PROJ used to pass over blanks, and no longer does
    return _described(value)


@lru_cache(maxsize=4096)
def _text_of(text: str) -> str:
    """Each file of a collection has its own WKT, in which PROJ looks for a code for up to half a second."""
    return _described(int(text) if text.isdecimal() else text)


def _described(value: Any) -> str:
    try:
        crs = pyproj.CRS.from_user_input(value)
    except (CRSError, TypeError) as error:
        shown = repr(value) if len(repr(value)) < 200 else f"{repr(value)[:200]}..."
        raise InputError(
            f'CRS {shown} cannot be read: {error}. Give an EPSG code (4326 or "EPSG:4326"), WKT or PROJJSON.'
        ) from error
    authority = crs.to_authority(min_confidence=100)
    if authority is not None:
        return ":".join(authority)
    # A PROJ string or foreign WKT that means exactly an EPSG definition gets its code at 70.
    code = crs.to_epsg(min_confidence=70)
    if code is not None and pyproj.CRS.from_epsg(code).equals(crs, ignore_axis_order=True):
        return f"EPSG:{code}"
    return str(crs.to_wkt())


@lru_cache(maxsize=4096)
def _crs(text: str) -> pyproj.CRS:
    return pyproj.CRS.from_user_input(text)


def _horizontal(crs: pyproj.CRS) -> pyproj.CRS:
    """The part of a CRS that x and y are in: without heights, and without a transformation that is bound to it."""
    while crs.sub_crs_list or (crs.is_bound and crs.source_crs is not None):
        crs = crs.sub_crs_list[0] if crs.sub_crs_list else crs.source_crs  # type: ignore[assignment]
    return crs


@lru_cache(maxsize=4096)
def epsg_code(text: str) -> int | None:
    """EPSG code of a CRS, or None; CRS84 counts as 4326."""
    if text == LONLAT:
        return 4326
    code = _crs(text).to_epsg()
    return int(code) if code is not None else None


@lru_cache(maxsize=4096)
def full_turn(text: str) -> float | None:
    """360 degrees in units of a geographic CRS; None for any other CRS."""
    crs = _horizontal(_crs(text))
    if not crs.is_geographic:
        return None
    unit = crs.axis_info[0]
    return 360.0 if unit.unit_name == "degree" else math.tau / unit.unit_conversion_factor


def is_degrees(text: str) -> bool:
    """Whether coordinates are longitude and latitude in degrees."""
    return full_turn(text) == 360.0


@lru_cache(maxsize=4096)
def on_wgs84(text: str) -> bool:
    """Whether a CRS has the datum of longitude and latitude as we keep them, so that no shift comes in between."""
    geodetic = _crs(text).geodetic_crs
    return geodetic is not None and geodetic.to_epsg() in (4326, 4979)


def same_crs(one: str, other: str) -> bool:
    """Whether coordinates in the two need no transformation; axis order does not count."""
    return one == other or {one, other} == {LONLAT, "EPSG:4326"} or _same_engineering(one, other)


@lru_cache(maxsize=4096)
def _same_engineering(one: str, other: str) -> bool:
    """Whether two texts mean one engineering (local) CRS: PROJ transforms none of them, not even to itself.

    Its datums are all "unknown", so the name has to agree beside what PROJ compares.
    """
    a, b = _horizontal(_crs(one)), _horizontal(_crs(other))
    return a.is_engineering and b.is_engineering and a.name == b.name and a.equals(b, ignore_axis_order=True)


@lru_cache(maxsize=4096)
def reaches(source: str, target: str) -> bool:
    """Whether PROJ brings coordinates of one CRS to another.

    It does not between celestial bodies, nor from or to an engineering (local) CRS other than itself. Geocentric and
    vertical CRSs have no x and y on a map, so only themselves are reached from them.
    """
    if same_crs(source, target):
        return True
    if not (_is_horizontal(source) and _is_horizontal(target)):
        return False
    try:
        _transformer(source, target)
    except InputError:
        return False
    return True


def _is_horizontal(text: str) -> bool:
    crs = _horizontal(_crs(text))
    return not crs.is_geocentric and not crs.is_vertical


@lru_cache(maxsize=4096)
def crs_label(text: str) -> str:
    """A CRS in an error: its code, or its name and the beginning of its WKT."""
    return text if len(text) <= 40 else f"{_crs(text).name!r} ({text[:60]}...)"


@lru_cache(maxsize=4096)
def _transformer(source: str, target: str) -> pyproj.Transformer:
    try:
        return pyproj.Transformer.from_crs(_crs(source), _crs(target), always_xy=True)
    except ProjError as error:
        raise InputError(
            f"PROJ has no transformation from CRS {crs_label(source)} to CRS {crs_label(target)}: {error}"
        ) from error


def transform(source: str, target: str, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Coordinates in another CRS, [n] each; infinite where PROJ has no answer."""
    if same_crs(source, target):
        return x, y
    x, y = _transformer(source, target).transform(x, y, errcheck=False)
    return np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
