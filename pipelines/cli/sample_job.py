"""The sampling job that the flags of a command ask for."""

import argparse
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, StandardOptions

from pipelines.cli.flags import access, access_of_collection, csv_settings, option_values
from pipelines.cli.memory_report import DEFAULT_POINTS, MemoryCheck, is_local
from pipelines.cli.remote_workers import check_collection, check_packages, check_paths, collection_place
from pipelines.cli.report_flag import facts_of_job, plan_of_job
from pipelines.cli.rounds import Rounds
from pipelines.cli.run_identity import identity
from pipelines.cli.runner import is_waited_for
from pipelines.cli.sample_sinks import SAMPLE_SINKS, chosen_sink
from pipelines.cli.sinks import SinkOf, Sinks
from rasteret_beam import (
    BigQueryQuery,
    BigQueryTable,
    ReadPoints,
    SampleDeadLetters,
    SamplePoints,
    WriteSamplesToParquet,
)
from rasteret_beam.collection.collection import Collection, load
from rasteret_beam.collection.eager.report_facts import nodata_of_values
from rasteret_beam.collection.index.band_facts import sample_types
from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.collection.index.extra_columns import record_types
from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.routing.no_hit import why_nothing_hit
from rasteret_beam.kernels.tables.point_times import point_times
from rasteret_beam.model import DEFAULT_ACCESS
from rasteret_beam.option_fields import options_of
from rasteret_beam.options import SampleOptions
from rasteret_beam.readers.tiles.budget import CacheBudget
from rasteret_beam.scales import check_scaled_bands
from rasteret_beam.schema import DEAD_LETTER_SCHEMA, kept_fields, unsampled_schema
from rasteret_beam.transforms.sampling.summaries import SampleWithSummary
from rasteret_beam.transforms.sinks.report import WriteReport

READ_OR_WRITTEN = "points retry output unsampled dead_letter report".split()
"""Flags with paths that workers have to see."""

NOT_WITH_RETRY = (
    "x_column y_column geometry_column geometry_crs columns points_project points_snapshot points_index "
    "points_anonymous points_requester_pays column_types csv_delimiter csv_decimal csv_encoding bands bbox date_range "
    "unsampled"
).split()


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


def _sinks(flags: argparse.Namespace, schema: pa.Schema, kept: list[pa.Field], report: WriteReport | None) -> Sinks:
    """The sinks that the flags ask for."""
    found = [SinkOf("samples", "WriteSamples", *chosen_sink(SAMPLE_SINKS, flags, schema))]
    if flags.unsampled:
        sink = WriteSamplesToParquet(flags.unsampled, schema=unsampled_schema(kept))
        found.append(SinkOf("unsampled", "WriteUnsampled", "--unsampled", sink))
    if flags.dead_letter:
        sink = WriteSamplesToParquet(flags.dead_letter, schema=DEAD_LETTER_SCHEMA)
        found.append(SinkOf("dead_letters", "WriteDeadLetters", "--dead_letter", sink))
    if report is not None:
        found.append(SinkOf("report", "WriteReport", "--report", report, "page"))
    return Sinks(found)


def _check_retry(flags: argparse.Namespace) -> None:
    """Refuse what dead letters have decided."""
    decided = {each.name: each.default for each in options_of(SampleOptions) if not each.facts.retry}
    given = [name for name in NOT_WITH_RETRY if getattr(flags, name) not in (None, False)]
    given += [name for name, default in decided.items() if getattr(flags, name) != default]
    if given:
        raise InputError(f"--{given[0]} does not go with --retry, whose dead letters say it all; leave it out")


class Inputs:
    """What the flags say of points, collection and bands; making it finds out what is wrong with them.

    Raises
    ------
    RasteretBeamError
        Something is missing, unknown or unusable.
    """

    def __init__(self, flags: argparse.Namespace, options: PipelineOptions):
        if flags.retry:
            _check_retry(flags)
        self.collection = _collection(flags)
        given = option_values(flags, SampleOptions) | ({"on_error": "dead_letter"} if flags.dead_letter else {})
        self.options = SampleOptions(**given)
        self.reading: ReadPoints | None = None
        if not flags.retry:
            self._look_at_points(flags, options)

    def _look_at_points(self, flags: argparse.Namespace, options: PipelineOptions) -> None:
        self.bands = self.collection.check_usable(flags.bands, flags.match)
        check_scaled_bands(self.options.scales, self.bands)
        self.reading = ReadPoints(
            _source(flags, options),
            x_column=flags.x_column,
            y_column=flags.y_column,
            geometry_column=flags.geometry_column,
            geometry_crs=flags.geometry_crs,
            columns=flags.columns,
            time_column=flags.time_column,
            access=access(flags, "points_") or DEFAULT_ACCESS,
            **csv_settings(flags),
        )
        self.columns = self.reading.point_columns()
        if is_local(options) or flags.plan:
            cache = CacheBudget(flags.cache_mb << 20)
            self.memory = MemoryCheck(self.reading.size(), cache, flags.round_points, in_rounds=bool(flags.points))
        if is_local(options):
            self.memory.warn()
        # A query runs when the job reads, by the account of its workers, whose result no other account may read.
        self.first = next(self.reading.batches(), None) if not flags.points_query else None
        if self.first is None and not flags.points_query:
            raise InputError(f"{listed(flags.points or [flags.points_table])} holds no points: there is no row in it")
        if self.first is not None and flags.time_column is not None:
            point_times(self.first, flags.time_column)  # refuses times that cannot be read

    def index(self) -> CollectionIndex:
        """What routing and reading need to know of the collection."""
        return self.collection.index(self.bands, self.options.match_rules)

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
        kept = self._retry(flags) if flags.retry else self._sample(flags)
        check_collection(options, self.collection, self.bands)
        self.collection.check_files()
        of_records = record_types(self.collection, self.bands, self.options.extra_columns)
        report = self._report(flags, options) if flags.report else None
        self.sinks = _sinks(flags, self.options.schema(kept, self.bands, self.value_types, of_records), kept, report)
        read = {"--points": flags.points, "--retry": flags.retry, "--collection": [flags.collection]}
        self.sinks.check(options, read, flags)

    def _sample(self, flags: argparse.Namespace) -> list[pa.Field]:
        """Sample a point table; gives the columns that pass through."""
        self.sampling: SamplePoints | SampleDeadLetters | SampleWithSummary = SamplePoints(
            self.collection, self.bands, options=self.options, with_unsampled=True
        )
        self.value_types = sample_types(self.collection, self.bands, self.options)
        return kept_fields(self.columns.schema)

    def _retry(self, flags: argparse.Namespace) -> list[pa.Field]:
        """Sample dead letters; gives the columns that pass through."""
        again = SampleDeadLetters(self.collection, flags.retry, options=self.options)
        self.bands = self.collection.check_usable(again.bands) if again.bands else []
        self.value_types = again.value_types()
        self.sampling = again
        return again.kept

    def _report(self, flags: argparse.Namespace, options: PipelineOptions) -> WriteReport:
        """The sink of the report; what is sampled is summarised for it."""
        plan, note = plan_of_job(self) if is_local(options) else (None, "Jobs on a cluster are not planned here.")
        crs = self.columns.crs if self.reading is not None else ""
        nodata = nodata_of_values(self.collection, self.bands, self.options)
        self.sampling = SampleWithSummary(self.sampling, self.bands, nodata)
        return WriteReport(flags.report, facts_of_job(flags, self.collection, crs, plan, note))

    def rounds(self, flags: argparse.Namespace, options: PipelineOptions) -> Rounds | None:
        """The rounds of the job; None if it runs as one pipeline.

        Raises
        ------
        InputError
            The job cannot run in rounds, but ``--round_points`` or ``--resume`` asks for them; or it cannot be resumed.
        """
        slices = self.reading.slices() if self.reading is not None else None
        why = _why_no_rounds(flags, options, self.sinks)
        given = [flag for flag in ("--round_points", "--resume") if getattr(flags, flag[2:])]
        if why and given:
            raise InputError(f"{given[0]} {why}; leave it out")
        if why or slices is None or not is_waited_for(options):
            return None
        assert isinstance(self.sampling, SamplePoints | SampleWithSummary)
        same = identity(flags, self.collection, access(flags, "points_") or DEFAULT_ACCESS, slices.sizes)
        rounds = Rounds(slices, self.sampling, self.sinks, options, self.memory.round_points or DEFAULT_POINTS, same)
        if flags.resume:
            rounds.resume(flags.round_points)
        return rounds

    def build(self, pipeline: beam.Pipeline) -> None:
        """Add the job's steps to a pipeline."""
        points = pipeline | "ReadPoints" >> self.reading if self.reading is not None else pipeline
        outputs = points | "SamplePoints" >> self.sampling
        self.sinks.write(outputs)


def _why_no_rounds(flags: argparse.Namespace, options: PipelineOptions, sinks: Sinks) -> str:
    """Why a job cannot run in rounds; empty if it can."""
    if flags.retry:
        return "does not go with --retry, whose dead letters are read as one"
    if not is_local(options):
        runner = options.view_as(StandardOptions).runner
        return f"goes with runs in this process; {runner} limits memory and repeats failed work itself"
    if not flags.points:
        return "goes with --points; BigQuery does not return rows in the same order twice"
    if not sinks.take_rounds:
        return f"goes with --bq_method FILE_LOADS; {flags.bq_method} adds rows as they come"
    return ""


def _collection(flags: Any) -> Collection:
    collection = load(flags.collection, access=access_of_collection(flags))
    return collection.narrowed(bbox=flags.bbox, date_range=flags.date_range)
