"""Parts: what is sampled of one record, for some points of a unit and some bands; and which pairs that decides.

A pair is a point and a wanted band. It ends in a row or several, or without one, or is lost with a tile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.sampling.pixel_methods import Picked
from rasteret_beam.kernels.sampling.validity import Mask
from rasteret_beam.model import Asset, Grid
from rasteret_beam.schema import PIXEL, POSITION


@dataclass(frozen=True, eq=False)
class Spots:
    """Where n points lie on a grid.

    Attributes
    ----------
    grid : Grid
    row, col : [n] int64
        Their pixels.
    row_part, col_part : [n] float64, optional
        Where in its pixel a point lies, 0 to 1 from the upper left corner; there if the method needs it.
    """

    grid: Grid
    row: Ints
    col: Ints
    row_part: Floats | None = None
    col_part: Floats | None = None

    def take(self, rows: Ints | slice) -> "Spots":
        """Those of the points at some positions."""
        row_part = None if self.row_part is None else self.row_part[rows]
        col_part = None if self.col_part is None else self.col_part[rows]
        return Spots(self.grid, self.row[rows], self.col[rows], row_part, col_part)

    def on(self, points: pa.RecordBatch) -> pa.RecordBatch:
        """A chunk of these points: their rows, and first the columns of their pixels."""
        columns = [pa.array(self.row, type=pa.int32()), pa.array(self.col, type=pa.int32())]
        names = [*PIXEL]
        if self.row_part is not None:
            columns += [pa.array(self.row_part), pa.array(self.col_part)]
            names += POSITION
        others = [name for name in points.schema.names if name not in (*PIXEL, *POSITION)]
        fields = [*map(pa.field, names, (column.type for column in columns)), *map(points.schema.field, others)]
        schema = pa.schema(fields, metadata=points.schema.metadata)
        return pa.RecordBatch.from_arrays([*columns, *map(points.column, others)], schema=schema)


@dataclass(frozen=True, eq=False)
class Part:
    """Samples of one record for n points of a unit.

    Attributes
    ----------
    record : int
        Position in the index.
    points : [n] int64
        Positions in the unit, ascending.
    spots : Spots
    assets : sequence of Asset
        Of the bands that are sampled.
    picked : {band: Picked}
    """

    record: int
    points: Ints
    spots: Spots
    assets: Sequence[Asset]
    picked: Mapping[str, Picked]

    def take(self, rows: Ints) -> "Part":
        """Those of the points at some (ascending) places among the n."""
        if len(rows) == len(self.points):
            return self
        picked = {band: of_band.take(rows) for band, of_band in self.picked.items()}
        return Part(self.record, self.points[rows], self.spots.take(rows), self.assets, picked)

    def within(self, start: int, stop: int) -> "Part":
        """Those of the points from ``start`` to before ``stop`` of the unit."""
        low, high = np.searchsorted(self.points, [start, stop]).tolist()
        if (low, high) == (0, len(self.points)):
            return self
        picked = {band: of_band.slice(low, high) for band, of_band in self.picked.items()}
        return Part(self.record, self.points[low:high], self.spots.take(slice(low, high)), self.assets, picked)


class Pairs:
    """What is known of the pairs of a unit.

    Attributes
    ----------
    bands : sequence of str
    rows : [points, bands] int64
        How many rows each pair has.
    lost : [points, bands] bool
        A tile that is needed cannot be read.
    with_record : [points, bands] bool
        There is a record to sample; where the pair has no row in the end, its samples are dropped.
    """

    def __init__(self, points: int, bands: Sequence[str]):
        self.bands = tuple(bands)
        self._column = {band: number for number, band in enumerate(bands)}
        self.rows = np.zeros((points, len(bands)), dtype=np.int64)
        self.lost, self.with_record = np.zeros((2, points, len(bands)), dtype=bool)

    def columns(self, bands: Sequence[str]) -> list[int]:
        """The columns of some bands."""
        return [self._column[band] for band in bands]

    def add(self, part: Part) -> None:
        """Count the rows of a part."""
        for column in self.columns(list(part.picked)):
            self.rows[part.points, column] += 1

    @property
    def without_row(self) -> Mask:
        """[points]: none of the point's pairs has a row or is lost."""
        none: Mask = np.logical_not(((self.rows > 0) | self.lost).any(axis=1))
        return none

    def counts(self) -> tuple[int, int, int]:
        """How many pairs have a row; are lost; and have none for another reason."""
        sampled = self.rows > 0
        lost = int((self.lost & ~sampled).sum())
        return int(sampled.sum()), lost, sampled.size - int(sampled.sum()) - lost
