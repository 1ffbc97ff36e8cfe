"""Find STAC items: in memory, in files, in static catalogs, and behind an API."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime as Datetime
from importlib import import_module
from typing import Any

from rasteret_beam.collection.filters.date_ranges import DateRange, date_bounds
from rasteret_beam.collection.records.hrefs import absolute
from rasteret_beam.collection.stac.documents import (
    NO_DEFAULTS,
    Document,
    Item,
    base_of,
    items_in,
    read_documents,
    read_text,
)
from rasteret_beam.errors import InputError, MissingInputError, how_to_install, one_line, without_secrets
from rasteret_beam.metrics import ITEMS_FOUND, PROGRESS
from rasteret_beam.model import Access

log = logging.getLogger(__name__)

PAGE = 250
"""Items of a page that an API is asked for."""

RETRIES = 5

FORMS = (
    "give the URL of a STAC API, the path or URL of a catalog, an item collection, NDJSON or stac-geoparquet, or items "
    "in memory (pystac, or dicts)"
)


@dataclass(frozen=True)
class Search:
    """Which items are wanted.

    Attributes
    ----------
    collections : tuple of str
        Ids of STAC collections; empty for all.
    bbox : tuple of 4 floats, optional
        west, south, east, north in degrees; west > east crosses the antimeridian.
    datetime : optional
        As :func:`rasteret_beam.collection.filters.date_ranges.date_bounds` takes it.
    query : mapping
        Conditions on properties, as STAC's query extension has them: ``{"eo:cloud_cover": {"lt": 20}}``.
    """

    collections: tuple[str, ...] = ()
    bbox: tuple[float, ...] | None = None
    datetime: DateRange | None = None
    query: Mapping[str, Any] | None = None


def find_items(source: Any, search: Search, access: Access) -> Iterator[Item]:
    """The items of a source; an API selects them itself, other sources give all.

    Raises
    ------
    InputError, MissingInputError
        The source has another form, or cannot be read.
    """
    if isinstance(source, str | os.PathLike):
        yield from _of_place(os.fspath(source), search, access)
    else:
        yield from _in_memory(source, search, access)


def _in_memory(source: Any, search: Search, access: Access) -> Iterator[Item]:
    if callable(getattr(source, "get_items", None)):  # a pystac catalog or collection
        yield from map(_of_pystac, source.get_items(recursive=True))
    elif callable(getattr(source, "to_dict", None)) and hasattr(source, "assets"):
        yield _of_pystac(source)
    elif isinstance(source, Mapping):
        found = items_in(source, "the source")
        if found is None:
            raise InputError(
                "the source is a catalog as a dict, whose links have no place to start; give its path or URL"
            )
        for document in found:
            yield Item(document, base_of(_self_href(document)))
    elif isinstance(source, Iterable) and not isinstance(source, bytes):
        for each in source:
            yield from find_items(each, search, access)
    else:
        raise InputError(f"source is a {type(source).__name__}; {FORMS}")


def _of_pystac(item: Any) -> Item:
    document = item.to_dict(include_self_link=False, transform_hrefs=False)
    collection = item.get_collection()
    return Item(
        document, base_of(item.get_self_href() or ""), NO_DEFAULTS if collection is None else _defaults(collection)
    )


def _defaults(collection: Any) -> Mapping[str, Any]:
    found = collection.extra_fields.get("item_assets")
    return found if isinstance(found, Mapping) else NO_DEFAULTS


def _self_href(document: Document) -> str:
    links = document.get("links") or ()
    found = (link.get("href") for link in links if isinstance(link, Mapping) and link.get("rel") == "self")
    return next((href for href in found if isinstance(href, str)), "")


def _of_place(place: str, search: Search, access: Access) -> Iterator[Item]:
    for path, document in read_documents(place, access):
        found = items_in(document, path)
        if found is not None:
            for each in found:
                PROGRESS.add(ITEMS_FOUND)
                yield Item(each, base_of(path))
        elif path not in (place, absolute(place)):
            log.info("passed over %s, a catalog in a folder: the items in the folder are read", without_secrets(path))
        elif _is_api(document):
            yield from _of_api(path, search)
        else:
            yield from _of_catalog(path, access)


def _is_api(document: Document) -> bool:
    links = document.get("links") or ()
    return "conformsTo" in document and any(isinstance(link, Mapping) and link.get("rel") == "search" for link in links)


def _of_catalog(path: str, access: Access) -> Iterator[Item]:
    """The items of a static catalog, found by its links."""
    pystac = _package("pystac", "a catalog")

    class Reading(pystac.StacIO):  # type: ignore[misc,name-defined]
        """pystac reads documents as this package does."""

        def read_text(self, source: Any, *_: Any, **__: Any) -> str:
            return read_text(os.fspath(getattr(source, "href", source)), access)

        def write_text(self, *_: Any, **__: Any) -> None:
            raise NotImplementedError("catalogs are only read")

    try:
        catalog = pystac.read_file(path, stac_io=Reading())
        for item in catalog.get_items(recursive=True):
            PROGRESS.add(ITEMS_FOUND)
            yield _of_pystac(item)
    except (pystac.STACError, pystac.STACTypeError, KeyError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"the catalog {without_secrets(path)} cannot be read: {one_line(error)}") from error


def _of_api(url: str, search: Search) -> Iterator[Item]:
    """The items that an API finds, page by page."""
    client = _package("pystac_client", "a STAC API")
    try:
        api = client.Client.open(url, stac_io=client.stac_api_io.StacApiIO(max_retries=RETRIES))
        pages = api.search(
            limit=PAGE,
            collections=list(search.collections) or None,
            bbox=search.bbox,
            datetime=None if search.datetime is None else interval(search.datetime),
            query=None if search.query is None else dict(search.query),
        ).pages_as_dicts()
        count = 0
        defaults: dict[Any, Mapping[str, Any]] = {None: NO_DEFAULTS}
        for page in pages:
            count += len(page["features"])
            PROGRESS.add(ITEMS_FOUND, len(page["features"]))
            log.info("%d items found at %s", count, without_secrets(url))
            for each in page["features"]:
                name = each.get("collection")
                if name not in defaults:
                    defaults[name] = _defaults(api.get_collection(name))
                yield Item(each, base_of(_self_href(each)), defaults[name])
    except client.exceptions.APIError as error:
        raise InputError(f"the STAC API {without_secrets(url)} refused the search: {one_line(error)}") from error


def interval(dates: DateRange) -> str:
    """A time range as STAC's APIs take it."""
    first, last = (None if moment is None else f"{_rfc3339(moment)}Z" for moment in date_bounds(dates))
    return f"{first or '..'}/{last or '..'}"


def _rfc3339(moment: Datetime) -> str:
    return moment.isoformat(timespec="microseconds" if moment.microsecond else "seconds")


def _package(name: str, what: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise MissingInputError(f"{what} needs {name}, which is not installed: {how_to_install('stac')}") from error
