"""The benchmarks' input: two collections of scene files, their record tables, and random points.

Everything is drawn from fixed seeds, so that two machines measure the same work. In both, three places lie in three
UTM zones and do not overlap.

- `S2` is like Sentinel-2: four dates and two files of one band each on a 20 m grid; uint16, deflate. A point inside
  a place has eight samples.
- `AEF` is like AlphaEarth's embeddings: two years, one file of 16 planar bands each, of which four are sampled; int8,
  zstd, the first row in the south. A point inside a place has eight samples too.
"""

import json
import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import datetime
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import rasterio
import shapely
from rasterio.transform import Affine

MARKER = "parameters.json"
POINT_ROW_GROUP = 131_072
COARSE = 96  # nodes of the smooth field on each side


@dataclass(frozen=True)
class Place:
    """A square on a UTM grid: its name, EPSG code, and upper left corner (easting and northing in metres)."""

    name: str
    epsg: int
    west: float
    north: float


@dataclass(frozen=True)
class Imagery:
    """What a collection's files are made of; a change of any of these makes a complete folder stale.

    Attributes
    ----------
    files : tuple of tuple of str
        The bands of each file of a record, in their order.
    bands : tuple of str
        Those that are sampled.
    size, tile : int
        Pixels on each side of a file and of a tile.
    pixel : float
        Metres on each side.
    creation : dict
        Creation options of GDAL's GTiff driver.
    low, high, noise : float
        Bounds of the smooth field's nodes, and the standard deviation of the white noise on it, in stored units.
    least, most : int
        Bounds of the stored values.
    """

    name: str
    seed: int
    places: tuple[Place, ...]
    dates: tuple[str, ...]
    files: tuple[tuple[str, ...], ...]
    bands: tuple[str, ...]
    size: int
    tile: int
    pixel: float
    dtype: str
    nodata: int
    south_up: bool
    low: float
    high: float
    noise: float
    least: int
    most: int
    creation: dict[str, object] = field(default_factory=dict)

    @property
    def side(self) -> float:
        """Metres on each side of a place."""
        return self.size * self.pixel

    def make(self, folder: Path, processes: int = 2) -> None:
        """Write the scene files into `folder`, unless its marker file says that they are there already."""
        marker = folder / MARKER
        wanted = json.dumps(asdict(self))
        if marker.exists() and marker.read_text() == wanted:
            return
        folder.mkdir(parents=True, exist_ok=True)
        marker.unlink(missing_ok=True)
        scenes = list(product(self.places, self.dates, self.files))
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=context) as pool:
            list(pool.map(partial(_write_scene, self, folder), range(len(scenes)), scenes))
        marker.write_text(wanted)

    def path(self, folder: Path, place: Place, date: str, bands: tuple[str, ...]) -> Path:
        """The file of some bands at one place and date."""
        return folder / (f"{place.name}_{date}_{bands[0]}.tif" if len(self.files) > 1 else f"{place.name}_{date}.tif")

    def transform(self, place: Place) -> Affine:
        """From pixels to metres."""
        down = self.pixel if self.south_up else -self.pixel
        return Affine(self.pixel, 0, place.west, 0, down, place.north - (self.side if self.south_up else 0))

    def record_table(self, folder: Path) -> pa.Table:
        """The scenes as a record table, one row per place and date.

        Columns: id, datetime (UTC, no time zone), geometry (WKB polygon in CRS84), assets (band -> href, 0-based
        band_index) and proj:epsg.
        """
        asset = pa.struct([("href", pa.string()), ("band_index", pa.int32())])
        every_band = [band for bands in self.files for band in bands]
        schema = pa.schema(
            [
                ("id", pa.string()),
                ("datetime", pa.timestamp("us")),
                ("geometry", pa.binary()),
                ("assets", pa.struct([(band, asset) for band in every_band])),
                ("proj:epsg", pa.int32()),
            ]
        )
        return pa.Table.from_pylist(list(self._records(folder.resolve())), schema=schema)

    def _records(self, folder: Path) -> Iterator[dict[str, object]]:
        for place in self.places:
            footprint = self._footprint(place)
            for date in self.dates:
                yield {
                    "id": f"{place.name}_{date}",
                    "datetime": datetime.strptime(date, "%Y%m%d"),
                    "geometry": footprint,
                    "assets": {
                        band: {"href": str(self.path(folder, place, date, bands)), "band_index": index}
                        for bands in self.files
                        for index, band in enumerate(bands)
                    },
                    "proj:epsg": place.epsg,
                }

    def _footprint(self, place: Place) -> bytes:
        """The square as a WKB polygon in CRS84, with a vertex about every kilometre, as straight edges bend."""
        square = shapely.box(place.west, place.north - self.side, place.west + self.side, place.north)
        to_lonlat = pyproj.Transformer.from_crs(place.epsg, "OGC:CRS84", always_xy=True)
        bent = shapely.transform(shapely.segmentize(square, 1000.0), to_lonlat.transform, interleaved=False)
        return shapely.to_wkb(bent)

    def write_points(self, path: Path, n: int, seed: int, inside: float = 0.971) -> None:
        """Write `n` random points to Parquet: plot_id (string), lon and lat (float64 degrees, EPSG:4326).

        The points are uniform, in metres, over squares around the places, larger than these by such a margin that
        the fraction `inside` of the points is expected in a place. Row groups hold 131,072 rows.
        """
        rng = np.random.default_rng(seed)
        margin = self.side * (inside**-0.5 - 1) / 2
        which = rng.integers(0, len(self.places), n)
        offset = rng.uniform(-margin, self.side + margin, (2, n))
        lon, lat = np.empty(n), np.empty(n)
        for number, place in enumerate(self.places):
            here = which == number
            to_lonlat = pyproj.Transformer.from_crs(place.epsg, 4326, always_xy=True)
            x, y = place.west + offset[0, here], place.north - offset[1, here]
            lon[here], lat[here] = to_lonlat.transform(x, y)
        plot_id = pa.array([f"plot_{number:08d}" for number in range(n)])
        table = pa.table({"plot_id": plot_id, "lon": lon, "lat": lat})
        pq.write_table(table, path, row_group_size=POINT_ROW_GROUP)

    def average_tile_bytes(self, folder: Path) -> float:
        """Mean bytes of a compressed tile over all scene files, from the file sizes (headers are a few kB)."""
        tiles = sum(len(bands) * len(self.places) * len(self.dates) for bands in self.files)
        tiles *= (-(-self.size // self.tile)) ** 2
        return sum(path.stat().st_size for path in folder.glob("*.tif")) / tiles


def _write_scene(imagery: Imagery, folder: Path, number: int, scene: tuple[Place, str, tuple[str, ...]]) -> None:
    place, date, bands = scene
    profile = {
        "driver": "GTiff",
        "dtype": imagery.dtype,
        "count": len(bands),
        "width": imagery.size,
        "height": imagery.size,
        "crs": f"EPSG:{place.epsg}",
        "transform": imagery.transform(place),
        "nodata": imagery.nodata,
        "tiled": True,
        "blockxsize": imagery.tile,
        "blockysize": imagery.tile,
        **imagery.creation,
    }
    rng = np.random.default_rng([imagery.seed, number])
    with rasterio.open(imagery.path(folder, place, date, bands), "w", **profile) as dataset:
        for index, _ in enumerate(bands, start=1):
            dataset.write(pixels(rng, imagery.size, imagery), index)


S2 = Imagery(
    name="s2",
    seed=20230105,
    places=(
        Place("P0", 32631, 399_960.0, 5_400_000.0),
        Place("P1", 32632, 399_960.0, 5_100_000.0),
        Place("P2", 32633, 399_960.0, 4_800_000.0),
    ),
    dates=("20230105", "20230409", "20230718", "20231021"),
    files=(("B02",), ("B03",)),
    bands=("B02", "B03"),
    size=5490,
    tile=512,
    pixel=20.0,
    dtype="uint16",
    nodata=0,
    south_up=False,
    low=300,
    high=3500,
    noise=16.0,
    least=1,
    most=10_000,
    creation={"compress": "deflate", "zlevel": 6, "predictor": 2},
)

AEF = Imagery(
    name="aef",
    seed=20180101,
    places=(
        Place("E0", 32631, 400_000.0, 5_400_000.0),
        Place("E1", 32632, 400_000.0, 5_100_000.0),
        Place("E2", 32633, 400_000.0, 4_800_000.0),
    ),
    dates=("20220101", "20230101"),
    files=(tuple(f"A{number:02d}" for number in range(16)),),
    bands=("A00", "A05", "A10", "A15"),
    size=4096,
    tile=1024,
    pixel=10.0,
    dtype="int8",
    nodata=-128,
    south_up=True,
    low=-60,
    high=60,
    noise=30.0,
    least=-127,
    most=127,
    creation={"compress": "zstd", "interleave": "band"},
)

COLLECTIONS = {imagery.name: imagery for imagery in (S2, AEF)}


def pixels(rng: np.random.Generator, size: int, imagery: Imagery = S2) -> np.ndarray:
    """A smooth field with white noise on it, (size, size), never nodata."""
    position = np.linspace(0, COARSE - 1, size, dtype=np.float32)
    weights = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(COARSE, dtype=np.float32)))
    nodes = rng.uniform(imagery.low, imagery.high, (COARSE, COARSE)).astype(np.float32)
    smooth = weights @ nodes @ weights.T
    smooth += imagery.noise * rng.standard_normal((size, size), dtype=np.float32)
    return np.clip(smooth, imagery.least, imagery.most).astype(imagery.dtype)
