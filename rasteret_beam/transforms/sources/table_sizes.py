"""Estimate the size of a point table before it is read."""

import os
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from rasteret_beam.collection.eager.memory_estimate import COPIES, TableSize
from rasteret_beam.readers.storage.found_file import FoundFile
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.transforms.runtime.files import open_parquet
from rasteret_beam.transforms.sources.table_files import BATCH_BYTES, Files
from rasteret_beam.transforms.sources.vector_files import is_vector

LOOKED_AT = 32
"""Number of footers to read; the other files of a table are assumed to be similar."""


def size_of_files(files: Files, needed: Sequence[str]) -> TableSize:
    """The size of a table in files; for CSV and vector files, the size of its local files on disk."""
    found = files.found()
    if is_vector(files.first.path) or files.is_csv(files.first.path):
        local = [file.path for file in found if not Location.of(file.path).is_remote]
        known = [files.vector_file(path).rows() for path in local if is_vector(path)]
        counts = [rows for rows in known if rows is not None]
        size = sum(map(os.path.getsize, local))
        return TableSize(sum(counts) if len(counts) == len(found) else None, size, BATCH_BYTES)
    looked_at = found[:: -(-len(found) // LOOKED_AT)]
    share = len(found) / len(looked_at)
    groups = [group for file in looked_at for group in _groups(file, files, set(needed))]
    rows, total = (int(share * sum(group[at] for group in groups)) for at in (0, 1))
    return TableSize(rows, total, max((read for _, _, read in groups), default=0))


def _groups(file: FoundFile, files: Files, needed: set[str]) -> list[tuple[int, int, int]]:
    """(rows, bytes of needed columns, bytes to read them) of each row group.

    Arrow's reader holds the stored columns of a row group, the decompressed pages (about the whole, for long strings or
    dictionaries), and the decoded columns.
    """
    with open_parquet(file.path, files.access) as opened:
        metadata: pq.FileMetaData = opened.metadata
        places = [
            place
            for place in range(metadata.num_columns)
            if metadata.schema.column(place).path.partition(".")[0] in needed
        ]
        groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
        return [_size(group, [group.column(place) for place in places]) for group in groups]


def _size(group: pq.RowGroupMetaData, columns: Sequence[pq.ColumnChunkMetaData]) -> tuple[int, int, int]:
    stored = sum(column.total_compressed_size for column in columns)
    plain = sum(column.total_uncompressed_size for column in columns)
    return group.num_rows, plain, stored + 2 * plain


def size_of_batches(batches: Sequence[pa.RecordBatch]) -> TableSize:
    """The size of a table in memory, which becomes part of the pipeline."""
    total = sum(batch.nbytes for batch in batches)
    return TableSize(sum(map(len, batches)), total, COPIES * total)
