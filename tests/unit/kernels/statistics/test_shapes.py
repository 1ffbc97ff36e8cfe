"""Shapes of windows: how far they reach on a grid, and which grids have none."""

import math
from dataclasses import replace

import numpy as np
import pyproj
import pytest

from rasteret_beam.errors import InputError
from rasteret_beam.kernels.geo.ground import degrees, metres_of_length, within_geodesic
from rasteret_beam.kernels.sampling.parts import Spots
from rasteret_beam.kernels.statistics.shapes import Round, Square, check_grids, portions
from rasteret_beam.model import Grid

UTM = Grid("EPSG:32631", (10.0, 0.0, 0.0, 0.0, -10.0, 0.0), 1000, 1000, 256, 256)
GLOBAL = Grid("EPSG:4326", (0.25, 0.0, -180.0, 0.0, -0.25, 90.0), 1440, 720, 64, 64)
LOCAL = 'LOCAL_CS["site",UNIT["unknown",1]]'


def spots(grid: Grid, row: list[int], col: list[int]) -> Spots:
    middle = np.full(len(row), 0.5)
    return Spots(grid, np.array(row), np.array(col), middle, middle)


@pytest.mark.parametrize("crs", [LOCAL, "EPSG:4978", "EPSG:5773"])
def test_a_unit_that_is_not_known_is_refused(crs: str) -> None:
    grid = replace(UTM, crs=pyproj.CRS.from_user_input(crs).to_wkt())
    message = r"^CRS .* does not say how long its unit is in metres; use window_pixels in place of radius, or assign"
    with pytest.raises(InputError, match=message):
        check_grids(Round(10.0), [grid])
    check_grids(Round(10.0), [grid, UTM])
    check_grids(Square(2), [grid])
    with pytest.raises(InputError, match=message):
        Round(10.0).reach(spots(grid, [5], [5]))


@pytest.mark.parametrize(
    ("crs", "metres"), [("EPSG:32631", 1.0), ("EPSG:2263", 1200 / 3937), ("EPSG:4326", None), ("EPSG:4807", None)]
)
def test_metres_of_a_unit(crs: str, metres: float | None) -> None:
    assert metres_of_length(crs) == (None if metres is None else pytest.approx(metres, rel=1e-12))


def test_reach_in_the_plane() -> None:
    """A point on the edge of its pixel reaches half a pixel further than one in its middle."""
    down, across = Round(20.0).reach(spots(UTM, [5], [5]))
    assert (down, across.tolist()) == (2, [2])
    flat = replace(UTM, transform=(40.0, 0.0, 0.0, 0.0, -5.0, 0.0))
    down, across = Round(20.0).reach(spots(flat, [5], [5]))
    assert (down, across.tolist()) == (4, [1])


def test_reach_across_grows_towards_a_pole() -> None:
    """As the reciprocal of the cosine of the latitude, and half a turn on the pole."""
    rows = [360, 120, 20, 0]
    _, across = Round(100_000.0).reach(spots(GLOBAL, rows, [0] * 4))
    expected = [100_000 / (111_320 * 0.25 * math.cos(math.radians(90 - 0.25 * (row + 0.5)))) for row in rows[:2]]
    assert across.tolist()[:2] == [math.floor(0.5 + each * 1.02) for each in expected]
    assert across[3] == 720 and across[1] < across[2] < 720


def test_a_radius_that_is_too_large_near_a_pole_alone() -> None:
    fine = Grid("EPSG:4326", (1 / 120, 0.0, -180.0, 0.0, -1 / 120, 90.0), 43_200, 21_600, 512, 512)
    Round(1000.0).check(fine)
    message = r"^radius is 1000 m, which is 21,600 pixels on a grid of 43200 x 21600 .*EPSG:4326; the most are 4096"
    with pytest.raises(InputError, match=message):
        Round(1000.0).reach(spots(fine, [0], [0]))
    with pytest.raises(InputError, match=r"^radius is 1e\+06 m, which is 100,000 pixels on a grid .*EPSG:32631"):
        Round(1e6).check(UTM)


def test_portions_hold_each_point_once() -> None:
    rng = np.random.default_rng(0)
    where = spots(GLOBAL, rng.integers(0, 720, 500).tolist(), rng.integers(0, 1440, 500).tolist())
    shape = Round(60_000.0)
    cells = shape.reach(where).cells
    found = portions(shape, where, 4000)
    assert sorted(np.concatenate(found).tolist()) == list(range(500))
    assert all(len(each) == 1 or cells[each].max() * len(each) <= 4000 for each in found)
    assert 5 < len(found) < 100
    assert len(portions(Square(1), where, 4500)) == 1


@pytest.mark.parametrize("ellipsoid", ["+a=6378137 +b=6356752.3", "+a=6378137 +b=6378137", "+a=1000000 +b=900000"])
@pytest.mark.parametrize("metres", [30.0, 50_000.0, 800_000.0])
def test_geodesic_distances_decide(ellipsoid: str, metres: float) -> None:
    """Places about the very distance from points all over an ellipsoid."""
    crs = f"+proj=longlat {ellipsoid} +no_defs"
    geod = pyproj.CRS.from_user_input(crs).get_geod()
    assert geod is not None
    rng = np.random.default_rng(1)
    lon, lat = rng.uniform(-180, 180, 200), np.degrees(np.arcsin(rng.uniform(-1, 1, 200)))
    lons, lats = (np.broadcast_to(each, (20, 200)) for each in (lon, lat))
    other_lon, other_lat, _ = geod.fwd(
        lons, lats, rng.uniform(0, 360, (20, 200)), metres * rng.uniform(0.9, 1.1, (20, 200))
    )
    _, _, distance = geod.inv(lons, lats, other_lon, other_lat)
    assert (within_geodesic(crs, lon, lat, other_lon, other_lat, metres) == (distance <= metres)).all()


def test_degrees_of_other_units_and_turned_poles() -> None:
    lon, lat = degrees("EPSG:4807", np.array([100.0]), np.array([50.0]))  # grads
    assert (lon.tolist(), lat.tolist()) == (pytest.approx([90.0]), pytest.approx([45.0]))
    turned = pyproj.CRS.from_user_input(
        "+proj=ob_tran +o_proj=longlat +o_lon_p=0 +o_lat_p=39.25 +lon_0=18 +to_meter=0.0174532925199433 +ellps=WGS84"
    ).to_wkt()
    lon, lat = degrees(turned, np.array([0.0]), np.array([0.0]))
    assert (lon.tolist(), lat.tolist()) == (pytest.approx([18.0]), pytest.approx([50.75]))
