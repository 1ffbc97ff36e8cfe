"""Adding new STAC items to a collection."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from rasteret_beam.collection.filters.date_ranges import DateRange
from rasteret_beam.collection.records.headers import check_on_error, collection_table, read_records, settle_failures
from rasteret_beam.collection.stac.records import search_of, sources_from_stac


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
    """This collection and the items of a source that it lacks, by id; only their files are opened.

    Records that are there already stay as they are. ``export`` writes the result, also to the folder of the collection.

    Parameters
    ----------
    source, collections, bbox, datetime, query, newest, alternate, enrich, on_error
        As for :func:`rasteret_beam.build_from_stac`.
    bands : optional
        As for it; by default the collection's bands, by their names.

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
    found, names = sources_from_stac(source, bands=wanted, search=search, **settings)
    own = collection.to_table()
    known = set(own["id"].to_pylist())
    new = [each for each in found if each.id not in known]
    if not new:
        return collection
    records, failures = read_records(new, access=access)
    settle_failures(failures, on_error, len(records))
    table = pa.concat_tables([own, collection_table(records, names)], promote_options="permissive")
    return collection.from_table(
        table, name=collection.name, data_source=collection.data_source, failures=failures, access=access
    )
