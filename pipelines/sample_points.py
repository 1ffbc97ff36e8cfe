"""Sample a collection of rasters at a table of points, into Parquet."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines._flags import Parser, names, pipeline_options, prefix, subset_flags
from pipelines._run import FAILED, INCOMPLETE, accounting_error, command, run, summary
from rasteret_beam.collection.collection import Collection, load
from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.explain import why_nothing_hit
from rasteret_beam.kernels.layouts import check_layout
from rasteret_beam.kernels.neighbourhood import FALLBACKS, RETURNS, Neighbourhood
from rasteret_beam.kernels.routing import MATCHES
from rasteret_beam.metrics import DEAD_LETTERS, POINTS_SAMPLED, POINTS_UNSAMPLED
from rasteret_beam.readers.budget import DEFAULT_CACHE_BYTES, CacheBudget
from rasteret_beam.schema import DEAD_LETTER_SCHEMA, LAYOUTS, kept_fields, samples_schema, unsampled_schema
from rasteret_beam.transforms import ReadPoints, SampleDeadLetters, SamplePoints, WriteSamplesToParquet
from rasteret_beam.transforms.files import check_writable
from rasteret_beam.transforms.read_points import first_batch

STEPS = {"samples": "WriteSamples", "unsampled": "WriteUnsampled", "dead_letters": "WriteDeadLetters"}
FLAGS = {"samples": "output", "unsampled": "unsampled", "dead_letters": "dead_letter"}

NOT_WITH_RETRY = (
    "x_column y_column geometry_column geometry_crs columns bands bbox date_range match layout unsampled".split()
)

EPILOG = """
example:
  python -m pipelines.sample_points --points plots.parquet --x_column lon --y_column lat --geometry_crs 4326 \\
      --collection collection/ --bands B02,B03 --match latest --output out/samples

Exit code 0 means that the output is complete; 1 that the job failed and wrote nothing; 2 that a flag was wrong; 3 that
the output is complete but for the tiles in --dead_letter, which --retry tries again.
"""


def parser() -> Parser:
    """The command's flags."""
    flags = Parser("sample_points", __doc__ or "", EPILOG)
    add = flags.add_argument
    source = flags.add_mutually_exclusive_group(required=True)
    source.add_argument("--points", metavar="PATH", help="Parquet, GeoParquet or CSV: a file, a folder or a glob")
    source.add_argument(
        "--retry",
        metavar="PATH",
        help="in place of --points: dead letters of an earlier run, of which just those tiles and points are sampled",
    )
    add("--x_column", metavar="NAME", help="longitude or easting")
    add("--y_column", metavar="NAME", help="latitude or northing")
    add("--geometry_column", metavar="NAME", help="points as WKB or GeoArrow, in place of x and y")
    add("--geometry_crs", metavar="CRS", help="CRS of the points (4326, EPSG:32631, WKT); needed for plain columns")
    add("--columns", type=names, metavar="A,B", help="point columns to keep in the output (default: all others)")
    add("--collection", required=True, metavar="PATH", help="folder or file of the collection")
    add("--bands", type=names, metavar="A,B", help="bands to sample; needed, but for --retry")
    subset_flags(flags)
    add(
        "--match",
        choices=MATCHES,
        default="all",
        help="every record that contains a point, or for each band the newest one (default: all)",
    )
    add("--max_distance_pixels", type=int, default=0, metavar="R", help="look for a valid pixel so far around nodata")
    add(
        "--return_neighbourhood",
        choices=RETURNS,
        default="off",
        help="add the searched window as neighbourhood_values (default: off)",
    )
    add(
        "--fallback",
        choices=FALLBACKS,
        default="closest",
        help="the closest valid pixel of the window, or of its first ring that has one (default: closest)",
    )
    add(
        "--layout",
        choices=LAYOUTS,
        default="long",
        help="a row for each band (long), or one for each point and record, with a list of values (values) or a "
        "column a band (columns) (default: long)",
    )
    add(
        "--cache_mb",
        type=int,
        default=DEFAULT_CACHE_BYTES >> 20,
        metavar="MB",
        help="what the caches of each process may hold in all: tiles, open files, offsets (default: %(default)s)",
    )
    add(
        "--output",
        required=True,
        type=prefix,
        metavar="PREFIX",
        help="Parquet files PREFIX-00000-of-0000N.parquet; those of an earlier run are replaced",
    )
    add(
        "--unsampled",
        type=prefix,
        metavar="PREFIX",
        help="also write the points without a sample, each with its reason",
    )
    add(
        "--dead_letter",
        type=prefix,
        metavar="PREFIX",
        help="give up tiles that cannot be read, and write them with their points there, instead of failing",
    )
    return flags


class Job:
    """The job that the flags ask for; making it finds out what is wrong with them before any pixel is read.

    Raises
    ------
    RasteretBeamError
        Something is missing, unknown or unusable.
    """

    def __init__(self, flags: argparse.Namespace):
        self.collection = _collection(flags)
        self.around = Neighbourhood(flags.max_distance_pixels, flags.return_neighbourhood, flags.fallback)
        self.options = {
            **dataclasses.asdict(self.around),
            "on_error": "dead_letter" if flags.dead_letter else "raise",
            "cache_bytes": CacheBudget(flags.cache_mb << 20).total,
        }
        check_layout(flags.layout, self.around, self.options["on_error"])
        self.first: pa.RecordBatch | None = None
        kept = self._retry(flags) if flags.retry else self._sample(flags)
        self.collection.check_files()
        schema = samples_schema(kept, self.around.returned, flags.layout, self.bands)
        self.sinks = {"samples": WriteSamplesToParquet(flags.output, schema=schema)}
        if flags.unsampled:
            self.sinks["unsampled"] = WriteSamplesToParquet(flags.unsampled, schema=unsampled_schema(kept))
        if flags.dead_letter:
            self.sinks["dead_letters"] = WriteSamplesToParquet(flags.dead_letter, schema=DEAD_LETTER_SCHEMA)
        _check_sinks(self.sinks)

    def _sample(self, flags: argparse.Namespace) -> list[pa.Field]:
        """Sample a point table; gives the columns that pass through."""
        if not flags.bands:
            raise InputError(f"--bands is needed: the collection has {listed(self.collection.bands, 80)}")
        self.bands = self.collection.check_usable(flags.bands, flags.match)
        self.match = flags.match
        self.reading = ReadPoints(
            flags.points,
            x_column=flags.x_column,
            y_column=flags.y_column,
            geometry_column=flags.geometry_column,
            geometry_crs=flags.geometry_crs,
            columns=flags.columns,
        )
        points = self.reading.point_columns()
        self.first = first_batch(self.reading)
        if self.first is None:
            raise InputError(f"{flags.points} holds no points: there is no row in it")
        self.crs = points.crs
        self.sampling: beam.PTransform = SamplePoints(
            self.collection, self.bands, match=flags.match, layout=flags.layout, with_unsampled=True, **self.options
        )
        return kept_fields(points.schema)

    def _retry(self, flags: argparse.Namespace) -> list[pa.Field]:
        """Sample dead letters; gives the columns that pass through."""
        given = [name for name in NOT_WITH_RETRY if getattr(flags, name) not in (None, "long", "all")]
        if given:
            raise InputError(f"--{given[0]} does not go with --retry, whose dead letters say it all; leave it out")
        again = SampleDeadLetters(self.collection, flags.retry, **self.options)
        self.bands = self.collection.check_usable(again.bands) if again.bands else []
        self.sampling = again
        return again.kept

    def build(self, pipeline: beam.Pipeline) -> None:
        """Add the job's steps to a pipeline."""
        points = pipeline | "ReadPoints" >> self.reading if self.first is not None else pipeline
        outputs = points | "SamplePoints" >> self.sampling
        for name, sink in self.sinks.items():
            getattr(outputs, name) | STEPS[name] >> sink

    def why_nothing_sampled(self) -> str:
        """Why all points are unsampled, as far as the first batch of them tells."""
        index = self.collection.index(self.bands, self.match)
        assert self.first is not None
        return why_nothing_hit(index.routing, self.first, self.crs)


def _check_sinks(sinks: dict[str, WriteSamplesToParquet]) -> None:
    taken: dict[str, str] = {}
    for name, sink in sinks.items():
        flag = f"--{FLAGS[name]}"
        if sink.prefix in taken:
            raise InputError(f"{taken[sink.prefix]} and {flag} are both {sink.prefix}; give two prefixes")
        taken[sink.prefix] = flag
        check_writable(sink.prefix)


def _collection(flags: Any) -> Collection:
    collection = load(flags.collection)
    criteria = {name: value for name in ("bbox", "date_range") if (value := getattr(flags, name)) is not None}
    return collection.subset(**criteria) if criteria else collection


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    flags, rest = parser().parse(argv)
    options: PipelineOptions = pipeline_options(rest)
    job = Job(flags)
    outcome = run(job.build, options, [sink.temporary for sink in job.sinks.values()])
    if isinstance(outcome, int):
        return outcome
    counts, seconds = outcome
    print(summary(counts, seconds))
    print(f"{'output':<34}{job.sinks['samples'].prefix}-*.parquet")
    if job.first is not None and not counts.get(POINTS_SAMPLED) and counts.get(POINTS_UNSAMPLED):
        print(f"warning: {job.why_nothing_sampled()}", file=sys.stderr)
    wrong = accounting_error(counts, with_unsampled="unsampled" in job.sinks)
    if wrong is not None:
        print(f"error: the output is not complete: {wrong}", file=sys.stderr)
        return FAILED
    if counts.get(DEAD_LETTERS):
        print(
            f"warning: {counts[DEAD_LETTERS]} tile(s) could not be read; try them again with "
            f"--retry '{job.sinks['dead_letters'].prefix}-*.parquet'",
            file=sys.stderr,
        )
        return INCOMPLETE
    return 0


if __name__ == "__main__":
    command(main)
