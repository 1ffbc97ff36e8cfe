"""Parse the first directory of a TIFF: its entries, their values, and a digest of them.

Formats: TIFF 6.0, section 2, and BigTIFF. A file may be corrupt or hostile, so counts are checked before values are
read. Irregular data is an error, which GDAL may tolerate.
"""

import struct
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.storage.tiff_index import MAX_PLACES, MAX_TILES, SEPARATE
from rasteret_beam.model import tiles_along

TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
"""Size in bytes of a value of each field type."""

INTEGERS = {3: "u2", 4: "u4", 16: "u8"}
FLOATS = {11: "f4", 12: "f8"}
"""NumPy names of the field types of the tags that are read here; other types are left to libtiff."""

MAX_ENTRIES = 4096
MAX_VALUES = 1 << 16
"""Maximum number of values of a tag, except for the places of tiles."""

NO_PLACES: Ints = np.empty(0, dtype=np.int64)

INT32_MAX = np.iinfo(np.int32).max

DIGESTED_BYTES = 64 << 10
"""Bytes in the digest of each value outside the directory, and of a file that is not a TIFF."""

MAGIC = {b"II*\0": ("<", 4), b"MM\0*": (">", 4), b"II+\0": ("<", 8), b"MM\0+": (">", 8)}
"""Byte order and size of offsets by the first bytes of a file."""


class HeaderError(Exception):
    """The directory violates the format."""


@dataclass(frozen=True)
class Entry:
    """A tag of the directory: its field type, the number of its values, and their position in the file."""

    tag: int
    kind: int
    count: int
    offset: int

    @property
    def size(self) -> int:
        return self.count * TYPE_BYTES.get(self.kind, 0)


class TiffHeader:
    """The first directory of a TIFF; values are read on demand.

    Parameters
    ----------
    file : file object
        Open for reading as long as values are read.
    size : int
        Size of the file in bytes.

    Raises
    ------
    HeaderError
        It is not a TIFF, or its first directory is outside the file.

    Attributes
    ----------
    byte_order : "<" or ">"
    entries : {tag: Entry}
    """

    def __init__(self, file: Any, size: int):
        self._file = file
        self._size = size
        start = self._bytes(0, min(16, size))
        if start[:4] not in MAGIC:
            raise HeaderError("it does not begin as a TIFF")
        self.byte_order, self._word = MAGIC[start[:4]]
        # In a BigTIFF the size of offsets and two zero bytes precede the offset of the first directory.
        self._head = start[: 8 if self._word == 4 else 16]
        if self._word == 8 and self._unpacked("HH", self._head[4:8]) != (8, 0):
            raise HeaderError(f"a BigTIFF with offsets of {self._unpacked('H', self._head[4:6])[0]} bytes")
        self._read_directory()

    def _read_directory(self) -> None:
        word, few = ("I", "H") if self._word == 4 else ("Q", "Q")
        (at,) = self._unpacked(word, self._head[-self._word :])
        first = at + struct.calcsize("<" + few)
        (count,) = self._unpacked(few, self._bytes(at, first))
        if not 0 < count <= MAX_ENTRIES:
            raise HeaderError(f"its directory has {count} entries")
        length = 4 + 2 * self._word
        self._directory = self._bytes(first, first + count * length + self._word)
        self.entries: dict[int, Entry] = {}
        for number in range(count):
            tag, kind, values = self._unpacked("HH" + word, self._directory[number * length :][: length - self._word])
            entry = Entry(tag, kind, values, first + (number + 1) * length - self._word)
            if entry.size > self._word:
                (offset,) = self._unpacked(word, self._directory[(number + 1) * length - self._word :][: self._word])
                entry = Entry(tag, kind, values, offset)
            if tag in self.entries:
                raise HeaderError(f"tag {tag} stands in its directory twice")
            self.entries[tag] = entry

    def integers(self, tag: int, default: tuple[int, ...] = (), most: int = MAX_VALUES) -> Ints:
        """Values [n] of an integer tag.

        Raises
        ------
        HeaderError
            It has another type, more than ``most`` values, or values outside the file or int64.
        """
        found = self._numbers(tag, INTEGERS, most)
        if found is None:
            return np.array(default, dtype=np.int64)
        if found.dtype == np.uint64 and len(found) and found.max() > np.iinfo(np.int64).max:
            raise HeaderError(f"tag {tag} has the value {found.max()}")
        return found.astype(np.int64)

    def integer(self, tag: int, default: int) -> int:
        """The single value of a tag, from 0 to the maximum of int32; raises as :meth:`integers`."""
        return self.same(tag, 1, default)

    def same(self, tag: int, samples: int, default: int) -> int:
        """The common value of a tag with one value per sample, or one for all; raises as :meth:`integers`."""
        found = self.integers(tag, (default,))
        if len(found) not in (1, samples) or np.any(found != found[0]) or not 0 <= found[0] <= INT32_MAX:
            shown = f"{found[:8].tolist()}" + (" and more" if len(found) > 8 else "")
            raise HeaderError(f"tag {tag} has the value(s) {shown}")
        return int(found[0])

    def floats(self, tag: int) -> tuple[float, ...]:
        """Values of a floating-point tag; empty if it is missing. Raises as :meth:`integers`."""
        found = self._numbers(tag, FLOATS, MAX_VALUES)
        return () if found is None else tuple(found.tolist())

    def count(self, tag: int) -> int:
        """Number of values of a tag."""
        return self.entries[tag].count if tag in self.entries else 0

    def _numbers(self, tag: int, types: dict[int, str], most: int) -> Any:
        entry = self.entries.get(tag)
        if entry is None:
            return None
        if entry.kind not in types:
            raise HeaderError(f"tag {tag} has field type {entry.kind}")
        if not 0 < entry.count <= most:
            raise HeaderError(f"tag {tag} has {entry.count} values")
        return np.frombuffer(self._bytes(entry.offset, entry.offset + entry.size), self.byte_order + types[entry.kind])

    def digest(self) -> str:
        """Digest of the directory and the values of its entries: places of tiles, georeference, and the others."""
        found = sha256(self._head + self._directory)
        for entry in self.entries.values():
            if entry.size > self._word:
                end = min(entry.offset + min(entry.size, DIGESTED_BYTES), self._size)
                found.update(self._bytes(entry.offset, end) if entry.offset < end else b"")
        return found.hexdigest()[:32]

    def _bytes(self, start: int, stop: int) -> bytes:
        if stop > self._size:
            raise HeaderError(f"its header goes up to byte {stop}, but the file has {self._size}")
        self._file.seek(start)
        data = bytes(self._file.read(stop - start))
        if len(data) != stop - start:
            raise HeaderError(f"{len(data)} bytes were read, where {stop - start} were asked for")
        return data

    def _unpacked(self, form: str, data: bytes) -> tuple[int, ...]:
        try:
            return struct.unpack(self.byte_order + form, data)
        except struct.error as error:
            raise HeaderError("the file ends in its header") from error


def header_digest(file: Any, size: int) -> str:
    """A digest that detects changes at the same size: of a TIFF's directory, or of the beginning of another file."""
    try:
        return TiffHeader(file, size).digest()
    except HeaderError:
        file.seek(0)
        return sha256(file.read(DIGESTED_BYTES)).hexdigest()[:32]


@dataclass(frozen=True)
class TiffLayout:
    """The storage of the first image of a TIFF.

    Attributes
    ----------
    width, height : int
        Pixels.
    tile_width, tile_height : int
        0 for strips.
    places : (int, int)
        Numbers of offsets and byte counts of tiles.
    tile_offsets, tile_byte_counts : [n] int64
        For all bands; empty for strips, if there are more than the index holds, or if their number differs from the
        tiles.
    dtype : str or None
        NumPy's name of the sample type; None if there is none.
    """

    width: int
    height: int
    tile_width: int
    tile_height: int
    byte_order: str
    dtype: str | None
    subfile_type: int
    depth: int
    predictor: int
    compression: int
    places: tuple[int, int]
    tile_offsets: Ints
    tile_byte_counts: Ints
    pixel_scale: tuple[float, ...]
    tiepoint: tuple[float, ...]
    samples_per_pixel: int
    planar_configuration: int
    photometric: int
    extra_samples: tuple[int, ...]
    bits_per_sample: int
    fill_order: int
    lerc_compression: int | None

    @property
    def tiled(self) -> bool:
        return self.tile_width > 0

    @property
    def tiles(self) -> int:
        """Number of tiles of one band, or of all bands if they are interleaved."""
        return tile_total(self.width, self.height, self.tile_width, self.tile_height)


def tile_total(width: int, height: int, tile_width: int, tile_height: int) -> int:
    """Number of tiles of an image; 0 if it has strips."""
    return tiles_along(height, tile_height) * tiles_along(width, tile_width) if tile_width else 0


SUBFILE_TYPE, WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
FILL_ORDER, SAMPLES, PLANAR, PREDICTOR, TILE_WIDTH, TILE_HEIGHT = 266, 277, 284, 317, 322, 323
TILE_OFFSETS, TILE_BYTE_COUNTS, EXTRA_SAMPLES, SAMPLE_FORMAT = 324, 325, 338, 339
IMAGE_DEPTH, TILE_DEPTH, PIXEL_SCALE, TIEPOINT, LERC_PARAMETERS = 32997, 32998, 33550, 33922, 50674

STRIP_PLACES = {273, 279}
"""StripOffsets and StripByteCounts, which libtiff accepts for tiles too."""

KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
"""NumPy's letter for a sample format; GDAL reads undefined formats as unsigned integers."""


def read_layout(header: TiffHeader) -> TiffLayout:
    """The storage of the first image of a TIFF.

    Raises
    ------
    HeaderError
        A tag is missing, or its values violate the format.
    """
    samples = header.integer(SAMPLES, 1)
    bits = header.same(BITS, samples, 1)
    kind = KINDS.get(header.same(SAMPLE_FORMAT, samples, 1))
    is_number = kind is not None and bits in (8, 16, 32, 64) and (kind, bits) != ("f", 8)
    tile_width, tile_height = header.integer(TILE_WIDTH, 0), header.integer(TILE_HEIGHT, 0)
    width, height = header.integer(WIDTH, 0), header.integer(HEIGHT, 0)
    if min(width, height) < 1 or min(tile_width, tile_height) < 0 or (tile_width > 0) != (tile_height > 0):
        raise HeaderError(f"an image of {width} x {height} pixels in tiles of {tile_width} x {tile_height}")
    if tile_width and STRIP_PLACES & set(header.entries):
        raise HeaderError("it has tiles, and places of strips")
    planar = header.integer(PLANAR, 1)
    tiles = tile_total(width, height, tile_width, tile_height)
    wanted = tiles * (samples if planar == SEPARATE else 1)
    places = header.count(TILE_OFFSETS), header.count(TILE_BYTE_COUNTS)
    known = 0 < tiles <= MAX_TILES and wanted <= MAX_PLACES and places == (wanted, wanted)
    lerc = _codes(LERC_PARAMETERS, header.integers(LERC_PARAMETERS))
    return TiffLayout(
        width=width,
        height=height,
        tile_width=tile_width,
        tile_height=tile_height,
        byte_order="big" if header.byte_order == ">" else "little",
        dtype=np.dtype(f"{kind}{bits // 8}").name if is_number else None,
        subfile_type=header.integer(SUBFILE_TYPE, 0),
        depth=max(header.integer(IMAGE_DEPTH, 1), header.integer(TILE_DEPTH, 1)),
        predictor=header.integer(PREDICTOR, 1),
        compression=header.integer(COMPRESSION, 1),
        places=places,
        tile_offsets=header.integers(TILE_OFFSETS, most=wanted) if known else NO_PLACES,
        tile_byte_counts=header.integers(TILE_BYTE_COUNTS, most=wanted) if known else NO_PLACES,
        pixel_scale=header.floats(PIXEL_SCALE),
        tiepoint=header.floats(TIEPOINT),
        samples_per_pixel=samples,
        planar_configuration=planar,
        photometric=header.integer(PHOTOMETRIC, 1),
        extra_samples=_extra_samples(header, samples),
        bits_per_sample=bits,
        fill_order=header.integer(FILL_ORDER, 1),
        lerc_compression=lerc[1] if len(lerc) > 1 else None,
    )


def _extra_samples(header: TiffHeader, samples: int) -> tuple[int, ...]:
    found = header.integers(EXTRA_SAMPLES, most=max(1, samples))
    return tuple(_codes(EXTRA_SAMPLES, found))


def _codes(tag: int, found: Ints) -> list[int]:
    if np.any((found < 0) | (found > INT32_MAX)):
        raise HeaderError(f"tag {tag} has the value(s) {found[:8].tolist()}")
    return found.tolist()
