"""What interpolation gives, by looking at each pixel around a point; and rasters to interpolate."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import Affine


def kernel(distance: float, size: int) -> float:
    """Weight of a pixel by the distance of its centre along one axis, in pixels: linear, or Keys' cubic, a = -0.5."""
    x, a = abs(distance), -0.5
    if size == 2:
        return max(0.0, 1 - x)
    if x <= 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0


def needed(row: float, col: float, size: int) -> dict[tuple[int, int], float]:
    """The pixels that have a weight at a position in pixels, and their weights."""
    return {
        (r, c): weight
        for r in range(math.floor(row) - 3, math.floor(row) + 4)
        for c in range(math.floor(col) - 3, math.floor(col) + 4)
        if (weight := kernel(row - r - 0.5, size) * kernel(col - c - 0.5, size))
    }


def reference(values: np.ndarray, valid: np.ndarray, row: float, col: float, size: int, skip: bool) -> float:
    """The value at a position in pixels, by looking at each pixel of the raster that may have a weight; or NaN."""
    total = weight = 0.0
    complete = True
    for (r, c), w in needed(row, col, size).items():
        if 0 <= r < values.shape[0] and 0 <= c < values.shape[1] and valid[r, c]:
            total, weight = total + w * float(values[r, c]), weight + w
        else:
            complete = False
    if complete:
        return total
    return total / weight if skip and abs(weight) > 1e-9 else math.nan


def write(path: Path, values: np.ndarray, transform: Affine, crs: str = "EPSG:32631", **profile: Any) -> Path:
    height, width = values.shape
    tiled = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    size = {"driver": "GTiff", "width": width, "height": height, "count": 1, "dtype": values.dtype.name}
    with rasterio.open(path, "w", crs=crs, transform=transform, **size, **tiled, **profile) as dataset:
        dataset.write(values, 1)
    return path
