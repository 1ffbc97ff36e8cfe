"""Read a collection in parts: whole files for the small columns, single row groups for assets.

A parsed Parquet footer of a wide collection is large (210 MB for 50,000 records of 64 bands), and Arrow keeps it while
the fragment exists. So each read uses a new fragment, which is released afterwards.

Columns are read as leaves of the file and taken from their structs afterwards: Arrow's scanner searches all columns for
each nested field, which takes minutes for a thousand bands.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from rasteret_beam.collection.parquet.arrow_filesystem import url_of
from rasteret_beam.collection.parquet.files import check_part, readable
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.readers.tiles.cache import BytesCache

FOOTER_CACHE_BYTES = 512 << 20
PARSED_FOOTER = 12
"""Ratio of a Parquet footer's size in memory to its size on disk."""

Path = tuple[str, ...]
Members = dict[Path, dict[str, Any]]
Columns = dict[str, Path]
"""Names of columns and the path of each: a column of the collection, then fields of structs."""

Footers = BytesCache[ds.Fragment]


@dataclass(frozen=True, eq=False)
class RowGroup:
    """A part of a collection that is read at once: a row group of a file, or (without a number) a table."""

    file: "CollectionFile"
    row_group: int | None = None

    def read(self, columns: Columns) -> pa.Table:
        """Columns of all rows, in stored order."""
        with readable(self.file.path):
            row_groups = None if self.row_group is None else [self.row_group]
            return _read(self.file.with_footer(), row_groups, columns, self.file.schema)


@dataclass(frozen=True, eq=False)
class FileRows:
    """The selected rows of a file.

    Attributes
    ----------
    table : Table
    position : [n] int64
        Their positions among the rows of all units.
    units : sequence of Unit
        The row groups that may have selected rows. ``sizes`` [u] int64 are their numbers of rows.
    """

    table: pa.Table
    position: Ints
    units: Sequence[RowGroup]
    sizes: Ints


@dataclass(frozen=True, eq=False)
class CollectionFile:
    """A file of a collection (or its table) and the filter of its rows."""

    fragment: ds.Fragment
    schema: pa.Schema
    filter: ds.Expression | None
    footers: Footers = field(default_factory=lambda: BytesCache(FOOTER_CACHE_BYTES))

    @property
    def path(self) -> str:
        return url_of(self.fragment) if isinstance(self.fragment, ds.ParquetFileFragment) else "the table"

    def read(self, columns: Columns) -> FileRows:
        """Columns of the selected rows in one scan, which costs little more than a scan of one row group."""
        with readable(self.path):
            fragment = self._fresh()
            if isinstance(fragment, ds.ParquetFileFragment):
                check_part(fragment.physical_schema.names, self.path)
                fragment = fragment if self.filter is None else fragment.subset(filter=self.filter, schema=self.schema)
                units = [RowGroup(self, group.id) for group in fragment.row_groups]
                sizes = [group.num_rows for group in fragment.row_groups]
                row_groups = [group.id for group in fragment.row_groups]
            else:
                units, sizes, row_groups = [RowGroup(self)], [fragment.count_rows()], None
            table = _read(fragment, row_groups, columns, self.schema)
            position = np.arange(len(table), dtype=np.int64)
            if self.filter is not None:
                passed = fragment.to_table(schema=self.schema, columns={"passed": self.filter})["passed"]
                position = np.flatnonzero(pc.fill_null(passed, False).to_numpy())
                table = table.take(pa.array(position))
        return FileRows(table, position, units, np.array(sizes, dtype=np.int64))

    def has_rows(self) -> bool:
        """Whether the filter selects any row."""
        with readable(self.path):
            scanner = self._fresh().scanner(schema=self.schema, columns=["id"], filter=self.filter)
            return len(scanner.head(1)) > 0

    def with_footer(self) -> ds.Fragment:
        """The file's fragment with its parsed footer, kept while the cache has room for it."""
        if not isinstance(self.fragment, ds.ParquetFileFragment):
            return self.fragment
        found = self.footers.get(self.fragment.path)
        if found is None:
            found = self._fresh()
            found.ensure_complete_metadata()
            self.footers.put(self.fragment.path, found, PARSED_FOOTER * found.metadata.serialized_size)
        return found

    def _fresh(self) -> ds.Fragment:
        """A new fragment, which is released after use."""
        given = self.fragment
        if not isinstance(given, ds.ParquetFileFragment):
            return given
        return given.format.make_fragment(given.path, given.filesystem, given.partition_expression)


def _read(fragment: ds.Fragment, row_groups: list[int] | None, columns: Columns, schema: pa.Schema) -> pa.Table:
    """Columns of a table or of row groups of a file, cast to the collection's schema."""
    if not isinstance(fragment, ds.ParquetFileFragment):
        return _picked(fragment.to_table(), columns, schema, {})
    with fragment.open() as opened, pq.ParquetFile(opened, metadata=fragment.metadata, pre_buffer=True) as file:
        table = file.read_row_groups(row_groups, columns=[".".join(path) for path in columns.values()])
    return _picked(table, columns, schema, ds.get_partition_keys(fragment.partition_expression))


def _picked(table: pa.Table, columns: Columns, schema: pa.Schema, partition: dict[str, Any]) -> pa.Table:
    """Columns from the structs of a table: null if the file lacks them, constant if its folder gives them."""
    found: Members = {(): dict(zip(table.column_names, table.columns, strict=True))}
    types: Members = {(): {field.name: field.type for field in schema}}
    picked = []
    for path in columns.values():
        kind = _members(path[:-1], types, _member_types)[path[-1]]
        column = _members(path[:-1], found, _member_columns).get(path[-1])
        if column is None:
            column = pa.repeat(pa.scalar(partition.get(path[0]) if len(path) == 1 else None, type=kind), len(table))
        picked.append(column if column.type.equals(kind) else column.cast(kind))
    return pa.table(picked, names=list(columns))


def _members(
    path: Path, known: dict[Path, dict[str, Any]], take_apart: Callable[[Any], dict[str, Any]]
) -> dict[str, Any]:
    """The fields of the struct at a path by name; each struct is flattened once, as it may have a field per band."""
    if path not in known:
        struct = _members(path[:-1], known, take_apart).get(path[-1])
        known[path] = {} if struct is None else take_apart(struct)
    return known[path]


def _member_columns(struct: pa.ChunkedArray) -> dict[str, Any]:
    return dict(zip((field.name for field in struct.type), struct.flatten(), strict=True))


def _member_types(struct: pa.StructType) -> dict[str, Any]:
    return {field.name: field.type for field in struct}


def files_of(dataset: ds.Dataset, filter: ds.Expression | None) -> list[CollectionFile]:
    """The files of a collection that may have rows that match a filter, in collection order."""
    footers: Footers = BytesCache(FOOTER_CACHE_BYTES)
    return [
        CollectionFile(fragment, dataset.schema, filter, footers) for fragment in dataset.get_fragments(filter=filter)
    ]
