"""From a collection's table to what workers hold: the light routing index, and assets by need.

The index reads ids, datetimes and grids only. Assets are read for the records and bands that
a worker meets, one row group at a time, into a cache that is bounded in bytes.
"""

import dataclasses
import json
from collections.abc import Sequence
from threading import Lock
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from rasteret_beam.errors import CollectionError
from rasteret_beam.kernels.crs import Floats, crs_text
from rasteret_beam.kernels.grids import GridTable, Ints
from rasteret_beam.kernels.routing import NO_DATETIME, Layers, RoutingIndex, build_index
from rasteret_beam.model import AS_GIVEN, Access, Asset, StoredBand
from rasteret_beam.readers.budget import CacheBudget
from rasteret_beam.readers.cache import BytesCache
from rasteret_beam.schema import EXTRA_SUFFIX, METADATA_SUFFIX

GRID_FIELDS = ("width", "height", "tile_width", "tile_height")
METADATA_FACTS = (
    "dtype",
    "nodata",
    "compression",
    "predictor",
    "samples_per_pixel",
    "planar_configuration",
    "photometric",
    "tile_offsets",
    "tile_byte_counts",
)
EXTRA_FACTS = ("byte_order", "bits_per_sample", "fill_order", "lerc_compression", "file_size", "etag")
"""What an asset keeps of a band's columns; a collection of another maker has no extra ones."""

METADATA_FIELDS = ("image_width", "image_height", "tile_width", "tile_height", "transform")


Columns = dict[str, pa.Array]


class Unit(Protocol):
    """A part of a collection that is read at once: a row group of a file, or a table."""

    def read(self, columns: dict[str, ds.Expression]) -> pa.Table: ...


class CollectionIndex:
    """The routing index of a collection for some bands, and its assets.

    Parameters
    ----------
    units : sequence of Unit
        The parts, in collection order.
    schema : pyarrow.Schema
        Of the collection.
    bands : sequence of str
        Wanted, in output order; each is in the schema.
    match : "all" or "latest"
    access : Access
        How the buckets of its files are read.
    cache_bytes : int
        Of tile offsets and other facts of bands; a row group that is larger is read for each record anew.

    Attributes
    ----------
    routing : RoutingIndex
    """

    def __init__(
        self,
        units: Sequence[Unit],
        schema: pa.Schema,
        bands: Sequence[str],
        match: str,
        access: Access = AS_GIVEN,
        cache_bytes: int = CacheBudget().share,
    ):
        self._units = units
        self._schema = schema
        self.access = access
        self._known: BytesCache[list[Asset]] = BytesCache(cache_bytes // 2)
        self._lock = Lock()
        self._cache: BytesCache[Columns] = BytesCache(cache_bytes // 2)
        read = _read_grids if "grids" in schema.names else _read_band_metadata
        tables = [unit.read(_light_columns(schema, bands)) for unit in units]
        sizes = [len(table) for table in tables]
        self._unit_of = np.repeat(np.arange(len(units)), sizes)
        self._row_in_unit = np.concatenate([np.arange(size) for size in sizes] or [np.empty(0, dtype=np.int64)])
        light = pa.concat_tables(tables).combine_chunks()
        ids = light["id"].to_pylist()
        moments = light["datetime"].cast(pa.timestamp("us")).cast(pa.int64()).fill_null(NO_DATETIME)
        grids, crs, layers = _distinct(*read(light, list(bands)))
        self.routing: RoutingIndex = build_index(
            ids, moments.to_numpy().astype(np.int64), grids, crs, layers, match=match
        )

    def assets(self, record_id: str, bands: Sequence[str]) -> list[Asset]:
        """Where the pixels of some bands of a record are."""
        position = self.routing.positions[record_id]
        key = position, tuple(bands)
        with self._lock:
            found = self._known.get(key)
            if found is None:
                columns = self._assets_of_unit(int(self._unit_of[position]), key[1])
                row = int(self._row_in_unit[position])
                found = [
                    _asset(columns, row, record_id, number, band, self.access) for number, band in enumerate(bands)
                ]
                self._known.put(key, found, sum(map(_held_bytes, found)))
            return found

    def _assets_of_unit(self, unit: int, bands: tuple[str, ...]) -> Columns:
        found = self._cache.get((unit, bands))
        if found is None:
            columns: dict[str, ds.Expression] = {}
            for number, band in enumerate(bands):
                columns |= _asset_columns(self._schema, number, band)
            table = self._units[unit].read(columns).combine_chunks()
            # By name once: a table of a thousand columns looks a name up for a millisecond.
            found = {name: column.chunk(0) for name, column in zip(table.column_names, table.columns, strict=True)}
            self._cache.put((unit, bands), found, table.nbytes)
        return found


def _asset_columns(schema: pa.Schema, number: int, band: str) -> dict[str, ds.Expression]:
    columns = {
        f"href{number}": pc.field("assets", band, "href"),
        f"band_index{number}": pc.field("assets", band, "band_index"),
    }
    for column, wanted in ((band + METADATA_SUFFIX, METADATA_FACTS), (band + EXTRA_SUFFIX, EXTRA_FACTS)):
        if column in schema.names:
            there = {field.name for field in schema.field(column).type}
            columns |= {f"{name}{number}": pc.field(column, name) for name in wanted if name in there}
    return columns


def _asset(columns: Columns, row: int, record_id: str, number: int, band: str, access: Access) -> Asset:
    def fact(name: str) -> Any:
        column = columns.get(f"{name}{number}")
        return None if column is None else column[row].as_py()

    href = fact("href")
    if href is None:
        raise CollectionError(f"record {record_id!r} has a grid for band {band!r}, but no href in its assets")
    stored = {field.name: fact(field.name) for field in dataclasses.fields(StoredBand)}
    for name in ("tile_offsets", "tile_byte_counts"):
        stored[name] = stored[name] or ()
    known = StoredBand(**stored) if stored["dtype"] is not None else None
    return Asset(record_id, band, href, fact("band_index") or 0, fact("nodata"), known, access)


def _held_bytes(asset: Asset) -> int:
    """Estimate of what an asset takes in memory: Python's numbers, mostly."""
    return 2000 + (80 * len(asset.stored.tile_offsets) if asset.stored else 0)


def _light_columns(schema: pa.Schema, bands: Sequence[str]) -> dict[str, ds.Expression]:
    columns = {"id": pc.field("id"), "datetime": pc.field("datetime")}
    if "grids" in schema.names:
        return columns | {"grids": pc.field("grids")}
    for name in ("crs", "proj:epsg"):
        if name in schema.names:
            columns[name] = pc.field(name)
    for number, band in enumerate(bands):
        for part in METADATA_FIELDS:
            columns[f"{part}{number}"] = pc.field(band + METADATA_SUFFIX, part)
    return columns


Raw = tuple[Ints, list[str], Ints, Floats, Ints, Ints, list[tuple[str, ...]]]
"""Layers before grids are made distinct: record, CRS names, CRS number, affine, sizes, band set number, band sets."""


def _read_grids(light: pa.Table, bands: list[str]) -> Raw:
    """From our ``grids`` column."""
    column = light["grids"].combine_chunks()
    lengths = pc.list_value_length(column).fill_null(0).to_numpy().astype(np.int64)
    record: Ints = np.repeat(np.arange(len(light), dtype=np.int64), lengths)
    flat = pc.list_flatten(column)
    encoded = pc.struct_field(flat, "bands").dictionary_encode()
    on_grid = [json.loads(names) for names in encoded.dictionary.to_pylist()]
    bandsets: list[tuple[str, ...]] = [tuple(band for band in bands if band in names) for names in on_grid]
    bandset = encoded.indices.to_numpy().astype(np.int64)
    crs = pc.struct_field(flat, "crs").dictionary_encode()
    transform = pc.list_flatten(pc.struct_field(flat, "transform")).to_numpy().reshape(-1, 6)
    sizes = np.stack([pc.struct_field(flat, name).to_numpy().astype(np.int64) for name in GRID_FIELDS], axis=1)
    return record, crs.dictionary.to_pylist(), crs.indices.to_numpy(), transform, sizes, bandset, bandsets


def _read_band_metadata(light: pa.Table, bands: list[str]) -> Raw:
    """From the ``{band}_metadata`` columns of a collection that has no ``grids``."""
    crs_names, crs_of_record = _record_crs(light)
    records, numbers, transforms, sizes = [], [], [], []
    for number in range(len(bands)):
        transform = light[f"transform{number}"].combine_chunks()
        usable = pc.equal(pc.list_value_length(transform), 4).fill_null(False)
        rows = np.flatnonzero(usable.to_numpy(zero_copy_only=False))
        a, c, e, f = pc.list_flatten(transform.filter(usable)).to_numpy().reshape(-1, 4).T
        zero = np.zeros(len(rows))
        part = light.filter(usable)
        columns = [part[f"{name}{number}"].to_numpy().astype(np.int64) for name in METADATA_FIELDS[:4]]
        records.append(rows)
        numbers.append(np.full(len(rows), number))
        transforms.append(np.stack([a, zero, c, zero, e, f], axis=1))
        sizes.append(np.stack(columns, axis=1))
    record = np.concatenate(records)
    bandsets: list[tuple[str, ...]] = [(band,) for band in bands]
    return (
        record,
        crs_names,
        crs_of_record[record],
        np.concatenate(transforms),
        np.concatenate(sizes),
        np.concatenate(numbers),
        bandsets,
    )


def _record_crs(light: pa.Table) -> tuple[list[str], Ints]:
    texts = light["crs"] if "crs" in light.column_names else pa.chunked_array([pa.nulls(len(light), pa.string())])
    if "proj:epsg" in light.column_names:
        codes = pc.binary_join_element_wise("EPSG", light["proj:epsg"].cast(pa.string()), ":")
        texts = pc.coalesce(texts, codes)
    if texts.null_count:
        missing = light["id"].filter(texts.is_null())[0].as_py()
        raise CollectionError(f"record {missing!r} of the collection has neither crs nor proj:epsg")
    encoded = texts.combine_chunks().dictionary_encode()
    return [crs_text(text) for text in encoded.dictionary.to_pylist()], encoded.indices.to_numpy().astype(np.int64)


def _distinct(
    record: Ints,
    crs_names: list[str],
    crs: Ints,
    transform: Floats,
    sizes: Ints,
    bandset: Ints,
    bandsets: list[tuple[str, ...]],
) -> tuple[GridTable, list[str], Layers]:
    """Number the distinct grids, and put the bands of a record that share one together."""
    wanted = np.flatnonzero(np.array([bool(names) for names in bandsets], dtype=bool)[bandset])
    record, crs, bandset = record[wanted], crs[wanted], bandset[wanted]
    transform, sizes = transform[wanted], sizes[wanted]
    rows = np.column_stack([crs.astype(np.float64), transform, sizes.astype(np.float64)])
    distinct, grid = np.unique(rows, axis=0, return_inverse=True)
    grids = GridTable.from_columns(np.ascontiguousarray(distinct[:, 1:7]), distinct[:, 7:].astype(np.int64))
    grid_crs = [crs_names[int(number)] for number in distinct[:, 0]]
    return grids, grid_crs, _merge_bandsets(record, grid.reshape(-1).astype(np.int64), bandset, bandsets)


def _merge_bandsets(record: Ints, grid: Ints, bandset: Ints, bandsets: list[tuple[str, ...]]) -> Layers:
    """One layer for each (record, grid), whose band set is the union of those given for it."""
    order = np.lexsort((bandset, grid, record))
    record, grid, bandset = record[order], grid[order], bandset[order]
    changes = (np.diff(record) != 0) | (np.diff(grid) != 0)
    starts = np.flatnonzero(np.concatenate([[True], changes])) if len(record) else np.empty(0, dtype=np.int64)
    if len(starts) == len(record):
        return Layers(record, grid, bandset, bandsets)
    unions: dict[bytes, int] = {}
    merged: list[tuple[str, ...]] = []
    numbers = np.empty(len(starts), dtype=np.int64)
    for at, members in enumerate(np.split(bandset, starts[1:])):
        key = members.tobytes()
        if key not in unions:
            unions[key] = len(merged)
            merged.append(tuple(band for member in members for band in bandsets[member]))
        numbers[at] = unions[key]
    return Layers(record[starts], grid[starts], numbers, merged)
