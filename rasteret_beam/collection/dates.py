"""Datetimes as users give them, in UTC and without a zone."""

import re
from collections.abc import Sequence
from datetime import UTC, timedelta
from datetime import date as Date
from datetime import datetime as Datetime
from typing import Any

from rasteret_beam.errors import InputError

Moment = Date | Datetime | str | int | None


def to_datetime(value: Moment) -> Datetime | None:
    """A datetime in UTC without a zone, from a datetime, an ISO text, or a year.

    Raises
    ------
    InputError
        The text is no ISO date or datetime.
    """
    if value is None:
        return None
    if isinstance(value, int) or (isinstance(value, str) and re.fullmatch(r"\d{4}", value)):
        return Datetime(int(value), 1, 1)
    if isinstance(value, str):
        try:
            value = Datetime.fromisoformat(value)
        except ValueError as error:
            raise InputError(f"{value!r} is no ISO date or datetime (such as 2023-06-30): {error}") from error
    if not isinstance(value, Datetime):
        value = Datetime(value.year, value.month, value.day)
    return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)


def date_bounds(date_range: Sequence[Any]) -> tuple[Datetime, Datetime]:
    """First and last moment of (first, last), both included.

    A day or a year given as the last one means its last microsecond.

    Raises
    ------
    InputError
        It is not a pair, or the first is after the last.
    """
    if isinstance(date_range, str) or len(date_range) != 2:
        raise InputError(f"date_range is {date_range!r}; it has to be (first, last), as ('2023-01-01', '2023-12-31')")
    first, last = (to_datetime(moment) for moment in date_range)
    if first is None or last is None:
        raise InputError(f"date_range is {tuple(date_range)}; both its dates have to be given")
    last += _length(date_range[1], last)
    if first > last:
        raise InputError(f"date_range is {tuple(date_range)}; its first date must not be after its last")
    return first, last


def _length(given: Any, start: Datetime) -> timedelta:
    """How long after its start a day or a year ends; nothing for an exact moment."""
    text = str(given)
    if re.fullmatch(r"\d{4}", text):
        return start.replace(year=start.year + 1) - start - timedelta(microseconds=1)
    return timedelta(days=1, microseconds=-1) if len(text) <= 10 else timedelta(0)
