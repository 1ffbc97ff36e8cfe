"""Points counted by cells of a grid whose size follows from where the points are."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from rasteret_beam.kernels.summary.tally import Floats, Ints, Tally, level_of, summed

FINEST = 20
"""Cells are 2**-20 of a unit at least: a tenth of a metre in degrees."""

MOST_CELLS = 6000
BITS = 31
"""Of the column and of the row of a cell."""

SPANS = (BITS - 1 - FINEST, 26, 44, 61)
"""Coordinates are within 2**span: at first 1024, as degrees are; the cells of larger ones are larger at least."""

DENSE = 4
"""Cells are counted in an array if their box has at most so many times the number of points."""

SPREAD = (
    (16, 0x0000FFFF0000FFFF),
    (8, 0x00FF00FF00FF00FF),
    (4, 0x0F0F0F0F0F0F0F0F),
    (2, 0x3333333333333333),
    (1, 0x5555555555555555),
)
TOGETHER = (
    (1, 0x3333333333333333),
    (2, 0x0F0F0F0F0F0F0F0F),
    (4, 0x00FF00FF00FF00FF),
    (8, 0x0000FFFF0000FFFF),
    (16, 0x00000000FFFFFFFF),
)


def morton(col: Ints, row: Ints) -> Ints:
    """The bits of columns and rows in turn, those of the row last (Morton, 1966); each less joins two neighbours."""
    return _spread(col) << 1 | _spread(row)


def _spread(number: Ints) -> Ints:
    for by, mask in SPREAD:
        number = (number | number << by) & mask
    return number


def places_of(keys: Ints) -> tuple[Ints, Ints]:
    """Columns and rows from their bits."""
    return _together(keys >> 1), _together(keys)


def _together(number: Ints) -> Ints:
    number = number & SPREAD[-1][1]
    for by, mask in TOGETHER:
        number = (number | number >> by) & mask
    return number


@dataclass
class Cells:
    """Sums by cell: the number of points, and whatever is added up of each of them.

    Attributes
    ----------
    width : int
        Numbers that are added up, beside the number of points.
    span : int
        Of :data:`SPANS`.
    tally : Tally
        By :func:`morton`. Its even levels have square cells, and the odd ones cells that are twice as tall.
    """

    width: int = 0
    limit: int = MOST_CELLS
    span: int = SPANS[0]
    tally: Tally = field(init=False)

    def __post_init__(self) -> None:
        self.tally = Tally(1 + self.width, limit=self.limit)

    def add(self, x: Floats, y: Floats, numbers: Sequence[Floats | None] = ()) -> None:
        """Add points [n] with finite coordinates, and what is to be added up of them: ``width`` arrays [n].

        None stands for ones.
        """
        if not len(x):
            return
        self._widen(_span_of(max(float(np.abs(x).max()), float(np.abs(y).max()))))
        if len(self.tally.keys) < self.limit // 4:  # its level is not found yet
            level = self.tally.level
            found = level_of(np.sort(_keys(*self._places(x, y), level)), self.limit)
            self.tally.coarsen(level + found)
        level = self.tally.level
        col, row, sums = _summed(*self._places(x, y), numbers)
        keys = _keys(col, row, level)
        order = np.argsort(keys)
        self.tally.add(keys[order], sums[order], level)

    def merge(self, other: "Cells") -> None:
        """Add other cells."""
        self._widen(other.span)
        other._widen(self.span)
        self.tally.merge(other.tally)

    def _widen(self, span: int) -> None:
        """Make room for larger coordinates."""
        if span <= self.span:
            return
        tally, (col, row), (across, up) = self.tally, self._cells(), self._halved()
        tally.level, self.span = max(tally.level, 2 * (span - SPANS[0])), span
        now_across, now_up = self._halved()
        of_col, of_row = self._offsets()
        keys = _keys((col >> now_across - across) + of_col, (row >> now_up - up) + of_row, tally.level)
        if len(keys):
            order = np.argsort(keys)
            tally.keys, tally.sums = summed(keys[order], tally.sums[order])

    def _halved(self) -> tuple[int, int]:
        """How often the finest cells are doubled, in width and in height."""
        return self.tally.level // 2, (self.tally.level + 1) // 2

    def _offsets(self) -> tuple[int, int]:
        """Numbers of the column and of the row of the cell at 0."""
        across, up = self._halved()
        return 1 << self.span + FINEST - across, 1 << self.span + FINEST - up

    def _places(self, x: Floats, y: Floats) -> tuple[Ints, Ints]:
        """Columns and rows of points."""
        pairs = zip((x, y), self._halved(), self._offsets(), strict=True)
        col, row = (
            np.clip(np.floor(each * 2.0 ** (FINEST - halved)) + offset, 0, 2 * offset - 1).astype(np.int64)
            for each, halved, offset in pairs
        )
        return col, row

    def _cells(self) -> tuple[Ints, Ints]:
        """Columns and rows of the cells, from 0, negative ones too."""
        odd, (of_col, of_row) = self.tally.level & 1, self._offsets()
        col, row = places_of(self.tally.keys << odd)
        return col - of_col, (row >> odd) - of_row

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of a cell."""
        return 2.0 ** (self.tally.level // 2 - FINEST), 2.0 ** ((self.tally.level + 1) // 2 - FINEST)

    def centres(self) -> tuple[Floats, Floats]:
        """x and y of the cells' centres."""
        (col, row), (wide, tall) = self._cells(), self.size
        return (col + 0.5) * wide, (row + 0.5) * tall

    @property
    def counts(self) -> Floats:
        """Points of each cell."""
        return self.tally.sums[:, 0]

    @property
    def sums(self) -> Floats:
        """[k, width]."""
        return self.tally.sums[:, 1:]


def _span_of(farthest: float) -> int:
    return next((span for span in SPANS if farthest < 2.0**span), SPANS[-1])


def _keys(col: Ints, row: Ints, level: int) -> Ints:
    odd = level & 1
    return morton(col, row << odd) >> odd


def _summed(col: Ints, row: Ints, numbers: Sequence[Floats | None]) -> tuple[Ints, Ints, Floats]:
    """The different cells, how many points each has, and the sums of their numbers."""
    west, south = int(col.min()), int(row.min())
    wide, tall = int(col.max()) - west + 1, int(row.max()) - south + 1
    if wide * tall <= DENSE * len(col) + 1024:
        place = (row - south) * wide + (col - west)
        counts = np.bincount(place, minlength=wide * tall)
        there = np.flatnonzero(counts)
        sums = [counts if each is None else np.bincount(place, weights=each, minlength=wide * tall) for each in numbers]
        stacked = np.stack([each[there] for each in (counts, *sums)], axis=1).astype(np.float64)
        return there % wide + west, there // wide + south, stacked
    keys = morton(col, row)
    order = np.argsort(keys)
    ones = np.ones(len(col))
    columns = np.stack([ones, *(ones if each is None else each for each in numbers)], axis=1)
    found, columns = summed(keys[order], columns[order])
    return *places_of(found), columns
