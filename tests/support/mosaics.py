"""Mosaics: one raster cut into the files of several records, and what is between the pixels of the raster."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import rasterio
from rasterio.transform import Affine

from rasteret_beam import Collection, build_from_cogs

TEN_METRES = Affine(10, 0, 500_000, 0, -10, 4_500_000)
SIZES = {"bilinear": 2, "cubic": 4}


class Piece(NamedTuple):
    """A part of a raster that is a record: where its first pixel lies, and how many there are."""

    row: int
    col: int
    height: int
    width: int


def pieces(rows: Sequence[int], cols: Sequence[int]) -> list[Piece]:
    """Those between cuts; the first and last of the cuts are the edges of the raster."""
    return [
        Piece(top, left, bottom - top, right - left) for top, bottom in pairwise(rows) for left, right in pairwise(cols)
    ]


def write_piece(
    path: Path, values: np.ndarray, transform: Affine, masked: np.ndarray | None = None, **profile: Any
) -> Path:
    """A GeoTIFF of one band [height, width] or several [bands, height, width], with an internal mask where given."""
    values = values if values.ndim == 3 else values[None]
    count, height, width = values.shape
    settings = {"crs": "EPSG:32631", "tiled": True, "blockxsize": 16, "blockysize": 16, **profile}
    size = {"driver": "GTiff", "width": width, "height": height, "count": count, "dtype": values.dtype.name}
    tags = {name: settings.pop(name) for name in ("scales", "offsets") if name in settings}
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(path, "w", transform=transform, **size, **settings) as dataset,
    ):
        dataset.write(values)
        if masked is not None:
            dataset.write_mask(np.where(masked, 0, 255).astype(np.uint8))
        for name, numbers in tags.items():
            setattr(dataset, name, numbers)
    return path


def cut(
    folder: Path,
    values: np.ndarray,
    parts: Sequence[Piece],
    transform: Affine = TEN_METRES,
    settings: Mapping[int, Mapping[str, Any]] | None = None,
    **of_build: Any,
) -> Collection:
    """A collection of the pieces of a raster; ``settings`` are those of single files, by number."""
    hrefs = []
    for number, part in enumerate(parts):
        of_part = values[..., part.row : part.row + part.height, part.col : part.col + part.width]
        at = transform * Affine.translation(part.col, part.row)
        hrefs.append(write_piece(folder / f"p{number:02d}.tif", of_part, at, **(settings or {}).get(number, {})))
    return build_from_cogs(hrefs, **of_build)


def points_at(row: np.ndarray, col: np.ndarray, transform: Affine = TEN_METRES) -> pa.Table:
    """A table of points at positions in pixels of the whole raster."""
    x, y = transform * (np.asarray(col, float), np.asarray(row, float))
    return pa.table({"x": x, "y": y})


def kernel(distance: np.ndarray, size: int) -> np.ndarray:
    """Weight of a pixel by the distance of its centre along one axis, in pixels: linear, or Keys' cubic, a = -0.5."""
    x = np.abs(distance)
    if size == 2:
        return np.maximum(0.0, 1 - x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def interpolated(
    values: np.ndarray, valid: np.ndarray, row: np.ndarray, col: np.ndarray, resampling: str, skip: bool
) -> np.ndarray:
    """Values [n] of a raster at positions in pixels, NaN where they are not valid; beyond the raster no pixel is."""
    size, margin = SIZES[resampling], 4
    padded = np.pad(np.where(valid, values, 0.0), margin)
    there = np.pad(valid, margin)
    around = np.arange(-3, 4)
    r, c = (np.floor(part).astype(int)[:, None] + around for part in (row, col))
    weights = kernel(row[:, None] - r - 0.5, size)[:, :, None] * kernel(col[:, None] - c - 0.5, size)[:, None, :]
    at = (r + margin)[:, :, None], (c + margin)[:, None, :]
    counted = weights * there[at]
    total, weight = (counted * padded[at]).sum(axis=(1, 2)), counted.sum(axis=(1, 2))
    complete = ((weights != 0) <= there[at]).all(axis=(1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        lenient = np.where(np.abs(weight) > 1e-9, total / weight, np.nan) if skip else np.nan
    return np.where(complete, total, lenient)
