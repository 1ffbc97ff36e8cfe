"""Encode arrays as GeoTIFF files in memory."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tifffile
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from rasteret_beam.errors import OutputError
from rasteret_beam.kernels.sampling.validity import has_long_integers, is_exact
from rasteret_beam.readers.gdal.rasters import enter_gdal

TILE = 256
GDAL_NODATA = 42113


def geotiff_bytes(
    pixels: NDArray[np.generic],
    transform: Sequence[float],
    crs: str,
    nodata: float | None,
    description: str,
    tags: Mapping[str, str],
) -> bytes:
    """A single-band GeoTIFF with deflate compression.

    Parameters
    ----------
    pixels : [height, width] array
    transform : sequence of 6 floats
        Affine (a, b, c, d, e, f).
    crs : str
        Authority code or WKT.
    nodata : number, optional
        It has to fit the dtype of the pixels.
    description : str
        Description of the band.
    tags : mapping of str

    Raises
    ------
    OutputError
        A GeoTIFF cannot hold the data.
    """
    enter_gdal()
    height, width = pixels.shape
    rounded = has_long_integers(pixels.dtype.name) and nodata is not None and not is_exact(nodata)
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": 1,
        "dtype": pixels.dtype.name,
        "crs": crs,
        "transform": Affine(*transform),
        "nodata": 0 if rounded else nodata,
        "compress": "deflate",
    }
    if min(height, width) > TILE:
        profile |= {"tiled": True, "blockxsize": TILE, "blockysize": TILE}
    try:
        with MemoryFile() as memory:
            with memory.open(**profile) as dataset:
                dataset.write(pixels.astype(pixels.dtype.newbyteorder("="), copy=False), 1)
                dataset.set_band_description(1, description)
                dataset.update_tags(**tags)
            data = bytes(memory.getbuffer())
            return _with_nodata(data, str(nodata)) if rounded else data
    except (RasterioError, ValueError, TypeError) as error:
        raise OutputError(f"{', '.join(tags.values())}: the chip cannot be written as GeoTIFF: {error}") from error


def _with_nodata(data: bytes, digits: str) -> bytes:
    """A GeoTIFF with another nodata value in GDAL's tag, as rasterio would round a 64-bit integer."""
    file = io.BytesIO(data)
    with tifffile.TiffFile(file) as tiff:
        page: Any = tiff.pages[0]
        page.tags[GDAL_NODATA].overwrite(digits)
    return file.getvalue()
