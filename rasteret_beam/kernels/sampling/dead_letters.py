"""Dead letters: tiles that could not be read, with the points, windows of chips or zones that were in them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_beam.errors import TileReadError, without_secrets
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.sampling.gather import TilePoints
from rasteret_beam.kernels.sampling.value_types import numpy_dtype
from rasteret_beam.model import Asset
from rasteret_beam.schema import (
    CHIP_DEAD_LETTER_SCHEMA,
    DEAD_LETTER_SCHEMA,
    VALUE_TYPE_KEY,
    ZONAL_DEAD_LETTER_SCHEMA,
    ZONAL_SETTINGS_KEY,
)


@dataclass(frozen=True, eq=False)
class LetterKind:
    """What is lost with a tile.

    Attributes
    ----------
    schema : Schema
        Of the dead letters. The last two columns hold the numbers of what is lost, and the rows themselves.
    number : str
        Column of a chunk that numbers its rows.
    settings : bytes, optional
        Schema metadata key of a chunk, of the settings that all dead letters of a run have in common.
    """

    schema: pa.Schema
    number: str
    settings: bytes | None = None

    @property
    def numbers(self) -> str:
        return str(self.schema.names[-2])

    @property
    def rows(self) -> str:
        return str(self.schema.names[-1])


OF_POINTS = LetterKind(DEAD_LETTER_SCHEMA, "point_index")
OF_CHIPS = LetterKind(CHIP_DEAD_LETTER_SCHEMA, "geometry_id")
OF_ZONES = LetterKind(ZONAL_DEAD_LETTER_SCHEMA, "geometry_id", ZONAL_SETTINGS_KEY)


@dataclass(frozen=True, eq=False)
class Failure:
    """A tile of a band that could not be read.

    Attributes
    ----------
    asset : Asset
    tile_row, tile_col : int
    error : TileReadError
    points : [n] int64
        Positions, in their chunk, of the points (or windows) that it leaves without a value.
    """

    asset: Asset
    tile_row: int
    tile_col: int
    error: TileReadError
    points: Ints


def everywhere(asset: Asset, tiles: Iterable[TilePoints], error: TileReadError) -> list[Failure]:
    """Failures of all tiles of a band, for what is wrong with its file."""
    return [Failure(asset, tile.tile_row, tile.tile_col, error, tile.point) for tile in tiles]


def left_over(failures: Sequence[Failure], band: str, rows: int) -> np.ndarray:
    """Which of ``rows`` points, [rows] bool, still have a value of a band."""
    there = np.ones(rows, dtype=bool)
    for failure in failures:
        if failure.asset.band == band:
            there[failure.points] = False
    return there


def dead_letters(chunk: pa.RecordBatch, failures: Sequence[Failure], kind: LetterKind = OF_POINTS) -> pa.RecordBatch:
    """A row for each failure, in the schema of their kind.

    A point of several failures of one record and band is in the first only.

    Parameters
    ----------
    chunk : RecordBatch
        Of the points, as :class:`rasteret_beam.kernels.routing.chunks.Routed` describes it; or of the windows, as
        :class:`rasteret_beam.kernels.routing.chip_chunks.RoutedPolygons` does.
    """
    rows = []
    given: dict[tuple[str, str], np.ndarray] = {}
    for failure in failures:
        band = failure.asset.band
        free = given.setdefault((failure.asset.record_id, band), np.ones(len(chunk), dtype=bool))
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
                kind.numbers: points[kind.number].to_pylist(),
                kind.rows: _packed(points),
            }
        )
    return pa.RecordBatch.from_pylist(rows, schema=kind.schema)


def values_lost(letters: pa.RecordBatch, kind: LetterKind = OF_POINTS) -> int:
    """Values (or chips) that are missing from the output for some dead letters."""
    return pc.sum(pc.list_value_length(letters[kind.numbers])).as_py() or 0


def points_of(letters: pa.RecordBatch, row: int, kind: LetterKind = OF_POINTS) -> pa.RecordBatch:
    """The points (or windows) of a dead letter, as a chunk."""
    return pa.ipc.open_stream(letters[kind.rows][row].as_buffer()).read_next_batch()


def with_value_type(points: pa.RecordBatch, kind: pa.DataType) -> pa.RecordBatch:
    """Points that tell the type of the values of their run, so that another run gives values of the same type."""
    metadata = (points.schema.metadata or {}) | {VALUE_TYPE_KEY: numpy_dtype(kind).name.encode()}
    return points.replace_schema_metadata(metadata)


def value_type_of(points: pa.Schema) -> pa.DataType | None:
    """The type of :func:`with_value_type`, if the points tell one."""
    name = (points.metadata or {}).get(VALUE_TYPE_KEY)
    return None if name is None else pa.from_numpy_dtype(np.dtype(name.decode()))


def _packed(points: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, points.schema, options=options) as writer:
        writer.write_batch(points)
    return sink.getvalue().to_pybytes()
