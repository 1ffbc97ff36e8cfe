"""Rasters to make zonal statistics of."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import Affine

CORNER = (500_000.0, 5_000_000.0)
PIXEL = 10.0


def write(path: Path, values: np.ndarray, left: float, top: float, **profile: Any) -> str:
    high, wide = values.shape
    settings = {"driver": "GTiff", "width": wide, "height": high, "count": 1, "dtype": values.dtype, "nodata": 0}
    settings |= {"crs": "EPSG:32631", "transform": Affine(PIXEL, 0, left, 0, -PIXEL, top)}
    settings |= {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"} | profile
    with rasterio.open(path, "w", **settings) as dataset:
        dataset.write(values, 1)
    return str(path)


def numbers(size: tuple[int, int], seed: int = 3, most: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, most, size).astype(np.uint16)
