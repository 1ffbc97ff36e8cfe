"""Read record tables: one row per record, with its id, datetime and files."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rasteret_beam.collection.eager.inputs import is_frame, table_stream
from rasteret_beam.collection.filters.dates import to_datetime
from rasteret_beam.collection.parquet.files import read_record_table
from rasteret_beam.collection.parquet.layout import SPAN
from rasteret_beam.collection.records.assets import (
    FACTS,
    ITEM_COLUMNS,
    Assets,
    asset_column,
    choose_bands,
    placed_assets,
    read_assets,
)
from rasteret_beam.collection.records.hrefs import folder_of, resolved
from rasteret_beam.collection.records.record_geometries import as_wkb
from rasteret_beam.collection.records.records import RecordSource, Stated
from rasteret_beam.errors import InputError, listed, without_secrets
from rasteret_beam.kernels.tables.point_columns import kept_column, kept_type
from rasteret_beam.model import DEFAULT_ACCESS, Access
from rasteret_beam.readers.storage.href_policy import why_refused
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.readers.storage.stores import local_path

RECORD_INPUTS = (
    "the path of Parquet, an Arrow table or dataset, anything with an Arrow C stream (Polars, DuckDB), or a pandas or "
    "GeoPandas frame"
)


def record_table(
    table_or_path: Any,
    href_column: str | None = None,
    band_index_map: Mapping[str, int] | None = None,
    column_map: Mapping[str, str] | None = None,
    access: Access = DEFAULT_ACCESS,
    bands: Sequence[str] | None = None,
) -> pa.Table:
    """A record table with columns id (string), datetime (timestamp[us]) and assets.

    Parameters
    ----------
    bands : sequence of str, optional
        The assets to use; by default those that are rasters. See :func:`rasteret_beam.build_from_table` for the others.
    """
    table, folder = _read(table_or_path, access)
    table = _mapped(table, column_map or {}, href_column)
    if not len(table):
        raise InputError("the record table has no rows")
    table = _set(table, "id", _ids(table["id"]))
    ids = table["id"].to_pylist()
    check_unique(ids)
    for name in ("datetime", *(name for name in SPAN if name in table.column_names)):
        table = _set(table, name, datetimes(table[name], name, ids))
    _check_spans(table, ids)
    if "geometry" in table.column_names:
        table = _set(table, "geometry", as_wkb(table, ids))
    if href_column is not None:
        assets = _assets_of_column(table, href_column, band_index_map or {"B1": 0}, ids)
        bands = list(assets[0]) if bands is None else bands
    else:
        assets = read_assets(table["assets"], ids)
    chosen = choose_bands(assets) if bands is None else list(bands)
    known = dict.fromkeys(band for row in assets for band in row)
    if unknown := [band for band in chosen if band not in known]:
        raise InputError(f"band(s) {listed(unknown)} are not among the assets; there are {listed(known)}")
    items = table.select([name for name in ITEM_COLUMNS if name in table.column_names]).to_pylist() or [{}] * len(ids)
    placed = [
        placed_assets(row, chosen, lambda href: resolved(href, folder), item, record_id)
        for row, item, record_id in zip(assets, items, ids, strict=True)
    ]
    return _set(table, "assets", asset_column(placed, chosen))


def path_or_here(table_or_path: Any) -> str:
    """The path or URL of a record table; empty for one in memory."""
    return os.fspath(table_or_path) if isinstance(table_or_path, str | os.PathLike) else ""


def check_named(table: pa.Table, access: Access) -> None:
    """Refuse a record table of :func:`record_table` that names a forbidden file.

    Raises
    ------
    InputError
        Names the first record and file.
    """
    for record_id, assets in zip(table["id"].to_pylist(), table["assets"].to_pylist(), strict=True):
        for asset in filter(None, (assets or {}).values()):
            if why := why_refused(asset["href"], access):
                raise InputError(f"record {record_id!r} names {without_secrets(asset['href'])}: {why}")


def _mapped(table: pa.Table, column_map: Mapping[str, str], href_column: str | None) -> pa.Table:
    """The table with columns renamed for the collection, and with all required columns."""
    for source, target in column_map.items():
        if source not in table.column_names:
            raise InputError(f"column_map names column {source!r}; the record table has {listed(table.column_names)}")
        if target not in table.column_names:
            table = table.append_column(target, table[source])
    if href_column is not None and href_column not in table.column_names:
        raise InputError(f"href_column is {href_column!r}; the record table has {listed(table.column_names)}")
    if "datetime" not in table.column_names and any(name in table.column_names for name in SPAN):
        table = table.append_column("datetime", pa.nulls(len(table), pa.timestamp("us")))
    needed = ("id", "datetime") if href_column is not None else ("id", "datetime", "assets")
    missing = [column for column in needed if column not in table.column_names]
    if missing:
        raise InputError(
            f"the record table lacks column(s) {listed(missing)}; it has {listed(table.column_names)}. "
            "Map columns with column_map={'theirs': 'id'}, and files with href_column and band_index_map."
        )
    return table


def _read(table_or_path: Any, access: Access) -> tuple[pa.Table, str]:
    """The table, in types that Arrow can slice, and the folder where its relative paths start."""
    if isinstance(table_or_path, str | os.PathLike):
        path = os.fspath(table_or_path)
        table = read_record_table(path, access)
        is_folder = not Location.of(path).is_remote and os.path.isdir(local_path(path))
        whole = path.rstrip("/") if Location.of(path).is_remote else os.path.abspath(local_path(path))
        ends_as_file = whole.partition("?")[0].lower().endswith((".parquet", ".geoparquet", ".pq"))
        folder = whole if is_folder or (Location.of(path).is_remote and not ends_as_file) else folder_of(path)
    else:
        stream = table_stream(_with_texts(table_or_path), "records", RECORD_INPUTS)
        table, folder = pa.Table.from_batches(list(stream), stream.schema), os.getcwd()
    if len(set(table.column_names)) < len(table.column_names):
        twice = sorted({name for name in table.column_names if table.column_names.count(name) > 1})
        raise InputError(f"the record table has more than one column named {listed(twice)}; rename them")
    fields = [field.with_type(kept_type(field.type)) for field in table.schema]
    columns = [
        pa.chunked_array([kept_column(chunk, field.type) for chunk in column.chunks], type=field.type)
        for column, field in zip(table.columns, fields, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=pa.schema(fields, metadata=table.schema.metadata)), folder


def _with_texts(records: Any) -> Any:
    """Records of a pandas frame or a dict of columns, with paths as texts; a dict becomes a table."""
    if isinstance(records, Mapping) and not isinstance(records.get("type"), str):
        columns = {name: _texts(values) if isinstance(values, list) else values for name, values in records.items()}
        try:
            return pa.table(columns)
        except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"records are a dict whose values cannot be columns of a table: {error}") from error
    if is_frame(records) and records.columns.is_unique:
        paths = [name for name in records.columns if any(isinstance(one, os.PathLike) for one in records[name].head(1))]
        records = records.assign(**{name: _texts(list(records[name])) for name in paths})
    return records


def _texts(values: list[Any]) -> list[Any]:
    return [os.fspath(value) if isinstance(value, os.PathLike) else value for value in values]


def _check_spans(table: pa.Table, ids: Sequence[str]) -> None:
    """Refuse a record that ends before it starts, which no date range would match."""
    if not all(name in table.column_names for name in SPAN):
        return
    first, last = (table[name] for name in SPAN)
    row = pc.index(pc.less(last, first), True).as_py()
    if row >= 0:
        raise InputError(f"record {ids[row]!r} ends before it starts: {SPAN[0]} {first[row]}, {SPAN[1]} {last[row]}")


def _set(table: pa.Table, name: str, values: pa.Array | pa.ChunkedArray) -> pa.Table:
    if name in table.column_names:
        return table.set_column(table.column_names.index(name), name, values)
    return table.append_column(name, values)


def _ids(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    try:
        ids = column.cast(pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid) as error:
        raise InputError(
            f"column id of the record table is {column.type}; give ids as text or whole numbers"
        ) from error
    if ids.null_count:
        row = ids.is_null().to_pylist().index(True)
        raise InputError(f"row {row} of the record table has no id")
    return ids


def check_unique(ids: Sequence[str]) -> None:
    """Refuse repeated ids."""
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = dict.fromkeys(name for name in ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise InputError(f"record id(s) {listed(twice)} are given more than once; ids must be unique")


def datetimes(column: pa.ChunkedArray, name: str, ids: Sequence[str]) -> pa.ChunkedArray:
    """A column of datetimes of any type as timestamp[us] in UTC without a time zone.

    Nanoseconds are truncated. Texts and numbers are parsed by :func:`.filters.dates.to_datetime`.

    Raises
    ------
    InputError
        A value is not a datetime; names its record.
    """
    kind = pa.timestamp("us")
    if isinstance(column.type, pa.BaseExtensionType):
        raise InputError(
            f"column {name} of the record table is {column.type}; give dates, datetimes or texts in ISO form"
        )
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type) or pa.types.is_null(column.type):
        zone = getattr(column.type, "tz", None)
        try:
            moments = column.cast(pa.timestamp("us", zone), safe=getattr(column.type, "unit", "us") != "ns").cast(kind)
            moments.to_pylist()  # records have Python datetimes, which end with the year 9999
        except (pa.ArrowInvalid, OverflowError, ValueError) as error:
            raise InputError(
                f"column {name} of the record table has a value that is not a datetime: {error}"
            ) from error
        return moments
    return pa.chunked_array([pa.array(_each(to_datetime, column, name, ids), type=kind)])


def _each(read: Callable[[Any], Any], column: pa.ChunkedArray, name: str, ids: Sequence[str]) -> list[Any]:
    found = []
    for record_id, value in zip(ids, column.to_pylist(), strict=True):
        try:
            found.append(read(value))
        except InputError as error:
            raise InputError(f"column {name} of record {record_id!r}: {error}") from error
    return found


def _assets_of_column(
    table: pa.Table, href_column: str, band_index_map: Mapping[str, int], ids: Sequence[str]
) -> list[Assets]:
    rows = []
    for record_id, href in zip(ids, table[href_column].to_pylist(), strict=True):
        if not isinstance(href, str | None):
            raise InputError(f"column {href_column!r} of record {record_id!r} is {href!r}; an href has to be text")
        rows.append({band: {"href": href, "band_index": n} for band, n in band_index_map.items()})
    return rows


def sources_from_table(table: pa.Table, bands: Sequence[str]) -> list[RecordSource]:
    """The records of a table made by :func:`record_table`, before their files are opened."""
    known = [field.name for field in table.schema.field("assets").type]
    missing = [band for band in bands if band not in known]
    if missing:
        raise InputError(f"band(s) {listed(missing)} are not among the assets; there are {listed(known)}")
    sources = []
    others = table.drop_columns(["assets"]).combine_chunks()
    spans = [name for name in SPAN if name in table.column_names]
    for number, row in enumerate(table.select(["id", "datetime", "assets", *spans]).to_pylist()):
        assets = {band: row["assets"].get(band) for band in bands} if row["assets"] else {}
        placed = {band: (asset["href"], asset["band_index"] or 0) for band, asset in assets.items() if asset}
        sources.append(
            RecordSource(
                row["id"],
                row["datetime"],
                placed,
                row=_ipc(others.slice(number, 1)),
                stated={band: Stated(*map(asset.get, FACTS)) for band, asset in assets.items() if asset},
                start=row.get(SPAN[0]),
                end=row.get(SPAN[1]),
            )
        )
    return sources


def _ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
