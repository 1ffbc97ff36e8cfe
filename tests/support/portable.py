"""Portable runners as processes of their own, and the commands on them beside the direct runner."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from rasterio.transform import Affine

import rasteret_beam
from pipelines import build_collection, read_chips, sample_points, zonal_statistics
from tests.support.commands import Outcome, execute
from tests.support.paths import ROOT
from tests.support.ports import free_port
from tests.support.scenes import write_scene

PRISM = "github.com/apache/beam/sdks/v2/go/cmd/prism"
"""Beam's own portable runner, written in Go."""

SAMPLE_KEY = ["point_index", "record_id", "band"]
ZONE_KEY = ["geometry_id", "record_id", "band"]
CHIP_KEY = ["geometry_id", "record_id", "band", "window_row", "window_col"]


def prism_binary() -> Path:
    """Prism of the installed Beam version, built into ``.prism`` once."""
    built = ROOT / ".prism" / f"prism-{beam.__version__}"
    if built.exists():
        return built
    if not shutil.which("go"):
        pytest.skip("Prism is built from Go's module proxy, and Go is not here")
    folder = built.parent / f"bin-{os.getpid()}"
    source = f"{PRISM}@v{beam.__version__}"
    done = subprocess.run(
        ["go", "install", source], env={**os.environ, "GOBIN": str(folder)}, capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"Go cannot bring {source}: {done.stderr.strip()[-300:]}")
    (folder / "prism").rename(built)
    folder.rmdir()
    return built


@contextmanager
def process(words: Sequence[str | Path], port: int, log: Path, end: signal.Signals) -> Iterator[subprocess.Popen]:
    """A server as a process, once it listens; ended by its id, with what it has started.

    A pool of workers waits at its end for what a killed worker has left open, and can wait for ever.
    """
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    with log.open("w") as out:
        # A shell's job in the background ignores SIGINT, and what it starts would too.
        heeding = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        server = subprocess.Popen(
            [*map(str, words)],
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            preexec_fn=heeding,
            start_new_session=True,
        )
        try:
            wait_for(port, server, log)
            yield server
        finally:
            server.send_signal(end)
            with suppress(subprocess.TimeoutExpired):
                server.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def wait_for(port: int, server: subprocess.Popen, log: Path) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        assert server.poll() is None, log.read_text()[-2000:]
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on {port}: {log.read_text()[-2000:]}")


@contextmanager
def prism(folder: Path) -> Iterator[list[str]]:
    """A Prism; gives the options of pipelines that are to run on it."""
    port = free_port()
    words = [prism_binary(), f"--job_port={port}", "--serve_http=false", "--log_kind=text", "--log_level=warn"]
    with process(words, port, folder / "prism.log", signal.SIGTERM):
        yield ["--runner=PortableRunner", f"--job_endpoint=127.0.0.1:{port}"]


@contextmanager
def worker_pool(folder: Path) -> Iterator[list[str]]:
    """Beam's own pool of Python workers, each a process; gives the options of pipelines that are to use it."""
    port = free_port()
    words = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={port}"]
    with process(words, port, folder / "workers.log", signal.SIGINT):
        yield ["--environment_type=EXTERNAL", f"--environment_config=127.0.0.1:{port}"]


class Hold(beam.DoFn):
    """Say which process this is, and stay."""

    def __init__(self, said: str):
        self.said = said

    def process(self, rows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        Path(self.said + ".new").write_text(str(os.getpid()))
        Path(self.said + ".new").rename(self.said)
        time.sleep(300)
        yield rows


def inputs(folder: Path, points: pa.Table) -> None:
    """Four scenes of two places and two dates, points, and polygons over them."""
    (folder / "rasters").mkdir()
    for place, left in enumerate((500_000.0, 502_000.0)):
        for year in (2021, 2022):
            write_scene(
                folder / "rasters" / f"P{place}_{year}0601.tif", Affine(10, 0, left, 0, -10, 5_400_000), place + year
            )
    pq.write_table(points, folder / "points.parquet", row_group_size=170)
    corners = [(x, 5_397_500 + (x - 500_000) / 3) for x in range(500_100, 505_000, 390)]
    boxes = [shapely.box(x, y, x + 333, y + 500) for x, y in corners]
    table = pa.table({"field": [f"f{n}" for n in range(len(boxes))], "geometry": [shapely.to_wkb(b) for b in boxes]})
    pq.write_table(table, folder / "polygons.parquet")


def build(folder: Path, output: str, options: Sequence[str]) -> Outcome:
    return execute(
        build_collection.main,
        *("--cogs", folder / "rasters", "--bands", "B10", "--datetime_regex", r"_(\d{8})\.tif", "--name", "scenes"),
        *("--output", folder / output, *options),
    )


def sample(folder: Path, output: str, options: Sequence[str]) -> Outcome:
    return execute(
        sample_points.main,
        *("--points", folder / "points.parquet", "--x_column", "x", "--y_column", "y", "--geometry_crs", "32631"),
        *("--collection", folder / "direct", "--bands", "B10", "--unsampled", folder / f"{output}-left"),
        *("--output", folder / output, *options),
    )


def chips(folder: Path, output: str, options: Sequence[str]) -> Outcome:
    return execute(
        read_chips.main,
        *("--polygons", folder / "polygons.parquet", "--geometry_crs", "EPSG:32631", "--match", "latest"),
        *("--collection", folder / "direct", "--bands", "B10", "--unmatched", folder / f"{output}-left"),
        *("--output", folder / output, *options),
    )


def zones(folder: Path, output: str, options: Sequence[str]) -> Outcome:
    return execute(
        zonal_statistics.main,
        *("--polygons", folder / "polygons.parquet", "--geometry_crs", "EPSG:32631", "--join", "left"),
        *("--collection", folder / "direct", "--bands", "B10", "--statistics", "count,mean,median"),
        *("--output", folder / output, *options),
    )


def check_commands(folder: Path, points: pa.Table, options: Sequence[str]) -> None:
    """The commands give the rows and figures on a runner that they give on the direct one."""
    inputs(folder, points)
    for command, name in ((build, "direct"), (sample, "samples"), (chips, "chips"), (zones, "zones")):
        direct, other = command(folder, name, []), command(folder, f"{name}2", options)
        assert (direct.code, other.code) == (0, 0), other.err
        timeless = [
            {label: number for label, number in run.figures.items() if "tile" not in label} for run in (direct, other)
        ]
        assert timeless[0] == timeless[1], timeless
    built = [rasteret_beam.load(folder / name).to_table().sort_by("id") for name in ("direct", "direct2")]
    assert built[0].equals(built[1]) and len(built[0]) == 4
    keys = {"samples": SAMPLE_KEY, "samples-left": ["point_index"], "chips": CHIP_KEY, "zones": ZONE_KEY}
    for name, key in keys.items():
        rows = rows_of(folder, name, key)
        other = rows_of(folder, re.sub(r"^\w+", r"\g<0>2", name), key)
        assert len(rows), name
        assert repr(rows.to_pydict()) == repr(other.to_pydict()), name  # NaN is not equal to itself


def rows_of(folder: Path, prefix: str, key: Sequence[str]) -> pa.Table:
    files = sorted(path for path in folder.glob(f"{prefix}-[0-9]*-of-*.parquet"))
    return pa.concat_tables(pq.read_table(path) for path in files).sort_by([(name, "ascending") for name in key])
