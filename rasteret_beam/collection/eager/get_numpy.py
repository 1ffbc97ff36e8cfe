"""``get_numpy``: pixels under polygons as one NumPy array."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Unpack

import numpy as np
import shapely

from rasteret_beam.chip_options import ChipOptions
from rasteret_beam.collection.eager.chip_plan import Chip, plan_chips
from rasteret_beam.collection.eager.chip_reading import ChipReading, first_valid
from rasteret_beam.collection.eager.polygon_times import TIMES, polygons_in_time
from rasteret_beam.collection.eager.quality_bands import QualityBands
from rasteret_beam.collection.eager.samplable import Samplable
from rasteret_beam.collection.index.band_facts import read_facts
from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.routing.no_hit import EXCHANGED, hits_exchanged
from rasteret_beam.kernels.routing.whole_records import WholeRecords
from rasteret_beam.kernels.sampling.validity import Mask
from rasteret_beam.kernels.tables.polygon_geometry import Polygons
from rasteret_beam.keywords import EagerChipKeywords
from rasteret_beam.option_fields import options_from, takes_options
from rasteret_beam.readers.jobs.chip_reader import Array, ChipReader
from rasteret_beam.readers.tiles.budget import CacheBudget
from rasteret_beam.readers.tiles.source import TileSource
from rasteret_beam.scales import check_scaled_bands

RAGGED = (
    "get_numpy stacks chips of one shape only. Read one geometry and one record at a time, or chips of any shape as "
    "rows of a table with ReadChips (python -m pipelines.read_chips)"
)


@takes_options(ChipOptions, lambda option: option.facts.eager)
def get_numpy(
    collection: Samplable,
    geometries: Any,
    bands: Sequence[str],
    *,
    geometry_crs: Any = None,
    geometry_column: str | None = None,
    times: Any = None,
    return_mask: bool = False,
    **keywords: Unpack[EagerChipKeywords],
) -> Array | tuple[Array, Mask]:
    """Pixels under polygons, each cropped to its polygon and masked by it.

    A chip equals ``rasterio.mask.mask(dataset, [polygon], crop=True, filled=True)`` on the
    record's file, bit for bit.

    Parameters
    ----------
    geometries
        A box (xmin, ymin, xmax, ymax), a Shapely polygon or multipolygon, WKB bytes, GeoJSON,
        a list of those, or an Arrow array or table (or anything with an Arrow C stream) with a
        column of polygons as WKB or GeoArrow.
    bands : sequence of str
        Read from each record that a polygon overlaps. The bands of a record have to share a grid.
    geometry_crs
        CRS of the geometries. It is required for a table that does not declare one. The default
        for other geometries is longitude and latitude (CRS84). The edges of a polygon are straight
        in this CRS; points are added to them where they bend in the CRS of a raster.
    geometry_column : str, optional
        Column of a table; by default the one that is declared or named as a geometry.
    times : optional
        Times of the geometries in their order, or one time for all, where they are not a ``time_column`` of a table
        or a property of GeoJSON features: a list, an array or a Series of timestamps, dates or ISO 8601 text.
    return_mask : bool
        Also return which pixels are valid.
    <options>
    options : ChipOptions, optional
        All options as one value. Without ``all_touched``, a polygon that contains no pixel centre gives a chip of
        fill values. ``match="latest"`` takes the newest record that has all bands, of equally new ones the first in
        the collection; the matches in time also decide among records that have all bands. With ``skip_invalid``, a
        pixel counts as valid if it is in all bands, and those of the polygon beyond the record's raster as not valid.

    Returns
    -------
    [N, H, W] array for one band, [N, C, H, W] for several
        Chips in the order of the geometries, then of the records in the collection; bands in the given
        order. Values are those of the files, in the dtype of the bands; bands of several dtypes give the
        smallest dtype that holds all their values. With ``unscale`` they are float64 in physical units, NaN where they
        are not valid. Chips end at the edges of the raster.
    valid : array of bool of the same shape, with ``return_mask``
        True where the pixel is in the polygon, is neither NaN nor nodata, is valid by the
        mask or alpha band of the file, if it has one, and passes every rule of ``quality``.

    Raises
    ------
    InputError
        A geometry, band, CRS, time or option cannot be used; a geometry overlaps no record, or none in time; a record
        that it overlaps lacks a band; the chips differ in shape; no dtype holds all values.
    TileReadError
        A raster file cannot be read.
    """
    options = _options(keywords, times)
    polygons, moments = polygons_in_time(
        geometries,
        geometry_crs=geometry_crs,
        geometry_column=geometry_column,
        time_column=options.time_column,
        times=times,
    )
    wanted = collection.check_bands(bands)
    check_scaled_bands(options.scales, wanted)
    cache = CacheBudget(options.cache_bytes)
    index = collection.index(wanted, cache_bytes=cache.share)
    rules = WholeRecords(options.match_rules, index.routing.datetimes)
    most = options.max_candidates if options.skip_invalid else None
    chips = plan_chips(index, polygons, wanted, rules, moments, most)
    _check_overlaps(polygons, chips, collection, index)
    quality = QualityBands(collection, options.quality, index.routing, cache.share)
    facts = read_facts(collection, wanted, list(dict.fromkeys(chip.record_id for chip in chips)))
    reader = ChipReader(TileSource.of_budget(cache))
    reading = ChipReading(reader, index, facts, quality, options, wanted)
    try:
        read = _read_first if options.skip_invalid else _read_all
        values, valid = read(reading, polygons, chips, return_mask)
    finally:
        reader.close()
    if len(wanted) == 1:
        values, valid = values[:, 0], valid[:, 0] if return_mask else valid
    return (values, valid) if return_mask else values


def _options(given: Mapping[str, Any], times: Any) -> ChipOptions:
    """The options of a call, in which times that are given beside the geometries are a column of another name."""
    if times is None:
        try:
            return options_from(given, ChipOptions)
        except InputError as error:
            hint = ", or give times=" if "time_column is None" in str(error) else ""
            raise InputError(f"{error}{hint}") from None
    whole = given.get("options")
    column = given.get("time_column", whole.time_column if isinstance(whole, ChipOptions) else None)
    if column is not None:
        raise InputError(f"times are given, and time_column is {column!r}; give one of them")
    return options_from({**given, "time_column": TIMES}, ChipOptions)


def _read_all(reading: ChipReading, polygons: Polygons, chips: Sequence[Chip], with_mask: bool) -> tuple[Array, Mask]:
    """The pixels [N, C, H, W] of all chips, and which are valid (else empty)."""
    height, width = _one_shape(polygons, chips)
    records = dict.fromkeys(chip.record_id for chip in chips)
    dtype = common_dtype([band.dtype for record_id in records for band in reading.bands_of(record_id)], reading.bands)
    values = np.empty((len(chips), len(reading.bands), height, width), dtype=dtype)
    valid = np.empty(values.shape if with_mask else 0, dtype=bool)
    place = {band: number for number, band in enumerate(reading.bands)}
    for chip in reading.read(dict(enumerate(chips))):
        at = chip.number, place[chip.band.asset.band]
        values[at] = chip.pixels
        if with_mask:
            valid[at] = chip.valid
    return values, valid


def _read_first(reading: ChipReading, polygons: Polygons, chips: Sequence[Chip], with_mask: bool) -> tuple[Array, Mask]:
    """The same of the first chip of each polygon that has enough valid pixels."""
    found = first_valid(reading, chips)
    _one_shape(polygons, [chip for chip, _ in found])
    dtype = common_dtype([band.band.dtype for _, bands in found for band in bands], reading.bands)
    values = np.stack([[band.pixels.astype(dtype, copy=False) for band in bands] for _, bands in found])
    valid = np.stack([[band.valid for band in bands] for _, bands in found]) if with_mask else np.empty(0, dtype=bool)
    return values, valid


def _check_overlaps(polygons: Polygons, chips: Sequence[Chip], collection: Samplable, index: CollectionIndex) -> None:
    """Refuse a polygon that overlaps no record, because the array would lack its chip."""
    hit = np.zeros(len(polygons), dtype=bool)
    hit[[chip.geometry for chip in chips]] = True
    outside = np.flatnonzero(~hit)
    if not len(outside):
        return
    number = int(outside[0])
    bounds = ", ".join(f"{side:g}" for side in shapely.bounds(polygons.shapes[number]))
    own = ", ".join(f"{side:g}" for side in collection.bounds or ())
    x, y = shapely.get_coordinates(polygons.shapes[number]).T
    hint = f". It does {EXCHANGED}" if hits_exchanged(index.routing, x, y, polygons.crs) else ""
    others = f" (and {len(outside) - 1} other(s))" if len(outside) > 1 else ""
    raise InputError(
        f"{polygons.label(number)}{others} overlaps no record: its bounds are ({bounds}) in {polygons.crs}, "
        f"those of the collection ({own}) in degrees. Leave it out, or give the CRS it is in with geometry_crs{hint}"
    )


def _one_shape(polygons: Polygons, chips: Sequence[Chip]) -> tuple[int, int]:
    first_of: dict[tuple[int, int], str] = {}
    for chip in chips:
        label = f"{polygons.label(chip.geometry)} on record {chip.record_id!r}"
        first_of.setdefault(chip.layers[0].window.shape, label)
    if len(first_of) > 1:
        shown = listed([f"{shape} for {label}" for shape, label in first_of.items()], 5)
        raise InputError(f"the chips have {len(first_of)} shapes (rows, columns): {shown}. {RAGGED}.")
    return next(iter(first_of))


def common_dtype(dtypes: Iterable[np.dtype], bands: Sequence[str]) -> np.dtype:
    """The smallest dtype that holds all values of the given dtypes.

    Raises
    ------
    InputError
        There is none, as for 64-bit integers and floats, or for unsigned 64-bit integers and signed ones.
    """
    distinct = list(dict.fromkeys(dtypes))
    common = np.result_type(*distinct)
    lossy = [
        str(dtype)
        for dtype in distinct
        if common.kind == "f" and dtype.kind in "iu" and np.iinfo(dtype).bits > np.finfo(common).nmant + 1
    ]
    if lossy:
        raise InputError(
            f"bands {listed(bands)} are {listed(distinct)}, and no dtype holds all values of them; "
            "ask for bands of one dtype at a time"
        )
    return common
