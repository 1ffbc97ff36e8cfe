"""Nodata values as a file has them: rasterio gives all of them as float64, which rounds 64-bit integers."""

from xml.etree import ElementTree

import rasterio.shutil
from rasterio.io import DatasetReader, MemoryFile

from rasteret_beam.kernels.sampling.validity import LARGEST_EXACT, has_long_integers, is_exact


def nodata_values(dataset: DatasetReader) -> list[float | None]:
    """The nodata value of each band: an int where float64 cannot be trusted to hold it."""
    values = list(dataset.nodatavals)
    unsure = [n for n, dtype in enumerate(dataset.dtypes) if has_long_integers(dtype) and not is_exact(values[n])]
    if unsure:
        digits = _nodata_texts(dataset)
        for number in unsure:
            values[number] = _number(digits[number])
    return values


def _nodata_texts(dataset: DatasetReader) -> list[str | None]:
    """The nodata value of each band as GDAL writes it into a description (VRT) of the dataset, which opens no file."""
    with MemoryFile(ext=".vrt") as memory:
        rasterio.shutil.copy(dataset, memory.name, driver="VRT")
        described = ElementTree.fromstring(bytes(memory.getbuffer()))
    return [band.findtext("NoDataValue") for band in described.iter("VRTRasterBand") if band.get("band")]


def _number(text: str | None) -> float | None:
    """Of an integer band: GDAL writes digits."""
    if text is None:
        return None
    value = int(text)
    return value if abs(value) >= LARGEST_EXACT else float(value)
