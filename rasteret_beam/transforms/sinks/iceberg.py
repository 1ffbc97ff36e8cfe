"""Write rows to an Iceberg table: Parquet files, which one commit adds to it."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar
from uuid import uuid4

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam.errors import InputError, OutputError, RasteretBeamError, one_line
from rasteret_beam.kernels.iceberg.names import TableName, partition_terms
from rasteret_beam.kernels.iceberg.types import storable, storable_schema
from rasteret_beam.readers.tiles.budget import ROW_GROUP_ROWS
from rasteret_beam.schema import samples_schema
from rasteret_beam.transforms.runtime.bigquery_client import check_choice
from rasteret_beam.transforms.runtime.event_times import in_windows
from rasteret_beam.transforms.runtime.files import delete_files, delete_folder, matching
from rasteret_beam.transforms.runtime.iceberg_catalog import (
    CREATE_DISPOSITIONS,
    Destination,
    Plan,
    ask,
    check_place,
    find_table,
    is_in,
    libraries,
    open_catalog,
    planned,
    writers,
)
from rasteret_beam.transforms.runtime.iceberg_commit import Added, add_files
from rasteret_beam.transforms.sinks.bigquery import RUN_ID
from rasteret_beam.transforms.sinks.commit import Output, uninterrupted, write_whole
from rasteret_beam.transforms.sinks.parquet import WriteFiles, documented_for
from rasteret_beam.transforms.sinks.parquet_files import FILE_BYTES
from rasteret_beam.transforms.sinks.partitioned_files import WritePartitions
from rasteret_beam.transforms.sinks.rounds import FOLDER as ROUNDS
from rasteret_beam.transforms.sinks.rounds import RUN as ROUNDS_RUN
from rasteret_beam.zonal_options import ZonalOptions

log = logging.getLogger(__name__)

START = "rasteret_beam-"
"""How the name of a run's folder begins, in the folder of the table's data; the id of its pipeline follows."""

UNFINISHED = "_unfinished.json"
"""File in a run's folder until its files are added to the table."""


class _InRounds:
    """The rounds of a run that commits once, after the last; see :class:`.protocol.RoundSink`."""

    token: str
    takes_rounds = True

    @property
    def run(self) -> str:
        return self.token

    @run.setter
    def run(self, run: str) -> None:
        self.token = run

    def folder(self: Any, options: PipelineOptions) -> str:
        return str(self.temporary())

    def other_runs(self: Any, options: PipelineOptions) -> list[str]:
        start = f"{self.plan.folder}/{START}"
        inside = {path.removeprefix(start).partition("/")[0] for path in matching(start, "*/**")}
        return sorted(inside - {self.token})

    def in_round(self: Any) -> beam.PTransform:
        return _WriteRound(self)

    def after_rounds(self: Any, files: Sequence[str], options: PipelineOptions) -> None:
        list(self.committing().process(list(files)))


@dataclass(eq=False)
class _WriteToIceberg(_InRounds, beam.PTransform):
    """Write batches of rows to an Apache Iceberg table.

    Batches become Parquet files in a folder of the table's data, and one commit adds all of them or none. Its snapshot
    carries the name of the run, so that a retried step, or a rerun with the same ``run_id``, finds it and adds nothing.
    A commit that another writer has overtaken is tried again on the table as it then is. After a failure the files are
    kept, with their folder in the error. A retried bundle writes other files, and only the last ones are added.

    Workers that write files need access to the table's storage through Beam's filesystems, and nothing of the catalog.
    The step that commits runs on a worker too, and needs pyiceberg, the catalog and the storage through pyiceberg:
    ``catalog_properties`` travel with that step, pyiceberg's own configuration has to be there.

    A stream, or any input outside the global window, is refused.

    Parameters
    ----------
    table : str
        ``catalog.namespace.table``; a nested namespace has several names.
    schema : pyarrow.Schema
        Schema of the rows, with the kept columns, as :meth:`rasteret_beam.Collection.MAKER` gives it. Dictionaries are
        stored as their values, unsigned integers as longer ones, and timestamps in microseconds.
    catalog_properties : mapping, optional
        Properties of the catalog, such as ``uri``, ``warehouse`` or ``token``, beside and before those of
        ``~/.pyiceberg.yaml`` and of the environment.
    partition_by : sequence of str, optional
        Of a new table: columns, or ``column:transform`` with one of year, month, day, hour. By default
        ``datetime:month`` and, if it exists, ``band``; ``[]`` for none. An existing table keeps its partitions.
    create_disposition : "CREATE_IF_NEEDED" or "CREATE_NEVER"
        The table is created just before the commit; if that fails, the empty table remains.
    add_columns : bool
        Whether columns that an existing table lacks are added to it, in the same commit; by default they are refused.
    location : str, optional
        Of a new table; by default the catalog decides.
    run_id : str, optional
        Name of this run. Runs with the same id and table add their rows once, as long as the table keeps the snapshot.
        Without an id each pipeline is a separate run.
    compression : str
    row_group_rows : int
    file_bytes : int
        Size of a file, after which rows go to another.

    Yields
    ------
    str
        The id of the snapshot.

    Raises
    ------
    MissingInputError
        On construction: pyiceberg is not installed.
    InputError
        On construction: a setting or a column cannot be used. When applied: as :meth:`check`, or the input is a stream.
    OutputError
        When applied: as :meth:`check`.
    """

    table: str
    _: KW_ONLY
    schema: pa.Schema = field(default_factory=samples_schema, repr=False)
    catalog_properties: Mapping[str, str] = field(default_factory=dict, repr=False)
    partition_by: Sequence[str] | None = None
    create_disposition: str = "CREATE_IF_NEEDED"
    add_columns: bool = False
    location: str | None = None
    run_id: str | None = None
    compression: str = "zstd"
    row_group_rows: int = ROW_GROUP_ROWS
    file_bytes: int = FILE_BYTES
    token: str = field(default_factory=lambda: uuid4().hex[:12], repr=False)
    _plan: Plan | None = field(default=None, init=False, repr=False)
    _checked: bool = field(default=False, init=False, repr=False)

    schema_from: ClassVar[str] = "collection.sample_schema(bands, kept columns, options)"
    prefixes: ClassVar[Sequence[str]] = ()
    targets: ClassVar[Sequence[Output]] = ()
    counts_rows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        libraries()
        check_choice("create_disposition", self.create_disposition, CREATE_DISPOSITIONS)
        if self.run_id is not None and not RUN_ID.fullmatch(self.run_id):
            raise InputError(f"run_id is {self.run_id!r}; use at most 200 letters, digits, - and _")
        if not isinstance(self.catalog_properties, Mapping):
            raise InputError("catalog_properties is not a mapping; give names and texts, such as {'uri': ...}")
        odd = [key for key, value in self.catalog_properties.items() if not isinstance(value, str)]
        if odd:
            raise InputError(f"catalog_properties has {odd[0]!r}, which is not text; give all values as text")
        stored = storable_schema(self.schema)
        if self.partition_by is not None:
            partition_terms(self.partition_by, stored)
        name = TableName.parse(self.table)
        self.destination = Destination(
            name, dict(self.catalog_properties), self.create_disposition, self.add_columns, self.location
        )

    @property
    def run_name(self) -> str:
        """The name of the run in the table's history."""
        return self.run_id or self.token

    @property
    def plan(self) -> Plan:
        """How rows become files of the table; sends requests the first time."""
        if self._plan is None:
            self._plan = planned(self.destination, self.schema, self.partition_by)
        return self._plan

    def temporary(self) -> str:
        """The folder of this run's files, which stay there once they are added."""
        return f"{self.plan.folder}/{START}{self.token}"

    @property
    def data_folder(self) -> str | None:
        """Where workers write, once it is known from the catalog."""
        return self._plan.folder if self._plan is not None else None

    def check(self, options: PipelineOptions) -> None:
        """Check, before anything is read, that rows can be added; name what killed runs have left.

        Raises
        ------
        OutputError
            Catalog, namespace or storage cannot be used.
        InputError
            The table has another schema or other partitions.
        """
        if self._checked:
            return
        if not self.is_done(options):
            check_place(self.destination, self.plan, self.temporary())
            self._name_unfinished()
        self._checked = True

    def _name_unfinished(self) -> None:
        in_table, others = _unfinished(self.destination, self.plan, self.token)
        table = self.destination.name
        for folder in in_table:
            log.warning(
                "table %s has the rows of a run that was killed just after it had added %s/; a new run adds its rows "
                "beside them",
                table,
                folder,
            )
        for folder in others:
            log.warning(
                "%s/ has files of a run that is still active or was killed, and that table %s does not have; delete "
                "the folder unless the run is active, or goes on with --resume, as a killed command in rounds can",
                folder,
                table,
            )

    @property
    def place(self) -> str:
        return str(self.destination.name)

    def staged(self) -> beam.PTransform:
        return self

    def leftovers(self, options: PipelineOptions) -> list[str]:
        """The folder of this run, unless its files may be those of the table."""
        try:
            return [] if is_in(self.destination, self.run_name) else [self.temporary()]
        except RasteretBeamError:
            return []

    def is_done(self, options: PipelineOptions) -> bool:
        return self.run_id is not None and is_in(self.destination, self.run_id)

    def committed(self, options: PipelineOptions) -> str | None:
        return self.place if is_in(self.destination, self.run_name) else None

    def expand(self, rows: beam.PCollection) -> beam.PCollection[str]:
        if not rows.is_bounded or in_windows(rows):
            raise InputError(
                f"{type(self).__name__} commits once, when all rows are there, but the input is a stream or has "
                "windows; write windows with WriteSamplesToParquet, or rows with Beam's managed I/O for Iceberg"
            )
        self.check(rows.pipeline.options)
        begun = (
            rows.pipeline
            | "Begin" >> beam.Create([None])
            | "CheckWorker"
            >> beam.Map(_begin, self.destination, self.temporary(), self.run_name).with_output_types(str)
        )
        committing = beam.ParDo(self.committing(), beam.pvalue.AsIter(begun)).with_output_types(str)
        return self.files_of(rows) | "Commit" >> committing

    def files_of(self, rows: beam.PCollection) -> beam.PCollection[list[str]]:
        """Write files of the table; returns one list of them."""
        plan = self.plan
        fitting = beam.Map(_fitting, self.schema, plan.schema, self.schema_from).with_output_types(pa.RecordBatch)
        settings = self.compression, self.row_group_rows, self.file_bytes
        writing = (
            WritePartitions(self.temporary(), plan.terms, *settings)
            if plan.terms
            else WriteFiles(self.temporary(), *settings)
        )
        return rows | "Fit" >> fitting | "WriteFiles" >> writing

    def committing(self) -> "_CommitFn":
        return _CommitFn(self.destination, self.plan, self.temporary(), self.run_name, self.token)


@dataclass(eq=False)
class WriteSamplesToIceberg(_WriteToIceberg):
    __doc__ = documented_for(_WriteToIceberg, "samples").replace("MAKER", "sample_schema")


@dataclass(eq=False)
class WriteZonalStatisticsToIceberg(_WriteToIceberg):
    __doc__ = documented_for(_WriteToIceberg, "zonal statistics").replace("MAKER", "zonal_schema")

    schema: pa.Schema = field(default_factory=lambda: ZonalOptions().schema(), repr=False)

    schema_from: ClassVar[str] = "collection.zonal_schema(kept columns, options)"


@dataclass(eq=False)
class _WriteRound(beam.PTransform):
    """The files of one round of a run that commits once, after the last."""

    sink: _WriteToIceberg

    def expand(self, rows: beam.PCollection) -> beam.PCollection[list[str]]:
        return self.sink.files_of(rows)


def _fitting(batch: pa.RecordBatch, given: pa.Schema, stored: pa.Schema, schema_from: str) -> pa.RecordBatch:
    """A batch in the table's types; one with other columns than those that were checked is refused."""
    if not batch.schema.equals(given):
        wanted = {one.name: one.type for one in storable_schema(given)}
        found = {one.name: one.type for one in storable_schema(batch.schema)}
        names = dict.fromkeys([*wanted, *found])
        differing = [
            f"{name} is {found.get(name, 'missing')} in the rows, {wanted.get(name, 'missing')} in the schema"
            for name in names
            if found.get(name) != wanted.get(name)
        ]
        if differing:
            raise InputError(
                f"the columns of the rows differ from the given schema: {'; '.join(differing)}; give "
                f"schema={schema_from} that matches them"
            )
        batch = batch.select(given.names)
    return storable(batch, stored)


def _begin(_: None, to: Destination, folder: str, run: str) -> str:
    """Find out whether the step that commits can reach the catalog, hours before it has to; mark the run as begun."""
    open_catalog(to)
    began = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    write_whole(f"{folder}/{UNFINISHED}", json.dumps({"table": str(to.name), "run": run, "began": began}).encode())
    return folder


class _CommitFn(beam.DoFn):
    """Add all files to the table with one commit; a retry finds it, and deletes files that are not in it."""

    def __init__(self, to: Destination, plan: Plan, folder: str, run: str, writer: str):
        self.to = to
        self.plan = plan
        self.folder = folder
        self.run = run
        self.writer = writer

    def process(self, files: list[str], begun: Any = ()) -> Iterator[str]:
        list(begun)
        try:
            with uninterrupted():
                added = add_files(self.to, self.plan, sorted(files), self.run, self.writer)
        except RasteretBeamError as error:
            raise OutputError(
                f"{one_line(error)}. No row was added; the {len(files)} Parquet file(s) of rows are kept in "
                f"{self.folder}/: delete them, or add them to the table"
            ) from error
        self._clean(added)
        yield str(added.snapshot)

    def _clean(self, added: Added) -> None:
        """Delete what is not in the table: files of failed bundles, or those of a run whose rows it had already."""
        if not added.by_us:
            delete_folder(self.folder)
            return
        written = matching(f"{self.folder}/", "*.parquet")
        delete_files([path for path in written if self.plan.in_table(path) not in added.files])
        for folder in (self.folder, *_unfinished(self.to, self.plan, self.writer)[0]):
            _mark_finished(folder)


def _unfinished(to: Destination, plan: Plan, own: str) -> tuple[list[str], list[str]]:
    """Folders of other runs that did not end: those whose files are in the table, and the others."""
    start = f"{plan.folder}/{START}"
    marks = (*matching(start, f"*/{UNFINISHED}"), *matching(start, f"*/{ROUNDS}/{ROUNDS_RUN}"))
    found = sorted({path.removeprefix(start).partition("/")[0] for path in marks} - {own})
    table = ask(to, lambda: find_table(open_catalog(to), to)) if found else None
    landed = writers(table) if table is not None else set()
    return [start + run for run in found if run in landed], [start + run for run in found if run not in landed]


def _mark_finished(folder: str) -> None:
    delete_files(matching(f"{folder}/", UNFINISHED))
    delete_folder(f"{folder}/{ROUNDS}")
