"""Rows of the table of zonal statistics."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.columns import GEOMETRY, RECORD, record_names
from rasteret_beam.kernels.geo.crs import epsg_code, projjson
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.layers import NO_DATETIME
from rasteret_beam.kernels.statistics.zones import Column, joined
from rasteret_beam.schema import CHIP_FIELDS, MERGED_RECORDS, POLYGON_CRS_KEY, kept_polygon_fields
from rasteret_beam.zonal_options import ZonalOptions

BATCH_ROWS = 131_072

BATCH_BYTES = 128 << 20
"""Of polygons in a batch."""

LAST = np.iinfo(np.int64).max
"""The place of rows without a record, after those of records."""


@dataclass(frozen=True, eq=False)
class ZoneRows:
    """The rows of some polygons, of one band and one record, or one set of records of a moment.

    Attributes
    ----------
    records : tuple of (record, grid)
        Positions in the index, in collection order.
    band : int
        Its number.
    zones : [n] int64
        Positions of the polygons in their chunk.
    columns : dict of Column [n]
        By the name of the statistic.
    """

    records: tuple[tuple[int, int], ...]
    band: int
    zones: Ints
    columns: dict[str, Column]


@dataclass(frozen=True, eq=False)
class RowMaker:
    """Makes rows of a job.

    Attributes
    ----------
    index : CollectionIndex
    collection : str
    bands : sequence of str
    options : ZonalOptions
    """

    index: CollectionIndex
    collection: str
    bands: Sequence[str]
    options: ZonalOptions

    def schema(self, polygons: pa.Schema) -> pa.Schema:
        crs = (polygons.metadata or {}).get(POLYGON_CRS_KEY)
        kept = kept_polygon_fields(polygons)
        return self.options.schema(kept, self.index.records.types, projjson(crs.decode() if crs else None))

    def rows(self, chunk: pa.RecordBatch, found: Sequence[ZoneRows], missing: Ints) -> Iterator[pa.RecordBatch]:
        """Batches by polygon, record (or moment) and band.

        Parameters
        ----------
        chunk : RecordBatch
            Of the polygons.
        missing : [m, 2] int64
            Polygons and bands that have a row without a record.
        """
        sizes = [len(each.zones) for each in found]
        part = np.repeat(np.arange(len(found)), sizes)
        zone = np.concatenate([*(each.zones for each in found), missing[:, 0]]).astype(np.int64)
        band = np.concatenate([np.array([each.band for each in found], dtype=np.int64)[part], missing[:, 1]])
        facts = self._facts(found)
        of = np.concatenate([part, np.full(len(missing), len(found), dtype=np.int64)])
        order = np.lexsort((of, band, np.append(facts.place, LAST)[of], zone))
        statistics = self._statistics(found, len(missing))
        most = self._batch_rows(chunk)
        for first in range(0, len(order), most):
            at = order[first : first + most]
            names = pa.array(self.bands).take(pa.array(band[at]))
            yield self._batch(
                chunk, zone[at], facts.take(of[at]), names, [each.take(pa.array(at)) for each in statistics]
            )

    def _batch_rows(self, chunk: pa.RecordBatch) -> int:
        """Rows of a batch, at most: fewer where each has a large polygon."""
        if self.options.geometry == "off" or not len(chunk):
            return BATCH_ROWS
        largest = pc.max(pc.binary_length(chunk[GEOMETRY])).as_py() or 1
        return min(BATCH_ROWS, max(1, BATCH_BYTES // largest))

    def _batch(
        self,
        chunk: pa.RecordBatch,
        zone: Ints,
        of_record: dict[str, pa.Array],
        bands: pa.Array,
        statistics: list[pa.Array],
    ) -> pa.RecordBatch:
        schema, at = self.schema(chunk.schema), pa.array(zone)
        columns: dict[str, pa.Array] = {"geometry_id": chunk["geometry_id"].take(at), "band": bands}
        columns["collection"] = pa.repeat(pa.scalar(self.collection, pa.string()), len(zone))
        columns |= of_record | dict(zip(self.options.statistics, statistics, strict=True))
        if self.options.geometry != "off":
            columns[GEOMETRY] = chunk[GEOMETRY].take(at)
        for field in kept_polygon_fields(chunk.schema):
            columns[field.name] = chunk[field.name].take(at)
        return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)

    def _statistics(self, found: Sequence[ZoneRows], missing: int) -> list[pa.Array]:
        """The statistics of all rows, then null for those without a record."""
        kinds = self.schema(pa.schema([]))
        arrays = []
        for name in self.options.statistics:
            kind = kinds.field(name).type
            parts = [pa.nulls(missing, kind)]
            if found:
                values, null = joined([each.columns for each in found], name)
                parts.insert(0, pa.array(values, mask=null).cast(kind))
            arrays.append(pa.concat_arrays(parts))
        return arrays

    def _facts(self, found: Sequence[ZoneRows]) -> "_Facts":
        """What rows have of their records."""
        routing, merges = self.index.routing, self.options.merges
        ids, moments, codes = [], [], []
        for each in found:
            members = [record for record, _ in each.records]
            known = [int(routing.datetimes[record]) for record in members]
            codes_of = {epsg_code(routing.grid_crs[grid]) for _, grid in each.records}
            ids.append(None if merges else routing.record_ids[members[0]])
            moments.append(min(known))
            codes.append(codes_of.pop() if len(codes_of) == 1 else None)
        columns = {
            "record_id": pa.array([*ids, None], pa.string()),
            "datetime": pa.array([*(None if at == NO_DATETIME else at for at in moments), None], pa.int64()).cast(
                CHIP_FIELDS[2].type
            ),
            "raster_crs": pa.array([*codes, None], pa.int32()),
        }
        if merges:
            columns[MERGED_RECORDS.name] = pa.array([*(len(each.records) for each in found), None], pa.int64())
        for name in record_names(self.options.extra_columns):
            kind = self.index.records.types[name]
            own = [self.index.records.of(routing.record_ids[each.records[0][0]])[name] for each in found]
            columns[RECORD + name] = pa.concat_arrays([*(one.cast(kind) for one in own), pa.nulls(1, kind)])
        place = np.array(moments if merges else [each.records[0][0] for each in found], dtype=np.int64)
        return _Facts(place, columns)


@dataclass(frozen=True, eq=False)
class _Facts:
    """Columns of the records of [k] parts, and of none in a last row; ``place`` [k] is the order of the parts."""

    place: Ints
    columns: dict[str, pa.Array]

    def take(self, parts: Ints) -> dict[str, pa.Array]:
        at = pa.array(parts)
        return {name: column.take(at) for name, column in self.columns.items()}
