"""Read world files: six lines of text beside an image with its affine (ESRI's format, as GDAL reads it).

GDAL reads local world files itself. It finds those of a remote raster but cannot read their lines, because rasterio's
file systems do not report the end of a file.
"""

import re
from collections.abc import Callable

Affine6 = tuple[float, float, float, float, float, float]

DRIVERS = ("GTiff", "PNG", "JPEG", "GIF", "BMP", "JP2OpenJPEG")
"""GDAL drivers that look for a world file."""

MAX_BYTES = 4096
NUMBER = re.compile(r"\s*([-+]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][-+]?\d+)?)")


def world_endings(path: str) -> list[str]:
    """Extensions of an image's world files in GDAL's order: .tfw, .tifw and .wld for x.tif; each also in capitals."""
    ending = path.rpartition("/")[2].rpartition(".")[2].lower()
    names = [f"{ending[0]}{ending[-1]}w", f"{ending}w", "wld"] if len(ending) > 1 else ["wld"]
    return [name for lower in dict.fromkeys(names) for name in (lower, lower.upper())]


def read_world_file(read: Callable[[str], bytes | None], path: str) -> Affine6 | None:
    """The affine from the world file of an image; None if there is no usable one.

    Parameters
    ----------
    read : function
        Returns the bytes of a path, or None if it does not exist.
    path : str
        Path of the image.

    Returns
    -------
    tuple of 6 floats
        ``(a, b, c, d, e, f)`` for the corner of the first pixel; the file has its centre.
    """
    stem = path.removesuffix("." + path.rpartition("/")[2].rpartition(".")[2])
    for ending in world_endings(path):
        found = read(f"{stem}.{ending}")
        affine = parse_world_file(found) if found is not None else None
        if affine is not None:
            return affine
    return None


def parse_world_file(content: bytes) -> Affine6 | None:
    """The affine of a world file; None unless it has six numbers and pixels with a width and height."""
    lines = content[:MAX_BYTES].decode("latin-1").splitlines()[:6]
    numbers = [float(found[1].replace(",", ".")) if (found := NUMBER.match(line)) else 0.0 for line in lines]
    if len(numbers) < 6:
        return None
    a, d, b, e, x, y = numbers
    if (a == 0 and b == 0) or (e == 0 and d == 0):
        return None
    return a, b, x - 0.5 * a - 0.5 * b, d, e, y - 0.5 * d - 0.5 * e
