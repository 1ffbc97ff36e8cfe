"""Which pixels are valid: not NaN, not the band's nodata value, and not left out by the file's own mask.

There is one meaning for points, nodata fallback, windows and chips. The file's own mask is that of
``rasterio.read_masks``, which GDAL decides by a band's flags (GDALRasterBand::GetMaskFlags): a mask (internal, or
``.msk`` beside the file), else the nodata value, else an alpha band. A pixel with the nodata value is not valid where
the mask leaves it in either.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.model import Asset

Pixels = NDArray[np.generic]
Mask = NDArray[np.bool_]
Statuses = NDArray[np.uint8]

ALL_VALID, NODATA = "all_valid", "nodata"


class Status(IntEnum):
    """What the sample of a point is; the first that holds.

    A pixel is ``MASKED`` where the file's own mask leaves it out, or where it fails a quality rule; a sample is
    ``FILLED`` where a valid pixel beside the point's own gives the value.
    """

    VALID = 0
    NODATA = 1
    MASKED = 2
    FILLED = 3


SINGLE_PRECISION = np.finfo(np.float32).eps

LONG_INTEGERS = ("int64", "uint64")

LARGEST_EXACT = 2**53
"""Up to here float64 holds every integer."""


def is_valid(pixels: Pixels, nodata: float | None, file_mask: Mask | None = None) -> Mask:
    """Whether pixels are valid.

    Parameters
    ----------
    pixels : array of any shape
        In the band's own dtype: two 64-bit integers may be one as float64.
    nodata : number or None
    file_mask : array of bool of the same shape, optional
        True is left in; where the file has a mask.
    """
    left_in = is_left_in(pixels, nodata, file_mask)
    return left_in & not_nan(pixels) if pixels.dtype.kind == "f" else left_in


def is_left_in(pixels: Pixels, nodata: float | None, file_mask: Mask | None = None) -> Mask:
    """As :func:`is_valid`, but NaN counts as one of the values, unless the nodata value is NaN."""
    if file_mask is None:
        return ~is_nodata(pixels, nodata)
    if has_long_integers(str(pixels.dtype)) and not (isinstance(nodata, int) or is_exact(nodata)):
        return file_mask  # the nodata value is rounded, or not known
    return file_mask & ~is_nodata(pixels, nodata)


def pixel_status(pixels: Pixels, nodata: float | None, file_mask: Mask | None, flags: str | None) -> Statuses:
    """The :class:`Status` of pixels, as uint8 of their shape: valid as of :func:`is_valid`, else why not.

    Parameters
    ----------
    pixels, nodata, file_mask
        As of :func:`is_valid`.
    flags : str or None
        Flags of the band's mask; where the mask is made of the nodata value, what it leaves out is nodata.
    """
    status = np.where(is_valid(pixels, nodata, file_mask), np.uint8(Status.VALID), np.uint8(Status.NODATA))
    if file_mask is not None and flags != NODATA:
        status[~file_mask & not_nan(pixels) & ~is_nodata(pixels, nodata)] = Status.MASKED
    return status


def is_invalid(status: Statuses) -> Mask:
    """Whether samples have neither a valid pixel nor a valid one beside it."""
    return (status == Status.NODATA) | (status == Status.MASKED)


def not_nan(pixels: Pixels) -> Mask:
    return pixels == pixels


def is_nodata(pixels: Pixels, nodata: float | None) -> Mask:
    """Whether pixels are the nodata value, as GDAL compares them (GDALNoDataMaskBand).

    A value that an integer dtype cannot hold is that of no pixel, and of a fraction only the whole part counts.
    Floats, of 64 bits too, need not be equal to the last digit.
    """
    if nodata is None or (nodata != nodata and pixels.dtype.kind != "f"):
        return np.zeros(pixels.shape, dtype=bool)
    if nodata != nodata:
        return pixels != pixels
    if pixels.dtype.kind == "f":
        return _is_close(pixels, nodata)
    limits = np.iinfo(pixels.dtype)  # type: ignore[type-var]
    if not limits.min <= nodata <= limits.max:
        return np.zeros(pixels.shape, dtype=bool)
    return pixels == pixels.dtype.type(int(nodata))


def _is_close(pixels: Pixels, nodata: float) -> Mask:
    """Equal to about six digits, in the dtype's own arithmetic, which may overflow (GDAL's ARE_REAL_EQUAL)."""
    real: Any = pixels.dtype.type
    with np.errstate(over="ignore", invalid="ignore"):
        value = real(nodata)
        margin = real(SINGLE_PRECISION) * np.abs(pixels + value) * real(2)
        return (pixels == value) | (np.abs(pixels - value) < margin)


def masked_by_file(flags: str, dtype: str, nodata: float | None) -> bool:
    """Whether only the file can say which pixels of a band are valid.

    Parameters
    ----------
    flags : str
        rasterio's names of the band's mask flags, joined by "+"; empty for a mask with a band for each band.
    dtype : str
        NumPy's name.
    nodata : number or None
        As far as it is known: an int, or a float that may be rounded.
    """
    if flags != NODATA:
        return flags != ALL_VALID
    return has_long_integers(dtype) and not (isinstance(nodata, int) or is_exact(nodata))


def has_long_integers(dtype: str) -> bool:
    """Whether a dtype has integers that float64 cannot hold."""
    return dtype in LONG_INTEGERS


def is_exact(nodata: float | None) -> bool:
    """Whether a float is surely the integer that was meant."""
    return nodata is not None and abs(nodata) < LARGEST_EXACT


def may_be_masked(asset: Asset) -> bool:
    """Whether the file has to be asked for its mask; one whose collection does not say may have one."""
    if asset.mask is None:
        return True
    return asset.stored is not None and masked_by_file(asset.mask, asset.stored.dtype, asset.nodata)


def flag_names(flags: Sequence[object]) -> str:
    """A band's mask flags (``dataset.mask_flag_enums[n]``) as the collection keeps them."""
    return "+".join(flag.name for flag in flags)  # type: ignore[attr-defined]
