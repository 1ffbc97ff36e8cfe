"""A made-up elevation model: four tiles of one degree, as those of Copernicus DEM lie, and surveyed stations.

    python -m tests.support.relief --folder demo/dem

writes the tiles and ``stations.parquet`` (1,000 stations with their surveyed heights). The ground is a function of
longitude and latitude, :func:`height`, so what is sampled can be checked against it.

Pixels are 12 arc seconds wide, and their centres lie on whole multiples of that: the first column of a tile on a whole
degree, and the last one a pixel before the next degree. So a seam is half a pixel west, or north, of a degree.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
from rasterio.transform import Affine

SIZE = 300
"""Pixels of a degree."""

WEST, NORTH = 6, 47
"""Of the four tiles."""

VOID = -32767.0
STATIONS = 1000


def height(lon: Any, lat: Any) -> np.ndarray:
    """Metres of the ground: valleys, ridges and hills."""
    east, north = (np.asarray(lon) - WEST) * 77.0, (np.asarray(lat) - NORTH + 2) * 111.0  # km
    bent = east + 9 * np.sin(north / 19) + 4 * np.sin(north / 7 + east / 31)
    ridges = 700 * np.abs(np.sin(bent / 17)) + 300 * np.abs(np.sin((bent + 1.3 * north) / 11))
    hills = 50 * np.sin(east * 0.9 + np.sin(north / 3)) * np.cos(north * 0.7) + 12 * np.sin((east - north) * 2.3)
    return 600 + ridges + hills


def tile_name(west: int, south: int) -> str:
    return f"N{south:02d}_E{west:03d}"


def write_tiles(folder: Path) -> list[Path]:
    """One GeoTIFF for each tile, named by its south-west corner; a lake in the north-west is void."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for west in (WEST, WEST + 1):
        for south in (NORTH - 1, NORTH - 2):
            row, col = np.mgrid[0:SIZE, 0:SIZE]
            lon, lat = west + col / SIZE, south + 1 - row / SIZE
            values = height(lon, lat).astype(np.float32)
            values[np.hypot((lon - 6.4) * 77, (lat - 46.55) * 111) < 9] = VOID
            corner = Affine(1 / SIZE, 0, west - 0.5 / SIZE, 0, -1 / SIZE, south + 1 + 0.5 / SIZE)
            profile = {"crs": "EPSG:4326", "transform": corner, "nodata": VOID, "compress": "deflate", "predictor": 3}
            size = {"width": SIZE, "height": SIZE, "tiled": True, "blockxsize": 128, "blockysize": 128}
            path = folder / f"{tile_name(west, south)}.tif"
            with rasterio.open(path, "w", driver="GTiff", dtype="float32", count=1, **size, **profile) as dataset:
                dataset.write(values, 1)
            paths.append(path)
    return sorted(paths)


def stations() -> pa.Table:
    """Stations anywhere, a third of them along a road that follows the seam of the tiles, with surveyed heights."""
    rng = np.random.default_rng(16)
    lon, lat = rng.uniform(6.02, 7.98, STATIONS), rng.uniform(45.02, 46.98, STATIONS)
    road = slice(0, STATIONS // 3)
    lon[road] = 7 + rng.normal(-0.5, 0.6, STATIONS // 3) / SIZE
    surveyed = height(lon, lat) + rng.normal(0, 0.3, STATIONS)
    numbers = pa.array([f"s{number:03d}" for number in range(STATIONS)])
    return pa.table({"station": numbers, "lon": lon, "lat": lat, "surveyed": surveyed.round(2)})


def main(argv: Sequence[str] | None = None) -> int:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--folder", type=Path, default=Path("demo/dem"))
    folder = flags.parse_args(argv).folder
    tiles = write_tiles(folder)
    pq.write_table(stations(), folder / "stations.parquet")
    print(f"{folder}: {len(tiles)} tiles, {STATIONS} stations")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
