"""Estimate the memory and temporary disk of a sampling job in the local runner."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rasteret_beam.kernels.routing.chunks import ChunkRules, route
from rasteret_beam.kernels.routing.index import RoutingIndex, locate
from rasteret_beam.kernels.routing.matching import matched
from rasteret_beam.kernels.tables.point_columns import coordinates
from rasteret_beam.readers.jobs.spill import IN_MEMORY_BYTES, LEAST_CHUNK_BYTES
from rasteret_beam.readers.tiles.budget import ROW_GROUP_BYTES, ROW_GROUP_ROWS, CacheBudget, writers
from rasteret_beam.schema import POINT_FIELDS

BASE_BYTES = 310 << 20
"""Measured memory of Python with Beam, Arrow and GDAL; a job of a thousand points takes little more."""

COPIES = 3
"""Copies of the data of a shuffle that the local runner holds temporarily."""

WAITING = 2
"""Row groups of the output in memory besides those being written: one that fills up, and memory for encoding."""

REFERENCE_BYTES = 400
"""Size of the reference to a spilled chunk, with its key, in one of the :data:`COPIES`."""

BATCHES, BATCH_BYTES = 3, 16 << 20
"""Copies of a batch of points while it is routed, including the batch."""

PIXEL_BYTES = 8
"""Bytes of a point's pixel on the grid."""

ROW_BYTES = 80
"""Bytes of the columns of a sample, without kept columns."""


@dataclass(frozen=True)
class TableSize:
    """The size of a point table before it is read.

    Attributes
    ----------
    rows : int or None
    total_bytes : int
        Uncompressed size of the needed columns; 0 if unknown.
    read_bytes : int
        Memory to read the largest part.
    """

    rows: int | None
    total_bytes: int
    read_bytes: int

    def row_bytes(self, batch: pa.RecordBatch | None) -> float:
        """Bytes of a point with its kept columns in memory, from the first batch."""
        if batch is not None and len(batch):
            return float(batch.nbytes / len(batch))
        return self.total_bytes / self.rows if self.rows else 0.0

    def points(self, row_bytes: float) -> float:
        """Number of points, or an estimate."""
        return self.rows if self.rows is not None else self.total_bytes / max(row_bytes, 1.0)


@dataclass(frozen=True)
class Routing:
    """Average results of routing per point.

    Attributes
    ----------
    chunks : float
        Chunks in the shuffle, counted for each record.
    sent : float
        Number of chunks that contain the point.
    different : float
        As ``sent``, but a chunk that the records of a grid share counts once.
    rows : float
        Rows of the sample table.
    """

    chunks: float = 0.0
    sent: float = 0.0
    different: float = 0.0
    rows: float = 0.0

    @classmethod
    def of(cls, index: RoutingIndex, batch: pa.RecordBatch, crs: str) -> "Routing":
        """The averages of the first batch of points, which stands for all batches."""
        chunks = sent = different = rows = 0
        last = None
        needed = [field.name for field in POINT_FIELDS]
        needed += [index.matcher.time_column] if index.matcher.time_column is not None else []
        for key, chunk in route(index, batch.select(needed), crs, ChunkRules()).chunks:
            chunks += 1
            sent += len(chunk)
            different += 0 if chunk is last else len(chunk)
            rows += 0 if index.decides_later else len(chunk) * len(index.grid_of(key)[1])
            last = chunk
        rows += _rows_taken(index, batch, crs) if index.decides_later else 0
        return cls(*(number / len(batch) for number in (chunks, sent, different, rows)))


def _rows_taken(index: RoutingIndex, batch: pa.RecordBatch, crs: str) -> int:
    """Bands of all records that are taken of the points, if none of them is left out."""
    x, y, reason = coordinates(batch, crs)
    taken = 0
    for pick in matched(index, batch, locate(index, crs, x, y), reason, index.by_record).picks:
        for group, count in zip(*np.unique(pick.group, return_counts=True), strict=True):
            taken += int(count) * sum(len(index.layers.bandsets[bandset]) for _, bandset in pick.layers(int(group)))
    return taken


@dataclass(frozen=True)
class Estimate:
    """Estimated needs of a job in bytes.

    Attributes
    ----------
    memory : int
        Peak memory of the process.
    reading : int
        Share of reading the points, if it is the largest.
    disk : int
        Disk space in the folder of temporary files.
    """

    memory: int
    reading: int
    disk: int


def estimate(
    table: TableSize,
    batch: pa.RecordBatch | None,
    routing: Routing,
    cache: CacheBudget,
    round_points: int | None = None,
) -> Estimate:
    """Estimate the peak memory of a job in Beam's local runner, and the size of its spilled chunks.

    The runner works in two steps. The first step reads and routes the points. It needs memory for the largest part of
    the table that is read at once (a Parquet row group, once as stored and twice decoded), for some copies of a batch,
    and for the chunks so far. The second step samples them. It needs memory for :data:`COPIES` of the data in the
    shuffle (:data:`IN_MEMORY_BYTES`, and a reference to each spilled chunk), and for the row groups being written and
    :data:`WAITING` more. Both steps also need memory for the program and its cache of tiles. Measured peaks of narrow,
    text and wide tables and of many records were within a factor of 1.5 of the estimate.

    The estimate leaves out what cannot be known beforehand: strings that Parquet stores once and memory holds many
    times, returned neighbourhoods, and other processes.

    Parameters
    ----------
    table : TableSize
    batch : RecordBatch, optional
        The first batch of the table; without it only the number of rows is known.
    routing : Routing
        Routing of that batch; ``Routing()`` gives the memory for reading.
    cache : CacheBudget
    round_points : int, optional
        Largest number of points of a round, if the job runs in rounds.
    """
    row_bytes = table.row_bytes(batch)
    points = table.points(row_bytes)
    if round_points is not None:
        points = min(points, round_points)
    chunk_bytes = row_bytes + PIXEL_BYTES
    chunks = points * max(routing.chunks, routing.sent * chunk_bytes / ChunkRules.max_bytes)
    in_shuffle = max(points * routing.sent * chunk_bytes, chunks * LEAST_CHUNK_BYTES)
    spills = in_shuffle > IN_MEMORY_BYTES
    held = IN_MEMORY_BYTES + chunks * REFERENCE_BYTES if spills else in_shuffle
    row = ROW_BYTES + row_bytes
    group = min(ROW_GROUP_ROWS * row, ROW_GROUP_BYTES + row)
    written = min(COPIES * points * routing.rows * row, (writers() + WAITING) * group)
    of_batch = min(points * row_bytes, max(BATCH_BYTES, row_bytes))
    reading = table.read_bytes + BATCHES * of_batch + (COPIES - 1) * held
    sampling = COPIES * held + written
    memory = int(BASE_BYTES + cache.share + max(reading, sampling))
    disk = points * routing.different * chunk_bytes if spills else 0
    return Estimate(memory, table.read_bytes if 2 * table.read_bytes > memory else 0, int(disk))
