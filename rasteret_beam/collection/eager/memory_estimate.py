"""How much memory, and temporary disk, a sampling job of the local runner should need."""

from dataclasses import dataclass

import pyarrow as pa

from rasteret_beam.kernels.routing.chunks import ChunkRules, route
from rasteret_beam.kernels.routing.index import RoutingIndex
from rasteret_beam.readers.jobs.spill import IN_MEMORY_BYTES, LEAST_CHUNK_BYTES
from rasteret_beam.readers.tiles.budget import ROW_GROUP_BYTES, ROW_GROUP_ROWS, CacheBudget
from rasteret_beam.schema import POINT_FIELDS

BASE_BYTES = 310 << 20
"""Python with Beam, Arrow and GDAL, measured; a job of a thousand points takes little more."""

COPIES = 3
"""Copies of what goes through a shuffle that the local runner holds while it hands it on."""

REFERENCE_BYTES = 400
"""A spilled chunk's stand-in with its key, in one of these copies."""

BATCHES, BATCH_BYTES = 3, 16 << 20
"""Copies of a batch of points while it is routed, and its size."""

PIXEL_BYTES = 8
"""Of a point's place on the grid."""

ROW_BYTES = 80
"""Columns of a sample beside the kept ones."""


@dataclass(frozen=True)
class TableSize:
    """What is known of a point table before it is read.

    Attributes
    ----------
    rows : int or None
    total_bytes : int
        Of the needed columns, not compressed; 0 if unknown.
    read_bytes : int
        Memory that reading takes at once.
    """

    rows: int | None
    total_bytes: int
    read_bytes: int

    def row_bytes(self, batch: pa.RecordBatch | None) -> float:
        """Of a point with its kept columns, in memory, as in the first batch."""
        if batch is not None and len(batch):
            return float(batch.nbytes / len(batch))
        return self.total_bytes / self.rows if self.rows else 0.0

    def points(self, row_bytes: float) -> float:
        """How many there are, or should be."""
        return self.rows if self.rows is not None else self.total_bytes / max(row_bytes, 1.0)


@dataclass(frozen=True)
class Routing:
    """What routing makes of a point, on average.

    Attributes
    ----------
    chunks : float
        That go through the shuffle, counted for each record.
    sent : float
        How often the point is in one of them.
    different : float
        The same, but the chunk of a grid, which its records share, counts once.
    rows : float
        Of the sample table.
    """

    chunks: float = 0.0
    sent: float = 0.0
    different: float = 0.0
    rows: float = 0.0

    @classmethod
    def of(cls, index: RoutingIndex, batch: pa.RecordBatch, crs: str) -> "Routing":
        """As a batch of points is routed; the first one stands for all."""
        chunks = sent = different = rows = 0
        last = None
        for key, chunk in route(index, batch.select(range(len(POINT_FIELDS))), crs, ChunkRules()).chunks:
            chunks += 1
            sent += len(chunk)
            different += 0 if chunk is last else len(chunk)
            rows += len(chunk) * len(index.grid_of(key)[1])
            last = chunk
        return cls(*(number / len(batch) for number in (chunks, sent, different, rows)))


@dataclass(frozen=True)
class Estimate:
    """What a job should need, in bytes.

    Attributes
    ----------
    memory : int
        Peak of the process.
    reading : int
        What reading the points takes of that, where it is most of it.
    disk : int
        Of the folder for temporary files.
    """

    memory: int
    reading: int
    disk: int


def estimate(table: TableSize, batch: pa.RecordBatch | None, routing: Routing, cache: CacheBudget) -> Estimate:
    """The peak memory of a job in Beam's local runner, and what it spills.

    The runner works in two steps. First points are read and routed: the largest piece of the table that has to be in
    memory at once (a Parquet row group as stored, and twice as decoded), some copies of a batch, and the chunks so
    far. Then they are sampled: :data:`COPIES` of what the shuffle holds (:data:`IN_MEMORY_BYTES`, and a reference to
    each chunk that is spilled), and three row groups of the output. Either way the program itself and its cache of
    tiles come on top. Measured peaks of narrow, text and wide tables and of many records were within a factor of 1.5.

    Parameters
    ----------
    table : TableSize
    batch : RecordBatch, optional
        The first of the table; without it nothing is known of the rows but their number.
    routing : Routing
        Of that batch; ``Routing()`` gives the memory that reading needs.
    cache : CacheBudget

    What cannot be known beforehand is not in it: strings that Parquet stores once and memory holds often,
    neighbourhoods that are returned, and the work of other processes.
    """
    row_bytes = table.row_bytes(batch)
    points = table.points(row_bytes)
    chunk_bytes = row_bytes + PIXEL_BYTES
    chunks = points * max(routing.chunks, routing.sent * chunk_bytes / ChunkRules.max_bytes)
    in_shuffle = max(points * routing.sent * chunk_bytes, chunks * LEAST_CHUNK_BYTES)
    spills = in_shuffle > IN_MEMORY_BYTES
    held = IN_MEMORY_BYTES + chunks * REFERENCE_BYTES if spills else in_shuffle
    row = ROW_BYTES + row_bytes
    group = min(points * routing.rows * row, ROW_GROUP_ROWS * row, ROW_GROUP_BYTES + row)
    of_batch = min(points * row_bytes, max(BATCH_BYTES, row_bytes))
    reading = table.read_bytes + BATCHES * of_batch + (COPIES - 1) * held
    sampling = COPIES * (held + group)
    memory = int(BASE_BYTES + cache.share + max(reading, sampling))
    disk = points * routing.different * chunk_bytes if spills else 0
    return Estimate(memory, table.read_bytes if 2 * table.read_bytes > memory else 0, int(disk))
