"""What Parquet's own types GEOMETRY and GEOGRAPHY say of a column, in the words of GeoArrow.

The types stand in Parquet's schema, where Arrow passes over them unless an extension type is registered. Format:
https://github.com/apache/parquet-format/blob/master/Geospatial.md
"""

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.geo.crs import LONLAT, crs_text
from rasteret_beam.kernels.tables.point_geometry import srid_crs

NATIVE_TYPES = ("Geometry", "Geography")
SRID, PROJJSON = "srid:", "projjson:"


def with_native_geometries(schema: pa.Schema, metadata: pq.FileMetaData, source: str) -> pa.Schema:
    """The Arrow schema of a Parquet file, whose geometry columns are declared as GeoArrow's, with their CRS.

    Parameters
    ----------
    schema : pyarrow.Schema
    metadata : pyarrow.parquet.FileMetaData
        Of the file.
    source : str
        What an error calls the file.

    Raises
    ------
    InputError
        A CRS cannot be read.
    """
    found = native_types(metadata)
    if not found:
        return schema
    keys = {**(metadata.metadata or {}), **(schema.metadata or {})}
    fields = [_declared(field, found[field.name], keys, source) if field.name in found else field for field in schema]
    return pa.schema(fields, metadata=schema.metadata)


def native_crs(metadata: pq.FileMetaData, source: str) -> dict[str, str | None]:
    """The CRS of each column of type GEOMETRY or GEOGRAPHY, by the column's name."""
    keys = metadata.metadata or {}
    types = native_types(metadata)
    return {
        name: _crs_of(kind.get("crs") or LONLAT, keys, f"column {name!r} of {source}") for name, kind in types.items()
    }


def native_types(metadata: pq.FileMetaData) -> dict[str, dict[str, Any]]:
    """What the type of each column of type GEOMETRY or GEOGRAPHY says, by the column's name: its ``crs``, say."""
    columns = (metadata.schema.column(number) for number in range(metadata.num_columns))
    # Text of a type is quick to look at; a table may have thousands of columns.
    marked = [column for column in columns if column.physical_type == "BYTE_ARRAY" and "." not in column.path]
    found = {column.path: json.loads(column.logical_type.to_json()) for column in marked}
    return {name: kind for name, kind in found.items() if kind.get("Type") in NATIVE_TYPES}


def _declared(field: pa.Field, kind: Mapping[str, Any], keys: Mapping[bytes, bytes], source: str) -> pa.Field:
    crs = _crs_of(kind.get("crs") or LONLAT, keys, f"column {field.name!r} of {source}")
    says = {"crs": crs} if crs is not None else {}
    if kind["Type"] == "Geography":
        says["edges"] = str(kind.get("algorithm") or "spherical").lower()
    own = {b"ARROW:extension:name": b"geoarrow.wkb", b"ARROW:extension:metadata": json.dumps(says).encode()}
    return field.with_metadata({**(field.metadata or {}), **own})


def _crs_of(text: str, keys: Mapping[bytes, bytes], what: str) -> str | None:
    """A CRS as Parquet spells it: an authority's code, PROJJSON, its key in the file's metadata, or an SRID; None for
    SRID 0, which means no CRS."""
    try:
        if text.startswith(SRID):
            srid = text.removeprefix(SRID).strip()
            found = srid_crs(int(srid)) if srid.isdecimal() else None
            if found is None and srid.strip("0"):
                raise InputError(f"SRID {srid} is not an EPSG code")
            return found
        if text.startswith(PROJJSON):
            key = text.removeprefix(PROJJSON)
            if key.encode() not in keys:
                raise InputError(f"the file's metadata has no key {key!r}, but {listed(k.decode() for k in keys)}")
            return crs_text(json.loads(keys[key.encode()]))
        return crs_text(text)
    except (InputError, ValueError) as error:
        raise InputError(f"{what} has CRS {text[:200]!r} in its Parquet type, which cannot be read: {error}") from error
