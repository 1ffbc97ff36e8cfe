"""Arrow columns as the Python values that rows hold, and back, a column at a time."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.utils.timestamp import Timestamp

from rasteret_beam.errors import InputError
from rasteret_beam.transforms.rows.types import MOST_DIGITS, NANOS, is_list, plain, row_names, struct_class

Maker: TypeAlias = Callable[[pa.Array, bool], list[Any]]
"""From a column, and whether times may have nanoseconds, to Python values."""

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def python_values(column: pa.Array, nanos: bool = False) -> list[Any]:
    """The values of a column as rows hold them; structs are NamedTuples, timestamps Beam's, and null is None.

    Raises
    ------
    InputError
        A value has no Python type: a date after the year 9999, a map with a key twice, a decimal of more than 28
        digits, or without ``nanos`` a time that is not a whole number of microseconds.
    """
    while isinstance(column, pa.ExtensionArray):
        column = column.storage
    kind = column.type
    if pa.types.is_run_end_encoded(kind):
        return python_values(pc.run_end_decode(column), nanos)
    if pa.types.is_dictionary(kind):
        return _taken(python_values(column.dictionary, nanos), column.indices)
    for test, make in _MAKERS:
        if test(kind):
            return make(column, nanos)
    raise AssertionError(kind)


def _taken(values: list[Any], indices: pa.Array) -> list[Any]:
    places = pc.fill_null(indices.cast(pa.int64()), len(values)).to_numpy().tolist()
    values = [*values, None]
    return [values[place] for place in places]


def _numbers(column: pa.Array, nanos: bool) -> list[Any]:
    if not column.null_count:
        made: list[Any] = column.to_numpy(zero_copy_only=False).tolist()
        return made
    filled = pc.fill_null(column, pa.scalar(0, pa.int8()).cast(column.type)).to_numpy(zero_copy_only=False).tolist()
    return _with_nulls(filled, column)


def _with_nulls(values: list[Any], column: pa.Array) -> list[Any]:
    for place in np.flatnonzero(column.is_null().to_numpy(zero_copy_only=False)).tolist():
        values[place] = None
    return values


def _each_once(make: Maker) -> Maker:
    """Make each distinct value once: names of records and bands, and dates, repeat."""

    def made(column: pa.Array, nanos: bool) -> list[Any]:
        encoded = column.dictionary_encode()
        return _taken(make(encoded.dictionary, nanos), encoded.indices)

    return made


def _whole(column: pa.Array, nanos: bool) -> list[Any]:
    made: list[Any] = column.to_pylist()
    return made


def _times(column: pa.Array, nanos: bool) -> list[Any]:
    ticks = column.cast(pa.int64()).to_numpy().tolist()
    per = _PER_SECOND[column.type.unit]
    if per == 10**NANOS and not nanos:
        if any(tick % 1000 for tick in ticks):
            raise InputError(
                'a time has nanoseconds, and Beam\'s instants have microseconds; give times="nanos" or "text"'
            )
        return [Timestamp(micros=tick // 1000) for tick in ticks]
    if per == 10**NANOS:
        return [Timestamp(tick // per, tick % per, NANOS) for tick in ticks]
    return [Timestamp(micros=tick * (10**6 // per)) for tick in ticks]


def _dates(column: pa.Array, nanos: bool) -> list[Any]:
    try:
        return _whole(column, nanos)
    except (OverflowError, ValueError) as error:
        raise InputError("a date is outside the years 1 to 9999, which are those of Python's dates") from error


def _decimals(column: pa.Array, nanos: bool) -> list[Any]:
    if column.type.precision > MOST_DIGITS:
        most = pa.decimal256(MOST_DIGITS, column.type.scale)
        try:
            column.cast(most)
        except pa.ArrowInvalid as error:
            raise InputError(f"a decimal has more than {MOST_DIGITS} digits, which Beam's rows would round") from error
    return _whole(column, nanos)


def _slices(column: pa.Array, nanos: bool, make: Callable[[list[Any]], Any] = lambda part: part) -> list[Any]:
    offsets = column.offsets.to_numpy()
    first = int(offsets[0]) if len(offsets) else 0
    ends = (offsets - first).tolist()
    values = python_values(column.values.slice(first, ends[-1] if ends else 0), nanos)
    made = [make(values[start:end]) for start, end in pairwise(ends)]
    return _with_nulls(made, column) if column.null_count else made


def _lists(column: pa.Array, nanos: bool) -> list[Any]:
    if _is_view(column.type):
        values = python_values(column.values, nanos)
        places = zip(column.offsets.to_pylist(), column.sizes.to_pylist(), strict=False)
        return _with_nulls([values[start : start + size] for start, size in places], column)
    if not (pa.types.is_list(column.type) or pa.types.is_large_list(column.type)):
        column = column.cast(pa.large_list(column.type.value_field))
    return _slices(column, nanos)


def _is_view(kind: pa.DataType) -> bool:
    return pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind)


def _maps(column: pa.Array, nanos: bool) -> list[Any]:
    kind = column.type
    entries = pa.struct([kind.key_field.with_name("key"), kind.item_field.with_name("value")])
    return _slices(column.cast(pa.list_(entries)), nanos, _as_dict)


def _as_dict(pairs: list[Any]) -> dict[Any, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise InputError("a map has a key twice, which Beam's maps cannot hold")
    return made


def _structs(column: pa.Array, nanos: bool) -> list[Any]:
    kind = column.type
    parts = [python_values(column.field(number), nanos) for number in range(kind.num_fields)]
    made: list[Any] = [*map(struct_class(kind, nanos)._make, zip(*parts, strict=True))]
    return _with_nulls(made, column) if column.null_count else made


_MAKERS: tuple[tuple[Callable[[pa.DataType], bool], Maker], ...] = (
    (pa.types.is_boolean, _whole),
    (lambda kind: pa.types.is_integer(kind) or pa.types.is_floating(kind), _numbers),
    (lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind), _each_once(_whole)),
    (pa.types.is_timestamp, _each_once(_times)),
    (pa.types.is_date, _each_once(_dates)),
    (pa.types.is_decimal, _decimals),
    (is_list, _lists),
    (pa.types.is_map, _maps),
    (pa.types.is_struct, _structs),
    (lambda kind: True, _whole),
)


def with_text_times(schema: pa.Schema) -> pa.Schema:
    """A schema with text in place of times and dates."""
    fields = [field.with_type(pa.string()) if _is_time(field.type) else field for field in schema]
    return pa.schema(fields, metadata=schema.metadata)


def text_times(column: pa.Array) -> pa.Array:
    """A column of times or dates as ISO 8601 text, in UTC if it has a zone; other columns as they are."""
    kind = plain(column.type)
    if not _is_time(column.type):
        return column
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        kind = pa.timestamp(kind.unit, "UTC")
    days = pa.types.is_date(kind)
    return pc.replace_substring(column.cast(pa.date32() if days else kind).cast(pa.string()), " ", "T")


def _is_time(kind: pa.DataType) -> bool:
    return pa.types.is_timestamp(plain(kind)) or pa.types.is_date(plain(kind))


def array_of(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Values of rows as a column of a type; the inverse of :func:`python_values`.

    Timestamps may also be datetimes, structs dicts or objects with attributes, and maps lists of pairs.

    Raises
    ------
    pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError, ValueError
        A value does not fit the type.
    """
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, array_of(values, kind.storage_type))
    if pa.types.is_run_end_encoded(kind):
        return pc.run_end_encode(array_of(values, kind.value_type), kind.run_end_type)
    if pa.types.is_dictionary(kind):
        return _dictionary(values, kind)
    for test, build in _BUILDERS:
        if test(kind):
            return build(values, kind)
    return pa.array(values, type=kind)


def _dictionary(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    encoded = array_of(values, plain(kind.value_type)).dictionary_encode()
    words = encoded.dictionary
    if words.type != kind.value_type:
        words = array_of(words.to_pylist(), kind.value_type)
    return pa.DictionaryArray.from_arrays(encoded.indices.cast(kind.index_type), words, ordered=kind.ordered)


def _integers(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if any(issubclass(one, float | np.floating) for one in set(map(type, values))):
        # Arrow would truncate fractions of single numbers, but not of an array.
        return pc.cast(pa.array(values, pa.float64()), kind)
    return pa.array(values, type=kind)


def _halves(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    missing = np.fromiter((value is None for value in values), bool, len(values))
    numbers = np.array([0 if value is None else value for value in values], np.float16)
    return pa.array(numbers, type=kind, mask=missing)


def _instants(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if any(isinstance(value, str) for value in values):
        return pa.array(values, pa.string()).cast(kind)
    if not any(isinstance(value, Timestamp) for value in values):
        return pa.array(values, type=kind)
    per = 10**9 // _PER_SECOND[kind.unit]
    ticks = [None if value is None else _ticks(value, per, kind) for value in values]
    return pa.array(ticks, pa.int64()).cast(kind)


def _days(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if any(isinstance(value, str) for value in values):
        return pa.array(values, pa.string()).cast(kind)
    return pa.array(values, type=kind)


def _ticks(value: Any, per: int, kind: pa.DataType) -> int:
    nanos = value.nanos if isinstance(value, Timestamp) else Timestamp.of(value).nanos
    made, rest = divmod(nanos, per)
    if rest:
        raise ValueError(f"{value} does not fit {kind} without loss")
    return int(made)


def _entries(values: Sequence[Any]) -> tuple[pa.Array, list[Any], pa.Array]:
    """Offsets, inner values, and which lists are null."""
    lengths = np.fromiter((0 if value is None else len(value) for value in values), np.int64, len(values))
    inner = [one for value in values if value is not None for one in value]
    return pa.array(np.concatenate([[0], np.cumsum(lengths)])), inner, _missing(values)


def _missing(values: Iterable[Any]) -> pa.Array:
    return pa.array([value is None for value in values], pa.bool_())


def _list_array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        return _fixed_lists(values, kind)
    offsets, inner, missing = _entries(values)
    children = array_of(inner, kind.value_type)
    if pa.types.is_large_list(kind):
        return pa.LargeListArray.from_arrays(offsets, children, type=kind, mask=missing)
    if pa.types.is_list(kind):
        return pa.ListArray.from_arrays(offsets.cast(pa.int32()), children, type=kind, mask=missing)
    whole = pa.ListViewArray if pa.types.is_list_view(kind) else pa.LargeListViewArray
    ends = offsets.cast(pa.int32() if whole is pa.ListViewArray else pa.int64()).to_numpy()
    return whole.from_arrays(ends[:-1], np.diff(ends), children, type=kind, mask=missing)


def _fixed_lists(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    size, nothing = kind.list_size, [None] * kind.list_size
    wrong = next((value for value in values if value is not None and len(value) != size), None)
    if wrong is not None:
        raise ValueError(f"a list has {len(wrong)} values, not {size}")
    inner = [one for value in values for one in (nothing if value is None else value)]
    return pa.FixedSizeListArray.from_arrays(array_of(inner, kind.value_type), type=kind, mask=_missing(values))


def _map_array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    pairs = [[*value.items()] if isinstance(value, Mapping) else value for value in values]
    offsets, inner, missing = _entries(pairs)
    keys, items = (
        array_of([key for key, _ in inner], kind.key_type),
        array_of([item for _, item in inner], kind.item_type),
    )
    return pa.MapArray.from_arrays(offsets.cast(pa.int32()), keys, items, type=kind, mask=missing)


def _struct_array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    fields = [kind.field(number) for number in range(kind.num_fields)]
    children = [
        array_of(column, field.type) for column, field in zip(field_values(values, fields), fields, strict=True)
    ]
    return pa.StructArray.from_arrays(children, fields=fields, mask=_missing(values))


_BUILDERS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Sequence[Any], pa.DataType], pa.Array]], ...] = (
    (pa.types.is_integer, _integers),
    (pa.types.is_float16, _halves),
    (pa.types.is_timestamp, _instants),
    (pa.types.is_date, _days),
    (is_list, _list_array),
    (pa.types.is_map, _map_array),
    (pa.types.is_struct, _struct_array),
)


def field_values(rows: Sequence[Any], fields: Sequence[pa.Field]) -> list[Sequence[Any]]:
    """The columns of rows: dicts, in which a missing key is null, or objects with attributes; None is all null.

    Raises
    ------
    AttributeError
        A row lacks a column.
    """
    first = next((row for row in rows if row is not None), None)
    names = row_names(field.name for field in fields)
    if isinstance(first, tuple) and [*getattr(first, "_fields", ())] == names:
        nothing = (None,) * len(names)
        whole = [nothing if row is None else row for row in rows]
        if all(len(row) == len(names) and type(row) is type(first) for row in rows if row is not None):
            return list(zip(*whole, strict=True))
    return [
        [None if row is None else value_of(row, field.name, name) for row in rows]
        for field, name in zip(fields, names, strict=True)
    ]


def value_of(row: Any, name: str, in_rows: str) -> Any:
    """A value of a row, by the name of the column or by its name in rows."""
    if isinstance(row, Mapping):
        return row.get(name, row.get(in_rows))
    if name != in_rows and hasattr(row, name):
        return getattr(row, name)
    return getattr(row, in_rows)
