"""The eager face of polygon masking: arrays of the pixels under polygons."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import shapely
from numpy.typing import NDArray

from rasteret_beam.collection.index import CollectionIndex
from rasteret_beam.errors import CollectionError, InputError, listed
from rasteret_beam.kernels.chips import ChipLayer, as_dtype, chip_layers, not_nan, not_nodata
from rasteret_beam.kernels.polygons import Polygons, read_polygons
from rasteret_beam.kernels.routing import NO_DATETIME, check_match
from rasteret_beam.metrics import Tally
from rasteret_beam.model import Asset, Grid
from rasteret_beam.readers.masks import Mask, polygon_mask
from rasteret_beam.readers.windows import WindowReader
from rasteret_beam.schema import EXTRA_SUFFIX, METADATA_SUFFIX

if TYPE_CHECKING:
    from rasteret_beam.collection.collection import Collection

MASKS_IN_FILE = ("per_dataset", "alpha")
RAGGED = "get_numpy stacks chips of one shape only. Read one geometry and one record at a time"

CHIPS_AT_ONCE = 64
"""Read by a thread before it hands them over."""

Array = NDArray[np.generic]
Read = TypeVar("Read")


@dataclass(frozen=True)
class BandFacts:
    """What masking has to know of a band of a record.

    Attributes
    ----------
    dtype : numpy dtype
    nodata : float or None
    masked : bool
        Whether the file may have a mask band or an alpha band.
    """

    dtype: np.dtype
    nodata: float | None
    masked: bool


@dataclass(frozen=True, eq=False)
class Chip:
    """One polygon on one record: for each band in turn, where it is, what is known of it, and its layer."""

    geometry: int
    record_id: str
    layers: tuple[ChipLayer, ...]


def get_numpy(
    collection: "Collection",
    geometries: Any,
    bands: Sequence[str],
    *,
    geometry_crs: Any = None,
    geometry_column: str | None = None,
    all_touched: bool = False,
    fill: float | None = None,
    return_mask: bool = False,
    match: str = "all",
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
        Of each record that a polygon overlaps; on one grid.
    geometry_crs
        CRS of the geometries. Tables need it unless they carry their own; other geometries
        without it are in longitude and latitude (CRS84). The edges of a polygon are straight
        in this CRS, and are divided where they bend in the CRS of a raster.
    geometry_column : str, optional
        Of a table; by default the one that is declared or named as a geometry.
    all_touched : bool
        Whether all pixels that a polygon touches are in it, or only those whose centre it
        holds. A sliver that holds no centre gives a chip of fill values.
    fill : number, optional
        In place of pixels that are not valid; by default the band's nodata value, or 0 where
        it has none.
    return_mask : bool
        Also return which pixels are valid.
    match : "all" or "latest"
        A chip of every record that the polygon overlaps; or of the newest one that has all the
        bands (ties: the first in collection order).

    Returns
    -------
    [N, H, W] array for one band, [N, C, H, W] for several
        In order of the geometries, then of the records in the collection; bands as asked for.
        Raw stored values in the bands' own dtype; bands of several dtypes give the smallest
        dtype that holds all their values. H and W are cut at the raster's edges.
    valid : array of bool of the same shape, with ``return_mask``
        True where the pixel is in the polygon, not NaN, not nodata, and not left out by the
        file's own mask or alpha band.

    Raises
    ------
    InputError
        A geometry, band, CRS or option cannot be used; a geometry overlaps no record; a record
        that one overlaps lacks a band; the chips differ in shape; no dtype holds all values.
    TileReadError
        A raster file cannot be read.
    """
    check_match(match)
    if fill is not None and not isinstance(fill, Real | np.number):
        raise InputError(f"fill is {fill!r}; it has to be a number, or None for the band's nodata value")
    polygons = read_polygons(geometries, geometry_crs=geometry_crs, geometry_column=geometry_column)
    index = collection.index(bands)
    wanted = collection.check_bands(bands)
    chips = plan_chips(index, polygons, wanted, match)
    _check_overlaps(polygons, chips, collection)
    height, width = _one_shape(polygons, chips)
    facts = band_facts(collection, [chip.record_id for chip in chips], wanted)
    dtype = common_dtype([fact.dtype for known in facts.values() for fact in known], wanted)
    fills = {record_id: [fill_value(fact, fill) for fact in known] for record_id, known in facts.items()}
    values = np.empty((len(chips), len(wanted), height, width), dtype=dtype)
    valid = np.empty(values.shape if return_mask else 0, dtype=bool)
    assets = {record_id: index.assets(record_id, wanted) for record_id in facts}
    reader, tally = WindowReader(), Tally()

    def read_chips(numbers: list[int]) -> list[list[tuple[Array, Mask]]]:
        return [
            [
                read_band(reader, asset, layer, fact, tally)
                for asset, layer, fact in zip(
                    assets[chips[number].record_id], chips[number].layers, facts[chips[number].record_id], strict=True
                )
            ]
            for number in numbers
        ]

    try:
        for number, read in _read_ahead(chips, read_chips):
            first = chips[number].layers[0]
            covered = polygon_mask(first.shape, first.grid, first.window, all_touched)
            for band, (pixels, usable) in enumerate(read):
                inside = covered & usable
                pixels[~inside] = fills[chips[number].record_id][band]
                values[number, band] = pixels
                if return_mask:
                    valid[number, band] = inside & not_nan(pixels)
    finally:
        reader.close()
    if len(wanted) == 1:
        values = values[:, 0]
        valid = valid[:, 0] if return_mask else valid
    return (values, valid) if return_mask else values


def read_band(
    reader: WindowReader, asset: Asset, layer: ChipLayer, fact: BandFacts, tally: Tally
) -> tuple[Array, Mask]:
    """Raw values of a band in a chip's window, and where neither nodata nor the file's mask leaves them out."""
    pixels = reader.read(asset, layer.grid, layer.window, tally)
    if pixels.dtype != fact.dtype:
        raise CollectionError(
            f"record {asset.record_id!r}, band {asset.band}: {asset.href} holds {pixels.dtype}, but the collection has "
            f"it as {fact.dtype}: the file was changed after the collection was built; build it again"
        )
    file_mask = reader.read_file_mask(asset, layer.grid, layer.window, tally) if fact.masked else None
    return pixels, not_nodata(pixels, fact.nodata) if file_mask is None else file_mask


def _read_ahead(chips: Sequence[Chip], read: Callable[[list[int]], list[Read]]) -> Iterator[tuple[int, Read]]:
    """(number, what was read) of all chips; those that start in one tile are read after each other.

    Threads read a few tiles ahead; what is done with a chip stays in the calling thread.
    """
    blocks: dict[tuple[str, int, int], list[int]] = {}
    for number, chip in enumerate(chips):
        grid, window = chip.layers[0].grid, chip.layers[0].window
        key = chip.record_id, window.row // grid.tile_height, window.col // grid.tile_width
        blocks.setdefault(key, []).append(number)
    pieces = [
        blocks[key][start : start + CHIPS_AT_ONCE]
        for key in sorted(blocks)
        for start in range(0, len(blocks[key]), CHIPS_AT_ONCE)
    ]
    threads = min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(threads, thread_name_prefix="chips") as pool:
        pending: deque[tuple[list[int], Future[list[Read]]]] = deque()
        try:
            for numbers in pieces:
                pending.append((numbers, pool.submit(read, numbers)))
                if len(pending) > threads:
                    done, future = pending.popleft()
                    yield from zip(done, future.result(), strict=True)
            while pending:
                done, future = pending.popleft()
                yield from zip(done, future.result(), strict=True)
        finally:
            for _, future in pending:
                future.cancel()


def plan_chips(index: CollectionIndex, polygons: Polygons, bands: Sequence[str], match: str) -> list[Chip]:
    """The chips of some polygons, in order of the polygons, then of the records.

    Raises
    ------
    InputError
        With ``match="all"``, a record lacks one of the bands; or bands of a record lie on several grids.
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
        if match == "latest":
            of_polygon = sorted(of_polygon, key=lambda pair: _age(int(routing.datetimes[pair[0]])))[:1]
        if lacking and (match == "all" or not of_polygon):
            raise InputError(
                f"{lacking}, and an array has no place for a chip without them; leave such records out with where() "
                "or subset(), or ask for bands that all records have"
            )
        chips += [chip for _, chip in of_polygon]
    for chip in chips:
        _check_one_grid(chip, bands)
    return chips


def _age(moment: int) -> tuple[bool, int]:
    """Sorts the newest first and records without a datetime last."""
    return moment == NO_DATETIME, 0 if moment == NO_DATETIME else -moment


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


def _check_overlaps(polygons: Polygons, chips: Sequence[Chip], collection: "Collection") -> None:
    """Refuse a polygon without a chip: its place in the array would be missing."""
    hit = np.zeros(len(polygons), dtype=bool)
    hit[[chip.geometry for chip in chips]] = True
    outside = np.flatnonzero(~hit)
    if not len(outside):
        return
    number = int(outside[0])
    bounds = ", ".join(f"{side:g}" for side in shapely.bounds(polygons.shapes[number]))
    own = ", ".join(f"{side:g}" for side in collection.bounds or ())
    others = f" (and {len(outside) - 1} other(s))" if len(outside) > 1 else ""
    raise InputError(
        f"{polygons.label(number)}{others} overlaps no record: its bounds are ({bounds}) in {polygons.crs}, "
        f"those of the collection ({own}) in degrees. Leave it out, or give the CRS it is in with geometry_crs"
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


def band_facts(collection: "Collection", record_ids: Iterable[str], bands: Sequence[str]) -> dict[str, list[BandFacts]]:
    """What the collection knows of some bands of some records."""
    columns = {"id": pc.field("id")}
    for number, band in enumerate(bands):
        columns[f"dtype{number}"] = pc.field(band + METADATA_SUFFIX, "dtype")
        columns[f"nodata{number}"] = pc.field(band + METADATA_SUFFIX, "nodata")
        if band + EXTRA_SUFFIX in collection.schema.names:
            columns[f"mask{number}"] = pc.field(band + EXTRA_SUFFIX, "mask")
    ids = list(dict.fromkeys(record_ids))
    wanted = pc.field("id").isin(pa.array(ids, type=collection.schema.field("id").type))
    filtered = wanted if collection.filter is None else collection.filter & wanted
    rows = {row["id"]: row for row in collection.dataset.to_table(columns=columns, filter=filtered).to_pylist()}
    return {record_id: [_band_facts(rows[record_id], number) for number in range(len(bands))] for record_id in ids}


def _band_facts(row: dict[str, Any], number: int) -> BandFacts:
    mask = row.get(f"mask{number}")
    # A collection that does not say what masks its files have leaves it to the files.
    masked = mask is None or any(kind in mask for kind in MASKS_IN_FILE)
    return BandFacts(np.dtype(row[f"dtype{number}"]), row[f"nodata{number}"], masked)


def common_dtype(dtypes: Iterable[np.dtype], bands: Sequence[str]) -> np.dtype:
    """The smallest dtype that holds every value of all of them.

    Raises
    ------
    InputError
        There is none: 64-bit integers beside floats, or signed beside unsigned ones.
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


def fill_value(fact: BandFacts, fill: float | None) -> np.generic:
    """The value for pixels that are not valid, in the band's dtype.

    Raises
    ------
    InputError
        It does not fit the dtype.
    """
    wanted = fill if fill is not None else fact.nodata if fact.nodata is not None else 0
    fits = as_dtype(wanted, fact.dtype)
    if fits is None:
        what = "fill is" if fill is not None else "the band's nodata value is"
        raise InputError(f"{what} {wanted:g}, which {fact.dtype} cannot hold; give a fill that it can")
    return fits
