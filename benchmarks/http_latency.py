"""Benchmark over HTTP: the rasters of `benchmarks.data` behind a server on this machine that answers late.

    python -m benchmarks.http_latency [--collections s2,aef] [--points 1000,100000] [--runs 3] [--latency 0.03]
        [--rasteret_python PATH]

The tools take turns: our eager call, our pipeline, and Rasteret's call. For each, the medians of the requests and
bytes that the server counted and of the seconds are printed as a Markdown table, beside the tiles that the points
touch. The server and the tool share this machine's cores, so a tool pays for its bytes twice.
"""

import argparse
import importlib.util
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pyproj

from benchmarks.data import COLLECTIONS, S2, Imagery
from benchmarks.sample_points import POINT_SEED, ROOT, STDERR_TAIL, Folders
from tests.support.server import ServerProcess

EAGER, PIPELINE, RASTERET = "rasteret_beam, eager call", "rasteret_beam, pipeline", "Rasteret, eager call"


@dataclass(frozen=True)
class Run:
    """One run of a tool: rows, wall seconds of the process, those of the call if printed, requests and bytes."""

    rows: int
    wall: float
    call: float | None
    requests: int
    bytes: int


def served_records(imagery: Imagery, folder: Path, url: str) -> pa.Table:
    """The record table with URLs in place of paths."""
    records = imagery.record_table(folder)
    assets = records["assets"].to_pylist()
    for record in assets:
        for asset in record.values():
            asset["href"] = f"{url}/{Path(asset['href']).name}"
    at = records.schema.get_field_index("assets")
    return records.set_column(at, records.schema.field(at), pa.array(assets, type=records.schema.field(at).type))


def prepare(
    imagery: Imagery, folders: Folders, records: pa.Table, sizes: Sequence[int], rasteret_python: str | None
) -> None:
    """Make points, and each tool's collection of the served files."""
    import rasteret_beam

    for n in sizes:
        imagery.write_points(folders.points(n), n, POINT_SEED)
    shutil.rmtree(folders.ours, ignore_errors=True)
    rasteret_beam.build_from_table(records, enrich_cog=True, name="bench").export(str(folders.ours))
    if rasteret_python:
        shutil.rmtree(folders.rasteret, ignore_errors=True)
        path = folders.root / "records.parquet"
        pq.write_table(records, path)
        build = [rasteret_python, "-m", "benchmarks.rasteret_peer", "--allow_http", "--records", str(path)]
        subprocess.run([*build, "--collection", str(folders.rasteret)], cwd=ROOT, check=True)


def touched(imagery: Imagery, folders: Folders, n: int) -> tuple[int, int]:
    """Tiles, and their bytes, over all files, in which at least one of the points lies."""
    points = pq.read_table(folders.points(n), columns=["lon", "lat"])
    lon, lat = points["lon"].to_numpy(), points["lat"].to_numpy()
    across = -(-imagery.size // imagery.tile)
    numbers = {}
    for place in imagery.places:
        x, y = pyproj.Transformer.from_crs(4326, place.epsg, always_xy=True).transform(lon, lat)
        col, row = map(np.floor, ~imagery.transform(place) * (x, y))
        inside = (row >= 0) & (row < imagery.size) & (col >= 0) & (col < imagery.size)
        tiles = (row[inside] // imagery.tile) * across + col[inside] // imagery.tile
        numbers[place.name] = np.unique(tiles.astype(np.int64))
    columns = ["id", *(f"{band}_metadata" for band in imagery.bands)]
    size = 0
    for record in ds.dataset(folders.ours, partitioning="hive").to_table(columns=columns).to_pylist():
        tiles = numbers[record["id"].split("_")[0]]
        counts = (np.array(record[f"{band}_metadata"]["tile_byte_counts"]) for band in imagery.bands)
        size += sum(int(of_band[tiles].sum()) for of_band in counts)
    return sum(map(len, numbers.values())) * len(imagery.dates) * len(imagery.bands), size


def command(tool: str, imagery: Imagery, n: int, folders: Folders, rasteret_python: str) -> list[str]:
    """The command line by which a tool samples the table of `n` points."""
    points, output = str(folders.points(n)), str(folders.output("http") / "samples.parquet")
    bands = ",".join(imagery.bands)
    if tool == PIPELINE:
        flags = ["--points", points, "--x_column", "lon", "--y_column", "lat", "--geometry_crs", "EPSG:4326"]
        flags += ["--collection", str(folders.ours), "--bands", bands, "--match", "all"]
        return [sys.executable, "-m", "pipelines.sample_points", *flags, "--output", output]
    if tool == EAGER:
        flags = ["--points", points, "--collection", str(folders.ours), "--bands", bands, "--output", output]
        return [sys.executable, "-m", "benchmarks.eager", *flags]
    flags = ["--points", points, "--collection", str(folders.rasteret), "--bands", bands, "--output", output]
    return [rasteret_python, "-m", "benchmarks.rasteret_peer", "--allow_http", *flags]


def run(
    tool: str, imagery: Imagery, n: int, folders: Folders, rasteret_python: str, server: ServerProcess
) -> Run | None:
    """Run a tool once; None, after showing the end of its stderr, when it failed."""
    folder = folders.output("http")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    server.counts()
    started = time.perf_counter()
    arguments = command(tool, imagery, n, folders, rasteret_python)
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True)
    wall = time.perf_counter() - started
    counts = server.counts()
    if done.returncode:
        tail = done.stderr[-STDERR_TAIL:]
        print(f"{tool} failed at {n:,} points with status {done.returncode}:\n{tail}", file=sys.stderr)
        return None
    call = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("call_seconds ")]
    rows = sum(pq.read_metadata(path).num_rows for path in folder.glob("*.parquet"))
    return Run(rows, wall, call[0] if call else None, counts["requests"], counts["bytes"])


def table_row(tool: str, n: int, runs: Sequence[Run | None]) -> str:
    """One Markdown row of medians."""
    done = [run for run in runs if run is not None]
    if len(done) < len(runs):
        return f"| {n:,} | | {tool} | failed {len(runs) - len(done)} of {len(runs)} | | | |"
    rows = " or ".join(f"{count:,}" for count in sorted({run.rows for run in done}))
    requests, size, wall = (
        statistics.median(getattr(run, name) for run in done) for name in ("requests", "bytes", "wall")
    )
    calls = [run.call for run in done if run.call is not None]
    call = f"{statistics.median(calls):.1f}" if calls else ""
    return f"| {n:,} | {rows} | {tool} | {requests:,.0f} | {size / 1e6:,.1f} | {call} | {wall:.1f} |"


def benchmark(
    imagery: Imagery, folder: Path, sizes: Sequence[int], flags: argparse.Namespace, rasteret_python: str | None
) -> bool:
    """Run all tools in turn, print the table of medians, and tell whether none failed."""
    scenes, folders = folder / "scenes", Folders(folder / "http")
    imagery.make(scenes)
    folders.root.mkdir(parents=True, exist_ok=True)
    tools = [EAGER, PIPELINE, *([RASTERET] if rasteret_python else [])]
    results: dict[tuple[int, str], list[Run | None]] = {(n, tool): [] for n in sizes for tool in tools}
    with ServerProcess(scenes, flags.latency) as server:
        prepare(imagery, folders, served_records(imagery, scenes, server.url), sizes, rasteret_python)
        for _ in range(flags.runs):
            for (n, tool), outcome in results.items():
                outcome.append(run(tool, imagery, n, folders, rasteret_python or "", server))
    for n in sizes:
        tiles, size = touched(imagery, folders, n)
        print(f"{imagery.name}: {n:,} points touch {tiles:,} tiles of {size / 1e6:,.1f} MB.")
    print(f"Latency {1000 * flags.latency:.0f} ms; medians of {flags.runs} runs.\n")
    print("| points | rows | tool | requests | MB | call s | process s |")
    print("|---:|---:|---|---:|---:|---:|---:|")
    for (n, tool), outcome in results.items():
        print(table_row(tool, n, outcome))
    return all(one is not None for outcome in results.values() for one in outcome)


def main() -> int:
    """Parse the flags and benchmark; the exit status."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    default = Path(tempfile.gettempdir()) / "rasteret_beam_benchmark"
    parser.add_argument("--folder", type=Path, default=default, help="where data are kept (%(default)s)")
    parser.add_argument("--collections", default="s2,aef", help="some of s2,aef (%(default)s)")
    parser.add_argument("--points", default="1000,100000", help="numbers of points (%(default)s)")
    parser.add_argument("--latency", type=float, default=0.03, help="seconds before each answer (%(default)s)")
    parser.add_argument("--rasteret_python", help="a Python with rasteret (this one, if it has it)")
    parser.add_argument("--runs", type=int, default=3, help="runs per tool and size (%(default)s)")
    flags = parser.parse_args()
    rasteret_python = flags.rasteret_python or (sys.executable if importlib.util.find_spec("rasteret") else None)
    sizes = [int(size) for size in flags.points.split(",")]
    good = True
    for imagery in (COLLECTIONS[name] for name in flags.collections.split(",")):
        folder = flags.folder.resolve() / ("" if imagery is S2 else imagery.name)
        good = benchmark(imagery, folder, sizes, flags, rasteret_python) and good
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
