"""Adding new STAC items to a collection."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from rasteret_beam.collection.filters.date_ranges import DateRange
from rasteret_beam.collection.records.headers import check_on_error, collection_table, read_records, settle_failures
from rasteret_beam.collection.records.records import RecordSource
from rasteret_beam.collection.stac.records import search_of, sources_from_stac
from rasteret_beam.collection.stac.rows import NoItemsError
from rasteret_beam.errors import InputError

log = logging.getLogger(__name__)


def update_from_stac(
    collection: Any,
    source: Any,
    *,
    bands: Sequence[str] | Mapping[str, str | tuple[str, int]] | None = None,
    collections: str | Sequence[str] = (),
    bbox: Sequence[float] | None = None,
    datetime: DateRange | None = None,
    query: Mapping[str, Any] | None = None,
    newest: bool = False,
    alternate: str | None = None,
    enrich: bool | str = "auto",
    on_error: str = "raise",
) -> Any:
    """This collection and the items of a source that it lacks, by id and STAC collection; only their files are opened.

    Records that are there already stay as they are. ``export`` writes the result, also to the folder of the collection.

    Parameters
    ----------
    source, collections, bbox, datetime, query, newest, alternate, enrich, on_error
        As for :func:`rasteret_beam.build_from_stac`.
    bands : optional
        As for it; by default the collection's bands, by their names, of which new items may lack some.

    Returns
    -------
    Collection
        In memory; this collection itself if the source has nothing new.

    Raises
    ------
    InputError, MissingInputError, BuildError
        As for :func:`rasteret_beam.build_from_stac`.
    """
    check_on_error(on_error)
    wanted = list(collection.bands) if bands is None else bands
    search = search_of(collections, bbox, datetime, query)
    access = collection.access
    settings = {"newest": newest, "alternate": alternate, "enrich": enrich, "access": access}
    try:
        found, names = sources_from_stac(source, bands=wanted, search=search, each_band=bands is not None, **settings)
    except NoItemsError as error:
        log.info("nothing to add: %s", error)
        return collection
    own = collection.to_table()
    new = _new(found, own)
    if not new:
        return collection
    records, failures = read_records(new, access=access)
    settle_failures(failures, on_error, len(records))
    added = collection_table(records, names)
    ids = pa.array([record.source.id for record in records], type=pa.string())
    added = added.set_column(added.column_names.index("id"), "id", ids)
    table = pa.concat_tables(_agreeing(own, added), promote_options="permissive")
    return collection.from_table(
        table, name=collection.name, data_source=collection.data_source, failures=failures, access=access
    )


def _new(found: Sequence[RecordSource], own: pa.Table) -> list[RecordSource]:
    """The records that a table lacks: an id is that of an item within its STAC collection, where both have one.

    An id that a record of another STAC collection has there gets its own collection's id in front.
    """
    ids = own["id"].to_pylist()
    groups = own["collection"].to_pylist() if "collection" in own.column_names else [None] * len(ids)
    known = {(group, _bare(name, group)) for name, group in zip(ids, groups, strict=True)}
    taken, ungrouped = set(ids), {name for group, name in known if group is None}
    new = []
    for each in found:
        group = _group(each)
        bare = _bare(each.id, group)
        if (group, bare) in known or bare in ungrouped or (group is None and bare in taken):
            continue
        new.append(replace(each, id=f"{group}/{bare}") if each.id in taken else each)
    return new


def _group(source: RecordSource) -> str | None:
    """The id of the STAC collection of an item."""
    row = pa.ipc.open_stream(source.row).read_all()
    group: str | None = row["collection"][0].as_py()
    return group


def _bare(name: str, group: str | None) -> str:
    """The id of an item without that of its collection in front."""
    return name if group is None else name.removeprefix(f"{group}/")


def _agreeing(own: pa.Table, new: pa.Table) -> list[pa.Table]:
    """Both tables, where a column that is null in one of them has the type of the other.

    Raises
    ------
    InputError
        A property has other values than before.
    """
    tables = [own, new]
    for name in (name for name in new.column_names if name in own.column_names):
        kinds = [table.schema.field(name).type for table in tables]
        if kinds[0] == kinds[1] or not all(map(_is_plain, kinds)) or all(map(_is_number, kinds)):
            continue
        empty = next((at for at, table in enumerate(tables) if table[name].null_count == len(table)), None)
        if empty is None:
            raise InputError(
                f"property {name!r} is {kinds[1]} in the new items and {kinds[0]} in the collection; build the "
                "collection anew from all items with build_from_stac (--stac)"
            )
        at = tables[empty].column_names.index(name)
        nulls = pa.nulls(len(tables[empty]), kinds[1 - empty])
        tables[empty] = tables[empty].set_column(at, pa.field(name, nulls.type), nulls)
    return tables


def _is_plain(kind: pa.DataType) -> bool:
    return not pa.types.is_nested(kind)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)
