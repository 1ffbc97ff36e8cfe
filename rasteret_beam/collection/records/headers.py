"""Read the files of records, and put their headers into the layout of a collection."""

import logging
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pyarrow as pa
import shapely

from rasteret_beam.collection.parquet.layout import check_storable, first_grid, with_headers
from rasteret_beam.collection.records.records import (
    NOTHING_STATED,
    RecordHeaders,
    RecordSource,
    Stated,
)
from rasteret_beam.errors import BuildError, InputError, one_line, without_secrets
from rasteret_beam.kernels.geo.crs import LONLAT, footprint_crs
from rasteret_beam.kernels.geo.footprints import Footprint, footprint
from rasteret_beam.kernels.routing.chip_windows import as_dtype
from rasteret_beam.model import DEFAULT_ACCESS, Access, BandHeader, Grid
from rasteret_beam.readers.gdal.headers import read_all_headers
from rasteret_beam.schema import ASSET_TYPE

log = logging.getLogger(__name__)

Failures = list[tuple[str, str]]


def read_records(
    sources: Sequence[RecordSource], threads: int = 16, access: Access = DEFAULT_ACCESS
) -> tuple[list[RecordHeaders], Failures]:
    """Open all files of the records concurrently.

    Returns
    -------
    list of RecordHeaders
        The records of which at least one file could be read, in order.
    list of (href, reason)
        The files that could not be read, or whose headers do not fit into a collection.
    """
    failures: Failures = []
    wanted, files_of = _wanted(sources, failures)
    found = read_all_headers(wanted, threads, access)
    records = []
    footprints: Footprints = {}
    for source, files in zip(sources, files_of, strict=True):
        headers = _known(source, footprints, failures)
        for number, bands in files:
            href, result = wanted[number][0], _checked(found[number], footprints)
            if isinstance(result, str):
                failures.append((href, result))
                continue
            what = f"of {without_secrets(href)}"
            headers |= {
                band: with_stated(header, source.stated.get(band, NOTHING_STATED), f"band {band!r} {what}")
                for band, header in zip(bands or _names(result, source.by_description), result, strict=True)
            }
        if source.href:
            source = replace(source, assets={band: (source.href, n) for n, band in enumerate(headers)})
        if headers:
            in_order = {band: headers[band] for band in source.assets if band in headers}
            records.append(RecordHeaders(source, in_order, footprints[first_grid(in_order)]))
    return records, failures


def _known(source: RecordSource, footprints: "Footprints", failures: Failures) -> dict[str, BandHeader]:
    """The headers of a record that need not be read."""
    found: dict[str, BandHeader] = {}
    for band, header in source.known.items():
        result = _checked([header], footprints)
        if isinstance(result, str):
            failures.append((source.assets[band][0], result))
        else:
            found[band] = header
    return found


Wanted = list[tuple[str, list[int] | None]]
"""Files, and the band indexes to read of each, or None for all."""


def _wanted(
    sources: Sequence[RecordSource], failures: Failures
) -> tuple[Wanted, list[list[tuple[int, list[str] | None]]]]:
    """The files of all records, and for each record the numbers of its files and their bands."""
    wanted: Wanted = []
    files_of: list[list[tuple[int, list[str] | None]]] = []
    for source in sources:
        files: dict[str, list[str]] = {}
        for band, (href, _) in source.assets.items():
            if band not in source.known:
                files.setdefault(href, []).append(band)
        if not source.assets and not source.href:
            failures.append((f"record {source.id!r}", "it has no file for any of the bands"))
        reads: list[tuple[str, list[str] | None]] = [(source.href, None)] if source.href else list(files.items())  # type: ignore[list-item]
        files_of.append([(len(wanted) + number, bands) for number, (_, bands) in enumerate(reads)])
        for href, bands in reads:
            wanted.append((href, [source.assets[band][1] for band in bands] if bands else None))
    return wanted, files_of


Footprints = dict[Grid, Footprint | None]


def _checked(found: list[BandHeader] | str, footprints: Footprints) -> list[BandHeader] | str:
    """Headers of a file if a collection can hold them, otherwise the reason; adds the footprints of their grids."""
    if isinstance(found, str):
        return found
    try:
        for grid in {header.grid: None for header in found}:
            if grid not in footprints:
                shape = footprint(grid)
                other = None if footprint_crs(grid.crs) == LONLAT else footprint_crs(grid.crs)
                footprints[grid] = shape and Footprint(shapely.to_wkb(shape[0]), shape[1], other)
        check_storable(found)
    except Exception as error:  # one bad file does not prevent the others
        return one_line(error)
    return found


def _names(headers: Sequence[BandHeader], by_description: bool) -> list[str]:
    """Names of the bands of a file: B1, B2, ..., or its descriptions if each band has a different one."""
    described = [header.description for header in headers if header.description]
    if by_description and len(set(described)) == len(headers):
        return described
    return [f"B{number + 1}" for number in range(len(headers))]


def with_stated(header: BandHeader, said: Stated, what: str) -> BandHeader:
    """A header with the facts of a record table: its scale and offset, and its nodata value where the file has none.

    If both have a nodata value and they differ, the file's is kept, with a warning.
    """
    if said == NOTHING_STATED:
        return header
    units = {name: value for name in ("scale", "offset") if (value := getattr(said, name)) is not None}
    return _with_nodata(replace(header, **units), said.nodata, what)


def _with_nodata(header: BandHeader, given: float | None, what: str) -> BandHeader:
    own = header.nodata
    if given is None or own == given or (own is not None and math.isnan(own) and math.isnan(given)):
        return header
    if own is not None:
        log.warning("%s has nodata %g, but the record table has %g; the file's value is kept", what, own, given)
        return header
    if as_dtype(given, np.dtype(header.dtype)) is None:
        log.warning("nodata %g of %s in the record table does not fit %s; it is ignored", given, what, header.dtype)
        return header
    if 0 in header.tile_byte_counts:
        # GDAL fills missing tiles with 0, as the file has no nodata value; so GDAL has to read them.
        header = replace(header, tile_offsets=(), tile_byte_counts=())
    return replace(header, nodata=given)


def collection_table(
    records: Sequence[RecordHeaders], bands: Sequence[str], other_footprints: bool | None = None
) -> pa.Table:
    """The records in the collection layout (see :mod:`.parquet.layout`), with columns for these bands.

    ``other_footprints``: the collection has footprints in other CRSs than CRS84, so that all its files have the column
    with their CRS; by default if these records have some.
    """
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
    headers, footprints = [record.headers for record in records], [record.footprint for record in records]
    return with_headers(base, headers, bands, footprints, other_footprints)


def check_on_error(on_error: str) -> None:
    """Refuse a value other than "raise" and "skip"."""
    if on_error not in ("raise", "skip"):
        raise InputError(f'on_error is {on_error!r}; it has to be "raise" or "skip"')


def settle_failures(failures: Failures, on_error: str, built: int) -> None:
    """Raise for files that could not be read, or log them; a build without any record is always an error."""
    if failures and (on_error == "raise" or not built):
        raise BuildError(failures)
    for href, reason in failures:
        log.warning("skipped in the collection: %s: %s", without_secrets(href), without_secrets(reason, href))
