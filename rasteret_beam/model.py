"""The value types that the layers hand to each other."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, NamedTuple, Protocol

from rasteret_beam.errors import InputError, listed, without_secrets

ALL_BANDS = -1
"""The band set of a key whose points are sampled from all bands, whatever grids these have."""

SIGNERS = ("planetary-computer",)
"""Names of what can sign URLs."""

ALL_RECORDS = -1
"""The record of a key whose points are sampled from all records at their place; its id is empty."""


class TileKey(NamedTuple):
    """What points and polygons are grouped by: a record, some of its bands, and a block of tiles of their grid.

    Points and polygons that need several grids are grouped by their place: by a block of tiles of one of these grids.

    Attributes
    ----------
    record_id : str
        Empty: all records at the place.
    grid, bandset : int
        Positions in the routing index of the grid, and of the set of bands that are read on it; :data:`ALL_BANDS` where
        points or polygons are grouped by place.
    tile_row, tile_col : int
        The block's first tile; a block is a rectangle of neighbouring tiles (or one tile).
    part : int
        0, or of a crowded block the number of a range of points (or polygons), so that many workers share it.
    """

    record_id: str
    grid: int
    bandset: int
    tile_row: int
    tile_col: int
    part: int = 0


@dataclass(frozen=True)
class MatchRules:
    """Which of the records that contain a point are taken.

    Attributes
    ----------
    match : str
        One of :data:`rasteret_beam.kernels.routing.match.WAYS`.
    time_column : str or None
        Column of the points with their times, where these decide.
    tolerance : int or None
        Microseconds from the time of a point to that of a record, at most.
    limit : int or None
        Records of a point, for each band, at most; the nearest in time.
    overlap : "all" or "first"
        Of records of one moment, take all, or the one whose grid holds the point deepest inside.
    overlap_tolerance : int
        Microseconds between two records of one moment, at most.
    places : "", "record" or "point"
        Points are keyed by record and tile, or by their place: for each of their records, or once for all of them.
    wide : bool
        A row holds all bands, so points are keyed by place where these lie on several grids, or are not of one record.
    candidates : int or None
        Records of a point that are looked at, at most, for each band, until one is valid; None: those that are taken.
    quality : tuple of (str, str)
        Bands that decide about quality, and what becomes of a record without one: "error", "pass" or "fail".
    """

    match: str = "all"
    time_column: str | None = None
    tolerance: int | None = None
    limit: int | None = None
    overlap: str = "all"
    overlap_tolerance: int = 60_000_000
    places: str = ""
    wide: bool = False
    candidates: int | None = None
    quality: tuple[tuple[str, str], ...] = ()

    @property
    def quality_bands(self) -> list[str]:
        """The bands that decide about quality, each once."""
        return list(dict.fromkeys(band for band, _ in self.quality))


def tiles_along(pixels: Any, tile_pixels: Any) -> Any:
    """How many tiles cover so many pixels, the last one perhaps in part; of integers or arrays of them."""
    return -(-pixels // tile_pixels)


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

    def tile_counts(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        return tiles_along(self.height, self.tile_height), tiles_along(self.width, self.tile_width)

    def tile_shape(self, tile_row: int, tile_col: int) -> tuple[int, int]:
        """Height and width of a tile in pixels, clipped to the grid."""
        return (
            min(self.tile_height, self.height - tile_row * self.tile_height),
            min(self.tile_width, self.width - tile_col * self.tile_width),
        )

    def to_pixel(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Fractional (row, col) of coordinates in the CRS of the grid, numbers or arrays; their floor is the pixel.

        Rounds as ``~transform * (x, y)`` of the ``affine`` package, so that a point on a pixel's corner falls into
        the pixel that rasterio gives it.
        """
        a, b, c, d, e, f = inverse_affine(*self.transform)
        return x * d + y * e + f, x * a + y * b + c

    def to_world(self, row: Any, col: Any) -> tuple[Any, Any]:
        """(x, y), in the CRS of the grid, of positions in pixels, numbers or arrays; pixel corners have whole ones."""
        a, b, c, d, e, f = self.transform
        return a * col + b * row + c, d * col + e * row + f


def inverse_affine(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any) -> tuple[Any, Any, Any, Any, Any, Any]:
    """The inverse of an affine, or of arrays of them, in the order of operations of the ``affine`` package."""
    scale = 1.0 / (a * e - b * d)
    ra, rb, rd, re = e * scale, -b * scale, -d * scale, a * scale
    return ra, rb, -c * ra - f * rb, rd, re, -c * rd - f * re


class Integers(Protocol):
    """Whole numbers [n], in a sequence or an array."""

    def __len__(self) -> int: ...

    def __getitem__(self, at: Any, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...


@dataclass(frozen=True, eq=False)
class StoredBand:
    """How the tiles of one band are stored in a tiled TIFF, as far as the collection knows.

    Attributes
    ----------
    dtype : str
        NumPy's name of it.
    byte_order : "little", "big" or None
    compression, predictor, planar_configuration, photometric, fill_order : int or None
        TIFF codes.
    samples_per_pixel : int or None
        Bands of the file.
    bits_per_sample : int or None
    lerc_compression : int or None
        The second of a LERC file's parameters: what is around each blob.
    extra_samples : sequence of int
        TIFF codes of the samples beyond those of the photometric interpretation.
    file_size : int or None
        Bytes of the whole file when it was indexed. ``etag`` is the server's mark of that state, and ``header_digest``
        that of a local file.
    fallback_reason : str or None
        Why GDAL has to read the band, as was found when it was indexed.
    tile_offsets, tile_byte_counts : Integers
        Where each tile of this band lies, row-major; both 0 for a tile that is not in the file.
    """

    dtype: str
    byte_order: str | None = None
    compression: int | None = None
    predictor: int | None = None
    samples_per_pixel: int | None = None
    planar_configuration: int | None = None
    photometric: int | None = None
    bits_per_sample: int | None = None
    fill_order: int | None = None
    lerc_compression: int | None = None
    extra_samples: Sequence[int] = ()
    file_size: int | None = None
    etag: str | None = None
    header_digest: str | None = None
    fallback_reason: str | None = None
    tile_offsets: Integers = ()
    tile_byte_counts: Integers = ()


@dataclass(frozen=True, eq=False)
class BandHeader:
    """What is read from a raster file about one of its bands, in the collection's terms.

    Fields that only a TIFF has are None (or empty) for other formats. ``tile_offsets`` and
    ``tile_byte_counts`` [n] are those of this band alone, row-major, and empty where the file
    is not a tiled TIFF, or does not have one for each tile.
    """

    grid: Grid
    dtype: str
    nodata: float | None
    scale: float
    offset: float
    mask: str | None
    byte_order: str | None
    predictor: int | None
    compression: int | None
    tile_offsets: Integers
    tile_byte_counts: Integers
    pixel_scale: tuple[float, ...]
    tiepoint: tuple[float, ...]
    samples_per_pixel: int | None
    planar_configuration: int | None
    photometric: int | None
    extra_samples: tuple[int, ...]
    bits_per_sample: int | None = None
    fill_order: int | None = None
    lerc_compression: int | None = None
    file_size: int | None = None
    etag: str | None = None
    header_digest: str | None = None
    fallback_reason: str | None = None
    description: str | None = None

    @property
    def nodata_integer(self) -> str | None:
        """The nodata value in digits, where it is an integer that float64 cannot hold."""
        return str(self.nodata) if isinstance(self.nodata, int) else None


@dataclass(frozen=True)
class Access:
    """Settings for reading buckets and rasters beyond the URI and the environment; has no credentials.

    Attributes
    ----------
    anonymous : bool
        Send unsigned requests, without credentials.
    region : str or None
        Of an S3 bucket.
    endpoint : str or None
        URL of the service, if it is not that of Amazon, Google or Microsoft. For Azure it ends in the account's name,
        unless the host begins with it.
    requester_pays : bool or str
        Requester pays: True for an S3 bucket; for a Google bucket the project to bill, or True for the project in
        ``GOOGLE_CLOUD_PROJECT``.
    vrt : bool
        Also open virtual rasters (VRT) and the files that they name.
    drivers : sequence of str
        GDAL drivers to use in addition to those of GeoTIFF, JPEG 2000, PNG and JPEG, such as ``["netCDF", "HDF5"]``. It
        also allows other GDAL file systems, such as ``["/vsisubfile/"]``.
    allow_local : bool
        Allow a collection, record table or VRT in a bucket or on the web to name local files and loopback hosts.
    sign : str or callable, optional
        What makes a signed URL of one on the web: a function, which workers get too, or "planetary-computer". URLs are
        signed when they are requested; a collection has them without a signature.
    origin : str or None
        Place of the hrefs if it is not on this machine, set by their readers; None for hrefs of the user.

    Raises
    ------
    InputError
        The endpoint is not a plain URL, or anonymous requests are to be paid for.
    """

    anonymous: bool = False
    region: str | None = None
    endpoint: str | None = None
    requester_pays: bool | str = False
    vrt: bool = False
    drivers: Sequence[str] = ()
    allow_local: bool = False
    sign: str | Callable[[str], str] | None = None
    origin: str | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if isinstance(self.drivers, str):
            object.__setattr__(self, "drivers", (self.drivers,))
        elif isinstance(self.drivers, list):
            object.__setattr__(self, "drivers", tuple(self.drivers))
        for name, kinds, wanted in (
            ("anonymous", bool, "True or False"),
            ("region", str | None, "a text"),
            ("endpoint", str | None, "a text"),
            ("requester_pays", bool | str, "True, False or a project's name"),
            ("vrt", bool, "True or False"),
            ("drivers", tuple, "a list of names of GDAL's drivers"),
            ("allow_local", bool, "True or False"),
            ("sign", str | Callable | None, 'a function of a URL, or "planetary-computer"'),
        ):
            if not isinstance(getattr(self, name), kinds):  # type: ignore[arg-type]
                raise InputError(f"{name} is {getattr(self, name)!r}; it has to be {wanted}")
        if isinstance(self.sign, str) and self.sign not in SIGNERS:
            raise InputError(f"sign is {self.sign!r}; give a function of a URL, or {listed(map(repr, SIGNERS))}")
        if any(not isinstance(name, str) or not name.strip() for name in self.drivers):
            raise InputError(f"drivers is {list(self.drivers)!r}; it has to be a list of names of GDAL's drivers")
        url = self.endpoint
        if url is not None and (not url.startswith(("http://", "https://")) or "@" in url or "?" in url):
            raise InputError(
                f"endpoint is {without_secrets(url)!r}; give a plain URL, http://HOST:PORT or https://HOST, without "
                "user and password: credentials come from the environment"
            )
        if self.anonymous and self.requester_pays:
            raise InputError(
                f"anonymous is True and requester_pays is {self.requester_pays!r}, but a request without credentials "
                "cannot be billed to anybody; give one of the two"
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """Settings that differ from the defaults, as they travel with collections and assets."""
        own = {each.name: getattr(self, each.name) for each in fields(self)}
        return partial(Access, **{name: value for name, value in own.items() if value != getattr(Access, name)}), ()

    @property
    def of_bucket(self) -> tuple[bool, str | None, str | None, bool | str]:
        """What is said of the bucket alone."""
        return self.anonymous, self.region, self.endpoint, self.requester_pays


DEFAULT_ACCESS = Access()
"""As the URI and the environment say."""


@dataclass(frozen=True, eq=False)
class Asset:
    """Where the pixels of one band of one record are.

    Attributes
    ----------
    record_id, band : str
    href : str
        The file; ``band_index`` is 0-based.
    nodata : number or None
        An int where float64 cannot hold it.
    stored : StoredBand or None
        How its tiles are stored, where the collection says it.
    mask : str or None
        Flags of the band's mask, see :mod:`rasteret_beam.kernels.sampling.validity`; None where the
        collection does not say.
    access : Access
        How the file's bucket is read.
    scale, offset : float or None
        From stored numbers to physical units, ``number * scale + offset``; None where the collection does not say, and
        the file may.
    """

    record_id: str
    band: str
    href: str
    band_index: int
    nodata: float | None = None
    stored: StoredBand | None = None
    access: Access = DEFAULT_ACCESS
    mask: str | None = None
    scale: float | None = None
    offset: float | None = None
