"""Benchmark of `pipelines.sample_points` beside its peers, as whole processes: points in, Parquet out.

    python -m benchmarks.sample_points [--points 1000,100000,1000000] [--runs 3] [--python PATH]
        [--rasteret_python PATH]
    python -m benchmarks.sample_points --check

The tools take turns, and the medians over the runs are printed as a Markdown table. Data are made on first
use (1 GB) and kept. With `--check` nothing is timed: our samples must equal those of the rasterio peer, or
the exit status is 1.
"""

import argparse
import importlib.util
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.data import BANDS, average_tile_bytes, make_collection, record_table, write_points

ROOT = Path(__file__).resolve().parents[1]
OURS, RASTERIO, RASTERET = "rasteret_beam", "rasterio windows", "Rasteret"
POINT_SEED = 7
KEY = ("point_index", "record_id", "band")
STDERR_TAIL = 2000  # characters shown of a failed command


@dataclass(frozen=True)
class Folders:
    """Where the benchmark keeps its files, all below `root`."""

    root: Path

    @property
    def scenes(self) -> Path:
        """The scene files."""
        return self.root / "scenes"

    @property
    def ours(self) -> Path:
        """The collection as this project exports it."""
        return self.root / "collection"

    @property
    def rasteret(self) -> Path:
        """The collection as Rasteret exports it."""
        return self.root / "rasteret_collection"

    def points(self, n: int) -> Path:
        """The table of `n` points."""
        return self.root / f"points_{n}_{POINT_SEED}.parquet"

    def output(self, tool: str) -> Path:
        """The folder of a tool's latest output and logs."""
        return self.root / "output" / tool.replace(" ", "_")


@dataclass(frozen=True)
class Run:
    """One run of a tool: rows, wall and CPU seconds, peak bytes, and the seconds of the call, if printed."""

    rows: int
    wall: float
    cpu: float
    peak: int
    call: float | None


@dataclass(frozen=True)
class Pythons:
    """The interpreters that the tools run in: ours and the rasterio peer's, and Rasteret's."""

    ours: str
    rasteret: str = ""


def command(tool: str, n: int, folders: Folders, pythons: Pythons) -> list[str]:
    """The command line by which `tool` samples the table of `n` points."""
    points, output = str(folders.points(n)), str(folders.output(tool) / "samples.parquet")
    if tool == OURS:
        flags = ["--points", points, "--x_column", "lon", "--y_column", "lat", "--geometry_crs", "EPSG:4326"]
        flags += ["--collection", str(folders.ours), "--bands", ",".join(BANDS), "--match", "all"]
        return [pythons.ours, "-m", "pipelines.sample_points", *flags, "--output", output]
    if tool == RASTERIO:
        flags = ["--points", points, "--collection-folder", str(folders.scenes), "--output", output]
        return [pythons.ours, "-m", "benchmarks.rasterio_windows", *flags]
    flags = ["--points", points, "--collection", str(folders.rasteret), "--output", output]
    return [pythons.rasteret, "-m", "benchmarks.rasteret_peer", *flags]


def run(tool: str, n: int, folders: Folders, pythons: Pythons) -> Run | None:
    """Run a tool once as a process of its own; None, after showing the end of its stderr, when it failed."""
    folder = folders.output(tool)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    out, err = folder / "stdout.txt", folder / "stderr.txt"
    measure = [sys.executable, "-I", "-S", str(ROOT / "benchmarks" / "measure.py"), str(out), str(err)]
    arguments = [*measure, *command(tool, n, folders, pythons)]
    cost = json.loads(subprocess.run(arguments, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout)
    if cost["status"] != 0:
        tail = err.read_text(errors="replace")[-STDERR_TAIL:]
        print(f"{tool} failed at {n:,} points with status {cost['status']}:\n{tail}", file=sys.stderr)
        return None
    printed = out.read_text(errors="replace").splitlines()
    call = [float(line.split()[1]) for line in printed if line.startswith("call_seconds ")]
    rows = sum(pq.read_metadata(path).num_rows for path in sample_files(folder))
    return Run(rows, cost["wall"], cost["cpu"], cost["peak"], call[0] if call else None)


def sample_files(folder: Path) -> list[Path]:
    """The Parquet files of samples in an output folder: one file, shards, or a folder of shards."""
    files = [path for path in sorted(folder.rglob("*.parquet*")) if path.is_file()]
    return [path for path in files if {*KEY, "value"} <= set(pq.read_schema(path).names)]


def prepare(folders: Folders, sizes: Sequence[int], tools: Sequence[str], pythons: Pythons) -> None:
    """Make scenes, if missing, points and collections, and bring the scenes into the page cache."""
    make_collection(folders.scenes)
    for n in sizes:
        write_points(folders.points(n), n, POINT_SEED)
    records = record_table(folders.scenes)
    if OURS in tools:
        import rasteret_beam

        shutil.rmtree(folders.ours, ignore_errors=True)
        rasteret_beam.build_from_table(records, enrich_cog=True, name="bench").export(str(folders.ours))
    if RASTERET in tools:
        shutil.rmtree(folders.rasteret, ignore_errors=True)
        path = folders.root / "records.parquet"
        pq.write_table(records, path)
        build = [pythons.rasteret, "-m", "benchmarks.rasteret_peer", "--records", str(path)]
        subprocess.run([*build, "--collection", str(folders.rasteret)], cwd=ROOT, check=True)
    for path in folders.scenes.glob("*.tif"):
        path.read_bytes()


def table_row(tool: str, n: int, runs: Sequence[Run | None], ours: float | None) -> str:
    """One Markdown row of medians; `ours` is our median wall seconds. A tool that failed once has failed."""
    done = [run for run in runs if run is not None]
    if len(done) < len(runs):
        return f"| {n:,} | | {tool} | failed {len(runs) - len(done)} of {len(runs)} | | | |"
    rows = " or ".join(f"{count:,}" for count in sorted({run.rows for run in done}))
    wall, cpu = statistics.median(run.wall for run in done), statistics.median(run.cpu for run in done)
    peak = statistics.median(run.peak for run in done) / 1e9
    ratio = "" if ours is None else f"{wall / ours:.2f}"
    return f"| {n:,} | {rows} | {tool} | {wall:.1f} | {cpu:.1f} | {peak:.2f} | {ratio} |"


def benchmark(folders: Folders, sizes: Sequence[int], tools: Sequence[str], pythons: Pythons, runs: int) -> bool:
    """Run all tools in turn, print the table of medians, and tell whether none failed."""
    results: dict[tuple[int, str], list[Run | None]] = {(n, tool): [] for n in sizes for tool in tools}
    for _ in range(runs):
        for (n, tool), outcome in results.items():
            outcome.append(run(tool, n, folders, pythons))
    print(f"Mean compressed tile: {average_tile_bytes(folders.scenes) / 1000:.0f} kB; medians of {runs} runs.\n")
    print("| points | rows | tool | wall s | CPU s | peak GB | wall, ours = 1 |")
    print("|---:|---:|---|---:|---:|---:|---:|")
    for (n, tool), outcome in results.items():
        ours = [one.wall for one in results.get((n, OURS), []) if one is not None]
        print(table_row(tool, n, outcome, statistics.median(ours) if ours else None))
    for (n, tool), outcome in results.items():
        calls = [one.call for one in outcome if one is not None and one.call is not None]
        if calls:
            print(f"\n{tool}, {n:,} points: {statistics.median(calls):.1f} s of it in the sampling call.")
    return all(one is not None for outcome in results.values() for one in outcome)


def read_samples(folder: Path) -> pa.Table:
    """The samples of an output folder in a fixed order: point_index, record_id, band, value."""
    types = pa.schema({KEY[0]: pa.int64(), KEY[1]: pa.string(), KEY[2]: pa.string(), "value": pa.float64()})
    tables = [pq.read_table(path, columns=types.names, partitioning=None) for path in sample_files(folder)]
    table = pa.concat_tables([one.cast(types) for one in tables]) if tables else types.empty_table()
    return table.sort_by([(name, "ascending") for name in KEY])


def check(folders: Folders, sizes: Sequence[int], pythons: Pythons) -> bool:
    """Tell whether our samples are those of the rasterio peer: the same rows and exactly the same values."""
    same = True
    for n in sizes:
        if None in (run(OURS, n, folders, pythons), run(RASTERIO, n, folders, pythons)):
            same = False
            continue
        ours, theirs = read_samples(folders.output(OURS)), read_samples(folders.output(RASTERIO))
        equal = ours.equals(theirs)
        same = same and equal
        verdict = "equal" if equal else f"DIFFERENT ({differences(ours, theirs)})"
        print(f"{n:,} points: {len(ours):,} rows of ours, {len(theirs):,} of rasterio's: {verdict}")
    return same


def differences(ours: pa.Table, theirs: pa.Table) -> str:
    """Where two sample tables of `read_samples` part: in the number of rows, or at the first unequal row."""
    common = min(len(ours), len(theirs))
    pairs = [(ours[name].slice(0, common), theirs[name].slice(0, common)) for name in ours.column_names]
    found = [pc.index(pc.equal(one, other), False).as_py() for one, other in pairs]
    first = min((number for number in found if number >= 0), default=common)
    rows = [table.slice(first, 1).to_pylist() for table in (ours, theirs)]
    return f"first at sorted row {first:,}: ours {rows[0]}, rasterio's {rows[1]}"


def main() -> int:
    """Parse the flags and benchmark or check; the exit status."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    default = Path(tempfile.gettempdir()) / "rasteret_beam_benchmark"
    parser.add_argument("--folder", type=Path, default=default, help="where data are kept (%(default)s)")
    parser.add_argument("--points", default="1000,100000,1000000", help="numbers of points (%(default)s)")
    parser.add_argument("--python", default=sys.executable, help="a Python that has this package (this one)")
    parser.add_argument("--rasteret_python", help="a Python with rasteret (this one, if it has it)")
    parser.add_argument("--runs", type=int, default=3, help="runs per tool and size (%(default)s)")
    parser.add_argument("--tools", help=f"some of: {OURS},{RASTERIO},{RASTERET}; by default all there are")
    parser.add_argument("--check", action="store_true", help="compare our samples with the rasterio peer's")
    flags = parser.parse_args()
    sizes = [int(size) for size in flags.points.split(",")]
    folders = Folders(flags.folder.resolve())
    rasteret_python = flags.rasteret_python
    if rasteret_python is None and importlib.util.find_spec("rasteret"):
        rasteret_python = sys.executable
    pythons = Pythons(flags.python, rasteret_python or "")
    known = [OURS, RASTERIO, *([RASTERET] if rasteret_python else [])]
    tools = flags.tools.split(",") if flags.tools else known
    if not set(tools) <= set(known):
        parser.error(f"--tools: {flags.tools!r}; here it can be some of {','.join(known)}")
    if flags.runs < 1:
        parser.error("--runs must be at least 1")
    prepare(folders, sizes, [OURS] if flags.check else tools, pythons)
    if flags.check:
        return 0 if check(folders, sizes, pythons) else 1
    return 0 if benchmark(folders, sizes, tools, pythons, flags.runs) else 1


if __name__ == "__main__":
    sys.exit(main())
