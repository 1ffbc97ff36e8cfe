"""The parts a collection is read in: whole files for the light columns, single row groups for assets.

A Parquet footer of a wide collection is large once parsed (210 MB for 50,000 records of 64 bands), and Arrow keeps
it as long as the fragment lives. So files are read through fragments of their own, which are let go of.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from rasteret_beam.collection.remote import url_of
from rasteret_beam.collection.storage import check_part, readable
from rasteret_beam.kernels.grids import Ints
from rasteret_beam.readers.cache import BytesCache

FOOTER_CACHE_BYTES = 512 << 20
PARSED_FOOTER = 12
"""Times the size of a Parquet footer on disk that it has in memory."""

Columns = dict[str, ds.Expression]
Footers = BytesCache[ds.Fragment]


@dataclass(frozen=True, eq=False)
class Unit:
    """A part of a collection that is read at once: a row group of a file, or (without a number) a table."""

    file: "CollectionFile"
    row_group: int | None = None

    def read(self, columns: Columns) -> pa.Table:
        """Columns of all its rows, in the order they are stored in."""
        with readable(self.file.path):
            fragment = self.file.with_footer()
            if self.row_group is not None:
                fragment = fragment.subset(row_group_ids=[self.row_group])
            return fragment.to_table(schema=self.file.schema, columns=columns)


@dataclass(frozen=True, eq=False)
class FileRows:
    """The wanted rows of a file.

    Attributes
    ----------
    table : Table
    position : [n] int64
        Where they are among the rows of all units.
    units : sequence of Unit
        The row groups that may have wanted rows. ``sizes`` [u] int64 are their rows.
    """

    table: pa.Table
    position: Ints
    units: Sequence[Unit]
    sizes: Ints


@dataclass(frozen=True, eq=False)
class CollectionFile:
    """A file of a collection (or its table), and which of its rows are wanted."""

    fragment: ds.Fragment
    schema: pa.Schema
    filter: ds.Expression | None
    footers: Footers = field(default_factory=lambda: BytesCache(FOOTER_CACHE_BYTES))

    @property
    def path(self) -> str:
        return url_of(self.fragment) if isinstance(self.fragment, ds.ParquetFileFragment) else "the table"

    def read(self, columns: Columns) -> FileRows:
        """Columns of the wanted rows, in one scan: that costs little more than one of a row group."""
        with readable(self.path):
            fragment = self._fresh()
            if isinstance(fragment, ds.ParquetFileFragment):
                check_part(fragment.physical_schema.names, self.path)
                fragment = fragment if self.filter is None else fragment.subset(filter=self.filter, schema=self.schema)
                units = [Unit(self, group.id) for group in fragment.row_groups]
                sizes = [group.num_rows for group in fragment.row_groups]
            else:
                units, sizes = [Unit(self)], [fragment.count_rows()]
            table = fragment.to_table(schema=self.schema, columns=columns, filter=self.filter)
            position = np.arange(len(table), dtype=np.int64)
            if self.filter is not None:
                passed = fragment.to_table(schema=self.schema, columns={"passed": self.filter})["passed"]
                position = np.flatnonzero(pc.fill_null(passed, False).to_numpy())
        return FileRows(table, position, units, np.array(sizes, dtype=np.int64))

    def has_rows(self) -> bool:
        """Whether any of its rows is wanted."""
        with readable(self.path):
            scanner = self._fresh().scanner(schema=self.schema, columns=["id"], filter=self.filter)
            return len(scanner.head(1)) > 0

    def with_footer(self) -> ds.Fragment:
        """The file's fragment with its footer parsed, as long as the cache has room for it."""
        if not isinstance(self.fragment, ds.ParquetFileFragment):
            return self.fragment
        found = self.footers.get(self.fragment.path)
        if found is None:
            found = self._fresh()
            found.ensure_complete_metadata()
            self.footers.put(self.fragment.path, found, PARSED_FOOTER * found.metadata.serialized_size)
        return found

    def _fresh(self) -> ds.Fragment:
        """A fragment that nobody else holds."""
        given = self.fragment
        if not isinstance(given, ds.ParquetFileFragment):
            return given
        return given.format.make_fragment(given.path, given.filesystem, given.partition_expression)


def files_of(dataset: ds.Dataset, filter: ds.Expression | None) -> list[CollectionFile]:
    """The files of a collection that may hold rows for which a filter is true, in collection order."""
    footers: Footers = BytesCache(FOOTER_CACHE_BYTES)
    return [
        CollectionFile(fragment, dataset.schema, filter, footers) for fragment in dataset.get_fragments(filter=filter)
    ]
