"""The commands on Beam's Flink runner, where Java and Maven can bring its job server; ``make test-flink``."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.options.pipeline_options import FlinkRunnerOptions

from tests.support.portable import check_commands, process, worker_pool
from tests.support.ports import free_port

FLINK_VERSION = FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS[-1]
ARTIFACT = f"beam-runners-flink-{FLINK_VERSION}-job-server"
OPENED = ("java.base/java.util", "java.base/java.lang", "java.base/java.nio", "java.base/java.net")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("same_signal_handlers"),
    pytest.mark.skipif(
        not (shutil.which("java") and shutil.which("mvn")),
        reason="the Flink runner needs Java and Maven, which are not here",
    ),
]


def job_server_jar() -> Path:
    """The job server of the installed Beam version, from the local Maven repository or Maven Central."""
    version = beam.__version__
    jar = Path.home() / ".m2/repository/org/apache/beam" / ARTIFACT / version / f"{ARTIFACT}-{version}.jar"
    if not jar.exists():
        coordinates = f"org.apache.beam:{ARTIFACT}:{version}"
        maven = ["mvn", "-q", "-B", "dependency:get", f"-Dartifact={coordinates}", "-Dtransitive=false"]
        done = subprocess.run(maven, capture_output=True, text=True, timeout=600)
        if done.returncode:
            reason = next((line for line in done.stdout.splitlines() if "ERROR" in line), done.stdout)
            pytest.skip(f"Maven cannot bring {coordinates}: {reason[:300]}")
    return jar


@contextmanager
def flink(folder: Path) -> Iterator[list[str]]:
    """A job server with a Flink of its own; gives the options of pipelines that are to run on it, two at a time."""
    port = free_port()
    java = ["java", *(f"--add-opens={package}=ALL-UNNAMED" for package in OPENED), "-jar", str(job_server_jar())]
    words = [*java, "--flink-master", "[local]", "--job-host", "127.0.0.1", "--job-port", str(port)]
    words += ["--artifact-port", "0", "--expansion-port", "0", "--artifacts-dir", str(folder / "artifacts")]
    with process(words, port, folder / "flink.log", signal.SIGTERM):
        yield ["--runner=PortableRunner", f"--job_endpoint=127.0.0.1:{port}", "--parallelism=2"]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    with flink(tmp_path_factory.mktemp("flink")) as options:
        yield options


def test_commands_with_workers_as_threads(runner: list[str], points: pa.Table, tmp_path: Path) -> None:
    check_commands(tmp_path, points, [*runner, "--environment_type=LOOPBACK"])


def test_commands_with_workers_as_processes(runner: list[str], points: pa.Table, tmp_path: Path) -> None:
    with worker_pool(tmp_path) as workers:
        check_commands(tmp_path, points, [*runner, *workers])
    assert (tmp_path / "workers.log").read_text().count("Starting worker with command") >= 3
