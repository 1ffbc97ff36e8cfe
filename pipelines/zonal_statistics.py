"""Make statistics of the pixels of a collection of rasters under a table of polygons, into Parquet, CSV or BigQuery."""

from pipelines.startup import prepare

prepare(__name__)

import argparse
from functools import partial

from pipelines.cli.flags import Parser, option_flags
from pipelines.cli.polygon_command import Counts, PolygonCommand, found, rows_lost
from pipelines.cli.polygon_flags import POLYGON_ARGUMENTS, collection_flags, leftover_flags, polygon_flags
from pipelines.cli.process import command
from pipelines.cli.sample_sinks import BIGQUERY_ARGUMENTS, ZONAL_SINKS, missing_sink
from pipelines.cli.zonal_job import Job
from rasteret_beam import metrics
from rasteret_beam.zonal_options import ZonalOptions

EPILOG = """
example:
  python -m pipelines.zonal_statistics --polygons fields.parquet --collection collection/ \\
      --bands B04,B08 --statistics count,mean,std --quality 'SCL not in 0,1,3,8-10' \\
      --output out/fields

Exit codes: 0, the output is complete. 1, the job failed, and every output is as before, except those that the error
names. 2, a flag is wrong. 3, the output is complete except for the tiles in --dead_letter, which --retry tries again.
"""

SHOWN = (
    (metrics.POLYGONS_IN, "polygons routed"),
    (metrics.TILES_DECODED, "tiles decoded"),
    (metrics.ZONES_OUT, "rows made"),
    (metrics.ROWS_WRITTEN, "rows written"),
)

ARGUMENTS = {
    **POLYGON_ARGUMENTS,
    "statistics have": "--statistics have",
    "statistics are": "--statistics are",
    **BIGQUERY_ARGUMENTS,
}
"""Arguments of the library that have a flag of another name."""


def parser() -> Parser:
    """The command's flags."""
    flags = Parser(
        "zonal_statistics",
        __doc__ or "",
        EPILOG,
        ARGUMENTS,
        needed="--polygons PATH --collection PATH --bands A,B --output PREFIX",
    )
    polygon_flags(flags.add_argument_group("polygons"), "make only the rows that are missing")
    collection_flags(flags.add_argument_group("collection"))
    option_flags(flags.add_argument_group("statistics"), ZonalOptions)
    _output_flags(flags.add_argument_group("outputs"))
    for sink in ZONAL_SINKS.values():
        sink.add_flags(flags)
    return flags


def _output_flags(flags: argparse._ArgumentGroup) -> None:
    one_of = flags.add_mutually_exclusive_group()
    for name, sink in ZONAL_SINKS.items():
        one_of.add_argument(f"--{name}", **sink.flag)
    leftover_flags(flags, "a record", "the polygons on them")


def _lines(counts: Counts) -> list[tuple[str, str]]:
    """What the job did, after the polygons."""
    dead = [("tiles given up", metrics.DEAD_LETTERS), ("  rows that lack them", metrics.ZONES_DEAD_LETTERED)]
    return [
        ("rows", metrics.ZONES_OUT),
        *found(counts, [("rows without a record", metrics.ZONES_WITHOUT_RECORD)]),
        *found(counts, dead),
        *found(counts, [("rows looked for further on", metrics.CANDIDATES_WALKED)]),
        ("pixels", metrics.ZONE_PIXELS),
    ]


def _accounting_error(counts: Counts, job: Job) -> str | None:
    """What does not add up in the counts of rows, if anything; routing, reading and writing count for themselves."""
    matched, read = counts.get(metrics.POLYGONS_MATCHED, 0), counts.get(metrics.POLYGONS_READ, 0)
    if matched != read:
        return f"{matched} polygons have a record, but {read} were read"
    routed, rows = counts.get(metrics.ZONES_ROUTED, 0), counts.get(metrics.ZONES_OUT, 0)
    lost = counts.get(metrics.ZONES_DEAD_LETTERED, 0)
    if routed != rows + lost:
        return f"{routed} rows were to be made, but {rows} were" + (f" and {lost} were given up" if lost else "")
    empty, left = counts.get(metrics.ZONES_WITHOUT_RECORD, 0), counts.get(metrics.POLYGONS_UNMATCHED, 0)
    if job.doing.options.join == "left" and empty < left * len(job.bands):
        return f"{left} polygons without a record were to have {left * len(job.bands)} rows, but have {empty}"
    return rows_lost(counts, job, rows + empty)


COMMAND = PolygonCommand(parser, Job, SHOWN, "a record", _lines, _accounting_error, partial(missing_sink, ZONAL_SINKS))
main = COMMAND.main


if __name__ == "__main__":
    command(main)
