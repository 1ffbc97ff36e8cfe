"""Parse time ranges: two datetimes, either of which may be open, or one text."""

import re
from collections.abc import Sequence
from datetime import date as Date
from datetime import datetime as Datetime
from datetime import timedelta
from typing import Any

import numpy as np

from rasteret_beam.collection.filters.dates import to_datetime
from rasteret_beam.errors import InputError

DateRange = str | Sequence[Any] | Date | np.datetime64 | int

FORMS = (
    "give (first, last) or 'FIRST/LAST', such as '2023-01-01/2023-06-30'; a single date, month (2023-06) or year "
    "means all of it, and '..' or None leaves a side open"
)

OPEN = ("", "..")
YEAR, MONTH, WEEK = re.compile(r"\d{4}"), re.compile(r"\d{4}-\d{2}"), re.compile(r"\d{4}-?W\d{2}")
DAY = re.compile(r"[\d._W-]{6,10}")
"""Texts without a time of day; :func:`to_datetime` checks that they are dates."""

TICK = timedelta(microseconds=1)


def date_bounds(date_range: DateRange) -> tuple[Datetime | None, Datetime | None]:
    """First and last datetime of a time range in UTC, both inclusive; None for an open side.

    Parameters
    ----------
    date_range
        A pair of datetimes; a text with two, separated by ``/`` as in STAC; or one date, month or year, which means all
        of it. Each may be a Python, NumPy or pandas date or datetime, an ISO 8601 text, a month (``"2023-06"``) or a
        year; None, ``".."``, an empty text and NaT leave the side open. Datetimes with a time zone are converted to
        UTC. A last year, month, week or day means its last microsecond.

    Raises
    ------
    InputError
        It has another form, a datetime cannot be parsed, both sides are open, or the first is after the last.
    """
    lower, upper = _two_sides(date_range)
    first, last = _start(lower, date_range), _end(upper, date_range)
    if first is None and last is None:
        raise InputError(f"date_range is {date_range!r}, open on both sides; omit it, or {FORMS}")
    if first is not None and last is not None and first > last:
        raise InputError(f"date_range is {date_range!r}; its first date must not be after its last")
    return first, last


def _two_sides(given: Any) -> tuple[Any, Any]:
    if isinstance(given, str):
        sides: Sequence[Any] = given.split("/")
        if len(sides) > 2 or any(side.strip().startswith("P") for side in sides):
            raise InputError(f"date_range is {given!r}; {FORMS}")
    elif isinstance(given, Date | np.datetime64 | int | np.integer) and not isinstance(given, bool):
        sides = [given]
    elif hasattr(given, "__len__") and hasattr(given, "__getitem__") and not isinstance(given, dict | bytes):
        sides = list(given)
    else:
        raise InputError(f"date_range is {given!r}, a {type(given).__name__}; {FORMS}")
    if len(sides) == 1 and not _is_open(sides[0]) and isinstance(given, str | Date | np.datetime64 | int | np.integer):
        sides = [sides[0], sides[0]]
    if len(sides) != 2:
        raise InputError(f"date_range is {given!r}, which has {len(sides)} side(s); {FORMS}")
    return sides[0], sides[1]


def _is_open(moment: Any) -> bool:
    if isinstance(moment, str):
        return moment.strip() in OPEN
    return moment is None or bool(moment != moment)  # NaT and NaN differ from themselves


def _start(moment: Any, given: Any) -> Datetime | None:
    if _is_open(moment):
        return None
    if isinstance(moment, np.datetime64):
        moment = moment.astype("datetime64[us]").item()
    if isinstance(moment, int | np.integer) and not isinstance(moment, bool):
        moment = str(moment)
    if not isinstance(moment, str | Date):
        raise InputError(f"date_range is {given!r}: {moment!r} is a {type(moment).__name__}; {FORMS}")
    if isinstance(moment, str):
        text = moment.strip()
        moment = f"{text}-01" if MONTH.fullmatch(text) else text
    try:
        return to_datetime(moment)
    except (ValueError, OverflowError) as error:
        reason = str(error) if isinstance(error, InputError) else f"{moment!r} is not a date: {error}"
        raise InputError(f"date_range is {given!r}: {reason}; {FORMS}") from error


def _end(moment: Any, given: Any) -> Datetime | None:
    start = _start(moment, given)
    if start is None:
        return None
    unit = _unit(moment)
    try:
        if unit == "Y":
            return start.replace(year=start.year + 1) - TICK
        if unit == "M":
            return (start + timedelta(days=31)).replace(day=1) - TICK
        return start + timedelta(days=7) - TICK if unit == "W" else start + timedelta(days=1) - TICK if unit else start
    except (ValueError, OverflowError):  # at the end of year 9999
        return Datetime.max


def _unit(moment: Any) -> str:
    """Y, M, W or D for a whole year, month, week or day; otherwise empty."""
    if isinstance(moment, np.datetime64):
        unit = np.datetime_data(moment)[0]
        return unit if unit in "YMWD" else ""
    if not isinstance(moment, str):
        moment = "" if isinstance(moment, Datetime) else str(moment)
    text = moment.strip()
    whole = (("Y", YEAR), ("M", MONTH), ("W", WEEK), ("D", DAY))
    return next((unit for unit, pattern in whole if pattern.fullmatch(text)), "")
