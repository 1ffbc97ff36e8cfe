"""Sample a collection of rasters at a table of points, into Parquet or BigQuery."""

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines._flags import Parser, names, pipeline_options, prefix, subset_flags
from pipelines._run import FAILED, accounting_error, command, run, summary
from rasteret_beam.collection.collection import Collection, load
from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.explain import why_nothing_hit
from rasteret_beam.kernels.layouts import check_layout
from rasteret_beam.kernels.neighbourhood import FALLBACKS, RETURNS, Neighbourhood
from rasteret_beam.kernels.routing import MATCHES
from rasteret_beam.metrics import POINTS_SAMPLED, POINTS_UNSAMPLED
from rasteret_beam.readers.budget import DEFAULT_CACHE_BYTES, CacheBudget
from rasteret_beam.schema import LAYOUTS, kept_fields, samples_schema, unsampled_schema
from rasteret_beam.transforms import ReadPoints, SamplePoints, WriteSamplesToBigQuery, WriteSamplesToParquet
from rasteret_beam.transforms.bigquery import CREATE_DISPOSITIONS, WRITE_DISPOSITIONS
from rasteret_beam.transforms.files import check_writable
from rasteret_beam.transforms.read_points import first_batch
from rasteret_beam.transforms.write_bigquery import METHODS

EPILOG = """
example:
  python -m pipelines.sample_points --points plots.parquet --x_column lon --y_column lat --geometry_crs 4326 \\
      --collection collection/ --bands B02,B03 --match latest --output out/samples

Exit code 0 means that the output is complete; 1 that the job failed and wrote nothing; 2 that a flag was wrong.
"""


def parser() -> Parser:
    """The command's flags."""
    flags = Parser("sample_points", __doc__ or "", EPILOG)
    add = flags.add_argument
    add("--points", required=True, metavar="PATH", help="Parquet, GeoParquet or CSV: a file, a folder or a glob")
    add("--x_column", metavar="NAME", help="longitude or easting")
    add("--y_column", metavar="NAME", help="latitude or northing")
    add("--geometry_column", metavar="NAME", help="points as WKB or GeoArrow, in place of x and y")
    add("--geometry_crs", metavar="CRS", help="CRS of the points (4326, EPSG:32631, WKT); needed for plain columns")
    add("--columns", type=names, metavar="A,B", help="point columns to keep in the output (default: all others)")
    add("--collection", required=True, metavar="PATH", help="folder or file of the collection")
    add("--bands", type=names, required=True, metavar="A,B", help="bands to sample")
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
    _output_flags(flags)
    add(
        "--unsampled",
        type=prefix,
        metavar="PREFIX",
        help="also write the points without a sample, each with its reason, to Parquet",
    )
    return flags


def _output_flags(flags: Parser) -> None:
    one_of = flags.add_mutually_exclusive_group(required=True)
    one_of.add_argument(
        "--output",
        type=prefix,
        metavar="PREFIX",
        help="Parquet files PREFIX-00000-of-0000N.parquet; those of an earlier run are replaced",
    )
    one_of.add_argument(
        "--bigquery",
        metavar="PROJECT:DATASET.TABLE",
        help="a BigQuery table in place of files, by one load job; needs --temp_location gs://...",
    )
    add = flags.add_argument
    add("--bq_method", choices=METHODS, help="by a load job, or row by row through Beam's sink (default: FILE_LOADS)")
    add("--bq_create_disposition", choices=CREATE_DISPOSITIONS, help="whether to make the table (default: if needed)")
    add("--bq_write_disposition", choices=WRITE_DISPOSITIONS, help="what of rows that are there (default: append)")
    add("--bq_cluster_by", type=names, metavar="A,B", help="of a table that is made (default: record_id,band)")
    add("--bq_partition_by", metavar="COLUMN[:UNIT]", help="of a table that is made: datetime, or datetime:MONTH")
    add("--bq_run_id", metavar="ID", help="name of this run: a rerun of the same id adds no row twice")


BIGQUERY_SETTINGS = {
    "bq_method": "method",
    "bq_create_disposition": "create_disposition",
    "bq_write_disposition": "write_disposition",
    "bq_cluster_by": "cluster_by",
    "bq_partition_by": "partition_by",
    "bq_run_id": "run_id",
}


def _writing(flags: argparse.Namespace, schema: pa.Schema) -> WriteSamplesToParquet | WriteSamplesToBigQuery:
    """The sink of the samples."""
    given = {setting: getattr(flags, flag) for flag, setting in BIGQUERY_SETTINGS.items() if getattr(flags, flag)}
    if flags.bigquery is None:
        if given:
            raise InputError(f"{listed(f'--bq_{name}' for name in given)} given without --bigquery")
        return WriteSamplesToParquet(flags.output, schema=schema)
    return WriteSamplesToBigQuery(flags.bigquery, schema=schema, **given)


class Job:
    """The job that the flags ask for; making it finds out what is wrong with them before any pixel is read.

    Raises
    ------
    RasteretBeamError
        Something is missing, unknown or unusable.
    """

    def __init__(self, flags: argparse.Namespace, options: PipelineOptions):
        self.collection = _collection(flags)
        self.bands = self.collection.check_usable(flags.bands, flags.match)
        self.match = flags.match
        self.around = Neighbourhood(flags.max_distance_pixels, flags.return_neighbourhood, flags.fallback)
        self.layout = flags.layout
        check_layout(self.layout, self.around)
        self.cache_bytes = CacheBudget(flags.cache_mb << 20).total
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
        self.collection.check_files()
        kept = kept_fields(points.schema)
        self.options = options
        self.writing = _writing(flags, samples_schema(kept, self.around.returned, self.layout, self.bands))
        self.writing_unsampled = (
            WriteSamplesToParquet(flags.unsampled, schema=unsampled_schema(kept)) if flags.unsampled else None
        )
        if len({sink.prefix for sink in self.parquet}) < len(self.parquet):
            raise InputError(f"--output and --unsampled are both {flags.output}; give two prefixes")
        for sink in self.parquet:
            check_writable(sink.prefix)
        if isinstance(self.writing, WriteSamplesToBigQuery):
            self.writing.check(options)

    @property
    def parquet(self) -> list[WriteSamplesToParquet]:
        return [sink for sink in (self.writing, self.writing_unsampled) if isinstance(sink, WriteSamplesToParquet)]

    @property
    def kept(self) -> list[str]:
        """Folders of files under way that stay after a failure."""
        writing = self.writing
        if isinstance(writing, WriteSamplesToBigQuery) and writing.method == "FILE_LOADS":
            return [writing.temporary(self.options)]
        return []

    @property
    def place(self) -> str:
        """What the output is called."""
        writing = self.writing
        return str(writing.name) if isinstance(writing, WriteSamplesToBigQuery) else f"{writing.prefix}-*.parquet"

    def is_loaded(self) -> bool:
        """Whether a run of the same id has brought its rows into BigQuery."""
        return isinstance(self.writing, WriteSamplesToBigQuery) and self.writing.is_loaded(self.options)

    def build(self, pipeline: beam.Pipeline) -> None:
        """Add the job's steps to a pipeline."""
        sampled = (
            pipeline
            | "ReadPoints" >> self.reading
            | "SamplePoints"
            >> SamplePoints(
                self.collection,
                self.bands,
                match=self.match,
                layout=self.layout,
                cache_bytes=self.cache_bytes,
                with_unsampled=True,
                **dataclasses.asdict(self.around),
            )
        )
        sampled.samples | "WriteSamples" >> self.writing
        if self.writing_unsampled is not None:
            sampled.unsampled | "WriteUnsampled" >> self.writing_unsampled

    def why_nothing_sampled(self) -> str:
        """Why all points are unsampled, as far as the first batch of them tells."""
        index = self.collection.index(self.bands, self.match)
        assert self.first is not None
        return why_nothing_hit(index.routing, self.first, self.crs)


def _collection(flags: Any) -> Collection:
    collection = load(flags.collection)
    criteria = {name: value for name in ("bbox", "date_range") if (value := getattr(flags, name)) is not None}
    return collection.subset(**criteria) if criteria else collection


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    flags, rest = parser().parse(argv)
    options: PipelineOptions = pipeline_options(rest)
    job = Job(flags, options)
    if job.is_loaded():
        print(f"run {flags.bq_run_id} has its rows in {job.place} already; nothing was read or written")
        return 0
    outcome = run(job.build, options, [sink.temporary for sink in job.parquet], kept=job.kept)
    if isinstance(outcome, int):
        return outcome
    counts, seconds = outcome
    print(summary(counts, seconds))
    print(f"{'output':<34}{job.place}")
    if not counts.get(POINTS_SAMPLED) and counts.get(POINTS_UNSAMPLED):
        print(f"warning: {job.why_nothing_sampled()}", file=sys.stderr)
    wrong = accounting_error(counts)
    if wrong is not None:
        print(f"error: the output is not complete: {wrong}", file=sys.stderr)
        return FAILED
    return 0


if __name__ == "__main__":
    command(main)
