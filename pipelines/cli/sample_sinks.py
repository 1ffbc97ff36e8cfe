"""The sinks of rows that a command can write to, by flag: of samples, and of zonal statistics."""

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import pyarrow as pa

from pipelines.cli.flags import names, table_path
from pipelines.cli.iceberg_flags import ICEBERG_FLAG, check_without_iceberg, iceberg_flags, to_iceberg
from rasteret_beam import (
    WriteSamplesToBigQuery,
    WriteSamplesToCsv,
    WriteSamplesToIceberg,
    WriteSamplesToParquet,
    WriteZonalStatisticsToBigQuery,
    WriteZonalStatisticsToCsv,
    WriteZonalStatisticsToIceberg,
    WriteZonalStatisticsToParquet,
)
from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.tables.csv_text import is_csv
from rasteret_beam.transforms.runtime.bigquery_client import CREATE_DISPOSITIONS, WRITE_DISPOSITIONS
from rasteret_beam.transforms.sinks.bigquery import METHODS
from rasteret_beam.transforms.sinks.protocol import Sink

Maker = Callable[..., Sink]

BIGQUERY_SETTINGS = {
    "bq_method": "method",
    "bq_create_disposition": "create_disposition",
    "bq_write_disposition": "write_disposition",
    "bq_cluster_by": "cluster_by",
    "bq_partition_by": "partition_by",
    "bq_run_id": "run_id",
}

BIGQUERY_ARGUMENTS = {setting: flag for flag, setting in BIGQUERY_SETTINGS.items()}


@dataclass(frozen=True)
class SampleSink:
    """A sink of samples, or of other rows.

    Attributes
    ----------
    flag : mapping
        What argparse knows of its flag: metavar, help and type.
    make : callable
        The sink that flags ask for, for rows of a schema.
    add_flags : callable
        Adds its other flags, if it has any, to a parser.
    check_without : callable
        Refuses its other flags where another sink is asked for.
    """

    flag: Mapping[str, Any]
    make: Callable[[argparse.Namespace, pa.Schema], Sink]
    add_flags: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    check_without: Callable[[argparse.Namespace], None] = lambda flags: None


def _check_without_bigquery(flags: argparse.Namespace) -> None:
    given = [f"--{flag}" for flag in BIGQUERY_SETTINGS if getattr(flags, flag)]
    if given:
        raise InputError(f"{listed(given)} given without --bigquery")


def _to_files(to_parquet: Maker, to_csv: Maker, flags: argparse.Namespace, schema: pa.Schema) -> Sink:
    return files_sink(to_parquet, to_csv, flags.output, schema)


def files_sink(to_parquet: Maker, to_csv: Maker, path: str, schema: pa.Schema) -> Sink:
    """The sink of files that the ending of a path asks for."""
    return (to_csv if is_csv(path) else to_parquet)(path, schema=schema)


def file_kind(path: str | None) -> Literal["files", "file"]:
    """What is written to a path; see :class:`rasteret_beam.readers.storage.output_conflicts.Written`."""
    return "file" if path is not None and is_csv(path) else "files"


def _to_bigquery(maker: Maker, flags: argparse.Namespace, schema: pa.Schema) -> Sink:
    given = {setting: getattr(flags, flag) for flag, setting in BIGQUERY_SETTINGS.items() if getattr(flags, flag)}
    return maker(flags.bigquery, schema=schema, **given)


def _bigquery_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("output to BigQuery").add_argument
    add("--bq_method", choices=METHODS, help="by a load job, or row by row through Beam's sink (default: FILE_LOADS)")
    add(
        "--bq_create_disposition",
        choices=CREATE_DISPOSITIONS,
        help="whether to create the table (default: CREATE_IF_NEEDED)",
    )
    add(
        "--bq_write_disposition",
        choices=WRITE_DISPOSITIONS,
        help="what to do with existing rows (default: WRITE_APPEND)",
    )
    add(
        "--bq_cluster_by",
        type=names,
        action="extend",
        metavar="A,B",
        help="columns that cluster a new table (default: record_id,band)",
    )
    add("--bq_partition_by", metavar="COLUMN[:UNIT]", help="column that partitions a new table: datetime:MONTH")
    add("--bq_run_id", metavar="ID", help="name of this run; a second run of the same name adds no row twice")


def _sinks(to_parquet: Maker, to_csv: Maker, to_bigquery: Maker, into_iceberg: Maker) -> dict[str, SampleSink]:
    return {
        "output": SampleSink(
            {
                "type": table_path,
                "metavar": "PREFIX",
                "help": "write Parquet files PREFIX-00000-of-0000N.parquet, or one CSV file if it ends in .csv or "
                ".csv.gz, and replace those of an earlier run",
            },
            partial(_to_files, to_parquet, to_csv),
        ),
        "bigquery": SampleSink(
            {
                "metavar": "PROJECT:DATASET.TABLE",
                "help": "write to a BigQuery table instead of files, by one load job; requires --temp_location "
                "gs://...",
            },
            partial(_to_bigquery, to_bigquery),
            _bigquery_flags,
            _check_without_bigquery,
        ),
        "iceberg": SampleSink(ICEBERG_FLAG, partial(to_iceberg, into_iceberg), iceberg_flags, check_without_iceberg),
    }


def chosen_sink(
    sinks: Mapping[str, SampleSink], flags: argparse.Namespace, schema: pa.Schema
) -> tuple[str, Sink, Literal["files", "file"]]:
    """The flag of the sink that flags ask for, the sink, for rows of a schema, and the kind of its files."""
    name = next(name for name in sinks if getattr(flags, name) is not None)
    for other in sinks.keys() - {name}:
        sinks[other].check_without(flags)
    return f"--{name}", sinks[name].make(flags, schema), file_kind(flags.output)


def missing_sink(sinks: Mapping[str, SampleSink], flags: argparse.Namespace) -> str | None:
    """What is wrong if flags ask for no sink."""
    if any(getattr(flags, name) is not None for name in sinks):
        return None
    return f"one of the arguments {' '.join(f'--{name}' for name in sinks)} is required"


SAMPLE_SINKS = _sinks(WriteSamplesToParquet, WriteSamplesToCsv, WriteSamplesToBigQuery, WriteSamplesToIceberg)
ZONAL_SINKS = _sinks(
    WriteZonalStatisticsToParquet,
    WriteZonalStatisticsToCsv,
    WriteZonalStatisticsToBigQuery,
    WriteZonalStatisticsToIceberg,
)
