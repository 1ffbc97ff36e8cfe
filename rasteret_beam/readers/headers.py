"""Headers of raster files: what a collection keeps of each band.

GDAL (through rasterio) says what the file means: CRS, affine, types, nodata. tifffile says
how a TIFF stores it: tile offsets, compression, predictor, byte order (TIFF 6.0 and BigTIFF).
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import tifffile
from rasterio.errors import RasterioError
from rasterio.io import DatasetReader

from rasteret_beam.errors import CollectionError, PermissionDeniedError, RasteretBeamError, one_line
from rasteret_beam.kernels.crs import crs_text
from rasteret_beam.metrics import Tally
from rasteret_beam.model import AS_GIVEN, Access, BandHeader, Grid
from rasteret_beam.readers.datasets import Raster
from rasteret_beam.readers.local_files import exists
from rasteret_beam.readers.ranges import FileState, RangeError
from rasteret_beam.readers.stores import is_url, local_path

STRIP_PIXELS = 1 << 18
"""Strips are taken together as one tile up to so many pixels (a 512 x 512 tile has as many)."""

# Nodata comes from GDAL; tifffile logs an error for float32 files with GDAL's lowest float.
logging.getLogger("tifffile").addFilter(lambda record: "GDAL_NODATA" not in record.getMessage())

MODEL_PIXEL_SCALE, MODEL_TIEPOINT, LERC_PARAMETERS = 33550, 33922, 50674


@dataclass(frozen=True)
class TiffLayout:
    """How the first image of a TIFF is stored; offsets and counts of all its tiles, none for strips."""

    tiled: bool
    byte_order: str
    predictor: int
    compression: int
    tile_offsets: tuple[int, ...]
    tile_byte_counts: tuple[int, ...]
    pixel_scale: tuple[float, ...]
    tiepoint: tuple[float, ...]
    samples_per_pixel: int
    planar_configuration: int
    photometric: int
    extra_samples: tuple[int, ...]
    bits_per_sample: int
    fill_order: int
    lerc_compression: int | None
    file_size: int | None
    etag: str | None


def tiff_layout(raster: Raster) -> TiffLayout:
    """Read the storage layout of a TIFF's first (full resolution) image."""
    with raster.open_bytes() as (file, state), tifffile.TiffFile(file) as tiff:
        page: Any = tiff.pages[0]

        def numbers(tag: int) -> tuple[float, ...]:
            found = page.tags.get(tag)
            return tuple(float(value) for value in found.value) if found is not None else ()

        return TiffLayout(
            page.is_tiled,
            "big" if tiff.byteorder == ">" else "little",
            int(page.predictor),
            int(page.compression),
            tuple(page.dataoffsets) if page.is_tiled else (),
            tuple(page.databytecounts) if page.is_tiled else (),
            numbers(MODEL_PIXEL_SCALE),
            numbers(MODEL_TIEPOINT),
            int(page.samplesperpixel),
            int(page.planarconfig or 1),
            int(page.photometric),
            tuple(int(value) for value in page.extrasamples),
            int(page.bitspersample),
            int(page.fillorder or 1),
            int(lerc[1]) if len(lerc := numbers(LERC_PARAMETERS)) > 1 else None,
            state.size,
            state.etag,
        )


def read_headers(href: str, band_indexes: Sequence[int] | None = None, access: Access = AS_GIVEN) -> list[BandHeader]:
    """Headers of some bands of a raster file, or of all.

    Parameters
    ----------
    href : str
        Anything GDAL opens: a path or a URL.
    band_indexes : sequence of int, optional
        0-based.
    access : Access
        How its bucket is read.

    Raises
    ------
    CollectionError
        The file has no CRS or no georeferencing, lacks one of the bands, or is complex-valued.
    RasterioError, RangeError
        The file cannot be opened.
    """
    with closing(Raster(FileState(href, access=access), Tally())) as raster:
        return raster.read(lambda dataset: _headers(dataset, raster, band_indexes), Tally())


def _headers(dataset: DatasetReader, raster: Raster, band_indexes: Sequence[int] | None) -> list[BandHeader]:
    wanted = list(band_indexes) if band_indexes is not None else list(range(dataset.count))
    missing = [index for index in wanted if not 0 <= index < dataset.count]
    if missing:
        raise CollectionError(
            f"band index {missing[0]} is wanted (indexes count from 0), but the file has {dataset.count} band(s)"
        )
    layout = tiff_layout(raster) if dataset.driver == "GTiff" and raster.has_bytes else None
    crs, transform = _georeference(dataset)
    return [_band_header(dataset, index, crs, transform, layout) for index in wanted]


def _georeference(dataset: DatasetReader) -> tuple[str, tuple[float, ...]]:
    if dataset.crs is None:
        raise CollectionError("the file has no CRS; assign one (rio edit-info --crs ...)")
    transform = dataset.transform
    if transform.is_identity or transform.is_degenerate:
        raise CollectionError(f"the file has no usable georeferencing (its affine is {tuple(transform)[:6]})")
    return crs_text(dataset.crs.to_wkt()), tuple(float(value) for value in transform[:6])


def _band_header(
    dataset: DatasetReader, index: int, crs: str, transform: tuple[float, ...], layout: TiffLayout | None
) -> BandHeader:
    dtype = np.dtype(dataset.dtypes[index])
    if dtype.kind not in "iuf":
        raise CollectionError(f"band index {index} is {dtype}; only real numbers can be sampled")
    height, width = dataset.block_shapes[index]
    if layout is None or not layout.tiled:
        height *= max(1, STRIP_PIXELS // (width * height))
        height = min(height, max(dataset.block_shapes[index][0], dataset.height))
    grid = Grid(crs, transform, dataset.width, dataset.height, width, height)  # type: ignore[arg-type]
    offsets, counts = _tiles_of_band(grid, index, layout)
    return BandHeader(
        grid=grid,
        dtype=str(dtype),
        nodata=dataset.nodatavals[index],
        scale=float(dataset.scales[index]),
        offset=float(dataset.offsets[index]),
        mask="+".join(flag.name for flag in dataset.mask_flag_enums[index]),
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
        file_size=layout.file_size if layout else None,
        etag=layout.etag if layout else None,
    )


def _tiles_of_band(grid: Grid, index: int, layout: TiffLayout | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Offsets and byte counts of one band: all of the file's, or its share where bands lie apart."""
    if layout is None or not layout.tile_offsets:
        return (), ()
    tiles = -(-grid.width // grid.tile_width) * -(-grid.height // grid.tile_height)
    start = index * tiles if len(layout.tile_offsets) > tiles else 0
    return layout.tile_offsets[start : start + tiles], layout.tile_byte_counts[start : start + tiles]


Headers = list[BandHeader]


def try_headers(href: str, band_indexes: Sequence[int] | None = None, access: Access = AS_GIVEN) -> Headers | str:
    """The headers, or in one line the reason why there are none."""
    try:
        return read_headers(href, band_indexes, access)
    except (RasteretBeamError, RasterioError, RangeError, OSError, ValueError) as error:
        try:
            if not is_url(href) and not exists(local_path(href)):
                return "no such file"
        except PermissionDeniedError as denied:
            return one_line(denied)
        return one_line(error)


def read_all_headers(
    wanted: Sequence[tuple[str, Sequence[int] | None]], threads: int = 16, access: Access = AS_GIVEN
) -> list[Headers | str]:
    """Headers, or a reason, of each (href, band indexes), by a pool of threads; in the order given."""
    if not wanted:
        return []
    with ThreadPoolExecutor(min(threads, len(wanted))) as pool:
        return list(pool.map(lambda item: try_headers(item[0], item[1], access), wanted))
