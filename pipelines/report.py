"""Make a page of the sample files of an earlier run: counts, maps, histograms, quantiles, dates."""

from pipelines.startup import prepare

prepare(__name__)

from collections.abc import Iterator, Sequence

import pyarrow as pa

from pipelines.cli.flags import (
    Parser,
    access,
    access_flags,
    access_of_collection,
    names,
    raster_flags,
    source,
    subset_flags,
)
from pipelines.cli.process import command
from pipelines.cli.report_flag import page
from rasteret_beam import report
from rasteret_beam.collection.collection import load
from rasteret_beam.errors import InputError, MissingInputError, without_secrets
from rasteret_beam.kernels.storage.globs import is_glob
from rasteret_beam.model import DEFAULT_ACCESS, Access
from rasteret_beam.readers.storage.stores import absolute
from rasteret_beam.transforms.runtime.files import (
    check_file_writable,
    check_output,
    find_files,
    is_parquet,
    open_parquet,
)
from rasteret_beam.transforms.sinks.commit import write_whole

EPILOG = """
examples:
  python -m pipelines.report --samples out/samples --unsampled out/unsampled \\
      --collection collection/ --output out/report.html
  python -m pipelines.report --samples 'gs://bucket/run-*/samples-*.parquet' --output report.html

Paths are prefixes of earlier outputs, files, folders or globs. Rows are read once, batch by batch. With
python -m pipelines.sample_points --report the page is made while rows are written, and shows the run too.

Exit codes: 0, the page is written. 1, a file cannot be read, or the page cannot be written. 2, a flag is wrong.
"""

ARGUMENTS = {
    "dead_letters": "dead_letter",
    "point_crs": "geometry_crs",
    "give bands=": "give --bands",
    "access=": "--anonymous and --requester_pays",
}
"""Arguments of the library that have a flag of another name."""

BATCH_ROWS = 131_072


def parser() -> Parser:
    """The command's flags."""
    flags = Parser(
        "report", __doc__ or "", EPILOG, ARGUMENTS, needed="--samples PREFIX --output PATH.html", runs_job=False
    )
    add = flags.add_argument_group("tables of the run").add_argument
    add("--samples", type=source, action="append", required=True, metavar="PREFIX", help="samples; may be repeated")
    add("--unsampled", type=source, action="append", metavar="PREFIX", help="points without a sample")
    add("--dead_letter", type=source, action="append", metavar="PREFIX", help="tiles that could not be read")
    add("--bands", type=names, metavar="A,B", help="names of the bands of a wide layout, in order")
    add("--geometry_crs", metavar="CRS", help="CRS of the points, if it has no EPSG code")
    collection = flags.add_argument_group("collection")
    collection.add_argument(
        "--collection", type=source, metavar="PATH", help="shows footprints, and tells nodata values from others"
    )
    subset_flags(collection)
    access_flags(collection, "the files")
    raster_flags(collection)
    outputs = flags.add_argument_group("output").add_argument
    outputs("--output", type=page, required=True, metavar="PATH.html", help="the page; replaces an existing file")
    outputs("--title", metavar="TEXT", help="heading of the page (default: of the collection)")
    return flags


def tables(places: Sequence[str], access: Access) -> pa.RecordBatchReader:
    """The rows of Parquet files, batch by batch, in the schema of the first.

    Raises
    ------
    InputError, MissingInputError
        There is no file, or one that is not Parquet or has other columns.
    """
    paths = [path for place in places for path in _files(place, access)]
    for path in paths:
        if not is_parquet(path, access):
            raise InputError(f"{without_secrets(path)} is not Parquet; a report is made of Parquet files")
    with open_parquet(paths[0], access) as first:
        schema = first.schema_arrow.remove_metadata()
    return pa.RecordBatchReader.from_batches(schema, _batches(paths, schema, access))


def _files(place: str, access: Access) -> list[str]:
    """Files of a prefix of outputs, or of a path, folder or glob."""
    try:
        return find_files(place, access)
    except MissingInputError:
        if is_glob(place) or place.endswith(("/", ".parquet")):
            raise
        try:
            return find_files(f"{place}-*-of-*.parquet", access)
        except MissingInputError:
            shown = without_secrets(place)
            raise MissingInputError(f"{shown} does not exist, nor are there files {shown}-*.parquet") from None


def _batches(paths: Sequence[str], schema: pa.Schema, access: Access) -> Iterator[pa.RecordBatch]:
    for path in paths:
        with open_parquet(path, access) as file:
            found = file.schema_arrow.remove_metadata()
            if found.names != schema.names:
                raise InputError(
                    f"{without_secrets(path)} has columns {', '.join(found.names)}, but the first file has "
                    f"{', '.join(schema.names)}; make a report of files of one run"
                )
            for batch in file.iter_batches(BATCH_ROWS):
                yield batch.cast(schema)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    flags, _ = parser().parse(argv)
    check_output(flags.output, "--output")
    place = absolute(flags.output)
    reading = access(flags) or DEFAULT_ACCESS
    collection = None
    if flags.collection:
        collection = load(flags.collection, access=access_of_collection(flags))
        collection = collection.narrowed(bbox=flags.bbox, date_range=flags.date_range)
    given = {
        name: tables(paths, reading)
        for name, paths in (("unsampled", flags.unsampled), ("dead_letters", flags.dead_letter))
        if paths
    }
    samples = tables(flags.samples, reading)
    check_file_writable(place)
    made = report(
        samples,
        collection=collection,
        bands=flags.bands,
        point_crs=flags.geometry_crs,
        title=flags.title or "",
        **given,
    )
    write_whole(place, made.html.encode())
    numbers = made.numbers()
    print(f"{'rows':<34}{numbers['rows']:>16,}")
    print(f"{'report':<34}{place}")
    return 0


if __name__ == "__main__":
    command(main)
