"""Read the pixels of a collection of rasters under a table of polygons, into Parquet and GeoTIFFs."""

from pipelines.startup import prepare

prepare(__name__)

import argparse
import sys
from collections.abc import Sequence

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.cli.arguments import spelt
from pipelines.cli.chip_job import Job
from pipelines.cli.flags import (
    Parser,
    access_flags,
    csv_flags,
    names,
    option_flags,
    pipeline_options,
    prefix,
    raster_flags,
    source,
    subset_flags,
)
from pipelines.cli.runner import INCOMPLETE, command, figures, not_complete, run
from rasteret_beam import metrics
from rasteret_beam.chip_options import ChipOptions
from rasteret_beam.schema import UNMATCHED_REASONS

EPILOG = """
example:
  python -m pipelines.read_chips --polygons fields.parquet --collection collection/ --bands B02,B03 \\
      --match latest --output out/chips --geotiff out/tiffs

Exit codes: 0, the output is complete. 1, the job failed, and every output is as before, except those that the error
names. 2, a flag is wrong. 3, the output is complete except for the tiles in --dead_letter, which --retry tries again.
"""

SHOWN = (
    (metrics.POLYGONS_IN, "polygons routed"),
    (metrics.TILES_DECODED, "tiles decoded"),
    (metrics.CHIPS_OUT, "chips read"),
    (metrics.ROWS_WRITTEN, "rows written"),
)

ARGUMENTS = {
    "source": "polygons",
    "path": "retry",
    "cache_bytes": "cache_mb",
    "access=": "--anonymous and --requester_pays",
    "with a separate ReadPolygons": "with a separate job",
    "with anonymous=True": "with --anonymous (the files of --polygons: --polygons_anonymous)",
    "requester_pays='my-project'": "--requester_pays PROJECT (for --polygons: --polygons_requester_pays PROJECT)",
}
"""Arguments of the library that have a flag of another name."""


def parser() -> Parser:
    """The command's flags."""
    flags = Parser(
        "read_chips",
        __doc__ or "",
        EPILOG,
        ARGUMENTS,
        needed="--polygons PATH --collection PATH --bands A,B --output PREFIX",
    )
    _polygon_flags(flags.add_argument_group("polygons"))
    collection = flags.add_argument_group("collection")
    collection.add_argument("--collection", required=True, metavar="PATH", help="folder or file of the collection")
    collection.add_argument("--bands", type=names, metavar="A,B", help="bands to read; required without --retry")
    subset_flags(collection)
    access_flags(collection, "the collection and its rasters")
    raster_flags(collection)
    option_flags(flags.add_argument_group("chips"), ChipOptions)
    _output_flags(flags.add_argument_group("outputs"))
    return flags


def _polygon_flags(flags: argparse._ArgumentGroup) -> None:
    one_of = flags.add_mutually_exclusive_group(required=True)
    one_of.add_argument(
        "--polygons",
        type=source,
        action="append",
        metavar="PATH",
        help="Parquet, GeoParquet, CSV with WKT or GeoJSON: a file, a folder or a glob; may be repeated",
    )
    one_of.add_argument(
        "--retry",
        type=source,
        action="append",
        metavar="PATH",
        help="read dead letters of an earlier run, and only the chips that are missing; may be repeated",
    )
    add = flags.add_argument
    add(
        "--geometry_column",
        metavar="NAME",
        help="polygons as WKB, GeoArrow or WKT (default: the column declared or named as a geometry)",
    )
    add(
        "--geometry_crs",
        metavar="CRS",
        help="CRS of the polygons (4326, EPSG:32631, WKT); required unless their file has it",
    )
    add(
        "--columns",
        type=names,
        metavar="A,B",
        help="polygon columns to keep in the output (default: all but the geometry)",
    )
    access_flags(flags, "the files of --polygons", "polygons_")
    csv_flags(flags, "--polygons")


def _output_flags(flags: argparse._ArgumentGroup) -> None:
    add = flags.add_argument
    add(
        "--output",
        required=True,
        type=prefix,
        metavar="PREFIX",
        help="write Parquet files PREFIX-00000-of-0000N.parquet, and replace those of an earlier run",
    )
    add(
        "--unmatched",
        type=prefix,
        metavar="PREFIX",
        help="also write the polygons without a chip to Parquet, each with its reason",
    )
    add(
        "--dead_letter",
        type=prefix,
        metavar="PREFIX",
        help="write tiles that cannot be read to Parquet, with their chips, instead of failing",
    )
    add("--geotiff", metavar="FOLDER", help="also write each chip to a GeoTIFF, and replace those of an earlier run")


def summary(counts: dict[str, int], seconds: float) -> str:
    """What the job did, as lines for the terminal."""
    reasons = [
        (f"    {reason}", metrics.unmatched(reason))
        for reason in UNMATCHED_REASONS
        if counts.get(metrics.unmatched(reason))
    ]
    dead = [("tiles given up", metrics.DEAD_LETTERS), ("  chips on them", metrics.CHIPS_DEAD_LETTERED)]
    dead = dead if counts.get(metrics.DEAD_LETTERS) else []
    further = [("chips looked for further on", metrics.CANDIDATES_WALKED)]
    further = further if counts.get(metrics.CANDIDATES_WALKED) else []
    files = [("geotiff files", metrics.GEOTIFFS_WRITTEN)] if counts.get(metrics.GEOTIFFS_WRITTEN) else []
    lines = [
        ("polygons read", metrics.POLYGONS_IN),
        ("  with chips", metrics.POLYGONS_MATCHED),
        ("  unmatched", metrics.POLYGONS_UNMATCHED),
        *reasons,
        ("rows", metrics.CHIPS_OUT),
        *dead,
        *further,
        *files,
        ("pixels", metrics.CHIP_PIXELS),
        ("tiles decoded", metrics.TILES_DECODED),
        ("bytes of tiles read", metrics.TILE_BYTES_READ),
    ]
    return figures(counts, seconds, lines)


def accounting_error(counts: dict[str, int], with_unmatched: bool, with_geotiffs: bool) -> str | None:
    """What does not add up in the counts of a job, if anything; routing, reading and writing count for themselves."""
    read, matched = counts.get(metrics.POLYGONS_IN, 0), counts.get(metrics.POLYGONS_MATCHED, 0)
    left = counts.get(metrics.POLYGONS_UNMATCHED, 0)
    if read != matched + left:
        return f"{read} polygons were read, but {matched} have chips and {left} are unmatched"
    routed, rows = counts.get(metrics.CHIPS_ROUTED, 0), counts.get(metrics.CHIPS_OUT, 0)
    lost = counts.get(metrics.CHIPS_DEAD_LETTERED, 0)
    if routed != rows + lost:
        return f"{routed} chips were to be read, but {rows} were" + (f" and {lost} were given up" if lost else "")
    due = rows + counts.get(metrics.DEAD_LETTERS, 0) + (left if with_unmatched else 0)
    written = counts.get(metrics.ROWS_WRITTEN, 0)
    if due != written:
        return f"{due} rows were to be written, but {written} were"
    files = counts.get(metrics.GEOTIFFS_WRITTEN, 0)
    return f"{rows} chips were read, but {files} GeoTIFFs written" if with_geotiffs and rows != files else None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    known = parser()
    flags, rest = known.parse(argv)
    options: PipelineOptions = pipeline_options(rest)
    if not flags.retry and flags.bands is None:
        known.error("the following arguments are required: --bands")
    job = Job(flags, options)
    outcome = run(job.build, options, job.sinks.targets, SHOWN)
    if isinstance(outcome, int):
        return outcome
    counts, seconds = outcome
    print(summary(counts, seconds))
    print(f"{'output':<34}{job.sinks.place}")
    if not counts.get(metrics.POLYGONS_MATCHED) and counts.get(metrics.POLYGONS_UNMATCHED):
        print(f"warning: {spelt(job.why_nothing_matched())}", file=sys.stderr)
    wrong = accounting_error(counts, job.sinks.of("unmatched") is not None, flags.geotiff is not None)
    if wrong is not None:
        return not_complete(wrong, job.sinks.places)
    letters = job.sinks.of("dead_letters")
    if letters is not None and counts.get(metrics.DEAD_LETTERS):
        print(
            f"warning: {counts[metrics.DEAD_LETTERS]} tile(s) could not be read; try them again with "
            f"--retry '{letters.place}'",
            file=sys.stderr,
        )
        return INCOMPLETE
    return 0


if __name__ == "__main__":
    command(main)
