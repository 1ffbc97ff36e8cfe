"""Physical units: value = number * scale + offset, of the numbers that a file stores.

The pair of a band is that of the option ``scales``, else that of the collection (from STAC, the record table, or the
file's tags when it was indexed), else that of the file's tags, else 1 and 0. It can differ from record to record, as
Sentinel-2's offset does since 2022.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from rasteret_beam.errors import CollectionError, without_secrets
from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.sampling.validity import Mask, Pixels
from rasteret_beam.model import Asset
from rasteret_beam.scales import why_unusable

Units = tuple[float, float]
"""Scale and offset."""

STORED: Units = (1.0, 0.0)
"""The units of stored numbers."""


def in_units(pixels: Pixels, valid: Mask, units: Units) -> Floats:
    """Pixels in physical units, as float64 of their shape; NaN where they are not valid.

    Integers beyond 2^53 are rounded to float64 first.

    Parameters
    ----------
    pixels : array of any shape
        In the band's own dtype.
    valid : array of bool of the same shape
    units : (scale, offset)
    """
    scale, offset = units
    with np.errstate(invalid="ignore", over="ignore"):  # what is not valid may be anything
        values = pixels.astype(np.float64)
        if units != STORED:
            values = values * scale + offset
    values[~valid] = np.nan
    return values


def windows_in_units(windows: pa.Array, units: Units) -> pa.Array:
    """Lists of float64 in physical units; NaN stays NaN, and null null.

    Parameters
    ----------
    windows : ListArray of float64
        Stored numbers of valid pixels, NaN for the others.
    """
    numbers = windows.values.to_numpy(zero_copy_only=False)
    values = pa.array(in_units(numbers, numbers == numbers, units))
    buffers = windows.buffers()[:2]
    return pa.Array.from_buffers(windows.type, len(windows), buffers, offset=windows.offset, children=[values])


def units_of(asset: Asset, given: Mapping[str, Units]) -> Units:
    """Scale and offset of a band of a record: ``given`` for the band, else those of the asset, else 1 and 0.

    Raises
    ------
    CollectionError
        The asset has a number that cannot be used; names record, band, and the number.
    """
    if asset.band in given:
        return given[asset.band]
    units = (1.0 if asset.scale is None else asset.scale, 0.0 if asset.offset is None else asset.offset)
    if wrong := why_unusable(*units):
        raise CollectionError(
            f"record {asset.record_id!r}, band {asset.band}, {without_secrets(asset.href)}: {wrong}; give scale and "
            f"offset of the band with scales={{{asset.band!r}: (SCALE, OFFSET)}}"
        )
    return units


def needs_file(asset: Asset, given: Mapping[str, Units]) -> bool:
    """Whether only the file's tags can tell scale or offset of a band."""
    return asset.band not in given and (asset.scale is None or asset.offset is None)


def same_units(one: Asset, other: Asset) -> bool:
    """Whether the stored numbers of two bands mean the same, as far as their scale and offset tell."""
    numbers = [(1.0 if each.scale is None else each.scale, each.offset or 0.0) for each in (one, other)]
    return numbers[0] == numbers[1]
