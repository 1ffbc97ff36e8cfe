"""The options of a chip job."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, ClassVar, Literal

import numpy as np

from rasteret_beam.errors import InputError
from rasteret_beam.job_options import JobOptions, check_scales_used, check_skipping
from rasteret_beam.option_fields import option
from rasteret_beam.quality import Quality, check_quality
from rasteret_beam.scales import NO_SCALES, to_scales

MIN_VALID = 0.8

MAX_CHIP_PIXELS = 1 << 22
"""2048 x 2048: at 8 bytes a pixel and with its mask, a row of 36 MB, of which a worker can hold several."""


@dataclass(frozen=True, kw_only=True)
class ChipOptions(JobOptions):
    """The options of a chip job, beside its polygons, collection and bands.

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
    quality: tuple[Quality, ...] = option(
        (),
        help="rules on bands such as a cloud mask, read in the same record under the centre of each pixel: pixels that "
        "fail one are not valid; as Quality(...) or text, such as 'SCL not in 0,1,3,8-10', 'QA_PIXEL no bits 0-4', "
        "'CLD <= 40' or 'preset:sentinel-2-l2a'",
        metavar="RULE",
        retry=False,
        accepts=Quality | Sequence[Quality | str],
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
    max_candidates: int = option(
        10,
        help="records of a polygon that skip_invalid looks at, at most, for each band (default: 10)",
        metavar="N",
        retry=False,
    )
    unscale: bool = option(
        False,
        help="give pixels in physical units, stored number * scale + offset, as float64, NaN where they are not valid",
        retry=False,
    )
    scales: Mapping[str, tuple[float, float]] = option(
        NO_SCALES,
        help="scale and offset of bands, in place of those of the collection and the files; with unscale",
        metavar="BAND=SCALE,OFFSET",
        retry=False,
    )
    all_touched: bool = option(
        False, help="take all pixels that a polygon touches, not only those whose centre it holds", retry=False
    )
    fill: float | None = option(
        None,
        help="value of pixels that are not valid (default: the band's nodata value, or 0; with unscale NaN)",
        metavar="NUMBER",
        retry=False,
    )
    max_chip_pixels: int = option(
        MAX_CHIP_PIXELS,
        help=f"larger chips are cut into windows, a row each (default: {MAX_CHIP_PIXELS})",
        metavar="N",
        eager=False,
        retry=False,
    )
    on_invalid: Literal["raise", "skip"] = option(
        "raise",
        help="fail if a geometry is not a valid polygon, or leave it out as unmatched",
        eager=False,
        retry=False,
    )

    def __post_init__(self) -> None:
        check_fill(self.fill)
        check_chip_pixels(self.max_chip_pixels)
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


def check_chip_pixels(value: Any) -> None:
    """Refuse a chip size that is not a whole number of pixels.

    Raises
    ------
    InputError
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InputError(f"max_chip_pixels is {value!r}; it has to be a whole number of pixels, 1 or more")


def check_fill(fill: Any) -> None:
    """Refuse a fill that is not a number.

    Raises
    ------
    InputError
    """
    if fill is not None and (isinstance(fill, bool) or not isinstance(fill, Real | np.number)):
        raise InputError(f"fill is {fill!r}; it has to be a number, or None for the band's nodata value")
    try:
        float(fill or 0)
    except OverflowError as error:
        raise InputError(f"fill is {fill}, which no band can hold") from error
