"""The index of a collection: a small routing index in memory, and assets that are read on demand.

The routing index reads only ids, datetimes and grids, file by file. Assets are read for the records and bands that a
worker needs, one row group at a time, into a cache that is limited in bytes.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_beam.collection.index.band_checks import PLACES, BandChecks
from rasteret_beam.collection.index.band_columns import METADATA_FIELDS, BandColumns, band_columns, record_crs
from rasteret_beam.collection.index.unit_columns import UnitColumns
from rasteret_beam.collection.parquet.checks import RecordChecks
from rasteret_beam.collection.parquet.checksums import check_records
from rasteret_beam.collection.parquet.layout import band_names, exact_nodata
from rasteret_beam.collection.parquet.row_groups import CollectionFile, Columns, RowGroup
from rasteret_beam.columns import RECORD
from rasteret_beam.errors import CollectionError, without_secrets
from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.geo.grids import GridTable, Ints
from rasteret_beam.kernels.routing.index import RoutingIndex, build_index
from rasteret_beam.kernels.routing.layers import NO_DATETIME, Layers
from rasteret_beam.kernels.sampling.record_columns import RecordColumns, held_column
from rasteret_beam.kernels.tables.distinct import distinct_rows
from rasteret_beam.model import DEFAULT_ACCESS, Access, Asset, MatchRules, StoredBand
from rasteret_beam.readers.tiles.budget import CacheBudget
from rasteret_beam.readers.tiles.cache import BytesCache
from rasteret_beam.schema import CHECKSUMS, EXTRA_SUFFIX, METADATA_SUFFIX

GRID_FIELDS = ("width", "height", "tile_width", "tile_height")
METADATA_FACTS = (
    "dtype",
    "nodata",
    "compression",
    "predictor",
    "samples_per_pixel",
    "planar_configuration",
    "photometric",
    "extra_samples",
    "tile_offsets",
    "tile_byte_counts",
)
EXTRA_FACTS = (
    "byte_order",
    "bits_per_sample",
    "fill_order",
    "lerc_compression",
    "file_size",
    "etag",
    "header_digest",
    "fallback_reason",
    "mask",
    "nodata_integer",
    "scale",
    "offset",
)
"""Columns of a band that an asset keeps; collections by other tools lack the extra columns."""

Arrays = dict[str, pa.Array]


class CollectionIndex:
    """The routing index and the assets of a collection for some bands, and for those that decide about quality.

    Parameters
    ----------
    files : sequence of CollectionFile
        In collection order.
    schema : pyarrow.Schema
        Of the collection.
    bands : sequence of str
        Bands to read, in output order; each is in the schema.
    match : str or MatchRules
        With the bands that decide about quality; no record has those that are not in the schema.
    access : Access
        How the buckets of the rasters are read.
    cache_bytes : int
        Limit of the cache of tile offsets and other facts; a larger row group is read again for each record.
    record_columns : sequence of str
        Columns of the collection that rows are to have.

    Attributes
    ----------
    routing : RoutingIndex
    records : RecordColumns
    """

    def __init__(
        self,
        files: Sequence[CollectionFile],
        schema: pa.Schema,
        bands: Sequence[str],
        match: str | MatchRules,
        access: Access = DEFAULT_ACCESS,
        cache_bytes: int = CacheBudget().share,
        record_columns: Sequence[str] = (),
    ):
        self._facts_in = _facts_in(schema)
        self._units_in = UnitColumns(schema)
        self._checks = BandChecks(schema)
        self.access = access
        self._known: BytesCache[list[Asset]] = BytesCache(cache_bytes // 2)
        self._lock = Lock()
        self._cache: BytesCache[Arrays] = BytesCache(cache_bytes // 2)
        rules = MatchRules(match) if isinstance(match, str) else match
        there = band_names(schema)
        known = list(dict.fromkeys([*bands, *(band for band in rules.quality_bands if band in there)]))
        records = _read_records(files, schema, known, record_columns)
        self._units, sizes = records.units, records.unit_sizes
        starts = np.cumsum(sizes) - sizes
        self._unit_of = np.searchsorted(starts, records.row, side="right") - 1
        self._row_in_unit = records.row - starts[self._unit_of]
        grids, crs, layers = _distinct(records.layers, known)
        self.routing: RoutingIndex = build_index(records.ids, records.datetimes, grids, crs, layers, rules, bands)
        types = {name: schema.field(name).type for name in record_columns}
        self.records = RecordColumns(self.routing.positions, records.columns, types)

    def assets(self, record_id: str, bands: Sequence[str]) -> list[Asset]:
        """The assets of some bands of a record.

        Raises
        ------
        CollectionError
            The facts of a band cannot be true, or were changed after the collection was written.
        """
        position = self.routing.positions[record_id]
        key = position, tuple(bands)
        with self._lock:
            found = self._known.get(key)
            if found is None:
                unit = int(self._unit_of[position])
                columns = self._assets_of_unit(unit, key[1])
                row = int(self._row_in_unit[position])
                self._checks.check(columns, row, record_id, key[1], self._units[unit].file.path)
                found = [self._asset(columns, row, record_id, number, band) for number, band in enumerate(bands)]
                self._known.put(key, found, sum(map(_held_bytes, found)))
            return found

    def _asset(self, columns: Arrays, row: int, record_id: str, number: int, band: str) -> Asset:
        def fact(name: str) -> Any:
            column = columns.get(f"{name}{number}")
            if column is None:
                return None
            return _integers(column[row]) if name in PLACES else column[row].as_py()

        href = fact("href")
        if href is None:
            raise CollectionError(f"record {record_id!r} has a grid for band {band!r}, but no href in its assets")
        stored = {field.name: fact(field.name) for field in dataclasses.fields(StoredBand)}
        for name in (*PLACES, "extra_samples"):
            stored[name] = () if stored[name] is None else stored[name]
        known = StoredBand(**stored) if stored["dtype"] is not None else None
        nodata = exact_nodata(fact("nodata"), fact("nodata_integer"))
        units = self._units_in.of(fact, band, f"record {record_id!r}")
        return Asset(record_id, band, href, fact("band_index") or 0, nodata, known, self.access, fact("mask"), *units)

    def _assets_of_unit(self, unit: int, bands: tuple[str, ...]) -> Arrays:
        found = self._cache.get((unit, bands))
        if found is None:
            columns = self._checks.columns(bands)
            for number, band in enumerate(bands):
                columns |= _asset_columns(self._facts_in, number, band) | self._units_in.columns(number, band)
            table = self._units[unit].read(columns).combine_chunks()
            # One lookup for all: finding a name in a table of a thousand columns takes a millisecond.
            found = {name: column.chunk(0) for name, column in zip(table.column_names, table.columns, strict=True)}
            self._cache.put((unit, bands), found, table.nbytes)
        return found


def _facts_in(schema: pa.Schema) -> dict[str, list[str]]:
    """The facts that each column of a band has, of those that an asset keeps."""
    facts = {METADATA_SUFFIX: METADATA_FACTS, EXTRA_SUFFIX: EXTRA_FACTS}
    return {
        field.name: [name for name in wanted if field.type.get_field_index(name) >= 0]
        for field in schema
        for suffix, wanted in facts.items()
        if field.name.endswith(suffix) and pa.types.is_struct(field.type)
    }


def _asset_columns(facts_in: dict[str, list[str]], number: int, band: str) -> Columns:
    columns: Columns = {f"{name}{number}": ("assets", band, name) for name in ("href", "band_index")}
    for column in (band + METADATA_SUFFIX, band + EXTRA_SUFFIX):
        columns |= {f"{name}{number}": (column, name) for name in facts_in.get(column, ())}
    return columns


def _integers(value: pa.Scalar) -> Ints | None:
    """The numbers of a list, [n], copied so that they do not keep the row group in memory."""
    if not value.is_valid:
        return None
    numbers = value.values
    if numbers.null_count:
        return None
    return numbers.cast(pa.int64()).to_numpy(zero_copy_only=False).copy()


def _held_bytes(asset: Asset) -> int:
    """Estimated memory of an asset, mostly for the places of its tiles."""
    return 2000 + (16 * len(asset.stored.tile_offsets) if asset.stored else 0)


def _light_columns(schema: pa.Schema, bands: Sequence[str]) -> Columns:
    columns: Columns = {"id": ("id",), "datetime": ("datetime",)}
    if CHECKSUMS in schema.names:
        columns["checksum"] = (CHECKSUMS, "record")
    if "grids" in schema.names:
        return columns | {"grids": ("grids",)}
    for name in ("crs", "proj:epsg"):
        if name in schema.names:
            columns[name] = (name,)
    for number, band in enumerate(bands):
        for part in METADATA_FIELDS:
            columns[f"{part}{number}"] = (band + METADATA_SUFFIX, part)
    return columns


@dataclass(frozen=True, eq=False)
class RawLayers:
    """Layers before equal grids are merged, as columns [n].

    Attributes
    ----------
    record, crs, bandset : [n] int64
        Positions in the collection, in ``crs_names`` and in ``bandsets``.
    transform : [n, 6] float64
    sizes : [n, 4] int64
        As :data:`GRID_FIELDS`.
    """

    record: Ints
    crs: Ints
    transform: Floats
    sizes: Ints
    bandset: Ints
    crs_names: list[str]
    bandsets: list[tuple[str, ...]]

    @classmethod
    def together(cls, parts: "Sequence[RawLayers]") -> "RawLayers":
        """The layers of several files with common numbers of CRSs and band sets."""
        crs_names = {name: 0 for part in parts for name in part.crs_names}
        bandsets = {bands: 0 for part in parts for bands in part.bandsets}
        for numbers in (crs_names, bandsets):
            numbers.update(zip(numbers, range(len(numbers)), strict=True))  # type: ignore[arg-type]
        crs = [np.array([crs_names[name] for name in part.crs_names], dtype=np.int64)[part.crs] for part in parts]
        sets = [np.array([bandsets[bands] for bands in part.bandsets], dtype=np.int64)[part.bandset] for part in parts]
        return cls(
            np.concatenate([part.record for part in parts]),
            np.concatenate(crs),
            np.concatenate([part.transform for part in parts]),
            np.concatenate([part.sizes for part in parts]),
            np.concatenate(sets),
            list(crs_names),
            list(bandsets),
        )


@dataclass(frozen=True, eq=False)
class RawRecords:
    """The data of records for routing: ids, datetimes, row numbers over all row groups, and layers.

    ``columns`` are those that rows are to have.
    """

    ids: list[str]
    datetimes: Ints
    row: Ints
    layers: RawLayers
    units: list[RowGroup]
    unit_sizes: Ints
    columns: Arrays


def _read_records(
    files: Sequence[CollectionFile], schema: pa.Schema, bands: list[str], record_columns: Sequence[str]
) -> RawRecords:
    """Read the records of all files; the columns of only one file are in memory at a time."""
    read_layers = _read_grids if "grids" in schema.names else _read_band_metadata
    columns = _light_columns(schema, bands) | {RECORD + name: (name,) for name in record_columns}
    asked: dict[str, list[pa.ChunkedArray]] = {name: [] for name in record_columns}
    ids: list[str] = []
    units: list[RowGroup] = []
    datetimes, rows, layers, sizes = [], [], [], []
    first_row = 0
    for file in files:
        found = file.read(columns)
        light = found.table
        raw = read_layers(light, bands, RecordChecks(light["id"], file.path))
        layers.append(dataclasses.replace(raw, record=raw.record + len(ids)))
        moments = light["datetime"].cast(pa.timestamp("us"), safe=False).cast(pa.int64()).fill_null(NO_DATETIME)
        datetimes.append(moments.to_numpy().astype(np.int64))
        rows.append(first_row + found.position)
        sizes.append(found.sizes)
        units += found.units
        ids += light["id"].to_pylist()
        for name, parts in asked.items():
            parts.append(light[RECORD + name])
        first_row += int(found.sizes.sum())
        check_records(light, without_secrets(file.path))
    row, unit_sizes = np.concatenate(rows), np.concatenate(sizes)
    held = {name: held_column(parts) for name, parts in asked.items()}
    return RawRecords(ids, np.concatenate(datetimes), row, RawLayers.together(layers), units, unit_sizes, held)


def _read_grids(light: pa.Table, bands: list[str], checks: RecordChecks) -> RawLayers:
    """Layers from column ``grids``."""
    column = light["grids"].combine_chunks()
    checks.grids(column)
    lengths = pc.list_value_length(column).fill_null(0).to_numpy().astype(np.int64)
    flat = pc.list_flatten(column)
    encoded = pc.struct_field(flat, "bands").dictionary_encode()
    on_grid = [set(json.loads(names)) for names in encoded.dictionary.to_pylist()]
    crs = pc.struct_field(flat, "crs").dictionary_encode()
    return RawLayers(
        np.repeat(np.arange(len(light), dtype=np.int64), lengths),
        crs.indices.to_numpy().astype(np.int64),
        pc.list_flatten(pc.struct_field(flat, "transform"))
        .to_numpy(zero_copy_only=False)
        .astype(np.float64)
        .reshape(-1, 6),
        np.stack([pc.struct_field(flat, name).to_numpy().astype(np.int64) for name in GRID_FIELDS], axis=1),
        encoded.indices.to_numpy().astype(np.int64),
        crs.dictionary.to_pylist(),
        [tuple(band for band in bands if band in names) for names in on_grid],
    )


def _read_band_metadata(light: pa.Table, bands: list[str], checks: RecordChecks) -> RawLayers:
    """Layers from columns ``{band}_metadata``, for a collection without column ``grids``.

    Bands that are equal in all records, such as those of one file, give one layer per record.
    """
    crs_names, crs_of_record = record_crs(light, checks)
    alike: list[tuple[BandColumns, list[str]]] = []
    for number, band in enumerate(bands):
        columns = band_columns(light, number, band, checks)
        same = next((names for known, names in alike if all(map(np.array_equal, known, columns))), None)
        if same is None:
            alike.append((columns, [band]))
        else:
            same.append(band)
    rows, transforms, sizes = (np.concatenate(parts) for parts in zip(*(known for known, _ in alike), strict=True))
    bandset = np.repeat(np.arange(len(alike)), [len(known[0]) for known, _ in alike])
    return RawLayers(
        rows, crs_of_record[rows], transforms, sizes, bandset, crs_names, [tuple(names) for _, names in alike]
    )


def _distinct(raw: RawLayers, bands: list[str]) -> tuple[GridTable, list[str], Layers]:
    """Number the distinct grids and group the bands of a record that share one."""
    wanted = np.flatnonzero(np.array([bool(names) for names in raw.bandsets], dtype=bool)[raw.bandset])
    record, crs, bandset = raw.record[wanted], raw.crs[wanted], raw.bandset[wanted]
    transform, sizes = raw.transform[wanted], raw.sizes[wanted]
    first, grid = distinct_rows([crs, *transform.T, *sizes.T])
    grids = GridTable.from_columns(transform[first], sizes[first])
    grid_crs = [raw.crs_names[number] for number in crs[first].tolist()]
    return grids, grid_crs, _merge_bandsets(record, grid, bandset, raw.bandsets, bands)


def _merge_bandsets(
    record: Ints, grid: Ints, bandset: Ints, bandsets: list[tuple[str, ...]], bands: list[str]
) -> Layers:
    """One layer for each (record, grid) with the union of its band sets."""
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
            union = {band for member in members for band in bandsets[member]}
            merged.append(tuple(band for band in bands if band in union))
        numbers[at] = unions[key]
    return Layers(record[starts], grid[starts], numbers, merged)
