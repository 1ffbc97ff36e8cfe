"""Benchmark of `pipelines.sample_points` beside its peers, as whole processes: points in, Parquet out.

    python -m benchmarks.sample_points [--collections s2,aef] [--points 1000,100000,1000000] [--runs 3]
        [--python PATH] [--rasteret_python PATH]
    python -m benchmarks.sample_points --check

The tools take turns, and the medians over the runs are printed as a Markdown table for each collection. Data
are made on first use (1 GB for s2, 1.5 GB for aef) and kept. With `--check` nothing is timed: our samples must
equal those of the rasterio peer, or the exit status is 1.
"""

import argparse
import importlib.util
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.data import COLLECTIONS, S2, Imagery

ROOT = Path(__file__).resolve().parents[1]
OURS, EAGER, RASTERIO, RASTERET = "rasteret_beam", "its eager call", "rasterio windows", "Rasteret"
LOOP = "rasterio without rows"
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
    """One run of a tool: rows, wall and CPU seconds, peak bytes; and the seconds of its call, those of writing the
    call's result, tiles decoded and their bytes, as far as it prints them."""

    rows: int
    wall: float
    cpu: float
    peak: int
    call: float | None = None
    write: float | None = None
    tiles: int | None = None
    tile_bytes: int | None = None


PRINTED = {
    "call": (r"^call_seconds (\S+)", float),
    "write": (r"^write_seconds (\S+)", float),
    "tiles": (r"^tiles decoded +([\d,]+)", int),
    "tile_bytes": (r"^bytes of tiles read +([\d,]+)", int),
}
"""Figures of a `Run`, where they stand in what the tools print, and their types."""


@dataclass(frozen=True)
class Pythons:
    """The interpreters that the tools run in: ours and the rasterio peer's, and Rasteret's."""

    ours: str
    rasteret: str = ""


def command(tool: str, imagery: Imagery, n: int, folders: Folders, pythons: Pythons) -> list[str]:
    """The command line by which `tool` samples the table of `n` points."""
    points, output = str(folders.points(n)), str(folders.output(tool) / "samples.parquet")
    bands = ",".join(imagery.bands)
    if tool == OURS:
        flags = ["--points", points, "--x_column", "lon", "--y_column", "lat", "--geometry_crs", "EPSG:4326"]
        flags += ["--collection", str(folders.ours), "--bands", bands, "--match", "all"]
        return [pythons.ours, "-m", "pipelines.sample_points", *flags, "--output", output]
    if tool == EAGER:
        flags = ["--points", points, "--collection", str(folders.ours), "--bands", bands, "--output", output]
        return [pythons.ours, "-m", "benchmarks.eager", *flags]
    if tool in (RASTERIO, LOOP):
        flags = ["--points", points, "--collection-folder", str(folders.scenes), "--imagery", imagery.name]
        flags += ["--output", output] if tool == RASTERIO else []
        return [pythons.ours, "-m", "benchmarks.rasterio_windows", *flags]
    flags = ["--points", points, "--collection", str(folders.rasteret), "--bands", bands, "--output", output]
    return [pythons.rasteret, "-m", "benchmarks.rasteret_peer", *flags]


def measured(command: Sequence[str], out: Path, err: Path) -> dict[str, Any]:
    """Run a command with its output in files; what `benchmarks.measure` counts of it."""
    measure = [sys.executable, "-I", "-S", str(ROOT / "benchmarks" / "measure.py"), str(out), str(err)]
    done = subprocess.run([*measure, *command], cwd=ROOT, check=True, stdout=subprocess.PIPE)
    cost: dict[str, Any] = json.loads(done.stdout)
    return cost


def run(tool: str, imagery: Imagery, n: int, folders: Folders, pythons: Pythons) -> Run | None:
    """Run a tool once as a process of its own; None, after showing the end of its stderr, when it failed."""
    folder = folders.output(tool)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    out, err = folder / "stdout.txt", folder / "stderr.txt"
    cost = measured(command(tool, imagery, n, folders, pythons), out, err)
    if cost["status"] != 0:
        tail = err.read_text(errors="replace")[-STDERR_TAIL:]
        print(f"{tool} failed at {n:,} points with status {cost['status']}:\n{tail}", file=sys.stderr)
        return None
    printed = out.read_text(errors="replace")
    matches = {name: re.search(pattern, printed, re.M) for name, (pattern, _) in PRINTED.items()}
    found = {name: match[1].replace(",", "") for name, match in matches.items() if match is not None}
    figures: dict[str, Any] = {name: PRINTED[name][1](text) for name, text in found.items()}
    rows = sum(pq.read_metadata(path).num_rows for path in sample_files(folder))
    return Run(rows, cost["wall"], cost["cpu"], cost["peak"], **figures)


def sample_files(folder: Path) -> list[Path]:
    """The Parquet files of samples in an output folder: one file, shards, or a folder of shards."""
    files = [path for path in sorted(folder.rglob("*.parquet*")) if path.is_file()]
    return [path for path in files if {*KEY, "value"} <= set(pq.read_schema(path).names)]


def prepare(folders: Folders, imagery: Imagery, sizes: Sequence[int], tools: Sequence[str], pythons: Pythons) -> None:
    """Make scenes, if missing, points and collections, and bring the scenes into the page cache."""
    imagery.make(folders.scenes)
    for n in sizes:
        imagery.write_points(folders.points(n), n, POINT_SEED)
    records = imagery.record_table(folders.scenes)
    if {OURS, EAGER} & {*tools}:
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


def median(runs: Sequence[Run], name: str) -> float | None:
    """The median of a figure over the runs, if they have it."""
    found = [getattr(run, name) for run in runs if getattr(run, name) is not None]
    return statistics.median(found) if found else None


def table_row(n: int, tool: str, runs: Sequence[Run | None], ours: float | None) -> str:
    """One Markdown row of medians; `ours` is our median wall seconds. A tool that failed once has failed."""
    done = [run for run in runs if run is not None]
    if len(done) < len(runs):
        return f"| {n:,} | | {tool} | failed {len(runs) - len(done)} of {len(runs)} | | | | | | |"
    rows = " or ".join(f"{count:,}" for count in sorted({run.rows for run in done}))
    wall, cpu, peak = (statistics.median(getattr(run, name) for run in done) for name in ("wall", "cpu", "peak"))
    call, tiles, size = (median(done, name) for name in ("call", "tiles", "tile_bytes"))
    ratio = "" if ours is None else f"{wall / ours:.2f}"
    shown = ["" if call is None else f"{call:.1f}", "" if tiles is None else f"{tiles:,.0f}"]
    shown.append("" if size is None else f"{size / 1e9:.2f}")
    return f"| {n:,} | {rows} | {tool} | {wall:.1f} | {ratio} | {cpu:.1f} | {peak / 1e9:.2f} | {' | '.join(shown)} |"


def touched(folders: Folders, imagery: Imagery, n: int) -> str:
    """How many tiles hold a point, and their bytes: what has to be read once."""
    import rasteret_beam
    from rasteret_beam.collection.eager.plan import plan_totals
    from rasteret_beam.metrics import TILE_BYTES_READ, TILES_DECODED

    points = pq.read_table(folders.points(n), columns=["lon", "lat"])
    ours = rasteret_beam.load(folders.ours)
    plan = rasteret_beam.plan(ours, points, imagery.bands, x_column="lon", y_column="lat", geometry_crs=4326)
    totals = plan_totals(plan)
    return f"{n:,} points touch {totals[TILES_DECODED]:,} tiles, {totals[TILE_BYTES_READ] / 1e9:.2f} GB"


def benchmark(
    folders: Folders, imagery: Imagery, sizes: Sequence[int], tools: Sequence[str], pythons: Pythons, runs: int
) -> bool:
    """Run all tools in turn, print the table of medians, and tell whether none failed."""
    results: dict[tuple[int, str], list[Run | None]] = {(n, tool): [] for n in sizes for tool in tools}
    for _ in range(runs):
        for (n, tool), outcome in results.items():
            outcome.append(run(tool, imagery, n, folders, pythons))
    print(
        f"\n{imagery.name}: mean compressed tile {imagery.average_tile_bytes(folders.scenes) / 1000:.0f} kB; ", end=""
    )
    print(f"medians of {runs} runs. {'; '.join(touched(folders, imagery, n) for n in sizes)}.\n")
    print("| points | rows | tool | wall s | wall, ours = 1 | CPU s | peak GB | call s | tiles decoded | GB read |")
    print("|---:|---:|---|---:|---:|---:|---:|---:|---:|---:|")
    for (n, tool), outcome in results.items():
        ours = [one.wall for one in results.get((n, OURS), []) if one is not None]
        print(table_row(n, tool, outcome, statistics.median(ours) if ours else None))
    for (n, tool), outcome in results.items():
        write = median([one for one in outcome if one is not None], "write")
        if write is not None:
            print(f"\n{tool}, {n:,} points: `write_table` of its result takes {write:.1f} s more.")
    return all(one is not None for outcome in results.values() for one in outcome)


def read_samples(folder: Path) -> pa.Table:
    """The samples of an output folder in a fixed order: point_index, record_id, band, value."""
    types = pa.schema({KEY[0]: pa.int64(), KEY[1]: pa.string(), KEY[2]: pa.string(), "value": pa.float64()})
    tables = [pq.read_table(path, columns=types.names, partitioning=None) for path in sample_files(folder)]
    table = pa.concat_tables([one.cast(types) for one in tables]) if tables else types.empty_table()
    return table.sort_by([(name, "ascending") for name in KEY])


def check(folders: Folders, imagery: Imagery, sizes: Sequence[int], pythons: Pythons) -> bool:
    """Tell whether our samples are those of the rasterio peer: the same rows and exactly the same values."""
    same = True
    for n in sizes:
        if None in (run(tool, imagery, n, folders, pythons) for tool in (OURS, RASTERIO)):
            same = False
            continue
        ours, theirs = read_samples(folders.output(OURS)), read_samples(folders.output(RASTERIO))
        equal = ours.equals(theirs)
        same = same and equal
        verdict = "equal" if equal else f"DIFFERENT ({differences(ours, theirs)})"
        print(f"{imagery.name}, {n:,} points: {len(ours):,} rows of ours, {len(theirs):,} of rasterio's: {verdict}")
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
    parser.add_argument("--collections", default="s2,aef", help="some of s2,aef (%(default)s)")
    parser.add_argument("--points", default="1000,100000,1000000", help="numbers of points (%(default)s)")
    parser.add_argument("--python", default=sys.executable, help="a Python that has this package (this one)")
    parser.add_argument("--rasteret_python", help="a Python with rasteret (this one, if it has it)")
    parser.add_argument("--runs", type=int, default=3, help="runs per tool and size (%(default)s)")
    parser.add_argument(
        "--tools", help=f"some of: {OURS},{EAGER},{RASTERIO},{LOOP},{RASTERET}; by default all there are"
    )
    parser.add_argument("--check", action="store_true", help="compare our samples with the rasterio peer's")
    flags = parser.parse_args()
    sizes = [int(size) for size in flags.points.split(",")]
    rasteret_python = flags.rasteret_python
    if rasteret_python is None and importlib.util.find_spec("rasteret"):
        rasteret_python = sys.executable
    pythons = Pythons(flags.python, rasteret_python or "")
    known = [OURS, EAGER, RASTERIO, LOOP, *([RASTERET] if rasteret_python else [])]
    tools = flags.tools.split(",") if flags.tools else known
    if not set(tools) <= set(known):
        parser.error(f"--tools: {flags.tools!r}; here it can be some of {','.join(known)}")
    if flags.runs < 1:
        parser.error("--runs must be at least 1")
    names = flags.collections.split(",")
    if not set(names) <= set(COLLECTIONS):
        parser.error(f"--collections: {flags.collections!r}; it can be some of {','.join(COLLECTIONS)}")
    good = True
    for imagery in (COLLECTIONS[name] for name in names):
        folders = Folders(flags.folder.resolve() / ("" if imagery is S2 else imagery.name))
        prepare(folders, imagery, sizes, [OURS] if flags.check else tools, pythons)
        if flags.check:
            good = check(folders, imagery, sizes, pythons) and good
        else:
            good = benchmark(folders, imagery, sizes, tools, pythons, flags.runs) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
