"""Add files to an Iceberg table in one commit, which happens once for a run."""

import random
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple

import pyarrow.parquet as pq

from rasteret_beam.errors import OutputError, listed, one_line
from rasteret_beam.kernels.iceberg.types import field_ids
from rasteret_beam.transforms.runtime.iceberg_catalog import (
    RUN,
    WRITER,
    Destination,
    Plan,
    explained,
    extended,
    find_table,
    hidden,
    known_properties,
    new_table,
    open_catalog,
    run_snapshot,
)

TRIES = 20
"""Of a commit: another writer may be first each time."""

SHORTEST_WAIT, LONGEST_WAIT = 0.1, 10.0
"""Seconds between tries."""

METRICS = "write.metadata.metrics."
"""How properties of a table begin that limit what it keeps of each column of a file."""

READERS = 16
"""Threads that read the footers of files, whose latency counts in a bucket."""


class Footer(NamedTuple):
    """What a commit needs to know of a file: its name in the table, its size, and its metadata."""

    path: str
    size: int
    metadata: pq.FileMetaData


class Added(NamedTuple):
    """How a commit ended: the snapshot, and the files that it added."""

    snapshot: int
    files: frozenset[str]
    by_us: bool


def add_files(to: Destination, plan: Plan, files: Sequence[str], run: str, writer: str) -> Added:
    """Add files to a table, unless the run has done so; create the table, or its new columns, if necessary.

    A try that finds the table changed begins anew with the table as it is. Where an answer is lost, the next try finds
    the snapshot of the run. Each commit names the snapshot that it follows, so an earlier try cannot come in later.

    Parameters
    ----------
    to : Destination
    plan : Plan
        By which the files were written.
    files : sequence of str
        Parquet files, as Beam names them.
    run, writer : str
        Name of the run, and id of the pipeline that wrote the files.

    Raises
    ------
    OutputError
    """
    footers: list[Footer] = []
    doubtful: list[_Attempt] = []
    for attempt in range(TRIES):
        if attempt:
            wait = min(SHORTEST_WAIT * 2**attempt, LONGEST_WAIT)
            time.sleep(wait * random.uniform(0.5, 1))
        try:
            with explained(f"table {to.name} cannot be written", to):
                added = _try(to, plan, files, run, writer, footers, doubtful)
                _delete_doubtful(to, doubtful, added.snapshot)
                return added
        except _TryAgain as again:
            last = again
    raise OutputError(f"table {to.name} cannot be written: {TRIES} commits failed, the last with: {last}")


class _TryAgain(OutputError):
    """Another writer was first, or the answer of the catalog is unknown."""


class _Attempt(NamedTuple):
    """A commit whose end is unknown: its snapshot, and the files of metadata that it has written."""

    snapshot: int
    files: Sequence[str]


def _try(
    to: Destination,
    plan: Plan,
    files: Sequence[str],
    run: str,
    writer: str,
    footers: list[Footer],
    doubtful: list[_Attempt],
) -> Added:
    table = _made_table(to, plan)
    landed = run_snapshot(table, run)
    if landed is not None:
        return Added(landed.snapshot_id, added_files(table, landed), landed.summary[WRITER] == writer)
    if not footers:
        footers += _footers(table, [plan.in_table(path) for path in files])
    keeping, transaction = _transaction(table)
    _add_columns(to, plan, transaction)
    data_files = _data_files(transaction.table_metadata, footers)
    with transaction.update_snapshot(snapshot_properties={RUN: run, WRITER: writer}).fast_append() as append:
        for each in data_files:
            append.append_data_file(each)
    try:
        transaction.commit_transaction()
    except Exception as error:
        if not _may_pass(error):
            raise
        doubtful.append(_Attempt(append.snapshot_id, keeping.written))
        raise _TryAgain(hidden(one_line(error), known_properties(to))) from None
    return Added(append.snapshot_id, frozenset(footer.path for footer in footers), True)


def _delete_doubtful(to: Destination, doubtful: Sequence[_Attempt], landed: int) -> None:
    """Delete what attempts have written that can no longer come in, because a later commit has."""
    paths = [path for each in doubtful if each.snapshot != landed for path in each.files]
    if paths:
        storage = find_table(open_catalog(to), to).io
        for path in paths:
            with suppress(OSError):
                storage.delete(path)


def _may_pass(error: Exception) -> bool:
    """Whether another try may succeed: also where it is unknown whether this one did."""
    from pyiceberg.exceptions import CommitFailedException, CommitStateUnknownException, ServiceUnavailableError
    from pyiceberg.exceptions import TooManyRequestsError as TooMany
    from requests.exceptions import ConnectionError as NoConnection
    from requests.exceptions import Timeout

    passing = (CommitFailedException, CommitStateUnknownException, ServiceUnavailableError, TooMany)
    return isinstance(error, (*passing, NoConnection, Timeout)) or "database is locked" in str(error)


def _made_table(to: Destination, plan: Plan) -> Any:
    """The table, created if it is missing; another writer may create it at the same time."""
    from pyiceberg.exceptions import TableAlreadyExistsError

    catalog = open_catalog(to)
    table = find_table(catalog, to)
    if table is not None:
        return table
    if to.create_disposition == "CREATE_NEVER":
        raise OutputError(f"table {to.name} is gone; create it again")
    try:
        return catalog.create_table(
            to.name.in_catalog, location=to.location or plan.location, **new_table(plan.schema, plan.terms)
        )
    except TableAlreadyExistsError as error:
        raise _TryAgain(one_line(error)) from None
    except Exception as error:
        if not _may_pass(error):
            raise
        raise _TryAgain(hidden(one_line(error), known_properties(to))) from None


def _transaction(table: Any) -> tuple[Any, Any]:
    """A transaction that commits once, and the storage that knows what it has written.

    pyiceberg's own retries would not see a commit of the same run, and it deletes the files of a commit that failed,
    though a catalog may report as failed what it has done.
    """
    from pyiceberg.io import FileIO
    from pyiceberg.table import Table, Transaction

    class Keeping(FileIO):
        def __init__(self, inner: FileIO):
            super().__init__(inner.properties)
            self.inner = inner
            self.written: list[str] = []

        def new_input(self, location: str) -> Any:
            return self.inner.new_input(location)

        def new_output(self, location: str) -> Any:
            self.written.append(location)
            return self.inner.new_output(location)

        def delete(self, location: Any) -> None:
            pass

    keeping = Keeping(table.io)
    properties = {**table.metadata.properties, "commit.retry.num-retries": "0"}
    once = table.metadata.model_copy(update={"properties": properties})
    return keeping, Transaction(Table(table.name(), once, table.metadata_location, keeping, table.catalog))


def _add_columns(to: Destination, plan: Plan, transaction: Any) -> None:
    """Add the columns that the table lacks; refuse a table whose columns are not those of the files."""
    known = {one.name for one in transaction.table_metadata.schema().fields}
    new = [one for one in plan.schema if one.name not in known]
    if new and not to.add_columns:
        raise OutputError(_changed(to, f"it has no column(s) {listed(one.name for one in new)}"))
    schema = extended(transaction, new) if new else transaction.table_metadata.schema()
    own = {one.name: one.field_id for one in schema.fields}
    differing = [name for name, number in field_ids(plan.schema) if own[name] != number]
    if differing:
        raise OutputError(_changed(to, f"column(s) {listed(differing)} have other ids"))
    spec = transaction.table_metadata.spec()
    found = [(schema.find_column_name(one.source_id), str(one.transform)) for one in spec.fields]
    if [each for each in found if each[1] != "void"] != [(term.column, term.transform) for term in plan.terms]:
        raise OutputError(_changed(to, "it is partitioned in another way"))


def _changed(to: Destination, how: str) -> str:
    return f"table {to.name} has changed since the job began: {how}; run the job again"


def _footers(table: Any, paths: Sequence[str]) -> list[Footer]:
    def read(path: str) -> Footer:
        file = table.io.new_input(path)
        with file.open() as stream:
            return Footer(path, len(file), pq.read_metadata(stream))

    with ThreadPoolExecutor(READERS, thread_name_prefix="footer") as pool:
        return list(pool.map(read, paths))


def _data_files(metadata: Any, footers: Iterable[Footer]) -> list[Any]:
    """What a table has to know of each file: partition, sizes, counts and limits of its columns."""
    from pyiceberg.io.pyarrow import compute_statistics_plan, parquet_path_to_id_mapping

    schema, properties = metadata.schema(), metadata.properties
    ids = parquet_path_to_id_mapping(schema)
    columns = compute_statistics_plan(schema, properties)
    # Limits of the partition's columns are needed even where the table does not want to keep them.
    is_limited = any(name.startswith(METRICS) for name in properties)
    whole = compute_statistics_plan(schema, {}) if is_limited and metadata.spec().fields else None
    return [_data_file(metadata, footer, columns, whole, ids) for footer in footers]


def _data_file(metadata: Any, footer: Footer, columns: Any, whole: Any, ids: Any) -> Any:
    from pyiceberg.io.pyarrow import data_file_statistics_from_parquet_metadata as statistics
    from pyiceberg.manifest import DataFile, DataFileContent, FileFormat

    found = statistics(footer.metadata, columns, ids)
    known = found if whole is None else statistics(footer.metadata, whole, ids)
    partition = known.partition(metadata.spec(), metadata.schema())
    for place, one in enumerate(metadata.spec().fields):
        is_there = one.source_id in known.column_sizes and str(one.transform) != "void"
        if is_there and partition[place] is None and known.null_value_counts.get(one.source_id) != known.record_count:
            raise OutputError(f"{footer.path} does not tell its partition {one.name!r}: its values are too long")
    return DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=footer.path,
        file_format=FileFormat.PARQUET,
        partition=partition,
        file_size_in_bytes=footer.size,
        sort_order_id=None,
        spec_id=metadata.default_spec_id,
        equality_ids=None,
        key_metadata=None,
        **found.to_serialized_dict(),
    )


def added_files(table: Any, snapshot: Any) -> frozenset[str]:
    """The files that a snapshot has added."""
    manifests = [each for each in snapshot.manifests(table.io) if each.added_snapshot_id == snapshot.snapshot_id]
    entries = [entry for each in manifests for entry in each.fetch_manifest_entry(table.io)]
    return frozenset(entry.data_file.file_path for entry in entries)
