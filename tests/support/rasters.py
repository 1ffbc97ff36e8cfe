"""Raster files of many kinds, the points to sample them at, and rasterio's answer for those points."""

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio  # type: ignore[import-untyped]
import rasterio.mask
import rasterio.transform
import tifffile
from affine import Affine
from rasterio.features import bounds
from rasterio.windows import Window

RASTERIO = tuple(int(part) for part in rasterio.__version__.split(".")[:2])
GDAL = tuple(int(part) for part in rasterio.__gdal_version__.split(".")[:2])

INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
FLOATS = ("float32", "float64")

# A pixel size that is a power of two makes every pixel border an exact float, in both directions.
UTM = Affine(16.0, 0.0, 500_000.0, 0.0, -16.0, 4_500_000.0)
ROTATED = Affine(16.0, 16.0, 500_000.0, 16.0, -16.0, 4_500_000.0)
STEP = 2.0**-10  # of a pixel
NAN = float("nan")
LOWEST = float(np.finfo("float32").min)

DEFLATE = {"COMPRESS": "DEFLATE"}
RGB = {"PHOTOMETRIC": "RGB", "INTERLEAVE": "PIXEL"}
PIXEL = {"INTERLEAVE": "PIXEL"}
YCBCR = {"COMPRESS": "JPEG", "PHOTOMETRIC": "YCBCR", "INTERLEAVE": "PIXEL", "JPEG_QUALITY": "60"}


@dataclass(frozen=True, kw_only=True)
class RasterCase:
    """One kind of file.

    ``tile`` is (width, height); without it the file has strips of ``strip_rows`` rows. ``gaps`` is put in
    a tenth of the pixels, and ``sparse`` leaves every other block out of the file. Where not ``exact``,
    rounding decides which pixel a point on a pixel border falls in.
    """

    name: str
    dtype: str
    driver: str = "GTiff"
    count: int = 1
    width: int = 203
    height: int = 157
    crs: str = "EPSG:32631"
    transform: Affine = UTM
    nodata: float | None = None
    gaps: float | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    tile: tuple[int, int] | None = (64, 64)
    strip_rows: int = 0
    smooth: bool = False
    sparse: bool = False
    masked: bool = False
    overviews: tuple[int, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    scale: float = 1.0
    offset: float = 0.0
    exact: bool = True

    def write(self, folder: Path) -> Path:
        path = folder / f"{self.name}.tif"
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", **self._profile()) as dst,
        ):
            dst.update_tags(**self.tags)
            if (self.scale, self.offset) != (1.0, 0.0):
                dst.scales = (self.scale,) * self.count
                dst.offsets = (self.offset,) * self.count
            dst.write(self._values(rng))
            if self.masked:
                dst.write_mask(rng.random((self.height, self.width)) < 0.7)
            if self.overviews:
                dst.build_overviews(self.overviews)
        return path

    def _profile(self) -> dict[str, Any]:
        names = ("driver", "dtype", "count", "width", "height", "crs", "transform", "nodata")
        return {name: getattr(self, name) for name in names} | self._blocks() | dict(self.options)

    def _blocks(self) -> dict[str, Any]:
        if self.driver == "COG":
            return {"BLOCKSIZE": 128}
        if self.tile is None:
            return {"BLOCKYSIZE": self.strip_rows}
        return {"TILED": "YES", "BLOCKXSIZE": self.tile[0], "BLOCKYSIZE": self.tile[1]}

    def _values(self, rng: np.random.Generator) -> np.ndarray:
        values = self._waves(rng) if self.smooth else self._noise(rng)
        gaps = self.nodata if self.gaps is None else self.gaps
        if gaps is not None:
            values[rng.random(values.shape) < 0.1] = gaps
        if self.sparse:
            values[:, self._left_out()] = 0 if self.nodata is None else self.nodata
        return values

    def _noise(self, rng: np.random.Generator) -> np.ndarray:
        shape = (self.count, self.height, self.width)
        low, high = self._ends()
        if self.dtype in FLOATS:
            values = (1000 * rng.standard_normal(shape)).astype(self.dtype)
        else:
            values = rng.integers(low, high, shape, dtype=self.dtype, endpoint=True)
        values[:, 0, 0] = low
        values[:, -1, -1] = high
        return values

    def _waves(self, rng: np.random.Generator) -> np.ndarray:
        band, row, col = np.ogrid[: self.count, : self.height, : self.width]
        waves = np.sin(col / 17 + band) * np.cos(row / 23 - band)
        noise = rng.uniform(-0.1, 0.1, (self.count, self.height, self.width))
        low, high = (0, 1000) if self.dtype in FLOATS else self._ends()
        return (low + (0.5 + 0.4 * waves + noise) * (high - low)).astype(self.dtype)

    def _ends(self) -> tuple[Any, Any]:
        if "NBITS" in self.options and self.dtype not in FLOATS:
            return 0, 2 ** int(self.options["NBITS"]) - 1
        info = np.finfo(self.dtype) if self.dtype in FLOATS else np.iinfo(self.dtype)
        return info.min, info.max

    def _left_out(self) -> np.ndarray:
        wide, high = (128, 128) if self.driver == "COG" else self.tile or (self.width, self.strip_rows)
        row, col = np.ogrid[: self.height, : self.width]
        return (row // high + col // wide) % 2 == 1


def _types() -> Iterator[RasterCase]:
    for dtype in (*INTEGERS, *FLOATS):
        yield RasterCase(name=f"type_{dtype}", dtype=dtype, options=DEFLATE)
    yield RasterCase(name="nbits12_uint16", dtype="uint16", options=DEFLATE | {"NBITS": "12"})
    yield RasterCase(name="nbits1_uint8", dtype="uint8", options=DEFLATE | {"NBITS": "1"})
    yield RasterCase(name="nbits16_float32", dtype="float32", smooth=True, options=DEFLATE | {"NBITS": "16"})
    yield RasterCase(name="scale_offset", dtype="int16", options=DEFLATE, scale=0.01, offset=-40.0)
    yield RasterCase(name="min_is_white", dtype="uint8", options=DEFLATE | {"PHOTOMETRIC": "MINISWHITE"})


def _lossless() -> Iterator[RasterCase]:
    for codec in ("NONE", "PACKBITS", "LZW", "DEFLATE", "ZSTD"):
        options = {"COMPRESS": codec}
        yield RasterCase(name=f"{codec.lower()}_noise", dtype="uint16", options=options)
        yield RasterCase(name=f"{codec.lower()}_smooth", dtype="uint8", smooth=True, options=options)
        yield RasterCase(name=f"{codec.lower()}_tile_64x32", dtype="float32", tile=(64, 32), options=options)


def _lerc() -> Iterator[RasterCase]:
    for codec in ("LERC", "LERC_DEFLATE", "LERC_ZSTD"):
        options = {"COMPRESS": codec}
        for dtype in ("uint8", "int16", "float32", "float64"):
            yield RasterCase(name=f"{codec.lower()}_{dtype}", dtype=dtype, options=options)
        yield RasterCase(name=f"{codec.lower()}_nan", dtype="float32", nodata=NAN, smooth=True, options=options)
    lossy = {"COMPRESS": "LERC", "MAX_Z_ERROR": "0.5"}
    yield RasterCase(name="lerc_lossy", dtype="float32", smooth=True, options=lossy)
    for interleave in ("PIXEL", "BAND"):
        options = {"COMPRESS": "LERC", "INTERLEAVE": interleave}
        yield RasterCase(name=f"lerc_{interleave.lower()}", dtype="int16", count=3, options=options)


def _lossy() -> Iterator[RasterCase]:
    def image(name: str, count: int, options: Mapping[str, str], **other: Any) -> RasterCase:
        return RasterCase(name=name, dtype="uint8", count=count, smooth=True, options=options, **other)

    jpeg = {"COMPRESS": "JPEG", "JPEG_QUALITY": "60"}
    webp = {"COMPRESS": "WEBP", "INTERLEAVE": "PIXEL"}
    yield image("jpeg_gray", 1, jpeg)
    yield image("jpeg_gray_own_tables", 1, jpeg | {"JPEGTABLESMODE": "0"})
    yield image("jpeg_ycbcr", 3, YCBCR)
    yield image("jpeg_ycbcr_strips", 3, YCBCR, tile=None, strip_rows=16)
    yield image("jpeg_rgb", 3, jpeg | RGB)
    yield image("jpeg_planar", 3, jpeg | {"INTERLEAVE": "BAND"})
    yield image("webp_lossy", 3, webp | {"WEBP_LEVEL": "60"})
    yield image("webp_lossless", 3, webp | {"WEBP_LOSSLESS": "YES"})
    yield image("webp_alpha", 4, webp | {"WEBP_LOSSLESS": "YES", "ALPHA": "YES"})


def _predictors() -> Iterator[RasterCase]:
    one, two, three = (DEFLATE | {"PREDICTOR": number} for number in "123")
    yield RasterCase(name="predictor1", dtype="uint16", options=one)
    for dtype in (*INTEGERS, *FLOATS):
        yield RasterCase(name=f"predictor2_{dtype}", dtype=dtype, options=two)
    for dtype in FLOATS:
        yield RasterCase(name=f"predictor3_{dtype}", dtype=dtype, options=three)
    for codec in ("LZW", "ZSTD"):
        options = {"COMPRESS": codec}
        yield RasterCase(name=f"{codec.lower()}_predictor2", dtype="int16", options=two | options)
        yield RasterCase(name=f"{codec.lower()}_predictor3", dtype="float32", options=three | options)
    for interleave in ("PIXEL", "BAND"):
        options, suffix = {"INTERLEAVE": interleave}, interleave.lower()
        yield RasterCase(name=f"predictor2_{suffix}", dtype="uint16", count=3, options=two | options)
        yield RasterCase(name=f"predictor3_{suffix}", dtype="float32", count=3, options=three | options)


def _layouts() -> Iterator[RasterCase]:
    for interleave in ("PIXEL", "BAND"):
        options, suffix = DEFLATE | {"INTERLEAVE": interleave}, interleave.lower()
        yield RasterCase(name=f"tiles_{suffix}", dtype="int16", count=4, tile=(64, 32), options=options)
        yield RasterCase(name=f"strips_{suffix}", dtype="int16", count=3, tile=None, strip_rows=7, options=options)
    for rows in (1, 7, 157):
        yield RasterCase(name=f"strips_{rows}", dtype="uint16", tile=None, strip_rows=rows, options=DEFLATE)
        yield RasterCase(name=f"strips_{rows}_none", dtype="float32", tile=None, strip_rows=rows)
    yield RasterCase(
        name="strips_predictor2",
        dtype="int32",
        tile=None,
        strip_rows=7,
        options={"COMPRESS": "LZW", "PREDICTOR": "2"},
    )
    yield RasterCase(name="smaller_than_tile", dtype="int16", width=5, height=3, options=DEFLATE)
    yield RasterCase(name="one_pixel", dtype="float32", width=1, height=1, options=DEFLATE)
    yield RasterCase(name="one_pixel_strip", dtype="uint8", width=1, height=1, tile=None, strip_rows=1, options=DEFLATE)


def _byte_orders() -> Iterator[RasterCase]:
    big, bigtiff = DEFLATE | {"ENDIANNESS": "BIG"}, DEFLATE | {"BIGTIFF": "YES"}
    little = DEFLATE | {"ENDIANNESS": "LITTLE"}
    two, three = {"PREDICTOR": "2"}, {"PREDICTOR": "3"}
    yield RasterCase(name="little_uint16", dtype="uint16", options=little)
    for dtype in ("uint8", "int16", "uint32", "int64", *FLOATS):
        yield RasterCase(name=f"big_{dtype}", dtype=dtype, options=big)
    for dtype in ("uint8", "uint16", "int32", "uint64"):
        yield RasterCase(name=f"big_predictor2_{dtype}", dtype=dtype, options=big | two)
    for dtype in FLOATS:
        yield RasterCase(name=f"big_predictor3_{dtype}", dtype=dtype, options=big | three)
    yield RasterCase(name="big_none_strips", dtype="uint16", tile=None, strip_rows=7, options={"ENDIANNESS": "BIG"})
    yield RasterCase(name="big_pixel_predictor2", dtype="uint16", count=3, options=big | two | RGB)
    yield RasterCase(name="big_lerc", dtype="int16", options=big | {"COMPRESS": "LERC"})
    yield RasterCase(name="bigtiff", dtype="uint16", options=bigtiff)
    yield RasterCase(name="bigtiff_big", dtype="float32", options=bigtiff | big | three)
    yield RasterCase(name="bigtiff_strips", dtype="int16", tile=None, strip_rows=7, options=bigtiff)


def _sparse() -> Iterator[RasterCase]:
    def sparse(name: str, options: Mapping[str, str] = DEFLATE, dtype: str = "int16", **other: Any) -> RasterCase:
        options = {**options, "SPARSE_OK": "TRUE"}
        return RasterCase(name=name, dtype=dtype, sparse=True, options=options, **other)

    yield sparse("sparse")
    yield sparse("sparse_nodata", nodata=-9999)
    yield sparse("sparse_nan", dtype="float32", nodata=NAN)
    yield sparse("sparse_lowest", dtype="float32", nodata=LOWEST)
    yield sparse("sparse_strips", nodata=-1, tile=None, strip_rows=7)
    yield sparse("sparse_pixel", DEFLATE | {"INTERLEAVE": "PIXEL"}, count=3, nodata=7)
    yield sparse("sparse_band", DEFLATE | {"INTERLEAVE": "BAND"}, count=3, nodata=7)
    yield sparse("sparse_bigtiff", DEFLATE | {"BIGTIFF": "YES"}, nodata=-9999)
    yield sparse("sparse_none", {}, nodata=-9999)
    yield sparse("sparse_jpeg", YCBCR, dtype="uint8", count=3, smooth=True)
    yield sparse("sparse_cog", driver="COG", nodata=-9999)


def _nodata() -> Iterator[RasterCase]:
    yield RasterCase(name="nodata_integer", dtype="int16", nodata=-9999, options=DEFLATE)
    yield RasterCase(name="nodata_zero", dtype="uint8", nodata=0, options=DEFLATE)
    yield RasterCase(name="nodata_int64", dtype="int64", nodata=-9999, options=DEFLATE)
    yield RasterCase(name="nodata_nan", dtype="float32", nodata=NAN, options=DEFLATE)
    yield RasterCase(name="nodata_nan_float64", dtype="float64", nodata=NAN, options=DEFLATE)
    yield RasterCase(name="nodata_float", dtype="float32", nodata=-9999.0, options=DEFLATE)
    yield RasterCase(name="nodata_lowest", dtype="float32", nodata=LOWEST, options=DEFLATE)
    yield RasterCase(name="nodata_and_nan", dtype="float32", nodata=-9999.0, gaps=NAN, options=DEFLATE)
    yield RasterCase(name="nan_without_nodata", dtype="float32", gaps=NAN, options=DEFLATE)
    yield RasterCase(name="infinity", dtype="float64", gaps=float("-inf"), options=DEFLATE)
    yield RasterCase(name="nodata_several_bands", dtype="uint16", count=3, nodata=65535, options=DEFLATE)


def _converted() -> Iterator[RasterCase]:
    """Files whose pixels GDAL gives otherwise than they are stored, and some that look like them."""

    def image(name: str, count: int, photometric: str, dtype: str = "uint8", **options: str) -> RasterCase:
        options = {"COMPRESS": "DEFLATE", "INTERLEAVE": "PIXEL", "PHOTOMETRIC": photometric} | options
        return RasterCase(name=name, dtype=dtype, count=count, options=options)

    yield image("cmyk", 4, "CMYK")
    yield image("cmyk_lzw", 4, "CMYK", COMPRESS="LZW")
    yield image("cmyk_none", 4, "CMYK", COMPRESS="NONE")
    yield image("cmyk_planar", 4, "CMYK", INTERLEAVE="BAND")
    yield image("cmyk_uint16", 4, "CMYK", dtype="uint16")
    yield image("cielab", 3, "CIELAB")
    yield image("icclab", 3, "ICCLAB")
    yield image("itulab", 3, "ITULAB")
    yield image("rgb_uint8", 3, "RGB")
    yield image("min_is_white_uint16", 1, "MINISWHITE", dtype="uint16")
    yield RasterCase(name="lerc_alpha", dtype="uint8", count=2, options={"COMPRESS": "LERC", "ALPHA": "YES"} | PIXEL)
    for codec in ("LERC", "LERC_ZSTD"):
        options = {"COMPRESS": codec} | PIXEL
        yield RasterCase(name=f"{codec.lower()}_nan_pixel", dtype="float32", count=3, gaps=NAN, options=options)


def _masks() -> Iterator[RasterCase]:
    yield RasterCase(name="mask", dtype="int16", masked=True, options=DEFLATE)
    yield RasterCase(name="mask_rgb", dtype="uint8", count=3, masked=True, smooth=True, options=YCBCR)
    yield RasterCase(name="alpha", dtype="uint8", count=4, options=DEFLATE | RGB | {"ALPHA": "YES"})
    yield RasterCase(name="alpha_gray", dtype="uint16", count=2, options=DEFLATE | {"ALPHA": "YES"})


def _overviews() -> Iterator[RasterCase]:
    two, three = {"PREDICTOR": "STANDARD"}, {"PREDICTOR": "FLOATING_POINT"}
    jpeg = {"COMPRESS": "JPEG", "QUALITY": "60"}
    yield RasterCase(name="overviews", dtype="int16", overviews=(2, 4), options=DEFLATE)
    yield RasterCase(name="cog", dtype="uint16", driver="COG", options=DEFLATE)
    yield RasterCase(name="cog_lzw_predictor2", dtype="int16", driver="COG", options=two | {"COMPRESS": "LZW"})
    yield RasterCase(name="cog_predictor3", dtype="float32", driver="COG", nodata=NAN, options=DEFLATE | three)
    yield RasterCase(name="cog_bands", dtype="uint16", driver="COG", count=5, options={"COMPRESS": "ZSTD"})
    yield RasterCase(name="cog_mask", dtype="int16", driver="COG", masked=True, options=DEFLATE)
    yield RasterCase(name="cog_jpeg_mask", dtype="uint8", driver="COG", count=3, masked=True, smooth=True, options=jpeg)


def _grids() -> Iterator[RasterCase]:
    def grid(name: str, transform: Affine = UTM, **other: Any) -> RasterCase:
        return RasterCase(name=name, dtype="int32", transform=transform, options=DEFLATE, **other)

    point = {"AREA_OR_POINT": "Point"}
    south_up = Affine(16.0, 0.0, 500_000.0, 0.0, 16.0, 4_400_000.0)
    yield grid("south_up", south_up)
    yield grid("east_left", Affine(-16.0, 0.0, 510_000.0, 0.0, -16.0, 4_500_000.0))
    yield grid("rotated", ROTATED)
    yield grid("rotated_30", Affine(13.86, 8.0, 500_000.0, 8.0, -13.86, 4_500_000.0), exact=False)
    yield grid("sheared", Affine(16.0, 4.0, 500_000.0, 0.0, -8.0, 4_500_000.0))
    yield grid("not_square", Affine(32.0, 0.0, 500_000.0, 0.0, -8.0, 4_500_000.0))
    yield grid("point", tags=point)
    yield grid("point_rotated", ROTATED, tags=point)
    yield grid("point_south_up", south_up, tags=point)
    yield grid("metres_10", Affine(10.0, 0.0, 499_980.0, 0.0, -10.0, 4_500_000.0), exact=False)
    yield grid("geographic", Affine(1 / 64, 0.0, 5.0, 0.0, -1 / 64, 52.0), crs="EPSG:4326")
    arc_seconds = Affine(1 / 1200, 0.0, 5.0 - 1 / 2400, 0.0, -1 / 1200, 52.0 + 1 / 2400)
    yield grid("arc_seconds_3", arc_seconds, crs="EPSG:4326", exact=False)
    global_grid = Affine(1.0, 0.0, 0.0, 0.0, -1.0, 90.0)
    yield grid("longitude_0_360", global_grid, crs="EPSG:4326", width=360, height=180)
    yield grid("web_mercator", Affine(32.0, 0.0, 261_600.0, 0.0, -32.0, 6_250_000.0), crs="EPSG:3857")
    antimeridian = Affine(256.0, 0.0, 710_000.0, 0.0, -256.0, 5_000_000.0)
    yield grid("antimeridian", antimeridian, crs="EPSG:32660")


GROUPS = (
    _types,
    _lossless,
    _lerc,
    _lossy,
    _predictors,
    _layouts,
    _byte_orders,
    _sparse,
    _nodata,
    _converted,
    _masks,
    _overviews,
    _grids,
)
CASES: tuple[RasterCase, ...] = tuple(one for group in GROUPS for one in group())
_BY_NAME = {one.name: one for one in CASES}


def case(name: str) -> RasterCase:
    return _BY_NAME[name]


def points_for(path: Path, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Give ``n`` random points inside the raster, then those on and about its borders, as x and y."""
    rng = np.random.default_rng(seed)
    with rasterio.open(path) as src:
        size = np.array([src.width, src.height])
        block = np.array(src.block_shapes[0][::-1])
        transform = src.transform
    places = (
        rng.uniform(0, size, (n, 2)),
        _pixel_corners(rng, size),
        _edges_and_outside(rng, size),
        _block_borders(rng, size, block),
    )
    col, row = np.concatenate(places).T
    a, b, c, d, e, f = transform[:6]
    return a * col + b * row + c, d * col + e * row + f


def _inside(rng: np.random.Generator, size: np.ndarray, n: int) -> np.ndarray:
    """Give random points at whole steps, which an exact grid's transform does not round."""
    return rng.integers(0, size * round(1 / STEP), (n, 2)) * STEP


def _pixel_corners(rng: np.random.Generator, size: np.ndarray) -> np.ndarray:
    raster_corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * size
    return np.concatenate([raster_corners, rng.integers(0, size, (24, 2), endpoint=True)])


def _edges_and_outside(rng: np.random.Generator, size: np.ndarray) -> np.ndarray:
    """Give points at several distances before and behind each of the four edges, 0 being on it."""
    found = []
    for axis in (0, 1):
        for distance in (0.0, STEP, 0.5, 1000.0):
            points = _inside(rng, size, 8)
            points[:4, axis] = -distance
            points[4:, axis] = size[axis] + distance
            found.append(points)
    return np.concatenate(found)


def _block_borders(rng: np.random.Generator, size: np.ndarray, block: np.ndarray) -> np.ndarray:
    """Give points on the borders between blocks and just to either side, for up to six borders a way."""
    found = [np.empty((0, 2))]
    for axis in (0, 1):
        borders = rng.permutation(np.arange(block[axis], size[axis], block[axis]))[:6]
        for shift in (-STEP, 0.0, STEP):
            points = _inside(rng, size, len(borders))
            points[:, axis] = borders + shift
            found.append(points)
    return np.concatenate(found)


def pixel_of(affine: Affine, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the pixels that hold some points, by the inverse of the affine.

    That is what rasterio did up to 1.4. Since 1.5 it solves the equations instead, which rounds otherwise: on a grid
    whose pixel corners are no exact floats, a point on a corner can fall on its other side.
    """
    if RASTERIO < (1, 5):
        row, col = rasterio.transform.rowcol(affine, x, y)
        return np.asarray(row), np.asarray(col)
    matrix = np.array(~affine, dtype=np.float64).reshape(3, 3)
    col, row = matrix.dot(np.stack([np.asarray(x), np.asarray(y), np.ones(np.shape(x))]))[:2]
    return np.floor(row).astype(np.int32), np.floor(col).astype(np.int32)


def tight_window(dataset: Any, shapes: Any, pad_x: float = 0, pad_y: float = 0) -> Window:
    """The pixels about some shapes: bounds in pixels, as rasterio took them up to 1.4.

    Since 1.5 it takes those in the CRS and then the pixels about them, which on a rotated grid are many more.
    """
    left, bottom, right, top = np.array([bounds(shape, transform=~dataset.transform) for shape in shapes]).T
    col, row = np.floor(left.min() - pad_x), np.floor(min(bottom.min(), top.min()) - pad_y)
    right_end, lower_end = np.ceil(right.max() + pad_x), np.ceil(max(bottom.max(), top.max()) + pad_y)
    window = Window(int(col), int(row), int(right_end - col), int(lower_end - row))
    return window.intersection(Window(0, 0, dataset.width, dataset.height))


if RASTERIO >= (1, 5):
    rasterio.mask.geometry_window = tight_window  # so that its masks are compared with ours pixel by pixel


def oracle(path: Path, band_index: int, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Give rasterio's value at each point, NaN outside the raster, and whether the point is inside."""
    with rasterio.open(path) as src:
        band = src.read(band_index + 1)
        row, col = pixel_of(src.transform, x, y)
    inside = (row >= 0) & (row < band.shape[0]) & (col >= 0) & (col < band.shape[1])
    values = np.full(len(x), np.nan)
    values[inside] = band[row[inside], col[inside]]
    return values, inside


def damage_tile(path: Path, number: int) -> None:
    """Overwrite the bytes of one tile of a file."""
    with tifffile.TiffFile(path) as file:
        start, length = file.pages[0].dataoffsets[number], file.pages[0].databytecounts[number]
    content = bytearray(path.read_bytes())
    content[start : start + length] = b"\xff" * length
    path.write_bytes(content)
