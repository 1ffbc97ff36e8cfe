"""The options of a job of zonal statistics."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal, Self

import pyarrow as pa

from rasteret_beam.columns import RECORD, record_names
from rasteret_beam.durations import microseconds, to_duration
from rasteret_beam.errors import InputError, listed
from rasteret_beam.job_options import overlap_tolerance_option
from rasteret_beam.model import MatchRules
from rasteret_beam.option_fields import option
from rasteret_beam.polygon_options import PolygonOptions
from rasteret_beam.schema import zonal_schema
from rasteret_beam.statistics import COUNT, MEAN, NAMES, PERCENTILE, check_statistics

MAX_EXACT_VALUES = 1 << 24
"""Of a polygon: 134 MB of float64, and as much again with their shares."""

OF_ROWS = ("statistics", "coverage", "merge", "unscale", "extra_columns", "geometry", "max_exact_values")
"""Options that decide about rows once their records are known, beside quality rules and scales."""


@dataclass(frozen=True, kw_only=True)
class ZonalOptions(PolygonOptions):
    """The options of a job of zonal statistics, beside its polygons, collection and bands.

    Raises
    ------
    InputError
        A value cannot be used, or two options do not go together.
    """

    statistics: tuple[str, ...] = option(
        (COUNT, MEAN),
        help=f"columns of the table, over the valid pixels of each polygon: of {listed(NAMES)}, and {PERCENTILE}NN "
        "with a number from 0 to 100",
        metavar="A,B",
        retry=False,
    )
    coverage: Literal["centre", "all_touched", "fraction"] = option(
        "centre",
        help="a polygon has the pixels whose centre it holds, all pixels that it touches, or these by the share of "
        "each that it covers",
        retry=False,
    )
    merge: Literal["record", "datetime"] = option(
        "record",
        help="give a row for each record, or for all records of one moment together (at most overlap_tolerance "
        "apart), where pixels of overlaps count once",
        retry=False,
    )
    overlap_tolerance: str | timedelta = overlap_tolerance_option(retry=False)  # noqa: RUF009
    join: Literal["inner", "left"] = option(
        "inner",
        help="left: polygons and bands without a record have a row too, with null for the statistics and the record",
        retry=False,
    )
    unscale: bool = option(
        False,
        help="give statistics in physical units, of stored numbers * scale + offset",
        retry=False,
    )
    extra_columns: tuple[str, ...] = option(
        (), help=f"add columns of the collection to the table, each as {RECORD}NAME", metavar="A,B", retry=False
    )
    geometry: Literal["off", "polygon"] = option(
        "off",
        help="add column geometry, as WKB: the polygon as given, in each of its rows; Parquet files are GeoParquet "
        "then",
        retry=False,
    )
    max_exact_values: int = option(
        MAX_EXACT_VALUES,
        help="pixels of a polygon whose values are held for median and percentiles, at most, for each row; a larger "
        f"polygon is an error (default: {MAX_EXACT_VALUES})",
        metavar="N",
        retry=False,
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "statistics", check_statistics(self.statistics))
        object.__setattr__(self, "extra_columns", _record_columns(self.extra_columns))
        object.__setattr__(self, "overlap_tolerance", to_duration(self.overlap_tolerance, "overlap_tolerance"))
        super().__post_init__()
        if not self.statistics:
            raise InputError(f"statistics are empty; give at least one, of {listed(NAMES)} and {PERCENTILE}NN")
        most = self.max_exact_values
        if isinstance(most, bool) or not isinstance(most, int) or most < 1:
            raise InputError(f"max_exact_values is {most!r}; it has to be a whole number of pixels, 1 or more")
        self._check_merging()

    def _check_merging(self) -> None:
        """Refuse what only rows of one record can have."""
        if not self.merges:
            return
        if self.skip_invalid:
            raise InputError(
                "skip_invalid is True, but merge is 'datetime', which takes the valid pixels of all records of a "
                'moment; use merge="record", or leave skip_invalid out'
            )
        if self.extra_columns:
            raise InputError(
                f"extra_columns have {self.extra_columns[0]!r}, but merge is 'datetime': a row is of several records; "
                'use merge="record", or leave extra_columns out'
            )

    @property
    def match_rules(self) -> MatchRules:
        """What decides which of the records that overlap a polygon are taken."""
        tolerance = microseconds(to_duration(self.overlap_tolerance, "overlap_tolerance"))
        return replace(super().match_rules, overlap_tolerance=tolerance)

    @property
    def shares(self) -> bool:
        """Whether pixels count by the share of them that a polygon covers."""
        return self.coverage == "fraction"

    @property
    def merges(self) -> bool:
        """Whether a row is of all records of one moment."""
        return self.merge == "datetime"

    @property
    def record_columns(self) -> tuple[str, ...]:
        """The columns of the collection that rows have."""
        return record_names(self.extra_columns)

    def schema(
        self,
        kept: Collection[pa.Field] = (),
        record_types: Mapping[str, pa.DataType] | None = None,
        geometry_crs: str | None = None,
    ) -> pa.Schema:
        """Schema of the table with these options; see :func:`rasteret_beam.schema.zonal_schema`.

        Parameters
        ----------
        record_types : mapping of str to DataType, optional
            Types of the columns of the collection that ``extra_columns`` name.
        geometry_crs : str, optional
            CRS of the polygons, with ``geometry``, as PROJJSON.
        """
        flags = {"shares": self.shares, "merged": self.merges, "geometry": self.geometry == "polygon"}
        return zonal_schema(
            self.statistics, list(kept), self.extra_columns, record_types, geometry_crs=geometry_crs, **flags
        )

    def settings(self) -> str:
        """The options that decide about rows once their records are known, as JSON: dead letters carry them."""
        given = {name: getattr(self, name) for name in OF_ROWS}
        given["unscale"] = bool(self.unscale)
        given["quality"] = [str(rule) for rule in self.quality]
        given["scales"] = {band: list(pair) for band, pair in self.scales.items()}
        given["overlap_tolerance"] = microseconds(to_duration(self.overlap_tolerance, "overlap_tolerance"))
        return json.dumps(given)

    def with_settings(self, settings: str | bytes) -> Self:
        """These options, but with those of :meth:`settings`, for records that are chosen."""
        given = json.loads(settings)
        given["scales"] = {band: tuple(pair) for band, pair in given["scales"].items()}
        given["overlap_tolerance"] = timedelta(microseconds=given["overlap_tolerance"])
        return replace(self, **given, skip_invalid=False, join="inner")


def _record_columns(names: Any) -> tuple[str, ...]:
    """Names of columns of the collection, as ``extra_columns`` has them, checked.

    Raises
    ------
    InputError
    """
    if isinstance(names, str):
        raise InputError(f"extra_columns are {names!r}; give a list of names, each as {RECORD}NAME")
    try:
        given = tuple(names)
    except TypeError:
        raise InputError(f"extra_columns are {names!r}; give a list of names, each as {RECORD}NAME") from None
    for name in given:
        if not isinstance(name, str) or not name.startswith(RECORD) or name == RECORD:
            way_out = f"; for the column {name} of the collection give {RECORD}{name}" if name else ""
            raise InputError(
                f"extra_columns have {name!r}; of polygons they can be columns of the collection, each as "
                f"{RECORD}NAME{way_out}"
            )
    if len(set(given)) < len(given):
        raise InputError(f"extra_columns are {listed(given)}; name each of them once")
    return given
