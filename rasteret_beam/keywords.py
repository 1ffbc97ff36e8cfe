"""The options as keyword arguments, for static type checkers.

Made of the definitions by ``make templates``; do not edit. A function that hands options on can use them too:
``def mine(**keywords: Unpack[SampleKeywords])``.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Literal, TypedDict

from rasteret_beam.chip_options import ChipOptions
from rasteret_beam.options import SampleOptions
from rasteret_beam.quality import Quality
from rasteret_beam.zonal_options import ZonalOptions


class SampleKeywords(TypedDict, total=False):
    """Options of transforms that sample points."""

    match: Literal["all", "latest", "nearest", "before", "after"]
    time_column: str | None
    tolerance: str | timedelta | None
    limit: int | None
    on_error: Literal["raise", "dead_letter"]
    overlap: Literal["all", "first"]
    overlap_tolerance: str | timedelta
    quality: Quality | Sequence[Quality | str]
    invalid: Literal["keep", "null", "drop"]
    skip_invalid: bool
    max_candidates: int
    join: Literal["inner", "left"]
    unscale: bool
    scales: Mapping[str, tuple[float, float]]
    resampling: Literal["nearest", "bilinear", "cubic"]
    skip_nodata: bool
    statistics: Sequence[str]
    window_pixels: int | None
    radius: float | None
    max_distance_pixels: int
    return_neighbourhood: Literal["off", "always", "if_center_nodata"]
    fallback: Literal["closest", "ring"]
    layout: Literal["long", "values", "columns"]
    value_type: Literal["float64", "float32", "raw"]
    extra_columns: Sequence[str]
    geometry: Literal["off", "point", "pixel"]
    cache_bytes: int
    prefix_reads: bool
    options: SampleOptions | None


class EagerSampleKeywords(TypedDict, total=False):
    """Options of eager calls that sample points."""

    match: Literal["all", "latest", "nearest", "before", "after"]
    time_column: str | None
    tolerance: str | timedelta | None
    limit: int | None
    overlap: Literal["all", "first"]
    overlap_tolerance: str | timedelta
    quality: Quality | Sequence[Quality | str]
    invalid: Literal["keep", "null", "drop"]
    skip_invalid: bool
    max_candidates: int
    join: Literal["inner", "left"]
    unscale: bool
    scales: Mapping[str, tuple[float, float]]
    resampling: Literal["nearest", "bilinear", "cubic"]
    skip_nodata: bool
    statistics: Sequence[str]
    window_pixels: int | None
    radius: float | None
    max_distance_pixels: int
    return_neighbourhood: Literal["off", "always", "if_center_nodata"]
    fallback: Literal["closest", "ring"]
    layout: Literal["long", "values", "columns"]
    value_type: Literal["float64", "float32", "raw"]
    extra_columns: Sequence[str]
    geometry: Literal["off", "point", "pixel"]
    cache_bytes: int
    prefix_reads: bool
    options: SampleOptions | None


class PlanKeywords(TypedDict, total=False):
    """Options of plans."""

    match: Literal["all", "latest", "nearest", "before", "after"]
    time_column: str | None
    tolerance: str | timedelta | None
    limit: int | None
    overlap: Literal["all", "first"]
    overlap_tolerance: str | timedelta
    quality: Quality | Sequence[Quality | str]
    skip_invalid: bool
    max_candidates: int
    resampling: Literal["nearest", "bilinear", "cubic"]
    statistics: Sequence[str]
    window_pixels: int | None
    radius: float | None
    options: SampleOptions | None


class SampleRetryKeywords(TypedDict, total=False):
    """Options of dead letters of points."""

    time_column: str | None
    on_error: Literal["raise", "dead_letter"]
    overlap_tolerance: str | timedelta
    quality: Quality | Sequence[Quality | str]
    invalid: Literal["keep", "null", "drop"]
    join: Literal["inner", "left"]
    unscale: bool
    scales: Mapping[str, tuple[float, float]]
    resampling: Literal["nearest", "bilinear", "cubic"]
    skip_nodata: bool
    statistics: Sequence[str]
    window_pixels: int | None
    radius: float | None
    max_distance_pixels: int
    return_neighbourhood: Literal["off", "always", "if_center_nodata"]
    fallback: Literal["closest", "ring"]
    value_type: Literal["float64", "float32", "raw"]
    extra_columns: Sequence[str]
    geometry: Literal["off", "point", "pixel"]
    cache_bytes: int
    prefix_reads: bool
    options: SampleOptions | None


class ChipKeywords(TypedDict, total=False):
    """Options of transforms that read chips."""

    match: Literal["all", "latest", "nearest", "before", "after"]
    time_column: str | None
    tolerance: str | timedelta | None
    limit: int | None
    on_error: Literal["raise", "dead_letter"]
    quality: Quality | Sequence[Quality | str]
    skip_invalid: bool
    min_valid: float
    max_candidates: int
    unscale: bool
    scales: Mapping[str, tuple[float, float]]
    all_touched: bool
    fill: float | None
    max_chip_pixels: int
    on_invalid: Literal["raise", "skip"]
    cache_bytes: int
    options: ChipOptions | None


class EagerChipKeywords(TypedDict, total=False):
    """Options of eager calls that read chips."""

    match: Literal["all", "latest", "nearest", "before", "after"]
    time_column: str | None
    tolerance: str | timedelta | None
    limit: int | None
    quality: Quality | Sequence[Quality | str]
    skip_invalid: bool
    min_valid: float
    max_candidates: int
    unscale: bool
    scales: Mapping[str, tuple[float, float]]
    all_touched: bool
    fill: float | None
    cache_bytes: int
    options: ChipOptions | None


class ChipRetryKeywords(TypedDict, total=False):
    """Options of dead letters of chips."""

    on_error: Literal["raise", "dead_letter"]
    cache_bytes: int
    options: ChipOptions | None


class ZonalKeywords(TypedDict, total=False):
    """Options of transforms that make zonal statistics."""

    match: Literal["all", "latest", "nearest", "before", "after"]
    time_column: str | None
    tolerance: str | timedelta | None
    limit: int | None
    on_error: Literal["raise", "dead_letter"]
    quality: Quality | Sequence[Quality | str]
    skip_invalid: bool
    min_valid: float
    max_candidates: int
    unscale: bool
    scales: Mapping[str, tuple[float, float]]
    statistics: Sequence[str]
    coverage: Literal["centre", "all_touched", "fraction"]
    merge: Literal["record", "datetime"]
    overlap_tolerance: str | timedelta
    join: Literal["inner", "left"]
    extra_columns: Sequence[str]
    geometry: Literal["off", "polygon"]
    max_exact_values: int
    on_invalid: Literal["raise", "skip"]
    cache_bytes: int
    options: ZonalOptions | None


class EagerZonalKeywords(TypedDict, total=False):
    """Options of eager calls that make zonal statistics."""

    match: Literal["all", "latest", "nearest", "before", "after"]
    time_column: str | None
    tolerance: str | timedelta | None
    limit: int | None
    quality: Quality | Sequence[Quality | str]
    skip_invalid: bool
    min_valid: float
    max_candidates: int
    unscale: bool
    scales: Mapping[str, tuple[float, float]]
    statistics: Sequence[str]
    coverage: Literal["centre", "all_touched", "fraction"]
    merge: Literal["record", "datetime"]
    overlap_tolerance: str | timedelta
    join: Literal["inner", "left"]
    extra_columns: Sequence[str]
    geometry: Literal["off", "polygon"]
    max_exact_values: int
    cache_bytes: int
    options: ZonalOptions | None


class ZonalRetryKeywords(TypedDict, total=False):
    """Options of dead letters of zonal statistics."""

    on_error: Literal["raise", "dead_letter"]
    cache_bytes: int
    options: ZonalOptions | None
