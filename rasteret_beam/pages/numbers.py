"""Numbers, sizes and dates as texts, and round numbers for the ticks of axes."""

import math
from datetime import datetime
from typing import Any

import numpy as np

MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"

UNITS = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"))
SIZES = ((1 << 40, " TB"), (1 << 30, " GB"), (1 << 20, " MB"), (1 << 10, " kB"))
GEOGRAPHIC_STEPS = (90.0, 60.0, 30.0, 15.0, 10.0, 5.0, 2.0, 1.0)


def count(value: int) -> str:
    """A whole number with separators."""
    return f"{value:,}"


def number(value: float | None, digits: int = 5) -> str:
    """A number with so many significant digits; an en dash for None and NaN."""
    if value is None or math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else f"{MINUS}∞"
    if value == round(value) and abs(value) < 1e15:
        return f"{round(value):,}".replace("-", MINUS)
    text = f"{value:,.{digits}g}" if 1e-4 <= abs(value) < 1e15 else f"{value:.{digits - 1}e}"
    return text.replace("-", MINUS) if "e" not in text else MINUS * (value < 0) + text.lstrip("-")


def short(value: float) -> str:
    """A number for an axis: 1.2 M."""
    for unit, letter in UNITS:
        if abs(value) >= unit:
            return f"{value / unit:.3g}".replace("-", MINUS) + letter
    return number(value, 4)


def size(value: float) -> str:
    """A number of bytes: 1.2 GB."""
    for unit, letter in SIZES:
        if value >= unit:
            return f"{value / unit:.3g}{letter}"
    return f"{value:.0f} B"


def share(part: float, whole: float) -> str:
    """A share in per cent; never 0 or 100 unless it is."""
    if not whole:
        return NONE
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "< 0.1 %"
    if 99.9 < percent < 100:
        return "> 99.9 %"
    return f"{percent:.3g} %"


def day(value: Any) -> str:
    """The date of a ``datetime64`` or a datetime."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d}"
    return str(np.datetime64(value, "D"))


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers between two others, at most ``most`` or so."""
    span = high - low
    if not (math.isfinite(span) and span > 0) or span / max(abs(low), abs(high)) < 1e-12:
        return [low]
    raw = span / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * each for each in (1, 2, 2.5, 5, 10) if power * each >= raw * (1 - 1e-9))
    return _multiples(low, high, step)


def angle_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round angles in degrees between two others."""
    if (high - low) / most <= 1.0:
        return ticks(low, high, most)
    step = next(each for each in reversed(GEOGRAPHIC_STEPS) if each >= (high - low) / most or each == 90.0)
    return _multiples(low, high, step)


def _multiples(low: float, high: float, step: float) -> list[float]:
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(each * step, 12) for each in range(first, last + 1)]


def longitude(value: float) -> str:
    """A longitude in degrees, between 180° W and 180° E."""
    turned = (value + 180.0) % 360.0 - 180.0
    side = "" if turned in (0.0, -180.0) else " E" if turned > 0 else " W"
    return f"{abs(turned):g}°{side}"


def latitude(value: float) -> str:
    """A latitude in degrees."""
    return f"{abs(value):g}°{'' if value == 0 else ' N' if value > 0 else ' S'}"
