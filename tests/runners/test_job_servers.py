"""Jobs of a server: what the command says and does when the server is away, is lost, or goes on without it."""

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineState

from pipelines.cli import job_servers, logs, runner
from pipelines.cli.cleanup import UnderWay
from pipelines.cli.job_servers import check_server
from rasteret_beam.errors import InputError, OutputError
from rasteret_beam.transforms.sinks.commit import Output, Staged, commit
from rasteret_beam.transforms.sinks.parquet import shards


class Lost(grpc.RpcError):
    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "failed to connect to all addresses"


class FakeResult:
    """A job on a cluster, as the client sees it."""

    def __init__(self, state: str | Exception):
        self._state = state

    @property
    def state(self) -> str:
        if isinstance(self._state, Exception):
            raise self._state
        return self._state

    def job_id(self) -> str:
        return "job-7"


def staged(prefix: Path, run: str, started: float) -> Staged:
    output = Output(str(prefix), run, started)
    os.makedirs(output.temporary)
    pq.write_table(pa.table({"run": [run]}), f"{output.temporary}/a.parquet")
    return Staged(output, {f"{prefix}-00000-of-00001.parquet": f"{output.temporary}/a.parquet"}, shards)


def under_way(output: Output, state: Any, is_local: bool = False) -> UnderWay:
    return UnderWay([output], list, "FlinkRunner", is_local, result=FakeResult(state))


@pytest.mark.parametrize("state", [PipelineState.RUNNING, Lost()])
def test_a_job_on_a_cluster_goes_on_after_its_client(tmp_path: Path, state: Any, capsys: pytest.CaptureFixture) -> None:
    """Its files stay; it puts them in place, unless a later run has been there first."""
    old = staged(tmp_path / "out", "old", 1.0)
    job = under_way(old.output, state)
    told = job.interrupt()
    assert told.startswith("job job-7 may still be running on FlinkRunner and write its output; check or cancel it")
    assert Path(old.output.temporary).is_dir()
    job.fail("the job server does not answer: UNAVAILABLE: failed to connect")
    assert capsys.readouterr().err == f"error: the job server does not answer: UNAVAILABLE: failed to connect\n{told}\n"
    assert Path(old.output.temporary).is_dir()
    commit([staged(tmp_path / "out", "new", 2.0)])
    with pytest.raises(OutputError, match="another run, new, which began later"):
        commit([old])
    assert pq.read_table(tmp_path)["run"].to_pylist() == ["new"]


def test_a_job_on_a_cluster_that_has_failed_leaves_nothing(tmp_path: Path) -> None:
    output = staged(tmp_path / "out", "old", 1.0).output
    under_way(output, PipelineState.FAILED).fail("a tile")
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_job_says_which_outputs_are_in_place(tmp_path: Path) -> None:
    left, done = staged(tmp_path / "samples", "run", 1.0), staged(tmp_path / "left", "run", 1.0)
    commit([done])
    job = UnderWay([left.output, done.output], list, "FnApiRunner", is_local=True)
    assert job.interrupt() == (
        f"the job did not finish; its unfinished files are removed; already in place: {tmp_path}/left"
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_left.manifest.json", "left-00000-of-00001.parquet"]


@contextmanager
def job_server() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@contextmanager
def flink() -> Iterator[str]:
    """Answers each request, if only by an error."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


SERVERS = {"--job_endpoint": (job_server, "a job server"), "--flink_master": (flink, "Flink's REST API")}


@pytest.mark.parametrize("flag", SERVERS)
def test_a_server_that_is_away(flag: str) -> None:
    with SERVERS[flag][0]() as address:
        options = PipelineOptions(["--runner=FlinkRunner", f"{flag}={address}"])
        check_server(options)
    with pytest.raises(InputError, match=f"{flag} is {address}, but no server answers there: .*refused; start it, or"):
        check_server(options)


@pytest.mark.parametrize("flag", SERVERS)
def test_a_server_that_never_answers(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_servers, "CONNECT_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        options = PipelineOptions(["--runner=FlinkRunner", f"{flag}={address}"])
        with pytest.raises(
            InputError, match=f"{flag} is {address}, .* did not answer as {SERVERS[flag][1]} within 0 s"
        ):
            check_server(options)


def test_a_lost_server_is_one_line() -> None:
    assert runner.root_message(Lost("a long\ntext\n>")) == (
        "the job server does not answer: UNAVAILABLE: failed to connect to all addresses"
    )


def test_what_a_job_server_logs_is_not_repeated(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture
) -> None:
    def listens() -> None:
        raise Lost

    with logs.quiet("apache_beam"):
        record = logging.makeLogRecord({"module": "portable_runner", "levelno": logging.ERROR, "msg": "a traceback"})
        assert not logging.getLogger().filter(record)
        thread = threading.Thread(target=listens)
        thread.start()
        thread.join()
    assert capsys.readouterr().err == ""


CLIENT = """
import os, subprocess, sys, time
from apache_beam.runners.portability.job_server import SubprocessJobServer
from pipelines.cli.runner import _leaving_on_signals
from pipelines.cli.cleanup import UnderWay

class Server(SubprocessJobServer):
    def stop(self):
        child.terminate()

child = subprocess.Popen(["sleep", "60"])
server = Server()
with _leaving_on_signals(UnderWay([], list, "FlinkRunner", False)):
    print(child.pid, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGINT, marks=pytest.mark.slow),
        signal.SIGTERM,
        pytest.param(signal.SIGHUP, marks=pytest.mark.slow),
    ],
)
def test_a_signal_ends_the_job_server_that_was_started(number: int) -> None:
    words = [sys.executable, "-c", CLIENT]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        child = int(client.stdout.readline())
        client.send_signal(number)
        _, err = client.communicate(timeout=20)
    assert client.returncode == 130
    assert err.startswith("interrupted: the job may still be running on FlinkRunner")
    status = Path(f"/proc/{child}/stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"
