"""Read the headers of raster files: the facts that a collection stores for each band.

GDAL (through rasterio) gives CRS, affine, types and nodata. The first directory of a TIFF gives the storage of the
pixels: tile offsets, compression, predictor, byte order. If the two disagree, GDAL converts pixels or tolerates an
error, and the collection stores the reason why GDAL has to read the band.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from affine import Affine
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from rasteret_beam.errors import CollectionError, PermissionDeniedError, RasteretBeamError, one_line
from rasteret_beam.kernels.geo.crs import crs_text
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.sampling.validity import flag_names
from rasteret_beam.kernels.storage.tiff_index import MAX_TILES, SEPARATE
from rasteret_beam.metrics import Counters
from rasteret_beam.model import DEFAULT_ACCESS, Access, BandHeader, Grid
from rasteret_beam.readers.gdal.nodata import nodata_values
from rasteret_beam.readers.gdal.rasters import Raster
from rasteret_beam.readers.gdal.tiff_header import (
    NO_PLACES,
    HeaderError,
    TiffHeader,
    TiffLayout,
    header_digest,
    read_layout,
)
from rasteret_beam.readers.gdal.world_files import DRIVERS
from rasteret_beam.readers.storage.byte_ranges import FileState, RangeError
from rasteret_beam.readers.storage.href_policy import why_refused
from rasteret_beam.readers.storage.local_files import exists
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.readers.storage.stores import local_path

STRIP_PIXELS = 1 << 18
"""Pixels up to which strips are combined into one tile (as in a 512 x 512 tile)."""

MAX_BANDS = 10_000
"""Bands of a file that are read by default; a corrupt header may claim 65,535, and each band adds columns."""

FULL_RESOLUTION = (0, 2)
"""Subfile types (TIFF 6.0, NewSubfileType) of a full-resolution image and of a page; others are overviews or masks."""


@dataclass(frozen=True, eq=False)
class StoredFile:
    """The storage of a raster file.

    Attributes
    ----------
    layout : TiffLayout or None
        None for other formats, and for a TIFF whose header cannot be parsed, with the reason in ``why_not``.
    size : int or None
    etag : str or None
        ETag of a remote file; ``digest`` is that of a local file's header.
    """

    layout: TiffLayout | None = None
    why_not: str | None = None
    size: int | None = None
    etag: str | None = None
    digest: str | None = None


def stored_file(dataset: DatasetReader, raster: Raster) -> StoredFile:
    """Read the storage of the first (full resolution) image of a file, and the state that detects changes."""
    is_tiff = dataset.driver == "GTiff"
    if not raster.has_bytes or not (is_tiff or raster.is_local):
        return StoredFile()
    with raster.open_bytes() as (file, size, etag):
        digest = header_digest(file, size) if raster.is_local else None
        layout, why_not = None, None
        if is_tiff:
            try:
                layout = read_layout(TiffHeader(file, size))
            except HeaderError as error:
                why_not = f"its TIFF header is irregular: {error}"
        return StoredFile(layout, why_not, size, etag, digest)


def read_headers(
    href: str, band_indexes: Sequence[int] | None = None, access: Access = DEFAULT_ACCESS
) -> list[BandHeader]:
    """Headers of some or all bands of a raster file.

    Parameters
    ----------
    href : str
        A path, a URL or another name for GDAL, if :mod:`.href_policy` allows it.
    band_indexes : sequence of int, optional
        0-based.
    access : Access
        Access to its bucket.

    Raises
    ------
    CollectionError
        The file has no CRS or no georeferencing, lacks one of the bands, or has complex values.
    RasterioError, RangeError
        The file cannot be opened.
    """
    with closing(Raster(FileState(href, access=access), Counters())) as raster:
        return raster.read(lambda dataset: _headers(dataset, raster, band_indexes), Counters())


def _headers(dataset: DatasetReader, raster: Raster, band_indexes: Sequence[int] | None) -> list[BandHeader]:
    if band_indexes is None and dataset.count > MAX_BANDS:
        raise CollectionError(f"the file has {dataset.count} bands; choose at most {MAX_BANDS} of them with bands")
    wanted = list(band_indexes) if band_indexes is not None else list(range(dataset.count))
    missing = [index for index in wanted if not 0 <= index < dataset.count]
    if missing:
        raise CollectionError(f"band index is {missing[0]} (counted from 0), but the file has {dataset.count} band(s)")
    stored, given = stored_file(dataset, raster), GivenBands.of(dataset)
    crs, transform = _georeference(dataset, raster)
    return [_band_header(given, index, crs, transform, stored) for index in wanted]


def _georeference(dataset: DatasetReader, raster: Raster) -> tuple[str, tuple[float, ...]]:
    affine, crs = dataset.transform, dataset.crs
    if affine.is_identity and dataset.driver in DRIVERS and (placed := raster.world_file()) is not None:
        # In GDAL's order it follows the file's own georeferencing and precedes control points, which use the file's
        # CRS.
        affine, crs = Affine(*placed), crs or dataset.gcps[1]
    if affine.is_identity:
        _refuse_control_points(dataset)
    if crs is None:
        raise CollectionError("the file has no CRS; assign one (rio edit-info --crs ...)")
    transform = tuple(float(value) for value in affine[:6])
    if affine.is_identity or affine.is_degenerate or not np.isfinite(transform).all():
        raise CollectionError(f"the file has no usable georeferencing (its affine is {transform})")
    return crs_text(crs.to_wkt()), transform


def _refuse_control_points(dataset: DatasetReader) -> None:
    """Refuse a raster that is georeferenced only by control points or polynomials, without an affine."""
    if dataset.gcps[0]:
        placed, how = f"ground control points ({len(dataset.gcps[0])} GCPs)", "gdalwarp"
    elif dataset.rpcs is not None:
        placed, how = "rational polynomial coefficients (RPCs)", "gdalwarp -rpc"
    else:
        return
    raise CollectionError(
        f"the file is georeferenced by {placed} only, without an affine; warp it to a grid first "
        f"({how} -t_srs EPSG:4326 in.tif out.tif, with your CRS), and use the result"
    )


@dataclass(frozen=True, eq=False)
class GivenBands:
    """rasterio's facts of all bands of a dataset, read once, as each list takes time for every band."""

    driver: str
    width: int
    height: int
    count: int
    dtypes: Sequence[str]
    block_shapes: Sequence[tuple[int, int]]
    nodata: Sequence[float | None]
    scales: Sequence[float]
    offsets: Sequence[float]
    masks: Sequence[str]
    descriptions: Sequence[str | None]

    @classmethod
    def of(cls, dataset: DatasetReader) -> "GivenBands":
        return cls(
            dataset.driver,
            dataset.width,
            dataset.height,
            dataset.count,
            dataset.dtypes,
            dataset.block_shapes,
            nodata_values(dataset),
            dataset.scales,
            dataset.offsets,
            [flag_names(flags) for flags in dataset.mask_flag_enums],
            dataset.descriptions,
        )


def _band_header(
    dataset: GivenBands, index: int, crs: str, transform: tuple[float, ...], stored: StoredFile
) -> BandHeader:
    dtype = np.dtype(dataset.dtypes[index])
    if dtype.kind not in "iuf":
        raise CollectionError(f"band index {index} is {dtype}; only real numbers can be sampled")
    layout = stored.layout
    height, width = dataset.block_shapes[index]
    if _is_striped(dataset, width, layout):
        height *= max(1, STRIP_PIXELS // (width * height))
        height = min(height, max(dataset.block_shapes[index][0], dataset.height))
    grid = Grid(crs, transform, dataset.width, dataset.height, width, height)  # type: ignore[arg-type]
    why_not = stored.why_not or _why_differs(dataset, index, layout)
    offsets, counts = _tiles_of_band(layout, index)
    return BandHeader(
        grid=grid,
        dtype=str(dtype),
        nodata=dataset.nodata[index],
        scale=float(dataset.scales[index]),
        offset=float(dataset.offsets[index]),
        mask=dataset.masks[index],
        byte_order=layout.byte_order if layout else None,
        predictor=layout.predictor if layout else None,
        compression=layout.compression if layout else None,
        tile_offsets=offsets,
        tile_byte_counts=counts,
        pixel_scale=layout.pixel_scale if layout else (),
        tiepoint=layout.tiepoint if layout else (),
        samples_per_pixel=layout.samples_per_pixel if layout else dataset.count,
        planar_configuration=layout.planar_configuration if layout else None,
        photometric=layout.photometric if layout else None,
        extra_samples=layout.extra_samples if layout else (),
        bits_per_sample=layout.bits_per_sample if layout else None,
        fill_order=layout.fill_order if layout else None,
        lerc_compression=layout.lerc_compression if layout else None,
        file_size=stored.size,
        etag=stored.etag,
        header_digest=stored.digest,
        fallback_reason=why_not,
        description=dataset.descriptions[index],
    )


def _is_striped(dataset: GivenBands, block_width: int, layout: TiffLayout | None) -> bool:
    """Whether blocks are combined: strips of a TIFF, and blocks of other formats, which may be as narrow."""
    if layout is not None:
        return not layout.tiled
    return dataset.driver != "GTiff" or block_width >= dataset.width


def _why_differs(dataset: GivenBands, index: int, layout: TiffLayout | None) -> str | None:
    """How GDAL's pixels differ from the storage of a tiled TIFF; None if they agree or for other files."""
    if layout is None or not layout.tiled:
        return None
    facts = (
        ("width", layout.width, dataset.width),
        ("height", layout.height, dataset.height),
        ("tile size", (layout.tile_height, layout.tile_width), dataset.block_shapes[index]),
        ("number of bands", layout.samples_per_pixel, dataset.count),
        ("dtype", layout.dtype or f"{layout.bits_per_sample} bits", dataset.dtypes[index]),
    )
    for what, stored, given in facts:
        if stored != given:
            return f"GDAL gives {given} as its {what}, the file has {stored}"
    if layout.subfile_type not in FULL_RESOLUTION:
        return f"its first image is of subfile type {layout.subfile_type}"
    if layout.depth != 1:
        return f"an image that is {layout.depth} pixels deep"
    return _why_unplaced(layout)


def _why_unplaced(layout: TiffLayout) -> str | None:
    if layout.tiles > MAX_TILES:
        return f"it has {layout.tiles} tiles, of which the index would hold {MAX_TILES}"
    wanted = layout.tiles * (layout.samples_per_pixel if layout.planar_configuration == SEPARATE else 1)
    if layout.places != (wanted, wanted):
        offsets, counts = layout.places
        return f"it has {offsets} offsets and {counts} byte counts for {wanted} tiles"
    return None


def _tiles_of_band(layout: TiffLayout | None, index: int) -> tuple[Ints, Ints]:
    """Offsets and byte counts of one band: those of the file, or its part if bands are stored separately."""
    if layout is None:
        return NO_PLACES, NO_PLACES
    start = index * layout.tiles if layout.planar_configuration == SEPARATE else 0
    return layout.tile_offsets[start : start + layout.tiles], layout.tile_byte_counts[start : start + layout.tiles]


Headers = list[BandHeader]

EXPECTED = (RasteretBeamError, RasterioError, RangeError, OSError)
"""Errors whose texts are clear without the name of the class."""


def try_headers(href: str, band_indexes: Sequence[int] | None = None, access: Access = DEFAULT_ACCESS) -> Headers | str:
    """The headers, or one line with the reason for the failure."""
    try:
        return read_headers(href, band_indexes, access)
    except Exception as error:  # one bad file does not prevent the others
        if why := why_refused(href, access):
            return why
        try:
            if Location.of(href).is_local and not href.lstrip().startswith("<") and not exists(local_path(href)):
                return "no such file"
        except PermissionDeniedError as denied:
            return one_line(denied)
        return one_line(error) if isinstance(error, EXPECTED) else f"{type(error).__name__}: {one_line(error)}"


def read_all_headers(
    wanted: Sequence[tuple[str, Sequence[int] | None]], threads: int = 16, access: Access = DEFAULT_ACCESS
) -> list[Headers | str]:
    """The headers of each (href, band indexes), or the reason for a failure, in order; uses a pool of threads."""
    if not wanted:
        return []
    with ThreadPoolExecutor(min(threads, len(wanted))) as pool:
        return list(pool.map(lambda item: try_headers(item[0], item[1], access), wanted))
