"""Benchmark of `Collection.get_numpy` beside a loop of `rasterio.mask.mask(crop=True)` in one thread.

    python -m benchmarks.masks [--polygons 1000] [--runs 9] [--cores 1]
    python -m benchmarks.masks --check

Polygons of 50 x 50 pixels on one raster of 5,000 x 5,000, uint16, deflate with predictor 2, tiles of 512. Both
work in this process and take turns, each opening the file anew; the medians over the runs are printed as a
Markdown table. With `--check` nothing is timed: the arrays must be equal bit for bit, or the exit status is 1.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
import rasterio.mask
import shapely
from rasterio.transform import from_origin

from benchmarks.data import pixels
from rasteret_beam import build_from_cogs

SIZE, TILE, PIXEL, CHIP = 5_000, 512, 10.0, 50
CRS, WEST, NORTH = "EPSG:32631", 399_960.0, 5_400_000.0
RASTER_SEED, POLYGON_SEED, CORNERS = 11, 13, 16
OURS, RASTERIO = "rasteret_beam", "rasterio.mask"

Tool = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Cost:
    """Wall and CPU seconds of one run."""

    wall: float
    cpu: float


def make_raster(folder: Path) -> Path:
    """The raster, which is written once."""
    path = folder / f"masks_{SIZE}_{TILE}_{RASTER_SEED}.tif"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    profile = {
        "driver": "GTiff",
        "dtype": "uint16",
        "count": 1,
        "width": SIZE,
        "height": SIZE,
        "crs": CRS,
        "transform": from_origin(WEST, NORTH, PIXEL, PIXEL),
        "nodata": 0,
        "tiled": True,
        "blockxsize": TILE,
        "blockysize": TILE,
        "compress": "deflate",
        "predictor": 2,
    }
    partial = path.with_suffix(".partial")
    with rasterio.open(partial, "w", **profile) as dataset:
        dataset.write(pixels(np.random.default_rng(RASTER_SEED), SIZE), 1)
    partial.rename(path)
    return path


def make_polygons(n: int) -> list[shapely.Polygon]:
    """Stars of 16 corners in the raster's CRS; the window of each is 50 x 50 pixels, all of it on the raster."""
    rng = np.random.default_rng(POLYGON_SEED)
    angle = np.linspace(0, 2 * np.pi, CORNERS, endpoint=False)
    radius = rng.uniform(0.4, 1.0, (n, CORNERS))
    xy = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=2)
    low, high = xy.min(axis=1, keepdims=True), xy.max(axis=1, keepdims=True)
    within = 0.25 + (xy - low) / (high - low) * (CHIP - 0.5)
    placed = rng.integers(0, SIZE - CHIP, (n, 1, 2)) + within
    return [shapely.Polygon(corners) for corners in placed * [PIXEL, -PIXEL] + [WEST, NORTH]]


def with_rasterio(path: Path, polygons: list[shapely.Polygon]) -> np.ndarray:
    """The chips [N, H, W] by rasterio's own function."""
    with rasterio.open(path) as dataset:
        return np.concatenate([rasterio.mask.mask(dataset, [polygon], crop=True)[0] for polygon in polygons])


def timed(tool: Tool) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    tool()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def benchmark(tools: dict[str, Tool], runs: int) -> None:
    """Run the tools in turn, after a round that does not count, and print their medians."""
    costs: dict[str, list[Cost]] = {name: [] for name in tools}
    for number in range(runs + 1):
        for name, tool in tools.items():
            cost = timed(tool)
            if number:
                costs[name].append(cost)
    ours = statistics.median(cost.wall for cost in costs[OURS])
    print(f"{len(os.sched_getaffinity(0))} core(s), medians of {runs} runs in turn\n")
    print("| tool | wall s | from, to | CPU s | wall, ours = 1 |")
    print("|---|---:|---:|---:|---:|")
    for name, found in costs.items():
        walls = [cost.wall for cost in found]
        wall, cpu = statistics.median(walls), statistics.median(cost.cpu for cost in found)
        print(f"| {name} | {wall:.2f} | {min(walls):.2f}, {max(walls):.2f} | {cpu:.2f} | {wall / ours:.2f} |")


def check(tools: dict[str, Tool]) -> bool:
    """Tell whether both give the same array, in shape, dtype and every value."""
    ours, theirs = tools[OURS](), tools[RASTERIO]()
    same = ours.dtype == theirs.dtype and np.array_equal(ours, theirs)
    verdict = "equal" if same else "DIFFERENT"
    print(f"ours {ours.shape} {ours.dtype}, rasterio's {theirs.shape} {theirs.dtype}: {verdict}")
    return same


def main() -> int:
    """Parse the flags and benchmark or check; the exit status."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    default = Path(tempfile.gettempdir()) / "rasteret_beam_benchmark"
    parser.add_argument("--folder", type=Path, default=default, help="where the raster is kept (%(default)s)")
    parser.add_argument("--polygons", type=int, default=1000, help="number of polygons (%(default)s)")
    parser.add_argument("--runs", type=int, default=9, help="runs per tool (%(default)s)")
    parser.add_argument("--cores", type=int, help="use so many cores only (all there are; Linux)")
    parser.add_argument("--check", action="store_true", help="compare the arrays")
    flags = parser.parse_args()
    if flags.runs < 1 or flags.polygons < 1:
        parser.error("--runs and --polygons must be at least 1")
    if flags.cores:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: flags.cores])
    path, polygons = make_raster(flags.folder), make_polygons(flags.polygons)
    collection = build_from_cogs([path], bands=["B1"])
    tools: dict[str, Tool] = {
        OURS: lambda: collection.get_numpy(polygons, ["B1"], geometry_crs=CRS),
        RASTERIO: lambda: with_rasterio(path, polygons),
    }
    if flags.check:
        return 0 if check(tools) else 1
    benchmark(tools, flags.runs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
