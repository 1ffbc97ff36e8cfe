"""The flags of an Iceberg table, and the sink that they ask for."""

import argparse
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from pipelines.cli.arguments import use_also
from pipelines.cli.flags import names, switch
from rasteret_beam.errors import InputError, listed
from rasteret_beam.transforms.runtime.iceberg_catalog import CREATE_DISPOSITIONS
from rasteret_beam.transforms.sinks.protocol import Sink

ICEBERG_SETTINGS = {
    "iceberg_property": "catalog_properties",
    "iceberg_partition_by": "partition_by",
    "iceberg_create_disposition": "create_disposition",
    "iceberg_add_columns": "add_columns",
    "iceberg_location": "location",
    "iceberg_run_id": "run_id",
}

NO_PARTITIONS = "none"

ICEBERG_FLAG = {
    "metavar": "CATALOG.NAMESPACE.TABLE",
    "help": "add the rows to an Apache Iceberg table instead of files, in one commit; the catalog is "
    "that of pyiceberg's configuration, or of --iceberg_property",
}


def iceberg_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags beside ``--iceberg``."""
    group = parser.add_argument_group("output to Iceberg")
    add = group.add_argument
    add(
        "--iceberg_property",
        type=_property,
        action="append",
        metavar="KEY=VALUE",
        help="property of the catalog, such as uri=..., before those of ~/.pyiceberg.yaml and of the environment, "
        "which are the place for secrets; can be given several times",
    )
    add(
        "--iceberg_partition_by",
        type=names,
        metavar="A,B",
        help="partitions of a new table: columns, or COLUMN:UNIT with year, month, day or hour; none for no partitions "
        "(default: datetime:month,band)",
    )
    add(
        "--iceberg_create_disposition",
        choices=CREATE_DISPOSITIONS,
        help="whether to create the table (default: CREATE_IF_NEEDED)",
    )
    switch(group, "--iceberg_add_columns", "add columns to an existing table that lacks them, instead of refusing them")
    add("--iceberg_location", metavar="URL", help="location of a new table (default: the catalog decides)")
    add("--iceberg_run_id", metavar="ID", help="name of this run; a second run of the same name adds no row twice")


def _property(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise argparse.ArgumentTypeError("a property is not KEY=VALUE; give one such as uri=https://example.com")
    return key.strip(), value


def check_without_iceberg(flags: argparse.Namespace) -> None:
    """Refuse flags of an Iceberg table where there is none.

    Raises
    ------
    InputError
    """
    given = [f"--{flag}" for flag in ICEBERG_SETTINGS if getattr(flags, flag)]
    if given:
        raise InputError(f"{listed(given)} given without --iceberg")


def to_iceberg(maker: Callable[..., Sink], flags: argparse.Namespace, schema: pa.Schema) -> Sink:
    """The sink that the flags ask for."""
    use_also({setting: flag for flag, setting in ICEBERG_SETTINGS.items()})
    given: dict[str, Any] = {
        setting: getattr(flags, flag) for flag, setting in ICEBERG_SETTINGS.items() if getattr(flags, flag)
    }
    if "catalog_properties" in given:
        given["catalog_properties"] = dict(given["catalog_properties"])
    if given.get("partition_by") == [NO_PARTITIONS]:
        given["partition_by"] = []
    return maker(flags.iceberg, schema=schema, **given)
