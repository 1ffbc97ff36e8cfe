"""Building collections: from raster files, or from a table of records."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime as Datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlparse

import pyarrow as pa

from rasteret_beam.collection.collection import Collection
from rasteret_beam.collection.dates import Moment, to_datetime
from rasteret_beam.collection.layout import band_names, with_headers
from rasteret_beam.collection.storage import is_remote, open_dataset
from rasteret_beam.errors import BuildError, InputError, listed, without_secrets
from rasteret_beam.model import AS_GIVEN, Access, BandHeader
from rasteret_beam.readers.finding import expand_rasters
from rasteret_beam.readers.headers import read_all_headers
from rasteret_beam.readers.stores import absolute
from rasteret_beam.schema import ASSET_TYPE

log = logging.getLogger(__name__)

Failures = list[tuple[str, str]]


@dataclass(frozen=True)
class RecordSource:
    """A record to be built: what is known before its files are opened.

    Attributes
    ----------
    id : str
    datetime : datetime or None
        Without a time zone, in UTC.
    assets : {band: (href, 0-based band index)}
        Empty where ``href`` is given.
    href : str, optional
        One file whose bands, all of them, are the record's bands B1, B2, ...
    row : bytes
        The record's row of a record table, all its columns but ``assets``, as Arrow IPC; or nothing.
    """

    id: str
    datetime: Datetime | None
    assets: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    href: str | None = None
    row: bytes = b""


@dataclass(frozen=True)
class RecordHeaders:
    """A record whose files have been read; bands whose file failed are left out of it."""

    source: RecordSource
    headers: Mapping[str, BandHeader]


def read_records(
    sources: Sequence[RecordSource], threads: int = 16, access: Access = AS_GIVEN
) -> tuple[list[RecordHeaders], Failures]:
    """Open every file of the records, many at a time; ``access`` is how their buckets are read.

    Returns
    -------
    list of RecordHeaders
        The records of which at least one file could be read, in order.
    list of (href, reason)
        The files that could not.
    """
    failures: Failures = []
    wanted: list[tuple[str, list[int] | None]] = []
    bands_of: list[list[tuple[int, list[str] | None]]] = []
    for source in sources:
        files: dict[str, list[str]] = {}
        for band, (href, _) in source.assets.items():
            files.setdefault(href, []).append(band)
        if not files and not source.href:
            failures.append((f"record {source.id!r}", "it has no file for any of the bands"))
        reads: list[tuple[str, list[str] | None]] = [(source.href, None)] if source.href else list(files.items())  # type: ignore[list-item]
        bands_of.append([(len(wanted) + number, bands) for number, (_, bands) in enumerate(reads)])
        for href, bands in reads:
            wanted.append((href, [source.assets[band][1] for band in bands] if bands else None))
    found = read_all_headers(wanted, threads, access)
    records = []
    for source, reads_of in zip(sources, bands_of, strict=True):
        headers: dict[str, BandHeader] = {}
        for number, bands in reads_of:
            result = found[number]
            if isinstance(result, str):
                failures.append((wanted[number][0], result))
            else:
                headers.update(zip(bands or [f"B{n + 1}" for n in range(len(result))], result, strict=True))
        if source.href:
            source = replace(source, assets={band: (source.href, n) for n, band in enumerate(headers)})
        if headers:
            in_order = {band: headers[band] for band in source.assets if band in headers}
            records.append(RecordHeaders(source, in_order))
    return records, failures


def bands_of_records(records: Iterable[RecordHeaders]) -> list[str]:
    """Bands of some records, in order of first mention."""
    return list(dict.fromkeys(band for record in records for band in record.headers))


def collection_table(records: Sequence[RecordHeaders], bands: Sequence[str]) -> pa.Table:
    """Records in the collection layout (see :mod:`.layout`), with columns for these bands."""
    assets = [
        {band: {"href": href, "band_index": index} for band, (href, index) in record.source.assets.items()}
        for record in records
    ]
    rows = [pa.ipc.open_stream(record.source.row).read_all() for record in records if record.source.row]
    if len(rows) == len(records) > 0:
        base = pa.concat_tables(rows).combine_chunks()
    else:
        ids = pa.array([record.source.id for record in records], type=pa.string())
        moments = pa.array([record.source.datetime for record in records], type=pa.timestamp("us"))
        base = pa.table({"id": ids, "datetime": moments})
    base = base.append_column("assets", pa.array(assets, type=pa.struct([(band, ASSET_TYPE) for band in bands])))
    return with_headers(base, [record.headers for record in records], bands)


def build_from_cogs(
    hrefs: Iterable[str | os.PathLike[str]],
    *,
    bands: Mapping[str, int] | Sequence[str] | None = None,
    record_id: Sequence[str] | Callable[[str], str] | None = None,
    datetime: Sequence[Moment] | Callable[[str], Moment] | None = None,
    name: str = "",
    on_error: str = "raise",
    access: Access = AS_GIVEN,
) -> Collection:
    """Build a collection of raster files, each of them a record.

    Parameters
    ----------
    hrefs : iterable of str or pathlib.Path
        Paths, ``file:`` URIs or URLs of files; folders, of which all ``*.tif`` and ``*.tiff`` are taken, at any depth;
        or globs; local or in a bucket. Local paths are made absolute.
    bands : {name: 0-based band index} or list of names, optional
        By default all bands of each file, as B1, B2, ...
    record_id, datetime : list with one for each href, or function of the href, optional
        By default the file's stem (made unique with _2, _3, ...), and null. A datetime is a
        ``datetime``, an ISO text or a year; one without a zone is UTC.
    name : str
        Of the collection.
    on_error : "raise" or "skip"
        What to do about files that cannot be read, after all have been tried. Skipped ones
        are logged and stand in the collection's ``failures``.
    access : Access
        How their buckets are read, now and when the collection is sampled. It is not exported:
        give it to :func:`rasteret_beam.load` again, or to the catalogue.

    Raises
    ------
    BuildError
        Lists every file that could not be read, with its reason.
    InputError
        The lists do not match, two records have one id, or there is no file at all.
    """
    files = expand_rasters(hrefs, access)
    sources = sources_from_cogs(files, bands=bands, record_id=record_id, datetime=datetime)
    records, failures = read_records(sources, access=access)
    settle_failures(failures, on_error, len(records))
    table = collection_table(records, bands_of_records(records))
    return Collection.from_table(table, name=name, failures=failures, access=access)


def settle_failures(failures: Failures, on_error: str, built: int) -> None:
    """Raise for files that could not be read, or report them; nothing at all built is always an error."""
    if failures and (on_error == "raise" or not built):
        raise BuildError(failures)
    for href, reason in failures:
        log.warning("left out of the collection: %s: %s", without_secrets(href), without_secrets(reason, href))


def sources_from_cogs(
    hrefs: Iterable[str | os.PathLike[str]],
    *,
    bands: Mapping[str, int] | Sequence[str] | None = None,
    record_id: Sequence[str] | Callable[[str], str] | None = None,
    datetime: Sequence[Moment] | Callable[[str], Moment] | None = None,
) -> list[RecordSource]:
    """The records of :func:`build_from_cogs` before their files are opened; same parameters and errors.

    Each href is one file; :func:`rasteret_beam.readers.finding.find_rasters` gives those of folders and globs.
    """
    if isinstance(hrefs, str | os.PathLike):
        hrefs = [hrefs]
    paths = [absolute(href) for href in hrefs]
    if not paths:
        raise InputError("there is no raster file to build a collection from: hrefs is empty")
    ids = (
        [str(value) for value in _each(record_id, paths, "record_id")] if record_id is not None else unique_stems(paths)
    )
    _check_unique(ids)
    moments = [to_datetime(value) for value in _each(datetime, paths, "datetime")] if datetime is not None else []
    chosen = bands if isinstance(bands, Mapping) or bands is None else {band: n for n, band in enumerate(bands)}
    return [
        RecordSource(
            record,
            moments[number] if moments else None,
            {band: (href, int(index)) for band, index in chosen.items()} if chosen else {},
            None if chosen else href,
        )
        for number, (record, href) in enumerate(zip(ids, paths, strict=True))
    ]


def _each(given: Any, paths: list[str], what: str) -> list[Any]:
    values = [given(path) for path in paths] if callable(given) else list(given)
    if len(values) != len(paths):
        raise InputError(f"{what} has {len(values)} value(s) for {len(paths)} href(s); give one for each")
    return values


def unique_stems(hrefs: Sequence[str]) -> list[str]:
    """File names without folder and ending; repeated ones get _2, _3, ..."""
    taken: set[str] = set()
    names = []
    for href in hrefs:
        stem = PurePosixPath(urlparse(href).path if is_remote(href) else href).stem
        number, unique = 1, stem
        while unique in taken:
            number += 1
            unique = f"{stem}_{number}"
        taken.add(unique)
        names.append(unique)
    return names


def _check_unique(ids: Sequence[str]) -> None:
    if len(set(ids)) < len(ids):
        seen: set[str] = set()
        twice = dict.fromkeys(name for name in ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise InputError(f"record id(s) {listed(twice)} are given more than once; ids must be unique")


def build_from_table(
    table_or_path: Any,
    *,
    href_column: str | None = None,
    band_index_map: Mapping[str, int] | None = None,
    column_map: Mapping[str, str] | None = None,
    enrich_cog: bool = True,
    band_codes: Sequence[str] | None = None,
    name: str = "",
    data_source: str = "",
    on_error: str = "raise",
    access: Access = AS_GIVEN,
) -> Collection:
    """Build a collection from a table that has a row for each record.

    Parameters
    ----------
    table_or_path : Arrow table (or anything with an Arrow C stream), or path of Parquet
        With columns id, datetime, geometry (WKB in CRS84), assets (struct of band to struct
        of href and band_index), or columns mapped to them. Other columns are kept.
        ``geometry`` may be missing where headers are read: the files' footprints take its place.
    href_column, band_index_map
        In place of ``assets``: the column with each record's file, and its bands' 0-based indexes.
    column_map : {column of the table: name in the collection}
    enrich_cog : bool
        Read the files' headers. Without them a collection cannot be sampled.
    band_codes : sequence of str, optional
        Bands to read headers for; all by default.
    name, data_source : str
    on_error : "raise" or "skip"
        As for :func:`build_from_cogs`. A record that still has a band is kept.
    access : Access
        As for :func:`build_from_cogs`; the bucket of the table is read so too.

    Raises
    ------
    BuildError, InputError, CollectionError
    """
    table = record_table(table_or_path, href_column, band_index_map, column_map, access)
    if not enrich_cog:
        return Collection.from_table(table, name=name, data_source=data_source, access=access)
    bands = list(band_codes) if band_codes is not None else band_names(table.select(["assets"]).schema)
    sources = sources_from_table(table, bands)
    records, failures = read_records(sources, access=access)
    settle_failures(failures, on_error, len(records))
    built = collection_table(records, bands)
    return Collection.from_table(built, name=name, data_source=data_source, failures=failures, access=access)


def record_table(
    table_or_path: Any,
    href_column: str | None = None,
    band_index_map: Mapping[str, int] | None = None,
    column_map: Mapping[str, str] | None = None,
    access: Access = AS_GIVEN,
) -> pa.Table:
    """A record table with columns id (string), datetime (timestamp[us]) and assets; see :func:`build_from_table`."""
    if isinstance(table_or_path, str | os.PathLike):
        table = open_dataset(os.fspath(table_or_path), access).to_table()
    else:
        table = pa.table(table_or_path)
    for source, target in (column_map or {}).items():
        if source not in table.column_names:
            raise InputError(f"column_map names column {source!r}; the record table has {listed(table.column_names)}")
        if target not in table.column_names:
            table = table.append_column(target, table[source])
    if href_column is not None:
        table = _with_assets(table, href_column, band_index_map or {"B1": 0})
    missing = [column for column in ("id", "datetime", "assets") if column not in table.column_names]
    if missing:
        raise InputError(
            f"the record table lacks column(s) {listed(missing)}; it has {listed(table.column_names)}. "
            "Map columns with column_map={'theirs': 'id'}, and files with href_column and band_index_map."
        )
    if not len(table):
        raise InputError("the record table has no rows")
    table = _cast(table, "id", pa.string())
    _check_unique(table["id"].to_pylist())
    return _cast(table, "datetime", pa.timestamp("us"))


def _with_assets(table: pa.Table, href_column: str, band_index_map: Mapping[str, int]) -> pa.Table:
    if href_column not in table.column_names:
        raise InputError(f"href_column is {href_column!r}; the record table has {listed(table.column_names)}")
    hrefs = pa.array([href and absolute(href) for href in table[href_column].to_pylist()], type=pa.string())
    bands = [
        pa.StructArray.from_arrays(
            [hrefs, pa.repeat(pa.scalar(index, type=pa.int32()), len(table))], fields=list(ASSET_TYPE)
        )
        for index in band_index_map.values()
    ]
    assets = pa.StructArray.from_arrays(bands, names=list(band_index_map))
    if "assets" in table.column_names:
        table = table.drop_columns(["assets"])
    return table.append_column("assets", assets)


def _cast(table: pa.Table, name: str, kind: pa.DataType) -> pa.Table:
    column = table[name]
    if name == "datetime" and (pa.types.is_integer(column.type) or pa.types.is_string(column.type)):
        column = pa.chunked_array([pa.array([to_datetime(value) for value in column.to_pylist()], type=kind)])
    elif pa.types.is_timestamp(column.type) and column.type.tz is not None:
        column = column.cast(pa.timestamp("us", tz="UTC")).cast(kind)
    elif column.type != kind:
        column = column.cast(kind)
    return table.set_column(table.column_names.index(name), name, column)


def sources_from_table(table: pa.Table, bands: Sequence[str]) -> list[RecordSource]:
    """The records of a record table, before their files are opened."""
    known = [field.name for field in table.schema.field("assets").type]
    missing = [band for band in bands if band not in known]
    if missing:
        raise InputError(f"band(s) {listed(missing)} are not among the assets; there are {listed(known)}")
    sources = []
    others = table.drop_columns(["assets"]).combine_chunks()
    for number, row in enumerate(table.select(["id", "datetime", "assets"]).to_pylist()):
        assets = {band: row["assets"].get(band) for band in bands} if row["assets"] else {}
        placed = {
            band: (absolute(asset["href"]), int(asset.get("band_index") or 0))
            for band, asset in assets.items()
            if asset and asset.get("href")
        }
        sources.append(RecordSource(row["id"], row["datetime"], placed, row=_ipc(others.slice(number, 1))))
    return sources


def _ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()
