"""Distances on the ground: in a plane for coordinates that are lengths, on the ellipsoid for longitude and latitude."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyproj
from numpy.typing import NDArray

from rasteret_beam.errors import InputError
from rasteret_beam.kernels.geo.crs import Floats, crs_label, crs_text, full_turn, horizontal_crs, transform

SLACK = 1e-6
"""Metres by which computed distances may differ: a pixel centre at the very radius is within it."""


class Ellipsoid(NamedTuple):
    """Semi-axes in metres."""

    major: float
    minor: float

    @property
    def least_curvature_radius(self) -> float:
        """The smallest radius of curvature, of any direction and place: along a meridian, on the equator."""
        return self.minor**2 / self.major


@lru_cache(maxsize=4096)
def metres_of_length(crs: str) -> float | None:
    """Metres of a unit of a CRS whose coordinates are lengths; None for longitude and latitude.

    Raises
    ------
    InputError
        The CRS has neither.
    """
    horizontal = horizontal_crs(crs)
    if full_turn(crs) is not None:
        return None
    axes = horizontal.axis_info
    if horizontal.is_geocentric or horizontal.is_vertical or not axes or axes[0].unit_name == "unknown":
        raise InputError(
            f"CRS {crs_label(crs)} does not say how long its unit is in metres; use window_pixels in place of radius, "
            "or assign the CRS of the coordinates (rio edit-info --crs ...)"
        )
    return float(axes[0].unit_conversion_factor)


@lru_cache(maxsize=4096)
def ellipsoid_of(crs: str) -> Ellipsoid:
    """The ellipsoid of a geographic CRS."""
    geod = _geod(crs)
    return Ellipsoid(geod.a, geod.b)


@lru_cache(maxsize=4096)
def _geod(crs: str) -> pyproj.Geod:
    geod = horizontal_crs(crs).get_geod()
    assert geod is not None
    return geod


def degrees(crs: str, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Longitude and latitude in degrees of coordinates, of any shape, in a geographic CRS; of its base, if derived."""
    horizontal = horizontal_crs(crs)
    if horizontal.is_derived and horizontal.source_crs is not None:
        base = crs_text(horizontal.source_crs)
        lon, lat = transform(crs, base, x.ravel(), y.ravel())
        return degrees(base, lon.reshape(x.shape), lat.reshape(y.shape))
    turn = full_turn(crs)
    assert turn is not None
    return (x, y) if turn == 360.0 else (x * (360.0 / turn), y * (360.0 / turn))


def within_geodesic(
    crs: str, x: Floats, y: Floats, other_x: Floats, other_y: Floats, metres: float
) -> NDArray[np.bool_]:
    """Which places [k, m] lie within a distance of m points, along the ellipsoid of a geographic CRS.

    A geodesic is not shorter than the chord, and not longer than the arc over this chord of a circle with the smallest
    radius of curvature (Schur's comparison theorem). PROJ decides where these two do not.

    Parameters
    ----------
    x, y : [m] float64
        The points, in the CRS.
    other_x, other_y : [k, m] float64
    metres : float
    """
    lon, lat = degrees(crs, x, y)
    other_lon, other_lat = degrees(crs, other_x, other_y)
    ellipsoid = ellipsoid_of(crs)
    chord = _chords(ellipsoid, (lon, lat), (other_lon, other_lat))
    diameter = 2 * ellipsoid.least_curvature_radius
    arc = diameter * np.arcsin(np.minimum(chord / diameter, 1.0))
    on_earth = np.abs(other_lat) <= 90  # a grid of pixel centres may extend beyond the pole
    inside = on_earth & (arc <= metres)
    open_ = on_earth & ~inside & (chord <= metres + SLACK)
    point = np.nonzero(open_)[1]
    _, _, distance = _geod(crs).inv(lon[point], lat[point], other_lon[open_], other_lat[open_])
    inside[open_] = np.asarray(distance) <= metres + SLACK
    return inside


def _chords(ellipsoid: Ellipsoid, one: tuple[Floats, Floats], other: tuple[Floats, Floats]) -> Floats:
    """Straight distances, in metres, between places given by longitude and latitude."""
    squares = [(a - b) ** 2 for a, b in zip(_geocentric(ellipsoid, *one), _geocentric(ellipsoid, *other), strict=True)]
    return np.sqrt(squares[0] + squares[1] + squares[2])


def _geocentric(ellipsoid: Ellipsoid, lon: Floats, lat: Floats) -> tuple[Floats, Floats, Floats]:
    """Geocentric coordinates, in metres, of places on the ellipsoid."""
    flat = (ellipsoid.minor / ellipsoid.major) ** 2
    phi, turned = np.radians(lat), np.radians(lon)
    sine = np.sin(phi)
    normal = ellipsoid.major / np.sqrt(1 - (1 - flat) * sine * sine)
    outward = normal * np.cos(phi)
    return outward * np.cos(turned), outward * np.sin(turned), normal * flat * sine
