"""Benchmark of `resampling`: the eager call with the point's own pixel, bilinear and cubic, in turn.

    python -m benchmarks.interpolation [--points 100000 1000000] [--runs 5] [--folder FOLDER]

The collection is `s2` of `benchmarks.data`. The tiles are those that the plan has: interpolation needs the same ones,
as every tile has points. Ratios are of medians, and of the least CPU seconds.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.data import S2
from rasteret_beam import Collection, build_from_table, metrics
from rasteret_beam.collection.eager.plan import plan_totals

WHERE = {"x_column": "lon", "y_column": "lat", "geometry_crs": 4326}
WAYS: dict[str, dict[str, Any]] = {
    "nearest": {},
    "nearest, invalid null": {"invalid": "null"},
    "bilinear": {"resampling": "bilinear"},
    "bilinear, skip_nodata": {"resampling": "bilinear", "skip_nodata": True},
    "cubic": {"resampling": "cubic"},
}
SEED = 7


def seconds(collection: Collection, points: pa.Table, way: dict[str, Any]) -> tuple[float, float]:
    """Wall and CPU seconds of the eager call."""
    wall, cpu = time.perf_counter(), time.process_time()
    collection.sample_points(points, ["B02", "B03"], **WHERE, **way)
    return time.perf_counter() - wall, time.process_time() - cpu


def tiles(collection: Collection, points: pa.Table, way: dict[str, Any]) -> int:
    """Tiles of the plan."""
    resampling = {name: value for name, value in way.items() if name == "resampling"}
    return plan_totals(collection.plan(points, ["B02", "B03"], **WHERE, **resampling))[metrics.TILES_DECODED]


def compare(collection: Collection, points: pa.Table, runs: int) -> None:
    taken: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(runs):
        for way, options in WAYS.items():
            taken[way].append(seconds(collection, points, options))
    base_wall, base_cpu = figures(taken["nearest"])
    for way, options in WAYS.items():
        wall, cpu = figures(taken[way])
        ratios = f"{wall:.2f} | {wall / base_wall:.2f} | {cpu:.2f} | {cpu / base_cpu:.2f}"
        print(f"| {len(points):,} | {way} | {tiles(collection, points, options):,} | {ratios} |", flush=True)


def figures(taken: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The median of the wall seconds, and the least of the CPU seconds."""
    wall, cpu = zip(*taken, strict=True)
    return statistics.median(wall), min(cpu)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="where the files are kept for the next run")
    given = parser.parse_args(argv)
    print("| points | resampling | tiles planned | wall s | nearest = 1 | CPU s | nearest = 1 |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        S2.make(folder)
        collection = build_from_table(S2.record_table(folder), name="s2")
        for count in given.points:
            path = folder / f"points_{count}_{SEED}.parquet"
            if not path.exists():
                S2.write_points(path, count, SEED)
            compare(collection, pq.read_table(path), given.runs)


if __name__ == "__main__":
    main()
