"""Statistics of pixels, of windows around points and of polygons alike: their names, and the types of their columns."""

import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from rasteret_beam.errors import InputError, did_you_mean, listed

COUNT, VALID_FRACTION, MEAN, MEDIAN, STD = "count", "valid_fraction", "mean", "median", "std"
MIN, MAX, SUM, MAJORITY, VARIETY = "min", "max", "sum", "majority", "variety"

NAMES = (COUNT, VALID_FRACTION, MEAN, MEDIAN, STD, MIN, MAX, SUM, MAJORITY, VARIETY)
"""Those with a fixed name; beside them there is one for each percentile."""

PERCENTILE = "percentile_"
"""How names of percentiles begin; the number, 0 to 100, follows, as in percentile_90 or percentile_97.5."""

COUNTS = (COUNT, VARIETY)
"""Those that are whole numbers."""

NEVER_NULL = (COUNT, VARIETY, VALID_FRACTION)
"""Those that are 0 where no pixel is valid; all others are null there."""

HELP = {
    COUNT: "valid pixels",
    VALID_FRACTION: "valid pixels divided by all pixels",
    MEAN: "mean of the valid pixels",
    MEDIAN: "median, between the two middle values where their number is even",
    STD: "standard deviation of the population, as NumPy's default",
    MIN: "least value",
    MAX: "greatest value",
    SUM: "sum of the valid pixels",
    MAJORITY: "most frequent value; of several the least",
    VARIETY: "number of distinct values",
}
"""One line for each name, for docs and ``--help``."""

_NUMBER = re.compile(r"[0-9]{1,3}(\.[0-9]+)?")


def percentile_of(name: str) -> float | None:
    """The number of a percentile's name, 0 to 100; None for other names."""
    number = name.removeprefix(PERCENTILE)
    if number == name or not _NUMBER.fullmatch(number):
        return None
    return float(number) if float(number) <= 100 else None


def statistic_type(name: str, *, shares: bool = False) -> pa.DataType:
    """Type of a statistic's column: int64 for whole numbers, float64 for others.

    Parameters
    ----------
    name : str
    shares : bool
        Pixels count by the shares of them that are covered, so that their count is a sum of shares.
    """
    whole = name in COUNTS and not (shares and name == COUNT)
    return pa.int64() if whole else pa.float64()


def check_statistics(names: Any) -> tuple[str, ...]:
    """Names of statistics, checked; there may be none.

    Raises
    ------
    InputError
        A name is unknown or given twice.
    """
    there = f"{listed(NAMES)} and {PERCENTILE}NN with a number from 0 to 100"
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise InputError(f"statistics are {names!r}; give a list of names, of {there}")
    given = tuple(names)
    for name in given:
        if not isinstance(name, str) or (name not in NAMES and percentile_of(name) is None):
            raise InputError(f"statistics have {name!r}{_near(name)}; there are {there}")
    if len({name if percentile_of(name) is None else percentile_of(name) for name in given}) < len(given):
        raise InputError(f"statistics are {listed(given)}; name each of them once")
    return given


def _near(name: Any) -> str:
    if not isinstance(name, str) or name.startswith(PERCENTILE):
        return ""
    return did_you_mean(name, (*NAMES, f"{PERCENTILE}50"))
