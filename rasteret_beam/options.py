"""The options of a sampling job."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from numbers import Real
from typing import Literal

import pyarrow as pa

from rasteret_beam.columns import (
    BAND_RECORD,
    NEEDS_STATUS,
    NEEDS_TIME,
    RECORD,
    Column,
    check_extra_columns,
    columns_of,
    extra_column,
    optional_columns,
    record_names,
)
from rasteret_beam.durations import microseconds, to_duration
from rasteret_beam.errors import InputError, listed
from rasteret_beam.job_options import (
    JobOptions,
    check_scales_used,
    check_skipping,
    max_candidates_option,
    overlap_tolerance_option,
    quality_option,
    scales_option,
)
from rasteret_beam.model import MatchRules
from rasteret_beam.option_fields import option
from rasteret_beam.quality import Quality, check_quality
from rasteret_beam.scales import to_scales
from rasteret_beam.schema import samples_schema
from rasteret_beam.statistics import NAMES as STATISTICS
from rasteret_beam.statistics import check_statistics

MAX_RADIUS = 4096
"""The largest radius of a window: 67 million pixels for a point."""


@dataclass(frozen=True, kw_only=True)
class SampleOptions(JobOptions):
    """The options of a sampling job, beside its points, collection and bands.

    Raises
    ------
    InputError
        A value cannot be used, or two options do not go together.
    """

    overlap: Literal["all", "first"] = option(
        "all",
        help="of records of one moment, as where tiles of a scene overlap, sample all, or for each band the first: the "
        "one whose grid holds the point farthest from its edge",
        routing=True,
        retry=False,
    )
    overlap_tolerance: str | timedelta = overlap_tolerance_option(  # noqa: RUF009
        ": for overlap, and where resampling and statistics go on in a record beside", routing=True
    )
    quality: tuple[Quality, ...] = quality_option("at the point in the same record: samples", routing=True)
    invalid: Literal["keep", "null", "drop"] = option(
        "keep",
        help="what becomes of samples that are nodata, masked or fail a quality rule: the raw value stays, the value "
        "is null, or there is no row",
    )
    skip_invalid: bool = option(
        False,
        help="where the sample of the best record is not valid, take the next one, in the order of match",
        routing=True,
        retry=False,
    )
    max_candidates: int = max_candidates_option(
        "records of a point that skip_invalid looks at, at most, for each band", routing=True
    )
    join: Literal["inner", "left"] = option(
        "inner",
        help="left: points and bands without a sample have a row too, with null for the value and the record",
    )
    unscale: bool = option(
        False,
        help="give values in physical units, stored number * scale + offset, and null where the sample is not valid",
    )
    scales: Mapping[str, tuple[float, float]] = scales_option()
    resampling: Literal["nearest", "bilinear", "cubic"] = option(
        "nearest",
        help="take the pixel that the point lies in, or interpolate between the centres of the 2 x 2 (bilinear) or "
        "4 x 4 (cubic) pixels around it",
        routing=True,
    )
    skip_nodata: bool = option(
        False,
        help="interpolate between the pixels that are valid; otherwise a sample is valid only if all of its pixels are",
    )
    statistics: tuple[str, ...] = option(
        (),
        help=f"add columns with statistics of the valid pixels around the point, of {listed(STATISTICS)} and "
        "percentile_NN; with window_pixels or radius",
        metavar="A,B",
        routing=True,
    )
    window_pixels: int | None = option(
        None,
        help="statistics are of the square of 2 R + 1 pixels on each side, with the point's own pixel in its middle",
        metavar="R",
        routing=True,
    )
    radius: float | None = option(
        None,
        help="statistics are of the pixels whose centres lie at most so many metres from the point on the ground",
        metavar="METRES",
        routing=True,
    )
    max_distance_pixels: int = option(
        0, help="search radius, in pixels, when the point's own pixel is not valid", metavar="R"
    )
    return_neighbourhood: Literal["off", "always", "if_center_nodata"] = option(
        "off", help="add the searched window as column neighbourhood_values"
    )
    fallback: Literal["closest", "ring"] = option(
        "closest", help="take the closest valid pixel of the window, or of its first ring that has one"
    )
    layout: Literal["long", "values", "columns"] = option(
        "long",
        help="a row for each band (long), or for each point and record, with a list of values (values) or a column for "
        "each band (columns)",
        retry=False,
    )
    value_type: Literal["float64", "float32", "raw"] = option(
        "float64",
        help="type of the values: float64, float32 (rounded to about 7 digits), or that of the files (raw)",
    )
    extra_columns: tuple[str, ...] = option(
        (),
        help=f"add columns to the sample table, of {listed(optional_columns())}, {RECORD}NAME (a column of the "
        f"collection) and BAND{BAND_RECORD} (the record of a band, in wide layouts)",
        metavar="A,B",
    )
    geometry: Literal["off", "point", "pixel"] = option(
        "off",
        help="add column geometry, as WKB: the point, or the outline of the pixel that gave the value, in the CRS of "
        "the rasters if they have one, else in longitude and latitude; Parquet files are GeoParquet then",
    )
    prefix_reads: bool = option(
        False,
        help="ask servers only for the first bytes of tiles that lie alone, as many as their points should need: fewer "
        "bytes, some more requests",
        tuning=True,
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "extra_columns", check_extra_columns(self.extra_columns, self.layout))
        object.__setattr__(self, "quality", check_quality(self.quality))
        object.__setattr__(self, "scales", to_scales(self.scales))
        object.__setattr__(self, "overlap_tolerance", to_duration(self.overlap_tolerance, "overlap_tolerance"))
        object.__setattr__(self, "statistics", check_statistics(self.statistics))
        super().__post_init__()
        if self.max_distance_pixels > MAX_RADIUS:
            raise InputError(f"max_distance_pixels is {self.max_distance_pixels}; the most are {MAX_RADIUS}")
        if self.returns_windows and not self.max_distance_pixels:
            raise InputError(
                f"return_neighbourhood is {self.return_neighbourhood!r}, but max_distance_pixels is 0; "
                "give the radius of the window with max_distance_pixels"
            )
        timed = self.columns_needing(NEEDS_TIME)
        if timed and self.time_column is None:
            raise InputError(
                f"extra_columns have {timed[0]!r}, but time_column is None; name the column of the points that has "
                "their times with time_column"
            )
        check_skipping(self, ', or invalid="drop"')
        self._check_resampling()
        self._check_windows()
        self._check_units()
        self._check_layout()

    def _check_resampling(self) -> None:
        if self.resampling == "nearest":
            if self.skip_nodata:
                raise InputError(
                    "skip_nodata is True, but resampling is 'nearest', which takes one pixel; use "
                    'resampling="bilinear", resampling="cubic" or, for the closest valid pixel, max_distance_pixels'
                )
            return
        if self.max_distance_pixels:
            raise InputError(
                f"resampling is {self.resampling!r}, but max_distance_pixels is {self.max_distance_pixels}; nodata "
                "fallback takes one pixel: use one of the two, or skip_nodata=True to interpolate between valid pixels"
            )
        if self.value_type == "raw":
            raise InputError(
                f"resampling is {self.resampling!r}, but value_type is 'raw', the type of the stored numbers; use "
                'value_type="float64" or value_type="float32"'
            )

    def _check_windows(self) -> None:
        """Refuse windows of statistics that are not whole, too large, or of nothing; and statistics of no window."""
        pixels, radius = self.window_pixels, self.radius
        if pixels is not None and (isinstance(pixels, bool) or not isinstance(pixels, int) or pixels < 0):
            raise InputError(f"window_pixels is {pixels!r}; it has to be a whole number, 0 or more")
        if pixels is not None and pixels > MAX_RADIUS:
            raise InputError(f"window_pixels is {pixels}; the most are {MAX_RADIUS}")
        if radius is not None:
            if isinstance(radius, bool) or not isinstance(radius, Real) or not 0 < radius < float("inf"):
                raise InputError(f"radius is {radius!r}; it has to be a number of metres above 0")
            object.__setattr__(self, "radius", float(radius))
        if pixels is not None and radius is not None:
            raise InputError(
                f"window_pixels is {pixels} and radius is {radius!r}; statistics have one window: give one"
            )
        given = {"window_pixels": pixels, "radius": radius}
        named = [f"{name} is {value!r}" for name, value in given.items() if value is not None]
        if self.statistics and not named:
            raise InputError(
                f"statistics are {listed(self.statistics)}, but neither window_pixels nor radius is given; give "
                "the pixels around the point with window_pixels=R, or the distance with radius=METRES"
            )
        if named and not self.statistics:
            raise InputError(f"{named[0]}, but statistics are not given; name them with statistics=[...]")

    def _check_units(self) -> None:
        check_scales_used(self.scales, self.unscale)
        if self.unscale and self.value_type == "raw":
            raise InputError(
                "unscale is True, but value_type is 'raw', the type of the stored numbers; use value_type=\"float64\" "
                'or value_type="float32"'
            )
        codes = [rule.band for rule in self.quality if rule.band in self.scales]
        if codes:
            raise InputError(
                f"scales is {self.scales!r}, but quality has a rule of band {codes[0]!r}, and quality bands are never "
                "scaled; leave the band out of scales"
            )

    def _check_layout(self) -> None:
        if self.layout == "long":
            return
        if self.on_error != "raise":
            raise InputError(
                f"layout is {self.layout!r}, but on_error is {self.on_error!r}; tiles are given up band by band, which "
                'only rows of layout="long" can show'
            )
        if self.returns_windows:
            raise InputError(
                f"layout is {self.layout!r}, but return_neighbourhood is {self.return_neighbourhood!r}; windows are "
                'given with layout="long" only'
            )

    @property
    def match_rules(self) -> MatchRules:
        """What decides which of the records that contain a point are taken."""
        return replace(
            super().match_rules,
            overlap=self.overlap,
            overlap_tolerance=microseconds(to_duration(self.overlap_tolerance, "overlap_tolerance")),
            places=self._places,
            wide=self.layout != "long",
            candidates=self.max_candidates if self.skip_invalid else None,
            quality=tuple((rule.band, rule.missing) for rule in self.quality),
        )

    @property
    def _places(self) -> str:
        """How points are keyed by place, whatever the collection: see :class:`MatchRules`."""
        if self.skip_invalid or self.invalid == "drop" or self.join == "left":
            return "point"
        if not self.quality or not self.uses_validity:
            return ""
        every = self.match == "all" and self.limit is None and self.overlap == "all"
        return "record" if every else "point"

    @property
    def needs_status(self) -> bool:
        """Whether it matters if samples are valid."""
        of_values = self.invalid != "keep" or self.skip_invalid or self.unscale
        return of_values or bool(self.columns_needing(NEEDS_STATUS))

    @property
    def uses_validity(self) -> bool:
        """Whether a row, or the pixel that it comes from, depends on which pixels are valid."""
        return (
            self.needs_status or self.max_distance_pixels > 0 or self.resampling != "nearest" or bool(self.statistics)
        )

    def columns_needing(self, need: str) -> list[str]:
        """The extra columns that need something, such as :data:`rasteret_beam.columns.NEEDS_STATUS`."""
        found = ((name, extra_column(name)) for name in self.extra_columns)
        return [name for name, column in found if column is not None and need in column.needs]

    def rows_each(self, bands: Collection[str]) -> int | None:
        """Rows of every point, sampled or not; None where points differ."""
        most = self.limit or (None if self.match == "all" else 1)
        if self.join != "left" or most != 1:
            return None
        return len(bands) if self.layout == "long" else 1

    @property
    def record_columns(self) -> tuple[str, ...]:
        """The columns of the collection that rows have."""
        return record_names(self.extra_columns)

    @property
    def returns_windows(self) -> bool:
        """Whether rows have the window that was searched."""
        return self.return_neighbourhood != "off"

    def schema(
        self,
        kept: Collection[pa.Field] = (),
        bands: Collection[str] = (),
        value_types: Mapping[str, pa.DataType] | None = None,
        record_types: Mapping[str, pa.DataType] | None = None,
        geometry_crs: str | None = None,
    ) -> pa.Schema:
        """Schema of the sample table with these options; see :func:`rasteret_beam.schema.samples_schema`.

        Parameters
        ----------
        value_types : mapping of band to DataType, optional
            Types of the values; only needed with ``value_type="raw"``, for which
            :meth:`rasteret_beam.Collection.sample_schema` finds them.
        record_types : mapping of str to DataType, optional
            Types of the columns of the collection that ``extra_columns`` name, which it finds too.
        geometry_crs : str, optional
            CRS of the geometry, with ``geometry``, as PROJJSON.

        Raises
        ------
        InputError
            ``value_type`` is "raw", and no types are given; or the type of a column of the collection is not.
        """
        types: Mapping[str, pa.DataType] | pa.DataType | None = value_types
        if types is None:
            types = {"float64": pa.float64(), "float32": pa.float32()}.get(self.value_type)
        if types is None:
            raise InputError(
                "value_type is 'raw', so the types of values are those of the collection's files; "
                "Collection.sample_schema(bands, kept, options=...) gives the schema"
            )
        columns = self.returns_windows, self.layout, list(bands), self.extra_columns
        geometry = self.geometry, geometry_crs
        return samples_schema(list(kept), *columns, types, record_types, self.statistics, *geometry)

    @property
    def columns(self) -> list[Column]:
        """The columns of the sample table, in order, without those of bands and kept columns."""
        settings = self.returns_windows, self.extra_columns, self.statistics, self.geometry
        return list(columns_of(self.layout, *settings))
