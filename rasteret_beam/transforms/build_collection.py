"""Build a collection, with workers that read the headers of files."""

import logging
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass, field
from datetime import datetime as Datetime
from itertools import pairwise
from typing import Any
from uuid import uuid4

import apache_beam as beam
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from rasteret_beam import metrics
from rasteret_beam.collection.parquet.checksums import with_checksums
from rasteret_beam.collection.parquet.files import PARTITIONS
from rasteret_beam.collection.parquet.layout import schema_metadata
from rasteret_beam.collection.parquet.writing import row_group_rows
from rasteret_beam.collection.records.headers import Failures, check_on_error, collection_table, read_records
from rasteret_beam.collection.records.records import RecordHeaders, RecordSource
from rasteret_beam.errors import BuildError, InputError, without_secrets
from rasteret_beam.model import DEFAULT_ACCESS, Access
from rasteret_beam.readers.storage.local_files import writing
from rasteret_beam.readers.storage.stores import absolute
from rasteret_beam.transforms.runtime.beam_metrics import count
from rasteret_beam.transforms.runtime.files import check_output, delete_folder, matching
from rasteret_beam.transforms.sinks.commit import Output, Staged, commit

log = logging.getLogger(__name__)

FAILED = "failed"
READ_AHEAD = 64
"""Files that one worker opens concurrently."""


@dataclass(frozen=True)
class _Summary:
    """Facts that all files of a collection share: bands with their rank in a record, and the datetimes."""

    bands: dict[str, int] = field(default_factory=dict)
    first: Datetime | None = None
    last: Datetime | None = None
    other_footprints: bool = False
    """Whether some footprints are not in CRS84."""

    def ordered(self) -> list[str]:
        return sorted(self.bands, key=lambda band: (self.bands[band], band))


class _Summarise(beam.CombineFn):
    def create_accumulator(self) -> _Summary:
        return _Summary()

    def add_input(self, summary: _Summary, record: RecordHeaders) -> _Summary:
        ranks = {band: rank for rank, band in enumerate(record.headers)}
        other = record.footprint is not None and record.footprint.crs is not None
        return self._joined([summary, _Summary(ranks, *record.source.span, other)])

    def merge_accumulators(self, summaries: Iterable[_Summary]) -> _Summary:
        return self._joined(list(summaries))

    def _joined(self, summaries: list[_Summary]) -> _Summary:
        bands: dict[str, int] = {}
        for summary in summaries:
            for band, rank in summary.bands.items():
                bands[band] = max(rank, bands.get(band, 0))
        firsts = [summary.first for summary in summaries if summary.first is not None]
        lasts = [summary.last for summary in summaries if summary.last is not None]
        other = any(summary.other_footprints for summary in summaries)
        return _Summary(bands, min(firsts, default=None), max(lasts, default=None), other)

    def extract_output(self, summary: _Summary) -> _Summary:
        return summary


@dataclass(eq=False)
class BuildCollection(beam.PTransform):
    """Read the headers of the records' files and write the collection; returns the file names.

    ``build_from_cogs``, ``build_from_table`` and ``build_from_stac`` run the same code in one process. The input is
    made by ``sources_from_cogs`` of :mod:`rasteret_beam.collection.build`, ``sources_from_table`` of
    :mod:`rasteret_beam.collection.records.record_tables`, and ``sources_from_stac`` of
    :mod:`rasteret_beam.collection.stac.records`.

    Parameters
    ----------
    output : str or pathlib.Path
        Folder of the collection on any Beam filesystem; an existing collection is replaced after all files have been
        read.
    name, data_source : str
    on_error : "raise" or "skip"
        What to do if some files cannot be read, after all were tried.
    shards : int
        Number of files per year and month.
    access : Access
        Access to the buckets of the rasters.

    Raises
    ------
    BuildError
        While running: lists the files that could not be read.
    InputError
        While running: two records have the same id.
    """

    output: str
    _: KW_ONLY
    name: str = ""
    data_source: str = ""
    on_error: str = "raise"
    shards: int = 1
    access: Access = DEFAULT_ACCESS
    target: Output = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.output = absolute(self.output).rstrip("/")
        check_output(self.output, "collection")
        self.target = Output(self.output)
        check_on_error(self.on_error)

    def expand(self, sources: beam.PCollection) -> beam.PCollection[str]:
        read = (
            sources
            | "Spread" >> beam.Reshuffle()
            | "Batch" >> beam.BatchElements(min_batch_size=READ_AHEAD, max_batch_size=READ_AHEAD)
            | "ReadHeaders" >> beam.FlatMap(_read_headers, self.access).with_outputs(FAILED, main="records")
        )
        summary = beam.pvalue.AsSingleton(read["records"] | "Summarise" >> beam.CombineGlobally(_Summarise()))
        written = (
            read["records"]
            | "ByMonth" >> beam.Map(_partition, self.shards).with_output_types(tuple[tuple[int, int, int], Any])
            | "Group" >> beam.GroupByKey()
            | "Write" >> beam.Map(_write_part, summary, self.target.temporary, self.name, self.data_source)
            | "Collect" >> beam.combiners.ToList()
        )
        failures = beam.pvalue.AsList(read[FAILED])
        return written | "PutInPlace" >> beam.FlatMap(_finish, failures, self.target, self.on_error)


def _read_headers(sources: list[RecordSource], access: Access) -> Iterator[Any]:
    records, failures = read_records(sources, access=access)
    left_out = {source.id for source in sources} - {record.source.id for record in records}
    count(
        {
            metrics.RECORDS_IN: len(sources),
            metrics.RECORDS_READ: len(records),
            metrics.RECORDS_LEFT_OUT: sum(source.id in left_out for source in sources),
        }
    )
    yield from records
    for failure in failures:
        yield beam.pvalue.TaggedOutput(FAILED, failure)


def _partition(record: RecordHeaders, shards: int) -> tuple[tuple[int, int, int], RecordHeaders]:
    moment = record.source.datetime
    shard = zlib.crc32(record.source.id.encode()) % shards
    return (moment.year if moment else 0, moment.month if moment else 0, shard), record


def _write_part(
    keyed: tuple[tuple[int, int, int], Iterable[RecordHeaders]],
    summary: _Summary,
    temporary: str,
    name: str,
    data_source: str,
) -> tuple[str, str, list[str]]:
    """Write the records of one partition; returns its place in the collection, the file, and its record ids."""
    (year, month, shard), records = keyed
    ordered = sorted(records, key=lambda record: record.source.id)
    table = with_checksums(collection_table(ordered, summary.ordered(), summary.other_footprints), "the collection")
    metadata = schema_metadata(table, name, data_source)
    if summary.first is not None and summary.last is not None:
        metadata[b"date_range"] = f"{summary.first.isoformat()},{summary.last.isoformat()}".encode()
    values = [str(part) if part else "__HIVE_DEFAULT_PARTITION__" for part in (year, month)]
    folder = "/".join(f"{column}={value}" for column, value in zip(PARTITIONS, values, strict=True))
    path = f"{temporary}/{folder}/{uuid4().hex}.parquet"  # readers get year and month from it
    stored = table.drop_columns(list(PARTITIONS)).replace_schema_metadata(metadata)
    with writing(path, "collection"), FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        pq.write_table(stored, file, compression="zstd", row_group_size=row_group_rows(stored))
    count({metrics.RECORDS_WRITTEN: len(stored)})
    return f"{folder}/part-{shard}.parquet", path, [record.source.id for record in ordered]


def _finish(
    written: list[tuple[str, str, list[str]]], failures: Failures, target: Output, on_error: str
) -> Iterator[str]:
    failures = sorted(failures)
    if failures and (on_error == "raise" or not written):
        delete_folder(target.temporary)
        raise BuildError(failures)
    for href, reason in failures:
        log.warning("skipped in the collection: %s: %s", without_secrets(href), without_secrets(reason, href))
    ids = sorted(record for _, _, records in written for record in records)
    twice = [one for one, other in pairwise(ids) if one == other]
    if twice:
        raise InputError(f"record id {twice[0]!r} is given more than once; ids must be unique")
    moves = {f"{target.path}/{place}": path for place, path, _ in written}
    commit([Staged(target, moves, _parts)])
    yield from sorted(moves)


def _parts(output: str) -> list[str]:
    """Files of an earlier collection in this folder."""
    return matching(f"{output}/year=", "*/month=*/part-*.parquet")
