"""Rows of the chip table: made from arrays, and turned into arrays again."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.routing.chip_windows import PixelWindow
from rasteret_beam.kernels.sampling.validity import has_long_integers, is_exact
from rasteret_beam.schema import CHIP_FIELDS, chips_schema, kept_polygon_fields

Array = NDArray[np.generic]
Mask = NDArray[np.bool_]

DECODED = ("shape", "dtype", "array", "mask")


@dataclass(frozen=True)
class ChipFacts:
    """What every chip of a record and grid has in common; ``datetime`` in microseconds, or None."""

    record_id: str
    datetime: int | None
    collection: str
    crs: str


class ChipPixels(NamedTuple):
    """One band of a window of a chip.

    Attributes
    ----------
    row : int
        Of the chunk that it comes from.
    band : str
    window : PixelWindow
    windows : int
        Into how many windows the chip was cut.
    transform : sequence of 6 floats
        Of the window.
    fill : float
    pixels, valid : [height, width]
    """

    row: int
    band: str
    window: PixelWindow
    windows: int
    transform: Sequence[float]
    fill: float
    pixels: Array
    valid: Mask

    @property
    def nbytes(self) -> int:
        return self.pixels.nbytes + self.valid.nbytes


def chip_rows(chunk: pa.RecordBatch, chips: Sequence[ChipPixels], facts: ChipFacts) -> pa.RecordBatch:
    """Rows of the chip table for windows of one chunk."""
    kept = kept_polygon_fields(chunk.schema)
    rows = pa.array([chip.row for chip in chips], type=pa.int64())
    columns: dict[str, Any] = {
        "geometry_id": chunk["geometry_id"].take(rows),
        "band": [chip.band for chip in chips],
        "window_row": [chip.window.row for chip in chips],
        "window_col": [chip.window.col for chip in chips],
        "windows": [chip.windows for chip in chips],
        "transform": [list(chip.transform) for chip in chips],
        "shape": [list(chip.window.shape) for chip in chips],
        "dtype": [chip.pixels.dtype.name for chip in chips],
        "fill": [chip.fill for chip in chips],
        "array": [_little_endian(chip.pixels).tobytes() for chip in chips],
        "mask": [chip.valid.tobytes() for chip in chips],
    }
    for name in ("record_id", "datetime", "collection", "crs"):
        columns[name] = [getattr(facts, name)] * len(chips)
    own = [
        columns[field.name] if field.name == "geometry_id" else pa.array(columns[field.name], type=field.type)
        for field in CHIP_FIELDS
    ]
    passed = [chunk[field.name].take(rows) for field in kept]
    return pa.RecordBatch.from_arrays([*own, *passed], schema=chips_schema(kept))


def _little_endian(pixels: Array) -> Array:
    return pixels.astype(pixels.dtype.newbyteorder("<"), copy=False)


def decode_chip(row: Mapping[str, Any]) -> tuple[Array, Mask]:
    """Pixels and valid pixels of one row of a chip table.

    Parameters
    ----------
    row : mapping
        With ``shape``, ``dtype``, ``array`` and ``mask``, as ``table.to_pylist()`` gives it.

    Returns
    -------
    pixels : [height, width] array
        In the band's own dtype, the row's ``fill`` where it is not valid; shares the row's memory, read-only.
    valid : [height, width] array of bool
        True is valid.

    Raises
    ------
    InputError
        A column is missing, or the bytes do not fit the shape.
    """
    missing = [name for name in DECODED if name not in row]
    if missing:
        raise InputError(f"the row has no {listed(missing)}; a row of a chip table has {listed(DECODED)}")
    height, width = (int(size) for size in row["shape"])
    dtype = np.dtype(row["dtype"])
    if sys.byteorder == "big":
        dtype = dtype.newbyteorder("<")
    try:
        pixels = np.frombuffer(row["array"], dtype=dtype).reshape(height, width)
        valid = np.frombuffer(row["mask"], dtype=np.bool_).reshape(height, width)
    except ValueError as error:
        raise InputError(
            f"a chip of {height} x {width} pixels of {row['dtype']} has {len(row['array'])} bytes of pixels and "
            f"{len(row['mask'])} of mask"
        ) from error
    return pixels, valid


def decode_chips(chips: pa.Table | pa.RecordBatch) -> list[tuple[Array, Mask]]:
    """Pixels and valid pixels of every row of a chip table, in its order, without a copy of the bytes.

    Raises
    ------
    InputError
        As :func:`decode_chip`.
    """
    missing = [name for name in DECODED if name not in chips.schema.names]
    if missing:
        raise InputError(f"the table has no {listed(missing)}; a chip table has {listed(DECODED)}")
    columns = [chips[name] for name in DECODED]
    return [
        decode_chip(
            {"shape": shape.as_py(), "dtype": dtype.as_py(), "array": array.as_buffer(), "mask": mask.as_buffer()}
        )
        for shape, dtype, array, mask in zip(*columns, strict=True)
    ]


def exact_fill(pixels: Array, valid: Mask, fill: float) -> float | None:
    """The fill of a chip as its pixels have it: the column of doubles rounds 64-bit integers.

    None where the column may have rounded it, and the chip has no pixel of it.
    """
    if not has_long_integers(pixels.dtype.name) or is_exact(fill):
        return pixels.dtype.type(fill).item()
    left_out = pixels[~valid]
    return int(left_out[0]) if len(left_out) else None


def join_windows(chips: pa.Table | pa.RecordBatch) -> tuple[Array, Mask, tuple[float, ...]]:
    """The windows into which one chip was cut, put together.

    Parameters
    ----------
    chips : Table
        All rows of one geometry, record and band, in any order.

    Returns
    -------
    pixels, valid : [height, width] arrays
        As :func:`decode_chip`.
    transform : tuple of 6 floats
        Affine of the whole.

    Raises
    ------
    InputError
        The rows are of several chips, or not all of one.
    """
    rows = chips.select(["geometry_id", "record_id", "band", "windows", "crs"]).to_pylist()
    of = {(row["geometry_id"], row["record_id"], row["band"], row["windows"], row["crs"]) for row in rows}
    if len(of) != 1 or len(rows) != rows[0]["windows"]:
        first = (
            f"geometry {rows[0]['geometry_id']}, record {rows[0]['record_id']!r}, band {rows[0]['band']}" if of else ""
        )
        problem = f"of {len(of)} chips" if len(of) != 1 else f"of the {rows[0]['windows']} windows of {first}"
        raise InputError(f"there are {len(rows)} row(s) {problem}; give all rows of one geometry, record and band")
    parts = decode_chips(chips)
    top, left = (np.array(chips[name].to_pylist()) for name in ("window_row", "window_col"))
    top, left = top - top.min(), left - left.min()
    height = max(int(row) + pixels.shape[0] for row, (pixels, _) in zip(top, parts, strict=True))
    width = max(int(col) + pixels.shape[1] for col, (pixels, _) in zip(left, parts, strict=True))
    whole, usable = np.empty((height, width), dtype=parts[0][0].dtype), np.zeros((height, width), dtype=bool)
    for above, beside, (pixels, valid) in zip(top, left, parts, strict=True):
        at = slice(above, above + pixels.shape[0]), slice(beside, beside + pixels.shape[1])
        whole[at], usable[at] = pixels, valid
    corner = int(np.flatnonzero((top == 0) & (left == 0))[0])
    return whole, usable, tuple(chips["transform"][corner].as_py())
