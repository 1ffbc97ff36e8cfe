"""Columns of times against pandas and Python's datetime."""

import datetime as dt
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasteret_beam.errors import InputError
from rasteret_beam.kernels.tables.point_times import NO_TIME, check_time_type, point_times
from tests.support.properties import examples

QUICK = settings(deadline=None, derandomize=True, max_examples=examples(200))
EPOCH = dt.datetime(1970, 1, 1)
ONE = dt.timedelta(microseconds=1)


def times_of(values: Any) -> list[int | None]:
    column = values if isinstance(values, pa.Array) else pa.array(values)
    batch = pa.record_batch({"point_index": pa.array(np.arange(len(column)) + 70), "when": column})
    return [None if time == NO_TIME else int(time) for time in point_times(batch, "when")]


def moment(text: str | None) -> int | None:
    return None if text is None else (dt.datetime.fromisoformat(text) - EPOCH) // ONE


MIXED = ["2023-06-30T10:30:00", None, "1969-12-31T23:59:59", "2023-06-30T00:00:00"]

COLUMNS = {
    "seconds": pa.array([moment(text) and moment(text) // 10**6 for text in MIXED], pa.timestamp("s")),
    "milliseconds": pa.array([moment(text) and moment(text) // 1000 for text in MIXED], pa.timestamp("ms")),
    "microseconds": pa.array(map(moment, MIXED), pa.timestamp("us")),
    "nanoseconds, rounded down": pa.array(
        [moment(text) and moment(text) * 1000 + 999 for text in MIXED], "timestamp[ns]"
    ),
    "with a zone": pa.array(map(moment, MIXED), pa.timestamp("us", "Asia/Tokyo")),
    "text": pa.array(MIXED),
    "large text": pa.array(MIXED, pa.large_string()),
    "views of text": pa.array(MIXED, pa.string_view()),
    "dictionary": pa.array(MIXED).dictionary_encode(),
    "runs": pa.RunEndEncodedArray.from_arrays([1, 2, 3, 4], pa.array(MIXED)),
    "blank text": pa.array([MIXED[0], " ", *MIXED[2:]]),
    "text in UTC": pa.array([text and text + "Z" for text in MIXED]),
    "zones and none": pa.array(["2023-06-30T12:30:00+02:00", None, "1969-12-31T23:59:59", "2023-06-29T16:30-07:30"]),
    "basic form": pa.array(["20230630T103000", None, "19691231T235959Z", "20230630"]),
    "fractions": pa.array(["2023-06-30 10:30:00,0", None, "1969-12-31 23:59:59.000000999", "2023-06-30t00z"]),
    "pandas": pa.array(pd.Series(pd.to_datetime(pd.Series(MIXED)))),
    "pandas in a zone": pa.array(pd.Series(pd.to_datetime(pd.Series(MIXED), utc=True).dt.tz_convert("Europe/Paris"))),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_columns(name: str) -> None:
    assert times_of(COLUMNS[name]) == list(map(moment, MIXED))


def test_dates() -> None:
    dates = [dt.date(2023, 6, 30), None, dt.date(1969, 12, 31)]
    wanted = [moment("2023-06-30"), None, moment("1969-12-31")]
    assert times_of(pa.array(dates, pa.date32())) == times_of(pa.array(dates, pa.date64())) == wanted
    assert times_of(pa.array(["2023-06-30", None, "1969-12-31"])) == wanted
    assert times_of(pa.nulls(2)) == [None, None]


zones = st.sampled_from(
    [None, dt.UTC, ZoneInfo("Asia/Kathmandu"), ZoneInfo("America/New_York"), ZoneInfo("Europe/Oslo")]
)


@QUICK
@given(
    st.lists(st.none() | st.datetimes(dt.datetime(1900, 1, 2), dt.datetime(2100, 1, 1), timezones=zones), max_size=8)
)
def test_what_python_writes(values: list[dt.datetime | None]) -> None:
    in_utc = [v if v is None or v.tzinfo is None else v.astimezone(dt.UTC).replace(tzinfo=None) for v in values]
    texts = [None if value is None else value.isoformat() for value in values]
    if any(text is not None and len(text) > 32 for text in texts):
        return  # offsets with seconds are not ISO 8601
    assert times_of(pa.array(texts, pa.string())) == [None if v is None else (v - EPOCH) // ONE for v in in_utc]


@pytest.mark.parametrize(
    "value", ["yesterday", "31/12/2023", "2023-02-30", "2023-06", "2023", "10:30", "2023-06-30T25:00"]
)
def test_text_that_is_no_time(value: str) -> None:
    """The error names the column, the first such row and its value."""
    column = ["2023-06-30", None, "20230101T00+01", value, "also wrong"]
    with pytest.raises(
        InputError, match=rf"^row 73 of time_column 'when' is '{value}', which is not a date or time; it "
    ):
        times_of(column)


@pytest.mark.parametrize("kind", [pa.int64(), pa.float64(), pa.duration("s"), pa.time64("us"), pa.bool_(), pa.binary()])
def test_types_that_hold_no_times(kind: pa.DataType) -> None:
    with pytest.raises(
        InputError, match=r"^time_column 'when' of plots\.csv is .*; it has to hold timestamps, dates or"
    ):
        check_time_type(kind, "when", "plots.csv")
    with pytest.raises(InputError, match=r"^time_column 'when' of the point table is "):
        times_of(pa.array([None], kind))


def test_times_far_away() -> None:
    with pytest.raises(
        InputError, match=r"^row 71 of time_column 'when' is 4611686018427387904 s from 1970, which is too"
    ):
        times_of(pa.array([0, 1 << 62], pa.timestamp("s")))


def test_a_column_that_is_not_there() -> None:
    batch = pa.record_batch({"point_index": [1], "date": ["2023-06-30"]})
    with pytest.raises(
        InputError, match=r"^the points have no column 'when', which time_column names; they have point_index"
    ):
        point_times(batch, "when")
