"""Convert BigQuery fields to the Arrow schema of the Storage Read API."""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.bigquery.schema import SAME_TYPE, Field
from rasteret_beam.kernels.tables.point_geometry import GEOGRAPHY

_ARROW = {
    "INTEGER": pa.int64(),
    "FLOAT": pa.float64(),
    "BOOLEAN": pa.bool_(),
    "STRING": pa.string(),
    "JSON": pa.string(),
    "GEOGRAPHY": pa.string(),
    "BYTES": pa.binary(),
    "DATE": pa.date32(),
    "TIME": pa.time64("us"),
    "DATETIME": pa.timestamp("us"),
    "TIMESTAMP": pa.timestamp("us", "UTC"),
}
_DIGITS = {"NUMERIC": (pa.decimal128, 38, 9), "BIGNUMERIC": (pa.decimal256, 76, 38)}
"""Type, and default precision and scale of a field."""

_GEOGRAPHY = {"ARROW:extension:name": GEOGRAPHY, "ARROW:extension:metadata": '{"encoding": "WKT"}'}


def arrow_schema(fields: Sequence[Field]) -> pa.Schema:
    """The Arrow schema of a table's fields.

    NUMERIC is decimal128, BIGNUMERIC decimal256, TIMESTAMP a timestamp in UTC, DATETIME one without a time zone;
    GEOGRAPHY is WKT and JSON is text, both as strings; REPEATED fields are lists, records structs. Unknown types become
    null, which :func:`check_readable` refuses.
    """
    return pa.schema([_arrow_field(field) for field in fields])


def _arrow_field(field: Field) -> pa.Field:
    kind = _arrow_type(field)
    if field.get("mode") == "REPEATED":
        return pa.field(field["name"], pa.list_(kind))
    return pa.field(field["name"], kind, metadata=_GEOGRAPHY if field["type"] == "GEOGRAPHY" else None)


def _arrow_type(field: Field) -> pa.DataType:
    kind = str(SAME_TYPE.get(field["type"], field["type"]))
    if kind == "RECORD":
        return pa.struct([_arrow_field(one) for one in field["fields"]])
    if kind in _DIGITS:
        make, digits, scale = _DIGITS[kind]
        given = field.get("precision")
        return make(int(given), int(field.get("scale") or 0)) if given else make(digits, scale)
    return _ARROW.get(kind, pa.null())


def check_readable(fields: Sequence[Field], needed: Sequence[str], source: str) -> None:
    """Refuse needed columns with an unsupported type (INTERVAL, RANGE) at any depth.

    Raises
    ------
    InputError
    """
    wanted = set(needed)
    found = [text for field in fields if field["name"] in wanted for text in _unreadable(field)]
    if found:
        raise InputError(
            f"column(s) {listed(found)} of {source} cannot be read; cast them in a query, or leave them out with "
            "columns=[...]"
        )


def _unreadable(field: Field, inside: str = "") -> Iterator[str]:
    name = inside + field["name"]
    if pa.types.is_null(_arrow_type(field)):
        yield f"{name} ({field['type']})"
    for one in field.get("fields", ()):
        yield from _unreadable(one, f"{name}.")


def in_schema(batch: pa.RecordBatch, schema: pa.Schema, source: str) -> pa.RecordBatch:
    """The columns of a batch in the order and with the types of a schema.

    Raises
    ------
    InputError
        A column is missing, or has values that do not fit the type.
    """
    came = set(batch.schema.names)
    missing = [name for name in schema.names if name not in came]
    if missing:
        raise InputError(f"{source} was sent without column(s) {listed(missing)}; it has {listed(batch.schema.names)}")
    return pa.RecordBatch.from_arrays([_as_type(batch[one.name], one, source) for one in schema], schema=schema)


def _as_type(column: pa.Array, field: pa.Field, source: str) -> pa.Array:
    if column.type == field.type:
        return column
    try:
        return pc.cast(column, field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"column {field.name!r} of {source} was sent as {column.type}, not as {field.type}: {error}"
        ) from error
