"""Read BigQuery tables and queries as Arrow batches through the Storage Read API.

A read session is a snapshot of a table, split into streams; within a session, the rows of a stream and their order
never change. google-cloud-bigquery and google-cloud-bigquery-storage are imported on use, as only the ``gcp`` extra
installs them.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import uuid4

import pyarrow as pa

from rasteret_beam.errors import InputError, MissingInputError, one_line
from rasteret_beam.kernels.bigquery.arrow import arrow_schema, check_readable, in_schema
from rasteret_beam.kernels.bigquery.names import TableName
from rasteret_beam.kernels.bigquery.schema import Field
from rasteret_beam.kernels.routing.chunks import pieces
from rasteret_beam.transforms.runtime import bigquery_client as service
from rasteret_beam.transforms.runtime.bigquery_client import MISSING_EXTRA, briefly, explained, make_client, run_once
from rasteret_beam.transforms.runtime.google_services import ask_bigquery

MOST_STREAMS = 1000
"""Maximum number of streams that a job requests; small tables have fewer."""

READABLE = ("TABLE", "SNAPSHOT")
STORAGE_HOST = "BIGQUERY_STORAGE_EMULATOR_HOST"
"""Variable with the host:port of an emulator, which is used without encryption or credentials."""

MESSAGE_OPTIONS = (("grpc.max_receive_message_length", -1),)
WAYS_OUT = {
    "responseTooLarge": "write the result into a table (CREATE TABLE ... AS SELECT ...) and read that",
    "expired": "a read session lasts 6 hours, and the result of a query 24 hours: start the job again",
    "snapshot time": "give a snapshot_time within the table's time travel window (7 days), and check the clock",
    "partition elimination": "read it with a query that has this filter",
    "location": "give the location of the data, or omit it",
}


@dataclass(frozen=True)
class BigQueryTable:
    """A BigQuery table as a source of points, for :class:`ReadPoints`.

    Parameters
    ----------
    table : str
        ``project:dataset.table`` or ``project.dataset.table``; ``dataset.table`` if ``project`` is given. index_column
        : str, optional
        A column of unique integers without nulls that becomes ``point_index``. Without it rows are numbered in the
        order of one read session: a row keeps its number throughout a job, including retries, but BigQuery does not
        guarantee the same order in another job.
    snapshot_time : datetime or str, optional
        The table is read as of this time: a datetime or ISO text, in UTC if it has no time zone. The default is the
        time when the source is first inspected, at the latest when the pipeline is built.
    project : str, optional
        Project to bill for reading; by default the table's.

    Raises
    ------
    InputError
        The time cannot be parsed.
    """

    table: str
    _: KW_ONLY
    index_column: str | None = None
    snapshot_time: datetime | str | None = None
    project: str | None = None

    def __post_init__(self) -> None:
        _moment(self.snapshot_time)


@dataclass(frozen=True)
class BigQueryQuery:
    """The result of a BigQuery query as a source of points, for :class:`ReadPoints`.

    The query runs once per job, when the job reads; a retry of the step uses its result.

    Parameters
    ----------
    sql : str
        One SELECT statement in GoogleSQL.
    index_column : str, optional
        As in :class:`BigQueryTable`.
    project : str, optional
        Project to run and bill the query in; by default the environment's.
    location : str, optional
        Location to run the query in; by default BigQuery derives it from the tables.
    """

    sql: str
    _: KW_ONLY
    index_column: str | None = None
    project: str | None = None
    location: str | None = None


BigQuerySource = BigQueryTable | BigQueryQuery


@dataclass(frozen=True)
class Extract:
    """An inspected source; it is sent with the job.

    Attributes
    ----------
    what : str
        Name in errors.
    project : str
        Project to bill for reading.
    fields : sequence of dict
        BigQuery fields of all columns.
    table : TableName or None
    snapshot : datetime or None
        Snapshot time of the table; None if the table never changes.
    sql, location, job_name : str or None
        For a query; the ids of its jobs begin with ``job_name``.
    """

    what: str
    project: str
    fields: Sequence[Field]
    table: TableName | None = None
    snapshot: datetime | None = None
    sql: str = ""
    location: str | None = None
    job_name: str = ""

    @property
    def schema(self) -> pa.Schema:
        return arrow_schema(self.fields)

    def check(self, needed: Sequence[str]) -> None:
        """Check before reading that columns can be read and, for a table, that a session may be created.

        Raises
        ------
        InputError, MissingInputError
        """
        check_readable(self.fields, needed, self.what)
        if self.table is not None:
            ask_bigquery(self.what, lambda: open_streams(self, needed, most=1))


class Stream(NamedTuple):
    """A part of a session that one worker reads; ``number`` is its position in the session."""

    number: int
    name: str


def look_at(source: BigQuerySource) -> Extract:
    """Inspect a source: its columns, snapshot and query.

    Raises
    ------
    InputError, MissingInputError
        The table does not exist, needs permission or cannot be read; or the query is wrong.
    """
    if isinstance(source, BigQueryTable):
        return ask_bigquery(f"table {source.table}", lambda: _look_at_table(source))
    return ask_bigquery("the query", lambda: _look_at_query(source))


def _look_at_table(source: BigQueryTable) -> Extract:
    name = TableName.parse(source.table, source.project)
    project = source.project or name.project
    started = datetime.now(UTC)
    granting = f"roles/bigquery.dataViewer on {name.in_dataset}"
    with explained(f"table {name} cannot be read", granting, MissingInputError, WAYS_OUT):
        table = make_client(project).get_table(str(name), retry=briefly())
    if table.table_type not in READABLE:
        raise InputError(
            f"{name} is a {table.table_type}, which the Storage Read API does not read; give a query instead: "
            f"SELECT * FROM `{name}`"
        )
    fields = [field.to_api_repr() for field in table.schema]
    snapshot = _snapshot(source.snapshot_time, started, table.modified) if table.table_type == "TABLE" else None
    return Extract(f"table {name}", project, fields, table=name, snapshot=snapshot)


def _snapshot(given: datetime | str | None, started: datetime, modified: datetime | None) -> datetime:
    moment = _moment(given)
    if moment is None:
        # The clock of this machine may be slow, but all rows written before now must be visible.
        return max(started, modified + timedelta(milliseconds=1)) if modified is not None else started
    return moment


def _moment(given: datetime | str | None) -> datetime | None:
    try:
        moment = datetime.fromisoformat(given) if isinstance(given, str) else given
    except ValueError:
        raise InputError(f"snapshot_time is {given!r}; write it as 2023-01-31T12:00:00Z") from None
    return moment if moment is None else moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)


def _look_at_query(source: BigQueryQuery) -> Extract:
    config = service.libraries().QueryJobConfig(dry_run=True, use_query_cache=False)
    client = _query_client(source.project)
    with explained("the query cannot be run", _granting_query(client.project), InputError, WAYS_OUT):
        job = client.query(source.sql, job_config=config, location=source.location, retry=briefly(), job_retry=None)
    if job.statement_type != "SELECT":
        raise InputError(f"the query is a {job.statement_type}; give one SELECT statement")
    fields = [field.to_api_repr() for field in job.schema or ()]
    name = f"rasteret_beam-points-{uuid4().hex[:12]}"
    return Extract("the query", client.project, fields, sql=source.sql, location=job.location, job_name=name)


def _query_client(project: str | None) -> Any:
    with explained("the query cannot be run", "roles/bigquery.jobUser", InputError, WAYS_OUT):
        try:
            return make_client(project)
        except OSError as error:
            raise InputError(f"there is no project to run the query in: {one_line(error)}; give project=...") from error


def _granting_query(project: str) -> str:
    return f"roles/bigquery.jobUser on project {project} and roles/bigquery.dataViewer on the tables of the query"


def open_streams(extract: Extract, needed: Sequence[str], most: int = MOST_STREAMS) -> list[Stream]:
    """The streams of a new session, for a query after it has run. A table without rows may have none.

    Raises
    ------
    MissingInputError
    """
    storage, table = _storage(), extract.table or _result_of(extract)
    session = storage.types.ReadSession(
        table=f"projects/{table.project}/datasets/{table.dataset}/tables/{table.table}",
        data_format=storage.types.DataFormat.ARROW,
        read_options={"selected_fields": list(needed)},
    )
    if extract.snapshot is not None:
        session.table_modifiers.snapshot_time = extract.snapshot
    with (
        storage_client() as client,
        explained(f"{extract.what} cannot be read", _granting_session(extract), MissingInputError, WAYS_OUT),
    ):
        made = client.create_read_session(
            parent=f"projects/{extract.project}",
            read_session=session,
            max_stream_count=most,
            retry=_retry(service.CHECK_SECONDS),
        )
    return [Stream(number, stream.name) for number, stream in enumerate(made.streams)]


def _granting_session(extract: Extract) -> str:
    data = f" and roles/bigquery.dataViewer on {extract.table.in_dataset}" if extract.table else ""
    return f"roles/bigquery.readSessionUser on project {extract.project}{data}"


def _result_of(extract: Extract) -> TableName:
    """The table with the result of a query; runs the query unless a job of this name has done so."""
    client = make_client(extract.project)

    def submit(name: str) -> Any:
        return client.query(
            extract.sql, job_id=name, location=extract.location, retry=service.patiently(), job_retry=None
        )

    with explained("the query failed", _granting_query(extract.project), MissingInputError, WAYS_OUT):
        found = run_once(client, extract.job_name, extract.location, submit).destination
    return TableName(found.project, found.dataset_id, found.table_id)


@contextmanager
def storage_client() -> Iterator[Any]:
    """A client of the Storage Read API, closed after use."""
    storage, host = _storage(), os.environ.get(STORAGE_HOST)
    granting = "roles/bigquery.readSessionUser"
    with explained("the Storage Read API cannot be used", granting, MissingInputError, WAYS_OUT):
        client = storage.BigQueryReadClient(transport=_insecure_transport(host) if host else None)
    try:
        yield client
    finally:
        client.transport.close()


def _storage() -> Any:
    try:
        from google.cloud import bigquery_storage_v1
    except ImportError as error:
        raise MissingInputError(MISSING_EXTRA) from error
    return bigquery_storage_v1


def _insecure_transport(host: str) -> Any:
    import grpc
    from google.cloud.bigquery_storage_v1.services.big_query_read.transports import BigQueryReadGrpcTransport

    return BigQueryReadGrpcTransport(channel=grpc.insecure_channel(host, options=MESSAGE_OPTIONS))


def _retry(seconds: float) -> Any:
    from google.api_core.exceptions import DeadlineExceeded, ServiceUnavailable
    from google.api_core.retry import Retry, if_exception_type

    return Retry(predicate=if_exception_type(DeadlineExceeded, ServiceUnavailable), timeout=seconds)


def read_stream(client: Any, stream: Stream, extract: Extract, needed: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """All rows of a stream with the types of ``extract.schema``; a broken connection resumes where it stopped.

    Raises
    ------
    MissingInputError
        The stream cannot be read, after retries.
    InputError
        It has other columns than the inspected source.
    """
    schema = pa.schema([extract.schema.field(name) for name in needed])
    with explained(f"{extract.what} cannot be read", _granting_session(extract), MissingInputError, WAYS_OUT):
        sent: pa.Schema | None = None
        for message in client.read_rows(stream.name, retry=_retry(service.LOAD_SECONDS)):
            if message.arrow_schema.serialized_schema:
                sent = pa.ipc.read_schema(pa.py_buffer(message.arrow_schema.serialized_schema))
            if message.row_count:
                packed = pa.py_buffer(message.arrow_record_batch.serialized_record_batch)
                yield in_schema(pa.ipc.read_record_batch(packed, sent), schema, extract.what)


def gathered(batches: Iterable[pa.RecordBatch], most_rows: int, most_bytes: int) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of limited rows and bytes, as messages may be small or large."""
    waiting: list[pa.RecordBatch] = []
    rows = size = 0
    for part in _cut(batches, most_rows, most_bytes):
        if waiting and (rows + len(part) > most_rows or size + part.nbytes > most_bytes):
            yield pa.concat_batches(waiting)
            waiting, rows, size = [], 0, 0
        waiting.append(part)
        rows, size = rows + len(part), size + part.nbytes
    if waiting:
        yield pa.concat_batches(waiting)


def _cut(batches: Iterable[pa.RecordBatch], most_rows: int, most_bytes: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for piece in pieces(batch, most_bytes):
            yield from (piece.slice(start, most_rows) for start in range(0, len(piece), most_rows))
