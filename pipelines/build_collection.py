"""Build a collection: read the headers of raster files and write an index of them as Parquet."""

from pipelines.startup import prepare

prepare(__name__)

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime as Datetime

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.cli.flags import Parser, access, access_flags, band_indexes, names, paths, pipeline_options, raster_flags
from pipelines.cli.memory_report import is_local
from pipelines.cli.process import command
from pipelines.cli.progress import Counts, progress
from pipelines.cli.remote_workers import check_hrefs, check_packages, check_paths
from pipelines.cli.runner import not_complete, run
from pipelines.cli.stac_flags import check_without_stac, records_of_workers, stac_flags, stac_sources
from rasteret_beam import BuildCollection, metrics
from rasteret_beam.collection.build import DESCRIPTIONS, sources_from_cogs
from rasteret_beam.collection.collection import load
from rasteret_beam.collection.filters.dates import datetime_in
from rasteret_beam.collection.parquet.layout import band_names
from rasteret_beam.collection.parquet.writing import check_replaceable
from rasteret_beam.collection.records.record_tables import record_table, sources_from_table
from rasteret_beam.collection.records.records import RecordSource
from rasteret_beam.errors import InputError
from rasteret_beam.model import DEFAULT_ACCESS, Access
from rasteret_beam.readers.storage.href_policy import named_in
from rasteret_beam.readers.storage.listing import find_rasters, split_lists
from rasteret_beam.readers.storage.output_conflicts import Read, Written, check_apart
from rasteret_beam.transforms.runtime.files import check_writable
from rasteret_beam.transforms.stac_records import StacRecords

EPILOG = """
examples:
  python -m pipelines.build_collection --cogs 'scenes/*.tif' --datetime_regex '_(\\d{8})' \\
      --output collection/
  python -m pipelines.build_collection --stac https://earth-search.aws.element84.com/v1 \\
      --stac_collections sentinel-2-l2a --bands red,nir --bbox 2,45,3,46 --datetime 2023-06 \\
      --output collection/
  python -m pipelines.build_collection --table items.parquet --href_column path \\
      --bands A00:0,A01:1 --output collection/

Exit codes: 0, the collection is complete (with --on_error skip: except for the files that it lists). 1, the job failed,
and the collection is as before, unless the error says that it is in place. 2, a flag is wrong.
"""


ARGUMENTS = {
    "hrefs": "cogs",
    "table_or_path": "table",
    "source": "stac",
    "collections": "stac_collections",
    "enrich is False": "--enrich is none",
    "band_index_map": "bands",
    "of the collections, bbox, datetime and query": "of --stac_collections, --bbox, --datetime and --query",
    "widen collections, bbox, datetime or query": "widen --stac_collections, --bbox, --datetime or --query",
    "with alternate=...": "with --alternate NAME",
    "access=": "--anonymous and --requester_pays",
}
"""Arguments of the library whose flags have other names."""


FINDING = ((metrics.ITEMS_FOUND, "items found"),)
"""What is shown while items are read."""


def parser() -> Parser:
    """The command's flags."""
    flags = Parser(
        "build_collection",
        __doc__ or "",
        EPILOG,
        ARGUMENTS,
        needed="(--cogs PATH | --table PATH | --stac SOURCE) --output PATH",
    )
    records = flags.add_argument_group("records")
    add = records.add_argument
    source = records.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--cogs",
        type=paths,
        action="append",
        metavar="PATH,...",
        help="raster files, folders of *.tif, or globs, local or in a bucket (gs://bucket/prefix/), or URLs of files; "
        "each file is a record; may be repeated",
    )
    source.add_argument("--table", metavar="PATH", help="Parquet with one row per record: id, datetime, assets")
    source.add_argument(
        "--stac",
        metavar="SOURCE",
        help="URL of a STAC API, or path or URL of a static catalog, an item collection, NDJSON or stac-geoparquet; "
        "each item is a record",
    )
    add(
        "--bands",
        type=band_indexes,
        metavar="A,B:3",
        help="names of the bands, in order or with their index from 0; with --cogs, 'descriptions' takes the names "
        "from each file, and with --stac they are names of assets, of bands, or common names such as red",
    )
    add(
        "--datetime_regex",
        metavar="REGEX",
        help="with --cogs: pattern of the date in a path: its first group (20230630, 2023-06-30T1000, the month "
        "2023.06, the day of the year 2023181, a year), or groups named year, month, day, hour, minute, second and doy",
    )
    add("--href_column", metavar="NAME", help="with --table: the column with each record's file, for --bands")
    add("--column_map", type=names, action="extend", metavar="THEIRS:OURS,...", help="with --table: columns to rename")
    add(
        "--on_error",
        choices=("raise", "skip"),
        default="raise",
        help="fail if some files cannot be read, or leave out their records (default: raise)",
    )
    access_flags(records, "the rasters and the table")
    raster_flags(records)
    stac_flags(flags.add_argument_group("items of --stac"))
    _output_flags(flags.add_argument_group("collection"))
    return flags


def _output_flags(flags: argparse._ArgumentGroup) -> None:
    add = flags.add_argument
    add("--output", required=True, metavar="FOLDER", help="folder of the collection; replaces an existing collection")
    add("--name", default="", metavar="NAME", help="name of the collection; samples have it in a column")
    add("--data_source", default="", metavar="TEXT", help="origin of the rasters, as free text")
    add("--shards", type=int, default=1, metavar="N", help="number of files per year and month (default: 1)")


def sources(flags: argparse.Namespace) -> list[RecordSource]:
    """The records of the flags, before their files are opened."""
    reading = access(flags) or DEFAULT_ACCESS
    if flags.stac is not None:
        with progress(Counts(FINDING)):
            return stac_sources(flags, _reading(flags))
    check_without_stac(flags)
    if flags.cogs is not None:
        for name in ("href_column", "column_map"):
            if getattr(flags, name) is not None:
                raise InputError(f"--{name} goes with --table, not with --cogs; omit it")
        files = find_rasters(split_lists(flags.cogs, reading), reading)
        bands = DESCRIPTIONS if flags.bands == {DESCRIPTIONS: 0} else flags.bands
        return sources_from_cogs(files, bands=bands, datetime=_date_finder(flags.datetime_regex))
    if flags.datetime_regex is not None:
        raise InputError("--datetime_regex goes with --cogs, not with --table, whose column datetime has the dates")
    mapped = dict(_pair(pair) for pair in flags.column_map or [])
    bands = list(flags.bands) if flags.bands else None
    table = record_table(flags.table, flags.href_column, flags.bands, mapped, reading, bands)
    return sources_from_table(table, bands or band_names(table.select(["assets"]).schema))


def _reading(flags: argparse.Namespace) -> Access:
    """How the rasters are read."""
    given = access(flags) or DEFAULT_ACCESS
    if flags.sign is not None:
        given = replace(given, sign=flags.sign)
    return named_in(flags.table or "", given)


def hrefs_of(record: RecordSource) -> list[str]:
    """The files of a record."""
    return [record.href] if record.href is not None else [href for href, _ in record.assets.values()]


def _check_apart(flags: argparse.Namespace) -> None:
    cogs = split_lists(flags.cogs, access(flags) or DEFAULT_ACCESS) if flags.cogs is not None else []
    inputs = [Read("--cogs", cogs), Read("--table", [flags.table] if flags.table is not None else [])]
    inputs += [Read("--stac", [flags.stac])] if flags.stac is not None else []
    check_apart([Written("--output", flags.output, "collection")], inputs)


def _pair(text: str) -> tuple[str, str]:
    theirs, colon, ours = text.partition(":")
    if not colon:
        raise InputError(f"--column_map has {text!r}, which is not THEIRS:OURS")
    return theirs, ours


def _date_finder(pattern: str | None) -> Callable[[str], Datetime] | None:
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"--datetime_regex {pattern!r} is not a regular expression: {error}") from error
    if not compiled.groups:
        raise InputError(f"--datetime_regex {pattern!r} has no group; put the date in brackets, as '_(\\d{{8}})'")

    def find(href: str) -> Datetime:
        try:
            return datetime_in(compiled, href)
        except InputError as error:
            raise InputError(f"--datetime_regex {error}") from error

    return find


def accounting_error(counts: dict[str, int], named: int, there: int) -> str | None:
    """A difference between the records of the flags and those in the collection, or None."""
    read, left = counts.get(metrics.RECORDS_READ, 0), counts.get(metrics.RECORDS_LEFT_OUT, 0)
    if not named == counts.get(metrics.RECORDS_IN, 0) == read + left:
        return f"the flags name {named} records, but {read} were read and {left} skipped"
    written = counts.get(metrics.RECORDS_WRITTEN, 0)
    if not read == written == there:
        return f"{read} records were read, but {written} written, and {there} are in the collection"
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    flags, rest = parser().parse(argv)
    if flags.shards < 1:
        raise InputError(f"--shards is {flags.shards}; it has to be 1 or more")
    options = pipeline_options(rest)
    building = BuildCollection(
        flags.output,
        name=flags.name,
        data_source=flags.data_source,
        on_error=flags.on_error,
        shards=flags.shards,
        access=_reading(flags),
    )
    _check_apart(flags)
    check_packages(options)
    check_paths(
        options, {"--cogs": split_lists(flags.cogs or [], access(flags) or DEFAULT_ACCESS), "--output": flags.output}
    )
    reading = _reading_items(flags, options)
    records = sources(flags) if reading is None else []
    check_hrefs(options, "the records", (href for record in records for href in hrefs_of(record)))
    check_replaceable(building.output)
    check_writable(building.output)

    def build(pipeline: beam.Pipeline) -> None:
        made = beam.Create(records) if reading is None else reading
        pipeline | "Records" >> made | "BuildCollection" >> building

    outcome = run(build, options, [building.target])
    if isinstance(outcome, int):
        return outcome
    counts, _ = outcome
    return _report(counts, len(records) if reading is None else counts.get(metrics.RECORDS_IN, 0), building.output)


def _reading_items(flags: argparse.Namespace, options: PipelineOptions) -> StacRecords | None:
    """The records of ``--stac`` if workers read them."""
    if flags.stac is None:
        return None
    for name in ("href_column", "column_map", "datetime_regex"):
        if getattr(flags, name) is not None:
            raise InputError(f"--{name} goes with another source of records than --stac; omit it")
    reading = records_of_workers(flags, _reading(flags), is_local(options))
    if reading is not None:
        check_paths(options, {"--stac": [flags.stac]})
    return reading


def _report(counts: dict[str, int], named: int, output: str) -> int:
    """Print what has been built of the ``named`` records; returns the exit code."""
    built = load(output)
    print(f"{len(built)} of {named} records in {output}, bands {', '.join(built.bands)}")
    wrong = accounting_error(counts, named, len(built))
    if wrong is not None:
        return not_complete(wrong, [output])
    if len(built) < named:
        print(f"warning: {named - len(built)} records were skipped, see above", file=sys.stderr)
    return 0


if __name__ == "__main__":
    command(main)
