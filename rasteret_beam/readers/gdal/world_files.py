"""World files: six lines of text beside an image that place it (ESRI's format, as GDAL reads it).

GDAL reads those on a local disk by itself. Beside a remote raster it finds them, but reads no line of them, as the file
systems that rasterio gives it cannot tell the end of a file.
"""

import re
from collections.abc import Callable

Affine6 = tuple[float, float, float, float, float, float]

DRIVERS = ("GTiff", "PNG", "JPEG", "GIF", "BMP", "JP2OpenJPEG")
"""GDAL's drivers that look for a world file."""

MAX_BYTES = 4096
NUMBER = re.compile(r"\s*([-+]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][-+]?\d+)?)")


def world_endings(path: str) -> list[str]:
    """Endings of world files beside an image, in GDAL's order: .tfw, .tifw and .wld for x.tif; each in capitals too."""
    ending = path.rpartition("/")[2].rpartition(".")[2].lower()
    names = [f"{ending[0]}{ending[-1]}w", f"{ending}w", "wld"] if len(ending) > 1 else ["wld"]
    return [name for lower in dict.fromkeys(names) for name in (lower, lower.upper())]


def read_world_file(read: Callable[[str], bytes | None], path: str) -> Affine6 | None:
    """The affine that the world file beside an image gives; None where there is none that can be used.

    Parameters
    ----------
    read : function
        Bytes of a file by its path, or None where there is none.
    path : str
        Of the image.

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
    """The affine of a world file, or None where it has not six numbers or its pixels have no width or height."""
    lines = content[:MAX_BYTES].decode("latin-1").splitlines()[:6]
    numbers = [float(found[1].replace(",", ".")) if (found := NUMBER.match(line)) else 0.0 for line in lines]
    if len(numbers) < 6:
        return None
    a, d, b, e, x, y = numbers
    if (a == 0 and b == 0) or (e == 0 and d == 0):
        return None
    return a, b, x - 0.5 * a - 0.5 * b, d, e, y - 0.5 * d - 0.5 * e
