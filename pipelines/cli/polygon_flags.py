"""Flags of the commands that read polygons."""

import argparse

from pipelines.cli.flags import (
    access_flags,
    format_flags,
    names,
    prefix,
    raster_flags,
    source,
    subset_flags,
    table_path,
)

POLYGON_ARGUMENTS = {
    "source": "polygons",
    "path": "retry",
    "cache_bytes": "cache_mb",
    "access=": "--anonymous and --requester_pays",
    "with a separate ReadPolygons": "with a separate job",
    "with anonymous=True": "with --anonymous (the files of --polygons: --polygons_anonymous)",
    "requester_pays='my-project'": "--requester_pays PROJECT (for --polygons: --polygons_requester_pays PROJECT)",
}
"""Arguments of the library that have a flag of another name."""


def polygon_flags(flags: argparse._ArgumentGroup, again: str) -> None:
    """Add the flags for the polygons; ``again`` says what is done with dead letters."""
    one_of = flags.add_mutually_exclusive_group(required=True)
    one_of.add_argument(
        "--polygons",
        type=source,
        action="append",
        metavar="PATH",
        help="Parquet, GeoParquet, CSV with WKT, GeoJSON, GeoPackage, FlatGeobuf or shapefile: a file, a folder or a "
        "glob; may be repeated",
    )
    one_of.add_argument(
        "--retry",
        type=source,
        action="append",
        metavar="PATH",
        help=f"read dead letters of an earlier run, and {again}; may be repeated",
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
        action="extend",
        metavar="A,B",
        help="polygon columns to keep in the output (default: all but the geometry)",
    )
    access_flags(flags, "the files of --polygons", "polygons_")
    format_flags(flags, "--polygons")


def collection_flags(flags: argparse._ArgumentGroup) -> None:
    """Add the flags for the collection and its bands."""
    flags.add_argument("--collection", required=True, metavar="PATH", help="folder or file of the collection")
    flags.add_argument(
        "--bands", type=names, action="extend", metavar="A,B", help="bands to read; required without --retry"
    )
    subset_flags(flags)
    access_flags(flags, "the collection and its rasters")
    raster_flags(flags)


def leftover_flags(flags: argparse._ArgumentGroup, without: str, lost: str) -> None:
    """Add the flags for polygons ``without`` a result, and for tiles that cannot be read, with what is ``lost``."""
    flags.add_argument(
        "--unmatched",
        type=table_path,
        metavar="PREFIX",
        help=f"also write the polygons without {without}, each with its reason, to Parquet, or to a CSV file if it "
        "ends in .csv or .csv.gz",
    )
    flags.add_argument(
        "--dead_letter",
        type=prefix,
        metavar="PREFIX",
        help=f"write tiles that cannot be read to Parquet, with {lost}, instead of failing",
    )
