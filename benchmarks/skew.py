"""One crowded tile beside a thousand ordinary ones, against the same number of points spread evenly.

    python -m benchmarks.skew [--points 5000000] [--runs 3]

A raster of 4,096 x 4,096 pixels in tiles of 128: 1,024 tiles. Once the points are in one tile, but for 100 in each of
1,000 others; once they are anywhere. Whole processes of `pipelines.sample_points`, in turn.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
from affine import Affine

import rasteret_beam

SIZE, TILE, PIXEL = 4096, 128, 10.0
LEFT, TOP = 500_000.0, 4_500_000.0
FEW = 100
ORDINARY = 1000


def write_raster(path: Path) -> None:
    """Random uint16, deflate with predictor 2."""
    values = np.random.default_rng(1).integers(0, 4000, (SIZE, SIZE), dtype=np.uint16)
    blocks = {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "compress": "deflate", "predictor": 2}
    profile = {"driver": "GTiff", "width": SIZE, "height": SIZE, "count": 1, "dtype": "uint16", "crs": "EPSG:32631"}
    with rasterio.open(path, "w", transform=Affine(PIXEL, 0, LEFT, 0, -PIXEL, TOP), **profile, **blocks) as file:
        file.write(values, 1)


def table(col: np.ndarray, row: np.ndarray) -> pa.Table:
    return pa.table({"x": LEFT + col * PIXEL, "y": TOP - row * PIXEL})


def even(count: int, rng: np.random.Generator) -> pa.Table:
    """Points anywhere on the raster."""
    return table(rng.uniform(0, SIZE, count), rng.uniform(0, SIZE, count))


def skewed(count: int, rng: np.random.Generator) -> pa.Table:
    """Most points in the first tile, in random order among the others."""
    tile = np.zeros(count, dtype=np.int64)
    tile[: FEW * ORDINARY] = np.repeat(np.arange(1, ORDINARY + 1), FEW)
    rng.shuffle(tile)
    across = SIZE // TILE
    return table((tile % across + rng.random(count)) * TILE, (tile // across + rng.random(count)) * TILE)


def seconds(folder: Path, points: Path) -> float:
    """Wall seconds of a whole job."""
    flags = [f"--points={points}", "--x_column=x", "--y_column=y", "--geometry_crs=32631", "--bands=B1"]
    flags += [f"--collection={folder / 'collection'}", f"--output={folder / 'out' / points.stem}"]
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "pipelines.sample_points", *flags], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, default=5_000_000)
    parser.add_argument("--runs", type=int, default=3)
    flags = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="rasteret_beam_skew_"))
    try:
        write_raster(folder / "raster.tif")
        rasteret_beam.build_from_cogs([folder / "raster.tif"]).export(folder / "collection")
        rng = np.random.default_rng(2)
        for name, make in (("even", even), ("skewed", skewed)):
            pq.write_table(make(flags.points + FEW * ORDINARY, rng), folder / f"{name}.parquet")
        found: dict[str, list[float]] = {"even": [], "skewed": []}
        for _ in range(flags.runs):
            for name, runs in found.items():
                runs.append(seconds(folder, folder / f"{name}.parquet"))
        medians = {name: statistics.median(runs) for name, runs in found.items()}
        for name, median in medians.items():
            print(f"{name:8} {median:6.1f} s")
        print(f"ratio    {medians['skewed'] / medians['even']:6.2f}")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
