"""Spans of time as users give them, compared with the calendar and with Python's own comparison."""

from calendar import monthrange
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasteret_beam import Collection
from rasteret_beam.collection.filters.date_ranges import date_bounds
from rasteret_beam.errors import InputError

FIRST, LAST = datetime(2023, 1, 1), datetime(2023, 6, 30, 23, 59, 59, 999_999)
EAST = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    "span",
    [
        ("2023-01-01", "2023-06-30"),
        ["2023-01-01", "2023-06-30"],
        "2023-01-01/2023-06-30",
        " 2023-01-01 / 2023-06-30 ",
        ("2023-01", "2023-06"),
        "2023/2023-06",
        (2023, "2023-06"),
        (np.int64(2023), date(2023, 6, 30)),
        (date(2023, 1, 1), date(2023, 6, 30)),
        (datetime(2023, 1, 1), LAST),
        (datetime(2023, 1, 1, tzinfo=UTC), LAST.replace(tzinfo=UTC)),
        ("2023-01-01T02:00:00+02:00", LAST.replace(tzinfo=UTC).astimezone(EAST)),
        (pd.Timestamp("2023-01-01"), pd.Timestamp(LAST)),
        pd.DatetimeIndex(["2023-01-01", LAST]),
        (np.datetime64("2023"), np.datetime64("2023-06")),
        np.array(["2023-01-01", "2023-06-30"], dtype="datetime64[D]"),
        (np.datetime64("2023-01-01T00:00:00", "ns"), np.datetime64(LAST)),
    ],
    ids=str,
)
def test_the_first_half_of_a_year(span: Any) -> None:
    assert date_bounds(span) == (FIRST, LAST)


@pytest.mark.parametrize(
    "span", ["2023-01-01/..", "2023/", ("2023", None), ["2023-01", ".."], (FIRST, pd.NaT)], ids=str
)
def test_the_end_may_be_open(span: Any) -> None:
    assert date_bounds(span) == (FIRST, None)


@pytest.mark.parametrize(
    "span", ["../2023-06-30", "/2023-06", (None, "2023-06"), ("", LAST), (np.datetime64("NaT"), LAST)]
)
def test_the_beginning_may_be_open(span: Any) -> None:
    assert date_bounds(span) == (None, LAST)


@given(st.dates(date(1, 1, 1), date(9999, 12, 31)), st.sampled_from(["Y", "M", "D"]))
def test_a_year_a_month_or_a_day_covers_all_of_it(day: date, unit: str) -> None:
    text = day.isoformat()[: {"Y": 4, "M": 7, "D": 10}[unit]]
    month = 12 if unit == "Y" else day.month
    last_day = day.day if unit == "D" else monthrange(day.year, month)[1]
    start = datetime(day.year, 1 if unit == "Y" else day.month, 1 if unit != "D" else day.day)
    last = datetime(day.year, month, last_day, 23, 59, 59, 999_999)
    assert date_bounds(text) == date_bounds((text, text)) == date_bounds(f"{text}/{text}") == (start, last)


@pytest.mark.parametrize(
    ("span", "message"),
    [
        ((None, None), "open on both sides; omit it"),
        ("..", "has 1 side"),
        ("../..", "open on both sides"),
        ("", "has 1 side"),
        ("2023-02-01/2023-01-01", "its first date must not be after its last"),
        (("2024", 2023), "its first date must not be after its last"),
        (("2023-13-01", None), "2023-13-01"),
        ("2023-02-30", "2023-02-30"),
        ("2023-00", "2023-00"),
        ("0000", "0000"),
        ("soon", "'soon' is not a valid ISO date"),
        ("2023-01-01/P1M", "give .first, last. or 'FIRST/LAST'"),
        ("2023/2024/2025", "give .first, last. or 'FIRST/LAST'"),
        (("2023", "2024", "2025"), r"which has 3 side\(s\)"),
        ((), r"which has 0 side\(s\)"),
        (3.5, "a float"),
        (True, "a bool"),
        ({"start": 1, "end": 2}, "a dict"),
        ((True, None), "True is a bool"),
        ((1.5, None), "1.5 is a float"),
        ((b"2023", None), "is a bytes"),
        (timedelta(1), "a timedelta"),
    ],
    ids=str,
)
def test_what_is_no_span_of_time(span: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        date_bounds(span)
    assert "date_range is" in str(caught.value)


@pytest.mark.parametrize(
    ("span", "first", "last"),
    [
        ("2023-04/..", datetime(2023, 4, 1), datetime.max),
        ("../2023-04-09", datetime.min, datetime(2023, 4, 9)),
        ("2023-04", datetime(2023, 4, 1), datetime(2023, 4, 30)),
        ("2023", datetime.min, datetime.max),
        ("1990/1991", datetime.max, datetime.max),
    ],
)
def test_subset_takes_the_records_of_the_span(scenes: Collection, span: str, first: datetime, last: datetime) -> None:
    table = scenes.to_table(["id", "datetime"])
    inside = [row["id"] for row in table.to_pylist() if first <= row["datetime"] <= last]
    assert scenes.subset(date_range=span).to_table(["id"])["id"].to_pylist() == inside


def test_subset_of_nanoseconds(scenes: Collection) -> None:
    table = scenes.to_table()
    column = table["datetime"].cast(pa.timestamp("ns"))
    other = Collection.from_table(table.set_column(table.column_names.index("datetime"), "datetime", column))
    assert (
        len(other.subset(date_range="2023-04/.."))
        == pc.sum(pc.greater(table["datetime"], FIRST.replace(month=4))).as_py()
    )
    assert len(other.subset(date_range="../2023-04-09")) == 4
