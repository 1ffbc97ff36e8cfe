"""Columns of text as numbers and other types: what may be a number without a change, and what a value has to be.

Text files say no types. A column may become numbers only where that loses nothing: where each of its values, written
again as a number, gives the same text.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_beam.errors import InputError, listed

DECIMAL = re.compile(r"decimal(128|256)?\(\s*(\d+)\s*,\s*(-?\d+)\s*\)")
ZONED = re.compile(r"timestamp\[(s|ms|us|ns)\s*,\s*(?:tz=)?([^\]\s]+)\]")


class MisfitError(ValueError):
    """A text that is not a value of the wanted type.

    Attributes
    ----------
    row : int
        Its position in the array.
    value : str
    """

    def __init__(self, row: int, value: str):
        self.row = row
        self.value = value
        super().__init__(f"{value!r} at {row}")


class NumberForms:
    """In which form of writing numbers a column's values, seen batch by batch, are all written.

    The forms are integers of 64 bits, and floats as Python writes them (``1.0``, ``1e-05``). ``1`` beside ``2.5`` is of
    neither: as a number it would be ``1.0``.

    Parameters
    ----------
    decimal : str
        The decimal point.
    """

    def __init__(self, decimal: str = "."):
        self.decimal = decimal
        self._left = frozenset((INTEGER, FLOAT))
        self._seen = False

    def add(self, text: pa.Array) -> None:
        """Take more values, [n] of string; null ones do not count."""
        values = pc.drop_null(text)
        if self._left and len(values):
            self._seen = True
            self._left &= _forms_of(values, self.decimal, self._left)

    def keep_text(self) -> None:
        """The column has a quoted value, so it is text."""
        self._left = frozenset()

    @property
    def type(self) -> pa.DataType:
        """int64 or float64, where that changes no value; else string."""
        if not self._seen or not self._left:
            return pa.string()
        return pa.int64() if INTEGER in self._left else pa.float64()


INTEGER, FLOAT = "integer", "float"


def _forms_of(values: pa.Array, decimal: str, asked: frozenset[str]) -> frozenset[str]:
    """Those of the asked forms in which all values, none of them null, are written."""
    integers = _cast_or_none(values, pa.int64())
    if integers is not None and pc.cast(integers, pa.string()).equals(pc.cast(values, pa.string())):
        return asked & {INTEGER}
    pointed = _with_point(values, decimal)
    floats = _cast_or_none(pointed, pa.float64()) if pointed is not None and FLOAT in asked else None
    if pointed is None or floats is None or not np.isfinite(floats.to_numpy()).all():
        return frozenset()
    # Between these, and with a fraction, Arrow writes floats as Python does, and faster.
    size = np.abs(floats.to_numpy())
    alike = pa.array((size >= 1e-4) & (size < 1e15) & (size != np.trunc(size)))
    if not pc.all(pc.or_(pc.equal(pc.cast(floats, pa.string()), pointed), pc.invert(alike))).as_py():
        return frozenset()
    others = pc.invert(alike)
    written = pa.array(floats.filter(others).to_numpy().astype(str), type=pa.string())
    return frozenset((FLOAT,)) if written.equals(pc.cast(pointed.filter(others), pa.string())) else frozenset()


def _with_point(values: pa.Array, decimal: str) -> pa.Array | None:
    """The values with a decimal point, or None where one has a point that is none."""
    if decimal == ".":
        return values
    if pc.any(pc.match_substring(values, ".")).as_py():
        return None
    return pc.replace_substring(values, decimal, ".")


def _cast_or_none(values: pa.Array, kind: pa.DataType) -> pa.Array | None:
    try:
        return pc.cast(values, kind)
    except pa.ArrowInvalid:
        return None


def parsed_text(text: pa.Array, kind: pa.DataType, decimal: str = ".") -> pa.Array:
    """A column of text in a type; empty texts are null in all types but those of text.

    Parameters
    ----------
    text : [n] string
    decimal : str
        The decimal point of floats and decimals.

    Raises
    ------
    MisfitError
        A value is not one of the type; the first such.
    """
    if _is_text(kind):
        return pc.cast(text, kind)
    trimmed = pc.utf8_trim_whitespace(text)
    values = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)
    try:
        return _cast(values, kind, decimal)
    except pa.ArrowInvalid:
        row = _first_misfit(values, kind, decimal)
        raise MisfitError(row, text[row].as_py()) from None


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _cast(values: pa.Array, kind: pa.DataType, decimal: str) -> pa.Array:
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        pointed = _with_point(values, decimal)
        if pointed is None:
            raise pa.ArrowInvalid("a point that is not the decimal point")
        values = pointed
    return pc.cast(values, kind)


def _first_misfit(values: pa.Array, kind: pa.DataType, decimal: str) -> int:
    low, high = 0, len(values)  # the first misfit is in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            _cast(values.slice(low, middle - low), kind, decimal)
            low = middle
        except pa.ArrowInvalid:
            high = middle
    return low


def named_types(types: Mapping[str, Any]) -> dict[str, pa.DataType]:
    """Column types, given as Arrow types or by their names (``"string"``, ``"int64"``, ``"timestamp[us]"``).

    Raises
    ------
    InputError
        ``types`` is not a mapping, a name is not a type, or text cannot become that type.
    """
    if not isinstance(types, Mapping):
        raise InputError(
            f"column_types is {types!r}; give a dict of columns and their types, such as {{'plot': 'string'}}"
        )
    return {name: _named_type(name, kind) for name, kind in types.items()}


def _named_type(name: str, kind: Any) -> pa.DataType:
    try:
        found = kind if isinstance(kind, pa.DataType) else _type_of_name(str(kind))
        pc.cast(pa.array([], pa.string()), found)
    except (ValueError, pa.ArrowNotImplementedError) as error:
        known = (
            "string",
            "int64",
            "float64",
            "bool",
            "date32",
            "timestamp[us]",
            "timestamp[us, tz=UTC]",
            "decimal128(10, 2)",
        )
        raise InputError(
            f"column_types gives column {name!r} the type {kind}, which text cannot become; give an Arrow type or its "
            f"name, such as {listed(known)}"
        ) from error
    return found


def _type_of_name(name: str) -> pa.DataType:
    """The type that prints as this name; Arrow's aliases leave out those with a precision or a time zone."""
    if decimal := DECIMAL.fullmatch(name):
        precision, scale = (int(digits) for digits in decimal.groups()[1:])
        return (pa.decimal256 if decimal[1] == "256" else pa.decimal128)(precision, scale)
    if zoned := ZONED.fullmatch(name):
        return pa.timestamp(zoned[1], tz=zoned[2])
    return pa.type_for_alias(name)
