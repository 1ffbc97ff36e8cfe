"""Options of ready samples in tests: drawn, in pairs, and as the calls and the oracle take them; and rows compared."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from tests.support.oracle import Row, microseconds

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

COMPARED = (
    *("point_index", "record_id", "datetime", "band", "value", "raster_crs", "pixel_row", "pixel_col", "href"),
    *("status", "distance", "pixel_x", "pixel_y", "time_difference", "nodata", "scale", "offset", "candidate"),
)
"""Columns of the long layout whose values the oracle knows."""


@st.composite
def ready_options(draw: st.DrawFn, *, complete: bool) -> dict[str, Any]:
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
        found |= {"skip_invalid": True, "max_candidates": draw(st.sampled_from([1, 2, 3, 10]))}
    found["unscale"] = draw(st.booleans())
    if found["unscale"] and draw(st.booleans()):
        found["scales"] = {"B": (0.25, -7.0)}
    found["join"] = draw(st.sampled_from(["inner", "left"]))
    return {name: value for name, value in found.items() if value is not None}


def goes_by_time(options: Mapping[str, Any]) -> bool:
    return options["match"] in ("nearest", "before", "after") or bool({"tolerance", "limit"} & set(options))


def as_keywords(options: Mapping[str, Any], *, time_column: str) -> dict[str, Any]:
    """Options as ``sample_points`` takes them."""
    from rasteret_beam import Quality

    rules = [Quality(**rule) for rule in options.get("quality", ())]
    return dict(options) | {"quality": rules} | {"time_column": time_column}


def table_rows(table: pa.Table, columns: Sequence[str]) -> list[tuple]:
    """Rows of a sample table, in order, as values that can be compared."""
    return in_order((plain(row[name]) for name in columns) for row in table.to_pylist())


def oracle_rows(rows: Iterable[Row], columns: Sequence[str]) -> list[tuple]:
    """Rows of the oracle, likewise."""
    return in_order((plain(row.get(name)) for name in columns) for row in rows)


def in_order(rows: Iterable[Iterable[Any]]) -> list[tuple]:
    return sorted((tuple(row) for row in rows), key=repr)


def plain(value: Any) -> Any:
    """A value whose equality is that of the column: NaN is equal to itself, lengths are rounded to 1e-6."""
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else round(value, 6)
    if isinstance(value, list):
        return tuple(plain(each) for each in value)
    return microseconds(value) if hasattr(value, "tzinfo") else value
