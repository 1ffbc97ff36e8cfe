"""Read the pixels of a collection of rasters under a table of polygons, into Parquet and GeoTIFFs."""

from pipelines.startup import prepare

prepare(__name__)

import argparse
import sys
from collections.abc import Sequence
from typing import Literal

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.cli.arguments import spelt
from pipelines.cli.flags import (
    Parser,
    access,
    access_flags,
    access_of_collection,
    csv_flags,
    csv_settings,
    names,
    pipeline_options,
    prefix,
    raster_flags,
    source,
    subset_flags,
    switch,
)
from pipelines.cli.remote_workers import check_collection, check_packages, check_paths, collection_place
from pipelines.cli.runner import command, figures, not_complete, run
from rasteret_beam import metrics
from rasteret_beam.collection.collection import Collection, load
from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.routing.chip_chunks import MAX_CHIP_PIXELS, ON_INVALID, route_polygons
from rasteret_beam.kernels.routing.match import MATCHERS
from rasteret_beam.kernels.routing.no_hit import why_no_polygon_hit
from rasteret_beam.model import DEFAULT_ACCESS
from rasteret_beam.readers.storage.output_conflicts import Read, Written, check_apart
from rasteret_beam.schema import UNMATCHED_REASONS, chips_schema, kept_polygon_fields, unmatched_schema
from rasteret_beam.transforms import ReadChips, ReadPolygons, WriteChipsToGeoTiff, WriteChipsToParquet
from rasteret_beam.transforms.runtime.files import check_writable
from rasteret_beam.transforms.sinks.commit import Output, PutInPlace

EPILOG = """
example:
  python -m pipelines.read_chips --polygons fields.parquet --collection collection/ --bands B02,B03 \\
      --match latest --output out/chips --geotiff out/tiffs

Exit code 0 means that the output is complete; 1 that the job failed, and that every output is as it was before but for
those that the error names; 2 that a flag was wrong.
"""

SHOWN = (
    (metrics.POLYGONS_IN, "polygons routed"),
    (metrics.TILES_DECODED, "tiles decoded"),
    (metrics.CHIPS_OUT, "chips read"),
    (metrics.ROWS_WRITTEN, "rows written"),
)

WRITTEN: Sequence[tuple[str, Literal["files", "chips"]]] = (
    ("output", "files"),
    ("unmatched", "files"),
    ("geotiff", "chips"),
)

OUTPUTS = [name for name, _ in WRITTEN]

ARGUMENTS = {
    "source": "polygons",
    "access=": "--anonymous and --requester_pays",
    "by a ReadPolygons of its own": "by a job of its own",
    "with anonymous=True": "with --anonymous (the files of --polygons: --polygons_anonymous)",
    "requester_pays='my-project'": "--requester_pays PROJECT (for --polygons: --polygons_requester_pays PROJECT)",
}
"""Arguments of the library that have a flag of another name."""


def parser() -> Parser:
    """The command's flags."""
    flags = Parser("read_chips", __doc__ or "", EPILOG, ARGUMENTS)
    add = flags.add_argument
    add(
        "--polygons",
        type=source,
        action="append",
        required=True,
        metavar="PATH",
        help="Parquet, GeoParquet or CSV with WKT (a file, a folder or a glob), or GeoJSON; can be given several times",
    )
    add("--geometry_column", metavar="NAME", help="polygons as WKB, GeoArrow or WKT (default: the one that is known)")
    add("--geometry_crs", metavar="CRS", help="CRS of the polygons (4326, EPSG:32631, WKT), where they do not say it")
    add("--columns", type=names, metavar="A,B", help="polygon columns to keep in the output (default: all others)")
    add("--collection", required=True, metavar="PATH", help="folder or file of the collection")
    add("--bands", type=names, required=True, metavar="A,B", help="bands to read")
    subset_flags(flags)
    access_flags(flags, "the files of --polygons", "polygons_")
    csv_flags(flags, "--polygons")
    access_flags(flags, "the collection and its rasters")
    raster_flags(flags)
    add(
        "--match",
        choices=list(MATCHERS),
        default="all",
        help="every record that a polygon overlaps, or for each band the newest one (default: all)",
    )
    switch(flags, "--all_touched", "take all pixels that a polygon touches, not only those whose centre it holds")
    add("--fill", type=float, metavar="NUMBER", help="value of pixels that are not valid (default: nodata, or 0)")
    add(
        "--max_chip_pixels",
        type=int,
        default=MAX_CHIP_PIXELS,
        metavar="N",
        help=f"larger chips are cut into windows, a row each (default: {MAX_CHIP_PIXELS})",
    )
    add(
        "--on_invalid",
        choices=ON_INVALID,
        default="raise",
        help="a geometry that is no valid polygon ends the job, or is left out as unmatched (default: raise)",
    )
    add(
        "--output",
        required=True,
        type=prefix,
        metavar="PREFIX",
        help="Parquet files PREFIX-00000-of-0000N.parquet; those of an earlier run are replaced",
    )
    add("--unmatched", type=prefix, metavar="PREFIX", help="also write the polygons without a chip, with the reason")
    add("--geotiff", metavar="FOLDER", help="also write each chip to a GeoTIFF; those of an earlier run are replaced")
    return flags


class Job:
    """The job that the flags ask for; making it finds out what is wrong with them before any pixel is read.

    Raises
    ------
    RasteretBeamError
        Something is missing, unknown or unusable.
    """

    def __init__(self, flags: argparse.Namespace, options: PipelineOptions):
        check_packages(options)
        given = {f"--{name}": getattr(flags, name) for name in ("polygons", *OUTPUTS)}
        given |= {"--collection": collection_place(flags.collection)}
        check_paths(options, given, lambda: _collection(flags))
        self.collection = _collection(flags)
        self.reading = ReadPolygons(
            flags.polygons,
            geometry_column=flags.geometry_column,
            geometry_crs=flags.geometry_crs,
            columns=flags.columns,
            access=access(flags, "polygons_") or DEFAULT_ACCESS,
            **csv_settings(flags),
        )
        self.chips = ReadChips(
            self.collection,
            flags.bands,
            all_touched=flags.all_touched,
            fill=flags.fill,
            match=flags.match,
            max_chip_pixels=flags.max_chip_pixels,
            on_invalid=flags.on_invalid,
            with_unmatched=True,
        )
        self.chips.check()
        polygons = self.reading.polygon_columns()
        self.crs = polygons.crs
        self.first = self.reading.first_batch()
        if self.first is None:
            raise InputError(f"{listed(flags.polygons)} holds no polygons: there is no row in it")
        check_collection(options, self.collection, self.chips.bands)
        self.collection.check_files()
        kept = kept_polygon_fields(polygons.schema)
        self.writing = WriteChipsToParquet(flags.output, schema=chips_schema(kept))
        self.unmatched = (
            WriteChipsToParquet(flags.unmatched, schema=unmatched_schema(kept)) if flags.unmatched else None
        )
        if self.unmatched and self.unmatched.prefix == self.writing.prefix:
            raise InputError(f"--output and --unmatched are both {flags.output}; give two prefixes")
        self.geotiffs = WriteChipsToGeoTiff(flags.geotiff) if flags.geotiff is not None else None
        self._check_first()
        check_apart(
            [Written(f"--{name}", getattr(flags, name), kind) for name, kind in WRITTEN if getattr(flags, name)],
            [Read("--polygons", flags.polygons), Read("--collection", [flags.collection])],
        )
        for sink in (self.writing, self.unmatched):
            if sink is not None:
                check_writable(sink.prefix)
        if self.geotiffs is not None:
            check_writable(self.geotiffs.folder)
            check_writable(f"{self.geotiffs.folder}/chip")

    def _check_first(self) -> None:
        """Route the first polygons, which refuses those that are not valid before the job begins."""
        assert self.first is not None
        index = self.collection.index(self.chips.bands, self.chips.match).routing
        self.index = index
        route_polygons(index, self.first, self.crs, self.chips.rules, self.chips.on_invalid)

    @property
    def outputs(self) -> list[Output]:
        sinks = (self.writing, self.unmatched, self.geotiffs)
        return [sink.target for sink in sinks if sink is not None]

    def build(self, pipeline: beam.Pipeline) -> None:
        """Add the job's steps to a pipeline."""
        read = pipeline | "ReadPolygons" >> self.reading | "ReadChips" >> self.chips
        staged = [read.chips | "WriteChips" >> self.writing.staged()]
        if self.geotiffs is not None:
            staged.append(read.chips | "WriteGeoTiffs" >> self.geotiffs.staged())
        if self.unmatched is not None:
            staged.append(read.unmatched | "WriteUnmatched" >> self.unmatched.staged())
        staged | beam.Flatten() | PutInPlace()

    def why_nothing_matched(self) -> str:
        """Why all polygons are unmatched, as far as the first batch of them tells."""
        assert self.first is not None
        return why_no_polygon_hit(self.index, self.first, self.crs)


def _collection(flags: argparse.Namespace) -> Collection:
    collection = load(flags.collection, access=access_of_collection(flags))
    return collection.narrowed(bbox=flags.bbox, date_range=flags.date_range)


def summary(counts: dict[str, int], seconds: float) -> str:
    """What the job did, as lines for the terminal."""
    reasons = [
        (f"    {reason}", metrics.unmatched(reason))
        for reason in UNMATCHED_REASONS
        if counts.get(metrics.unmatched(reason))
    ]
    files = [("geotiff files", metrics.GEOTIFFS_WRITTEN)] if counts.get(metrics.GEOTIFFS_WRITTEN) else []
    lines = [
        ("polygons read", metrics.POLYGONS_IN),
        ("  with chips", metrics.POLYGONS_MATCHED),
        ("  unmatched", metrics.POLYGONS_UNMATCHED),
        *reasons,
        ("rows", metrics.CHIPS_OUT),
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
    if routed != rows:
        return f"{routed} chips were to be read, but {rows} were"
    due, written = rows + (left if with_unmatched else 0), counts.get(metrics.ROWS_WRITTEN, 0)
    if due != written:
        return f"{due} rows were to be written, but {written} were"
    files = counts.get(metrics.GEOTIFFS_WRITTEN, 0)
    return f"{rows} chips were read, but {files} GeoTIFFs written" if with_geotiffs and rows != files else None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    flags, rest = parser().parse(argv)
    options: PipelineOptions = pipeline_options(rest)
    job = Job(flags, options)
    outcome = run(job.build, options, job.outputs, SHOWN)
    if isinstance(outcome, int):
        return outcome
    counts, seconds = outcome
    print(summary(counts, seconds))
    print(f"{'output':<34}{job.writing.prefix}-*.parquet")
    if not counts.get(metrics.POLYGONS_MATCHED) and counts.get(metrics.POLYGONS_UNMATCHED):
        print(f"warning: {spelt(job.why_nothing_matched())}", file=sys.stderr)
    wrong = accounting_error(counts, job.unmatched is not None, job.geotiffs is not None)
    if wrong is not None:
        return not_complete(wrong, [output.path for output in job.outputs])
    return 0


if __name__ == "__main__":
    command(main)
