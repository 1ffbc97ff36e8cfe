"""Check that the facts about a band of a tiled TIFF agree with each other.

Numbers are TIFF's codes (TIFF 6.0 with Technical Notes 1 to 3, BigTIFF). The facts are checked when a file is indexed,
when a collection is loaded, and before pixels are decoded.
"""

import math

import numpy as np

from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.model import Grid, StoredBand

NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, LERC, ZSTD = 1, 5, 8, 32946, 32773, 34887, 50000
"""Compression codes."""

PREDICTED = (LZW, DEFLATE, OLD_DEFLATE, ZSTD)
"""Compressions that use a predictor; libtiff ignores the tag with others."""

STREAMED = (DEFLATE, OLD_DEFLATE, ZSTD)
"""Compressions whose first bytes decode to the first rows."""

NO_PREDICTOR, HORIZONTAL, FLOATING_POINT = 1, 2, 3

CONTIGUOUS, SEPARATE = 1, 2
"""Planar configurations."""

MAX_TILES = 1 << 22
"""Maximum number of tiles of a band in the index: 64 MB of offsets and byte counts."""

MAX_PLACES = 1 << 24
"""Maximum number of tiles of all bands of a file, which are read together."""

MAX_TILE_BYTES = 1 << 29
"""Maximum decoded size; a corrupt or hostile size is left to GDAL."""


AS_STORED = {
    0: "MinIsWhite",
    1: "MinIsBlack",
    2: "RGB",
    3: "palette",
    4: "mask",
    32803: "colour filter array",
    34892: "linear raw",
    51177: "depth",
}
"""Photometric interpretations whose samples GDAL gives unchanged; it converts others to RGB(A)."""

RGB_BANDS = 3

UNASSOCIATED_ALPHA = 2
"""Codes of extra samples."""


def why_converted(stored: StoredBand) -> str | None:
    """Why GDAL gives other pixels than a TIFF stores; None if it gives the stored pixels."""
    if stored.photometric is None:
        if stored.dtype == "uint8" and (stored.samples_per_pixel or RGB_BANDS) >= RGB_BANDS:
            return "the collection does not have its photometric interpretation"
    elif stored.photometric not in AS_STORED:
        return f"photometric interpretation {stored.photometric}, which GDAL may convert"
    if stored.compression == LERC and samples_in_tile(stored) > 1:
        # A blob has masks, whose meaning for several bands is defined by libtiff.
        if UNASSOCIATED_ALPHA in stored.extra_samples:
            return "LERC with alpha, which may be kept as a mask"
        if stored.dtype.startswith("float"):
            return "LERC of floating-point bands that lie interleaved, whose NaN may be kept as masks"
    return None


def tile_bytes(stored: StoredBand, grid: Grid) -> int:
    """Size of an uncompressed tile in bytes."""
    return grid.tile_width * grid.tile_height * samples_in_tile(stored) * np.dtype(stored.dtype).itemsize


def samples_in_tile(stored: StoredBand) -> int:
    """Number of bands that are interleaved in a tile."""
    return (stored.samples_per_pixel or 1) if stored.planar_configuration != SEPARATE else 1


def effective_predictor(stored: StoredBand) -> int:
    """The predictor of the stored pixels."""
    return (stored.predictor or NO_PREDICTOR) if stored.compression in PREDICTED else NO_PREDICTOR


def why_inconsistent(stored: StoredBand, grid: Grid, band_index: int) -> str | None:
    """Why the facts of a band contradict each other; None if they agree.

    Parameters
    ----------
    stored : StoredBand
    grid : Grid
        Gives the sizes of the image and of a tile.
    band_index : int
        0-based index of the band in its file.

    Returns
    -------
    str or None
        The first impossible fact, or the first contradiction with both values.
    """
    return (
        _why_not_shaped(grid)
        or _why_not_typed(stored)
        or _why_not_sized(stored, grid, band_index)
        or _why_not_placed(stored, grid)
    )


def _why_not_shaped(grid: Grid) -> str | None:
    sizes = (grid.width, grid.height, grid.tile_width, grid.tile_height)
    if min(sizes) < 1:
        return "an image of {} x {} pixels in tiles of {} x {}".format(*sizes)
    return None


def _why_not_typed(stored: StoredBand) -> str | None:
    try:
        dtype = np.dtype(stored.dtype)
    except TypeError:
        return f"dtype {stored.dtype!r}"
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        return f"dtype {stored.dtype!r}"
    if stored.bits_per_sample not in (None, 8 * dtype.itemsize):
        return f"{stored.bits_per_sample} bits a sample in {stored.dtype}"
    predictor = effective_predictor(stored)
    if predictor not in (NO_PREDICTOR, HORIZONTAL, FLOATING_POINT):
        return f"predictor {predictor}"
    if predictor == FLOATING_POINT and dtype.kind != "f":
        return f"predictor 3, which is for floating-point numbers, in {stored.dtype}"
    return None


def _why_not_sized(stored: StoredBand, grid: Grid, band_index: int) -> str | None:
    if stored.planar_configuration not in (None, CONTIGUOUS, SEPARATE):
        return f"planar configuration {stored.planar_configuration}"
    samples = stored.samples_per_pixel
    if samples is not None and not 0 <= band_index < samples:
        return f"band index {band_index} (from 0) of {samples} sample(s) a pixel"
    size = tile_bytes(stored, grid)
    if size > MAX_TILE_BYTES:
        return f"tiles of {size} bytes, where {MAX_TILE_BYTES} are the most"
    return None


def _why_not_placed(stored: StoredBand, grid: Grid) -> str | None:
    tiles = math.prod(grid.tile_counts())
    given = len(stored.tile_offsets), len(stored.tile_byte_counts)
    if given != (tiles, tiles):
        return f"{given[0]} offsets and {given[1]} byte counts for {tiles} tile(s)"
    try:
        offsets, counts = (np.asarray(each, dtype=np.int64) for each in (stored.tile_offsets, stored.tile_byte_counts))
    except OverflowError:
        return "an offset or a byte count beyond 2^63"
    # libtiff reads whole uncompressed tiles, whatever their byte counts.
    least = tile_bytes(stored, grid) if stored.compression == NONE else 0
    return _wrong_place(offsets, counts, least, stored.file_size) or _shared_place(offsets, counts)


def _wrong_place(offsets: Ints, counts: Ints, least: int, file_size: int | None) -> str | None:
    """The first tile [n] with an impossible place; a missing tile has offset and byte count 0."""
    beyond = np.iinfo(np.int64).max if file_size is None else file_size
    wrong = (offsets < 0) | (counts < 0) | ((offsets == 0) != (counts == 0)) | (offsets > beyond - counts)
    short = (counts > 0) & (counts < least)
    if not (wrong | short).any():
        return None
    at = int(np.argmax(wrong | short))
    text = f"tile number {at} has {counts[at]} bytes at offset {offsets[at]}"
    if short[at] and not wrong[at]:
        return f"{text}, where {least} are stored"
    return text if file_size is None else f"{text} of a file of {file_size} bytes"


def _shared_place(offsets: Ints, counts: Ints) -> str | None:
    """The first two tiles [n] of a band that share bytes; such files are valid but read by GDAL."""
    number = np.flatnonzero(counts > 0)
    number = number[np.argsort(offsets[number], kind="stable")]
    first, after = number[:-1], number[1:]
    shared = offsets[first] + counts[first] > offsets[after]
    if not shared.any():
        return None
    at, other = (int(each[np.argmax(shared)]) for each in (first, after))
    return (
        f"tile number {at} has {counts[at]} bytes at offset {offsets[at]}, and tile number {other} begins at "
        f"{offsets[other]}"
    )
