"""Benchmark of vectors: all 64 bands at each point, as one list of int8, beside Rasteret's table of the same values.

    python -m benchmarks.vectors [--points 100000] [--runs 3] [--rasteret_python PATH]

The collection is like AlphaEarth's embeddings: 3 places x 2 years, one file of 64 planar bands each (int8, zstd, tiles
of 1024, nodata -128, the first row in the south; 1.6 GB, made on first use). The tools take turns, each a process; the
medians are printed as a Markdown table. Our values must equal Rasteret's, or the exit status is 1.
"""

import argparse
import importlib.util
import re
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.data import AEF
from benchmarks.sample_points import OURS, RASTERET, Folders, Pythons, measured, prepare

BANDS = tuple(f"A{number:02d}" for number in range(64))
VECTORS = replace(AEF, name="vectors", size=2048, files=(BANDS,), bands=BANDS)
SHAPES = {
    "vectors of int8": {"layout": "values", "value_type": "raw"},
    "vectors of float32": {"layout": "values", "value_type": "float32"},
    "vectors of float64": {"layout": "values"},
    "long rows": {},
}
"""What is asked of our eager call."""


def sample(points: Path, collection: Path, shape: str, output: Path | None) -> None:
    """Sample by our eager call; prints the rows and the seconds of the call alone."""
    import rasteret_beam

    table = pq.read_table(points)
    loaded = rasteret_beam.load(collection)
    started = time.perf_counter()
    samples = loaded.sample_points(
        table, list(BANDS), x_column="lon", y_column="lat", geometry_crs=4326, **SHAPES[shape]
    )
    seconds = time.perf_counter() - started
    if output is not None:
        pq.write_table(samples, output)
    print(f"rows {samples.num_rows}\ncall_seconds {seconds:.3f}")


def command(tool: str, folders: Folders, n: int, pythons: Pythons, write: bool) -> list[str]:
    """The command line by which `tool`, one of `SHAPES` or Rasteret, samples."""
    output = ["--output", str(folders.output(tool) / "samples.parquet")] if write else []
    points = ["--points", str(folders.points(n))]
    if tool == RASTERET:
        flags = ["--collection", str(folders.rasteret), "--bands", ",".join(BANDS), *points, *output]
        return [pythons.rasteret, "-m", "benchmarks.rasteret_peer", *flags]
    return [pythons.ours, "-m", "benchmarks.vectors", "--sample", tool, "--folder", str(folders.root), *points, *output]


def run(tool: str, folders: Folders, n: int, pythons: Pythons, write: bool = False) -> dict[str, float]:
    """Run a tool once; wall, CPU and call seconds, peak bytes and rows."""
    folder = folders.output(tool)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    out, err = folder / "stdout.txt", folder / "stderr.txt"
    cost = measured(command(tool, folders, n, pythons, write), out, err)
    if cost["status"] != 0:
        raise SystemExit(f"{tool} failed:\n{err.read_text(errors='replace')[-2000:]}")
    printed = out.read_text()
    found = {name: float(re.search(rf"^{name} (\S+)", printed, re.M)[1]) for name in ("rows", "call_seconds")}  # type: ignore[index]
    return cost | found


def benchmark(folders: Folders, n: int, pythons: Pythons, tools: Sequence[str], runs: int) -> None:
    """Run the tools in turn and print the table of medians."""
    results: dict[str, list[dict[str, float]]] = {tool: [] for tool in tools}
    for _ in range(runs):
        for tool, outcome in results.items():
            outcome.append(run(tool, folders, n, pythons))
    first = statistics.median(each["call_seconds"] for each in results[tools[0]])
    print(f"\n{n:,} points x {len(BANDS)} bands; medians of {runs} runs.\n")
    print(
        "| result | rows | call s | call, int8 = 1 | process s | CPU s | peak GB |\n|---|---:|---:|---:|---:|---:|---:|"
    )
    for tool, outcome in results.items():
        name = "Rasteret 0.4.1, its table" if tool == RASTERET else f"rasteret_beam, {tool}"
        call, wall, cpu, peak = (
            statistics.median(each[key] for each in outcome) for key in ("call_seconds", "wall", "cpu", "peak")
        )
        shown = f"{call:.2f} | {call / first:.2f} | {wall:.1f} | {cpu:.1f} | {peak / 1e9:.2f}"
        print(f"| {name} | {outcome[0]['rows']:,.0f} | {shown} |")


def vectors_of_rasteret(table: pa.Table) -> tuple[list[tuple[int, str]], np.ndarray]:
    """Points and records, and their values [n, 64], of Rasteret's table."""
    order = [(name, "ascending") for name in ("point_index", "record_id", "band")]
    ordered = table.select(["point_index", "record_id", "band", "value"]).sort_by(order)
    firsts = ordered.take(np.arange(0, len(ordered), len(BANDS)))
    keys = list(zip(firsts["point_index"].to_pylist(), firsts["record_id"].to_pylist(), strict=True))
    return keys, ordered["value"].to_numpy().reshape(-1, len(BANDS))


def check(folders: Folders, n: int, pythons: Pythons) -> bool:
    """Whether our vectors of int8 have the values of Rasteret's table."""
    tables = []
    for tool in (next(iter(SHAPES)), RASTERET):
        run(tool, folders, n, pythons, write=True)
        tables.append(pq.read_table(folders.output(tool) / "samples.parquet"))
        shutil.rmtree(folders.output(tool))
    ours = tables[0].sort_by([("point_index", "ascending"), ("record_id", "ascending")])
    keys, values = vectors_of_rasteret(tables[1])
    found = pc.list_flatten(ours["values"]).to_numpy().reshape(-1, len(BANDS))
    same = list(zip(ours["point_index"].to_pylist(), ours["record_id"].to_pylist(), strict=True)) == keys
    same = same and found.dtype == np.int8 and np.array_equal(found, values)
    print(
        f"{len(found):,} vectors of ours have {'the' if same else 'OTHER'} values of Rasteret's {len(tables[1]):,} rows"
    )
    return same


def main() -> int:
    """Parse the flags and benchmark; the exit status."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    default = Path(tempfile.gettempdir()) / "rasteret_beam_benchmark" / VECTORS.name
    parser.add_argument("--folder", type=Path, default=default, help="where data are kept (%(default)s)")
    parser.add_argument("--points", default="100000", help="number of points (%(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="runs of each tool (%(default)s)")
    parser.add_argument("--python", default=sys.executable, help="a Python that has this package (this one)")
    parser.add_argument("--rasteret_python", help="a Python with rasteret (this one, if it has it)")
    parser.add_argument("--sample", choices=SHAPES, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    folders = Folders(flags.folder.resolve())
    if flags.sample:
        sample(Path(flags.points), folders.ours, flags.sample, flags.output)
        return 0
    rasteret = flags.rasteret_python or (sys.executable if importlib.util.find_spec("rasteret") else "")
    pythons, n = Pythons(flags.python, rasteret), int(flags.points)
    tools = [*SHAPES, *([RASTERET] if rasteret else [])]
    prepare(folders, VECTORS, [n], [OURS, *tools], pythons)
    benchmark(folders, n, pythons, tools, flags.runs)
    return 0 if not rasteret or check(folders, n, pythons) else 1


if __name__ == "__main__":
    sys.exit(main())
