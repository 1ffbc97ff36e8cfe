"""Convert Arrow schemas to the types that Iceberg has, and fit rows to the columns of a table.

Source: Apache Iceberg, table specification, "Schemas and Data Types" and "Schema Evolution".
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from rasteret_beam.columns import RECORD
from rasteret_beam.errors import InputError, listed

UTC_COLUMN = "datetime"
"""Column of samples and zonal statistics that is in UTC though its Arrow type has no time zone."""

FIELD_ID = b"PARQUET:field_id"
"""Key of a field's metadata under which pyarrow reads and writes the id of a Parquet column."""

MOST_DIGITS = 38
UTC_NAMES = ("UTC", "+00:00", "Etc/UTC", "Z")

_SAME = (
    pa.types.is_boolean,
    pa.types.is_int32,
    pa.types.is_int64,
    pa.types.is_float32,
    pa.types.is_float64,
    pa.types.is_string,
    pa.types.is_binary,
    pa.types.is_fixed_size_binary,
    pa.types.is_date32,
)
_OTHERS: tuple[tuple[Callable[[pa.DataType], bool], pa.DataType], ...] = (
    (pa.types.is_uint32, pa.int64()),
    (lambda data: pa.types.is_integer(data) and data.bit_width <= 16, pa.int32()),
    (pa.types.is_float16, pa.float32()),
    (lambda data: pa.types.is_large_string(data) or pa.types.is_string_view(data), pa.string()),
    (lambda data: pa.types.is_large_binary(data) or pa.types.is_binary_view(data), pa.binary()),
    (pa.types.is_date64, pa.date32()),
    (pa.types.is_time, pa.time64("us")),
)
_WAYS_OUT = {
    pa.types.is_uint64: "cast it to int64 or decimal128(20, 0) (sampled values: use value_type='float64')",
    pa.types.is_null: "it has only nulls; cast it to its intended type",
    pa.types.is_duration: "cast it to int64",
    pa.types.is_decimal: f"Iceberg keeps {MOST_DIGITS} digits, none of them left out before the point",
}


def storable_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of rows as they are stored in an Iceberg table.

    Dictionaries become their values, unsigned and short integers the next longer type, half floats single ones,
    timestamps microseconds (in UTC where they have a zone), and lists of every kind lists.

    Raises
    ------
    InputError
        A column has a type that Iceberg has not, or two columns differ in case alone.
    """
    folded = [name.lower() for name in schema.names]
    twice = [name for name, low in zip(schema.names, folded, strict=True) if folded.count(low) > 1]
    if twice:
        raise InputError(
            f"columns {listed(twice)} have one name or differ only in case, which many readers of Iceberg tables "
            "ignore; rename all but one"
        )
    return pa.schema([_storable_field(field.name, field) for field in schema])


def _storable_field(path: str, field: pa.Field) -> pa.Field:
    return pa.field(field.name, _storable(path, field.type), field.nullable)


def _storable(path: str, data: pa.DataType) -> pa.DataType:
    if isinstance(data, pa.BaseExtensionType):
        return _storable(path, data.storage_type)
    if pa.types.is_dictionary(data) or pa.types.is_run_end_encoded(data):
        return _storable(path, data.value_type)
    nested = _nested(path, data)
    if nested is not None:
        return nested
    if pa.types.is_timestamp(data):
        return pa.timestamp("us", "UTC" if data.tz else None)
    if pa.types.is_decimal(data) and 0 <= data.scale <= data.precision <= MOST_DIGITS:
        return pa.decimal128(data.precision, data.scale)
    if any(is_it(data) for is_it in _SAME):
        return data
    found = next((other for is_it, other in _OTHERS if is_it(data)), None)
    if found is None:
        hint = next((way for is_it, way in _WAYS_OUT.items() if is_it(data)), "cast it to another type")
        raise InputError(f"column {path!r} is {data}, for which Iceberg has no type: {hint}, or {_left_out(path)}")
    return found


def _nested(path: str, data: pa.DataType) -> pa.DataType | None:
    if pa.types.is_map(data):
        return pa.map_(_storable(f"{path}.key", data.key_type), _storable(f"{path}.value", data.item_type))
    if pa.types.is_struct(data) and data.num_fields:
        return pa.struct([_storable_field(f"{path}.{one.name}", one) for one in data])
    if _is_list(data):
        return pa.list_(pa.field("element", _storable(f"{path}.element", data.value_type)))
    return None


def _is_list(data: pa.DataType) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    views = (pa.types.is_list_view, pa.types.is_large_list_view)
    return any(is_it(data) for is_it in (*kinds, *views))


def _left_out(path: str) -> str:
    """How to do without a column."""
    return "leave it out of extra_columns" if path.startswith(RECORD) else "leave it out with columns=[...]"


@dataclass(frozen=True)
class Fit:
    """How rows fit a table.

    Attributes
    ----------
    schema : Schema
        Of the rows, with the table's types.
    new : list of Field
        Columns that the table lacks.
    wrong : list of str
        What does not fit, one text each.
    """

    schema: pa.Schema
    new: Sequence[pa.Field]
    wrong: Sequence[str]


def fit(rows: pa.Schema, table: pa.Schema) -> Fit:
    """Compare rows with a table, both in the types of :func:`storable_schema`; order does not matter.

    A column takes a wider type of the table: long for int, double for float, more digits. ``datetime`` is in UTC, so
    that a timestamp with a time zone takes it. Columns that the rows lack are null, if the table allows it.
    """
    theirs = {field.name: field for field in table}
    fields, new, wrong = [], [], []
    for field in rows:
        other = theirs.pop(field.name, None)
        if other is None:
            new.append(field)
        elif not _widens(field, other.type):
            wrong.append(f"{field.name} is {other.type} in the table, {field.type} in the rows")
        fields.append(field if other is None else other)
    missing = [field for field in theirs.values() if not field.nullable]
    wrong += [f"{field.name} ({field.type}) is required in the table, but the rows lack it" for field in missing]
    return Fit(pa.schema(fields), new, wrong)


def _widens(field: pa.Field, to: pa.DataType) -> bool:
    data = field.type
    if data.equals(to) or (data, to) in ((pa.int32(), pa.int64()), (pa.float32(), pa.float64())):
        return True
    if pa.types.is_decimal(data) and pa.types.is_decimal(to):
        return bool(data.scale == to.scale and data.precision <= to.precision)
    if pa.types.is_timestamp(data) and pa.types.is_timestamp(to):
        return field.name == UTC_COLUMN and bool(to.tz)
    return _same_nested(data, to)


def _same_nested(data: pa.DataType, to: pa.DataType) -> bool:
    """Whether nested types have the same structure, apart from names of elements and what may be null."""
    if pa.types.is_list(data) and pa.types.is_list(to):
        return _widens(data.value_field, to.value_type)
    if pa.types.is_map(data) and pa.types.is_map(to):
        return bool(data.key_type.equals(to.key_type)) and _widens(data.item_field, to.item_type)
    if pa.types.is_struct(data) and pa.types.is_struct(to):
        return [one.name for one in data] == [one.name for one in to] and all(
            _widens(one, other.type) for one, other in zip(data, to, strict=True)
        )
    return False


def with_field_ids(schema: pa.Schema, id_of: Callable[[str], int]) -> pa.Schema:
    """A schema whose fields, nested ones too, have the ids of Iceberg columns in their metadata.

    Parameters
    ----------
    schema : Schema
    id_of : function
        Gives the id of a path: ``a``, ``a.element``, ``a.key``, ``a.value`` or ``a.inner``.
    """
    return pa.schema([_with_id(field.name, field, id_of) for field in schema])


def _with_id(path: str, field: pa.Field, id_of: Callable[[str], int]) -> pa.Field:
    data, own = field.type, id_of(path)
    if pa.types.is_list(data):
        data = pa.list_(_with_id(f"{path}.element", data.value_field.with_name("element"), id_of))
    elif pa.types.is_map(data):
        key = _with_id(f"{path}.key", data.key_field.with_name("key"), id_of)
        data = pa.map_(key, _with_id(f"{path}.value", data.item_field.with_name("value"), id_of))
    elif pa.types.is_struct(data):
        data = pa.struct([_with_id(f"{path}.{one.name}", one, id_of) for one in data])
    return pa.field(field.name, data, field.nullable, {FIELD_ID: str(own).encode()})


def field_ids(schema: pa.Schema) -> Iterator[tuple[str, int]]:
    """The ids of the top columns of :func:`with_field_ids`, by name."""
    for field in schema:
        yield field.name, int(field.metadata[FIELD_ID])


def storable(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """A batch of rows in a schema of :func:`storable_schema` or :func:`fit`; it shares most of its memory.

    Raises
    ------
    InputError
        A value would be truncated (nanoseconds), or a column that the table requires has a null.
    """
    columns = [_storable_column(field, column) for field, column in zip(schema, batch.columns, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _storable_column(field: pa.Field, column: pa.Array) -> pa.Array:
    while isinstance(column, pa.ExtensionArray):
        column = column.storage
    if field.type != column.type:
        try:
            column = column.cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(
                f"column {field.name!r} cannot be written to Iceberg as {field.type}: {error}; cast it before, or "
                f"{_left_out(field.name)}"
            ) from error
    if not field.nullable and column.null_count:
        raise InputError(
            f"column {field.name!r} has {column.null_count} null(s), but the table requires values; fill them before, "
            "or make the column optional in the table"
        )
    return column
