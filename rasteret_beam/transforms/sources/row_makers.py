"""The interface for turning rows of files into output batches."""

from collections.abc import Set
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from rasteret_beam.errors import without_secrets
from rasteret_beam.kernels.tables.partitions import Keys, check_agrees, partition_column


class RowMaker(Protocol):
    """Turns rows of files into output batches; it is sent with the job."""

    @property
    def needed(self) -> list[str]:
        """The columns to read."""
        ...

    @property
    def most_rows(self) -> int:
        """Maximum number of rows of a batch."""
        ...

    def check(self, schema: pa.Schema, path: str) -> None:
        """Refuse a file with other columns than the first."""
        ...

    def csv_types(self) -> dict[str, pa.DataType]:
        """Types of the needed columns in a CSV file."""
        ...

    def batch(self, batch: pa.RecordBatch, first_row: int) -> pa.RecordBatch:
        """A batch of input rows as an output batch, with rows numbered from ``first_row``."""
        ...


@dataclass(frozen=True)
class InPartition:
    """A row maker for one file whose hive partition columns come from folder names.

    Attributes
    ----------
    rows : RowMaker
        The row maker for all columns, as if they were in the file.
    path : str
    keys : mapping
        Partition keys of the path; see :func:`rasteret_beam.kernels.tables.partitions.partition_keys`.
    fields : pyarrow.Schema
        The partition columns of all files.
    own : set of str
        Columns of the file itself.
    """

    rows: RowMaker
    path: str
    keys: Keys
    fields: pa.Schema
    own: Set[str]

    @property
    def _added(self) -> list[pa.Field]:
        needed = set(self.rows.needed)
        return [field for field in self.fields if field.name not in self.own and field.name in needed]

    @property
    def needed(self) -> list[str]:
        added = {field.name for field in self._added}
        return [name for name in self.rows.needed if name not in added]

    @property
    def most_rows(self) -> int:
        return self.rows.most_rows

    def check(self, schema: pa.Schema, path: str) -> None:
        for field in self._added:
            schema = schema.append(field)
        self.rows.check(schema, path)

    def csv_types(self) -> dict[str, pa.DataType]:
        needed = set(self.needed)
        return {name: kind for name, kind in self.rows.csv_types().items() if name in needed}

    def batch(self, batch: pa.RecordBatch, first_row: int) -> pa.RecordBatch:
        shown = without_secrets(self.path)
        for name in set(self.fields.names) & set(self.needed):
            check_agrees(batch.column(name), name, self.keys, first_row, shown)
        columns = [partition_column(field, self.keys, len(batch), shown) for field in self._added]
        schema = pa.schema([*batch.schema, *self._added], metadata=batch.schema.metadata)
        return self.rows.batch(pa.RecordBatch.from_arrays([*batch.columns, *columns], schema=schema), first_row)
