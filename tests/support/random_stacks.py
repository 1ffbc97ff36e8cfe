"""Small random stacks for property tests: a few records on grids of two UTM zones that overlap, half under clouds.

Bands: ``A`` int16 of 10 m, ``B`` uint8 of 20 m, ``F`` float32 of 10 m with NaN, ``Q`` classes of 20 m (uint8, 0 to 5,
on a grid that may be smaller than that of ``A``), ``W`` words of bits of 10 m. Some records lack A, B or F; some lack Q
and W where the stack is not ``complete``. Several records have one datetime, and some none.
"""

from datetime import UTC, datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
import rasterio
from rasterio.transform import Affine

projector = cache(partial(pyproj.Transformer.from_crs, always_xy=True))

ZONES = ("EPSG:32631", "EPSG:32632")
EAST, NORTH = (float(round(value)) for value in projector("EPSG:4326", ZONES[0]).transform(6, 52))
BEGIN = datetime(2023, 6, 1, tzinfo=UTC)
SIDE = 400
"""Metres on each side of a record."""

BANDS = {"A": ("int16", 10), "B": ("uint8", 20), "F": ("float32", 10), "Q": ("uint8", 20), "W": ("uint16", 10)}
CORNERS = ((0, -200, 200), (0, -60, 140), (1, -160, 260))
"""Upper left corners of the places: number of the zone, metres from 6 degrees east, 52 north."""


def write_random_stack(folder: Path, seed: int, *, complete: bool, masks: bool = True) -> pa.Table:
    """Write the files of a stack, some with internal masks; its record table."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    numbers = range(int(rng.integers(5, 9)))
    return pa.Table.from_pylist([_record(folder, rng, number, complete, masks) for number in numbers])


def _record(folder: Path, rng: np.random.Generator, number: int, complete: bool, masks: bool) -> dict[str, Any]:
    corner = CORNERS[rng.integers(len(CORNERS))]
    lacks = {band for band in "ABF" if rng.random() < 0.2} | {
        band for band in "QW" if rng.random() < 0.25 * (not complete)
    }
    bands = [band for band in BANDS if band not in lacks] or ["A"]
    assets = {band: _write(folder / f"r{number}_{band}.tif", rng, band, corner, masks) for band in bands}
    hours, seconds = int(rng.integers(0, 6)) * 6, int(rng.choice([0, 0, 30, 61]))
    moment = None if rng.random() < 0.1 else BEGIN + timedelta(hours=hours, seconds=seconds)
    return {"id": f"r{number}", "datetime": moment, "assets": assets, "platform": f"p{number % 2}"}


def _write(
    path: Path, rng: np.random.Generator, band: str, corner: tuple[int, int, int], masks: bool
) -> dict[str, Any]:
    dtype, pixel = BANDS[band]
    zone, east, north = corner
    x, y = projector(ZONES[0], ZONES[zone]).transform(EAST, NORTH)
    left, top = round(x / 20) * 20 + east, round(y / 20) * 20 + north
    size = SIDE // pixel - (4 if band == "Q" and rng.random() < 0.5 else 0)
    values, nodata = _values(rng, band, (size, size))
    profile = {"driver": "GTiff", "count": 1, "width": size, "height": size, "dtype": dtype, "nodata": nodata}
    where = {"crs": ZONES[zone], "transform": Affine(pixel, 0, left, 0, -pixel, top)}
    storage = {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", **profile, **where, **storage) as dataset,
    ):
        dataset.write(values.astype(dtype), 1)
        if masks and band in "AQ" and rng.random() < 0.3:
            dataset.write_mask(rng.random((size, size)) < 0.7)
        if band in "AB" and rng.random() < 0.4:
            dataset.scales, dataset.offsets = (0.5,), (float(rng.integers(-3, 3)),)
    facts = {"scale": 0.1, "offset": float(rng.integers(-3, 3))} if band == "A" and rng.random() < 0.6 else {}
    return {"href": str(path), "band_index": 0, "raster:bands": [facts]}


def _values(rng: np.random.Generator, band: str, shape: tuple[int, int]) -> tuple[np.ndarray, float | None]:
    """Values in which a few pixels beside each other are alike, and the nodata value."""
    height, width = shape
    patches = (-(-height // 4), -(-width // 4))
    missing = (rng.random(patches) < 0.35).repeat(4, 0).repeat(4, 1)[:height, :width]
    if band == "Q":
        return np.where(missing & (rng.random(shape) < 0.3), 255, rng.integers(0, 6, shape)), 255
    if band == "W":
        return rng.integers(0, 1 << 12, patches).repeat(4, 0).repeat(4, 1)[:height, :width], None
    if band == "F":
        return np.where(missing, np.nan, rng.normal(0, 100, shape).round(2)), None
    values, nodata = rng.integers(1, 200, shape), -1 if band == "A" else 0
    return np.where(missing, nodata, values), nodata if rng.random() < 0.8 else None


def random_points(seed: int, count: int = 40) -> pa.Table:
    """Points in zone 31 over the places and a little beyond, with times; a few have no place or no time."""
    rng = np.random.default_rng(seed)
    x, y = EAST + rng.uniform(-220, 380, count), NORTH + rng.uniform(-280, 280, count)
    times = [BEGIN.replace(tzinfo=None) + timedelta(hours=float(hour)) for hour in rng.uniform(-8, 40, count)]
    return pa.table(
        {
            "plot": pa.array([f"plot-{number}" for number in range(count)]),
            "x": pa.array(x, mask=rng.random(count) < 0.04),
            "y": pa.array(y),
            "when": pa.array(times, pa.timestamp("us"), mask=rng.random(count) < 0.06),
        }
    )
