"""The value types that the layers hand to each other."""

from dataclasses import dataclass
from typing import NamedTuple


class TileKey(NamedTuple):
    """What points are grouped by: a record, and a block of tiles of one of its grids.

    Attributes
    ----------
    record_id : str
    grid : int
        Number, in the collection's routing index, of the grid and of the bands read on it.
    tile_row, tile_col : int
        The block's first tile; a block is a square of neighbouring tiles (one tile where
        the block side is 1).
    part : int
        0, or a number of its own for each large chunk, so that a crowded tile is sampled by
        many workers.
    """

    record_id: str
    grid: int
    tile_row: int
    tile_col: int
    part: int = 0


@dataclass(frozen=True)
class Grid:
    """What makes pixel addresses equal.

    Attributes
    ----------
    crs : str
        Authority code (``EPSG:32631``) or, where there is none, WKT.
    transform : tuple of 6 floats
        Affine ``(a, b, c, d, e, f)``: ``x = a*col + b*row + c``, ``y = d*col + e*row + f``,
        in units of the CRS, for the pixel's upper-left corner.
    width, height : int
        Pixels.
    tile_width, tile_height : int
        Pixels of one tile; edge tiles are clipped to the grid.
    """

    crs: str
    transform: tuple[float, float, float, float, float, float]
    width: int
    height: int
    tile_width: int
    tile_height: int


@dataclass(frozen=True)
class BandHeader:
    """What is read from a raster file about one of its bands, in the collection's terms.

    Fields that only a TIFF has are None (or empty) for other formats. ``tile_offsets`` and
    ``tile_byte_counts`` are those of this band alone, row-major, and empty where the file
    is not a tiled TIFF.
    """

    grid: Grid
    dtype: str
    nodata: float | None
    scale: float
    offset: float
    mask: str
    byte_order: str | None
    predictor: int | None
    compression: int | None
    tile_offsets: tuple[int, ...]
    tile_byte_counts: tuple[int, ...]
    pixel_scale: tuple[float, ...]
    tiepoint: tuple[float, ...]
    samples_per_pixel: int
    planar_configuration: int | None
    photometric: int | None
    extra_samples: tuple[int, ...]


@dataclass(frozen=True)
class Asset:
    """Where the pixels of one band of one record are: a file and a 0-based band index; and its nodata value."""

    record_id: str
    band: str
    href: str
    band_index: int
    nodata: float | None = None
