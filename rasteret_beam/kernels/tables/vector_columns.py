"""Columns of vector files as GDAL's Arrow stream gives them, in the types that this package passes on."""

import json
from collections.abc import Collection
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

TIMES = pa.timestamp("ms", tz="UTC")
"""OGR stores times in milliseconds, each with its own zone or without one, which counts as UTC."""

ZONE = r"(Z|[+-]\d\d:?\d\d)$"

CURVES = range(8, 15)
"""Types of ISO WKB (OGC 06-103r4, table 7) with arcs: CircularString to Surface."""

UNDEFINED = ("Undefined Cartesian SRS", "Undefined geographic SRS", "Undefined SRS")
"""Names of the reference systems -1, 0 and 99999 of GeoPackage, which stand for none."""


def declared_crs(crs: str | None, field: pa.Field | None) -> Any:
    """The CRS of a layer: an authority's code if it has one, else PROJJSON; None if it is undefined.

    Parameters
    ----------
    crs : str, optional
        Of the layer, as an authority's code or WKT.
    field : Field, optional
        The geometry column, whose metadata may hold PROJJSON.
    """
    if crs is None or any(name in crs for name in UNDEFINED):
        return None
    if "[" not in crs or field is None:
        return crs
    metadata = json.loads((field.metadata or {}).get(b"ARROW:extension:metadata", b"{}"))
    return metadata.get("crs") or crs


def stream_schema(
    stream: pa.Schema, geometry: str | None, named: str | None, crs: Any, times: Collection[str]
) -> pa.Schema:
    """The schema that batches get from :func:`stream_batch`.

    Parameters
    ----------
    stream : Schema
        Of GDAL's stream, with times as text.
    geometry : str, optional
        The geometry column of the stream.
    named : str, optional
        What the geometry column is called.
    crs
        As of :func:`declared_crs`.
    times : collection of str
        Columns of times.
    """
    described = {
        "ARROW:extension:name": "geoarrow.wkb",
        "ARROW:extension:metadata": json.dumps({} if crs is None else {"crs": crs}),
    }
    fields = []
    for field in stream:
        if field.name == geometry:
            fields.append(pa.field(named, pa.binary(), metadata=described))
        else:
            fields.append(pa.field(field.name, TIMES if field.name in times else plain_type(field.type)))
    return pa.schema(fields)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of a column's values: JSON is text, and zones of times are UTC."""
    if isinstance(kind, pa.BaseExtensionType):
        return plain_type(kind.storage_type)
    return TIMES if pa.types.is_timestamp(kind) else kind


def stream_column(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """A column of the stream in its type of :func:`stream_schema`."""
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if kind == TIMES and pa.types.is_string(column.type):
        has_zone = pc.match_substring_regex(column, ZONE)
        column = pc.if_else(has_zone, column, pc.binary_join_element_wise(column, "Z", ""))
    return column if column.type == kind else pc.cast(column, kind)


def curved(column: pa.Array) -> NDArray[np.bool_]:
    """Which values of a column of WKB, [n], have arcs, by their first bytes; False where it is null."""
    found = np.zeros(len(column), dtype=bool)
    _, offsets, data = column.buffers()
    if data is None or not len(column):
        return found
    starts = np.frombuffer(offsets, dtype=np.int32)[column.offset : column.offset + len(column)].astype(np.int64)
    lengths = pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False)
    held = np.flatnonzero(lengths > 4)
    heads = np.frombuffer(data, dtype=np.uint8)[starts[held, None] + np.arange(5)]
    codes = np.ascontiguousarray(heads[:, 1:]).view("<u4")[:, 0]
    codes = np.where(heads[:, 0] == 1, codes, codes.byteswap()) & 0x0FFFFFFF
    found[held] = (codes % 1000 >= CURVES.start) & (codes % 1000 < CURVES.stop)
    return found


def broken_text(column: pa.Array) -> int | None:
    """Number of the first value of a text column that is not UTF-8; None if there is none."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        for number, value in enumerate(column.cast(pa.binary())):
            try:
                (value.as_py() or b"").decode()
            except UnicodeDecodeError:
                return number
    return None
