"""Sample a collection of rasters at a table of points, into Parquet or BigQuery."""

from pipelines.startup import prepare

prepare(__name__)

import argparse
import sys
from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.cli.arguments import spelt
from pipelines.cli.flags import (
    Parser,
    access_flags,
    count,
    csv_flags,
    names,
    option_flags,
    pipeline_options,
    prefix,
    raster_flags,
    source,
    subset_flags,
    switch,
)
from pipelines.cli.memory_report import is_local
from pipelines.cli.plan_report import plan_text
from pipelines.cli.process import INCOMPLETE, command
from pipelines.cli.report_flag import add_report_flag
from pipelines.cli.runner import accounting_error, not_complete, run, summary
from pipelines.cli.sample_job import Inputs, Job
from pipelines.cli.sample_sinks import BIGQUERY_ARGUMENTS, SAMPLE_SINKS, missing_sink
from pipelines.cli.sinks import Sinks
from rasteret_beam.collection.eager.plan import plan_batches
from rasteret_beam.collection.index.quality_checks import check_rules
from rasteret_beam.errors import RasteretBeamError
from rasteret_beam.metrics import DEAD_LETTERS, POINTS_SAMPLED, POINTS_UNSAMPLED
from rasteret_beam.options import SampleOptions
from rasteret_beam.transforms.sinks.report import WriteReport

EPILOG = """
example:
  python -m pipelines.sample_points --points plots.parquet --x_column lon --y_column lat \\
      --geometry_crs 4326 --collection collection/ --bands B02,B03 --match latest \\
      --output out/samples

A run in this process works in rounds of points; --resume continues one that was killed, interrupted or failed.

Exit codes: 0, the output is complete. 1, the job failed, and every output is as before, except those that the error
names. 2, a flag is wrong. 3, the output is complete except for the tiles in --dead_letter, which --retry tries again.
"""


ARGUMENTS = {
    "source": "points",
    "path": "retry",
    "cache_bytes": "cache_mb",
    "on_error is 'dead_letter'": "--dead_letter is given",
    'on_error="dead_letter"': "--dead_letter PREFIX",
    "on_error": "dead_letter",
    "index_column": "points_index",
    "snapshot_time": "points_snapshot",
    "project=...": "--points_project PROJECT",
    "temp_location": "temp_location",
    "access=": "--anonymous and --requester_pays",
    "with a separate ReadPoints": "with a separate job",
    "with anonymous=True": "with --anonymous (the files of --points: --points_anonymous)",
    "requester_pays='my-project'": "--requester_pays PROJECT (for --points: --points_requester_pays PROJECT)",
    "statistics have": "--statistics have",
    "statistics are": "--statistics are",
    "nor radius is given": "nor --radius is given",
    **BIGQUERY_ARGUMENTS,
}
"""Arguments of the library that have a flag of another name."""


def parser() -> Parser:
    """The command's flags."""
    flags = Parser(
        "sample_points",
        __doc__ or "",
        EPILOG,
        ARGUMENTS,
        needed="--points PATH --collection PATH --bands A,B --output PREFIX",
    )
    point_flags(flags.add_argument_group("points"), retry=True)
    collection_flags(flags.add_argument_group("collection"), "bands to sample; required without --retry")
    option_flags(flags.add_argument_group("sampling"), SampleOptions)
    _output_flags(flags.add_argument_group("outputs"))
    for sink in SAMPLE_SINKS.values():
        sink.add_flags(flags)
    return flags


def point_flags(flags: argparse._ArgumentGroup, retry: bool = False) -> None:
    """Add the flags for the points, and that for dead letters in their place if ``retry``."""
    one_of = flags.add_mutually_exclusive_group(required=True)
    one_of.add_argument(
        "--points",
        type=source,
        action="append",
        metavar="PATH",
        help="Parquet, GeoParquet, CSV or GeoJSON: a file, a folder or a glob; may be repeated",
    )
    one_of.add_argument(
        "--points_table",
        type=source,
        metavar="PROJECT:DATASET.TABLE",
        help="read a BigQuery table instead of files, and only the columns that are needed",
    )
    one_of.add_argument(
        "--points_query",
        type=source,
        metavar="SQL",
        help="read the result of a BigQuery SELECT statement, which runs once",
    )
    if retry:
        one_of.add_argument(
            "--retry",
            type=source,
            action="append",
            metavar="PATH",
            help="read dead letters of an earlier run, and sample only their tiles and points; can be given several "
            "times",
        )
    add = flags.add_argument
    add("--x_column", metavar="NAME", help="longitude or easting")
    add("--y_column", metavar="NAME", help="latitude or northing")
    add("--geometry_column", metavar="NAME", help="points as WKB, WKT, GeoArrow or GEOGRAPHY, instead of x and y")
    add("--geometry_crs", metavar="CRS", help="CRS of the points (4326, EPSG:32631, WKT); required for x and y columns")
    add(
        "--columns",
        type=names,
        metavar="A,B",
        help="point columns to keep in the output (default: all but the geometry)",
    )
    add(
        "--points_index",
        metavar="NAME",
        help="integer column of the BigQuery table or query that becomes point_index, the same in every job (default: "
        "rows are numbered as they are read)",
    )
    add("--points_snapshot", metavar="TIME", help="read the BigQuery table as it was then, in ISO form (default: now)")
    add(
        "--points_project", metavar="PROJECT", help="project that BigQuery bills (default: --project, else the table's)"
    )
    access_flags(flags, "the files of --points", "points_")
    csv_flags(flags, "--points")


def collection_flags(flags: argparse._ArgumentGroup, bands: str, needed: bool = False) -> None:
    """Add the flags for the collection and its ``bands``."""
    flags.add_argument("--collection", required=True, metavar="PATH", help="folder or file of the collection")
    flags.add_argument("--bands", type=names, required=needed, metavar="A,B", help=bands)
    subset_flags(flags)
    access_flags(flags, "the collection and its rasters")
    raster_flags(flags)


def _output_flags(flags: argparse._ArgumentGroup) -> None:
    one_of = flags.add_mutually_exclusive_group()
    for name, sink in SAMPLE_SINKS.items():
        one_of.add_argument(f"--{name}", **sink.flag)
    add = flags.add_argument
    add(
        "--unsampled",
        type=prefix,
        metavar="PREFIX",
        help="also write the points without a sample to Parquet, each with its reason",
    )
    add(
        "--dead_letter",
        type=prefix,
        metavar="PREFIX",
        help="write tiles that cannot be read to Parquet, with their points, instead of failing",
    )
    add_report_flag(flags)
    round_flag(flags)
    switch(
        flags,
        "--resume",
        "continue the killed, failed or interrupted run with the same flags after its last finished round",
    )
    switch(
        flags,
        "--plan",
        "read no pixels and write nothing: print the estimated records, tiles, bytes, requests and rows, the most "
        "crowded tiles, and the memory and temporary disk of a local run (windows of --max_distance_pixels and "
        "--statistics are not counted)",
    )


def round_flag(flags: argparse._ArgumentGroup) -> None:
    """Add the flag for the points of a round."""
    flags.add_argument(
        "--round_points",
        type=count,
        metavar="N",
        help="in this process, sample at most so many points at a time: memory depends on them, not on the length of "
        "--points, but each round reads its tiles anew (default: 10000000, or fewer if memory is short)",
    )


def _check_needed(known: Parser, flags: argparse.Namespace) -> None:
    """Refuse what argparse cannot: flags that are needed only beside others."""
    if flags.plan and flags.resume:
        known.error("--plan samples nothing, so there is nothing to --resume")
    if flags.plan and flags.retry:
        known.error("--plan routes a table of points; it does not go with --retry")
    if not flags.retry and flags.bands is None:
        known.error("the following arguments are required: --bands")
    missing = None if flags.plan else missing_sink(SAMPLE_SINKS, flags)
    if missing is not None:
        known.error(missing)


def show_plan(inputs: Inputs, options: PipelineOptions) -> int:
    """Print what a run would read and give; gives the exit code."""
    assert inputs.reading is not None
    check_rules(inputs.collection, inputs.options)
    plan = plan_batches(inputs.index(), inputs.reading.batches(), inputs.columns.crs, inputs.options)
    memory = inputs.look_at_memory()
    print(plan_text(plan, memory.lines(), inputs.options.rows_each(inputs.bands)))
    if is_local(options):
        memory.warn()
    if not len(plan):
        _warn(inputs)
    return 0


def _warn(inputs: Inputs) -> None:
    try:
        why = inputs.why_nothing_sampled()
    except RasteretBeamError as error:  # the job is complete: its workers may read what this account may not
        why = f"no point is sampled, and points cannot be read again to say why: {error}"
    print(f"warning: {spelt(why)}", file=sys.stderr)


def _show_outputs(sinks: Sinks, counts: dict[str, int], seconds: float) -> None:
    """Print the counts of a job and its main output; its report gets the counts too."""
    print(summary(counts, seconds))
    print(f"{'output':<34}{sinks.place}")
    report = sinks.of("report")
    if isinstance(report, WriteReport):
        report.complete(counts, seconds)
        print(f"{'report':<34}{report.place}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    known = parser()
    flags, rest = known.parse(argv)
    options: PipelineOptions = pipeline_options(rest)
    _check_needed(known, flags)
    if flags.plan:
        return show_plan(Inputs(flags, options), options)
    job = Job(flags, options)
    sinks = job.sinks
    if sinks.is_done(options):
        print(f"run {flags.bq_run_id} has its rows in {sinks.place} already; nothing was read or written")
        return 0
    if not flags.retry and is_local(options):
        job.look_at_memory().warn()
    rounds = job.rounds(flags, options)
    outcome = run(
        job.build,
        options,
        sinks.targets,
        kept=sinks.leftovers(options),
        loaded=lambda: sinks.committed(options),
        rounds=rounds,
    )
    if isinstance(outcome, int):
        return outcome
    counts, seconds = outcome
    _show_outputs(sinks, counts, seconds)
    if not counts.get(POINTS_SAMPLED) and (counts.get(POINTS_UNSAMPLED) or flags.points_query):
        _warn(job)
    wrong = accounting_error(
        counts,
        with_unsampled=sinks.of("unsampled") is not None,
        written=sinks.count_rows,
        rows_each=None if flags.retry else job.options.rows_each(job.bands),
    )
    if wrong is not None:
        return not_complete(wrong, sinks.places)
    letters = sinks.of("dead_letters")
    if letters is not None and counts.get(DEAD_LETTERS):
        print(
            f"warning: {counts[DEAD_LETTERS]} tile(s) could not be read; try them again with --retry '{letters.place}'",
            file=sys.stderr,
        )
        return INCOMPLETE
    return 0


if __name__ == "__main__":
    command(main)
