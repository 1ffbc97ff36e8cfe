"""Rows of the sample table, and of the table of points without a sample."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasteret_beam.columns import BANDS_AFTER, columns_of
from rasteret_beam.kernels.sampling.pixel_methods import Picked
from rasteret_beam.kernels.sampling.value_types import ValueTypes, numpy_dtype
from rasteret_beam.kernels.tables.point_times import NO_TIME, point_times
from rasteret_beam.options import SampleOptions
from rasteret_beam.schema import PIXEL, kept_fields, same_columns, unsampled_schema, value_lists


@dataclass(frozen=True)
class RowFacts:
    """What rows have in common; ``datetime`` in microseconds, CRSs as EPSG codes; band and href of long rows."""

    record_id: str
    datetime: int | None
    collection: str
    raster_crs: int | None
    point_crs: int | None
    band: str = ""
    href: str = ""


class Constants:
    """Columns of one value, which batches of rows share: slices of one array for each value.

    Parameters
    ----------
    most_bytes : int
        Kept at most; then all are released.
    """

    def __init__(self, most_bytes: int = 32 << 20):
        self.most_bytes = most_bytes
        self._arrays: dict[tuple[Any, pa.DataType], pa.Array] = {}
        self._bytes = 0

    def array(self, value: Any, kind: pa.DataType, rows: int) -> pa.Array:
        """The value, ``rows`` times."""
        array = self._arrays.get((value, kind))
        if array is None or len(array) < rows:
            # Twice as long as the last, so that batches that grow make few.
            array = pa.repeat(pa.scalar(value, type=kind), max(rows, 2 * len(array) if array is not None else 0))
            if self._bytes > self.most_bytes:
                self._arrays, self._bytes = {}, 0
            self._arrays[value, kind] = array
            self._bytes += array.nbytes
        return array.slice(0, rows)


@dataclass(frozen=True, eq=False)
class SampleRows:
    """Rows for the points of a chunk, as :class:`rasteret_beam.columns.Rows` describes them.

    Attributes
    ----------
    chunk : RecordBatch
        Of n points, with their pixels and kept columns.
    facts : RowFacts
    bands : sequence of str
        All that are wanted, in output order.
    picked : {band: Picked}
        Of the bands that the record has on this grid, their values in the types of rows.
    value_types : ValueTypes
        Of all wanted bands.
    time_column : str, optional
        The kept column with the points' times.
    """

    chunk: pa.RecordBatch
    facts: RowFacts
    bands: Sequence[str]
    picked: Mapping[str, Picked]
    value_types: ValueTypes
    time_column: str | None = None
    constants: "Constants" = field(default_factory=lambda: Constants(), repr=False)

    def of_band(self, band: str, href: str) -> "SampleRows":
        """Rows of one band, for the long layout."""
        return replace(self, facts=replace(self.facts, band=band, href=href))

    def table(self, options: SampleOptions) -> pa.RecordBatch:
        """The rows in the samples schema."""
        kept = kept_fields(self.chunk.schema)
        arrays = []
        for column in columns_of(options.layout, options.returns_windows, options.extra_columns):
            arrays.append(column.make(self))
            if options.layout == "columns" and column.name == BANDS_AFTER:
                arrays += map(self._band_values, self.bands)
        arrays += [self.of_points(each.name) for each in kept]
        return pa.RecordBatch.from_arrays(arrays, schema=options.schema(kept, self.bands, self.value_types))

    def of_points(self, name: str) -> pa.Array:
        sources = {name: source for _, name, source in same_columns(self.chunk.schema)}
        return self.chunk.column(sources.get(name, name))

    def constant(self, value: Any, kind: pa.DataType) -> pa.Array:
        """One value for all rows."""
        return self.constants.array(value, kind, len(self.chunk))

    def values(self) -> pa.Array:
        return _values(self.picked[self.facts.band])

    def value_lists(self) -> pa.Array:
        kind = value_lists(self.value_types, len(self.bands))
        return _value_lists(len(self.chunk), self.bands, self.picked, kind)

    def windows(self) -> pa.Array:
        return self.picked[self.facts.band].windows

    def pixel_rows(self) -> pa.Array:
        return self._pixels(PIXEL[0], self.picked[self.facts.band].row_offset)

    def pixel_cols(self) -> pa.Array:
        return self._pixels(PIXEL[1], self.picked[self.facts.band].col_offset)

    def time_differences(self) -> pa.Array:
        moment = self.facts.datetime
        if self.time_column is None or moment is None:
            return self.constant(None, pa.float64())
        times = point_times(self.chunk, self.time_column)
        return pa.array((moment - times) / 1e6, mask=times == NO_TIME)

    def _pixels(self, name: str, offset: NDArray[np.int64] | None) -> pa.Array:
        own = self.chunk.column(name)
        return own if offset is None else pa.array((own.to_numpy() + offset).astype(np.int32))

    def _band_values(self, band: str) -> pa.Array:
        if band not in self.picked:
            return self.constant(None, self.value_types[band])
        return _values(self.picked[band])


def _values(picked: Picked) -> pa.Array:
    return pa.array(picked.values, mask=picked.null)


def _value_lists(rows: int, bands: Sequence[str], picked: Mapping[str, Picked], kind: pa.DataType) -> pa.Array:
    cells = np.zeros((rows, len(bands)), dtype=numpy_dtype(kind.value_type))
    null = np.zeros(cells.shape, dtype=bool)
    for number, band in enumerate(bands):
        if band in picked:
            cells[:, number] = picked[band].values
        missing = picked[band].null if band in picked else True
        null[:, number] = False if missing is None else missing
    mask = null.ravel() if null.any() else None
    return pa.FixedSizeListArray.from_arrays(pa.array(cells.ravel(), mask=mask), type=kind)


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
