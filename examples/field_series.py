"""Vegetation of three fields over a season: samples of a stack of Sentinel-2-like scenes, drawn as time series.

Run with ``python -m examples.field_series`` from the root of a checkout (``make pictures`` does).
"""

import argparse
import tempfile
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import rasterio
from rasterio.transform import Affine

import rasteret_beam
from rasteret_beam import plot

CRS = "EPSG:32631"
WEST, NORTH, PIXEL, SIZE = 600_000.0, 5_400_000.0, 10.0, 192
DATES = [date(2023, 3, 1) + timedelta(days=12 * number) for number in range(20)]
NODATA = 0
FIELDS = {"wheat": 0, "maize": 1, "meadow": 2}
"""Each is a third of the scene, from west to east."""


def ndvi(crop: str, day: int) -> float:
    """The curve that a crop follows; ``day`` counts from the first of March."""
    if crop == "wheat":
        return 0.2 + 0.65 * np.exp(-(((day - 75) / 38) ** 2))
    if crop == "maize":
        return 0.2 + 0.65 * np.exp(-(((day - 150) / 40) ** 2))
    return 0.75 - 0.3 * float(day % 75 < 20)  # mown every 75 days


def write_scenes(folder: Path) -> pa.Table:
    """Bands B04 and B08 of each date as uint16 COG-like files with clouds of nodata; gives the table of records."""
    rng = np.random.default_rng(2023)
    rows, cols = np.mgrid[:SIZE, :SIZE]
    field = np.minimum(cols * 3 // SIZE, 2)
    records = []
    for taken in DATES:
        day = (taken - DATES[0]).days
        green = np.array([ndvi(crop, day) for crop in FIELDS])[field] + rng.normal(0, 0.03, field.shape)
        infrared = 3000 + rng.normal(0, 150, field.shape)
        bands = {"B04": infrared * (1 - green) / (1 + green), "B08": infrared}
        row, col, radius = rng.uniform(0, SIZE), rng.uniform(0, SIZE), rng.uniform(30, 80)
        cloud = (rows - row) ** 2 + (cols - col) ** 2 < radius**2
        assets = {}
        for band, values in bands.items():
            path = folder / f"{taken:%Y%m%d}_{band}.tif"
            write_band(path, np.where(cloud, NODATA, np.clip(values, 1, 10_000)).astype(np.uint16))
            assets[band] = {"href": str(path), "band_index": 0}
        records.append({"id": f"{taken:%Y%m%d}", "datetime": taken, "assets": assets})
    return pa.Table.from_pylist(records)


def write_band(path: Path, values: np.ndarray) -> None:
    profile = {"driver": "GTiff", "width": SIZE, "height": SIZE, "count": 1, "dtype": "uint16", "crs": CRS}
    storage = {"tiled": True, "blockxsize": 64, "blockysize": 64, "compress": "deflate", "predictor": 2}
    transform = Affine(PIXEL, 0, WEST, 0, -PIXEL, NORTH)
    with rasterio.open(path, "w", **profile, **storage, nodata=NODATA, transform=transform) as dataset:
        dataset.write(values, 1)


def plots(number: int = 60) -> pa.Table:
    """Random points in each field, away from its edges."""
    rng = np.random.default_rng(7)
    width = SIZE * PIXEL / 3
    crops = np.repeat(list(FIELDS), number)
    left = WEST + np.repeat(list(FIELDS.values()), number) * width
    x = left + rng.uniform(0.1, 0.9, len(crops)) * width
    y = NORTH - rng.uniform(0.05, 0.95, len(crops)) * SIZE * PIXEL
    return pa.table({"crop": crops, "x": x, "y": y})


def series(folder: Path) -> pa.Table:
    """Samples of each plot and date with NDVI, which is null under clouds."""
    collection = rasteret_beam.build_from_table(write_scenes(folder), name="season")
    where = {"x_column": "x", "y_column": "y", "geometry_crs": CRS}
    samples = collection.sample_points(plots(), ["B04", "B08"], layout="columns", invalid="null", **where)
    red, infrared = samples["B04"], samples["B08"]
    return samples.append_column("NDVI", pc.divide(pc.subtract(infrared, red), pc.add(infrared, red)))


def draw(found: pa.Table, path: Path) -> None:
    """The mean of each crop, with a band of one standard deviation."""
    axes = plot.time_series(found, "crop", band="NDVI")
    axes.set(title="NDVI of 180 plots in three fields", ylim=(0, 1))
    axes.figure.savefig(path, dpi=90)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--picture", type=Path, default=Path(__file__).with_suffix(".png"))
    picture = flags.parse_args().picture
    with tempfile.TemporaryDirectory() as folder:
        found = series(Path(folder))
    draw(found, picture)
    print(f"{len(found) - found['NDVI'].null_count} of {len(found)} samples are clear: {picture}")


if __name__ == "__main__":
    main()
