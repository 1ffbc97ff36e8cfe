"""The times of points or polygons: a column of timestamps, dates or ISO 8601 text as microseconds since 1970, UTC."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.geo.grids import Ints

NO_TIME = np.iinfo(np.int64).min
"""The time of a point or polygon that has none."""

FORMS = "timestamps, dates or ISO 8601 text such as 2023-06-30, 2023-06-30T10:30:00Z or 2023-06-30T10:30:00.5+02:00"

MOST = 1 << 61
"""Microseconds from 1970 to either side, some 73,000 years: differences of two such times fit into 64 bits."""

PER_UNIT = {"s": 1_000_000, "ms": 1000, "us": 1}
"""Microseconds of a timestamp's unit."""

ZONED = r"^\d{4}-?\d\d-?\d\d.*\d\s*([zZ]|[+-]\d\d(:?\d\d)?)$"
"""Text that ends in a zone."""

REWRITTEN = (
    (r"^(\d{4})(\d\d)(\d\d)([Tt ]|$)", r"\1-\2-\3\4"),
    (r"^(.{10})[Tt ](\d\d)(\d\d)(\d\d)", r"\1T\2:\3:\4"),
    (r"^(.{10})[Tt ](\d\d)(\d\d)(\D|$)", r"\1T\2:\3\4"),
    (r"^(.{10})t", r"\1T"),
    (r"(:\d\d)[.,](\d{1,6})\d*", r"\1.\2"),
    (r"\s*z$", "Z"),
    (r"\s+([Z+-][\d:]*)$", r"\1"),
)
"""Patterns and replacements that bring ISO 8601 to what Arrow parses: basic forms, lower case, commas, nanoseconds."""


def check_time_type(kind: pa.DataType, column: str, source: str = "the point table") -> None:
    """Refuse a column that cannot hold times.

    Raises
    ------
    InputError
        Names the column and its type.
    """
    if not _holds_times(kind):
        raise InputError(f"time_column {column!r} of {source} is {kind}; it has to hold {FORMS}")


def _holds_times(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return _holds_times(kind.value_type)
    return pa.types.is_timestamp(kind) or pa.types.is_date(kind) or pa.types.is_null(kind) or _is_text(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def point_times(points: pa.RecordBatch, column: str) -> Ints:
    """The times of a batch of points or polygons, or of a chunk, [n] int64: microseconds since 1970.

    A null is :data:`NO_TIME`. Times with a zone are converted to UTC, and those without are UTC; a date is its
    midnight. What is finer than a microsecond is rounded down.

    Parameters
    ----------
    points : RecordBatch
        With the column, and ``point_index`` or ``geometry_id``.
    column : str

    Raises
    ------
    InputError
        There is no such column, it has another type, or a text cannot be read; names the first row and its value.
    """
    if points.schema.get_field_index(column) < 0:
        what = "polygons" if _number_column(points) == "geometry_id" else "points"
        raise InputError(
            f"the {what} have no column {column!r}, which time_column names; they have {listed(points.schema.names)}. "
            "Keep it with columns=[...] where they are read"
        )
    values = points.column(column)
    check_time_type(values.type, column)
    if pa.types.is_run_end_encoded(values.type):
        values = pc.run_end_decode(values)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if _is_text(values.type):
        values = _of_text(pc.cast(values, pa.string()), points, column)
    return _of_values(values, points, column)


def _of_values(values: pa.Array, points: pa.RecordBatch, column: str) -> Ints:
    """Times of timestamps, dates or nulls."""
    if pa.types.is_null(values.type):
        return np.full(len(values), NO_TIME, dtype=np.int64)
    if pa.types.is_date(values.type):
        values = pc.cast(values, pa.timestamp("ms"))
    unit = values.type.unit
    numbers = pc.fill_null(pc.cast(values, pa.int64()), 0).to_numpy()
    missing = values.is_null().to_numpy(zero_copy_only=False)
    if unit == "ns":
        numbers = numbers // 1000
    else:
        most = MOST // PER_UNIT[unit]
        beyond = np.flatnonzero((numbers > most) | (numbers < -most))
        if len(beyond):
            raise _misfit(points, column, int(beyond[0]), f"{numbers[beyond[0]]} {unit} from 1970, which is too far")
        numbers = numbers * PER_UNIT[unit]
    return np.where(missing, NO_TIME, numbers)


def _of_text(text: pa.Array, points: pa.RecordBatch, column: str) -> pa.Array:
    """Text as timestamps; blank text is null."""
    values = pc.utf8_trim_whitespace(text)
    values = pc.if_else(pc.equal(values, ""), pa.scalar(None, pa.string()), values)
    parsed = _parsed(values)
    if parsed is None:
        for pattern, replacement in REWRITTEN:
            values = pc.replace_substring_regex(values, pattern, replacement)
        parsed = _parsed(values)
    if parsed is None:
        row = _first_misfit(values)
        raise _misfit(points, column, row, f"{text[row].as_py()!r}, which is not a date or time")
    return parsed


def _parsed(values: pa.Array) -> pa.Array | None:
    """Texts as Arrow parses them, with and without zones; None where one cannot be parsed."""
    zoned = pc.fill_null(pc.match_substring_regex(values, ZONED), False)
    try:
        if not pc.any(zoned, min_count=0).as_py():
            return pc.cast(values, pa.timestamp("us"))
        none = pa.scalar(None, pa.string())
        local = pc.cast(pc.if_else(zoned, none, values), pa.timestamp("us"))
        in_utc = pc.cast(pc.if_else(zoned, values, none), pa.timestamp("us", "UTC"))
        return pc.coalesce(local, pc.cast(in_utc, pa.timestamp("us")))
    except pa.ArrowInvalid:
        return None


def _first_misfit(values: pa.Array) -> int:
    low, high = 0, len(values)  # the first misfit is in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        if _parsed(values.slice(low, middle - low)) is None:
            high = middle
        else:
            low = middle
    return low


def _misfit(points: pa.RecordBatch, column: str, row: int, what: str) -> InputError:
    number = points.column(_number_column(points))[row].as_py()
    return InputError(f"row {number} of time_column {column!r} is {what}; it has to hold {FORMS}")


def _number_column(points: pa.RecordBatch) -> str:
    return "geometry_id" if "geometry_id" in points.schema.names else "point_index"
