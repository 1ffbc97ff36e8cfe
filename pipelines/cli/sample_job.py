"""The sampling job that the flags of a command ask for."""

import argparse
import dataclasses
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions

from pipelines.cli.flags import access, access_of_collection, csv_settings
from pipelines.cli.memory_report import MemoryCheck, is_local
from pipelines.cli.remote_workers import check_collection, check_packages, check_paths, collection_place
from rasteret_beam.collection.collection import Collection, load
from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.routing.no_hit import why_nothing_hit
from rasteret_beam.kernels.sampling.layouts import check_layout
from rasteret_beam.kernels.sampling.neighbourhood import Neighbourhood
from rasteret_beam.model import DEFAULT_ACCESS
from rasteret_beam.readers.storage.output_conflicts import Read, Written, check_apart
from rasteret_beam.readers.tiles.budget import CacheBudget
from rasteret_beam.schema import DEAD_LETTER_SCHEMA, kept_fields, samples_schema, unsampled_schema
from rasteret_beam.transforms import (
    BigQueryQuery,
    BigQueryTable,
    ReadPoints,
    SampleDeadLetters,
    SamplePoints,
    WriteSamplesToBigQuery,
    WriteSamplesToParquet,
)
from rasteret_beam.transforms.runtime.files import check_writable
from rasteret_beam.transforms.sinks.commit import PutInPlace

STEPS = {"samples": "WriteSamples", "unsampled": "WriteUnsampled", "dead_letters": "WriteDeadLetters"}
FLAGS = {"samples": "output", "unsampled": "unsampled", "dead_letters": "dead_letter"}

READ_OR_WRITTEN = "points retry output unsampled dead_letter".split()
"""Flags with paths that workers have to see."""

NOT_WITH_RETRY = (
    "x_column y_column geometry_column geometry_crs columns points_project points_snapshot points_index "
    "points_anonymous points_requester_pays column_types csv_delimiter csv_decimal csv_encoding bands bbox date_range "
    "match layout unsampled"
).split()

Sink = WriteSamplesToParquet | WriteSamplesToBigQuery

BIGQUERY_SETTINGS = {
    "bq_method": "method",
    "bq_create_disposition": "create_disposition",
    "bq_write_disposition": "write_disposition",
    "bq_cluster_by": "cluster_by",
    "bq_partition_by": "partition_by",
    "bq_run_id": "run_id",
}


def _source(flags: argparse.Namespace, options: PipelineOptions) -> list[str] | BigQueryTable | BigQueryQuery:
    """Where points are read from."""
    settings = {"project": flags.points_project, "snapshot": flags.points_snapshot, "index": flags.points_index}
    given = [f"--points_{name}" for name, value in settings.items() if value]
    if flags.points:
        if given:
            raise InputError(f"{listed(given)} given without --points_table or --points_query")
        return list(flags.points)
    if access(flags, "points_") is not None:
        raise InputError("--points_anonymous and --points_requester_pays say how files are read; they go with --points")
    project, index = flags.points_project or options.view_as(GoogleCloudOptions).project, flags.points_index
    if flags.points_table:
        return BigQueryTable(
            flags.points_table, index_column=index, snapshot_time=flags.points_snapshot, project=project
        )
    if flags.points_snapshot:
        raise InputError("--points_snapshot goes with --points_table; in a query write FOR SYSTEM_TIME AS OF")
    return BigQueryQuery(flags.points_query, index_column=index, project=project)


def _writing(flags: argparse.Namespace, schema: pa.Schema) -> Sink:
    """The sink of the samples."""
    given = {setting: getattr(flags, flag) for flag, setting in BIGQUERY_SETTINGS.items() if getattr(flags, flag)}
    if flags.bigquery is None:
        if given:
            raise InputError(f"{listed(f'--bq_{name}' for name in given)} given without --bigquery")
        return WriteSamplesToParquet(flags.output, schema=schema)
    return WriteSamplesToBigQuery(flags.bigquery, schema=schema, **given)


class Inputs:
    """What the flags say of points, collection and bands; making it finds out what is wrong with them.

    Raises
    ------
    RasteretBeamError
        Something is missing, unknown or unusable.
    """

    def __init__(self, flags: argparse.Namespace, options: PipelineOptions):
        self.collection = _collection(flags)
        self.reading: ReadPoints | None = None
        if not flags.retry:
            self._look_at_points(flags, options)

    def _look_at_points(self, flags: argparse.Namespace, options: PipelineOptions) -> None:
        self.bands = self.collection.check_usable(flags.bands, flags.match)
        self.match = flags.match
        self.reading = ReadPoints(
            _source(flags, options),
            x_column=flags.x_column,
            y_column=flags.y_column,
            geometry_column=flags.geometry_column,
            geometry_crs=flags.geometry_crs,
            columns=flags.columns,
            access=access(flags, "points_") or DEFAULT_ACCESS,
            **csv_settings(flags),
        )
        self.columns = self.reading.point_columns()
        if is_local(options) or flags.plan:
            self.memory = MemoryCheck(self.reading.size(), CacheBudget(flags.cache_mb << 20))
        if is_local(options):
            self.memory.warn()
        # A query runs when the job reads, by the account of its workers, whose result no other account may read.
        self.first = next(self.reading.batches(), None) if not flags.points_query else None
        if self.first is None and not flags.points_query:
            raise InputError(f"{listed(flags.points or [flags.points_table])} holds no points: there is no row in it")

    def index(self) -> CollectionIndex:
        """What routing and reading need to know of the collection."""
        return self.collection.index(self.bands, self.match)

    def look_at_memory(self) -> MemoryCheck:
        """What a local run should need, now that the first points can be routed; they are released.

        Only for a local run or a plan.
        """
        first, self.first = self.first, None
        if first is not None:
            self.memory.route(self.index().routing, first, self.columns.crs)
        return self.memory

    def why_nothing_sampled(self) -> str:
        """Why all points are unsampled, as far as the first batch of them tells."""
        assert self.reading is not None
        first = next(self.reading.batches(), None)
        if first is None:
            return "the query gave no row"
        return why_nothing_hit(self.index().routing, first, self.columns.crs)


class Job(Inputs):
    """The job that the flags ask for; making it finds out what is wrong with them before any pixel is read.

    Raises
    ------
    RasteretBeamError
        Something is missing, unknown or unusable.
    """

    def __init__(self, flags: argparse.Namespace, options: PipelineOptions):
        check_packages(options)
        given = {f"--{name}": getattr(flags, name) for name in READ_OR_WRITTEN}
        given |= {"--collection": collection_place(flags.collection)}
        check_paths(options, given, lambda: _collection(flags))
        super().__init__(flags, options)
        self.beam_options = options
        self.around = Neighbourhood(flags.max_distance_pixels, flags.return_neighbourhood, flags.fallback)
        self.options = {
            **dataclasses.asdict(self.around),
            "on_error": "dead_letter" if flags.dead_letter else "raise",
            "cache_bytes": CacheBudget(flags.cache_mb << 20).total,
            "prefix_reads": flags.prefix_reads,
        }
        check_layout(flags.layout, self.around, self.options["on_error"])
        kept = self._retry(flags) if flags.retry else self._sample(flags)
        check_collection(options, self.collection, self.bands)
        self.collection.check_files()
        schema = samples_schema(kept, self.around.returned, flags.layout, self.bands)
        self.sinks: dict[str, Sink] = {"samples": _writing(flags, schema)}
        if flags.unsampled:
            self.sinks["unsampled"] = WriteSamplesToParquet(flags.unsampled, schema=unsampled_schema(kept))
        if flags.dead_letter:
            self.sinks["dead_letters"] = WriteSamplesToParquet(flags.dead_letter, schema=DEAD_LETTER_SCHEMA)
        outputs = [Written(f"--{FLAGS[name]}", sink.prefix) for name, sink in self.parquet.items()]
        read = {"--points": flags.points, "--retry": flags.retry, "--collection": [flags.collection]}
        check_apart(outputs, [Read(flag, paths) for flag, paths in read.items() if paths])
        _check_sinks(self.parquet)
        if self.bigquery is not None:
            self.bigquery.check(options)

    @property
    def parquet(self) -> dict[str, WriteSamplesToParquet]:
        """The sinks that are files."""
        return {name: sink for name, sink in self.sinks.items() if isinstance(sink, WriteSamplesToParquet)}

    @property
    def bigquery(self) -> WriteSamplesToBigQuery | None:
        """The sink of the samples, where it is a BigQuery table."""
        sink = self.sinks["samples"]
        return sink if isinstance(sink, WriteSamplesToBigQuery) else None

    @property
    def kept(self) -> list[str]:
        """Folders of files under way that stay after a failure."""
        loads = self.bigquery is not None and self.bigquery.method == "FILE_LOADS"
        return [self.bigquery.temporary(self.beam_options)] if self.bigquery is not None and loads else []

    @property
    def counts_rows(self) -> bool:
        """Whether all sinks are ours, which count the rows that they write."""
        return self.bigquery is None or self.bigquery.method == "FILE_LOADS"

    @property
    def place(self) -> str:
        """What the output is called."""
        return str(self.bigquery.name) if self.bigquery is not None else f"{self.parquet['samples'].prefix}-*.parquet"

    def is_loaded(self) -> bool:
        """Whether a run of the same id has brought its rows into BigQuery."""
        return self.bigquery is not None and self.bigquery.is_loaded(self.beam_options)

    def loaded(self) -> str | None:
        """The BigQuery table, if this run has brought its rows in by a load job."""
        by_load = self.bigquery is not None and self.bigquery.method == "FILE_LOADS"
        if self.bigquery is None or not (by_load and self.bigquery.has_loaded(self.beam_options)):
            return None
        return str(self.bigquery.name)

    @property
    def places(self) -> list[str]:
        """All outputs."""
        tables = [str(self.bigquery.name)] if self.bigquery is not None else []
        return [*tables, *(sink.prefix for sink in self.parquet.values())]

    def _sample(self, flags: argparse.Namespace) -> list[pa.Field]:
        """Sample a point table; gives the columns that pass through."""
        self.sampling: beam.PTransform = SamplePoints(
            self.collection, self.bands, match=flags.match, layout=flags.layout, with_unsampled=True, **self.options
        )
        return kept_fields(self.columns.schema)

    def _retry(self, flags: argparse.Namespace) -> list[pa.Field]:
        """Sample dead letters; gives the columns that pass through."""
        given = [name for name in NOT_WITH_RETRY if getattr(flags, name) not in (None, False, "long", "all")]
        if given:
            raise InputError(f"--{given[0]} does not go with --retry, whose dead letters say it all; leave it out")
        again = SampleDeadLetters(self.collection, flags.retry, **self.options)
        self.bands = self.collection.check_usable(again.bands) if again.bands else []
        self.sampling = again
        return again.kept

    def build(self, pipeline: beam.Pipeline) -> None:
        """Add the job's steps to a pipeline."""
        points = pipeline | "ReadPoints" >> self.reading if self.reading is not None else pipeline
        outputs = points | "SamplePoints" >> self.sampling
        loaded = outputs.samples | STEPS["samples"] >> self.bigquery if self.bigquery is not None else None
        staged = [getattr(outputs, name) | STEPS[name] >> sink.staged() for name, sink in self.parquet.items()]
        if staged:
            staged | beam.Flatten() | PutInPlace(loaded)


def _check_sinks(sinks: dict[str, WriteSamplesToParquet]) -> None:
    taken: dict[str, str] = {}
    for name, sink in sinks.items():
        flag = f"--{FLAGS[name]}"
        if sink.prefix in taken:
            raise InputError(f"{taken[sink.prefix]} and {flag} are both {sink.prefix}; give two prefixes")
        taken[sink.prefix] = flag
        check_writable(sink.prefix)


def _collection(flags: Any) -> Collection:
    collection = load(flags.collection, access=access_of_collection(flags))
    return collection.narrowed(bbox=flags.bbox, date_range=flags.date_range)
