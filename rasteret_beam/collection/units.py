"""The parts a collection is read in: whole files for the light columns, single row groups for assets."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from rasteret_beam.collection.storage import readable
from rasteret_beam.kernels.grids import Ints

Columns = dict[str, ds.Expression]


@dataclass(frozen=True)
class Unit:
    """A part of a collection that is read at once: a row group of a file, or a table."""

    fragment: ds.Fragment
    schema: pa.Schema = field(repr=False)

    def read(self, columns: Columns, filter: ds.Expression | None = None) -> pa.Table:
        """Columns of its rows, all or those that pass a filter, in the order they are stored in."""
        with readable(getattr(self.fragment, "path", "the table")):
            return self.fragment.to_table(schema=self.schema, columns=columns, filter=filter)


@dataclass(frozen=True)
class CollectionFile:
    """A file of a collection (or its table), without the row groups that a filter rules out.

    Attributes
    ----------
    whole : Unit
        What is left of the file. ``filter`` says which of its rows are wanted.
    units : sequence of Unit
        Its row groups; ``sizes`` [u] int64 are their rows.
    """

    whole: Unit
    filter: ds.Expression | None
    units: Sequence[Unit]
    sizes: Ints

    def wanted(self, columns: Columns) -> tuple[pa.Table, Ints]:
        """Columns of the wanted rows, and the positions of these among the rows of all units.

        One scan of a file costs little more than one of a row group, of which a wide collection has many.
        """
        table = self.whole.read(columns, self.filter)
        if self.filter is None:
            return table, np.arange(len(table), dtype=np.int64)
        passed = self.whole.read({"passed": self.filter})["passed"]
        return table, np.flatnonzero(pc.fill_null(passed, False).to_numpy())


def files_of(dataset: ds.Dataset, filter: ds.Expression | None) -> list[CollectionFile]:
    """The files of a collection that may hold rows for which a filter is true, in collection order."""
    return [_file(fragment, dataset.schema, filter) for fragment in dataset.get_fragments(filter=filter)]


def _file(fragment: ds.Fragment, schema: pa.Schema, filter: ds.Expression | None) -> CollectionFile:
    if not isinstance(fragment, ds.ParquetFileFragment):
        whole = Unit(fragment, schema)
        return CollectionFile(whole, filter, [whole], np.array([fragment.count_rows()]))
    if filter is not None:
        fragment = fragment.subset(filter=filter, schema=schema)
    groups = [Unit(group, schema) for group in fragment.split_by_row_group()]
    sizes = np.array([group.num_rows for group in fragment.row_groups], dtype=np.int64)
    return CollectionFile(Unit(fragment, schema), filter, groups, sizes)
