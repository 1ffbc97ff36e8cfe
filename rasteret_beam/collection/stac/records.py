"""STAC items as records of a collection: searched, and with what they tell of their files."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rasteret_beam.collection.eager.unknown_keywords import names_of
from rasteret_beam.collection.filters.criteria import in_range, meets_box
from rasteret_beam.collection.filters.date_ranges import DateRange, date_bounds
from rasteret_beam.collection.records.record_tables import record_table, sources_from_table
from rasteret_beam.collection.records.records import RecordSource
from rasteret_beam.collection.stac.bands import Wanted, wanted_bands
from rasteret_beam.collection.stac.rows import ItemTable, NoItemsError, item_table
from rasteret_beam.collection.stac.sources import Search, find_items
from rasteret_beam.errors import InputError, did_you_mean, listed, without_secrets
from rasteret_beam.model import DEFAULT_ACCESS, Access, BandHeader
from rasteret_beam.readers.storage.signing import check_sign

OPERATORS = {
    "eq": pc.equal,
    "neq": pc.not_equal,
    "lt": pc.less,
    "lte": pc.less_equal,
    "gt": pc.greater,
    "gte": pc.greater_equal,
    "startsWith": pc.starts_with,
    "endsWith": pc.ends_with,
    "contains": pc.match_substring,
    "in": lambda values, wanted: pc.is_in(values, value_set=pa.array(wanted)),
}
"""Those of STAC's query extension."""


def search_of(
    collections: str | Sequence[str] = (),
    bbox: Sequence[float] | None = None,
    datetime: DateRange | None = None,
    query: Mapping[str, Any] | None = None,
) -> Search:
    """What is wanted of a source, checked.

    Raises
    ------
    InputError
    """
    if bbox is not None:
        meets_box(bbox)
    if datetime is not None:
        date_bounds(datetime)
    _check_query(query)
    box = None if bbox is None else tuple(float(side) for side in bbox)
    return Search(tuple(names_of(collections, "collections")), box, datetime, query)


def sources_from_stac(
    source: Any,
    *,
    bands: Sequence[str] | Mapping[str, str | tuple[str, int]] | None = None,
    search: Search = Search(),  # noqa: B008
    newest: bool = False,
    alternate: str | None = None,
    enrich: bool | str = "auto",
    access: Access = DEFAULT_ACCESS,
    each_band: bool = True,
) -> tuple[list[RecordSource], list[str]]:
    """The records of :func:`build_from_stac` before their files are opened, and their bands."""
    check_sign(access)
    wanted: Wanted | None = wanted_bands(bands)
    found = item_table(find_items(source, search, access), wanted, alternate, newest, each_band)
    table = selected(record_table(found.table, access=access, bands=found.bands), search)
    return sources_of(found, table, enrich, access), found.bands


def sources_of(found: ItemTable, table: pa.Table, enrich: bool | str, access: Access) -> list[RecordSource]:
    """The records of items, of which ``table`` has those that are wanted."""
    _check_paid(found, table["id"].to_pylist(), access)
    # Boxes of files take the place of those of items, which may be rounded.
    sources = sources_from_table(table.drop_columns(["bbox"]), found.bands)
    return [replace(each, known=_known(found, each, enrich)) for each in sources]


def _check_paid(found: ItemTable, ids: Sequence[str], access: Access) -> None:
    """Refuse items whose files are paid for by the requester, if the access does not say so.

    Raises
    ------
    InputError
    """
    if access.requester_pays or not found.paid:
        return
    paid = [name for name in ids if name in found.paid]
    if paid:
        asset, href = found.paid[paid[0]]
        setting = "True" if href.startswith("s3://") else "'my-project'"
        raise InputError(
            f"item {paid[0]!r} says that the requester pays for asset {asset!r}, {without_secrets(href)} "
            f"({len(paid)} of {len(ids)} items are such); read it with access=Access(requester_pays={setting}), or "
            "take other hrefs with alternate=..."
        )


def _known(found: ItemTable, source: RecordSource, enrich: bool | str) -> dict[str, BandHeader]:
    """The headers that are not read, of the bands of an item."""
    if enrich is True:
        return {}
    known = {}
    for band, header in found.headers[source.id].items():
        if isinstance(header, BandHeader):
            if enrich is False or band not in found.tiffs[source.id]:
                known[band] = header
        elif enrich is False:
            raise InputError(
                f"enrich is False, but the header of band {band!r} of item {source.id!r} has to be read: {header}; use "
                'enrich="auto"'
            )
    return known


def selected(items: pa.Table, search: Search) -> pa.Table:
    """The items that are wanted, as far as the source has not selected them.

    Raises
    ------
    InputError
        A property is unknown or of another type, or no item is left.
    """
    table = among(items, search)
    if not len(table):
        raise none_wanted(len(items))
    return table


def none_wanted(count: int) -> NoItemsError:
    """The error about items of which none is wanted."""
    return NoItemsError(
        f"none of the {count} items is of the collections, bbox, datetime and query asked for; widen them"
    )


def among(items: pa.Table, search: Search) -> pa.Table:
    """As :func:`selected`, but there may be none."""
    table = items
    if search.collections:
        table = table.filter(pc.field("collection").isin(list(search.collections)))
    if search.bbox is not None:
        table = table.filter(meets_box(search.bbox))
    if search.datetime is not None:
        table = table.filter(in_range(search.datetime, table.schema))
    for name, conditions in (search.query or {}).items():
        if name not in table.column_names:
            raise InputError(
                f"query names property {name!r}{did_you_mean(name, table.column_names)}, which no item has; the items "
                f"have {listed(table.column_names)}"
            )
        for operator, value in conditions.items():
            table = table.filter(_meets(table[name], name, operator, value))
    return table


def _meets(values: pa.ChunkedArray, name: str, operator: str, wanted: Any) -> pa.ChunkedArray:
    try:
        return OPERATORS[operator](values, wanted)
    except (pa.ArrowException, TypeError) as error:
        raise InputError(
            f"query compares property {name!r}, which is {values.type}, with {wanted!r} by {operator!r}: {error}"
        ) from error


def _check_query(query: Mapping[str, Any] | None) -> None:
    example = '{"eo:cloud_cover": {"lt": 20}}'
    if query is not None and not isinstance(query, Mapping):
        raise InputError(f"query is {query!r}; give conditions by property, such as {example}")
    for name, conditions in (query or {}).items():
        if not isinstance(conditions, Mapping):
            raise InputError(f"query has {conditions!r} for {name!r}; give conditions, such as {example}")
        for operator in conditions:
            if operator not in OPERATORS:
                raise InputError(
                    f"query has operator {operator!r} for {name!r}{did_you_mean(str(operator), OPERATORS)}; there are "
                    f"{listed(OPERATORS)}"
                )
