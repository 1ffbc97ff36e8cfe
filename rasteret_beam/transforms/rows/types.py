"""Arrow schemas as Beam schemas, and back.

A Beam schema that is made here has the Arrow schema among its options, as an IPC message, so that rows can become the
batches again that they came from. Its id is a hash of the Arrow schema: each process makes the same one.
"""

import keyword
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any
from uuid import UUID, uuid5

import pyarrow as pa
from apache_beam.portability.api import schema_pb2 as pb
from apache_beam.typehints.row_type import RowTypeConstraint
from apache_beam.typehints.schema_registry import SCHEMA_REGISTRY
from apache_beam.typehints.schemas import (
    ParameterizedTimestampRepresentation,
    named_tuple_from_schema,
    schema_from_element_type,
    typing_to_runner_api,
)
from apache_beam.utils.timestamp import Timestamp

from rasteret_beam.errors import InputError, listed

ARROW_SCHEMA = "rasteret_beam:arrow_schema"
"""Option of a Beam schema: the Arrow schema of the batches, serialized."""

IDS = UUID("5a6b2c9e-2f1d-4f0a-9c2b-6f2f4d1f7a31")
"""Namespace of the ids of our schemas."""

MOST_DIGITS = 28
"""Of a decimal: Beam's coder rounds what has more."""

NANOS = 9

_Test = Callable[[pa.DataType], bool]

_ATOMIC: tuple[tuple[_Test, Any], ...] = (
    (pa.types.is_boolean, pb.BOOLEAN),
    (pa.types.is_int8, pb.INT16),  # Beam's coder of BYTE fails below 0
    (pa.types.is_uint8, pb.INT16),
    (pa.types.is_int16, pb.INT16),
    (pa.types.is_uint16, pb.INT32),
    (pa.types.is_int32, pb.INT32),
    (pa.types.is_uint32, pb.INT64),
    (pa.types.is_int64, pb.INT64),
    (pa.types.is_float16, pb.FLOAT),
    (pa.types.is_float32, pb.FLOAT),
    (pa.types.is_float64, pb.DOUBLE),
    (pa.types.is_string, pb.STRING),
    (pa.types.is_large_string, pb.STRING),
    (pa.types.is_string_view, pb.STRING),
    (pa.types.is_binary, pb.BYTES),
    (pa.types.is_large_binary, pb.BYTES),
    (pa.types.is_binary_view, pb.BYTES),
    (pa.types.is_fixed_size_binary, pb.BYTES),
)
_WAYS_OUT: tuple[tuple[_Test, str], ...] = (
    (pa.types.is_uint64, "cast it to int64 or decimal128(20, 0)"),
    (pa.types.is_null, "it has only nulls; cast it to its intended type"),
    (pa.types.is_time, "cast it to int64 or to text"),
    (pa.types.is_duration, "cast it to int64"),
)
_ARROW = {
    pb.BYTE: pa.int8(),
    pb.INT16: pa.int16(),
    pb.INT32: pa.int32(),
    pb.INT64: pa.int64(),
    pb.FLOAT: pa.float32(),
    pb.DOUBLE: pa.float64(),
    pb.STRING: pa.string(),
    pb.BOOLEAN: pa.bool_(),
    pb.BYTES: pa.binary(),
}
_LOGICAL = {
    "beam:logical_type:micros_instant:v1": pa.timestamp("us", "UTC"),
    "beam:logical_type:millis_instant:v1": pa.timestamp("ms", "UTC"),
    "beam:logical_type:timestamp:v1": pa.timestamp("ns", "UTC"),
    "beam:logical_type:date:v1": pa.date32(),
    "beam:logical_type:javasdk_date:v1": pa.date32(),
    "beam:logical_type:var_char:v1": pa.string(),
    "beam:logical_type:fixed_char:v1": pa.string(),
    "beam:logical_type:var_bytes:v1": pa.binary(),
    "beam:logical_type:fixed_bytes:v1": pa.binary(),
}
"""Arrow types of Beam's logical types; decimals are not among them, as their schema has no scale."""


def plain(kind: pa.DataType) -> pa.DataType:
    """The type of the values: the storage of an extension type, the values of a dictionary or of runs."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain(kind.storage_type)
    if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
        return plain(kind.value_type)
    return kind


def is_list(kind: pa.DataType) -> bool:
    """Whether it is a list of one of Arrow's layouts; a map is none."""
    tests = (
        pa.types.is_list,
        pa.types.is_large_list,
        pa.types.is_fixed_size_list,
        pa.types.is_list_view,
        pa.types.is_large_list_view,
    )
    return any(test(kind) for test in tests)


def row_name(name: str) -> str:
    """The name of a column in rows: as it is, if it can be that of an attribute of a NamedTuple.

    ``record:eo:cloud_cover`` is ``record_eo_cloud_cover``, as in BigQuery; ``2023`` is ``c2023``, ``_id`` is ``c_id``
    and ``class`` is ``class_``.
    """
    made = re.sub(r"\W", "_", name)
    if keyword.iskeyword(made):
        return f"{made}_"
    return made if made.isidentifier() and not made.startswith("_") else f"c{made}"


def row_names(names: Iterable[str], inside: str = "") -> list[str]:
    """The names of columns, or of the fields of a struct, in rows.

    Raises
    ------
    InputError
        Two columns have one name.
    """
    given = list(names)
    made = [row_name(name) for name in given]
    twice = [name for name, there in zip(given, made, strict=True) if made.count(there) > 1]
    if twice:
        place = f" of {inside!r}" if inside else ""
        raise InputError(
            f"columns {listed(twice)}{place} have one name in rows, {row_name(twice[0])!r}; rename or drop all but one"
        )
    return made


def row_schema(schema: pa.Schema, nanos: bool = False) -> pb.Schema:
    """The Beam schema of the rows of batches.

    Columns have the names of :func:`row_name`. Whole numbers of 8 bits are INT16 and unsigned ones the next larger
    type; timestamps are instants in microseconds (without a zone UTC), or, with ``nanos``, those in nanoseconds of
    Beam's type with that precision, which few of its transforms know; dictionaries have the type of their values, and
    extension types that of their storage.

    Raises
    ------
    InputError
        There is no column, a column has a type for which Beam has none, or two have one name in rows.
    """
    return _row_schema(schema.serialize().to_pybytes(), nanos)


@lru_cache(maxsize=256)
def _row_schema(serialized: bytes, nanos: bool) -> pb.Schema:
    schema = pa.ipc.read_schema(pa.py_buffer(serialized))
    if not len(schema):
        raise InputError("the schema has no columns; rows need at least one")
    made = _of_fields(list(schema), "", nanos)
    made.id = _id(serialized, nanos)
    made.options.append(bytes_option(ARROW_SCHEMA, serialized))
    return made


def _id(serialized: bytes, nanos: bool) -> str:
    return str(uuid5(IDS, f"{'nanos ' if nanos else ''}{serialized.hex()}"))


def bytes_option(name: str, value: bytes) -> pb.Option:
    """An option of a Beam schema."""
    held = pb.FieldValue(atomic_value=pb.AtomicTypeValue(bytes=value))
    return pb.Option(name=name, type=pb.FieldType(atomic_type=pb.BYTES), value=held)


def _of_fields(fields: Iterable[pa.Field], inside: str, nanos: bool) -> pb.Schema:
    fields = list(fields)
    names = row_names((field.name for field in fields), inside)
    pairs = zip(names, fields, strict=True)
    start = f"{inside}." if inside else ""
    made = [pb.Field(name=name, type=_of_field(start + field.name, field, nanos)) for name, field in pairs]
    return pb.Schema(fields=made)


def struct_schema(kind: pa.StructType, nanos: bool, inside: str = "") -> pb.Schema:
    """The Beam schema of the values of a struct."""
    made = _of_fields([kind.field(number) for number in range(kind.num_fields)], inside, nanos)
    made.id = _id(pa.schema([pa.field("", kind)]).serialize().to_pybytes(), nanos)
    return made


def _of_field(path: str, field: pa.Field, nanos: bool) -> pb.FieldType:
    made = _of_type(path, plain(field.type), nanos)
    made.nullable = field.nullable
    return made


def _of_type(path: str, kind: pa.DataType, nanos: bool) -> pb.FieldType:
    atomic = next((found for test, found in _ATOMIC if test(kind)), None)
    if atomic is not None:
        return pb.FieldType(atomic_type=atomic)
    if pa.types.is_timestamp(kind):
        return _nanos() if nanos and kind.unit == "ns" else typing_to_runner_api(Timestamp)
    if pa.types.is_date(kind):
        return _logical("beam:logical_type:date:v1", pb.INT64)
    if pa.types.is_decimal(kind):
        return _logical("beam:logical_type:decimal:v1", pb.BYTES)
    if is_list(kind):
        return pb.FieldType(array_type=pb.ArrayType(element_type=_of_field(f"{path}[]", kind.value_field, nanos)))
    if pa.types.is_map(kind):
        key, value = (_of_field(f"{path}[]", each, nanos) for each in (kind.key_field, kind.item_field))
        return pb.FieldType(map_type=pb.MapType(key_type=key, value_type=value))
    if pa.types.is_struct(kind) and kind.num_fields:
        return pb.FieldType(row_type=pb.RowType(schema=struct_schema(kind, nanos, path)))
    hint = next((way for test, way in _WAYS_OUT if test(kind)), "cast it to another type")
    raise InputError(
        f"column {path!r} is {kind}, for which Beam's rows have no type; {hint}, or leave it out with columns=[...]"
    )


def _logical(urn: str, atomic: Any) -> pb.FieldType:
    held = pb.FieldType(atomic_type=atomic)
    return pb.FieldType(logical_type=pb.LogicalType(urn=urn, representation=held))


def _nanos() -> pb.FieldType:
    precision = pb.FieldValue(atomic_value=pb.AtomicTypeValue(int32=NANOS))
    return pb.FieldType(
        logical_type=pb.LogicalType(
            urn="beam:logical_type:timestamp:v1",
            representation=typing_to_runner_api(ParameterizedTimestampRepresentation),
            argument_type=pb.FieldType(atomic_type=pb.INT32),
            argument=precision,
        )
    )


def row_class(schema: pb.Schema) -> Any:
    """The NamedTuple that Beam makes for a schema: the same class as behind a shuffle."""
    return named_tuple_from_schema(schema)


@lru_cache(maxsize=256)
def struct_class(kind: pa.StructType, nanos: bool) -> Any:
    """The class of the values of a struct in rows."""
    return row_class(struct_schema(kind, nanos))


def beam_schema(element_type: Any) -> pb.Schema | None:
    """The schema of the elements of a PCollection, with its options; None where they have none."""
    row_type = element_type
    if not isinstance(row_type, RowTypeConstraint):
        row_type = RowTypeConstraint.from_user_type(element_type) if isinstance(element_type, type) else None
    if row_type is None:
        return None
    known = SCHEMA_REGISTRY.get_schema_by_id(row_type.schema_id) if row_type.schema_id else None
    return known if known is not None else schema_from_element_type(element_type)


def option_of(schema: pb.Schema, name: str) -> bytes | None:
    """The value of an option of a Beam schema that is bytes."""
    found = (option.value.atomic_value.bytes for option in schema.options if option.name == name)
    return next(found, None)


def arrow_schema(schema: pb.Schema) -> pa.Schema:
    """The Arrow schema of rows: that of the batches they came from, if it is known, else one made of the Beam schema.

    Raises
    ------
    InputError
        A field has a type for which there is no Arrow type.
    """
    found = option_of(schema, ARROW_SCHEMA)
    if found:
        return pa.ipc.read_schema(pa.py_buffer(found))
    return pa.schema([_arrow_field(field.name, field.name, field.type) for field in schema.fields])


def _arrow_field(path: str, name: str, kind: pb.FieldType) -> pa.Field:
    return pa.field(name, _arrow_type(path, kind), nullable=kind.nullable)


def _arrow_type(path: str, kind: pb.FieldType) -> pa.DataType:
    which = kind.WhichOneof("type_info")
    if which == "atomic_type" and kind.atomic_type in _ARROW:
        return _ARROW[kind.atomic_type]
    if which in ("array_type", "iterable_type"):
        return pa.list_(_arrow_field(f"{path}[]", "item", getattr(kind, which).element_type))
    if which == "map_type":
        key, value = kind.map_type.key_type, kind.map_type.value_type
        return pa.map_(_arrow_type(f"{path}[]", key), _arrow_field(f"{path}[]", "value", value))
    if which == "row_type":
        return pa.struct(
            [_arrow_field(f"{path}.{one.name}", one.name, one.type) for one in kind.row_type.schema.fields]
        )
    urn = kind.logical_type.urn if which == "logical_type" else which
    if urn in _LOGICAL:
        return _LOGICAL[urn]
    why = ", whose scale is unknown" if "decimal" in str(urn) else ""
    raise InputError(f"field {path!r} of the rows has Beam's type {urn}{why}, for which no Arrow type is known")
