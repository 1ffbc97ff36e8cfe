"""Benchmark of zonal statistics: fields over a season, beside a loop of exactextract over the files.

    python -m benchmarks.zonal_statistics --peer PYTHON [--fields 10000] [--dates 12] [--runs 3] [--data FOLDER]

One place of Sentinel-2's size and pixels (5490 x 5490 of 10 m here, tiles of 512, uint16, deflate), B04 and B08 of each
date in files of their own; fields of about 5 ha with 12 vertices, in the CRS of the files, so that neither side spends
time on reprojecting them. Both give count, mean and standard deviation by the exact share of each pixel. The peer runs
one file after the other, and once more with a process for each of two cores; each side runs in turn, `--runs` times.

`PYTHON` is that of an environment with exactextract, rasterio, geopandas and pyarrow, such as

    python -m venv .venv-exactextract && .venv-exactextract/bin/pip install exactextract rasterio geopandas pyarrow

The values of both are compared: exactextract keeps shares as float32.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pyarrow as pa
import shapely

from benchmarks.data import S2
from rasteret_beam import Collection, build_from_table

SEED = 16
STATISTICS = ["count", "mean", "std"]
OF_PEER = {"count": "count", "mean": "mean", "stdev": "std"}
FIRST = datetime(2023, 4, 1)


def imagery(dates: int):
    """One place of the benchmarks' collection like Sentinel-2, at more dates."""
    days = tuple((FIRST + timedelta(days=10 * number)).strftime("%Y%m%d") for number in range(dates))
    return replace(
        S2, name="zones", seed=SEED, places=S2.places[:1], dates=days, files=(("B04",), ("B08",)), bands=("B04", "B08"),
        pixel=10.0,
    )  # fmt: skip


def fields(count: int, side: float, west: float, north: float) -> geopandas.GeoDataFrame:
    """Polygons of 12 vertices around random centres, in EPSG:32631."""
    rng = np.random.default_rng(SEED)
    x, y = west + rng.uniform(300, side - 300, count), north - rng.uniform(300, side - 300, count)
    angle = np.sort(rng.uniform(0, 2 * np.pi, (count, 12)), axis=1)
    radius = rng.uniform(80, 190, (count, 1)) * rng.uniform(0.8, 1.2, (count, 12))
    rings = np.stack([x[:, None] + radius * np.cos(angle), y[:, None] + radius * np.sin(angle)], axis=2)
    shapes = shapely.make_valid(shapely.polygons(rings))
    shapes = np.where(shapely.get_type_id(shapes) == 3, shapes, shapely.convex_hull(shapes))
    return geopandas.GeoDataFrame({"geometry_id": np.arange(count)}, geometry=shapes, crs=32631)


def ours(collection: Collection, polygons: geopandas.GeoDataFrame, coverage: str) -> tuple[pa.Table, float]:
    """The table, and the seconds it takes."""
    started = time.perf_counter()
    table = collection.zonal_statistics(polygons, ["B04", "B08"], columns=[], statistics=STATISTICS, coverage=coverage)
    return table, time.perf_counter() - started


def peer(python: str, files: Sequence[Path], polygons: Path, output: Path, *settings: str) -> float:
    """Seconds of the peer's loop over the files."""
    command = [python, str(Path(__file__).with_name("exactextract_peer.py")), "--files", *map(str, files)]
    command += ["--fields", str(polygons), "--operations", ",".join(OF_PEER), "--output", str(output), *settings]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(text.split("call_seconds ")[1])


def differences(table: pa.Table, output: Path) -> dict[str, float]:
    """The largest relative difference of each statistic."""
    mine = table.to_pandas()
    mine["file"] = mine["record_id"] + "_" + mine["band"]
    both = mine.merge(
        pd.read_parquet(output).rename(columns=OF_PEER), on=["file", "geometry_id"], suffixes=("", "_peer")
    )
    assert len(both) == len(mine)
    return {
        name: float((abs(both[name] - both[f"{name}_peer"]) / abs(both[f"{name}_peer"])).max()) for name in STATISTICS
    }


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="Python with exactextract; without it, only this project runs")
    parser.add_argument("--fields", type=int, default=10_000)
    parser.add_argument("--dates", type=int, default=12)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--data", type=Path, help="folder that keeps the files for the next run")
    given = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.data or Path(scratch)
        made = imagery(given.dates)
        made.make(folder)
        collection = build_from_table(made.record_table(folder), name="zones")
        polygons = fields(given.fields, made.side, made.places[0].west, made.places[0].north)
        at, output = Path(scratch) / "fields.parquet", Path(scratch) / "peer.parquet"
        polygons.to_parquet(at)
        files = sorted(folder.glob("*.tif"))
        taken: dict[str, list[float]] = {}
        for _ in range(given.runs):
            for coverage in ("fraction", "centre"):
                table, seconds = ours(collection, polygons, coverage)
                taken.setdefault(f"zonal_statistics, {coverage}", []).append(seconds)
                if coverage == "fraction":
                    found = table
            for processes in ("1", "2") if given.peer else ():
                seconds = peer(given.peer, files, at, output, "--processes", processes)
                taken.setdefault(f"exactextract, {processes} process(es)", []).append(seconds)
        print("| way | seconds | of each run |\n|---|---:|---|")
        for way, each in taken.items():
            print(f"| {way} | {statistics.median(each):.1f} | {', '.join(f'{one:.1f}' for one in each)} |")
        print(f"{found.num_rows:,} rows")
        if given.peer:
            print("largest relative differences:", differences(found, output))


if __name__ == "__main__":
    main()
