"""Building collections: from raster files, or from a table of records."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime as Datetime
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlparse

from rasteret_beam.collection.collection import Collection
from rasteret_beam.collection.eager.unknown_keywords import paths_of
from rasteret_beam.collection.filters.dates import Moment, to_datetime
from rasteret_beam.collection.parquet.layout import band_names
from rasteret_beam.collection.records.headers import check_on_error, collection_table, read_records, settle_failures
from rasteret_beam.collection.records.hrefs import absolute
from rasteret_beam.collection.records.record_tables import (
    check_named,
    check_unique,
    path_or_here,
    record_table,
    sources_from_table,
)
from rasteret_beam.collection.records.records import (
    RecordSource,
    bands_of_records,
)
from rasteret_beam.errors import InputError, without_secrets
from rasteret_beam.model import DEFAULT_ACCESS, Access
from rasteret_beam.readers.storage.href_policy import named_in
from rasteret_beam.readers.storage.listing import expand_rasters
from rasteret_beam.readers.storage.location import Location

log = logging.getLogger(__name__)

DESCRIPTIONS = "descriptions"
"""Value of ``bands`` for the band names that each file has."""


def build_from_cogs(
    hrefs: Iterable[str | os.PathLike[str]],
    *,
    bands: Mapping[str, int] | Sequence[str] | None = None,
    record_id: Sequence[str] | Callable[[str], str] | None = None,
    datetime: Sequence[Moment] | Callable[[str], Moment] | None = None,
    name: str = "",
    on_error: str = "raise",
    access: Access = DEFAULT_ACCESS,
) -> Collection:
    """Build a collection with one record per raster file.

    Parameters
    ----------
    hrefs : iterable of str or pathlib.Path
        Paths, ``file:`` URIs or URLs of files; folders, searched for ``*.tif`` and ``*.tiff`` at any depth; or globs;
        local or in a bucket. Local paths become absolute.
    bands : {name: 0-based band index} or list of names, optional
        By default all bands of each file, as B1, B2, ...; ``"descriptions"`` takes the names from the file, if each of
        its bands has a different description.
    record_id, datetime : list with one for each href, or function of the href, optional
        By default the file's stem (made unique with _2, _3, ...), and null. A datetime is a
        ``datetime``, an ISO text or a year (:func:`rasteret_beam.collection.filters.dates.to_datetime`); one
        without a zone is UTC.
    name : str
        Name of the collection.
    on_error : "raise" or "skip"
        What to do if some files cannot be read, after all were tried. Skipped files are logged and listed in the
        collection's ``failures``.
    access : Access
        How buckets are read, now and when the collection is sampled. It is not exported: give it again to
        :func:`rasteret_beam.load`, or to the catalogue.

    Raises
    ------
    BuildError
        Lists every file that could not be read, with its reason.
    InputError
        The lists differ in length, two records have the same id, or there are no files.
    """
    check_on_error(on_error)
    files = expand_rasters(paths_of(hrefs, "hrefs"), access)
    sources = sources_from_cogs(files, bands=bands, record_id=record_id, datetime=datetime)
    records, failures = read_records(sources, access=access)
    settle_failures(failures, on_error, len(records))
    table = collection_table(records, bands_of_records(records))
    return Collection.from_table(table, name=name, failures=failures, access=access)


def sources_from_cogs(
    hrefs: Iterable[str | os.PathLike[str]],
    *,
    bands: Mapping[str, int] | Sequence[str] | None = None,
    record_id: Sequence[str] | Callable[[str], str] | None = None,
    datetime: Sequence[Moment] | Callable[[str], Moment] | None = None,
) -> list[RecordSource]:
    """The records of :func:`build_from_cogs` before their files are opened, with the same parameters and errors.

    Each href is one file; :func:`rasteret_beam.readers.storage.listing.find_rasters` expands folders and globs.
    """
    if isinstance(hrefs, str | os.PathLike):
        hrefs = [hrefs]
    paths = [absolute(href) for href in hrefs]
    if not paths:
        raise InputError("hrefs is empty; give the raster files to build a collection from")
    ids = (
        [str(value) for value in _each(record_id, paths, "record_id")] if record_id is not None else unique_stems(paths)
    )
    check_unique(ids)
    dates = _each(datetime, paths, "datetime") if datetime is not None else []
    moments = [_dated(value, path) for value, path in zip(dates, paths, strict=bool(dates))]
    by_description = isinstance(bands, str) and bands == DESCRIPTIONS
    bands = None if by_description else [bands] if isinstance(bands, str) else bands
    chosen = bands if isinstance(bands, Mapping) or bands is None else {band: n for n, band in enumerate(bands)}
    return [
        RecordSource(
            record,
            moments[number] if moments else None,
            {band: (href, int(index)) for band, index in chosen.items()} if chosen else {},
            None if chosen else href,
            by_description=by_description,
        )
        for number, (record, href) in enumerate(zip(ids, paths, strict=True))
    ]


def _dated(value: Moment, href: str) -> Datetime | None:
    try:
        return to_datetime(value)
    except InputError as error:
        raise InputError(f"datetime of {without_secrets(href)}: {error}") from error


def _each(given: Any, paths: list[str], what: str) -> list[Any]:
    if not callable(given) and (isinstance(given, str | bytes) or not isinstance(given, Iterable)):
        raise InputError(f"{what} is {given!r}; give a list with one value per href, or a function of the href")
    values = [given(path) for path in paths] if callable(given) else list(given)
    if len(values) != len(paths):
        raise InputError(f"{what} has {len(values)} value(s) for {len(paths)} href(s); give one per href")
    return values


def unique_stems(hrefs: Sequence[str]) -> list[str]:
    """File names without folder and extension; repeated names get _2, _3, ..."""
    taken: set[str] = set()
    names = []
    for href in hrefs:
        stem = PurePosixPath(urlparse(href).path if Location.of(href).is_remote else href).stem
        number, unique = 1, stem
        while unique in taken:
            number += 1
            unique = f"{stem}_{number}"
        taken.add(unique)
        names.append(unique)
    return names


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
    access: Access = DEFAULT_ACCESS,
) -> Collection:
    """Build a collection from a table with one row per record.

    Parameters
    ----------
    table_or_path : Arrow table (or anything with an Arrow C stream), frame, or path of Parquet
        With columns id, datetime, geometry (WKB, WKT or GeoJSON in CRS84), assets (struct, map or JSON of band to
        struct of href and band_index), or columns mapped to them. Other columns are kept.
        ``geometry`` may be missing if headers are read: the files' footprints replace it. A record whose ``datetime``
        is null may have ``start_datetime`` and ``end_datetime`` instead. Relative hrefs start at the folder of the
        table, or at the working folder for a table in memory. Scale and offset are those of the asset: ``scale`` and
        ``offset`` in it, or STAC's ``raster:bands``, ``bands``, ``raster:scale`` and ``raster:offset``, which the
        record may have too; else those of the file's tags. A nodata value of the table is used if the file has none.
    href_column, band_index_map
        Instead of ``assets``: the column with each record's file, and the 0-based indexes of its bands.
    column_map : {column of the table: name in the collection}
    enrich_cog : bool
        Read the files' headers. A collection without them cannot be sampled.
    band_codes : sequence of str, optional
        Bands to read headers for; by default all assets that are rasters by media type or role, or, if neither is
        given, by the extension of the href.
    name, data_source : str
    on_error : "raise" or "skip"
        As for :func:`build_from_cogs`. A record is kept while it has a readable band.
    access : Access
        As for :func:`build_from_cogs`; it applies to the bucket of the table too.

    Raises
    ------
    BuildError, InputError, CollectionError
    """
    check_on_error(on_error)
    wanted = list(band_codes) if band_codes is not None else None
    table = record_table(table_or_path, href_column, band_index_map, column_map, access, wanted)
    access = named_in(path_or_here(table_or_path), access)
    if not enrich_cog:
        check_named(table, access)
        return Collection.from_table(table, name=name, data_source=data_source, access=access)
    bands = band_names(table.select(["assets"]).schema)
    sources = sources_from_table(table, bands)
    records, failures = read_records(sources, access=access)
    settle_failures(failures, on_error, len(records))
    built = collection_table(records, bands)
    return Collection.from_table(built, name=name, data_source=data_source, failures=failures, access=access)
