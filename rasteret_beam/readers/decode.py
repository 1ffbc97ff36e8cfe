"""Decoding the tiles of a TIFF, down to the last row that is needed.

Formats: TIFF 6.0 with Technical Notes 1 to 3 (predictors), Esri's LERC in TIFF, Zstandard as
libtiff writes it. A row's pixels need no row below them, so a tile that is wanted for a few
points is inflated only as far as they reach.
"""

from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pyarrow as pa
from isal import isal_zlib

from rasteret_beam.errors import one_line
from rasteret_beam.model import Grid, StoredBand
from rasteret_beam.readers.engine import Tile

NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS, LERC, ZSTD = 1, 5, 8, 32946, 32773, 34887, 50000
"""TIFF compression codes that are decoded here."""

HORIZONTAL, FLOATING_POINT = 2, 3
"""TIFF predictors."""

CODEC_ERRORS: tuple[Any, ...] = (RuntimeError, ValueError, OSError, isal_zlib.IsalError)

Bytes = Any


class DecodeError(Exception):
    """A tile's bytes are not what its codec wrote."""


def _inflate(data: Bytes, wanted: int, whole: int) -> Bytes:
    # One byte more than there is makes the decompressor read on to the checksum of a whole tile.
    return isal_zlib.decompressobj().decompress(data, wanted + (wanted == whole))


def _unzstd(data: Bytes, wanted: int, whole: int) -> Bytes:
    if wanted == whole:
        return imagecodecs.zstd_decode(data, out=whole)
    return memoryview(pa.CompressedInputStream(pa.BufferReader(data), "zstd").read(wanted))


CODECS: dict[int, Callable[[Bytes, int, int], Bytes]] = {
    NONE: lambda data, wanted, whole: data,
    LZW: lambda data, wanted, whole: imagecodecs.lzw_decode(data, out=whole),
    DEFLATE: _inflate,
    OLD_DEFLATE: _inflate,
    PACKBITS: lambda data, wanted, whole: imagecodecs.packbits_decode(data, out=whole),
    ZSTD: _unzstd,
}
"""By compression code: (data, bytes wanted, bytes of a whole tile) to at least the bytes wanted."""

LERC_INNER = {0: None, 1: DEFLATE, 2: ZSTD}
"""Compression code of what is around the LERC blob, by the second of the TIFF's LERC parameters."""


def decode_tile(data: Bytes, stored: StoredBand, grid: Grid, rows: int) -> Tile:
    """The first rows of a stored tile.

    Parameters
    ----------
    data : bytes
        Of one tile, as they lie in the file.
    stored : StoredBand
        How they are stored.
    grid : Grid
        Gives the tile's size.
    rows : int
        How many rows are needed, from the top.

    Returns
    -------
    [rows, tile_width, samples] array
        In the native byte order; samples is 1 where bands lie apart.

    Raises
    ------
    DecodeError
        With the codec's own word.
    """
    try:
        if stored.compression == LERC:
            return _decode_lerc(data, stored, grid)[:rows]
        return _unpredicted(_pixels(data, stored, grid, rows), stored.predictor or 1)
    except CODEC_ERRORS as error:
        raise DecodeError(one_line(error)) from error


def samples_in_tile(stored: StoredBand) -> int:
    """Bands that lie interleaved in a tile."""
    return stored.samples_per_pixel or 1 if stored.planar_configuration != 2 else 1


def _pixels(data: Bytes, stored: StoredBand, grid: Grid, rows: int) -> Tile:
    dtype = np.dtype(stored.dtype).newbyteorder(">" if stored.byte_order == "big" else "<")
    shape = (rows, grid.tile_width, samples_in_tile(stored))
    row_bytes = shape[1] * shape[2] * dtype.itemsize
    wanted = rows * row_bytes
    raw = CODECS[stored.compression or NONE](data, wanted, grid.tile_height * row_bytes)
    if len(raw) < wanted:
        raise ValueError(f"the data end after {len(raw)} bytes, where {wanted} are needed")
    return np.frombuffer(raw, dtype, count=wanted // dtype.itemsize).reshape(shape)


def _unpredicted(pixels: Tile, predictor: int) -> Tile:
    if predictor == HORIZONTAL:
        # Differences are of whole numbers of the sample's size, for floats too.
        words = pixels.view(pixels.dtype.str.replace("f", "u").replace("i", "u"))
        words = words.astype(words.dtype.newbyteorder("="), copy=False)
        return imagecodecs.delta_decode(words, axis=1).view(pixels.dtype.newbyteorder("="))
    if predictor == FLOATING_POINT:
        return _float_unpredicted(pixels.view(pixels.dtype.newbyteorder("=")))
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)


def _float_unpredicted(pixels: Tile) -> Tile:
    """Undo predictor 3: a row's bytes are differences, sorted by significance, whatever the file's byte order."""
    rows, width, samples = pixels.shape
    if samples == 1:
        return imagecodecs.floatpred_decode(pixels[:, :, 0], axis=-1)[:, :, None]
    size = pixels.dtype.itemsize
    summed = imagecodecs.delta_decode(pixels.view(np.uint8).reshape(rows, width * size, samples), axis=1)
    by_pixel = np.ascontiguousarray(summed.reshape(rows, size, width * samples).swapaxes(1, 2))
    return by_pixel.view(f">f{size}").reshape(pixels.shape).astype(pixels.dtype)


def _decode_lerc(data: Bytes, stored: StoredBand, grid: Grid) -> Tile:
    inner = LERC_INNER[stored.lerc_compression or 0]
    samples = samples_in_tile(stored)
    if inner is not None:
        # LERC's own size is not in the index; a blob is never much larger than the pixels.
        most = 2 * grid.tile_width * grid.tile_height * samples * np.dtype(stored.dtype).itemsize + 4096
        data = isal_zlib.decompressobj().decompress(data, most) if inner == DEFLATE else imagecodecs.zstd_decode(data)
    pixels, valid = imagecodecs.lerc_decode(data, masks=True)
    pixels = pixels.reshape(grid.tile_height, grid.tile_width, samples).astype(stored.dtype, copy=False)
    return _nan_where_left_out(pixels, valid)


def _nan_where_left_out(pixels: Tile, valid: Tile | None) -> Tile:
    """LERC leaves NaN pixels out of a blob and says so in its mask."""
    if valid is None or pixels.dtype.kind != "f" or np.all(valid):
        return pixels
    # One mask for all bands, [height, width], or one for each, [height, width, samples].
    return np.where(valid.reshape(*pixels.shape[:2], -1) != 0, pixels, np.array(np.nan, dtype=pixels.dtype))
