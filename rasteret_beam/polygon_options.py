"""The options that jobs over polygons share."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import ClassVar, Literal

import numpy as np

from rasteret_beam.errors import InputError
from rasteret_beam.job_options import (
    JobOptions,
    check_scales_used,
    check_skipping,
    max_candidates_option,
    quality_option,
    scales_option,
)
from rasteret_beam.option_fields import option
from rasteret_beam.quality import Quality, check_quality
from rasteret_beam.scales import to_scales

MIN_VALID = 0.8


@dataclass(frozen=True, kw_only=True)
class PolygonOptions(JobOptions):
    """The options that chip jobs and jobs of zonal statistics share.

    Dead letters of polygons carry those that decide about pixels, so a retry takes none of them.

    Raises
    ------
    InputError
        A value cannot be used.
    """

    rows: ClassVar[str] = "polygons"

    time_column: str | None = option(
        None,
        help="column of the polygons with their times: timestamps (UTC if they have no zone), dates or ISO 8601 text",
        metavar="NAME",
        retry=False,
    )
    quality: tuple[Quality, ...] = quality_option(
        "in the same record under the centre of each pixel: pixels", retry=False
    )
    skip_invalid: bool = option(
        False,
        help="where less than min_valid of the polygon's pixels are valid on the best record, take the next one, in "
        "the order of match",
        retry=False,
    )
    min_valid: float = option(
        MIN_VALID,
        help=f"least share of valid pixels among those of the polygon, for skip_invalid (default: {MIN_VALID})",
        metavar="SHARE",
        retry=False,
    )
    max_candidates: int = max_candidates_option(
        "records of a polygon that skip_invalid looks at, at most, for each band (default: 10)"
    )
    unscale: bool = option(
        False,
        help="give pixels in physical units, stored number * scale + offset, as float64, NaN where they are not valid",
        retry=False,
    )
    scales: Mapping[str, tuple[float, float]] = scales_option(retry=False)
    on_invalid: Literal["raise", "skip"] = option(
        "raise",
        help="fail if a geometry is not a valid polygon, or leave it out as unmatched",
        eager=False,
        retry=False,
        last=True,
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "quality", check_quality(self.quality))
        object.__setattr__(self, "scales", to_scales(self.scales))
        super().__post_init__()
        check_scales_used(self.scales, self.unscale)
        self._check_skipping()

    def _check_skipping(self) -> None:
        share = self.min_valid
        if isinstance(share, bool) or not isinstance(share, Real | np.number) or not 0 < float(share) <= 1:
            raise InputError(f"min_valid is {share!r}; it has to be a share of the pixels, more than 0 and at most 1")
        if self.skip_invalid and self.limit not in (None, 1):
            raise InputError(
                f"skip_invalid is True, but limit is {self.limit}: one record is taken of those that are looked at, of "
                "which max_candidates limits the number; leave limit out"
            )
        check_skipping(self)
