"""Convert Arrow schemas to BigQuery schemas, check column names and types, and compare tables.

A BigQuery schema is a list of fields as in the REST API: dicts of ``name``, ``type``, ``mode`` and, for records,
``fields``. This module does not need Google's libraries.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rasteret_beam.columns import RECORD
from rasteret_beam.errors import InputError, listed
from rasteret_beam.statistics import COUNTS, NAMES, percentile_of

Field = Mapping[str, Any]

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,299}")
RESERVED_STARTS = (
    "_TABLE_",
    "_FILE_",
    "_PARTITION",
    "_ROW_TIMESTAMP",
    "__ROOT__",
    "_COLIDENTIFIER",
    "_CHANGE_SEQUENCE_NUMBER",
    "_CHANGE_TYPE",
    "_CHANGE_TIMESTAMP",
)
SAME_TYPE = {"INT64": "INTEGER", "FLOAT64": "FLOAT", "BOOL": "BOOLEAN", "STRUCT": "RECORD"}
PARTITION_TYPES = ("DATE", "DATETIME", "TIMESTAMP")
CLUSTER_TYPES = (*PARTITION_TYPES, "STRING", "INTEGER", "BOOLEAN", "NUMERIC", "BIGNUMERIC")
MOST_CLUSTERED = 4
UTC_COLUMN = "datetime"
"""Column of the samples that is in UTC though its Arrow type has no time zone."""

NAN_FOR_NULL = frozenset({"values", *NAMES})
"""List columns, beside those of percentiles, in which null means a missing band, or that no pixel is valid; BigQuery
arrays cannot hold null, so it becomes NaN."""

DECIMAL_PERCENTILE = re.compile(r"(.*_)?percentile_[0-9]+\.[0-9]+")
"""Name of a percentile, perhaps of a band."""

_SIMPLE: tuple[tuple[Any, str | None], ...] = (
    (pa.types.is_boolean, "BOOLEAN"),
    (pa.types.is_uint64, None),
    (pa.types.is_integer, "INTEGER"),
    (pa.types.is_floating, "FLOAT"),
    (pa.types.is_string, "STRING"),
    (pa.types.is_large_string, "STRING"),
    (pa.types.is_binary, "BYTES"),
    (pa.types.is_large_binary, "BYTES"),
    (pa.types.is_fixed_size_binary, "BYTES"),
    (pa.types.is_date, "DATE"),
    (pa.types.is_time, "TIME"),
)
_WAYS_OUT = {
    pa.types.is_uint64: "cast it to int64 or decimal128(20, 0) (sampled values: use value_type='float64')",
    pa.types.is_null: "it has only nulls; cast it to its intended type",
    pa.types.is_duration: "cast it to int64",
    pa.types.is_map: "make it a list of structs",
    pa.types.is_decimal: "BigQuery keeps 38 digits before and 38 after the point",
}


def column_name(name: str) -> str:
    """The name of a column in BigQuery: as it is, but ``record:eo:cloud_cover`` is ``record_eo_cloud_cover``.

    And ``percentile_97.5`` is ``percentile_97_5``. BigQuery's flexible column names allow a colon, but not in every way
    of writing, and SQL has to quote it; a point is not allowed.
    """
    renamed = name.startswith(RECORD) or DECIMAL_PERCENTILE.fullmatch(name)
    return re.sub(r"[^A-Za-z0-9_]", "_", name) if renamed else name


def _left_out(name: str) -> str:
    """How to do without a column."""
    return "leave it out of extra_columns" if name.startswith(RECORD) else "leave it out with columns=[...]"


def bigquery_fields(schema: pa.Schema) -> list[dict[str, Any]]:
    """The BigQuery fields of an Arrow schema.

    Lists are REPEATED, structs RECORD, dictionaries the type of their values; the samples' ``datetime`` and timestamps
    with a time zone are TIMESTAMP, others DATETIME. Columns have the names of :func:`column_name`.

    Raises
    ------
    InputError
        A column has a type or a name that BigQuery does not support.
    """
    _check_names(schema.names)
    return [_field(field.name, field, field.name == UTC_COLUMN) for field in schema]


def _check_names(names: Sequence[str], inside: str = "") -> None:
    place = f" of {inside!r}" if inside else ""
    made = [column_name(name) for name in names]
    bad = [name for name in made if not NAME.fullmatch(name) or name.upper().startswith(RESERVED_STARTS)]
    if bad:
        raise InputError(
            f"column name(s) {listed(map(repr, bad))}{place} are not valid in BigQuery: use ASCII letters, digits "
            "and _ (no digit first), at most 300, and no reserved names such as _TABLE_; rename or leave them out with "
            "columns=[...]"
        )
    folded = Counter(name.lower() for name in made)
    twice = [name for name, there in zip(names, made, strict=True) if folded[there.lower()] > 1]
    if twice:
        renamed = any(column_name(name) != name for name in twice)
        why = "have one name in BigQuery, where : and . are _" if renamed else ""
        why = why or "differ only in case, which BigQuery ignores"
        raise InputError(f"columns {listed(twice)}{place} {why}; rename all but one")


def _field(path: str, field: pa.Field, utc: bool = False) -> dict[str, Any]:
    mode, data = "NULLABLE", _plain(field.type)
    if _is_list(data):
        mode, data = "REPEATED", _plain(data.value_type)
        if _is_list(data):
            raise InputError(
                f"column {path!r} is {field.type}, a list of lists, which BigQuery lacks; make it a list of structs, "
                f"or {_left_out(path)}"
            )
    made: dict[str, Any] = {"name": column_name(field.name), "type": _type(path, data, utc), "mode": mode}
    if made["type"] == "RECORD":
        inner = [data.field(number) for number in range(data.num_fields)]
        _check_names([one.name for one in inner], path)
        made["fields"] = [_field(f"{path}.{one.name}", one) for one in inner]
    return made


def _plain(data: pa.DataType) -> pa.DataType:
    """The type of the stored values: the storage of an extension type, the values of a dictionary."""
    if isinstance(data, pa.BaseExtensionType):
        return _plain(data.storage_type)
    return _plain(data.value_type) if pa.types.is_dictionary(data) else data


def _is_list(data: pa.DataType) -> bool:
    return pa.types.is_list(data) or pa.types.is_large_list(data) or pa.types.is_fixed_size_list(data)


def _type(path: str, data: pa.DataType, utc: bool) -> str:
    found: str | None = next((name for is_it, name in _SIMPLE if is_it(data)), None)
    if pa.types.is_timestamp(data):
        found = "TIMESTAMP" if data.tz or utc else "DATETIME"
    elif pa.types.is_decimal(data):
        found = _decimal(data.precision, data.scale)
    elif pa.types.is_struct(data) and data.num_fields:
        found = "RECORD"
    if found is None:
        hint = next((way for is_it, way in _WAYS_OUT.items() if is_it(data)), "cast it to another type")
        raise InputError(f"column {path!r} is {data}, for which BigQuery has no type: {hint}, or {_left_out(path)}")
    return found


def _decimal(precision: int, scale: int) -> str | None:
    before = precision - scale
    if 0 <= scale <= 9 and before <= 29:
        return "NUMERIC"
    return "BIGNUMERIC" if 0 <= scale <= 38 and before <= 38 else None


def differences(found: Sequence[Field], wanted: Sequence[Field], inside: str = "") -> Iterator[str]:
    """The differences between the fields of a table and the samples, one text each, ignoring order."""
    theirs = {field["name"].lower(): field for field in found}
    ours = {field["name"].lower(): field for field in wanted}
    for key, field in ours.items():
        name = inside + field["name"]
        if key not in theirs:
            yield f"{name} ({_shown(field)}) is not in the table"
        elif _shown(field) != _shown(theirs[key]):
            yield f"{name} is {_shown(theirs[key])} in the table, {_shown(field)} in the samples"
        elif "fields" in field:
            yield from differences(theirs[key].get("fields", ()), field["fields"], f"{name}.")
    for key, field in theirs.items():
        if key not in ours:
            yield f"{inside}{field['name']} ({_shown(field)}) is in the table only"


def _shown(field: Field) -> str:
    kind = str(SAME_TYPE.get(field["type"], field["type"]))
    mode = field.get("mode") or "NULLABLE"
    return kind if mode == "NULLABLE" else f"{mode} {kind}"


def check_columns(what: str, names: Sequence[str], fields: Sequence[Field], types: Sequence[str]) -> None:
    """Refuse clustering or partitioning columns that are missing or have an unsuitable type.

    Raises
    ------
    InputError
    """
    known = {field["name"]: field for field in fields}
    for name in names:
        if name not in known:
            raise InputError(f"{what} names column {name!r}; the samples have {listed(known)}")
        if _shown(known[name]) not in types:
            raise InputError(f"{what} names column {name!r}, which is {_shown(known[name])}; it can be {listed(types)}")


def loadable_schema(schema: pa.Schema) -> pa.Schema:
    """The schema of Parquet files that BigQuery loads into the fields of :func:`bigquery_fields`."""
    fields = [(column_name(one.name), _loadable_type(one.type, one.name == UTC_COLUMN)) for one in schema]
    return pa.schema(fields)


def _loadable_type(data: pa.DataType, utc: bool = False) -> pa.DataType:
    if isinstance(data, pa.BaseExtensionType):
        return _loadable_type(data.storage_type)
    if pa.types.is_timestamp(data):
        return pa.timestamp("us", data.tz or ("UTC" if utc else None))
    if pa.types.is_time(data):
        return pa.time64("us")
    if pa.types.is_date(data):
        return pa.date32()
    if pa.types.is_float16(data):
        return pa.float32()
    if _is_list(data):
        return pa.list_(_loadable_type(data.value_type))
    if pa.types.is_struct(data):
        return pa.struct([pa.field(one.name, _loadable_type(one.type)) for one in data])
    return data


def loadable(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A batch of rows in :func:`loadable_schema`, which shares most of its memory.

    Raises
    ------
    InputError
        A value would be truncated (nanoseconds), or a list has a null.
    """
    schema = loadable_schema(batch.schema)
    given = zip(batch.schema.names, schema, batch.columns, strict=True)
    columns = [_loadable_column(*each) for each in given]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _loadable_column(name: str, field: pa.Field, column: pa.Array) -> pa.Array:
    while isinstance(column, pa.ExtensionArray):
        column = column.storage
    if field.type != column.type:
        try:
            column = column.cast(field.type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(
                f"column {name!r} cannot be written to BigQuery as {field.type}: {error}; cast it before, or "
                f"{_left_out(name)}"
            ) from error
    return _without_inner_nulls(name, column) if _is_list(field.type) else column


def _without_inner_nulls(name: str, lists: pa.Array) -> pa.Array:
    inner = lists.flatten()
    if not inner.null_count:
        return lists
    if name not in NAN_FOR_NULL and percentile_of(name) is None:
        raise InputError(
            f"column {name!r} has a list with a null, which BigQuery arrays cannot hold; fill or drop nulls "
            f"before, or {_left_out(name)}"
        )
    if not pa.types.is_floating(inner.type):
        as_floats = "" if name in COUNTS else 'value_type="float64" (NaN in its place) or '
        raise InputError(
            f"a record lacks a band, whose place in {name!r} is null, which BigQuery arrays of integers cannot hold; "
            f'use {as_floats}layout="columns"'
        )
    return pa.ListArray.from_arrays(_offsets(lists), pc.fill_null(inner, float("nan")), mask=_missing(lists))


def _offsets(lists: pa.Array) -> pa.Array:
    lengths = pc.fill_null(pc.list_value_length(lists), 0)
    return pa.concat_arrays([pa.array([0], pa.int32()), pc.cumulative_sum(lengths).cast(pa.int32())])


def _missing(lists: pa.Array) -> pa.Array | None:
    return lists.is_null() if lists.null_count else None
