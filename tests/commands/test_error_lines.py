"""An error is one line on the terminal; --verbose shows the rest."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import tifffile
from rasterio.transform import Affine

from pipelines import sample_points
from pipelines.cli import process, runner
from rasteret_beam import build_from_cogs
from tests.support.commands import execute
from tests.support.paths import ROOT

LOOPBACK = ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"]

pytestmark = pytest.mark.usefixtures("same_signal_handlers")


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A job of one raster of one tile, whose data are damaged once the collection is built."""
    folder = tmp_path_factory.mktemp("broken")
    place = Affine(10, 0, 500000, 0, -10, 5000160)
    options = {"crs": "EPSG:32631", "transform": place, "tiled": True, "blockxsize": 16, "blockysize": 16}
    size = {"width": 16, "height": 16, "count": 1, "dtype": "uint8", "compress": "deflate"}
    with rasterio.open(folder / "s.tif", "w", driver="GTiff", **size, **options) as out:
        out.write(np.arange(256, dtype="uint8").reshape(1, 16, 16))
    build_from_cogs(folder / "s.tif").export(folder / "c")
    with tifffile.TiffFile(folder / "s.tif") as there:
        (start,) = there.pages[0].dataoffsets
    with open(folder / "s.tif", "r+b") as file:
        file.seek(start)
        file.write(b"\xff" * 8)
    pq.write_table(pa.table({"x": [500005.0], "y": [5000155.0]}), folder / "p.parquet")
    inputs = [f"--points={folder}/p.parquet", "--x_column=x", "--y_column=y", "--geometry_crs=32631"]
    return [*inputs, f"--collection={folder}/c", "--bands=B1", f"--output={folder}/out/s"]


@pytest.mark.slow
def test_of_workers_that_are_threads(flags: list[str]) -> None:
    outcome = execute(sample_points.main, *flags, *LOOPBACK)
    assert outcome.code == 1
    assert outcome.err.startswith("error: record 's', band B1: ") and outcome.err.count("\n") == 1
    assert outcome.err == execute(sample_points.main, *flags).err


@pytest.mark.slow
def test_of_workers_that_are_processes(flags: list[str]) -> None:
    words = [sys.executable, "-m", "pipelines.sample_points", *flags, "--direct_running_mode=multi_processing"]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: record 's', band B1: ") and ended.stderr.count("\n") == 1


def test_verbose(flags: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        process.command(lambda: sample_points.main([*flags, "--verbose"]))
    assert ended.value.code == 1
    err = capsys.readouterr().err
    assert "Traceback (most recent call last):" in err and "in finish_bundle" in err
    assert err.splitlines()[-1].startswith("error: record 's', band B1: ")
    assert execute(sample_points.main, *flags).err.count("\n") == 1, "only that command was verbose"


def test_what_nobody_has_thought_of(capsys: pytest.CaptureFixture) -> None:
    def main() -> int:
        return {}["a key"]

    with pytest.raises(SystemExit) as ended:
        process.command(main)
    assert ended.value.code == 1
    assert capsys.readouterr().err == "error: KeyError: 'a key'; --verbose shows the traceback\n"


JAVA = """Pipeline job-7 failed in state FAILED: java.util.concurrent.ExecutionException: the job has failed
\tat org.apache.flink.runtime.jobmaster.JobResult.toJobExecutionResult(JobResult.java:144)
\tat java.base/java.lang.Thread.run(Thread.java:840)
Caused by: java.lang.OutOfMemoryError: Java heap space
\tat java.base/java.util.Arrays.copyOf(Arrays.java:3537)
\t... 4 more
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (JAVA, "java.lang.OutOfMemoryError: Java heap space; give TaskManagers more memory, see docs/flink.md"),
        ("Pipeline job-7 failed in state FAILED: no slot", "Pipeline job-7 failed in state FAILED: no slot"),
        ("Traceback\n  at a place\nValueError: at last", "ValueError: at last"),
    ],
)
def test_the_line_that_says_why(text: str, line: str) -> None:
    assert runner.root_message(RuntimeError(text)) == line


def test_verbose_is_a_flag_of_each_command(tmp_path: Path) -> None:
    for command in ("sample_points", "build_collection", "read_chips", "zonal_statistics"):
        module = __import__(f"pipelines.{command}", fromlist=["parser"])
        assert "--verbose" in module.parser()._option_string_actions
