"""Lengths of time as users write them: text with a unit, ISO 8601 durations, and values of Python, NumPy and pandas."""

import re
from datetime import timedelta
from typing import Any

import numpy as np

from rasteret_beam.errors import InputError

UNITS = {
    **dict.fromkeys(("w", "week", "weeks"), timedelta(weeks=1)),
    **dict.fromkeys(("d", "day", "days"), timedelta(days=1)),
    **dict.fromkeys(("h", "hour", "hours"), timedelta(hours=1)),
    **dict.fromkeys(("min", "minute", "minutes"), timedelta(minutes=1)),
    **dict.fromkeys(("s", "sec", "second", "seconds"), timedelta(seconds=1)),
    "ms": timedelta(milliseconds=1),
    "us": timedelta(microseconds=1),
}
"""Lengths of the units, whose names may be in any case. Months and years differ in length, so there are none."""

PART = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)\s*")
ISO = re.compile(
    r"p(?=.)(?:(?P<weeks>\d+)w)?(?:(?P<days>\d+(?:[.,]\d+)?)d)?"
    r"(?:t(?=.)(?:(?P<hours>\d+(?:[.,]\d+)?)h)?(?:(?P<minutes>\d+(?:[.,]\d+)?)m)?(?:(?P<seconds>\d+(?:[.,]\d+)?)s)?)?"
)
FORMS = 'text such as "10D", "36h", "90min" or "30s", an ISO 8601 duration such as "P10D" or "PT36H", or a timedelta'


def to_duration(value: Any, name: str) -> timedelta:
    """A length of time, 0 or more; ``name`` is what an error calls it.

    Raises
    ------
    InputError
        It is none, or negative, or too long for a timedelta (2.7 million years).
    """
    if isinstance(value, timedelta):
        found = _of_timedelta(value)
    elif isinstance(value, np.timedelta64):
        found = _of_numpy(value)
    else:
        found = _of_text(value) if isinstance(value, str) else None
    if found is None:
        raise InputError(f"{name} is {value!r}, which is not a length of time; give {FORMS}")
    if found < timedelta(0):
        raise InputError(f"{name} is {value!r}, which is negative; it limits the distance to both sides: give {-found}")
    return found


def microseconds(duration: timedelta) -> int:
    """A length of time in microseconds."""
    return duration // timedelta(microseconds=1)


def _of_timedelta(value: timedelta) -> timedelta | None:
    if value != value:  # NaT
        return None
    return timedelta(value.days, value.seconds, value.microseconds)  # without the nanoseconds of pandas


def _of_numpy(value: np.timedelta64) -> timedelta | None:
    unit = np.datetime_data(value.dtype)[0]
    found = value.astype("timedelta64[us]")
    overflows = unit in ("W", "D", "h", "m", "s", "ms") and found.astype(value.dtype) != value
    if unit in ("Y", "M", "generic") or np.isnat(value) or overflows:
        return None
    item = found.item()
    return item if isinstance(item, timedelta) else None


def _of_text(text: str) -> timedelta | None:
    text = text.strip().lower()
    negative, text = text.startswith("-"), text.removeprefix("-")
    try:
        found = _of_iso(text) if text.startswith("p") else _of_parts(text)
    except OverflowError:
        return None
    return -found if negative and found is not None else found


def _of_iso(text: str) -> timedelta | None:
    parts = ISO.fullmatch(text)
    if parts is None:
        return None
    return timedelta(**{unit: float(number.replace(",", ".")) for unit, number in parts.groupdict().items() if number})


def _of_parts(text: str) -> timedelta | None:
    parts = PART.findall(text)
    if not parts or PART.sub("", text) or any(unit not in UNITS for _, unit in parts):
        return None
    return sum((float(number) * UNITS[unit] for number, unit in parts), timedelta(0))
