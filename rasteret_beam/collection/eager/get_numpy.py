"""Read the pixels under polygons into arrays, in this process."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Unpack

import numpy as np
import shapely

from rasteret_beam.chip_options import ChipOptions
from rasteret_beam.collection.eager.samplable import Samplable
from rasteret_beam.collection.index.band_facts import read_facts
from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.routing.chip_windows import ChipLayer, chip_layers
from rasteret_beam.kernels.routing.match import Matcher, matcher_of
from rasteret_beam.kernels.routing.no_hit import EXCHANGED, hits_exchanged
from rasteret_beam.kernels.sampling.validity import Mask
from rasteret_beam.kernels.tables.polygon_geometry import Polygons, read_polygons
from rasteret_beam.keywords import EagerChipKeywords
from rasteret_beam.metrics import Counters
from rasteret_beam.model import Grid
from rasteret_beam.options import options_from, takes_options
from rasteret_beam.readers.jobs.chip_reader import (
    Array,
    BandChip,
    BandRead,
    ChipReader,
    ChipRun,
    WantedChip,
    fill_value,
)
from rasteret_beam.readers.tiles.budget import CacheBudget
from rasteret_beam.readers.tiles.source import TileSource

RAGGED = (
    "get_numpy stacks chips of one shape only. Read one geometry and one record at a time, or chips of any shape as "
    "rows of a table with ReadChips (python -m pipelines.read_chips)"
)


@dataclass(frozen=True, eq=False)
class Chip:
    """One polygon on one record, with the layer of each band in order."""

    geometry: int
    record_id: str
    layers: tuple[ChipLayer, ...]


@takes_options(ChipOptions, lambda option: option.facts.eager)
def get_numpy(
    collection: Samplable,
    geometries: Any,
    bands: Sequence[str],
    *,
    geometry_crs: Any = None,
    geometry_column: str | None = None,
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
    return_mask : bool
        Also return which pixels are valid.
    <options>
    options : ChipOptions, optional
        All options as one value. Without ``all_touched``, a polygon that contains no pixel centre gives a chip of
        fill values. ``match="latest"`` takes the newest record that has all bands, of equally new ones the first in
        the collection.

    Returns
    -------
    [N, H, W] array for one band, [N, C, H, W] for several
        Chips in the order of the geometries, then of the records in the collection; bands in the given
        order. Values are those of the files, in the dtype of the bands; bands of several dtypes give the
        smallest dtype that holds all their values. Chips end at the edges of the raster.
    valid : array of bool of the same shape, with ``return_mask``
        True where the pixel is in the polygon, is neither NaN nor nodata, and is valid by the
        mask or alpha band of the file, if it has one.

    Raises
    ------
    InputError
        A geometry, band, CRS or option cannot be used; a geometry overlaps no record; a record
        that it overlaps lacks a band; the chips differ in shape; no dtype holds all values.
    TileReadError
        A raster file cannot be read.
    """
    options = options_from(keywords, ChipOptions)
    polygons = read_polygons(geometries, geometry_crs=geometry_crs, geometry_column=geometry_column)
    wanted = collection.check_bands(bands)
    cache = CacheBudget(options.cache_bytes)
    index = collection.index(wanted, cache_bytes=cache.share)
    routing = index.routing
    matcher = matcher_of(options.match, routing.layers, routing.datetimes, len(routing.grids))
    chips = plan_chips(index, polygons, wanted, matcher)
    _check_overlaps(polygons, chips, collection, index)
    height, width = _one_shape(polygons, chips)
    ids = list(dict.fromkeys(chip.record_id for chip in chips))
    facts = read_facts(collection, wanted, ids)
    dtype = common_dtype([fact.dtype for record_id in ids for fact in facts.of(record_id)], wanted)
    values = np.empty((len(chips), len(wanted), height, width), dtype=dtype)
    valid = np.empty(values.shape if return_mask else 0, dtype=bool)
    reads = {
        record_id: tuple(
            BandRead(asset, fact, fill_value(fact, options.fill))
            for asset, fact in zip(index.assets(record_id, wanted), facts.of(record_id), strict=True)
        )
        for record_id in ids
    }
    place = {band: number for number, band in enumerate(wanted)}
    reader = ChipReader(TileSource.of_budget(cache))
    try:
        for chip in reader.read(_wanted(chips, reads), ChipRun(options.all_touched, Counters())):
            assert isinstance(chip, BandChip)
            values[chip.number, place[chip.band.asset.band]] = chip.pixels
            if return_mask:
                valid[chip.number, place[chip.band.asset.band]] = chip.valid
    finally:
        reader.close()
    if len(wanted) == 1:
        values = values[:, 0]
        valid = valid[:, 0] if return_mask else valid
    return (values, valid) if return_mask else values


def _wanted(chips: Sequence[Chip], reads: dict[str, tuple[BandRead, ...]]) -> Iterator[WantedChip]:
    """The chips to read; chips that start in the same tile are adjacent."""

    def start(number: int) -> tuple[str, int, int]:
        grid, window = chips[number].layers[0].grid, chips[number].layers[0].window
        return chips[number].record_id, window.row // grid.tile_height, window.col // grid.tile_width

    for number in sorted(range(len(chips)), key=start):
        bands = zip(chips[number].layers, reads[chips[number].record_id], strict=True)
        # Bands with the same pixels may have different tiles.
        for _, group in groupby(bands, key=lambda pair: pair[0].grid):
            members = list(group)
            layer = members[0][0]
            yield WantedChip(number, layer.grid, layer.window, layer.shape, tuple(band for _, band in members))


def plan_chips(index: CollectionIndex, polygons: Polygons, bands: Sequence[str], matcher: Matcher) -> list[Chip]:
    """The chips of some polygons, in the order of the polygons, then of the records.

    Raises
    ------
    InputError
        A record that is taken lacks a band, or its bands are on several grids.
    """
    chips: list[Chip] = []
    routing = index.routing
    layers = chip_layers(routing, polygons)
    for geometry, on_polygon in groupby(layers, key=lambda layer: layer.geometry):
        of_polygon = []
        lacking = ""
        for record, group in groupby(on_polygon, key=lambda layer: layer.record):
            by_band = {band: layer for layer in group for band in layer.bands}
            record_id = routing.record_ids[record]
            missing = [band for band in bands if band not in by_band]
            if not missing:
                of_polygon.append((record, Chip(geometry, record_id, tuple(by_band[band] for band in bands))))
                continue
            lacking = lacking or (
                f"record {record_id!r}, which {polygons.label(geometry)} overlaps, has no "
                f"band(s) {listed(missing)} there"
            )
        taken = matcher.of_records([record for record, _ in of_polygon])
        if lacking and not (matcher.one_record and taken):
            raise InputError(
                f"{lacking}, and an array has no place for a chip without them; leave such records out with where() "
                "or subset(), or ask for bands that all records have"
            )
        chips += [chip for record, chip in of_polygon if record in taken]
    for chip in chips:
        _check_one_grid(chip, bands)
    return chips


def _check_one_grid(chip: Chip, bands: Sequence[str]) -> None:
    first = chip.layers[0].grid
    for band, layer in zip(bands, chip.layers, strict=True):
        if _pixels(layer.grid) != _pixels(first):
            raise InputError(
                f"bands {bands[0]} and {band} of record {chip.record_id!r} lie on different grids "
                f"({_shown(first)}, {_shown(layer.grid)}), so they cannot be stacked; ask for them one at a time"
            )


def _pixels(grid: Grid) -> tuple[Any, ...]:
    return grid.crs, grid.transform, grid.width, grid.height


def _shown(grid: Grid) -> str:
    across, down = np.hypot(grid.transform[0], grid.transform[3]), np.hypot(grid.transform[1], grid.transform[4])
    return f"{grid.height} x {grid.width} pixels of {across:g} x {down:g} in {grid.crs}"


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
