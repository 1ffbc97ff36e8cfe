"""Rows of the sample table, and of the table of points without a sample."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasteret_beam.columns import BANDS_AFTER, columns_of
from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.sampling.pixel_methods import Picked
from rasteret_beam.options import SampleOptions
from rasteret_beam.schema import PIXEL, kept_fields, same_columns, unsampled_schema

CONSTANTS, CONSTANT_BYTES = 32, 4 << 20
"""Columns with one value that are kept for further rows with it, and the size of text in each."""


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
        Of the bands that the record has on this grid.
    """

    chunk: pa.RecordBatch
    facts: RowFacts
    bands: Sequence[str]
    picked: Mapping[str, Picked]
    _constants: dict[tuple[Any, pa.DataType], pa.Array] = field(default_factory=dict, repr=False)

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
        return pa.RecordBatch.from_arrays(arrays, schema=options.schema(kept, self.bands))

    def of_points(self, name: str) -> pa.Array:
        sources = {name: source for _, name, source in same_columns(self.chunk.schema)}
        return self.chunk.column(sources.get(name, name))

    def constant(self, value: Any, kind: pa.DataType) -> pa.Array:
        """One value for all rows; the bands of a chunk share what they have in common."""
        key = (value, kind)
        if key not in self._constants:
            self._constants[key] = _one_value(value, kind, len(self.chunk))
        return self._constants[key]

    def values(self) -> pa.Array:
        return pa.array(self.picked[self.facts.band].values, type=pa.float64())

    def value_lists(self) -> pa.Array:
        return _value_lists(len(self.chunk), self.bands, {band: of.values for band, of in self.picked.items()})

    def windows(self) -> pa.Array:
        return self.picked[self.facts.band].windows

    def pixel_rows(self) -> pa.Array:
        return self._pixels(PIXEL[0], self.picked[self.facts.band].row_offset)

    def pixel_cols(self) -> pa.Array:
        return self._pixels(PIXEL[1], self.picked[self.facts.band].col_offset)

    def _pixels(self, name: str, offset: NDArray[np.int64] | None) -> pa.Array:
        own = self.chunk.column(name)
        return own if offset is None else pa.array((own.to_numpy() + offset).astype(np.int32))

    def _band_values(self, band: str) -> pa.Array:
        return pa.array(self.picked[band].values) if band in self.picked else self.constant(None, pa.float64())


def _one_value(value: Any, kind: pa.DataType, rows: int) -> pa.Array:
    if isinstance(value, str) and len(value) * rows > CONSTANT_BYTES:
        return pa.repeat(pa.scalar(value, type=kind), rows)
    return _shared(value, kind, 1 << max(0, rows - 1).bit_length()).slice(0, rows)


@lru_cache(maxsize=CONSTANTS)
def _shared(value: Any, kind: pa.DataType, rows: int) -> pa.Array:
    return pa.repeat(pa.scalar(value, type=kind), rows)


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
