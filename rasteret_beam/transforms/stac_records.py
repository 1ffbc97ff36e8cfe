"""STAC items as records, read and converted by workers."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from itertools import islice
from os import PathLike, fspath
from typing import Any, NamedTuple

import apache_beam as beam

from rasteret_beam import metrics
from rasteret_beam.collection.filters.date_ranges import DateRange
from rasteret_beam.collection.records.record_tables import record_table
from rasteret_beam.collection.records.records import RecordSource
from rasteret_beam.collection.stac.bands import Wanted, wanted_bands
from rasteret_beam.collection.stac.documents import (
    Document,
    Item,
    base_of,
    document_files,
    documents_in,
    documents_of_row_group,
    form_of,
    items_in,
    lines_of,
    parsed,
    row_groups,
)
from rasteret_beam.collection.stac.records import among, none_wanted, search_of, sources_of
from rasteret_beam.collection.stac.rows import Summary, check_members, key_of, named_items, table_of
from rasteret_beam.collection.stac.sources import Search, find_items
from rasteret_beam.errors import InputError, without_secrets
from rasteret_beam.model import DEFAULT_ACCESS, Access
from rasteret_beam.readers.storage.signing import check_sign
from rasteret_beam.transforms.runtime.beam_metrics import count

LINES = 256
"""Lines of JSON of an element."""

ITEMS = 256
"""Items that become records at a time."""


class _Part(NamedTuple):
    """What one worker reads: a file of JSON, a row group of a Parquet file, or some lines with their numbers."""

    path: str
    number: int
    lines: tuple[tuple[int, str], ...] = ()


class _Found(NamedTuple):
    """An item, and its place in the input, which decides between equal ones."""

    order: tuple[str, int, int]
    document: Document
    base: str


@dataclass(eq=False)
class StacRecords(beam.PTransform):
    """The items of STAC files as records, for :class:`rasteret_beam.BuildCollection`.

    Workers read the files, in parts: row groups of stac-geoparquet and lines of NDJSON; a file of JSON is a part. As
    :func:`rasteret_beam.build_from_stac` does, the transform takes each item once, and makes the same columns of
    properties of all items, for which all documents cross a shuffle.

    Parameters
    ----------
    source : str or list of str
        Files, folders or globs of items and item collections (``.json``, ``.geojson``), NDJSON and stac-geoparquet,
        local, in a bucket or on the web; or a list of items as dicts, which becomes part of the pipeline.
    bands, collections, bbox, datetime, query, newest, alternate, enrich, access
        As of :func:`rasteret_beam.build_from_stac`; ``sign`` is set in ``access``.

    Yields
    ------
    RecordSource

    Raises
    ------
    MissingInputError
        When made: there is no file.
    InputError
        While running: a document is not that of an item, no item is wanted, or none has a band.
    """

    source: Any
    _: KW_ONLY
    bands: Sequence[str] | Mapping[str, str | tuple[str, int]] | None = None
    collections: str | Sequence[str] = ()
    bbox: Sequence[float] | None = None
    datetime: DateRange | None = None
    query: Mapping[str, Any] | None = None
    newest: bool = False
    alternate: str | None = None
    enrich: bool | str = "auto"
    access: Access = DEFAULT_ACCESS
    search: Search = field(init=False, repr=False)
    files: list[str] = field(init=False, repr=False)
    given: list[_Found] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        check_sign(self.access)
        self.search = search_of(self.collections, self.bbox, self.datetime, self.query)
        sources = [self.source] if isinstance(self.source, str | PathLike | Mapping) else list(self.source)
        places = [each for each in sources if isinstance(each, str | PathLike)]
        self.files = [path for place in places for path in document_files(fspath(place), self.access)]
        items = find_items([each for each in sources if not isinstance(each, str | PathLike)], self.search, self.access)
        self.given = [_Found(("", 0, number), each.document, each.base) for number, each in enumerate(items)]

    def expand(self, pipeline: Any) -> beam.PCollection[RecordSource]:
        wanted = wanted_bands(self.bands)
        found = self._found(pipeline)
        if self.newest:
            found = (
                found
                | "ByScene" >> beam.Map(_with_scene).with_output_types(tuple[str, Any])
                | "GroupScenes" >> beam.GroupByKey()
                | "Newest" >> beam.Map(_newest)
            )
        items = (
            found
            | "ById" >> beam.Map(_with_id).with_output_types(tuple[str, Any])
            | "GroupIds" >> beam.GroupByKey()
            | "Name" >> beam.FlatMap(_named)
            | "BatchItems" >> beam.BatchElements(min_batch_size=ITEMS, max_batch_size=ITEMS)
        )
        parts = items | "Summarise" >> beam.Map(partial(_summary, wanted))
        summary = parts | "Join" >> beam.CombineGlobally(Summary.joined)
        summary | "CheckBands" >> beam.Map(_check, wanted)
        shared = beam.pvalue.AsSingleton(summary)
        records = items | "Records" >> beam.ParDo(_RecordsFn(self, wanted), shared)
        records | "Count" >> beam.combiners.Count.Globally() | "CheckCount" >> beam.Map(_refuse_none, shared)
        return records

    def _found(self, pipeline: Any) -> beam.PCollection[_Found]:
        read = (
            pipeline
            | "Files" >> beam.Create(self.files)
            | "SpreadFiles" >> beam.Reshuffle()
            | "Parts" >> beam.FlatMap(partial(_parts, self.access))
            | "SpreadParts" >> beam.Reshuffle()
            | "Read" >> beam.FlatMap(partial(_read, self.access))
        )
        return (read, pipeline | "Given" >> beam.Create(self.given)) | beam.Flatten()


class _RecordsFn(beam.DoFn):
    """Makes records of items."""

    def __init__(self, of: StacRecords, wanted: Wanted | None):
        self.search, self.alternate, self.enrich, self.access = of.search, of.alternate, of.enrich, of.access
        self.wanted = wanted

    def process(self, items: list[tuple[str, Item]], summary: Summary) -> Iterator[RecordSource]:
        found = table_of(items, self.wanted, self.alternate, summary.kinds)
        table = among(record_table(found.table, access=self.access, bands=found.bands), self.search)
        if len(table):
            yield from sources_of(found, table, self.enrich, self.access)


def _parts(access: Access, path: str) -> Iterator[_Part]:
    form = form_of(path)
    if form == "parquet":
        yield from (_Part(path, number) for number in range(row_groups(path, access)))
    elif form == "lines":
        lines = lines_of(path, access)
        while some := tuple(islice(lines, LINES)):
            yield _Part(path, some[0][0], some)
    else:
        yield _Part(path, 0)


def _read(access: Access, part: _Part) -> Iterator[_Found]:
    base, number = base_of(part.path), 0
    for document in _documents(access, part):
        items = items_in(document, part.path)
        if items is None and part.lines:
            raise InputError(f"{without_secrets(part.path)} has a {document.get('type')} in a line; items are read")
        for each in items or ():
            yield _Found((part.path, part.number, number), each, base)
            number += 1
    count({metrics.ITEMS_FOUND: number})


def _documents(access: Access, part: _Part) -> Iterator[Document]:
    if part.lines:
        return (parsed(line, f"line {number} of {part.path}") for number, line in part.lines)
    if form_of(part.path) == "parquet":
        return documents_of_row_group(part.path, part.number, access)
    return documents_in(part.path, access)


def _item(found: _Found) -> Item:
    item = Item(found.document, found.base, {})
    check_members(item)
    return item


def _with_scene(found: _Found) -> tuple[str, _Found]:
    return json.dumps(key_of(_item(found).document, True), default=str), found


def _with_id(found: _Found) -> tuple[str, _Found]:
    return str(_item(found).document["id"]), found


def _newest(group: tuple[str, Iterable[_Found]]) -> _Found:
    found = sorted(group[1], key=lambda each: each.order)
    ((_, item),) = named_items(map(_item, found), newest=True)
    return next(each for each in found if each.document is item.document)


def _named(group: tuple[str, Iterable[_Found]]) -> list[tuple[str, Item]]:
    found = sorted(group[1], key=lambda each: each.order)
    return named_items(map(_item, found), newest=False)


def _summary(wanted: Wanted | None, items: list[tuple[str, Item]]) -> Summary:
    return Summary.of(items, wanted)


def _check(summary: Summary, wanted: Wanted | None) -> None:
    summary.check(wanted)


def _refuse_none(records: int, summary: Summary) -> None:
    if not records and summary.items:
        raise none_wanted(summary.items)
