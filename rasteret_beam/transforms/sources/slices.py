"""Read a table by ranges of its rows, so that a job can take them in rounds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import apache_beam as beam
import pyarrow as pa

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam.transforms.sources.row_makers import RowMaker
from rasteret_beam.transforms.sources.table_files import Files, Split, reading, splits_of


class Slices(Protocol):
    """A table whose rows can be read by ranges of row numbers."""

    @property
    def sizes(self) -> Sequence[int | None]:
        """Rows of each part that is best read whole, in order; None for a part of unknown size, which is the last."""
        ...

    def read(self, first: int, stop: int) -> beam.PTransform[Any, Any]:
        """Read the rows from ``first`` up to ``stop``, with the row numbers of the whole table."""
        ...


@dataclass(frozen=True, eq=False)
class FileSlices:
    """Slices of Parquet and CSV files: row groups, whole CSV files, and parts of these."""

    files: Files
    rows: RowMaker

    @cached_property
    def splits(self) -> list[Split]:
        return splits_of(self.files)

    @property
    def sizes(self) -> list[int | None]:
        return [split.rows for split in self.splits]

    def read(self, first: int, stop: int) -> beam.PTransform:
        return _ReadSplits(list(within(self.splits, first, stop)), self)


@dataclass(eq=False)
class _ReadSplits(beam.PTransform):
    splits: list[Split]
    of: FileSlices

    def expand(self, pipeline: Any) -> beam.PCollection[pa.RecordBatch]:
        return (
            pipeline
            | "Splits" >> beam.Create(self.splits)
            | "SpreadSplits" >> beam.Reshuffle()
            | "Read" >> reading(self.of.files, self.of.rows)
        )


@dataclass(frozen=True, eq=False)
class BatchSlices:
    """Slices of a table in memory."""

    batches: Sequence[pa.RecordBatch]

    @property
    def sizes(self) -> list[int | None]:
        return [len(batch) for batch in self.batches]

    def read(self, first: int, stop: int) -> beam.PTransform:
        return beam.Create(list(self._within(first, stop))).with_output_types(pa.RecordBatch)

    def _within(self, first: int, stop: int) -> Iterator[pa.RecordBatch]:
        row = 0
        for batch in self.batches:
            start, end = max(row, first), min(row + len(batch), stop)
            if start < end:
                yield batch.slice(start - row, end - start)
            row += len(batch)


def within(splits: Sequence[Split], first: int, stop: int) -> Iterator[Split]:
    """The splits of a range of rows; those that it contains in part are cut."""
    for split in splits:
        start = max(split.first_row, first)
        end = stop if split.rows is None else min(split.first_row + split.rows, stop)
        if start < end:
            is_cut = split.rows is None or end - start < split.rows
            rows = end - start
            yield split._replace(first_row=start, rows=rows, skip=start - split.first_row, is_cut=is_cut)
