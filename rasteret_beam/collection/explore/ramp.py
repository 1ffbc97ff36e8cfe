"""Colours of dates, from dark (old) to light (new); grey for footprints without a date."""

import numpy as np
from numpy.typing import NDArray

ANCHORS = np.array([(68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37)], dtype=np.float64)
"""Five colours of viridis (Smith and van der Walt, CC0), evenly spaced."""

UNDATED = (128, 128, 128)


def date_colours(moments: NDArray[np.datetime64]) -> NDArray[np.uint8]:
    """RGB [n, 3] of days [n] between the first and the last of them."""
    dated = ~np.isnat(moments)
    colours = np.full((len(moments), 3), UNDATED, dtype=np.uint8)
    if dated.any():
        time = moments[dated].astype(np.int64).astype(np.float64)
        span = time.max() - time.min()
        at = (time - time.min()) / span if span else np.ones(len(time))
        steps = np.linspace(0, 1, len(ANCHORS))
        colours[dated] = np.stack([np.interp(at, steps, channel) for channel in ANCHORS.T], axis=1).round()
    return colours


def hexadecimal(colour: NDArray[np.uint8]) -> str:
    """``#rrggbb`` of one RGB."""
    return "#" + "".join(f"{channel:02x}" for channel in colour.tolist())


def span_of(moments: NDArray[np.datetime64]) -> tuple[str, str] | None:
    """First and last day of some datetimes; None if all are NaT."""
    dated = moments[~np.isnat(moments)]
    return (str(dated.min()), str(dated.max())) if len(dated) else None
