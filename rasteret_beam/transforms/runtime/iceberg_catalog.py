"""Iceberg catalogs through pyiceberg: what is known of a table before rows are written.

pyiceberg is imported on use, as only the ``iceberg`` extra installs it.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from rasteret_beam.errors import (
    InputError,
    MissingInputError,
    OutputError,
    RasteretBeamError,
    did_you_mean,
    how_to_install,
    listed,
    one_line,
    without_secrets,
)
from rasteret_beam.kernels.iceberg.names import PartitionTerm, TableName, default_terms, partition_terms
from rasteret_beam.kernels.iceberg.types import fit, storable_schema, with_field_ids
from rasteret_beam.readers.storage.first_contact import within
from rasteret_beam.transforms.runtime.files import check_output, check_writable

CREATE_DISPOSITIONS = ("CREATE_IF_NEEDED", "CREATE_NEVER")
MISSING_EXTRA = "Iceberg tables need pyiceberg, which is not installed: " + how_to_install("iceberg")

RUN, WRITER = "rasteret-beam.run-id", "rasteret-beam.writer"
"""Properties of a snapshot: the name of the run whose rows it adds, and the id of the pipeline that wrote them."""

OPEN = ("type", "uri", "warehouse", "py-io-impl", "py-catalog-impl", "prefix", "region", "endpoint", "scope", "realm")
"""Ends of the names of catalog properties whose values may be shown, apart from passwords in URLs."""

SHORTEST_SECRET = 4
WHOLE_HISTORY = {"snapshot-loading-mode": "all"}
"""A REST catalog that gives only current snapshots does not show the runs before the last."""

LOCAL = re.compile(r"file:(//)?(?=/)")
HADOOP = re.compile(r"s3[an]://")


@dataclass(frozen=True)
class Destination:
    """A table, how its catalog is reached, and what may be done to it.

    Whoever commits needs it; ``properties`` may hold secrets, so it is not sent to those who write files.
    """

    name: TableName
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)
    create_disposition: str = "CREATE_IF_NEEDED"
    add_columns: bool = False
    location: str | None = None


@dataclass(frozen=True)
class Plan:
    """How rows become files of a table; it is sent to those who write them.

    Attributes
    ----------
    schema : Schema
        Of the files, with the ids of the columns.
    terms : sequence of PartitionTerm
    location : str
        Of the table.
    data : str
        Folder or URL of the table's files, as the table names them.
    folder : str
        The same as Beam's filesystems name it.
    """

    schema: pa.Schema
    terms: tuple[PartitionTerm, ...]
    location: str
    data: str
    folder: str

    def in_table(self, path: str) -> str:
        """A file that Beam has written, as the table names it."""
        return self.data + path.removeprefix(self.folder)


def libraries() -> None:
    """Import pyiceberg.

    Raises
    ------
    MissingInputError
        It is not installed.
    """
    try:
        import pyiceberg.io.pyarrow
        import pyiceberg.table  # noqa: F401
    except ImportError as error:
        raise MissingInputError(MISSING_EXTRA) from error


def hidden(text: str, properties: Mapping[str, Any]) -> str:
    """A text without the values of catalog properties that may be secrets."""
    values = {str(value) for key, value in properties.items() if not key.lower().endswith(OPEN)}
    values |= {part for value in values if "://" not in value for part in value.split(":")}  # ID:SECRET
    for value in sorted(values, key=len, reverse=True):
        if len(value) >= SHORTEST_SECRET and value.lower() not in ("true", "false"):
            text = text.replace(value, "...")
    return without_secrets(text)


@contextmanager
def explained(doing: str, to: Destination, raising: type[RasteretBeamError] = OutputError) -> Iterator[None]:
    """Turn an error of pyiceberg or of its services into one line without secrets.

    The cause is left out, because its text may have them.

    Raises
    ------
    RasteretBeamError
    """
    try:
        yield
    except RasteretBeamError:
        raise
    except Exception as error:  # of pyiceberg, requests, SQLAlchemy, botocore, Arrow
        text = hidden(one_line(error), known_properties(to))
        raise raising(f"{doing}: {text}{_way_out(error, to)}") from None


def _way_out(error: Exception, to: Destination) -> str:
    ways = {
        "UnauthorizedError": "check the credentials of the catalog",
        "ForbiddenError": "grant the account of the catalog the right to read and write the table",
        "OAuthError": "check the credentials of the catalog",
        "NotInstalledError": "install what the catalog or its storage needs, such as pyiceberg[sql-sqlite,s3fs]",
        "ConnectionError": "check the network and the uri of the catalog",
        "OperationalError": "check the uri of the catalog",
    }
    found = next((ways[each.__name__] for each in type(error).__mro__ if each.__name__ in ways), None)
    return f"; {found}" if found else ""


def known_properties(to: Destination) -> dict[str, Any]:
    """The properties of a catalog: those given, and those of pyiceberg's files and environment."""
    from pyiceberg.utils.config import Config

    with _quiet():
        found = Config().get_catalog_config(to.name.catalog) or {}
    return {**_flat(found), **to.properties}


def _flat(found: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in found.items():
        flat |= _flat(value, f"{start}{key}.") if isinstance(value, Mapping) else {f"{start}{key}": value}
    return flat


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the logs of pyiceberg, which name properties."""
    logger = logging.getLogger("pyiceberg")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before


def open_catalog(to: Destination) -> Any:
    """The catalog of a table.

    Raises
    ------
    InputError
        It is not configured.
    OutputError
        It cannot be reached.
    """
    libraries()
    from pyiceberg.catalog import load_catalog

    name = to.name.catalog
    if not known_properties(to):
        raise InputError(
            f"Iceberg catalog {name!r} is not configured; give catalog_properties={{'uri': ...}}, or describe it in "
            f"~/.pyiceberg.yaml or in PYICEBERG_CATALOG__{name.upper()}__URI"
        )
    with explained(f"Iceberg catalog {name!r} cannot be used", to):
        return load_catalog(name, **{**WHOLE_HISTORY, **to.properties})


def find_table(catalog: Any, to: Destination) -> Any:
    """The present table, or None.

    Raises
    ------
    OutputError
    """
    from pyiceberg.exceptions import NoSuchTableError

    with explained(f"table {to.name} cannot be read", to):
        try:
            return catalog.load_table(to.name.in_catalog)
        except NoSuchTableError:
            return None


def ask(to: Destination, question: Any) -> Any:
    """The answer to a question about a catalog before a job begins.

    Raises
    ------
    NoAnswerError
    RasteretBeamError
    """
    return within(f"Iceberg catalog {to.name.catalog!r}, asked about table {to.name},", question)


def run_snapshot(table: Any, run: str) -> Any:
    """The snapshot in the table's history by which a run added its rows, or None."""
    from pyiceberg.table.snapshots import ancestors_of

    for snapshot in ancestors_of(table.current_snapshot(), table.metadata):
        if snapshot.summary is not None and snapshot.summary.additional_properties.get(RUN) == run:
            return snapshot
    return None


def writers(table: Any) -> set[str]:
    """Ids of the pipelines of this package whose rows are in the table's history."""
    from pyiceberg.table.snapshots import ancestors_of

    summaries = [each.summary for each in ancestors_of(table.current_snapshot(), table.metadata) if each.summary]
    found = [summary.additional_properties.get(WRITER) for summary in summaries]
    return {each for each in found if each is not None}


def planned(to: Destination, rows: pa.Schema, partition_by: Sequence[str] | None) -> Plan:
    """How rows become files of a table; sends requests but changes nothing.

    Parameters
    ----------
    to : Destination
    rows : Schema
    partition_by : sequence of str, optional
        Of a new table; an existing one has to be partitioned so.

    Raises
    ------
    NoAnswerError, OutputError
        The catalog, its namespace or the table cannot be used.
    InputError
        The rows do not fit the table.
    """
    return ask(to, lambda: _planned(to, rows, partition_by))  # type: ignore[no-any-return]


def _planned(to: Destination, rows: pa.Schema, partition_by: Sequence[str] | None) -> Plan:
    catalog = open_catalog(to)
    _check_namespace(catalog, to)
    table = find_table(catalog, to)
    stored = storable_schema(rows)
    if table is None:
        terms = partition_terms(default_terms(stored) if partition_by is None else partition_by, stored)
        return _of_new(catalog, to, stored, terms)
    wanted = fit(stored, storable_schema(_arrow_schema(table.schema())))
    _check_fit(to, wanted.wrong, wanted.new)
    terms = _terms_of(table, to)
    _check_terms(to, terms, None if partition_by is None else partition_terms(partition_by, stored))
    with explained(f"columns cannot be added to table {to.name}", to):
        schema = extended(table.transaction(), wanted.new) if wanted.new else table.schema()
    return _plan(wanted.schema, schema, terms, table.location(), table.location_provider().data_path)


def _check_namespace(catalog: Any, to: Destination) -> None:
    namespace = ".".join(to.name.namespace)
    with explained(f"namespaces of Iceberg catalog {to.name.catalog!r} cannot be read", to):
        if catalog.namespace_exists(to.name.namespace):
            return
        parent = to.name.namespace[:-1]
        known = [".".join(each) for each in catalog.list_namespaces(parent)] if not parent else []
    raise OutputError(
        f"Iceberg catalog {to.name.catalog!r} has no namespace {namespace!r}{did_you_mean(namespace, known)}; "
        f"create it first{f', or name one of {listed(known)}' if known else ''}"
    )


def _check_fit(to: Destination, wrong: Sequence[str], new: Sequence[pa.Field]) -> None:
    added = [] if to.add_columns else [f"{one.name} ({one.type}) is not in the table" for one in new]
    if wrong or added:
        ways = "" if wrong else ", let them be added with add_columns=True"
        raise InputError(
            f"table {to.name} has another schema than the rows: {'; '.join([*wrong, *added])}. Keep other columns with "
            f"columns=[...]{ways}, alter the table, or write to another one"
        )


def _arrow_schema(schema: Any) -> pa.Schema:
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    return schema_to_pyarrow(schema, include_field_ids=False)


def _terms_of(table: Any, to: Destination) -> tuple[PartitionTerm, ...]:
    """The partition terms of an existing table."""
    names = {one.field_id: one.name for one in table.schema().fields}
    found = [(names.get(one.source_id, f"column {one.source_id}"), str(one.transform)) for one in table.spec().fields]
    found = [each for each in found if each[1] != "void"]
    known = ("identity", "year", "month", "day", "hour")
    odd = [f"{transform} of {column}" for column, transform in found if transform not in known]
    if odd:
        raise InputError(
            f"table {to.name} is partitioned by {listed(odd)}, by which rows cannot be split here; partition it by "
            "values, years, months, days or hours"
        )
    return tuple(PartitionTerm(*each) for each in found)


def _check_terms(to: Destination, found: Sequence[PartitionTerm], wanted: Sequence[PartitionTerm] | None) -> None:
    if wanted is not None and list(wanted) != list(found):
        theirs, ours = (listed(terms) or "nothing" for terms in (found, wanted))
        raise InputError(
            f"table {to.name} is partitioned by {theirs}, but partition_by names {ours}; leave it out, or change the "
            "table's partition spec"
        )


def _of_new(catalog: Any, to: Destination, stored: pa.Schema, terms: tuple[PartitionTerm, ...]) -> Plan:
    from pyiceberg.table.locations import load_location_provider

    if to.create_disposition == "CREATE_NEVER":
        raise InputError(f"there is no table {to.name}; create it, or allow creating it with CREATE_IF_NEEDED")
    with explained(f"table {to.name} cannot be created", to):
        try:
            given = new_table(stored, terms)
            staged = catalog.create_table_transaction(to.name.in_catalog, location=to.location, **given).table_metadata
        except NotImplementedError:
            raise OutputError(
                f"there is no table {to.name}, and this kind of catalog does not tell where a new one would be; create "
                "it first"
            ) from None
    data = load_location_provider(staged.location, staged.properties).data_path
    return _plan(stored, staged.schema(), terms, staged.location, data)


def new_table(schema: pa.Schema, terms: Sequence[PartitionTerm]) -> dict[str, Any]:
    """Schema and partition spec of a new table, as catalogs take them."""
    from pyiceberg.io.pyarrow import pyarrow_to_schema
    from pyiceberg.partitioning import PARTITION_FIELD_ID_START, PartitionField, PartitionSpec
    from pyiceberg.schema import assign_fresh_schema_ids
    from pyiceberg.transforms import parse_transform

    numbers = iter(range(1, 1 << 20))
    columns = assign_fresh_schema_ids(pyarrow_to_schema(with_field_ids(schema, lambda path: next(numbers))))
    fields = [
        PartitionField(
            source_id=columns.find_field(term.column).field_id,
            field_id=PARTITION_FIELD_ID_START + number,
            transform=parse_transform(term.transform),
            name=term.name,
        )
        for number, term in enumerate(terms)
    ]
    return {"schema": columns, "partition_spec": PartitionSpec(*fields)}


def extended(transaction: Any, new: Sequence[pa.Field]) -> Any:
    """The schema of a table after a transaction has added columns, which are optional."""
    from pyiceberg.io.pyarrow import pyarrow_to_schema

    numbers = iter(range(1, 1 << 20))
    columns = pyarrow_to_schema(with_field_ids(pa.schema(new), lambda path: next(numbers)))
    with transaction.update_schema() as update:
        for one in columns.fields:
            update.add_column((one.name,), one.field_type)
    return transaction.table_metadata.schema()


def _plan(rows: pa.Schema, schema: Any, terms: tuple[PartitionTerm, ...], location: str, data: str) -> Plan:
    with_ids = with_field_ids(rows, lambda path: int(schema.find_field(path).field_id))
    return Plan(with_ids, terms, location, data, HADOOP.sub("s3://", LOCAL.sub("", data)))


def check_place(to: Destination, plan: Plan, folder: str) -> None:
    """Write and remove small files where Beam puts data and pyiceberg puts metadata.

    Raises
    ------
    NoAnswerError, OutputError
    """
    check_output(folder, f"data of table {to.name}, at")
    check_writable(f"{folder}/files")
    with explained(f"metadata of table {to.name} cannot be written at {plan.location}", to):
        within(f"the storage of {plan.location}", lambda: _probe(to, plan, folder.rpartition("/")[2]))


def _probe(to: Destination, plan: Plan, name: str) -> None:
    from pyiceberg.io import load_file_io

    catalog = open_catalog(to)
    table = find_table(catalog, to)
    path = f"{plan.location.rstrip('/')}/metadata/{name}.probe"
    io = table.io if table is not None else load_file_io(dict(catalog.properties), path)
    with io.new_output(path).create(overwrite=True) as file:
        file.write(b"probe")
    io.delete(path)


def is_in(to: Destination, run: str) -> bool:
    """Whether a run has added its rows.

    Raises
    ------
    NoAnswerError, OutputError, InputError
    """
    found = ask(to, lambda: find_table(open_catalog(to), to))
    return found is not None and run_snapshot(found, run) is not None
