"""Arrays as GeoTIFF files in memory."""

from collections.abc import Mapping, Sequence

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from rasteret_beam.errors import OutputError
from rasteret_beam.readers.datasets import enter_gdal

TILE = 256


def geotiff_bytes(
    pixels: NDArray[np.generic],
    transform: Sequence[float],
    crs: str,
    nodata: float | None,
    description: str,
    tags: Mapping[str, str],
) -> bytes:
    """A GeoTIFF of one band, compressed by deflate.

    Parameters
    ----------
    pixels : [height, width] array
    transform : sequence of 6 floats
        Affine (a, b, c, d, e, f).
    crs : str
        Authority code or WKT.
    nodata : number, optional
    description : str
        Of the band.
    tags : mapping of str

    Raises
    ------
    OutputError
        A GeoTIFF cannot hold this.
    """
    enter_gdal()
    height, width = pixels.shape
    profile = {
        "driver": "GTiff",
        "height": height,
        "width": width,
        "count": 1,
        "dtype": pixels.dtype.name,
        "crs": crs,
        "transform": Affine(*transform),
        "nodata": nodata,
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
            return bytes(memory.getbuffer())
    except (RasterioError, ValueError, TypeError) as error:
        raise OutputError(f"{', '.join(tags.values())}: the chip cannot be written as GeoTIFF: {error}") from error
