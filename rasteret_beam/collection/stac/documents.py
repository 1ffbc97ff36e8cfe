"""Read STAC documents: JSON files, lines of JSON, and stac-geoparquet, local, in a bucket or on the web.

Source of the forms: the STAC specifications 1.0 and 1.1, and stac-geoparquet 1.0, which has the properties of an item
as columns beside ``id``, ``geometry``, ``bbox``, ``assets`` and ``collection``.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime as Datetime
from io import BufferedReader, FileIO, TextIOWrapper
from time import sleep
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import pyarrow as pa
import pyarrow.parquet as pq
import shapely

from rasteret_beam.collection.filters.dates import to_datetime
from rasteret_beam.collection.parquet.files import read_record_table
from rasteret_beam.collection.records.hrefs import absolute, folder_of
from rasteret_beam.errors import InputError, RasteretBeamError, one_line, without_secrets
from rasteret_beam.model import Access
from rasteret_beam.readers.storage.listing import find
from rasteret_beam.readers.storage.local_files import denied
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.readers.storage.objects import open_object, open_to_the_end
from rasteret_beam.readers.storage.stores import local_path

LINES = (".ndjson", ".jsonl", ".geojsonl", ".jsonlines")
PARQUET = (".parquet", ".geoparquet", ".pq")
ENDINGS = (".json", ".geojson", *LINES, *PARQUET)

OF_ITEM = ("type", "stac_version", "stac_extensions", "id", "geometry", "bbox", "links", "assets", "collection")
"""Columns of stac-geoparquet that are not properties."""

AS_TEXT = ("assets", "links", "bbox", "stac_extensions", "properties")
"""Columns that some writers fill with JSON as text."""

ATTEMPTS, PAUSE, SECONDS = 4, 0.5, 60
"""Requests for a document of the web: how many, seconds before the second (doubled each time), and seconds of each."""

PASSING = (408, 429, 500, 502, 503, 504)
"""HTTP statuses after which a request is repeated."""

Document = Mapping[str, Any]


NO_DEFAULTS: Mapping[str, Any] = MappingProxyType({})


class Item(NamedTuple):
    """A STAC item.

    Attributes
    ----------
    document : mapping
        As its JSON; ``geometry`` may be WKB.
    base : str
        The folder, local or a URL, where its relative hrefs start.
    defaults : mapping
        What its assets have in common with those of other items of its collection (``item_assets``), by name.
    """

    document: Document
    base: str
    defaults: Mapping[str, Any] = NO_DEFAULTS


def read_text(href: str, access: Access) -> str:
    """The text of a file.

    Raises
    ------
    InputError, MissingInputError, PermissionDeniedError
        It cannot be read, or is not UTF-8.
    """
    with _reading(href):
        if Location.of(href).is_web:
            return _fetched(href).decode("utf-8-sig")
        if Location.of(href).is_remote:
            with open_object(href, access) as file:
                return file.read().decode("utf-8-sig")
        with open(local_path(href), encoding="utf-8-sig") as file:
            return file.read()
    raise AssertionError("unreachable")


@contextmanager
def _reading(href: str) -> Iterator[None]:
    """Name the file in errors of reading it."""
    shown = without_secrets(href)
    try:
        yield
    except RasteretBeamError:
        raise
    except PermissionError as error:
        raise denied(href) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{shown} is not JSON in UTF-8: {one_line(error)}") from error
    except OSError as error:
        raise InputError(f"{shown} cannot be read: {one_line(error)}") from error


def _fetched(url: str) -> bytes:
    """The answer to a request: an API does not tell its length before, as reading by ranges needs it."""
    request = Request(url, headers={"Accept": "application/geo+json, application/json"})
    for attempt in range(1, ATTEMPTS + 1):
        try:
            with urlopen(request, timeout=SECONDS) as answer:
                found: bytes = answer.read()
                return found
        except OSError as error:
            status = getattr(error, "code", None)
            if attempt == ATTEMPTS or (status is not None and status not in PASSING):
                raise
            sleep(PAUSE * 2 ** (attempt - 1))
    raise AssertionError("unreachable")


def read_documents(place: str, access: Access) -> Iterator[tuple[str, Document]]:
    """The documents of a file, a folder or a glob, each with the path or URL of its file.

    Raises
    ------
    InputError, MissingInputError, CollectionError
        There is no file, or one cannot be read.
    """
    for path in document_files(place, access):
        yield from ((path, document) for document in documents_in(path, access))


def document_files(place: str, access: Access) -> list[str]:
    """The files of a path, a folder or a glob."""
    found = [file.path for file in find([place], ENDINGS, "STAC file", access)]
    return [path if Location.of(path).is_remote else absolute(path) for path in found]


def form_of(path: str) -> str:
    """The form of a file by its name: "parquet", "lines" or "json"."""
    name = path.partition("?")[0].lower()
    return "parquet" if name.endswith(PARQUET) else "lines" if name.endswith(LINES) else "json"


def documents_in(path: str, access: Access) -> Iterator[Document]:
    """The documents of a file.

    Raises
    ------
    InputError, MissingInputError, CollectionError
        It cannot be read.
    """
    form = form_of(path)
    if form == "parquet":
        yield from _rows(read_record_table(path, access), path)
    elif form == "lines":
        yield from (parsed(line, f"line {number} of {path}") for number, line in lines_of(path, access))
    else:
        yield parsed(read_text(path, access), path)


def lines_of(path: str, access: Access) -> Iterator[tuple[int, str]]:
    """The lines of a file that are not blank, with their numbers from 1; a file that is not on the web is streamed.

    Raises
    ------
    InputError, MissingInputError, PermissionDeniedError
        It cannot be read, or is not UTF-8.
    """
    if Location.of(path).is_web:
        lines: Iterable[str] = read_text(path, access).split("\n")  # not at U+2028 in texts
        yield from ((number, line) for number, line in enumerate(lines, 1) if line.strip())
        return
    with _reading(path):
        remote = Location.of(path).is_remote
        raw = open_to_the_end(path, access) if remote else BufferedReader(FileIO(local_path(path)))
        with TextIOWrapper(raw, encoding="utf-8-sig", newline="\n") as file:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())


def row_groups(path: str, access: Access) -> int:
    """Number of row groups of stac-geoparquet."""
    with open_arrow_file(path, access) as file:
        return int(file.num_row_groups)


def documents_of_row_group(path: str, number: int, access: Access) -> Iterator[Document]:
    """The items of a row group of stac-geoparquet."""
    with open_arrow_file(path, access) as file:
        yield from _rows(file.read_row_group(number), path)


@contextmanager
def open_arrow_file(path: str, access: Access) -> Iterator[pq.ParquetFile]:
    """A Parquet file.

    Raises
    ------
    InputError
    """
    with _reading(path):
        source = open_object(path, access) if Location.of(path).is_remote else local_path(path)
        try:
            with pq.ParquetFile(source) as file:
                yield file
        except pa.ArrowException as error:
            raise InputError(f"{without_secrets(path)} cannot be read as Parquet: {one_line(error)}") from error


def parsed(text: str, what: str) -> Document:
    """JSON as an object.

    Raises
    ------
    InputError
        The text is not JSON, or not an object.
    """
    try:
        found = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise InputError(f"{without_secrets(what)} is not JSON: {error}") from error
    if not isinstance(found, Mapping):
        raise InputError(f"{without_secrets(what)} is a JSON {type(found).__name__}; a STAC document is an object")
    return found


def items_in(document: Document, what: str) -> Iterator[Document] | None:
    """The items that a document is or holds; None for a catalog or a collection, which links to them.

    Raises
    ------
    InputError
        It is something else.
    """
    kind = document.get("type")
    if kind == "Feature":
        return iter([document])
    if kind == "FeatureCollection":
        features = document.get("features")
        if not isinstance(features, list):
            raise InputError(f"{without_secrets(what)} is a FeatureCollection without a list of features")
        wrong = next((found for found in features if not isinstance(found, Mapping)), what)
        if wrong is not what:
            raise InputError(
                f"{without_secrets(what)} has a feature that is a JSON {type(wrong).__name__}; an item is an object"
            )
        return (feature for found in features for feature in items_in(found, what) or ())
    if kind in ("Catalog", "Collection"):
        return None
    raise InputError(
        f"{without_secrets(what)} has type {kind!r}; a STAC document has 'Feature', 'FeatureCollection', 'Catalog' or "
        "'Collection'"
    )


def _rows(table: pa.Table, path: str) -> Iterator[Document]:
    """The rows of stac-geoparquet as items; members may also be JSON as text."""
    missing = [name for name in ("id", "assets") if name not in table.column_names]
    if missing:
        raise InputError(
            f"{without_secrets(path)} has no column {missing[0]!r}, so it is not stac-geoparquet; for another table of "
            "records use build_from_table (--table)"
        )
    for batch in table.to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            row |= {name: _from_text(row[name], name, row["id"], path) for name in AS_TEXT if name in row}
            properties = row.pop("properties", None) or {}
            yield {
                **{name: _without_nulls(row[name]) for name in OF_ITEM if row.get(name) is not None},
                "type": "Feature",
                "properties": _without_nulls(
                    properties | {name: value for name, value in row.items() if name not in OF_ITEM}
                ),
            }


def _from_text(value: Any, name: str, item: Any, path: str) -> Any:
    """A member of an item, parsed if it is JSON as text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise InputError(
            f"column {name!r} of item {item!r} in {without_secrets(path)} is {value[:60]!r}, which is not JSON"
        ) from error


def _without_nulls(value: Any) -> Any:
    """A value as JSON has it: structs without the fields that other rows have, datetimes as texts."""
    if isinstance(value, Mapping):
        return {name: _without_nulls(one) for name, one in value.items() if one is not None}
    if isinstance(value, Datetime):
        return f"{to_datetime(value):%Y-%m-%dT%H:%M:%S.%f}Z"
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value


def base_of(path: str) -> str:
    """Where the relative hrefs of a document start."""
    return folder_of(path) if path else os.getcwd()


def wkb_of(geometry: Any, what: str) -> bytes | None:
    """The geometry of an item, GeoJSON or WKB, as WKB without heights.

    Raises
    ------
    InputError
        It is neither.
    """
    if geometry is None:
        return None
    try:
        shape = (
            shapely.from_wkb(geometry)
            if isinstance(geometry, bytes)
            else shapely.from_geojson(geometry if isinstance(geometry, str) else json.dumps(geometry))
        )
    except (shapely.errors.GEOSException, TypeError) as error:
        raise InputError(f"the geometry of {what} is {str(geometry)[:60]!r}, which is not GeoJSON") from error
    return bytes(shapely.to_wkb(shapely.force_2d(shape)))
