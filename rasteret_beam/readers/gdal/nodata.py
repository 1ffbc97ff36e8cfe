"""Read exact nodata values: rasterio gives them as float64, which rounds 64-bit integers."""

from xml.etree import ElementTree

import rasterio.shutil
from rasterio.io import DatasetReader, MemoryFile

from rasteret_beam.kernels.sampling.validity import LARGEST_EXACT, has_long_integers, is_exact


def nodata_values(dataset: DatasetReader) -> list[float | None]:
    """The nodata value of each band: an int if float64 may not hold it exactly."""
    values = list(dataset.nodatavals)
    unsure = [n for n, dtype in enumerate(dataset.dtypes) if has_long_integers(dtype) and not is_exact(values[n])]
    if unsure:
        digits = _nodata_texts(dataset)
        for number in unsure:
            values[number] = _number(digits[number])
    return values


def _nodata_texts(dataset: DatasetReader) -> list[str | None]:
    """The nodata value of each band in GDAL's VRT description of the dataset, which opens no file."""
    with MemoryFile(ext=".vrt") as memory:
        rasterio.shutil.copy(dataset, memory.name, driver="VRT")
        described = ElementTree.fromstring(bytes(memory.getbuffer()))
    return [band.findtext("NoDataValue") for band in described.iter("VRTRasterBand") if band.get("band")]


def _number(text: str | None) -> float | None:
    """The value of an integer band, which GDAL writes as digits."""
    if text is None:
        return None
    value = int(text)
    return value if abs(value) >= LARGEST_EXACT else float(value)
