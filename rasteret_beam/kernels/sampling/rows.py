"""Rows of the sample table, and of the table of points without a sample."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasteret_beam.columns import BANDS_AFTER, band_columns, columns_of
from rasteret_beam.errors import without_secrets
from rasteret_beam.kernels.geo.crs import Floats, footprint_crs, full_turn, transform
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.sampling.pixel_methods import Picked, pixel_distances
from rasteret_beam.kernels.sampling.statuses import first_not_valid, reason_array, status_array
from rasteret_beam.kernels.sampling.validity import Mask, Pixels, Statuses
from rasteret_beam.kernels.sampling.value_types import ValueTypes, numpy_dtype
from rasteret_beam.kernels.tables.point_times import NO_TIME, point_times
from rasteret_beam.model import Asset, Grid
from rasteret_beam.options import SampleOptions
from rasteret_beam.schema import (
    PIXEL,
    POINT_FIELDS,
    POSITION,
    kept_fields,
    same_columns,
    statistic_lists,
    unsampled_schema,
    value_lists,
)
from rasteret_beam.statistics import statistic_type


@dataclass(frozen=True)
class RowFacts:
    """What rows have in common.

    Attributes
    ----------
    record_id : str or None
        None for points without a sample.
    datetime : int or None
        Microseconds since 1970.
    raster_crs, point_crs : int or None
        EPSG codes.
    record : {name: array of length 1}
        Columns of the collection that rows have, of the record.
    record_ids : {band: str or None}, optional
        The record of each band, where a wide row can hold bands of several.
    band, href, nodata, scale, offset
        Of the band of long rows.
    """

    record_id: str | None
    datetime: int | None
    collection: str
    raster_crs: int | None
    point_crs: int | None
    record: Mapping[str, pa.Array] = field(default_factory=dict)
    record_ids: Mapping[str, str | None] | None = None
    band: str = ""
    href: str = ""
    nodata: float | None = None
    scale: float = 1.0
    offset: float = 0.0


class Constants:
    """Columns of one value, which batches of rows share: slices of one array for each value.

    Parameters
    ----------
    most_bytes : int
        Kept at most; then all are released.
    """

    def __init__(self, most_bytes: int = 32 << 20):
        self.most_bytes = most_bytes
        self._arrays: dict[tuple[Any, ...], pa.Array] = {}
        self._bytes = 0

    def array(self, value: Any, kind: pa.DataType, rows: int) -> pa.Array:
        """The value, ``rows`` times."""
        return self._shared((value, kind), rows, lambda length: pa.repeat(pa.scalar(value, type=kind), length))

    def of_record(self, record_id: str, name: str, one: pa.Array, rows: int) -> pa.Array:
        """The value of a record in a column of the collection, an array of length 1 of any type, ``rows`` times."""
        # Three parts: a type is equal to its name as text, so (text, name) could be the key of another constant.
        return self._shared(
            ("record", record_id, name), rows, lambda length: one.take(pa.array(np.zeros(length, dtype=np.int64)))
        )

    def _shared(self, key: tuple[Any, ...], rows: int, made: Callable[[int], pa.Array]) -> pa.Array:
        array = self._arrays.get(key)
        if array is None or len(array) < rows:
            # Twice as long as the last, so that batches that grow make few.
            array = made(max(rows, 2 * len(array) if array is not None else 0))
            if self._bytes > self.most_bytes:
                self._arrays, self._bytes = {}, 0
            self._arrays[key] = array
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
    constants : Constants
    grid : Grid, optional
        That of the pixels; needed by columns of the pixel.
    reasons : string array [n], optional
        Why the points have no sample; nothing is picked then.
    """

    chunk: pa.RecordBatch
    facts: RowFacts
    bands: Sequence[str]
    picked: Mapping[str, Picked]
    value_types: ValueTypes
    time_column: str | None = None
    constants: "Constants" = field(default_factory=lambda: Constants(), repr=False)
    grid: Grid | None = None
    reasons: pa.Array | None = None

    def of_asset(self, asset: Asset) -> "SampleRows":
        """Rows of one band, for the long layout."""
        facts = replace(
            self.facts,
            band=asset.band,
            href=without_secrets(asset.href),
            nodata=None if asset.nodata is None else float(asset.nodata),
            scale=1.0 if asset.scale is None else asset.scale,
            offset=0.0 if asset.offset is None else asset.offset,
        )
        return replace(self, facts=facts)

    def of_band(self, band: str) -> "SampleRows":
        """Rows of one band of no record."""
        return replace(self, facts=replace(self.facts, band=band))

    def table(self, options: SampleOptions) -> pa.RecordBatch:
        """The rows in the samples schema."""
        kept = kept_fields(self.chunk.schema)
        arrays = []
        for column in columns_of(options.layout, options.returns_windows, options.extra_columns, options.statistics):
            arrays.append(column.make(self))
            if options.layout == "columns" and column.name == BANDS_AFTER:
                of_bands = band_columns(self.bands, options.statistics)
                arrays += [self._of_band(band, statistic) for _, band, statistic in of_bands]
        arrays += [self.of_points(each.name) for each in kept]
        record_types = {name: one.type for name, one in self.facts.record.items()}
        schema = options.schema(kept, self.bands, self.value_types, record_types)
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

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
        found = {band: (picked.values, picked.null) for band, picked in self.picked.items()}
        return _lists(len(self.chunk), self.bands, found, kind)

    def statistics(self, name: str) -> pa.Array:
        return self.picked[self.facts.band].statistics[name].array()

    def statistic_lists(self, name: str) -> pa.Array:
        found = {band: picked.statistics[name] for band, picked in self.picked.items()}
        return _lists(len(self.chunk), self.bands, found, statistic_lists(name, len(self.bands)))

    def windows(self) -> pa.Array:
        return self.picked[self.facts.band].windows

    def pixel_rows(self) -> pa.Array:
        return self._pixel_column(0)

    def pixel_cols(self) -> pa.Array:
        return self._pixel_column(1)

    def distances(self) -> pa.Array:
        assert self.grid is not None
        rows, cols = self._offsets
        if rows is None or cols is None:
            return self.constant(0.0, pa.float64())
        row_part, col_part = (self.chunk[name].to_numpy() for name in POSITION)
        return pa.array(pixel_distances(self.grid, rows - row_part, cols - col_part))

    def pixel_centre(self, axis: int) -> pa.Array:
        return pa.array(self._centres[axis])

    def pixel_lonlat(self, axis: int) -> pa.Array:
        if self._lonlat is None:
            return self.constant(None, pa.float64())
        missing = ~np.isfinite(self._lonlat).all(axis=0)
        return pa.array(self._lonlat[axis], mask=missing)

    def candidates(self) -> pa.Array:
        depth = self.picked[self.facts.band].candidate
        return self.constant(0, pa.int32()) if depth is None else pa.array(depth.astype(np.int32))

    def statuses(self) -> pa.Array:
        if self.reasons is not None:
            return reason_array(self.reasons)
        bands = [self.facts.band] if self.facts.band else [band for band in self.bands if band in self.picked]
        return status_array(first_not_valid([self._status(band) for band in bands]))

    def record_values(self, name: str) -> pa.Array:
        assert self.facts.record_id is not None
        return self.constants.of_record(self.facts.record_id, name, self.facts.record[name], len(self.chunk))

    def record_of_band(self, band: str) -> pa.Array:
        of_bands = self.facts.record_ids
        if of_bands is None:
            of_bands = dict.fromkeys(self.picked, self.facts.record_id)
        return self.constant(of_bands.get(band), pa.string())

    def time_differences(self) -> pa.Array:
        moment = self.facts.datetime
        if self.time_column is None or moment is None:
            return self.constant(None, pa.float64())
        times = point_times(self.chunk, self.time_column)
        return pa.array((moment - times) / 1e6, mask=times == NO_TIME)

    @property
    def _offsets(self) -> tuple[Ints | None, Ints | None]:
        """Rows and columns from the points' own pixels to those that gave the values."""
        picked = self.picked[self.facts.band]
        return picked.row_offset, picked.col_offset

    def _pixel_column(self, axis: int) -> pa.Array:
        own, offset = self.chunk.column(PIXEL[axis]), self._offsets[axis]
        return own if offset is None else pa.array((own.to_numpy() + offset).astype(np.int32))

    @cached_property
    def _centres(self) -> tuple[Floats, Floats]:
        assert self.grid is not None
        row, col = (self._pixel_column(axis).to_numpy() + 0.5 for axis in (0, 1))
        x, y = self.grid.to_world(row, col)
        return x, y

    @cached_property
    def _lonlat(self) -> Floats | None:
        """Longitudes and latitudes [2, n] of the pixels, on their body, infinite where PROJ has none; or None."""
        assert self.grid is not None
        lonlat = footprint_crs(self.grid.crs)
        if lonlat is None or full_turn(lonlat) is None:
            return None
        return np.stack(transform(self.grid.crs, lonlat, *self._centres))

    def _status(self, band: str) -> Statuses:
        status = self.picked[band].status
        assert status is not None
        return status

    def _of_band(self, band: str, statistic: str | None) -> pa.Array:
        """The value of a band, or a statistic; null where the record lacks it."""
        if band not in self.picked:
            kind = self.value_types[band] if statistic is None else statistic_type(statistic)
            return self.constant(None, kind)
        picked = self.picked[band]
        return _values(picked) if statistic is None else picked.statistics[statistic].array()


def _values(picked: Picked) -> pa.Array:
    return pa.array(picked.values, mask=picked.null)


def _lists(
    rows: int, bands: Sequence[str], found: Mapping[str, tuple[Pixels, Mask | None]], kind: pa.DataType
) -> pa.Array:
    """Lists of what is found of each band, values and which of them are null; null for other bands."""
    cells = np.zeros((rows, len(bands)), dtype=numpy_dtype(kind.value_type))
    null = np.zeros(cells.shape, dtype=bool)
    for number, band in enumerate(bands):
        values, missing = found.get(band, (None, True))
        if values is not None:
            cells[:, number] = values
        null[:, number] = False if missing is None else missing
    mask = null.ravel() if null.any() else None
    return pa.FixedSizeListArray.from_arrays(pa.array(cells.ravel(), mask=mask), type=kind)


def unsampled_rows(
    points: pa.RecordBatch, reason: NDArray[np.object_], point_crs: int | None
) -> tuple[pa.RecordBatch, dict[str, int]]:
    """The points that have a reason, as rows of the unsampled table; and how many for each reason."""
    left = np.flatnonzero(reason != np.array(None))
    kept = kept_fields(points.schema)
    sources = {name: source for _, name, source in same_columns(points.schema)}
    names, counts = np.unique(reason[left].astype(str), return_counts=True)
    chosen = points.take(pa.array(left, type=pa.int64()))
    columns = [
        *(chosen.column(field.name) for field in POINT_FIELDS),
        pa.repeat(pa.scalar(point_crs, type=pa.int32()), len(left)),
        pa.array(reason[left], type=pa.string()),
        *(chosen.column(sources.get(field.name, field.name)) for field in kept),
    ]
    batch = pa.RecordBatch.from_arrays(columns, schema=unsampled_schema(kept))
    return batch, {str(name): int(count) for name, count in zip(names, counts, strict=True)}


def merged(chunks: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Chunks of one schema as one batch."""
    return chunks[0] if len(chunks) == 1 else pa.concat_batches(chunks)
