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
    """The normalized text of a CRS: its authority code, or WKT if it has none.

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
        return _text_of(value.strip())  # PROJ does not ignore blanks
    return _described(value)


@lru_cache(maxsize=4096)
def _text_of(text: str) -> str:
    """Cached, as PROJ takes up to half a second to find the code of a WKT, and every file has one."""
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
    # PROJ identifies a PROJ string or other WKT that equals an EPSG definition with confidence 70.
    code = crs.to_epsg(min_confidence=70)
    if code is not None and pyproj.CRS.from_epsg(code).equals(crs, ignore_axis_order=True):
        return f"EPSG:{code}"
    return str(crs.to_wkt())


@lru_cache(maxsize=4096)
def _crs(text: str) -> pyproj.CRS:
    return pyproj.CRS.from_user_input(text)


def _horizontal(crs: pyproj.CRS) -> pyproj.CRS:
    """The horizontal part of a CRS, without heights and bound transformations."""
    while crs.sub_crs_list or (crs.is_bound and crs.source_crs is not None):
        crs = crs.sub_crs_list[0] if crs.sub_crs_list else crs.source_crs  # type: ignore[assignment]
    return crs


@lru_cache(maxsize=4096)
def horizontal_crs(text: str) -> pyproj.CRS:
    """The horizontal part of a CRS."""
    return _horizontal(_crs(text))


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
    crs = horizontal_crs(text)
    if not _is_lonlat(crs):
        return None
    unit = crs.axis_info[0]
    return 360.0 if unit.unit_name == "degree" else math.tau / unit.unit_conversion_factor


def _is_lonlat(crs: pyproj.CRS) -> bool:
    """Whether coordinates are longitude and latitude; PROJ does not call planetocentric latitude geographic."""
    return bool(crs.is_geographic or crs.type_name == "Geodetic CRS")


def is_degrees(text: str) -> bool:
    """Whether coordinates are longitude and latitude in degrees."""
    return full_turn(text) == 360.0


@lru_cache(maxsize=4096)
def metres_of_unit(text: str) -> float:
    """Metres of one unit of a CRS's axes; of a geographic CRS, on the equator."""
    crs = horizontal_crs(text)
    factor = float(crs.axis_info[0].unit_conversion_factor) if crs.axis_info else 1.0
    return factor * (crs.ellipsoid.semi_major_metre if crs.ellipsoid else 6378137.0) if _is_lonlat(crs) else factor


def crs_json(text: str) -> dict[str, Any]:
    """A CRS as PROJJSON."""
    return _crs(text).to_json_dict()


@lru_cache(maxsize=4096)
def footprint_crs(text: str) -> str | None:
    """The CRS of the footprint of a raster in this CRS.

    OGC:CRS84 wherever PROJ reaches it; on other celestial bodies their geographic CRS, which the raster's is based on;
    an engineering (local) CRS itself. None for geocentric and vertical CRSs, which have no x and y on a map.
    """
    if reaches(text, LONLAT):
        return LONLAT
    crs = horizontal_crs(text)
    if crs.is_engineering:
        return text
    base = crs.geodetic_crs
    while base is not None and base.is_derived:
        base = base.source_crs
    return None if base is None or not _is_lonlat(base) or crs.is_vertical else _named(base.to_2d())


def _named(crs: pyproj.CRS) -> str:
    """The code of a CRS that has none with it, as the bases of projected CRSs in files do; or its WKT."""
    for authority in crs.list_authority(min_confidence=25):
        code = f"{authority.auth_name}:{authority.code}"
        if pyproj.CRS.from_user_input(code).equals(crs, ignore_axis_order=True):
            return code
    return crs_text(crs)


@lru_cache(maxsize=4096)
def on_wgs84(text: str) -> bool:
    """Whether a CRS has the datum WGS 84, so that transformations to CRS84 need no datum shift."""
    geodetic = _crs(text).geodetic_crs
    return geodetic is not None and geodetic.to_epsg() in (4326, 4979)


def same_crs(one: str, other: str) -> bool:
    """Whether coordinates need no transformation between two CRSs, ignoring axis order."""
    return one == other or {one, other} == {LONLAT, "EPSG:4326"} or _same_engineering(one, other)


@lru_cache(maxsize=4096)
def _same_engineering(one: str, other: str) -> bool:
    """Whether two texts mean the same engineering (local) CRS, which PROJ cannot transform even to itself.

    All their datums are "unknown", so their names have to be equal too.
    """
    a, b = horizontal_crs(one), horizontal_crs(other)
    return a.is_engineering and b.is_engineering and a.name == b.name and a.equals(b, ignore_axis_order=True)


@lru_cache(maxsize=4096)
def reaches(source: str, target: str) -> bool:
    """Whether PROJ can transform coordinates from one CRS to another.

    It cannot between celestial bodies, or between different CRSs if one is an engineering (local) CRS. Geocentric and
    vertical CRSs have no x and y on a map, so they only reach themselves.
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
    crs = horizontal_crs(text)
    return not crs.is_geocentric and not crs.is_vertical


@lru_cache(maxsize=4096)
def crs_label(text: str) -> str:
    """A CRS for errors: its code, or its name and the beginning of its WKT."""
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
    """Coordinates in another CRS, [n] each; infinite where PROJ cannot transform them."""
    if same_crs(source, target):
        return x, y
    transformer = _transformer(source, target)
    if _latitude_first(transformer.source_crs):
        x, y = y, x
    x, y = transformer.transform(x, y, errcheck=False)
    if _latitude_first(transformer.target_crs):
        x, y = y, x
    return np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)


def _latitude_first(crs: pyproj.CRS | None) -> bool:
    """Whether a transformer takes or gives latitude before longitude, though it was made with ``always_xy``.

    PROJ exchanges only axes to the north and east of geographic CRSs, so not planetocentric latitude, nor longitude to
    the west.
    """
    if crs is None or not _is_lonlat(crs):
        return False
    ways = [axis.direction for axis in crs.axis_info[:2]]
    return ways[0] in ("north", "south") and ways[1] in ("east", "west")
