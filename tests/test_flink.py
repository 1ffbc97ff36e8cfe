"""The same pipeline on Beam's Flink runner, where Java and Maven can bring its job server."""

import shutil
import subprocess
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.options.pipeline_options import FlinkRunnerOptions

from rasteret_beam import Collection, metrics
from tests.test_transforms import ORDER, XY, sample_to

FLINK_VERSION = FlinkRunnerOptions.PUBLISHED_FLINK_VERSIONS[-1]
ARTIFACT = f"beam-runners-flink-{FLINK_VERSION}-job-server"
OPENED = ("java.base/java.util", "java.base/java.lang", "java.base/java.nio", "java.base/java.net")


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


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("java") and shutil.which("mvn")),
    reason="the Flink runner needs Java and Maven, which are not here",
)
@pytest.mark.parametrize("match", ["all", "latest"])
def test_rows_on_flink_equal_the_direct_runner_s(
    scenes: Collection, points: pa.Table, tmp_path: Path, match: str
) -> None:
    options = [
        "--runner=FlinkRunner",
        "--flink_master=[local]",
        f"--flink_version={FLINK_VERSION}",
        f"--flink_job_server_jar={job_server_jar()}",
        "--parallelism=2",
        "--environment_type=LOOPBACK",
        *(f"--job_server_jvm_properties=--add-opens={package}=ALL-UNNAMED" for package in OPENED),
    ]
    found, counts = sample_to(tmp_path / "s", points, scenes, options=options, match=match)
    direct = scenes.sample_points(points, ["B10", "B20"], **XY, match=match).sort_by(ORDER)
    assert found.equals(direct)
    assert counts[metrics.SAMPLES_OUT] == len(direct)
