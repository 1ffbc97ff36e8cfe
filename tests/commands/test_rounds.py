"""Jobs in rounds: the rows of one pipeline, memory of a slice, and runs that are killed and resumed."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr
from io import StringIO
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pv
import pyarrow.parquet as pq
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st

from pipelines import sample_points
from pipelines.cli import progress, run_identity
from pipelines.cli.process import command
from pipelines.cli.progress import PointsDone, clock
from pipelines.cli.rounds import plan_rounds
from rasteret_beam import ReadPoints, build_from_cogs, metrics
from rasteret_beam.errors import OutputError
from rasteret_beam.readers.tiles.budget import CacheBudget
from rasteret_beam.transforms.sinks.rounds import RoundRecords
from rasteret_beam.transforms.sources import held_readers, table_files
from rasteret_beam.transforms.sources.slices import BatchSlices, FileSlices, within
from tests.support import rasters
from tests.support.commands import Outcome, as_flags, execute
from tests.support.paths import ROOT

pytestmark = pytest.mark.usefixtures("same_signal_handlers")

POINTS, SIZE = 230, 64


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raster ``s.tif`` with its collection ``c``, and points, a tenth of them outside, as files of several kinds."""
    folder = tmp_path_factory.mktemp("inputs")
    case = rasters.RasterCase(name="s", dtype="int16", count=1, width=SIZE, height=SIZE, tile=(16, 16))
    path = case.write(folder)
    build_from_cogs([path], bands=["B1"], name="one").export(folder / "c")
    x, y = coordinates(path)
    table = pa.table({"x": x, "y": y, "name": [f"n{number}" for number in range(POINTS)]})
    pq.write_table(table, folder / "groups.parquet", row_group_size=40)
    pq.write_table(table, folder / "one_group.parquet", row_group_size=POINTS)
    pv.write_csv(table, folder / "p.csv")
    (folder / "csv").mkdir()
    for number, start in enumerate((0, 100, 130)):
        pv.write_csv(table.slice(start, (100, 30, 100)[number]), folder / f"csv/{number}.csv")
    return folder


def coordinates(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Points in and about a raster, in its CRS."""
    with rasterio.open(path) as src:
        left, bottom, right, top = src.bounds
    rng = np.random.default_rng(4)
    wide, high = right - left, top - bottom
    return rng.uniform(left - wide / 20, right, POINTS), rng.uniform(bottom - high / 20, top, POINTS)


def crs_of(inputs: Path) -> int:
    with rasterio.open(next(inputs.glob("s*.tif"))) as src:
        return int(src.crs.to_epsg())


def flags_of(inputs: Path, out: Path, points: str = "groups.parquet", **more: object) -> list[str]:
    usual = {"points": inputs / points, "x_column": "x", "y_column": "y", "geometry_crs": crs_of(inputs)}
    outputs = {"output": out / "s", "unsampled": out / "left", "dead_letter": out / "dead"}
    return as_flags(**(usual | outputs | {"collection": inputs / "c", "bands": "B1", "round_points": 80} | more))


def sample(inputs: Path, out: Path, *words: str, **flags: object) -> Outcome:
    return execute(sample_points.main, *flags_of(inputs, out, **flags), *words)


def written(out: Path, name: str) -> pa.Table:
    files = sorted(out.glob(f"{name}-*-of-*.parquet"))
    assert [int(re.search(r"of-(\d+)", path.name)[1]) for path in files] == [len(files)] * len(files)
    return pa.concat_tables(pq.read_table(path) for path in files)


def check_rows(inputs: Path, out: Path) -> None:
    """The samples and the unsampled points are those that rasterio gives, each once, with their columns."""
    path = next(inputs.glob("s*.tif"))
    x, y = coordinates(path)
    values, inside = rasters.oracle(path, 0, x, y)
    samples, left = written(out, "s").sort_by("point_index"), written(out, "left").sort_by("point_index")
    assert 150 < inside.sum() < POINTS
    assert samples["point_index"].to_pylist() == np.flatnonzero(inside).tolist()
    assert samples["value"].to_pylist() == values[inside].tolist()
    assert samples["name"].to_pylist() == [f"n{number}" for number in np.flatnonzero(inside)]
    np.testing.assert_array_equal(samples["point_x"], x[inside])
    assert left["point_index"].to_pylist() == np.flatnonzero(~inside).tolist()
    assert written(out, "dead").num_rows == 0
    assert not list(out.glob("*temporary*"))


# The plan


@given(st.lists(st.integers(1, 50), max_size=12), st.integers(1, 60))
def test_rounds_cover_all_rows_and_cut_only_what_is_too_large(sizes: list[int], most: int) -> None:
    rounds = list(plan_rounds(sizes, most))
    ends = np.cumsum([0, *sizes]).tolist()
    assert [each.number for each in rounds] == list(range(len(rounds)))
    assert [each.first for each in rounds] + [ends[-1]] == [0, *(each.stop for each in rounds)]
    assert all(0 < each.stop - each.first <= most for each in rounds)
    for start, end in pairwise(ends):
        cut = [each.stop for each in rounds if start < each.stop < end]
        assert not cut or end - start > most


def test_rounds_of_a_table_of_unknown_length_do_not_end() -> None:
    rounds = plan_rounds([30, None], 40)
    assert [next(rounds)[1:] for _ in range(4)] == [(0, 30), (30, 70), (70, 110), (110, 150)]


# Slices of a table


@pytest.mark.parametrize("name", ["groups.parquet", "one_group.parquet", "p.csv", "csv"])
def test_slices_are_the_rows_of_the_table(inputs: Path, name: str) -> None:
    whole = pa.Table.from_batches(reading(inputs, name).batches())
    assert whole["point_index"].to_pylist() == list(range(POINTS))
    slices = reading(inputs, name).slices()
    assert isinstance(slices, FileSlices)
    for first, stop in [(0, 60), (60, 120), (200, 900), (7, 8), (39, 161), (120, 180)]:
        found = rows_of(slices, first, stop)
        assert found.equals(whole.slice(first, stop - first)), (first, stop)


def reading(inputs: Path, name: str) -> ReadPoints:
    return ReadPoints(str(inputs / name), x_column="x", y_column="y", geometry_crs=crs_of(inputs))


def rows_of(slices: FileSlices, first: int, stop: int) -> pa.Table:
    splits = within(slices.splits, first, stop)
    batches = [batch for split in splits for batch in table_files._read_split(split, slices.rows, slices.files)]
    return pa.Table.from_batches(batches)


@pytest.mark.parametrize(("name", "sizes"), [("groups.parquet", [40] * 5 + [30]), ("csv", [100, 30, None])])
def test_parts_of_files(inputs: Path, name: str, sizes: list[int | None]) -> None:
    slices = reading(inputs, name).slices()
    assert slices is not None and slices.sizes == sizes


def test_slices_of_points_in_memory(inputs: Path) -> None:
    table = pq.read_table(inputs / "groups.parquet")
    slices = ReadPoints(table, x_column="x", y_column="y", geometry_crs=crs_of(inputs)).slices()
    assert isinstance(slices, BatchSlices) and sum(size or 0 for size in slices.sizes) == POINTS
    found = pa.Table.from_batches(slices._within(33, 99))
    assert found["point_index"].to_pylist() == list(range(33, 99))


@pytest.mark.parametrize("name", ["one_group.parquet", "p.csv"])
def test_consecutive_slices_read_a_part_once(inputs: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    read = table_files._batches_of
    monkeypatch.setattr(table_files, "_batches_of", lambda *given: iter_counted(opened, read(*given)))
    held_readers.close_readers()
    slices = reading(inputs, name).slices()
    assert isinstance(slices, FileSlices)
    numbers = [rows_of(slices, first, first + 50)["point_index"].to_pylist() for first in range(0, 250, 50)]
    assert list(chain(*numbers)) == list(range(POINTS))
    assert sum(opened) == POINTS
    held_readers.close_readers()


def iter_counted(counts: list[int], batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        counts.append(len(batch))
        yield batch


# Whole jobs


@pytest.mark.parametrize("points", ["one_group.parquet", "csv"])
def test_the_rows_are_those_of_rasterio(inputs: Path, tmp_path: Path, points: str) -> None:
    outcome = sample(inputs, tmp_path, points=points)
    assert (outcome.code, outcome.err) == (0, "")
    check_rows(inputs, tmp_path)
    assert len(list(tmp_path.glob("s-*.parquet"))) >= 3
    x, y = coordinates(next(inputs.glob("s*.tif")))
    inside = int(rasters.oracle(next(inputs.glob("s*.tif")), 0, x, y)[1].sum())
    figures = outcome.figures
    assert (figures["points read"], figures["sampled"], figures["rows"]) == (POINTS, inside, inside)
    assert figures["unsampled"] == figures["no_record"] == POINTS - inside


def test_rounds_hold_the_tiles_between_them(inputs: Path, tmp_path: Path) -> None:
    """The tiles fit into the cache; one is decoded again only for rows further down than those decoded so far."""
    outcome = sample(inputs, tmp_path)
    tiles = (SIZE // 16) ** 2
    assert CacheBudget().share > SIZE * SIZE * 2
    assert tiles <= outcome.figures["tiles decoded"] < 2 * tiles  # of three rounds


# Killed runs

HOOKS = {
    "the run is described": "before(RoundRecords, 'finish', 1)",
    "a file of the second round is closed": "after(ParquetFile, 'close', 3)",
    "two rounds are recorded": "after(RoundRecords, 'finish', 2)",
    "all rounds are recorded": "before(committing, 'commit', 1)",
    "one of three outputs is decided": "after(committing, '_write', 1)",
    "two of three outputs are decided": "after(committing, '_write', 2)",
}
"""The moments at which a process is killed, and how it is done."""

PROGRAM = """
import os, signal, sys
from pipelines import sample_points
from pipelines.cli.process import command
from rasteret_beam.transforms.sinks import commit as committing
from rasteret_beam.transforms.sinks.parquet_file import ParquetFile
from rasteret_beam.transforms.sinks.rounds import RoundRecords

def hook(owner, name, number, is_before):
    real, calls = getattr(owner, name), []
    def called(*args, **kwargs):
        calls.append(1)
        if is_before and len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*args, **kwargs)
        if len(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    setattr(owner, name, called)

def before(owner, name, number):
    hook(owner, name, number, True)

def after(owner, name, number):
    hook(owner, name, number, False)

{hook}
command(lambda: sample_points.main(sys.argv[1:]))
"""


def killed(flags: list[str], hook: str) -> None:
    words = [sys.executable, "-c", PROGRAM.format(hook=hook), *flags]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == -signal.SIGKILL, ended.stderr


@pytest.mark.slow
@pytest.mark.parametrize("moment", HOOKS)
def test_a_killed_run_is_resumed(inputs: Path, tmp_path: Path, moment: str) -> None:
    killed(flags_of(inputs, tmp_path), HOOKS[moment])
    assert not list(tmp_path.glob("s-*.parquet"))
    assert list(tmp_path.glob("_s.temporary-*"))
    outcome = sample(inputs, tmp_path, "--resume")
    assert outcome.code == 0, outcome.err
    first, *others = outcome.err.splitlines()
    assert re.match(r"resuming the run that began \d{4}-\S+Z: \d+ of 230 points in \d round\(s\) are finished$", first)
    assert others == []
    check_rows(inputs, tmp_path)
    assert outcome.figures["points read"] == POINTS
    assert outcome.figures["rows"] == written(tmp_path, "s").num_rows


@pytest.fixture
def stopped(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run onto ``s`` that has failed after two rounds of three."""
    return fail_after(2, inputs, tmp_path / "out", monkeypatch)


def fail_after(rounds: int, inputs: Path, out: Path, monkeypatch: pytest.MonkeyPatch, **flags: object) -> Path:
    real = RoundRecords.finish

    def finish(self: RoundRecords, done: object) -> None:
        if len(self.finished()) == rounds:
            raise OutputError("the network is gone")
        real(self, done)

    with monkeypatch.context() as patch:
        patch.setattr(RoundRecords, "finish", finish)
        outcome = sample(inputs, out, **flags)
    assert outcome.code == 1
    assert outcome.err.splitlines()[0] == "error: the network is gone"
    assert " are finished and kept; run the command again with --resume to continue, " in outcome.err
    return out


def test_a_resumed_run_does_not_repeat_finished_rounds(inputs: Path, stopped: Path) -> None:
    (temporary,) = stopped.glob("_s.temporary-*")
    kept = {path.name: path.stat().st_mtime_ns for path in temporary.glob("*.parquet")}
    decoded = metrics.PROGRESS.snapshot()[metrics.POINTS_IN]
    outcome = sample(inputs, stopped, "--resume", round_points=None)
    assert outcome.code == 0 and outcome.figures["points read"] == POINTS
    assert metrics.PROGRESS.snapshot()[metrics.POINTS_IN] - decoded == POINTS - 160
    final = {path.stat().st_mtime_ns for path in stopped.glob("s-*.parquet")}
    assert len(final & set(kept.values())) == 2
    check_rows(inputs, stopped)


def test_a_new_run_removes_what_could_be_resumed(inputs: Path, stopped: Path) -> None:
    folders = sorted(stopped.glob("_*temporary-*"))
    assert len(folders) == 3
    outcome = sample(inputs, stopped)
    assert outcome.code == 0
    assert sorted(outcome.err.splitlines()) == [f"removed {folder}/, left by a killed run" for folder in folders]
    check_rows(inputs, stopped)


def refused(inputs: Path, out: Path, **flags: object) -> str:
    before = sorted(out.rglob("*"))
    outcome = sample(inputs, out, "--resume", **flags)
    assert (outcome.code, outcome.out, outcome.err.count("\n")) == (1, "", 1)
    assert sorted(out.rglob("*")) == before
    found = re.fullmatch(
        r"error: --resume cannot continue the run that began \S+Z: (.*); restore it, or leave out --resume to start "
        r"anew\n",
        outcome.err,
    )
    assert found, outcome.err
    return found[1]


def test_other_flags_are_refused(inputs: Path, stopped: Path) -> None:
    assert refused(inputs, stopped, match="latest") == "--match was all and is latest"
    assert refused(inputs, stopped, columns="x") == "--columns was not given and is x"
    assert refused(inputs, stopped, round_points=50) == "--round_points was 80 and is 50"
    rules = "B1 in 1,2;B1<=40.0"
    assert refused(inputs, stopped, quality=rules) == "--quality was not given and is B1 in 1,2; B1 <= 40"
    outcome = sample(inputs, stopped, "--resume", cache_mb=16)
    assert outcome.code == 0


def test_another_version_is_refused(inputs: Path, stopped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version = run_identity.__version__
    monkeypatch.setattr(run_identity, "__version__", "99.0")
    assert refused(inputs, stopped) == f"rasteret_beam was {version} and is 99.0"


def test_changed_points_are_refused(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    points = tmp_path / "p.parquet"
    points.write_bytes((inputs / "groups.parquet").read_bytes())
    out = fail_after(1, inputs, tmp_path / "out", monkeypatch, points=points)
    size = points.stat().st_size
    pq.write_table(pq.read_table(points).slice(1), points, row_group_size=40)
    said = refused(inputs, out, points=points)
    assert re.fullmatch(
        rf"{points} of --points was {size} bytes, changed \S+Z and is {points.stat().st_size} bytes, changed \S+Z", said
    )


def test_a_changed_collection_is_refused(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = tmp_path / "c"
    shutil.copytree(inputs / "c", collection)
    out = fail_after(1, inputs, tmp_path / "out", monkeypatch, collection=collection)
    file = next(collection.rglob("*.parquet"))
    pq.write_table(pq.read_table(file), file, compression="none")
    said = refused(inputs, out, collection=collection)
    size = file.stat().st_size
    assert re.fullmatch(rf"{file} of --collection was \d+ bytes, \S+ \S+Z and is {size} bytes, \S+ \S+Z", said)


def test_a_missing_file_is_refused(inputs: Path, stopped: Path) -> None:
    gone = next(path for path in stopped.glob("_s.temporary-*/*.parquet") if is_recorded(path))
    gone.unlink()
    outcome = sample(inputs, stopped, "--resume")
    assert outcome.code == 1
    assert outcome.err == (
        f"error: {gone} of a finished round is gone, so the run cannot be resumed; restore it, or leave out --resume "
        "to start anew\n"
    )


def is_recorded(path: Path) -> bool:
    return any(path.name in text.read_text() for text in path.parent.glob("_rounds/0*.json"))


def test_nothing_to_resume(inputs: Path, tmp_path: Path) -> None:
    outcome = sample(inputs, tmp_path, "--resume")
    assert outcome.code == 1 and list(tmp_path.iterdir()) == []
    assert outcome.err == (
        f"error: --resume: there is no unfinished run onto {tmp_path}/s-*.parquet; leave out --resume to start anew\n"
    )
    assert sample(inputs, tmp_path).code == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    outcome = sample(inputs, tmp_path, "--resume")
    assert outcome.code == 1 and {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    began = json.loads((tmp_path / "_s.manifest.json").read_text())["started"]
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began))
    assert outcome.err == (
        f"error: --resume: the last run onto {tmp_path}/s-*.parquet, which began {moment}, is complete and in place; "
        "leave out --resume to start anew\n"
    )


def test_ctrl_c_tells_how_to_resume(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "s-00000-of-00001.parquet").write_bytes(b"earlier")
    words = [sys.executable, "-m", "pipelines.sample_points", *flags_of(inputs, tmp_path, round_points=40)]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob("_s.temporary-*/_rounds/00000.json")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.fullmatch(
        r"interrupted: the job did not finish; \d+ of 230 points in \d+ round\(s\) are finished and kept; run the "
        r"command again with --resume to continue, or without it to start anew\n",
        err,
    )
    assert (tmp_path / "s-00000-of-00001.parquet").read_bytes() == b"earlier"
    assert sample(inputs, tmp_path, "--resume", round_points=None).code == 0
    check_rows(inputs, tmp_path)


# Where there are no rounds


@pytest.mark.parametrize("flag", ["--round_points=5", "--resume"])
def test_other_runners_take_no_rounds(inputs: Path, tmp_path: Path, flag: str) -> None:
    runner = ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"]
    outcome = sample(inputs, tmp_path, flag, *runner, round_points=None)
    assert outcome.code == 1
    assert outcome.err == (
        f"error: {flag.partition('=')[0]} goes with runs in this process; PortableRunner limits memory and repeats "
        "failed work itself; leave it out\n"
    )


@pytest.mark.parametrize("number", ["0", "-1", "1e6", "many"])
def test_unusable_numbers_of_points(inputs: Path, tmp_path: Path, number: str) -> None:
    outcome = sample(inputs, tmp_path, round_points=number)
    assert outcome.code == 2
    assert f"argument --round_points: {number!r} is not a whole number; give 1 or more" in outcome.err


# Progress


def test_progress_of_a_table_of_known_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PROGRESS", counters := metrics.Counters())
    done = PointsDone(1000, before=200)
    assert done.line({}, 3.0) == "[####----------------]  20%  200 of 1,000 points, 0 rows/s, 0 routed"
    done.end_round(200)
    for name, value in [(metrics.POINTS_IN, 300), (metrics.VALUES_ROUTED, 600), (metrics.VALUES_SAMPLED, 150)]:
        counters.add(name, value)
    counters.add(metrics.VALUES_LEFT_OUT, 50)
    # 400 points are finished, and a third of 300 points: 300 in this run took 60 s, so 500 more take 100 s.
    assert done.line({metrics.SAMPLES_OUT: 6000}, 60.0) == (
        "[##########----------]  50%  500 of 1,000 points, 100 rows/s, 0:01:40 left"
    )
    assert clock(3 * 3600 + 62) == "3:01:02"


def test_progress_of_a_table_of_unknown_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PROGRESS", metrics.Counters())
    done = PointsDone(None)
    done.end_round(200)
    line = done.line({metrics.POINTS_IN: 250, metrics.SAMPLES_OUT: 400}, 8.0)
    assert line == "200 points done, 250 read, 50 rows/s, 0:00:08"


def test_a_log_gets_lines(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_SECONDS", 0.02)
    outcome = sample(inputs, tmp_path)
    assert outcome.code == 0
    lines = outcome.err.splitlines()
    assert lines and all(re.match(r"\[[#-]{20}\] +\d+%  \d+ of 230 points, [\d,]+ rows/s, ", line) for line in lines)
    shares = [int(re.search(r"(\d+)%", line)[1]) for line in lines]
    assert shares == sorted(shares)


class Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_a_bar(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SECONDS", 0.02)
    words = flags_of(inputs, tmp_path, round_points=120)
    with redirect_stderr(Terminal()) as terminal, pytest.raises(SystemExit) as ended:
        command(lambda: sample_points.main(words))
    shown = terminal.getvalue()
    assert ended.value.code == 0
    assert re.search(r"\r\x1b\[K\[[#-]{20}\] +\d+%  \d+ of 230 points, [\d,]+ rows/s", shown)
    assert shown.endswith("\r\x1b[K")
