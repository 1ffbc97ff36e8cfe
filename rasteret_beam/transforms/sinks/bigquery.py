"""Write rows to BigQuery with Parquet files and one load job, or with Beam's WriteToBigQuery."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar
from uuid import uuid4

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions
from apache_beam.utils.timestamp import Timestamp

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam.errors import InputError, OutputError, RasteretBeamError, listed, one_line
from rasteret_beam.kernels.bigquery.names import TableName
from rasteret_beam.kernels.bigquery.rows import json_rows, python_rows
from rasteret_beam.kernels.bigquery.schema import (
    CLUSTER_TYPES,
    MOST_CLUSTERED,
    PARTITION_TYPES,
    bigquery_fields,
    check_columns,
    differences,
    loadable,
    loadable_schema,
)
from rasteret_beam.metrics import ROWS_WRITTEN
from rasteret_beam.readers.tiles.budget import ROW_GROUP_ROWS
from rasteret_beam.schema import samples_schema
from rasteret_beam.transforms.runtime.beam_metrics import count
from rasteret_beam.transforms.runtime.bigquery_client import (
    CREATE_DISPOSITIONS,
    MOST_URIS,
    WRITE_DISPOSITIONS,
    Destination,
    check_choice,
    check_destination,
    is_loaded,
    libraries,
    load,
)
from rasteret_beam.transforms.runtime.files import check_writable, delete_folder, matching
from rasteret_beam.transforms.sinks.commit import Output, move_files
from rasteret_beam.transforms.sinks.parquet import WriteFiles, documented_for
from rasteret_beam.transforms.sinks.parquet_file import write_empty
from rasteret_beam.zonal_options import ZonalOptions

METHODS = ("FILE_LOADS", "STREAMING_INSERTS", "STORAGE_WRITE_API")
UNITS = ("HOUR", "DAY", "MONTH", "YEAR")
CLUSTERED = ("record_id", "band")
RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,200}")
NOT_IN_STORAGE_API = ("DATE", "TIME", "DATETIME", "BIGNUMERIC")
"""Types that Beam's rows for the Storage Write API do not support."""


class _InRounds:
    """The rounds of a run that loads once, after the last; see :class:`.protocol.RoundSink`."""

    method: str
    token: str

    @property
    def takes_rounds(self) -> bool:
        return self.method == "FILE_LOADS"

    @property
    def run(self) -> str:
        return self.token

    @run.setter
    def run(self, run: str) -> None:
        self.token = run

    def folder(self: Any, options: PipelineOptions) -> str:
        return str(self.temporary(options))

    def other_runs(self, options: PipelineOptions) -> list[str]:
        start = self.folder(options).removesuffix(self.token)
        inside = {path.removeprefix(start).partition("/")[0] for path in matching(start, "*/**")}
        return sorted(inside - {self.token})

    def in_round(self: Any) -> beam.PTransform:
        return _WriteRound(self)

    def after_rounds(self: Any, files: Sequence[str], options: PipelineOptions) -> None:
        list(self.loading(options).process(list(files)))


@dataclass(eq=False)
class _WriteToBigQuery(_InRounds, beam.PTransform):
    """Write batches of rows to a BigQuery table.

    With ``method="FILE_LOADS"`` batches become Parquet files in a temporary folder of ``temp_location``, and one load
    job loads all rows or none. The folder is removed after a success and kept after a failure, with its path in the
    error. A retried bundle writes another file, and only the last one is used. The load job has a unique name, so that
    a retried step finds it and does not load twice.

    The other methods use Beam's ``WriteToBigQuery``, for unbounded input. They cost far more per row, write row by row,
    and append the rows again in a rerun.

    Parameters
    ----------
    table : str
        ``project:dataset.table`` or ``project.dataset.table``; ``dataset.table`` if ``project`` is given.
    schema : pyarrow.Schema
        Schema of the rows, with the kept columns, as :meth:`rasteret_beam.Collection.MAKER` gives it. Lists become
        REPEATED, structs RECORD, ``datetime`` and timestamps with a time zone TIMESTAMP, other timestamps DATETIME.
        BigQuery arrays cannot be or contain null, so a null list is stored as an empty one, and null in ``values`` as
        NaN.
    method : str
        One of :data:`METHODS`.
    create_disposition : "CREATE_IF_NEEDED" or "CREATE_NEVER"
        The table is created just before the load; if the load fails, the empty table remains.
    write_disposition : "WRITE_APPEND", "WRITE_TRUNCATE" or "WRITE_EMPTY"
        An existing table must have the same columns, even to be truncated.
    cluster_by : sequence of str, optional
        At most 4 clustering columns of a new table; by default record_id and, if it exists, band.
    partition_by : str, optional
        Partitioning column of a new table, a time such as ``datetime`` or ``datetime:MONTH`` (HOUR, DAY, MONTH, YEAR).
    temp_location : str, optional
        A gs:// folder; by default the pipeline's ``--temp_location``.
    project : str, optional
        Project to run and bill jobs in; by default the pipeline's ``--project``, or the table's.
    run_id : str, optional
        Name of this run. Runs with the same id and table load once: a rerun after a completed load adds nothing,
        whatever it sampled (BigQuery keeps jobs for 6 months). Without an id each pipeline is a separate run, and
        WRITE_APPEND adds its rows.
    compression : str
    row_group_rows : int

    Yields
    ------
    str
        The id of the load job; nothing with the other methods, where a refused row fails the job.

    Raises
    ------
    MissingInputError
        On construction: google-cloud-bigquery is not installed.
    InputError, OutputError
        On construction: a setting or a column cannot be used. When applied: as :meth:`check`.
    """

    table: str
    _: KW_ONLY
    schema: pa.Schema = field(default_factory=samples_schema, repr=False)
    method: str = "FILE_LOADS"
    create_disposition: str = "CREATE_IF_NEEDED"
    write_disposition: str = "WRITE_APPEND"
    cluster_by: Sequence[str] | None = None
    partition_by: str | None = None
    temp_location: str | None = None
    project: str | None = None
    run_id: str | None = None
    compression: str = "zstd"
    row_group_rows: int = ROW_GROUP_ROWS
    token: str = field(default_factory=lambda: uuid4().hex[:12], repr=False)
    _checked: bool = field(default=False, init=False, repr=False)

    schema_from: ClassVar[str] = "collection.sample_schema(bands, kept columns, options)"

    def __post_init__(self) -> None:
        libraries()
        check_choice("method", self.method, METHODS)
        check_choice("create_disposition", self.create_disposition, CREATE_DISPOSITIONS)
        check_choice("write_disposition", self.write_disposition, WRITE_DISPOSITIONS)
        self.name = TableName.parse(self.table, self.project)
        self.fields = bigquery_fields(self.schema)
        if self.cluster_by is None:
            self.cluster_by = [name for name in CLUSTERED if name in self.schema.names]
        check_columns("cluster_by", self.cluster_by, self.fields, CLUSTER_TYPES)
        if len(self.cluster_by) > MOST_CLUSTERED:
            raise InputError(f"cluster_by is {listed(self.cluster_by)}; a table can have at most 4 clustering columns")
        self.partitioning = self._partitioning()
        if self.run_id is not None and not RUN_ID.fullmatch(self.run_id):
            raise InputError(f"run_id is {self.run_id!r}; use at most 200 letters, digits, - and _")
        if self.method != "FILE_LOADS" and self.run_id is not None:
            raise InputError(f"run_id goes with FILE_LOADS; method {self.method} appends the rows of each run")
        if self.method == "STORAGE_WRITE_API":
            _check_storage_api(self.fields)

    def _partitioning(self) -> tuple[str, str] | None:
        if self.partition_by is None:
            return None
        column, _, unit = self.partition_by.partition(":")
        check_choice("unit of partition_by", unit or "DAY", UNITS)
        check_columns("partition_by", [column], self.fields, PARTITION_TYPES)
        return column, unit or "DAY"

    @property
    def job_name(self) -> str:
        """The prefix of the load job's ids, equal for the same table and run."""
        if self.run_id is None:
            return f"rasteret_beam-{self.token}"
        return f"rasteret_beam-{self.run_id}-{hashlib.sha256(str(self.name).encode()).hexdigest()[:12]}"

    def temporary(self, options: PipelineOptions) -> str:
        """The temporary folder, which is removed after a success.

        Raises
        ------
        InputError
            There is no temp_location on Google Cloud Storage.
        """
        place = self.temp_location or options.view_as(GoogleCloudOptions).temp_location
        if not place or not re.fullmatch(r"gs://[^/]+(/.*)?", place):
            raise InputError(
                f"rows are loaded to BigQuery from files on Google Cloud Storage, but temp_location is {place!r}; give "
                "one such as gs://bucket/temp"
            )
        return f"{place.rstrip('/')}/rasteret_beam-{self.token}"

    def destination(self, options: PipelineOptions) -> Destination:
        """The table and the settings for its jobs."""
        assert self.cluster_by is not None
        return Destination(
            self.name,
            self.project or options.view_as(GoogleCloudOptions).project or self.name.project,
            self.fields,
            self.create_disposition,
            self.write_disposition,
            tuple(self.cluster_by),
            self.partitioning,
        )

    def check(self, options: PipelineOptions) -> None:
        """Check once, before anything is read, that rows can be loaded.

        Raises
        ------
        OutputError
            Dataset or bucket do not exist, are in different locations, or need permission.
        InputError
            The table has another schema or conflicts with the dispositions; or there is no temp_location.
        """
        if self._checked:
            return
        files = self.method == "FILE_LOADS"
        temporary = self.temporary(options) if files else None
        to = self.destination(options)
        if not (self.run_id is not None and is_loaded(to, self.job_name)):
            check_destination(to, temporary.split("/")[2] if temporary else None)
        if temporary:
            check_writable(f"{temporary}/files")
        self._checked = True

    @property
    def place(self) -> str:
        return str(self.name)

    @property
    def prefixes(self) -> list[str]:
        return []

    @property
    def targets(self) -> list[Output]:
        return []

    @property
    def counts_rows(self) -> bool:
        """Beam's own ways into BigQuery count nothing."""
        return self.method == "FILE_LOADS"

    def staged(self) -> beam.PTransform:
        return self

    def leftovers(self, options: PipelineOptions) -> list[str]:
        return [self.temporary(options)] if self.method == "FILE_LOADS" else []

    def is_done(self, options: PipelineOptions) -> bool:
        return self.is_loaded(options)

    def committed(self, options: PipelineOptions) -> str | None:
        return self.place if self.method == "FILE_LOADS" and self.has_loaded(options) else None

    def is_loaded(self, options: PipelineOptions) -> bool:
        """Whether a run with the same ``run_id`` has loaded its rows."""
        return self.run_id is not None and self.has_loaded(options)

    def has_loaded(self, options: PipelineOptions) -> bool:
        """Whether this run, or one with the same ``run_id``, has loaded its rows with a load job."""
        return is_loaded(self.destination(options), self.job_name)

    def expand(self, rows: beam.PCollection) -> beam.PCollection[str]:
        options = rows.pipeline.options
        if self.method == "FILE_LOADS" and not rows.is_bounded:
            raise InputError(
                "FILE_LOADS loads once, when all rows are available; use another method for unbounded input"
            )
        self.check(options)
        alike = self.checked(rows)
        if self.method == "FILE_LOADS":
            return self._by_files(alike, options)
        return self._by_rows(alike)

    def checked(self, rows: beam.PCollection) -> beam.PCollection[pa.RecordBatch]:
        """Refuse batches with other columns than the table."""
        return rows | "CheckColumns" >> beam.Map(_alike, self.schema, self.fields, self.schema_from).with_output_types(
            pa.RecordBatch
        )

    def _by_files(self, rows: beam.PCollection, options: PipelineOptions) -> beam.PCollection[str]:
        return self.files_of(rows, options) | "Load" >> beam.ParDo(self.loading(options)).with_output_types(str)

    def files_of(self, rows: beam.PCollection, options: PipelineOptions) -> beam.PCollection[list[str]]:
        """Write files that can be loaded; returns one list of them."""
        return (
            rows
            | "Prepare" >> beam.Map(loadable).with_output_types(pa.RecordBatch)
            | "WriteFiles" >> WriteFiles(self.temporary(options), self.compression, self.row_group_rows)
        )

    def loading(self, options: PipelineOptions) -> "_LoadFn":
        return _LoadFn(self.destination(options), self.job_name, self.temporary(options), self.schema, self.compression)

    def _by_rows(self, rows: beam.PCollection) -> beam.PCollection[str]:
        streaming = self.method == "STREAMING_INSERTS"
        maker = json_rows if streaming else _storage_rows
        made = rows | "Rows" >> beam.FlatMap(_counted, maker).with_output_types(dict)
        try:
            written = made | "WriteToBigQuery" >> self._beams_own(streaming)
        except (RuntimeError, OSError, ValueError) as error:
            raise OutputError(
                f"method {self.method} cannot be set up: {one_line(error)}; STORAGE_WRITE_API needs Java and "
                "Beam's expansion service from Maven Central; FILE_LOADS needs neither"
            ) from error
        failed = written.failed_rows_with_errors
        return failed | "Refuse" >> beam.Map(_refuse, str(self.name)).with_output_types(str)

    def _beams_own(self, streaming: bool) -> beam.PTransform:
        parameters: dict[str, Any] = {"clustering": {"fields": list(self.cluster_by or ())}} if self.cluster_by else {}
        if self.partitioning:
            parameters["timePartitioning"] = {"field": self.partitioning[0], "type": self.partitioning[1]}
        retried = {"insert_retry_strategy": "RETRY_ON_TRANSIENT_ERROR"} if streaming else {}
        return beam.io.WriteToBigQuery(
            f"{self.name.project}:{self.name.dataset}.{self.name.table}",
            schema={"fields": self.fields},
            create_disposition=self.create_disposition,
            write_disposition=self.write_disposition,
            method=self.method,
            additional_bq_parameters=parameters,
            **retried,
        )


@dataclass(eq=False)
class WriteSamplesToBigQuery(_WriteToBigQuery):
    __doc__ = documented_for(_WriteToBigQuery, "samples").replace("MAKER", "sample_schema")


@dataclass(eq=False)
class WriteZonalStatisticsToBigQuery(_WriteToBigQuery):
    __doc__ = documented_for(_WriteToBigQuery, "zonal statistics").replace("MAKER", "zonal_schema")

    schema: pa.Schema = field(default_factory=lambda: ZonalOptions().schema(), repr=False)

    schema_from: ClassVar[str] = "collection.zonal_schema(kept columns, options)"


@dataclass(eq=False)
class _WriteRound(beam.PTransform):
    """The files of one round of a run that loads once, after the last."""

    sink: _WriteToBigQuery

    def expand(self, rows: beam.PCollection) -> beam.PCollection[list[str]]:
        return self.sink.files_of(self.sink.checked(rows), rows.pipeline.options)


def _check_storage_api(fields: Sequence[dict[str, Any]]) -> None:
    unknown = [one["name"] for one in fields if one["type"] in NOT_IN_STORAGE_API]
    if unknown:
        raise InputError(
            f"column(s) {listed(unknown)} have one of the types {listed(NOT_IN_STORAGE_API)}, which Beam's Storage "
            "Write API does not support; use FILE_LOADS, or leave them out with columns=[...]"
        )


def _alike(
    batch: pa.RecordBatch, schema: pa.Schema, fields: Sequence[dict[str, Any]], schema_from: str
) -> pa.RecordBatch:
    """Refuse a batch with other columns than those that were checked for the table."""
    if not batch.schema.equals(schema):
        differing = list(differences(fields, bigquery_fields(batch.schema)))
        if differing:
            raise InputError(
                f"the columns of the rows differ from the given schema: {'; '.join(differing)}; give "
                f"schema={schema_from} that matches them"
            )
    return batch


class _LoadFn(beam.DoFn):
    """Load all files with one job; a retry finds the job and removes the remaining files."""

    def __init__(self, to: Destination, job_name: str, temporary: str, schema: pa.Schema, compression: str):
        self.to = to
        self.job_name = job_name
        self.temporary = temporary
        self.schema = loadable_schema(schema)
        self.compression = compression

    def process(self, files: list[str]) -> Iterator[str]:
        try:
            written = sorted(files) or [write_empty(self.temporary, self.schema, self.compression)]
            job = load(self.to, _uris(written, self.temporary), self.job_name)
        except RasteretBeamError as error:
            raise OutputError(
                f"{one_line(error)}. No row was added; the {len(files)} Parquet file(s) of rows are kept in "
                f"{self.temporary}/: load or delete them"
            ) from error
        delete_folder(self.temporary)
        yield job


def _uris(files: list[str], temporary: str, most: int = MOST_URIS) -> list[str]:
    """URIs of files for one load job; for very many files a wildcard that excludes files of failed bundles."""
    if len(files) <= most:
        return files
    move_files({f"{temporary}/complete/{path.rsplit('/', 1)[-1]}": path for path in files})
    return [f"{temporary}/complete/*.parquet"]


def _counted(batch: pa.RecordBatch, maker: Any) -> Iterator[dict[str, Any]]:
    yield from maker(batch)
    count({ROWS_WRITTEN: len(batch)})


def _storage_rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    """Rows with Beam's timestamps."""
    times = [one.name for one in loadable_schema(batch.schema) if pa.types.is_timestamp(one.type)]
    for row in python_rows(batch):
        for name in times:
            if row[name] is not None:
                row[name] = Timestamp.from_utc_datetime(row[name])
        yield row


def _refuse(failed: Any, table: str) -> str:
    raise OutputError(f"BigQuery refused a row for {table}: {failed[-1]}")
