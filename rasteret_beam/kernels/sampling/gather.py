"""Sampling: values under pixels of decoded tiles, and rows of the sample table."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from types import MappingProxyType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.sampling.validity import Mask, is_valid
from rasteret_beam.model import Grid
from rasteret_beam.schema import (
    NEIGHBOURHOOD_FIELD,
    POINT_FIELDS,
    SAMPLE_FIELDS,
    VALUES_FIELD,
    kept_fields,
    same_columns,
    samples_schema,
    unsampled_schema,
)


@dataclass(frozen=True, eq=False)
class TilePoints:
    """The points of a chunk in one tile, as positions in the chunk and pixels in the tile, [n] each."""

    tile_row: int
    tile_col: int
    point: Ints
    row: Ints
    col: Ints


def by_tile(grid: Grid, row: Ints, col: Ints) -> Iterator[TilePoints]:
    """Sort pixels of a grid by the tile they are in; tiles come in row-major order."""
    if not len(row):
        return
    _, across = grid.tile_counts()
    tile = (row // grid.tile_height) * across + col // grid.tile_width
    first = tile.min()
    # numpy sorts 16-bit numbers by radix, in a fraction of the time.
    order = np.argsort((tile - first).astype(np.uint16) if tile.max() - first < 1 << 16 else tile, kind="stable")
    starts = np.flatnonzero(np.diff(tile[order])) + 1
    for points in np.split(order, starts):
        tile_row, tile_col = divmod(int(tile[points[0]]), across)
        yield TilePoints(
            tile_row,
            tile_col,
            points,
            row[points] - tile_row * grid.tile_height,
            col[points] - tile_col * grid.tile_width,
        )


class PixelValues:
    """What is gathered of one band at ``size`` pixels: their values in the band's own dtype, and the file's mask.

    Threads may put tiles of different pixels at the same time. Pixels of which no tile is put hold anything.
    """

    def __init__(self, size: int):
        self.size = size
        self._values: NDArray[np.generic] | None = None
        self._left_in: Mask | None = None
        self._lock = Lock()

    def put(self, tile: NDArray[np.generic], points: TilePoints) -> None:
        """Take the values at pixels of a decoded tile [height, width]."""
        with self._lock:
            if self._values is None:
                self._values = np.empty(self.size, dtype=tile.dtype)
        self._values[points.point] = tile[points.row, points.col]

    def put_mask(self, tile: NDArray[np.generic], points: TilePoints) -> None:
        """Take what the file's mask, 0 where a pixel is left out, has at pixels of a tile."""
        with self._lock:
            if self._left_in is None:
                self._left_in = np.ones(self.size, dtype=bool)
        self._left_in[points.point] = tile[points.row, points.col] != 0

    def floats(self) -> Floats:
        """The values, [size] float64."""
        if self._values is None:
            return np.empty(self.size)
        with np.errstate(invalid="ignore"):  # signalling NaN, of corrupt files, become quiet ones
            return self._values.astype(np.float64)

    def valid(self, nodata: float | None) -> Mask:
        """Which pixels are valid, [size]."""
        if self._values is None:
            return np.zeros(self.size, dtype=bool)
        return is_valid(self._values, nodata, self._left_in)


@dataclass(frozen=True)
class RecordFacts:
    """What every sample of a record and grid has in common; ``datetime`` in microseconds, or None."""

    record_id: str
    datetime: int | None
    collection: str
    raster_crs: int | None
    point_crs: int | None


def sample_rows(
    chunk: pa.RecordBatch,
    values: Mapping[str, Floats],
    facts: RecordFacts,
    windows: Mapping[str, pa.Array | None] = MappingProxyType({}),
) -> Iterator[tuple[str, pa.RecordBatch]]:
    """Rows of the sample table for the points of a chunk, band by band, in the chunk's order.

    Parameters
    ----------
    values : {band: [n] float64}
    windows : {band: list array}
        Where they are returned: the neighbourhoods, a list<double> or null for each point.

    Yields
    ------
    band, RecordBatch
    """
    kept = kept_fields(chunk.schema)
    of_points = _point_columns(chunk, facts)
    for band, of_band in values.items():
        columns = of_points | {
            "band": pa.repeat(pa.scalar(band), len(chunk)),
            "value": pa.array(of_band, type=pa.float64()),
        }
        around = windows.get(band)
        if around is not None:
            columns[NEIGHBOURHOOD_FIELD.name] = around
        yield band, _in_order(columns, samples_schema(kept, around is not None))


def wide_rows(
    chunk: pa.RecordBatch, bands: Sequence[str], values: Mapping[str, Floats], facts: RecordFacts, layout: str
) -> pa.RecordBatch:
    """Rows of the wide sample table, one for each point of a chunk.

    Parameters
    ----------
    bands : sequence of str
        All that are wanted, in output order.
    values : {band: [n] float64}
        Of the bands that the record has; the others are null.
    layout : "values" or "columns"
    """
    columns = _point_columns(chunk, facts)
    if layout == "values":
        columns[VALUES_FIELD.name] = _value_lists(len(chunk), bands, values)
    else:
        nothing = pa.nulls(len(chunk), pa.float64())
        columns |= {band: pa.array(values[band]) if band in values else nothing for band in bands}
    return _in_order(columns, samples_schema(kept_fields(chunk.schema), layout=layout, bands=bands))


def _value_lists(rows: int, bands: Sequence[str], values: Mapping[str, Floats]) -> pa.Array:
    cells = np.zeros((rows, len(bands)))
    missing = np.zeros(cells.shape, dtype=bool)
    for number, band in enumerate(bands):
        if band in values:
            cells[:, number] = values[band]
        else:
            missing[:, number] = True
    ends = np.arange(rows + 1, dtype=np.int32) * len(bands)
    return pa.ListArray.from_arrays(ends, pa.array(cells.ravel(), mask=missing.ravel()))


def _point_columns(chunk: pa.RecordBatch, facts: RecordFacts) -> dict[str, pa.Array]:
    """The columns of the sample table that do not depend on a band."""
    constants = {
        "point_crs": facts.point_crs,
        "record_id": facts.record_id,
        "datetime": facts.datetime,
        "collection": facts.collection,
        "raster_crs": facts.raster_crs,
    }
    columns = {
        field.name: pa.repeat(pa.scalar(constants[field.name], type=field.type), len(chunk))
        for field in SAMPLE_FIELDS
        if field.name in constants
    }
    sources = {name: source for _, name, source in same_columns(chunk.schema)}
    fields = (*POINT_FIELDS, *kept_fields(chunk.schema))
    return columns | {field.name: chunk.column(sources.get(field.name, field.name)) for field in fields}


def _in_order(columns: Mapping[str, pa.Array], schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([columns[field.name] for field in schema], schema=schema)


def unsampled_rows(
    points: pa.RecordBatch, reason: NDArray[np.object_], point_crs: int | None
) -> tuple[pa.RecordBatch, dict[str, int]]:
    """The points that have a reason, as rows of the unsampled table; and how many for each reason."""
    left = np.flatnonzero(reason != np.array(None))
    kept = kept_fields(points.schema)
    names, counts = np.unique(reason[left].astype(str), return_counts=True)
    chosen = points.take(pa.array(left, type=pa.int64()))
    columns = [
        *chosen.columns[:3],
        pa.repeat(pa.scalar(point_crs, type=pa.int32()), len(left)),
        pa.array(reason[left], type=pa.string()),
        *(chosen.column(field.name) for field in kept),
    ]
    batch = pa.RecordBatch.from_arrays(columns, schema=unsampled_schema(kept))
    return batch, {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def merged(chunks: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Chunks of one schema as one batch."""
    return chunks[0] if len(chunks) == 1 else pa.concat_batches(chunks)
