"""The benchmark's input: 24 Sentinel-2-like scene files, their record table, and random points.

Everything is drawn from fixed seeds, so that two machines measure the same work. Three places lie in three
UTM zones and do not overlap; each has four dates and two bands on one 20 m grid, so a point inside a place
has eight samples.
"""

import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import rasterio
import shapely
from rasterio.transform import from_origin

BANDS = ("B02", "B03")
DATES = ("20230105", "20230409", "20230718", "20231021")
MARKER = "parameters.json"
POINT_ROW_GROUP = 131_072


@dataclass(frozen=True)
class Place:
    """A square on a UTM grid: its name, EPSG code, and upper left corner (easting and northing in metres)."""

    name: str
    epsg: int
    west: float
    north: float


PLACES = (
    Place("P0", 32631, 399_960.0, 5_400_000.0),
    Place("P1", 32632, 399_960.0, 5_100_000.0),
    Place("P2", 32633, 399_960.0, 4_800_000.0),
)


@dataclass(frozen=True)
class Parameters:
    """What the scene files are made of; a change of any of these makes a complete folder stale."""

    seed: int = 20230105
    size: int = 5490  # pixels on each side
    pixel: float = 20.0  # metres
    tile: int = 512  # pixels on each side
    zlevel: int = 6
    coarse: int = 96  # nodes of the smooth field on each side
    noise: float = 16.0  # standard deviation of the white noise, in stored units


PARAMETERS = Parameters()


def make_collection(folder: Path, processes: int = 2) -> None:
    """Write the scene files into `folder`, unless its marker file says that they are there already."""
    marker = folder / MARKER
    places = [asdict(place) for place in PLACES]
    wanted = json.dumps({"scenes": asdict(PARAMETERS), "places": places, "dates": DATES, "bands": BANDS})
    if marker.exists() and marker.read_text() == wanted:
        return
    folder.mkdir(parents=True, exist_ok=True)
    marker.unlink(missing_ok=True)
    scenes = [(place, date, band) for place in PLACES for date in DATES for band in BANDS]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        list(pool.map(partial(_write_scene, folder), range(len(scenes)), scenes))
    marker.write_text(wanted)


def scene_path(folder: Path, place: Place, date: str, band: str) -> Path:
    """The file of one band at one place and date."""
    return folder / f"{place.name}_{date}_{band}.tif"


def _write_scene(folder: Path, number: int, scene: tuple[Place, str, str]) -> None:
    place, date, band = scene
    profile = {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": 1,
        "width": PARAMETERS.size,
        "height": PARAMETERS.size,
        "crs": f"EPSG:{place.epsg}",
        "transform": from_origin(place.west, place.north, PARAMETERS.pixel, PARAMETERS.pixel),
        "nodata": 0,
        "tiled": True,
        "blockxsize": PARAMETERS.tile,
        "blockysize": PARAMETERS.tile,
        "compress": "deflate",
        "zlevel": PARAMETERS.zlevel,
        "predictor": 2,
    }
    rng = np.random.default_rng([PARAMETERS.seed, number])
    with rasterio.open(scene_path(folder, place, date, band), "w", **profile) as dataset:
        dataset.write(pixels(rng, PARAMETERS.size), 1)


def pixels(rng: np.random.Generator, size: int) -> np.ndarray:
    """A smooth field with white noise on it: uint16, (size, size), never 0."""
    coarse = PARAMETERS.coarse
    position = np.linspace(0, coarse - 1, size, dtype=np.float32)
    weights = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(coarse, dtype=np.float32)))
    nodes = rng.uniform(300, 3500, (coarse, coarse)).astype(np.float32)
    field = weights @ nodes @ weights.T
    field += PARAMETERS.noise * rng.standard_normal((size, size), dtype=np.float32)
    return np.clip(field, 1, 10_000).astype(np.uint16)


def average_tile_bytes(folder: Path) -> float:
    """Mean bytes of a compressed tile over all scene files, from the file sizes (headers are a few kB)."""
    tiles_per_side = -(-PARAMETERS.size // PARAMETERS.tile)
    sizes = [path.stat().st_size for path in folder.glob("*.tif")]
    return sum(sizes) / (len(sizes) * tiles_per_side**2)


def record_table(folder: Path) -> pa.Table:
    """The scenes as a record table, one row per place and date.

    Columns: id, datetime (UTC, no time zone), geometry (WKB polygon in CRS84), assets (band -> href, 0-based
    band_index) and proj:epsg.
    """
    asset = pa.struct([("href", pa.string()), ("band_index", pa.int32())])
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("datetime", pa.timestamp("us")),
            ("geometry", pa.binary()),
            ("assets", pa.struct([(band, asset) for band in BANDS])),
            ("proj:epsg", pa.int32()),
        ]
    )
    return pa.Table.from_pylist(list(_records(folder.resolve())), schema=schema)


def _records(folder: Path) -> Iterator[dict[str, object]]:
    for place in PLACES:
        footprint = _footprint(place)
        for date in DATES:
            hrefs = {band: str(scene_path(folder, place, date, band)) for band in BANDS}
            yield {
                "id": f"{place.name}_{date}",
                "datetime": datetime.strptime(date, "%Y%m%d"),
                "geometry": footprint,
                "assets": {band: {"href": href, "band_index": 0} for band, href in hrefs.items()},
                "proj:epsg": place.epsg,
            }


def _footprint(place: Place) -> bytes:
    """The square as a WKB polygon in CRS84, with a vertex about every kilometre, as straight edges bend."""
    side = PARAMETERS.size * PARAMETERS.pixel
    square = shapely.segmentize(shapely.box(place.west, place.north - side, place.west + side, place.north), 1000.0)
    to_lonlat = pyproj.Transformer.from_crs(place.epsg, "OGC:CRS84", always_xy=True)
    return shapely.to_wkb(shapely.transform(square, to_lonlat.transform, interleaved=False))


def write_points(path: Path, n: int, seed: int, inside: float = 0.971) -> None:
    """Write `n` random points to Parquet: plot_id (string), lon and lat (float64 degrees, EPSG:4326).

    The points are uniform, in metres, over squares around the places, larger than these by such a margin that
    the fraction `inside` of the points is expected in a place. Row groups hold 131,072 rows.
    """
    rng = np.random.default_rng(seed)
    side = PARAMETERS.size * PARAMETERS.pixel
    margin = side * (inside**-0.5 - 1) / 2
    which = rng.integers(0, len(PLACES), n)
    offset = rng.uniform(-margin, side + margin, (2, n))
    lon, lat = np.empty(n), np.empty(n)
    for number, place in enumerate(PLACES):
        here = which == number
        to_lonlat = pyproj.Transformer.from_crs(place.epsg, 4326, always_xy=True)
        x, y = place.west + offset[0, here], place.north - offset[1, here]
        lon[here], lat[here] = to_lonlat.transform(x, y)
    plot_id = pa.array([f"plot_{number:08d}" for number in range(n)])
    table = pa.table({"plot_id": plot_id, "lon": lon, "lat": lat})
    pq.write_table(table, path, row_group_size=POINT_ROW_GROUP)
