"""Read the pixels of a collection of rasters under a table of polygons, into Parquet and GeoTIFFs."""

from pipelines.startup import prepare

prepare(__name__)

import argparse

from pipelines.cli.chip_job import Job
from pipelines.cli.flags import Parser, option_flags, prefix
from pipelines.cli.polygon_command import Counts, PolygonCommand, found, rows_lost
from pipelines.cli.polygon_flags import POLYGON_ARGUMENTS as ARGUMENTS
from pipelines.cli.polygon_flags import collection_flags, leftover_flags, polygon_flags
from pipelines.cli.process import command
from rasteret_beam import metrics
from rasteret_beam.chip_options import ChipOptions

EPILOG = """
example:
  python -m pipelines.read_chips --polygons fields.parquet --collection collection/ \\
      --bands B02,B03 --match latest --output out/chips --geotiff out/tiffs

Exit codes: 0, the output is complete. 1, the job failed, and every output is as before, except those that the error
names. 2, a flag is wrong. 3, the output is complete except for the tiles in --dead_letter, which --retry tries again.
"""

SHOWN = (
    (metrics.POLYGONS_IN, "polygons routed"),
    (metrics.TILES_DECODED, "tiles decoded"),
    (metrics.CHIPS_OUT, "chips read"),
    (metrics.ROWS_WRITTEN, "rows written"),
)


def parser() -> Parser:
    """The command's flags."""
    flags = Parser(
        "read_chips",
        __doc__ or "",
        EPILOG,
        ARGUMENTS,
        needed="--polygons PATH --collection PATH --bands A,B --output PREFIX",
    )
    polygon_flags(flags.add_argument_group("polygons"), "only the chips that are missing")
    collection_flags(flags.add_argument_group("collection"))
    option_flags(flags.add_argument_group("chips"), ChipOptions)
    _output_flags(flags.add_argument_group("outputs"))
    return flags


def _output_flags(flags: argparse._ArgumentGroup) -> None:
    add = flags.add_argument
    add(
        "--output",
        required=True,
        type=prefix,
        metavar="PREFIX",
        help="write Parquet files PREFIX-00000-of-0000N.parquet, and replace those of an earlier run",
    )
    leftover_flags(flags, "a chip", "their chips")
    add("--geotiff", metavar="FOLDER", help="also write each chip to a GeoTIFF, and replace those of an earlier run")


def _lines(counts: Counts) -> list[tuple[str, str]]:
    """What the job did, after the polygons."""
    return [
        ("rows", metrics.CHIPS_OUT),
        *found(counts, [("tiles given up", metrics.DEAD_LETTERS), ("  chips on them", metrics.CHIPS_DEAD_LETTERED)]),
        *found(counts, [("chips looked for further on", metrics.CANDIDATES_WALKED)]),
        *found(counts, [("geotiff files", metrics.GEOTIFFS_WRITTEN)]),
        ("pixels", metrics.CHIP_PIXELS),
    ]


def _accounting_error(counts: Counts, job: Job) -> str | None:
    """What does not add up in the counts of chips, if anything; routing, reading and writing count for themselves."""
    routed, rows = counts.get(metrics.CHIPS_ROUTED, 0), counts.get(metrics.CHIPS_OUT, 0)
    lost = counts.get(metrics.CHIPS_DEAD_LETTERED, 0)
    if routed != rows + lost:
        return f"{routed} chips were to be read, but {rows} were" + (f" and {lost} were given up" if lost else "")
    missing = rows_lost(counts, job, rows)
    if missing is not None:
        return missing
    files = counts.get(metrics.GEOTIFFS_WRITTEN, 0)
    with_files = any(each.flag == "--geotiff" for each in job.sinks.members)
    return f"{rows} chips were read, but {files} GeoTIFFs written" if with_files and rows != files else None


COMMAND = PolygonCommand(parser, Job, SHOWN, "chips", _lines, _accounting_error)
main = COMMAND.main


if __name__ == "__main__":
    command(main)
