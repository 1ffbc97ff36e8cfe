"""What a local run should need: the estimate, what the machine has free, and what the command says of both."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import sample_points
from pipelines.cli.memory_report import MemoryCheck
from rasteret_beam import Collection, ReadPoints, load
from rasteret_beam.collection.eager.memory_estimate import BASE_BYTES, Routing, TableSize, estimate
from rasteret_beam.model import MatchRules
from rasteret_beam.readers.jobs.free_resources import free_memory, own_memory
from rasteret_beam.readers.jobs.spill import IN_MEMORY_BYTES
from rasteret_beam.readers.tiles.budget import CacheBudget
from tests.support.commands import Outcome, as_flags, execute
from tests.support.pipelines import XY

CACHE = CacheBudget()
MEMINFO = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\nMemAvailable:    8000000 kB\n"


def tree(folder: Path, files: dict[str, object]) -> tuple[Path, Path]:
    """Files of /proc and /sys/fs/cgroup, as (proc, cgroups)."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(text))
    return folder / "proc", folder / "cgroup"


GROUPS: dict[str, tuple[dict[str, object], int | None]] = {
    "no group": ({}, 8_192_000_000),
    "without limit": (
        {"proc/self/cgroup": "0::/a\n", "cgroup/a/memory.max": "max\n", "cgroup/a/memory.current": 5},
        8_192_000_000,
    ),
    "own limit": (
        {"proc/self/cgroup": "0::/a\n", "cgroup/a/memory.max": 1_000_000, "cgroup/a/memory.current": 400_000},
        600_000,
    ),
    "pages of idle files": (
        {
            "proc/self/cgroup": "0::/a\n",
            "cgroup/a/memory.max": 1_000_000,
            "cgroup/a/memory.current": 900_000,
            "cgroup/a/memory.stat": "anon 100\ninactive_file 300000\n",
        },
        400_000,
    ),
    "limit of a group above": (
        {
            "proc/self/cgroup": "0::/a/b\n",
            "cgroup/a/b/memory.max": "max",
            "cgroup/a/b/memory.current": 1,
            "cgroup/a/memory.max": 500_000,
            "cgroup/a/memory.current": 100_000,
        },
        400_000,
    ),
    "in a container": (
        {"proc/self/cgroup": "0::/\n", "cgroup/memory.max": 2_000_000, "cgroup/memory.current": 500_000},
        1_500_000,
    ),
    "first version": (
        {
            "proc/self/cgroup": "12:cpu,cpuacct:/\n5:memory:/docker/x\n0::/ignored\n",
            "cgroup/memory/memory.limit_in_bytes": 3_000_000,
            "cgroup/memory/memory.usage_in_bytes": 1_000_000,
            "cgroup/memory/memory.stat": "total_inactive_file 500000\n",
        },
        2_500_000,
    ),
    "over its limit": (
        {"proc/self/cgroup": "0::/\n", "cgroup/memory.max": 100, "cgroup/memory.current": 500},
        0,
    ),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_free_memory_is_that_of_the_machine_or_of_a_cgroup(tmp_path: Path, kind: str) -> None:
    files, expected = GROUPS[kind]
    assert free_memory(*tree(tmp_path, {"proc/meminfo": MEMINFO, **files})) == expected


def test_a_system_that_does_not_tell(tmp_path: Path) -> None:
    assert free_memory(tmp_path, tmp_path) is None
    assert own_memory(tmp_path) == 0


def test_a_wide_row_group_decides_the_estimate(tmp_path: Path) -> None:
    letters = np.random.default_rng(1).bytes(2 << 20).hex()
    texts = pa.array([letters[start : start + 4096] for start in range(0, len(letters), 4096)])
    table = pa.table({"x": np.zeros(len(texts)), "y": np.zeros(len(texts)), "note": texts, "left": texts})
    sizes = {}
    for rows in (len(texts), len(texts) // 4):
        pq.write_table(table, tmp_path / f"{rows}.parquet", row_group_size=rows, compression="none")
        reading = ReadPoints(str(tmp_path / f"{rows}.parquet"), **XY, columns=["note"])
        sizes[rows] = reading.size()
    whole, quarter = sizes.values()
    assert whole.rows == quarter.rows == len(texts)
    assert whole.total_bytes == pytest.approx(4 << 20, rel=0.02)
    assert whole.read_bytes == pytest.approx(12 << 20, rel=0.02)
    assert quarter.read_bytes == pytest.approx(3 << 20, rel=0.02)


def test_the_size_of_a_table_in_memory_and_of_csv(tmp_path: Path, points: pa.Table) -> None:
    in_memory = ReadPoints(points, **XY).size()
    assert in_memory.rows == len(points)
    (tmp_path / "p.csv").write_text("x,y\n" + "1.5,2.5\n" * 1000)
    csv = ReadPoints(str(tmp_path / "p.csv"), **XY).size()
    assert (csv.rows, csv.total_bytes) == (None, 8004)
    assert csv.points(8.0) == pytest.approx(1000, rel=0.01)


def test_the_estimate_does_not_grow_with_points_but_by_their_references() -> None:
    """Measured, with a cache of 256 MB: 1 M points 587 MB, 4 M points 606 MB; with text of 150 letters 756 and 741."""
    batch = pa.record_batch({"point_index": np.arange(1000), "point_x": np.zeros(1000), "point_y": np.zeros(1000)})
    routing = Routing(chunks=0.001, sent=4.0, different=1.0, rows=8.0)
    found = [estimate(TableSize(rows, 20 * rows, 8 << 20), batch, routing, CACHE) for rows in (10**3, 10**6, 10**8)]
    assert found[0].memory - BASE_BYTES - CACHE.share < 30 << 20
    assert found[0].disk == 0
    assert found[2].memory - found[1].memory == pytest.approx(3 * 400 * 0.001 * (10**8 - 10**6), rel=0.01)
    assert found[2].disk == 10**8 * 32
    many = estimate(TableSize(10**6, 20 * 10**6, 8 << 20), batch, Routing(40.0, 40.0, 1.0, 80.0), CACHE)
    assert many.memory > 3 * (IN_MEMORY_BYTES + 400 * 40 * 10**6)  # each point in a chunk of its own


def test_routing_counts_the_chunk_of_a_grid_once(scenes: Collection, points: pa.Table) -> None:
    batch = next(ReadPoints(points, **XY).batches())
    routing = Routing.of(scenes.index(["B10"]).routing, batch, "EPSG:32631")
    assert routing.sent == pytest.approx(3 * routing.different)
    assert routing.rows == pytest.approx(routing.sent)
    assert 0 < routing.chunks < 0.1


@pytest.mark.parametrize("match", ["all", "latest"])
def test_points_keyed_by_place_are_sent_once_and_have_all_rows(
    scenes: Collection, points: pa.Table, match: str
) -> None:
    batch = next(ReadPoints(points, **XY).batches())
    bands = ["B10", "B20"]
    by_record, by_place = (
        Routing.of(scenes.index(bands, MatchRules(match, places=places)).routing, batch, "EPSG:32631")
        for places in ("", "point")
    )
    x, y = (points[name].to_numpy(zero_copy_only=False) for name in "xy")
    inside = (x >= 500_000) & (x < 505_000) & (y > 5_397_000) & (y <= 5_400_000)
    assert by_place.sent == by_place.different == np.count_nonzero(inside) / len(points)
    assert by_place.rows == pytest.approx(by_record.rows)


@pytest.fixture
def flags(scenes: Collection, points: pa.Table, tmp_path: Path) -> list[str]:
    scenes.export(tmp_path / "c")
    pq.write_table(points, tmp_path / "p.parquet")
    return as_flags(
        points=tmp_path / "p.parquet",
        x_column="x",
        y_column="y",
        geometry_crs=32631,
        collection=tmp_path / "c",
        bands="B10",
    )


def sample(flags: list[str], *words: object) -> Outcome:
    return execute(sample_points.main, *flags, *words)


def test_the_plan_says_what_a_local_run_should_need(flags: list[str], tmp_path: Path) -> None:
    collection = load(tmp_path / "c")
    reading = ReadPoints(str(tmp_path / "p.parquet"), **XY)
    check = MemoryCheck(reading.size(), CACHE)
    check.route(collection.index(["B10"]).routing, next(reading.batches()), "EPSG:32631")
    (line,) = [line for line in sample(flags, "--plan").out.splitlines() if "memory" in line]
    assert line.split() == ["memory", "of", "a", "local", "run,", "about", *check.lines()[0].split()[-2:]]
    assert 390e6 < check.estimate.memory < 420e6
    smaller = [line for line in sample(flags, "--plan", "--cache_mb=4").out.splitlines() if "memory" in line]
    assert smaller[0] < line


def test_a_run_that_may_not_fit_warns_once_and_goes_on(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.cli.memory_report.free_memory", lambda: 1_000_000)
    monkeypatch.setattr("pipelines.cli.memory_report.own_memory", lambda: 200_000_000)
    outcome = sample(flags, f"--output={tmp_path}/s")
    assert outcome.code == 0 and outcome.figures["points read"] == 2000
    (line,) = outcome.err.splitlines()
    assert line.startswith("warning: this job needs about ")
    assert line.endswith(
        " of memory, but 201.0 MB are free; keep fewer columns (--columns), lower --round_points, or run on a "
        "cluster (--runner)"
    )


def test_a_row_group_that_may_not_fit_is_named(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.cli.memory_report.free_memory", lambda: 1_000_000)
    monkeypatch.setattr("pipelines.cli.memory_report.own_memory", lambda: 0)
    monkeypatch.setattr(ReadPoints, "size", lambda self: TableSize(2000, 10**9, 3 * 10**9))
    outcome = sample(flags, f"--output={tmp_path}/s")
    (line,) = outcome.err.splitlines()
    assert "3.0 GB of it hold one row group: write --points with smaller row groups, or keep fewer columns" in line


def test_a_disk_that_may_not_have_room_is_named(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.cli.memory_report.free_memory", lambda: None)
    monkeypatch.setattr(ReadPoints, "size", lambda self: TableSize(10**14, 10**16, 10**6))
    outcome = sample(flags, f"--output={tmp_path}/s", f"--round_points={10**14}")
    (line,) = outcome.err.splitlines()
    assert line.startswith("warning: this job needs up to ")
    assert " of temporary disk, but /" in line and "set TMPDIR to a folder with more, or keep fewer columns" in line


def test_other_runners_are_not_warned_of(flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.cli.memory_report.free_memory", lambda: 1)
    monkeypatch.setattr("pipelines.cli.memory_report.own_memory", lambda: 0)
    embedded = ["--runner=PortableRunner", "--job_endpoint=embed", "--environment_type=LOOPBACK"]
    assert "this job needs" not in sample(flags, f"--output={tmp_path}/s", *embedded).err
    assert sample(flags, "--plan", *embedded).err == ""
    assert sample(flags, "--plan").err.count("this job needs") == 1
