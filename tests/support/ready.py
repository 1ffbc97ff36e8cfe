"""Options of ready samples in tests: drawn, in pairs, and as the calls and the oracle take them; and rows compared."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import strategies as st

from rasteret_beam import Quality
from tests.support.oracle import STATISTICS, Row, microseconds

HOUR = timedelta(hours=1)

RULES: dict[str, dict[str, Any]] = {
    "exclude": {"band": "Q", "exclude": [0, 3]},
    "keep": {"band": "Q", "keep": [1, 2, 4]},
    "at least": {"band": "Q", "minimum": 2},
    "between": {"band": "Q", "minimum": 1, "maximum": 3},
    "bits": {"band": "W", "exclude_bits": [0, 5]},
    "fields": {"band": "W", "fields": {(3, 4): [3], (8, 10): [0, 7]}},
    "bits and fields": {"band": "W", "exclude_bits": [1], "fields": {(6, 7): [2]}},
}
"""Quality rules, as the oracle takes them; ``Quality(**rule)`` as the calls do."""

PIXEL_COLUMNS = ("pixel_row", "pixel_col", "pixel_x", "pixel_y", "pixel_lon", "pixel_lat", "distance", "href")
SAMPLE_COLUMNS = ("status", "candidate", "time_difference", "nodata", "scale", "offset")
EXTRA = PIXEL_COLUMNS + SAMPLE_COLUMNS
"""The extra columns of the long layout whose values the oracle knows."""

LONG = ("point_index", "record_id", "datetime", "band", "value", "raster_crs", *EXTRA)


@st.composite
def ready_options(draw: st.DrawFn, *, complete: bool, bands: Sequence[str]) -> dict[str, Any]:
    """Options that go together, as the oracle takes them."""
    match = draw(st.sampled_from(["all", "latest", "nearest", "before", "after"]))
    found: dict[str, Any] = {"match": match}
    if match != "latest":
        found["tolerance"] = draw(st.sampled_from([None, None, 7 * HOUR, 13 * HOUR]))
        found["limit"] = draw(st.sampled_from([None, None, 1, 2, 3]))
    if draw(st.booleans()):
        found |= {"overlap": "first", "overlap_tolerance": draw(st.sampled_from([timedelta(seconds=60), 6 * HOUR]))}
    rules = [RULES[name] for name in draw(st.lists(st.sampled_from(sorted(RULES)), max_size=2, unique=True))]
    missing = st.sampled_from(["pass", "fail"])
    found["quality"] = rules if complete else [rule | {"missing": draw(missing)} for rule in rules]
    found["invalid"] = draw(st.sampled_from(["keep", "null", "drop"]))
    if match != "all" and draw(st.booleans()):
        least = found.get("limit") or 1
        most = st.sampled_from([most for most in (1, 2, 3, 10) if most >= least])
        found |= {"skip_invalid": True, "max_candidates": draw(most)}
    found["unscale"] = draw(st.booleans())
    if found["unscale"] and "B" in bands and draw(st.booleans()):
        found["scales"] = {"B": (0.25, -7.0)}
    found["max_distance_pixels"] = draw(st.sampled_from([0, 0, 0, 1, 2]))
    if draw(st.booleans()):
        names = draw(st.lists(st.sampled_from(STATISTICS), min_size=1, max_size=4, unique=True))
        found |= {"statistics": names, "window_pixels": draw(st.sampled_from([0, 1, 1, 2]))}
    found["join"] = draw(st.sampled_from(["inner", "left"]))
    return {name: value for name, value in found.items() if value is not None}


def as_keywords(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as ``sample_points`` takes them."""
    rules = [Quality(**rule) for rule in options.get("quality", ())]
    return dict(options) | {"quality": rules, "time_column": "when"}


def wide_columns(bands: Sequence[str]) -> list[str]:
    """The extra columns of the wide layouts whose values the oracle knows."""
    return ["status", "time_difference", *(f"{band}_record_id" for band in bands)]


def table_rows(table: pa.Table, columns: Sequence[str]) -> list[tuple]:
    """Rows of a sample table, in order, as values that can be compared."""
    return in_order((plain(name, row[name]) for name in columns) for row in table.to_pylist())


def oracle_rows(rows: Iterable[Row], columns: Sequence[str]) -> list[tuple]:
    """Rows of the oracle, likewise."""
    return in_order((plain(name, row.get(name)) for name in columns) for row in rows)


def in_order(rows: Iterable[Iterable[Any]]) -> list[tuple]:
    return sorted((tuple(row) for row in rows), key=repr)


DIGITS = {"distance": 3, "pixel_x": 3, "pixel_y": 3, "pixel_lon": 7, "pixel_lat": 7}
DIGITS |= dict.fromkeys(("mean", "median", "std", "sum", "percentile_90"), 7)
"""Of columns that are computed from coordinates or sums; all others are compared exactly."""


def plain(name: str, value: Any) -> Any:
    """A value of a column that can be compared: NaN is equal to itself."""
    if isinstance(value, float):
        digits = next((number for end, number in DIGITS.items() if name.endswith(end)), None)
        return "NaN" if math.isnan(value) else value if digits is None else round(value, digits)
    if isinstance(value, list):
        return tuple(plain(name, each) for each in value)
    return microseconds(value) if hasattr(value, "tzinfo") else value


# Combinations of options for the pipeline

FACTORS: dict[str, tuple[Any, ...]] = {
    "match": ("all", "latest", "nearest", "before", "after"),
    "tolerance": (None, 13 * HOUR),
    "limit": (None, 2),
    "overlap": ("all", "first"),
    "quality": (None, "keep", "bits and fields"),
    "invalid": ("keep", "null", "drop"),
    "skip_invalid": (False, True),
    "max_candidates": (10, 2),
    "unscale": (False, True),
    "scales": (None, {"A": (0.25, -7.0)}),
    "join": ("inner", "left"),
    "layout": ("long", "values", "columns"),
    "max_distance_pixels": (0, 1),
    "statistics": (None, ("mean", "count", "percentile_90")),
    "window": (None, ("window_pixels", 1), ("radius", 25.0)),
    "return_neighbourhood": ("off", "always", "if_center_nodata"),
    "value_type": ("float64", "float32", "raw"),
    "extra_columns": (False, True),
    "bands": (("A",), ("B", "A", "F")),
}
"""Options and the values that are tried; ``quality`` by the names of :data:`RULES`."""


def goes_together(chosen: Mapping[str, Any]) -> bool:
    """Whether options may be given together; those that change nothing are left out."""
    long = chosen["layout"] == "long"
    refused = (
        (chosen["match"] == "latest" and (chosen["tolerance"] or chosen["limit"])),
        (chosen["match"] == "all" and chosen["skip_invalid"]),
        (chosen["max_candidates"] != 10 and not chosen["skip_invalid"]),
        (chosen["scales"] and not chosen["unscale"]),
        (chosen["value_type"] == "raw" and chosen["unscale"]),
        ((chosen["statistics"] is None) != (chosen["window"] is None)),
        (chosen["return_neighbourhood"] != "off" and not (chosen["max_distance_pixels"] and long)),
    )
    return not any(refused)


def covering(factors: Mapping[str, Sequence[Any]], strength: int, draws: int) -> list[dict[str, Any]]:
    """Few of as many random combinations: so many values of different factors that any of these has, one of them has.

    With ``strength`` 2 that is each pair of values that go together, with 3 each three; greedy, the best first.
    """
    rng, sizes = np.random.default_rng(1), np.array([len(values) for values in factors.values()])
    drawn = rng.integers(0, sizes, (8 * draws, len(sizes)))
    usable = np.array([each for each in drawn if goes_together(_combination(factors, each))][:draws])
    groups = [[*group] for group in combinations(range(len(sizes)), strength)]
    starts = np.cumsum([0, *(sizes[group].prod() for group in groups)])
    met = [np.ravel_multi_index(usable[:, group].T, sizes[group]) for group in groups] + starts[:-1, np.newaxis]
    missing, found = np.zeros(starts[-1], bool), []
    missing[met] = True
    while missing.any():
        best = missing[met].sum(axis=0).argmax()
        found.append(_combination(factors, usable[best]))
        missing[met[:, best]] = False
    return found


def _combination(factors: Mapping[str, Sequence[Any]], numbers: Iterable[int]) -> dict[str, Any]:
    return {name: values[number] for (name, values), number in zip(factors.items(), numbers, strict=True)}


def pipeline_options(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """A combination of :data:`FACTORS` as the calls take it."""
    given = {name: value for name, value in chosen.items() if name not in ("bands", "window") and value is not None}
    if chosen["window"]:
        name, size = chosen["window"]
        given[name] = size
    extra = EXTRA if chosen["layout"] == "long" else wide_columns(chosen["bands"])
    given["extra_columns"] = [*extra, "record:platform"] if chosen["extra_columns"] else []
    given["quality"] = [Quality(**RULES[chosen["quality"]])] if chosen["quality"] else []
    if not chosen["scales"] or "A" not in chosen["bands"]:
        given.pop("scales", None)
    return given | {"time_column": "when"}


def name_of(chosen: Mapping[str, Any]) -> str:
    """A combination in short, for names of tests: what is not as in the first value of its factor."""
    return "-".join(
        f"{name}={'B,A,F' if name == 'bands' else 'A' if name == 'scales' else chosen[name]}"
        for name, values in FACTORS.items()
        if chosen[name] != values[0]
    ).replace(" ", "_")
