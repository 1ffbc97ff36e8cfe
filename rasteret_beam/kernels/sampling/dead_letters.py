"""Dead letters: tiles that could not be read, with the points that were in them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_beam.errors import TileReadError, without_secrets
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.model import Asset
from rasteret_beam.schema import DEAD_LETTER_SCHEMA


@dataclass(frozen=True, eq=False)
class Failure:
    """A tile of a band that could not be read.

    Attributes
    ----------
    asset : Asset
    tile_row, tile_col : int
    error : TileReadError
    points : [n] int64
        Positions, in their chunk, of the points that it leaves without a value.
    """

    asset: Asset
    tile_row: int
    tile_col: int
    error: TileReadError
    points: Ints


def left_over(failures: Sequence[Failure], band: str, rows: int) -> np.ndarray:
    """Which of ``rows`` points, [rows] bool, still have a value of a band."""
    there = np.ones(rows, dtype=bool)
    for failure in failures:
        if failure.asset.band == band:
            there[failure.points] = False
    return there


def dead_letters(chunk: pa.RecordBatch, failures: Sequence[Failure]) -> pa.RecordBatch:
    """A row for each failure, in :data:`schema.DEAD_LETTER_SCHEMA`; a point of several failures is in the first only.

    Parameters
    ----------
    chunk : RecordBatch
        Of the points, as :class:`rasteret_beam.kernels.routing.chunks.Routed` describes it.
    """
    rows = []
    given: dict[str, np.ndarray] = {}
    for failure in failures:
        band = failure.asset.band
        free = given.setdefault(band, np.ones(len(chunk), dtype=bool))
        mine = np.unique(failure.points[free[failure.points]])
        if not len(mine):
            continue
        free[mine] = False
        points = chunk.take(pa.array(mine))
        rows.append(
            {
                "record_id": failure.asset.record_id,
                "band": band,
                "tile_row": failure.tile_row,
                "tile_col": failure.tile_col,
                "href": without_secrets(failure.asset.href),
                "error": failure.error.kind,
                "message": str(failure.error),
                "attempts": failure.error.attempts,
                "point_indexes": points["point_index"].to_pylist(),
                "points": _packed(points),
            }
        )
    return pa.RecordBatch.from_pylist(rows, schema=DEAD_LETTER_SCHEMA)


def values_lost(letters: pa.RecordBatch) -> int:
    """Values that are missing from the sample table for some dead letters."""
    return pc.sum(pc.list_value_length(letters["point_indexes"])).as_py() or 0


def points_of(letters: pa.RecordBatch, row: int) -> pa.RecordBatch:
    """The points of a dead letter, as a chunk."""
    return pa.ipc.open_stream(letters["points"][row].as_buffer()).read_next_batch()


def _packed(points: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, points.schema, options=options) as writer:
        writer.write_batch(points)
    return sink.getvalue().to_pybytes()
