"""Convert users' datetimes to UTC without a time zone."""

import re
from datetime import UTC, timedelta
from datetime import date as Date
from datetime import datetime as Datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa

from rasteret_beam.errors import InputError

Moment = Date | Datetime | np.datetime64 | np.integer | str | int | float | None

FORMS = "an ISO date or datetime (2023-06-30, 20230630T1000), a month (2023-06), a day of the year (2023-181) or a year"

DAY_OF_YEAR = re.compile(r"(\d{4})[-._/]?(\d{3})")
MONTH = re.compile(r"(\d{4})[-._/]?(\d{2})")
TO_SECONDS = re.compile(r"(\d{4})" + 4 * r"(\d{2})" + r"(\d{2})?")
DATE = re.compile(r"(\d{4})([._/])(\d{1,2})\2(\d{1,2})")


def to_datetime(value: Moment) -> Datetime | None:
    """A value of a table or an argument as a datetime in UTC without a time zone.

    Parameters
    ----------
    value
        A Python, NumPy or pandas date or datetime; a text (:data:`FORMS`); or a number with the digits of a year
        (2023), a month (202306), a day of the year (2023181) or a date (20230630). None, NaN and NaT give None. Seconds
        since 1970 are refused, because a number has no unit.

    Raises
    ------
    InputError
        It is something else.
    """
    if isinstance(value, pa.Scalar):
        value = value.as_py()
    if isinstance(value, np.datetime64):
        value = _of_numpy(value)
    if value is None or value != value:  # NaN and NaT differ from themselves
        return None
    if isinstance(value, bool | np.bool_ | np.timedelta64):
        raise InputError(f"{value!r} is not a datetime; give {FORMS}")
    try:
        if isinstance(value, int | float | np.integer | np.floating | Decimal):
            return _of_text(_digits(value))
        if isinstance(value, str):
            value = _of_text(value.strip())
    except (ValueError, OverflowError) as error:
        what = "ISO date or datetime (such as 2023-06-30)" if isinstance(value, str) else "date or datetime"
        raise InputError(f"{value!r} is not a valid {what}: {error}; give {FORMS}") from error
    if isinstance(value, Datetime):
        if value.tzinfo is not None:
            value = value.astimezone(UTC).replace(tzinfo=None)
        return Datetime(*value.timetuple()[:6], value.microsecond)  # without pandas' nanoseconds
    if isinstance(value, Date):
        return Datetime(value.year, value.month, value.day)
    raise InputError(f"{value!r} is a {type(value).__name__}, not a date or datetime; give {FORMS}")


def _of_numpy(value: np.datetime64) -> Datetime | None:
    moment = value.astype("datetime64[us]")
    back = moment.astype(value.dtype)
    if not (back == value or np.isnat(value)) or not isinstance(moment.item(), Datetime | None):
        raise InputError(f"{value!r} is outside the years 1 to 9999; give {FORMS}")
    return moment.item()


def _digits(value: Any) -> str:
    if value != int(value) or not 0 < value <= 99_999_999:
        raise ValueError("a number has to be a year, a month (202306), a day of the year (2023181) or 20230630")
    digits = str(int(value))
    if len(digits) < 4:
        raise ValueError("a year has four digits; write years before 1000 as text, such as '0999'")
    return digits


def _of_text(text: str) -> Datetime:
    """Parse a text: ISO 8601, or a month or day of the year without a hyphen."""
    if re.fullmatch(r"\d{4}", text):
        return Datetime(int(text), 1, 1)
    if found := DAY_OF_YEAR.fullmatch(text):
        return of_day(int(found[1]), int(found[2]))
    if found := MONTH.fullmatch(text):
        return Datetime(int(found[1]), int(found[2]), 1)
    if found := DATE.fullmatch(text):
        return Datetime(int(found[1]), int(found[3]), int(found[4]))
    if found := TO_SECONDS.fullmatch(text):
        return Datetime(*(int(part) for part in found.groups() if part))  # type: ignore[arg-type]
    return Datetime.fromisoformat(text[:10] + text[10:].upper())  # RFC 3339 allows t and z


def of_day(year: int, day: int) -> Datetime:
    """The date of a day of the year, counted from 1.

    Raises
    ------
    ValueError
        The year does not have this day.
    """
    moment = Datetime(year, 1, 1) + timedelta(days=day - 1)
    if moment.year != year:
        raise ValueError(f"{year} does not have a day {day}")
    return moment


PARTS = ("year", "month", "day", "hour", "minute", "second", "doy")
"""Names of the groups of a pattern for a datetime; ``doy`` is the day of the year."""


def datetime_in(pattern: re.Pattern[str], text: str) -> Datetime:
    """The datetime that a pattern finds in a text: in groups named as in :data:`PARTS`, or in its first group.

    Raises
    ------
    InputError
        The pattern does not match, or its match is not a datetime.
    """
    found = pattern.search(text)
    if found is None:
        raise InputError(f"{pattern.pattern!r} does not match {text}")
    named = {name: value for name, value in found.groupdict().items() if name in PARTS and value is not None}
    try:
        moment = _of_parts(named) if named else to_datetime(found[1])
    except (ValueError, OverflowError) as error:
        raise InputError(f"{pattern.pattern!r} does not find a datetime in {text}: {error}") from error
    if moment is None:
        raise InputError(f"{pattern.pattern!r} matches {text}, but its first group is empty")
    return moment


def _of_parts(named: dict[str, str]) -> Datetime:
    numbers = {name: int(value) for name, value in named.items()}
    if "year" not in numbers:
        raise ValueError(f"the pattern has groups {', '.join(named)} but no group named year")
    if "doy" not in numbers:
        return Datetime(**({"month": 1, "day": 1} | numbers))  # type: ignore[arg-type]
    if {"month", "day"} & set(numbers):
        raise ValueError("use either a day of the year (doy) or month and day")
    at = {name: numbers.get(name, 0) for name in ("hour", "minute", "second")}
    return of_day(numbers["year"], numbers["doy"]) + timedelta(**{f"{name}s": value for name, value in at.items()})
