"""What an item says of a raster file, in place of the file's header.

Sources: STAC's projection extension (``proj:code``, ``proj:epsg``, ``proj:wkt2``, ``proj:projjson``,
``proj:transform``, ``proj:shape``), and ``data_type`` of its raster extension 1.0 and of ``bands`` of STAC 1.1.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rasteret_beam.collection.records.assets import entry_of
from rasteret_beam.collection.records.records import Stated
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.geo.crs import crs_text
from rasteret_beam.kernels.routing.chip_windows import as_dtype
from rasteret_beam.model import BandHeader, Grid

WINDOW = 512
"""Pixels of a side of the windows in which GDAL is asked for a file whose tiles are unknown."""

CRS = ("proj:code", "proj:epsg", "proj:wkt2", "proj:projjson")

TYPES = {"cint16": "complex64", "cint32": "complex64", "cfloat32": "complex64", "cfloat64": "complex128"}
"""STAC's names of types that NumPy has by other names; GDAL reads complex integers as complex numbers."""

WHY_NO_PLACES = "its header was not read, so the places of its tiles are unknown"


def header_of(asset: Mapping[str, Any], properties: Mapping[str, Any], index: int, said: Stated) -> BandHeader | str:
    """The header of a band, from an item; or what the item lacks.

    Parameters
    ----------
    asset : mapping
        The band's asset; what it lacks may be in ``properties`` of the item.
    index : int
        The band, from 0.
    """
    levels = (*(entry_of(asset, name, index) for name in ("bands", "raster:bands")), asset, properties)

    def first(name: str) -> Any:
        return next((level[name] for level in levels if level.get(name) is not None), None)

    crs = next((value for name in CRS if (value := first(name)) is not None), None)
    transform, shape, kind = first("proj:transform"), first("proj:shape"), first("data_type")
    missing = [
        name
        for name, value in (
            ("proj:code", crs),
            ("proj:transform", transform),
            ("proj:shape", shape),
            ("data_type", kind),
        )
        if value is None
    ]
    if missing:
        return f"the item has no {missing[0]} for it"
    try:
        crs = int(crs) if isinstance(crs, float) and crs.is_integer() else crs  # as pandas has codes beside nulls
        grid = Grid(crs_text(crs), _affine(transform), *_size(shape), WINDOW, WINDOW)
        dtype = _dtype(kind)
    except (InputError, TypeError, ValueError) as error:
        return f"what the item says of it cannot be used: {error}"
    nodata = None if said.nodata is None or as_dtype(said.nodata, np.dtype(dtype)) is None else said.nodata
    return BandHeader(
        grid=grid,
        dtype=dtype,
        nodata=nodata,
        scale=1.0 if said.scale is None else said.scale,
        offset=said.offset or 0.0,
        mask=None,
        byte_order=None,
        predictor=None,
        compression=None,
        tile_offsets=(),
        tile_byte_counts=(),
        pixel_scale=(),
        tiepoint=(),
        samples_per_pixel=None,
        planar_configuration=None,
        photometric=None,
        extra_samples=(),
        fallback_reason=WHY_NO_PLACES,
    )


def _affine(values: Any) -> tuple[float, float, float, float, float, float]:
    """Six numbers, or the nine of a matrix whose last row says nothing."""
    wrong = ValueError(f"proj:transform is {values!r}; it has to have 6 or 9 finite numbers")
    if not isinstance(values, Sequence) or len(values) not in (6, 9):
        raise wrong
    try:
        a, b, c, d, e, f = numbers = [float(value) for value in values[:6]]
    except (TypeError, ValueError):
        raise wrong from None
    if not np.isfinite(numbers).all():
        raise wrong
    if a * e == b * d:
        raise ValueError(f"proj:transform is {list(values)}, which has no inverse")
    return a, b, c, d, e, f


def _size(shape: Any) -> tuple[int, int]:
    """Width and height of a shape, which has the height first."""
    try:
        height, width = (int(side) for side in shape)
    except (TypeError, ValueError):
        height = width = 0
    if min(height, width) < 1:
        raise ValueError(f"proj:shape is {shape!r}; it has to be height and width")
    return width, height


def _dtype(kind: Any) -> str:
    """NumPy's name of a type of pixels."""
    dtype = np.dtype(TYPES.get(kind, kind))
    if dtype.kind not in "iufcb":
        raise ValueError(f"data_type is {kind!r}; it has to be a type of numbers")
    return dtype.name
