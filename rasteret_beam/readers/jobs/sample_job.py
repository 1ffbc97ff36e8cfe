"""Sampling jobs: what points are sampled from, and how."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from rasteret_beam.columns import NEEDS_SCALE
from rasteret_beam.kernels.routing.beside import Beside
from rasteret_beam.kernels.routing.index import RoutingIndex
from rasteret_beam.kernels.sampling.gather import PixelValues
from rasteret_beam.kernels.sampling.interpolation import Interpolation
from rasteret_beam.kernels.sampling.methods import needs_position, pixel_method, window_cells
from rasteret_beam.kernels.sampling.missing_rows import missing_rows, rows_of_unsampled
from rasteret_beam.kernels.sampling.pixel_methods import Picked, PixelMethod
from rasteret_beam.kernels.sampling.record_columns import RecordColumns
from rasteret_beam.kernels.sampling.rows import Constants
from rasteret_beam.kernels.sampling.units import STORED, Units, in_units, needs_file, units_of, windows_in_units
from rasteret_beam.kernels.sampling.validity import Mask, Pixels, Status, Statuses, is_invalid
from rasteret_beam.kernels.sampling.value_types import ValueTypes, in_type, plain_types
from rasteret_beam.kernels.statistics.shapes import WindowShape, check_grids, window_shape
from rasteret_beam.kernels.tables.point_crs import crs_of_points
from rasteret_beam.model import Asset
from rasteret_beam.options import SampleOptions
from rasteret_beam.schema import POINT_EPSG_KEY

WINDOW_VALUES = 1 << 17
"""Values of a unit that count for a portion of windows; so four units with windows are under way at the same time."""

AssetLookup = Callable[[str, Sequence[str]], Sequence[Asset]]


@dataclass(frozen=True, eq=False)
class SampleJob:
    """What groups of points are sampled from, and how.

    Attributes
    ----------
    routing : RoutingIndex
    assets : callable
        From a record's id and bands to their assets.
    collection : str
        Its name.
    bands : sequence of str
        All that are wanted, in output order; needed by wide layouts.
    options : SampleOptions
    value_types : ValueTypes, optional
        Of all wanted bands; needed with ``value_type="raw"``.
    records : RecordColumns
        Columns of the collection that rows have.
    pixel_crs : str, optional
        CRS of outlines of pixels, with ``geometry="pixel"``.
    """

    routing: RoutingIndex
    assets: AssetLookup
    collection: str
    bands: Sequence[str] = ()
    options: SampleOptions = SampleOptions()  # noqa: RUF009
    value_types: ValueTypes | None = None
    records: RecordColumns = RecordColumns()  # noqa: RUF009
    pixel_crs: str | None = None

    def __post_init__(self) -> None:
        if self.window is not None:
            check_grids(self.window, map(self.routing.grid, range(len(self.routing.grids))))

    @cached_property
    def types(self) -> ValueTypes:
        """The type of each band's values in rows."""
        known = [band for names in self.routing.layers.bandsets for band in names]
        return self.value_types or plain_types(self.options, [*self.bands, *known])

    def finished(self, picked: Picked, asset: Asset) -> Picked:
        """What was picked of a band, as rows have it: the values in their type, null where invalid ones are to be."""
        null = picked.null
        if self.options.invalid == "null" or self.options.unscale:
            assert picked.status is not None
            null = is_invalid(picked.status)
        values = in_type(picked.values, self.types[asset.band], self.options.value_type, asset)
        return replace(picked, values=values, null=null)

    def scaled(self, picked: Picked, asset: Asset) -> Picked:
        """Stored numbers that were picked of a band; with ``unscale``, values and windows are in physical units."""
        if not self.options.unscale:
            return picked
        assert picked.status is not None
        units, windows = self.units(asset), picked.windows
        values = in_units(picked.values, ~is_invalid(picked.status), units)
        return replace(picked, values=values, windows=None if windows is None else windows_in_units(windows, units))

    def counted(self, found: PixelValues, asset: Asset, passing: Mask | None) -> tuple[Pixels, Statuses]:
        """Gathered pixels of a band and their statuses, [n], as sums take them: in physical units where wanted.

        Parameters
        ----------
        passing : [n] bool, optional
            Which pixels pass the quality rules.
        """
        pixels, status = found.values(), found.status(asset.nodata, asset.mask)
        if passing is not None:
            status[(status == Status.VALID) & ~passing] = Status.MASKED
        if self.options.unscale:
            pixels = in_units(pixels, status == Status.VALID, self.units(asset))
        return pixels, status

    def units(self, asset: Asset) -> Units:
        """Scale and offset by which the values of a band of a record are brought to physical units.

        Raises
        ------
        CollectionError
            Those of the collection, or of the file, cannot be used.
        """
        return STORED if asset.band in self._never_scaled else units_of(asset, self.options.scales)

    def needs_file(self, asset: Asset) -> bool:
        """Whether units are wanted of a band that only the file's tags can tell."""
        return self._wants_units and asset.band not in self._never_scaled and needs_file(asset, self.options.scales)

    def with_units(self, asset: Asset) -> Asset:
        """The asset with the scale and offset that apply, where they are wanted."""
        if not self._wants_units:
            return asset
        scale, offset = self.units(asset)
        return replace(asset, scale=scale, offset=offset)

    @cached_property
    def _wants_units(self) -> bool:
        return self.options.unscale or bool(self.options.columns_needing(NEEDS_SCALE))

    @cached_property
    def _never_scaled(self) -> frozenset[str]:
        """Quality bands: their numbers are codes."""
        return frozenset(rule.band for rule in self.options.quality)

    def missing(self, unsampled: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Rows of points without a sample, given in the unsampled schema."""
        settings = self.bands, self.options, self.types, self.collection, self.records.types
        return rows_of_unsampled(unsampled, *settings, self.pixel_crs)

    def missing_pairs(self, points: pa.RecordBatch, reason: Sequence[str], band: str) -> pa.RecordBatch:
        """Rows of a band for points of a chunk that have no sample of it."""
        return missing_rows(
            points,
            reason,
            [band],
            self.options,
            self.types,
            collection=self.collection,
            point_crs=point_epsg(points),
            record_types=self.records.types,
            pixel_crs=self.pixel_crs,
        )

    def geometry_crs(self, points: pa.Schema) -> str | None:
        """CRS of the column of geometries, for rows of some points."""
        if self.options.geometry == "point":
            return chunk_crs(points)
        return self.pixel_crs

    @cached_property
    def method(self) -> PixelMethod | Interpolation:
        """How values come from pixels."""
        return pixel_method(self.options)

    @cached_property
    def beside(self) -> Beside:
        """The records beside others, for pixels beyond the grid of a record."""
        return Beside(self.routing)

    @cached_property
    def window(self) -> WindowShape | None:
        """Which pixels around the points statistics are of, if any are wanted."""
        return window_shape(self.options)

    def window_values(self, points: int) -> int:
        """What windows around points take in memory, as a number of values: they are read in portions."""
        if self.window is None:
            return 0
        return min(points * (2 * (self.options.window_pixels or 2) + 1) ** 2, WINDOW_VALUES)

    @property
    def needs_position(self) -> bool:
        """Whether it matters where in its pixel a point lies."""
        return needs_position(self.options)

    @cached_property
    def needs_status(self) -> bool:
        """Whether the status of samples is needed, by the method or for rows."""
        return self.method.needs_validity or self.options.needs_status

    @cached_property
    def constants(self) -> Constants:
        """What the rows of all units have in common."""
        return Constants()

    @cached_property
    def most_records(self) -> int:
        """Records whose samples of a place are held at the same time, at most, for each point and band."""
        most = self.routing.matcher.most
        if most is not None:
            return most + 1
        return int(np.bincount(self.routing.layers.grid).max(initial=1))

    @cached_property
    def cells(self) -> int:
        """Cells that may be read for a point and band."""
        return window_cells(self.method)


def point_epsg(chunk: pa.RecordBatch) -> int | None:
    """EPSG code of the points' CRS, if it has one."""
    return _epsg(chunk.schema)


def chunk_crs(chunk: pa.Schema) -> str | None:
    """CRS of the points, of the schema of a chunk."""
    return crs_of_points(chunk, _epsg(chunk))


def _epsg(chunk: pa.Schema) -> int | None:
    code = (chunk.metadata or {}).get(POINT_EPSG_KEY)
    return int(code) if code is not None else None
