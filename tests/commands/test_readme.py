"""The README's examples run as shown."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import demo
from tests.support.paths import ROOT

README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)
COMMANDS = re.findall(r"^(python -m pipelines\.(?:.*\\\n)*.*)$", README, re.M)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which ``make demo`` has run."""
    place = tmp_path_factory.mktemp("readme")
    assert demo.main(["--folder", str(place / "demo")]) == 0
    return place


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(prefix: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted(prefix.parent.glob(prefix.name + "-*.parquet")))


def test_the_demo_draws_its_map(folder: Path) -> None:
    png = (folder / "demo" / "map.png").read_bytes()
    assert png.startswith(b"\x89PNG") and len(png) > 50_000


def test_the_beam_example(folder: Path) -> None:
    assert len([line for line in PYTHON[0].splitlines() if line.strip()]) <= 15
    run([sys.executable, "-c", PYTHON[0]], folder)
    samples, whole = rows(folder / "demo" / "readme"), rows(folder / "demo" / "samples")
    bands = pa.compute.is_in(whole["band"], pa.array(["A00", "A01"]))
    order = [("point_index", "ascending"), ("band", "ascending")]
    assert samples.sort_by(order).equals(whole.filter(bands).sort_by(order))


def test_the_commands(folder: Path) -> None:
    assert len(COMMANDS) == 3
    for command in COMMANDS:
        words = shlex.split(command.replace("\\\n", " "))
        run([sys.executable, *words[1:]], folder)
    assert len(rows(folder / "demo" / "fields")) == len(list((folder / "demo" / "tiffs").glob("*.tif"))) >= 200
    assert len(rows(folder / "demo" / "latest")) == 2 * (60_000 - len(rows(folder / "demo" / "left")))


def test_the_example_in_one_process(folder: Path) -> None:
    printed = run([sys.executable, "-c", PYTHON[1]], folder)
    number, shown = printed.split(" ", 1)
    assert int(number) > 100_000  # two years
    assert shown.startswith("Collection('demo', 8 records, bands A00, A01")


def test_the_chips_example(folder: Path) -> None:
    printed = run([sys.executable, "-c", PYTHON[2]], folder).splitlines()
    assert len(printed) == len(rows(folder / "demo" / "chips")) >= 400
    assert all(re.fullmatch(r"field-\d{3} A0[01] \(\d+, \d+\) int8 (-?[\d.]+|no data)", line) for line in printed)


def test_the_stream_example_can_be_built(folder: Path) -> None:
    """It reads from Pub/Sub, so it is not run: what is wrong with a stream is said while it is built."""
    (example,) = [block for block in PYTHON if "PointBatches" in block]
    last = """
from apache_beam.options.pipeline_options import PipelineOptions
pipeline = beam.Pipeline(options=PipelineOptions(["--streaming"]))
written = build(pipeline)
pipeline.to_runner_api()
print(written.is_bounded, written.element_type.__name__)
"""
    assert run([sys.executable, "-c", example + last], folder).split() == ["False", "str"]
