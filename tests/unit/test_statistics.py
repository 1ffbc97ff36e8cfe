"""Names of statistics, and the types of their columns."""

import re
from typing import Any

import pyarrow as pa
import pytest

from rasteret_beam.errors import InputError
from rasteret_beam.statistics import HELP, NAMES, check_statistics, percentile_of, statistic_type

THERE = (
    "there are count, valid_fraction, mean, median, std, min, max, sum, majority, variety and percentile_NN with a "
    "number from 0 to 100"
)


def test_names_are_taken_as_given() -> None:
    assert check_statistics(NAMES) == NAMES
    assert check_statistics(["std", "percentile_97.5", "percentile_5"]) == ("std", "percentile_97.5", "percentile_5")
    assert check_statistics(()) == check_statistics([]) == check_statistics(iter(())) == ()
    assert list(HELP) == list(NAMES)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("mean", f"statistics are 'mean'; give a list of names, of {THERE.removeprefix('there are ')}"),
        (3, f"statistics are 3; give a list of names, of {THERE.removeprefix('there are ')}"),
        (["mean", "medain"], f"statistics have 'medain' (did you mean 'median'?); {THERE}"),
        (["Mean"], f"statistics have 'Mean' (did you mean 'mean'?); {THERE}"),
        (["percentil_5"], f"statistics have 'percentil_5' (did you mean 'percentile_50'?); {THERE}"),
        (["percentile_101"], f"statistics have 'percentile_101'; {THERE}"),
        (["percentile_"], f"statistics have 'percentile_'; {THERE}"),
        (["percentile_-1"], f"statistics have 'percentile_-1'; {THERE}"),
        (["percentile_1e1"], f"statistics have 'percentile_1e1'; {THERE}"),
        (["percentile_100.5"], f"statistics have 'percentile_100.5'; {THERE}"),
        ([None], f"statistics have None; {THERE}"),
        ([""], f"statistics have ''; {THERE}"),
        (["mean", "std", "mean"], "statistics are mean, std, mean; name each of them once"),
        (["percentile_50", "percentile_50.0"], "statistics are percentile_50, percentile_50.0; name each of them once"),
    ],
)
def test_what_is_no_statistic_is_refused(names: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        check_statistics(names)


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("percentile_0", 0.0),
        ("percentile_5", 5.0),
        ("percentile_05", 5.0),
        ("percentile_97.5", 97.5),
        ("percentile_100", 100.0),
        ("percentile_100.0", 100.0),
        ("percentile_\u0665", None),
        ("percentile_5.", None),
        ("percentile_.5", None),
        ("percentile_nan", None),
        ("median", None),
    ],
)
def test_numbers_of_percentiles(name: str, number: float | None) -> None:
    assert percentile_of(name) == number


def test_types_of_columns() -> None:
    whole = {name for name in (*NAMES, "percentile_5") if statistic_type(name) == pa.int64()}
    assert whole == {"count", "variety"}
    assert statistic_type("count", shares=True) == statistic_type("percentile_5", shares=True) == pa.float64()
    assert statistic_type("variety", shares=True) == pa.int64()
