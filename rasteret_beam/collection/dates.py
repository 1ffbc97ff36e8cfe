"""Datetimes as users give them, in UTC and without a zone."""

import re
from datetime import UTC
from datetime import date as Date
from datetime import datetime as Datetime

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
