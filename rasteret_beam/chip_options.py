"""The options of a chip job."""

from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np

from rasteret_beam.errors import InputError
from rasteret_beam.option_fields import option
from rasteret_beam.polygon_options import PolygonOptions

MAX_CHIP_PIXELS = 1 << 22
"""2048 x 2048: at 8 bytes a pixel and with its mask, a row of 36 MB, of which a worker can hold several."""


@dataclass(frozen=True, kw_only=True)
class ChipOptions(PolygonOptions):
    """The options of a chip job, beside its polygons, collection and bands.

    Raises
    ------
    InputError
        A value cannot be used.
    """

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

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fill(self.fill)
        check_chip_pixels(self.max_chip_pixels)


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
