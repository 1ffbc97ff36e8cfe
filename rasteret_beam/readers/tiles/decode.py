"""Decoding the tiles of a TIFF, down to the last row that is needed.

Formats: TIFF 6.0 with Technical Notes 1 to 3 (predictors), Esri's LERC in TIFF, Zstandard as
libtiff writes it. A row's pixels need no row below them, so a tile that is wanted for a few
points is inflated only as far as they reach.
"""

import struct
from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
import pyarrow as pa
from isal import isal_zlib

from rasteret_beam.errors import one_line
from rasteret_beam.kernels.storage.tiff_index import (
    DEFLATE,
    FLOATING_POINT,
    HORIZONTAL,
    LERC,
    LZW,
    NONE,
    OLD_DEFLATE,
    PACKBITS,
    ZSTD,
    effective_predictor,
    samples_in_tile,
)
from rasteret_beam.model import Grid, StoredBand
from rasteret_beam.readers.tiles.protocol import Tile

Bytes = Any


CODEC_ERRORS: tuple[Any, ...] = (RuntimeError, ValueError, OSError, isal_zlib.IsalError)
"""Errors whose texts need no name of their class."""


class DecodeError(Exception):
    """A tile's bytes are not what its codec wrote."""


def _inflate(data: Bytes, wanted: int, whole: int) -> Bytes:
    # One byte more than there is makes the decompressor read on to the checksum of a whole tile.
    return isal_zlib.decompressobj().decompress(data, wanted + (wanted == whole))


WHOLE_SHARE = 0.85
"""Of a tile: the rest of it costs less than what a stream takes more than one call."""


def _unzstd(data: Bytes, wanted: int, whole: int) -> Bytes:
    if wanted > WHOLE_SHARE * whole:
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
        return _unpredicted(_pixels(data, stored, grid, rows), effective_predictor(stored))
    except Exception as error:  # codecs raise what they like at corrupt data; other tiles go on
        raise DecodeError(_described(error)) from error


def _described(error: Exception) -> str:
    text = one_line(error)
    return text if isinstance(error, CODEC_ERRORS) else f"{type(error).__name__}: {text}"


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
        data = isal_zlib.decompressobj().decompress(data, most) if inner == DEFLATE else _unzstd_up_to(data, most)
    _check_blobs(data, grid, samples)
    pixels, valid = imagecodecs.lerc_decode(data, masks=True)
    pixels = pixels.reshape(grid.tile_height, grid.tile_width, samples).astype(stored.dtype, copy=False)
    return _nan_where_left_out(pixels, valid)


def _unzstd_up_to(data: Bytes, most: int) -> Bytes:
    return memoryview(pa.CompressedInputStream(pa.BufferReader(data), "zstd").read(most))


def _check_blobs(data: Bytes, grid: Grid, samples: int) -> None:
    """Before memory is taken for what blobs of LERC 2 claim: they are of one tile and its samples.

    Their headers (Esri's Lerc2.h, little-endian): "Lerc2 ", version, a checksum since version 3, rows, columns, values
    a pixel since version 4, valid pixels, size of a block, size of the blob.
    """
    view, at, values = memoryview(data), 0, 0
    while bytes(view[at : at + 6]) == b"Lerc2 ":
        (version,) = struct.unpack_from("<i", view, at + 6)
        numbers = struct.unpack_from("<6i", view, at + (14 if version >= 3 else 10))
        rows, cols, depth = numbers[:3] if version >= 4 else (*numbers[:2], 1)
        size = numbers[5] if version >= 4 else numbers[4]
        values += depth
        if (rows, cols) != (grid.tile_height, grid.tile_width) or not 0 < depth <= samples or size <= 0:
            raise ValueError(f"a blob of {rows} x {cols} pixels with {depth} value(s) each in {size} bytes")
        at += size
    if values != samples:
        raise ValueError(f"blobs of {values} value(s) a pixel, where {samples} are stored")


def _nan_where_left_out(pixels: Tile, valid: Tile | None) -> Tile:
    """LERC leaves NaN pixels out of a blob and says so in its mask."""
    if valid is None or pixels.dtype.kind != "f" or np.all(valid):
        return pixels
    # One mask for all bands, [height, width], or one for each, [height, width, samples].
    return np.where(valid.reshape(*pixels.shape[:2], -1) != 0, pixels, np.array(np.nan, dtype=pixels.dtype))
