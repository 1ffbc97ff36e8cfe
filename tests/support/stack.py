"""A made-up stack of scenes like Sentinel-2's surface reflectance: three tiles in two UTM zones, twelve dates, clouds.

    python -m tests.support.stack --folder demo/stack

writes the rasters, ``records.parquet`` (a record for each tile and date, with assets as STAC has them),
``plots.parquet`` (500 plots, each with the day of its survey) and ``fields.parquet`` (the fields that lie on the
tiles). Reflectance is a function of place and day, which :func:`reflectance` gives, so what is read can be checked
against it.

Two tiles are neighbours in zone 31 and overlap as MGRS tiles do, the third lies beside them in zone 32. B04 and B08
have pixels of 10 m, B11 and the scene classification SCL of 20 m. Clouds are blobs that drift, some dates end at the
edge of the swath, and from the seventh date on 1000 is added to the stored numbers, as Sentinel-2 has done since 2022.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import rasterio
import shapely
from rasterio.transform import Affine

ZONE = "EPSG:32631"
"""The CRS in which fields, clouds and swaths lie."""

SIZE, BLOCK = 288, 64
"""Pixels of 10 m on each side of a scene, and of a tile of its files."""

SIDE = SIZE * 10.0
BANDS = {"B04": 10, "B08": 10, "B11": 20, "SCL": 20}
"""Metres of a pixel."""

DATES = [datetime(2022, 5, 3, 10, 50, 31) + timedelta(days=5 * number) for number in range(12)]
CHANGE = 6
"""Number of the first date of the later processing baseline."""

SCALE, OFFSET = 0.0001, -0.1
NODATA, SHADOW, PLANTS, SOIL, CLOUD_EDGE, CLOUD, CIRRUS = 0, 3, 4, 5, 8, 9, 10
"""Classes of SCL."""

Floats = np.ndarray[Any, np.dtype[np.float64]]
projector = cache(partial(pyproj.Transformer.from_crs, always_xy=True))


@dataclass(frozen=True)
class Place:
    """A tile of the stack: name, CRS, upper left corner in metres, and seconds after the first one is taken."""

    name: str
    crs: str
    west: float
    north: float
    delay: int


WEST, NORTH = (round(value / 20) * 20.0 for value in projector("EPSG:4326", ZONE).transform(5.96, 52.0))
EAST_32, NORTH_32 = (
    round(value / 20) * 20.0 for value in projector(ZONE, "EPSG:32632").transform(WEST + 4_900, NORTH + 60)
)
PLACES = (
    Place("31UGT", ZONE, WEST, NORTH, 0),
    Place("31UHT", ZONE, WEST + SIDE - 480, NORTH, 4),
    Place("32ULC", "EPSG:32632", EAST_32, NORTH_32, 11),
)


LONG, WIDE = 260, 170
"""Metres of a field."""

TURN = np.array([[0.97, 0.24], [-0.24, 0.97]])
"""From metres east and north to metres along and across fields."""

MARGIN = 15.0
"""Metres that outlines of fields stay away from their edges: no pixel of 10 m lies on two fields."""


def parcel_of(x: Floats, y: Floats) -> tuple[np.ndarray, np.ndarray]:
    """The field at a place, as two whole numbers: fields are 260 m x 170 m, and turned a little."""
    along, across = (TURN[row, 0] * (x - WEST) + TURN[row, 1] * (y - NORTH) for row in range(2))
    return np.floor(along / LONG).astype(int), np.floor(across / WIDE).astype(int)


def ndvi(x: Floats, y: Floats, when: datetime) -> Floats:
    """That of the field at a place: each is sown on another day, and grows for two months."""
    column, row = parcel_of(x, y)
    lot = (column * 7919 + row * 104_729) % 97 / 97
    days = (when.replace(hour=0, minute=0, second=0) - DATES[0].replace(hour=0, minute=0, second=0)).days
    return 0.18 + 0.66 * np.exp(-(((days - 60 * lot) / 24) ** 2))


def reflectance(band: str, x: Floats, y: Floats, when: datetime) -> Floats:
    """Of the ground, between 0 and 1, at places in zone 31."""
    green = ndvi(x, y, when)
    infrared = 0.24 + 0.16 * green
    if band == "B11":
        return 0.34 - 0.2 * green
    return infrared if band == "B08" else infrared * (1 - green) / (1 + green)


def classes(number: int, x: Floats, y: Floats) -> np.ndarray:
    """SCL at places in zone 31: plants or soil, clouds and their shadows, and nodata beyond the edge of the swath."""
    found = np.where(ndvi(x, y, DATES[number]) > 0.4, PLANTS, SOIL).astype(np.uint8)
    clouds = _clouds(number)
    for east, north, radius, thick in clouds:
        if thick:
            found[_distance(x - 260, y + 200, east, north) < radius] = SHADOW
    for east, north, radius, thick in clouds:
        distance = _distance(x, y, east, north)
        found[distance < radius] = CLOUD_EDGE if thick else CIRRUS
        found[(distance < 0.8 * radius) & thick] = CLOUD
    if number % 4 == 2:  # the satellite passes on the orbit beside
        found[(x - WEST) + 0.2 * (y - NORTH) < 1_200] = NODATA
    return found


def _distance(x: Floats, y: Floats, east: float, north: float) -> Floats:
    """From the middle of a cloud, which is longer than it is wide."""
    return np.hypot((x - east) / 1.5, y - north)


@cache
def _clouds(number: int) -> list[tuple[float, float, float, bool]]:
    """Clouds of a date: middle, radius and whether they are thick. They drift to the east from date to date."""
    rng = np.random.default_rng(2022)
    count = 5 + number * 5 % 12
    east, north = rng.uniform(-1_000, 9_000, 40), rng.uniform(-SIDE - 400, 400, 40)
    radius = rng.uniform(180, 620, 40)
    moved = (east + 1_000 + 830 * number) % 10_000 - 1_000
    return [(WEST + moved[n], NORTH + north[n], radius[n], n % 5 != 0) for n in range(count)]


def write_stack(folder: Path) -> pa.Table:
    """Write the rasters of the stack, and give its record table."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_write_scene(folder, place, number) for number in range(len(DATES)) for place in PLACES]
    return pa.Table.from_pylist(rows)


def _write_scene(folder: Path, place: Place, number: int) -> dict[str, Any]:
    x, y = pixel_centres(place, 20)
    scl = classes(number, x, y)
    offset = OFFSET if number >= CHANGE else 0.0
    platform = f"sentinel-2{'ab'[number % 2]}"
    taken = DATES[number] + timedelta(seconds=place.delay)
    name = f"{platform[-2:].upper()}_{place.name}_{taken:%Y%m%d}"
    assets = {}
    for band, pixel in BANDS.items():
        path = folder / f"{name}_{band}.tif"
        _write(path, scl if band == "SCL" else _numbers(band, place, number, scl, offset), place, pixel)
        facts = {} if band == "SCL" else {"scale": SCALE, "offset": offset}
        assets[band] = {"href": str(path.resolve()), "band_index": 0, "raster:bands": [{"nodata": 0} | facts]}
    return {
        "id": name,
        "datetime": taken.replace(tzinfo=UTC),
        "geometry": _footprint(place),
        "assets": assets,
        "eo:cloud_cover": round(100 * float(np.isin(scl, (CLOUD_EDGE, CLOUD, CIRRUS)).mean()), 2),
        "platform": platform,
        "s2:processing_baseline": "04.00" if number >= CHANGE else "03.01",
    }


def pixel_centres(place: Place, pixel: float) -> tuple[Floats, Floats]:
    """Those of a scene, in zone 31."""
    steps = (np.arange(SIDE / pixel) + 0.5) * pixel
    x, y = np.meshgrid(place.west + steps, place.north - steps)
    return (x, y) if place.crs == ZONE else projector(place.crs, ZONE).transform(x, y)


def _numbers(band: str, place: Place, number: int, scl: np.ndarray, offset: float) -> np.ndarray:
    """Stored numbers of a scene: bright under clouds, dark in shadows, 0 outside the swath."""
    pixel = BANDS[band]
    ground = reflectance(band, *pixel_centres(place, pixel), DATES[number])
    of_pixel = scl.repeat(20 // pixel, 0).repeat(20 // pixel, 1)
    light = {SHADOW: (0.3, 0.0), CLOUD_EDGE: (0.6, 0.3), CLOUD: (0.2, 0.65), CIRRUS: (0.9, 0.06)}
    for value, (factor, added) in light.items():
        ground = np.where(of_pixel == value, ground * factor + added, ground)
    stored = np.rint((ground - offset) / SCALE).astype(np.uint16)
    return np.where(of_pixel == NODATA, 0, stored).astype(np.uint16)


def _write(path: Path, values: np.ndarray, place: Place, pixel: int) -> None:
    storage = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "predictor": 2}
    height, width = values.shape
    profile = {"driver": "GTiff", "width": width, "height": height, "count": 1, "dtype": values.dtype}
    where = {"crs": place.crs, "transform": Affine(pixel, 0, place.west, 0, -pixel, place.north), "nodata": NODATA}
    with rasterio.open(path, "w", **profile, **storage, **where) as dataset:
        dataset.write(values, 1)


def _footprint(place: Place) -> bytes:
    square = shapely.box(place.west, place.north - SIDE, place.west + SIDE, place.north)
    lonlat = projector(place.crs, "OGC:CRS84").transform
    return shapely.to_wkb(shapely.transform(shapely.segmentize(square, 200), lonlat, interleaved=False))


def plots(count: int = 500, seed: int = 5) -> pa.Table:
    """Random plots over the stack and a little beyond, each with the day of its survey; one in 50 has no day."""
    rng = np.random.default_rng(seed)
    x = WEST + rng.uniform(-100, 2 * (SIDE - 480) + SIDE + 100, count)
    y = NORTH - rng.uniform(-60, SIDE - 40, count)
    lon, lat = projector(ZONE, "EPSG:4326").transform(x, y)
    days = np.datetime64(DATES[0].date()) + rng.integers(-13, 70, count)
    return pa.table(
        {
            "plot": [f"plot-{number:03d}" for number in range(count)],
            "lon": lon,
            "lat": lat,
            "surveyed": pa.array(days, mask=np.arange(count) % 50 == 49),
        }
    )


def fields() -> pa.Table:
    """The fields that lie on the tiles as a whole, by their names; longitude and latitude."""
    tiles = [shapely.box(place.west, place.north - SIDE, place.west + SIDE, place.north) for place in PLACES]
    lands = [
        shapely.transform(shapely.segmentize(tile, 100), projector(place.crs, ZONE).transform, interleaved=False)
        for tile, place in zip(tiles, PLACES, strict=True)
    ]
    column, row = (each.ravel() for each in np.meshgrid(np.arange(-4, 34), np.arange(-32, 4)))
    corners = np.stack([column * LONG, row * WIDE], axis=1)[:, None] + MARGIN
    sides = np.array([[0, 0], [LONG, 0], [LONG, WIDE], [0, WIDE]]) - 2 * MARGIN * np.array(
        [[0, 0], [1, 0], [1, 1], [0, 1]]
    )
    places = (corners + sides) @ np.linalg.inv(TURN).T + (WEST, NORTH)
    shapes = shapely.polygons(places)
    whole = shapely.covers(shapely.union_all(lands), shapes)
    lonlat = shapely.transform(shapes[whole], projector(ZONE, "EPSG:4326").transform, interleaved=False)
    names = [f"{east}/{north}" for east, north in zip(column[whole], row[whole], strict=True)]
    return pa.table({"field": names, "geometry": shapely.to_wkb(lonlat)})


def main(argv: Sequence[str] | None = None) -> int:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--folder", type=Path, default=Path("demo/stack"))
    folder = flags.parse_args(argv).folder
    records = write_stack(folder)
    pq.write_table(records, folder / "records.parquet")
    pq.write_table(plots(), folder / "plots.parquet")
    pq.write_table(fields(), folder / "fields.parquet")
    print(f"{folder}: {records.num_rows} scenes of {len(PLACES)} tiles, 500 plots, {len(fields())} fields")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
