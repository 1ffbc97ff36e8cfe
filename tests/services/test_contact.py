"""A service that is away is told of soon: the first contact has a limit, and the error names who was waited for."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from apache_beam.internal.gcp import auth
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines import sample_points
from pipelines.cli.job_servers import check_buckets
from rasteret_beam import Access, BigQueryTable, ReadPoints, load
from rasteret_beam.errors import CollectionError, InputError, MissingInputError, NoAnswerError, OutputError
from rasteret_beam.kernels.bigquery.names import TableName
from rasteret_beam.metrics import Counters
from rasteret_beam.readers.storage import first_contact, objects, stores
from rasteret_beam.readers.storage.byte_ranges import FileState, RangeError, RangeReader, RetryPolicy
from rasteret_beam.readers.storage.first_contact import Contact, within
from rasteret_beam.transforms.runtime import google_services
from rasteret_beam.transforms.runtime.bigquery_client import Destination, check_destination, is_loaded
from rasteret_beam.transforms.runtime.files import check_writable
from tests.support.commands import execute
from tests.support.server import RasterServer

LIMIT = 1.0


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(first_contact, "FIRST_SECONDS", LIMIT)
    monkeypatch.setattr(first_contact, "_answered", set())
    monkeypatch.setattr(objects, "LISTING_SECONDS", LIMIT / 2)
    monkeypatch.setattr(stores, "RETRY_TIMEOUT", timedelta(seconds=LIMIT / 2))
    monkeypatch.setattr(stores, "_stores", {})
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def silent() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def closed() -> Iterator[str]:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    yield address


@pytest.fixture(params=[silent, closed], ids=["silent", "closed"])
def away(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Google's and Amazon's storage, and BigQuery, at an address where nobody answers."""
    with request.param() as address:
        for name in ("STORAGE_EMULATOR_HOST", "AWS_ENDPOINT_URL", "BIGQUERY_EMULATOR_HOST"):
            monkeypatch.setenv(name, address)
        for name, value in {"ACCESS_KEY_ID": "a", "SECRET_ACCESS_KEY": "b", "REGION": "eu-west-1"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        monkeypatch.setattr(auth._Credentials, "_credentials", None)
        monkeypatch.setattr(auth._Credentials, "_credentials_init", True)
        yield address


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_bucket_to_write_to(away: str, scheme: str) -> None:
    FileSystems.set_options(PipelineOptions([]))
    with pytest.raises(OutputError) as refused:
        check_writable(f"{scheme}://bucket/out")
    text = str(refused.value)
    assert text.startswith(f"output {scheme}://bucket/out cannot be written: ")
    assert away in text
    assert text.endswith(first_contact.WAY_OUT)


@pytest.mark.parametrize("scheme", ["gs", "s3"])
def test_a_bucket_to_read(away: str, scheme: str) -> None:
    with pytest.raises(MissingInputError) as refused:
        load(f"{scheme}://bucket/c")
    assert str(refused.value).startswith(f"{scheme}://bucket at {away} cannot be listed: ")
    assert str(refused.value).endswith(first_contact.WAY_OUT)


def test_a_file_on_the_web(away: str) -> None:
    with pytest.raises(
        CollectionError, match=r"could not be read in [1-6] attempt\(s\); last error: .*; check the network"
    ):
        load(f"{away}/c.parquet")


def test_bigquery(away: str) -> None:
    to = Destination(TableName("p", "d", "t"), "p", [], "CREATE_IF_NEEDED", "WRITE_APPEND")
    told = f"BigQuery at {away}, asked about table p.d.t, has not answered in 1 s; check the network"
    for ask in (lambda: check_destination(to), lambda: is_loaded(to, "job")):
        with pytest.raises(NoAnswerError, match=told):
            ask()
    with pytest.raises(NoAnswerError, match=f"BigQuery at {away}, asked about table p:d.t, has not answered"):
        ReadPoints(BigQueryTable("p:d.t")).point_columns()


def test_staging_of_a_dataflow_job(away: str) -> None:
    words = ["--runner=DataflowRunner", "--project=p", "--region=r", "--temp_location=gs://bucket/t"]
    with pytest.raises(
        InputError, match=f"--temp_location is gs://bucket/t, but gs://bucket at {away} has not answered"
    ):
        check_buckets(PipelineOptions(words))
    check_buckets(PipelineOptions([*words, "--dry_run=True"]))


def test_a_command_is_one_line(away: str, tmp_path: Path) -> None:
    words = ["--points=gs://bucket/p.parquet", "--x_column=x", "--y_column=y", "--geometry_crs=4326", "--bands=B1"]
    outcome = execute(sample_points.main, *words, "--collection=s3://bucket/c", f"--output={tmp_path}/s")
    assert outcome.code == 1
    assert outcome.err.startswith(f"error: s3://bucket at {away} cannot be listed: ")
    assert outcome.err.count("\n") == 1


def test_credentials_are_looked_for_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where there are none, Beam would look for half a minute."""
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setattr(auth._Credentials, "_credentials_init", False)
    with pytest.raises(
        OutputError, match=r"no usable Google credentials: .*; run 'gcloud auth application-default login'"
    ):
        google_services.look_for_credentials()
    assert not auth._Credentials._credentials_init
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    google_services.look_for_credentials()
    assert auth._Credentials._credentials_init


def test_answers_and_errors_come_through() -> None:
    assert within("it", lambda: threading.current_thread().name) == "ask it"
    with pytest.raises(KeyError, match="a key"):
        within("it", lambda: {}["a key"])


def test_what_does_not_end_is_left_behind() -> None:
    until = threading.Event()
    try:
        with pytest.raises(NoAnswerError, match=r"^it has not answered in 1 s; do that$"):
            within("it", until.wait, "do that")
    finally:
        until.set()


def test_time_of_a_first_contact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests get what is left of it, and once one is answered all the time that is usual."""
    now = 100.0
    monkeypatch.setattr(first_contact, "monotonic", lambda: now)
    monkeypatch.setattr(first_contact, "FIRST_SECONDS", 20.0)
    first = Contact("s3://bucket")
    assert (first.timeout(60), first.timeout(5), first.is_over()) == (20, 5, False)
    now = 112.5
    assert (first.timeout(60), first.is_over()) == (8, False)
    now = 120.0
    assert (first.timeout(60), first.is_over()) == (1, True)
    first.is_answered()
    assert (first.timeout(60), first.is_over()) == (60, False)
    assert Contact("s3://bucket").timeout(60) == 60
    assert Contact("s3://other").timeout(60) == 20


def test_an_answer_counts_for_the_requests_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(first_contact, "monotonic", lambda: now[0])
    one, other, elsewhere = Contact("s3://a"), Contact("s3://a"), Contact("s3://b")
    one.is_answered()
    now[0] += LIMIT + 1
    assert (other.is_over(), elsewhere.is_over()) == (False, True)
    assert (other.timeout(60), elsewhere.timeout(60)) == (60, 1)


def test_a_server_that_has_answered_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the usual patience holds, however long it takes; an answer that refuses is one too."""
    (tmp_path / "a").write_bytes(b"0123456789")
    reader, tried = RangeReader(RetryPolicy(tries=3, first_pause=0.0)), []
    with RasterServer(tmp_path) as server:
        with pytest.raises(RangeError):
            reader.read(FileState(f"{server.url}/b"), 0, 4, Counters())
        assert bytes(reader.read(FileState(f"{server.url}/a"), 0, 4, Counters())) == b"0123"
        root = server.url
    monkeypatch.setattr(first_contact, "FIRST_SECONDS", 0.0)
    monkeypatch.setattr("rasteret_beam.readers.storage.byte_ranges.log.info", lambda *words: tried.append(words))
    with pytest.raises(RangeError, match=r"in 3 attempt\(s\); last error: the connection was refused"):
        reader.read(FileState(f"{root}/a"), 0, 4, Counters())
    assert len(tried) == 2
    monkeypatch.setattr(first_contact, "_answered", set())
    with pytest.raises(RangeError, match=r"in 1 attempt\(s\); last error: "):
        reader.read(FileState(f"{root}/a"), 0, 4, Counters())


def test_access_names_its_endpoint() -> None:
    with closed() as address, pytest.raises(MissingInputError, match=f"gs://bucket at {address} cannot be listed"):
        load("gs://bucket/c", access=Access(anonymous=True, endpoint=address))
