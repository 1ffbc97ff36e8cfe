"""A summary of a sampling job, of bounded size: fed batch by batch, and added up in any order.

Counts are exact. Means and standard deviations are those of float64 sums. Quantiles and histograms come from
:class:`.values.Values`, maps from :class:`.cells.Cells`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasteret_beam.kernels.summary.cells import Cells
from rasteret_beam.kernels.summary.dates import Dates
from rasteret_beam.kernels.summary.point_sets import PointSet
from rasteret_beam.kernels.summary.rows import Column, Part, Series, Shape, by_name
from rasteret_beam.kernels.summary.tally import Tally
from rasteret_beam.kernels.summary.values import Values

MAPPED_BANDS = 6
MOST_KEYS, KEYS_OF_ALL = 4096, 1 << 18
"""Of the sketch of a band, and of those of all bands: 500 bands have 524 each."""

VALID, FILLED = "valid", "filled"
NODATA, NULL, NOT_FINITE = "nodata", "null", "not finite"
VALUE = "value"
"""What values are, where the samples have no column status."""

Mask = NDArray[np.bool_]


@dataclass
class Summary:
    """The state of a summary.

    Attributes
    ----------
    bands : tuple of str
        Known from the start, in order; further ones are added as they come.
    nodata : {band: values}
        Stored nodata values, which do not count as values where the samples have no column ``status``.
    rows : int
        Of the sample table.
    without_record : int
        Of those, rows of points without a sample (``join="left"``).
    values : {series: Values}
        Of valid values.
    kinds : {band: {kind: count}}
        What the values of each band are: by status, or value, nodata, null and not finite.
    dates : Dates
        Of rows.
    cells : {(crs, band): Cells}
        By EPSG code, 0 for none: rows, of those with a valid value, and the sum of these.
    reasons : {reason: count}
        Points without a sample.
    reason_cells : {(crs, reason): Cells}
    dead_letters : {error: tiles}
    dead_values : int
        In those tiles.
    points_in : int
        Points that were read, if that is known; else 0.
    sampled, others : PointSet or None
        Points with a row of a record, and points of other rows, if they are to be counted.
    given_unsampled : bool
        Whether a table of points without a sample was given to it, with or without rows.
    """

    bands: tuple[str, ...] = ()
    nodata: Mapping[str, Sequence[float]] = field(default_factory=dict)
    rows: int = 0
    without_record: int = 0
    values: dict[Series, Values] = field(default_factory=dict)
    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    dates: Dates = field(default_factory=Dates)
    cells: dict[tuple[int, str], Cells] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    reason_cells: dict[tuple[int, str], Cells] = field(default_factory=dict)
    dead_letters: Counter[str] = field(default_factory=Counter)
    dead_values: int = 0
    points_in: int = 0
    sampled: PointSet | None = None
    others: PointSet | None = None
    given_unsampled: bool = False

    def count_points(self, batch: pa.RecordBatch) -> None:
        """Add the points of rows of the sample table to the sets."""
        if self.sampled is None or self.others is None:
            return
        index, record = batch.column("point_index"), batch.column("record_id")
        there = record.is_valid()
        self.sampled.add(index.filter(there).to_numpy(zero_copy_only=False))
        if record.null_count:
            self.others.add(index.filter(pc.invert(there)).to_numpy(zero_copy_only=False))

    def add_dates(self, part: Part) -> None:
        """Add the datetimes of rows."""
        self.dates.add(part.moments)
        self.dates.without += part.undated

    def add_part(self, part: Part, crs: int, shape: Shape) -> None:
        """Add rows of the sample table, but for their datetimes; see :class:`.feeding.SampleFeed`."""
        rows, record = len(part.x), part.has_record
        self.rows += rows
        self.without_record += rows - int(record.sum()) if record is not None else 0
        is_long = shape.layout == "long"
        for series, (numbers, null) in part.values.items():
            status = part.status if is_long else None
            valid, kinds = self._valid(series, numbers, null, record, (status, part.status_names))
            if not series.statistic:
                self.kinds.setdefault(series.band, Counter()).update(kinds)
                self._add_cells(crs, series.band, part, numbers, valid)
            elif is_long or record is not None:
                valid = _both(valid, record)
            self.values.setdefault(series, Values()).add(numbers if valid is None else numbers[valid])
        self.keep_to_limits()

    def _add_cells(self, crs: int, band: str, part: Part, numbers: Column, valid: Mask | None) -> None:
        key = crs, band
        if key not in self.cells:
            if len({of for _, of in self.cells} | {band}) > MAPPED_BANDS:
                return
            self.cells[key] = Cells(2)
        x, y, weights = part.x, part.y, numbers.astype(np.float64, copy=False)
        if part.has_record is not None:
            here = part.has_record
            x, y, weights, valid = x[here], y[here], weights[here], valid[here] if valid is not None else None
        if valid is None:
            self.cells[key].add(x, y, [None, weights])
        else:
            self.cells[key].add(x, y, [valid.astype(np.float64), np.where(valid, weights, 0.0)])

    def _valid(
        self,
        series: Series,
        numbers: Column,
        null: Mask | None,
        record: Mask | None,
        status: tuple[Column | None, list[str]],
    ) -> tuple[Mask | None, dict[str, int]]:
        """Which values are valid (None: all), and how many are what."""
        finite = np.isfinite(numbers) if numbers.dtype.kind == "f" else None
        finite = None if finite is None or finite.all() else finite
        codes, names = status
        if codes is not None and not series.statistic:
            many = np.bincount(codes, minlength=len(names))
            kinds = {name: int(count) for name, count in zip(names, many, strict=True) if count}
            good = [at for at, name in enumerate(names) if name in (VALID, FILLED)]
            valid = None if set(kinds) <= {VALID, FILLED} else np.isin(codes, good)
            valid = _both(valid, ~null if null is not None else None)
            return _both(_both(valid, finite), record), kinds
        known = ~null if null is not None else None
        known = _both(known, record)
        rows = len(numbers) if record is None else int(record.sum())
        there = rows if known is None else int(known.sum())
        known_finite = _both(known, finite)
        usable = there if known_finite is None else int(known_finite.sum())
        nodata = self._is_nodata(series, numbers)
        valid = _both(known_finite, ~nodata if nodata is not None else None)
        left = usable if valid is known_finite else int(valid.sum()) if valid is not None else usable
        counts = {VALUE: left, NODATA: usable - left, NULL: rows - there, NOT_FINITE: there - usable}
        return valid, {name: count for name, count in counts.items() if count}

    def _is_nodata(self, series: Series, numbers: Column) -> Mask | None:
        found = None
        for value in () if series.statistic else self.nodata.get(series.band, ()):
            same = numbers == value
            if same.any():
                found = same if found is None else found | same
        return found

    def add_unsampled(self, batch: pa.RecordBatch) -> None:
        """Add rows of the table of points without a sample."""
        for crs, of_crs in by_crs(batch):
            x, y = (of_crs.column(name).to_numpy(zero_copy_only=False) for name in ("point_x", "point_y"))
            for reason, rows in by_name(of_crs.column("reason")):
                self.reasons[reason] += len(of_crs) if rows is None else len(rows)
                here = np.isfinite(x) & np.isfinite(y)
                if rows is not None:
                    chosen = np.zeros(len(x), dtype=bool)
                    chosen[rows] = True
                    here &= chosen
                if here.any():
                    self.reason_cells.setdefault((crs, reason), Cells()).add(x[here], y[here])

    def add_dead_letters(self, batch: pa.RecordBatch) -> None:
        """Add dead letters: tiles that could not be read, with their points."""
        for error, rows in by_name(batch.column("error")):
            self.dead_letters[error] += len(batch) if rows is None else len(rows)
        self.dead_values += pc.sum(pc.list_value_length(batch.column("point_indexes"))).as_py() or 0

    def merge(self, other: "Summary") -> None:
        """Add another summary."""
        self.bands = self.bands or other.bands
        self.nodata = self.nodata or other.nodata
        for name in ("rows", "without_record", "dead_values", "points_in"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.dates.merge(other.dates)
        self.reasons.update(other.reasons)
        self.dead_letters.update(other.dead_letters)
        for band, kinds in other.kinds.items():
            self.kinds.setdefault(band, Counter()).update(kinds)
        for series, values in other.values.items():
            self.values.setdefault(series, Values()).merge(values)
        for key, cells in other.cells.items():
            self.cells.setdefault(key, Cells(2)).merge(cells)
        for key, cells in other.reason_cells.items():
            self.reason_cells.setdefault(key, Cells()).merge(cells)
        self.keep_to_limits()

    def keep_to_limits(self) -> None:
        """Limit the sketches by the number of bands."""
        most = min(MOST_KEYS, max(KEYS_OF_ALL // max(len(self.values), 1), 64))
        for values in self.values.values():
            values.tally.keep_to(most)

    @property
    def unsampled(self) -> int:
        """Points without a sample."""
        return sum(self.reasons.values())

    def tallies(self) -> dict[str, Tally]:
        """All tallies, by name."""
        groups: list[tuple[str, Mapping]] = [("v", self.values), ("c", self.cells), ("r", self.reason_cells)]
        return {f"{kind}{at}": each.tally for kind, group in groups for at, each in enumerate(group.values())}


def _both(one: Mask | None, other: Mask | None) -> Mask | None:
    """Where both are true; None is true everywhere."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def by_crs(batch: pa.RecordBatch) -> list[tuple[int, pa.RecordBatch]]:
    """The rows of each EPSG code of the points; 0 for none."""
    codes = pc.fill_null(batch.column("point_crs"), 0).to_numpy(zero_copy_only=False)
    if not len(codes) or (codes == codes[0]).all():
        return [(int(codes[0]), batch)] if len(codes) else []
    return [(int(code), batch.filter(pa.array(codes == code))) for code in np.unique(codes)]
