"""BigQuery client functions: checks before a job begins, and a load job that never runs twice.

google-cloud-bigquery is imported on use, as only the ``gcp`` extra installs it.
"""

import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rasteret_beam.errors import (
    InputError,
    MissingInputError,
    OutputError,
    RasteretBeamError,
    how_to_install,
    listed,
    one_line,
)
from rasteret_beam.kernels.bigquery.names import TableName
from rasteret_beam.kernels.bigquery.schema import Field, differences
from rasteret_beam.transforms.runtime.google_services import ask_bigquery

CREATE_DISPOSITIONS = ("CREATE_IF_NEEDED", "CREATE_NEVER")
WRITE_DISPOSITIONS = ("WRITE_APPEND", "WRITE_TRUNCATE", "WRITE_EMPTY")
MOST_URIS = 10_000
"""Maximum number of URIs of a load job; more files are given as a wildcard."""

CHECK_SECONDS, LOAD_SECONDS = 15, 600
"""Seconds of retries of a request, before a job begins and when rows are loaded."""

TRANSIENT = frozenset({"backendError", "internalError", "jobBackendError", "jobInternalError", "rateLimitExceeded"})
TRIES = 3
QUOTA = frozenset({"quotaExceeded", "rateLimitExceeded", "responseTooLarge", "resourcesExceeded"})
WAYS_OUT = {"location": "give a temp_location in a bucket at the dataset's location"}
MISSING_EXTRA = (
    "BigQuery needs google-cloud-bigquery and google-cloud-bigquery-storage, which are not installed: "
    + how_to_install("gcp")
)


@dataclass(frozen=True)
class Destination:
    """A table and the settings for loading rows; it is sent with the job.

    ``partitioning`` is a column and one of HOUR, DAY, MONTH, YEAR. Jobs run in ``job_project``.
    """

    name: TableName
    job_project: str
    fields: Sequence[Field]
    create_disposition: str
    write_disposition: str
    clustering: tuple[str, ...] = ()
    partitioning: tuple[str, str] | None = None


def libraries() -> Any:
    """The module google.cloud.bigquery.

    Raises
    ------
    MissingInputError
        It is not installed.
    """
    try:
        from google.cloud import bigquery
    except ImportError as error:
        raise MissingInputError(MISSING_EXTRA) from error
    return bigquery


def make_client(project: str | None) -> Any:
    """A BigQuery client whose jobs run in a project; None for the environment's project."""
    bigquery = libraries()
    from google.auth.credentials import AnonymousCredentials

    # The client uses the emulator's address from this variable, but requires credentials anyway.
    credentials = AnonymousCredentials() if os.environ.get("BIGQUERY_EMULATOR_HOST") else None
    return bigquery.Client(project=project, credentials=credentials)


@contextmanager
def explained(
    doing: str,
    grant: str,
    raising: type[RasteretBeamError] = OutputError,
    ways_out: Mapping[str, str] = WAYS_OUT,
) -> Iterator[None]:
    """Turn an error of Google's clients into one line that says what to grant or correct.

    Parameters
    ----------
    doing : str
        The operation that failed.
    grant : str
        The required roles.
    raising : type
        Type of the error to raise.
    ways_out : mapping
        What to do, by one of BigQuery's reasons or a part of its text.

    Raises
    ------
    RasteretBeamError
        Of type ``raising``.
    MissingInputError
        Google's libraries are not installed.
    """
    libraries()
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    try:
        yield
    except RetryError as error:
        raise raising(f"{doing}: no answer in time: {one_line(error.cause or error)}") from error
    except GoogleAPICallError as error:
        details = [detail for detail in error.errors or () if isinstance(detail, dict)]
        said = str(next((detail["message"] for detail in details if detail.get("message")), error.message))
        reasons = {str(detail.get("reason")) for detail in details}
        hint = _way_out(error, reasons, said.lower(), grant, ways_out)
        raise raising(f"{doing}: {' '.join(said.split())}{f'; {hint}' if hint else ''}") from error
    except GoogleAuthError as error:
        raise raising(
            f"{doing}: no usable Google credentials: {one_line(error)}; run 'gcloud auth application-default login', "
            "or set GOOGLE_APPLICATION_CREDENTIALS to a key file"
        ) from error
    except RequestException as error:
        raise raising(f"{doing}: no connection: {one_line(error)}") from error


def _way_out(error: Any, reasons: set[str], said: str, grant: str, ways_out: Mapping[str, str]) -> str:
    from google.api_core.exceptions import Forbidden, NotFound

    known = next((ways_out[reason] for reason in reasons if reason in ways_out), None)
    if known is not None:
        return known
    if reasons & QUOTA or error.code == 429:
        return "a quota is exceeded: wait, or request more in the console under IAM & Admin > Quotas"
    if "billingNotEnabled" in reasons:
        return "enable billing for the project"
    if isinstance(error, Forbidden):
        return f"grant {grant} to the account that runs the job"
    if isinstance(error, NotFound):
        return "check the names of project, dataset and table, or create the missing one"
    return next((way for word, way in ways_out.items() if word in said), "")


def check_destination(to: Destination, bucket: str | None = None) -> None:
    """Refuse a table that rows cannot be loaded into; sends requests but changes nothing.

    Raises
    ------
    NoAnswerError
    OutputError
        Dataset or bucket do not exist, need permission, or are in different locations.
    InputError
        The table conflicts with the dispositions or has another schema.
    """
    ask_bigquery(f"table {to.name}", lambda: _check_destination(to, bucket))


def _check_destination(to: Destination, bucket: str | None) -> None:
    client = _make_client(to)
    retry = briefly()
    editing = f"roles/bigquery.dataEditor on {to.name.in_dataset}"
    with explained(f"dataset {to.name.in_dataset} cannot be used", editing):
        location = client.get_dataset(to.name.in_dataset, retry=retry).location
    _check_table(_get_table(client, to, retry), to)
    _check_jobs(client, to, location, retry)
    if bucket is not None:
        _check_bucket(bucket, to, location, retry)


def _make_client(to: Destination) -> Any:
    libraries()
    with explained(f"BigQuery cannot be used for {to.name}", "roles/bigquery.jobUser"):
        return make_client(to.job_project)


def briefly() -> Any:
    return libraries().DEFAULT_RETRY.with_timeout(CHECK_SECONDS)


def patiently() -> Any:
    return libraries().DEFAULT_RETRY.with_timeout(LOAD_SECONDS)


def _get_table(client: Any, to: Destination, retry: Any) -> Any:
    """The present table, or None."""
    from google.api_core.exceptions import NotFound

    with explained(f"table {to.name} cannot be read", f"roles/bigquery.dataEditor on {to.name.in_dataset}"):
        try:
            return client.get_table(str(to.name), retry=retry)
        except NotFound:
            return None


def _check_table(table: Any, to: Destination) -> None:
    if table is None:
        if to.create_disposition == "CREATE_NEVER":
            raise InputError(f"there is no table {to.name}; create it, or allow creating it with CREATE_IF_NEEDED")
        return
    if table.table_type != "TABLE":
        raise InputError(f"{to.name} is a {table.table_type}, which rows cannot be written to; name a table")
    differing = list(differences([field.to_api_repr() for field in table.schema], to.fields))
    if differing:
        raise InputError(
            f"table {to.name} has another schema than the rows: {'; '.join(differing)}. Keep other columns with "
            "columns=[...], alter the table, or write to another one"
        )
    if to.write_disposition == "WRITE_EMPTY" and table.num_rows:
        raise InputError(f"table {to.name} already has {table.num_rows} rows, but WRITE_EMPTY requires an empty table")


def _check_jobs(client: Any, to: Destination, location: str | None, retry: Any) -> None:
    """Check with a dry run, which is free, that jobs may run."""
    config = libraries().QueryJobConfig(dry_run=True, use_query_cache=False)
    granting = f"roles/bigquery.jobUser on project {to.job_project}"
    with explained(f"jobs cannot be run in project {to.job_project}", granting):
        client.query("SELECT 1", job_config=config, location=location, retry=retry, job_retry=None)


def _check_bucket(bucket: str, to: Destination, location: str | None, retry: Any) -> None:
    from google.api_core.exceptions import Forbidden
    from google.cloud import storage  # type: ignore[attr-defined]

    granting = f"roles/storage.objectAdmin on gs://{bucket}"
    with explained(f"bucket gs://{bucket} of temp_location cannot be used", granting):
        try:
            found = storage.Client(project=to.job_project).get_bucket(bucket, retry=retry)
        except Forbidden:  # reading the bucket's metadata needs a separate permission, which writing does not need
            return
    if location and found.location and _apart(found.location.upper(), location.upper()):
        raise OutputError(
            f"bucket gs://{bucket} of temp_location is in {found.location}, dataset {to.name.in_dataset} in {location}"
            ", but BigQuery loads only within one location; give a temp_location in a bucket at the dataset's location"
        )


def _apart(bucket: str, dataset: str) -> bool:
    """Whether a load is certain to be refused; if a multi-region may contain a region, the service decides."""
    if dataset == "US" or bucket == dataset:
        return False
    if dataset == "EU":
        return not bucket.startswith("EU")
    return "-" in bucket


def is_loaded(to: Destination, job_name: str) -> bool:
    """Whether a load job of this name has loaded its rows.

    Raises
    ------
    NoAnswerError, OutputError
    """
    return ask_bigquery(f"table {to.name}", lambda: _is_loaded(to, job_name))


def _is_loaded(to: Destination, job_name: str) -> bool:
    client = _make_client(to)
    with explained(f"jobs of project {to.job_project} cannot be read", f"roles/bigquery.user on {to.job_project}"):
        location = client.get_dataset(to.name.in_dataset, retry=briefly()).location
        for attempt in itertools.count():
            job = _get_job(client, f"{job_name}-{attempt}", location)
            if job is None or job.error_result is None:
                return job is not None and job.state == "DONE"
    return False


def load(to: Destination, uris: Sequence[str], job_name: str) -> str:
    """Load Parquet files with one job, unless a job of this name has done so; returns the job's id.

    A job's id is its name and the number of the attempt. No worker repeats an attempt that succeeded or is running. A
    failed attempt has loaded no rows, so the next attempt may begin.

    Raises
    ------
    OutputError
    """
    client = _make_client(to)
    granting = f"roles/bigquery.dataEditor on {to.name.in_dataset}, roles/bigquery.jobUser on {to.job_project}"
    with explained(f"table {to.name} cannot be loaded", f"{granting} and roles/storage.objectViewer on the bucket"):
        location = client.get_dataset(to.name.in_dataset, retry=patiently()).location
        return str(run_once(client, job_name, location, lambda name: _submit(client, to, uris, name, location)).job_id)


def run_once(client: Any, job_name: str, location: str | None, submit: Callable[[str], Any]) -> Any:
    """The successful job of a name, after waiting for its end; submitted only if there is none.

    ``submit`` starts a job with an id. A job that ended with a transient error is retried with the next id.
    """
    tries = 0
    for attempt in itertools.count():
        name = f"{job_name}-{attempt}"
        found = _get_job(client, name, location)
        job = found or _submitted(client, submit, name, location)
        failed = job.exception()  # wait for its end
        if failed is None:
            return job
        if found is None:
            tries += 1
            if tries == TRIES or (job.error_result or {}).get("reason") not in TRANSIENT:
                raise failed
            time.sleep(2**tries)
    raise AssertionError


def _submitted(client: Any, submit: Callable[[str], Any], name: str, location: str | None) -> Any:
    from google.api_core.exceptions import Conflict

    try:
        return submit(name)
    except Conflict:  # another worker was first
        return client.get_job(name, location=location, retry=patiently())


def _get_job(client: Any, name: str, location: str | None) -> Any:
    from google.api_core.exceptions import NotFound

    try:
        return client.get_job(name, location=location, retry=patiently())
    except NotFound:
        return None


def _submit(client: Any, to: Destination, uris: Sequence[str], name: str, location: str | None) -> Any:
    table = _made_table(client, to)
    config = libraries().LoadJobConfig(
        source_format="PARQUET", create_disposition="CREATE_NEVER", write_disposition=to.write_disposition
    )
    config.schema = table.schema
    # From the table, as truncating would otherwise change them.
    config.clustering_fields = table.clustering_fields
    config.time_partitioning = table.time_partitioning
    config.range_partitioning = table.range_partitioning
    config.parquet_options = libraries().ParquetOptions()
    config.parquet_options.enable_list_inference = True
    return client.load_table_from_uri(
        uris, str(to.name), job_id=name, location=location, job_config=config, retry=patiently()
    )


def _made_table(client: Any, to: Destination) -> Any:
    """The table, created if allowed: empty, with schema, clustering and partitions."""
    table = _get_table(client, to, patiently())
    _check_table(table, to)
    if table is not None:
        return table
    bigquery = libraries()
    made = bigquery.Table(str(to.name), schema=[bigquery.SchemaField.from_api_repr(field) for field in to.fields])
    made.clustering_fields = list(to.clustering) or None
    if to.partitioning:
        made.time_partitioning = bigquery.TimePartitioning(field=to.partitioning[0], type_=to.partitioning[1])
    return client.create_table(made, exists_ok=True, retry=patiently())


def check_choice(what: str, value: str, known: Sequence[str]) -> None:
    """Refuse a value that is not one of the known ones.

    Raises
    ------
    InputError
    """
    if value not in known:
        raise InputError(f"{what} is {value!r}; it can be one of {listed(known)}")
