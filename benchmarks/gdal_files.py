"""Benchmark of remote files that GDAL reads (JPEG, strips), behind a server on this machine that answers late.

    python -m benchmarks.gdal_files [--runs 3] [--latency 0.03] [--points 300]

Our eager call and rasterio with GDAL's own reading of servers (``/vsicurl/``, one window per touched block or strip,
in as many threads as ours has) take turns. Medians of the seconds, requests and bytes are printed as a Markdown table,
first for the headers while a collection is built, then for the samples; the values have to agree.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import rasterio
from rasterio.transform import from_origin
from rasterio.windows import Window

from rasteret_beam import Collection, build_from_cogs
from rasteret_beam.readers.jobs.sampler import UNITS_AHEAD
from tests.support.server import ServerProcess

SIZE, FILES = 2048, 6
WEST, NORTH, PIXEL = 500_000, 4_500_000, 10
KINDS = {
    "JPEG": {"dtype": "uint8", "compress": "JPEG", "tiled": True, "blockxsize": 256, "blockysize": 256},
    "strips": {"dtype": "uint16", "compress": "DEFLATE", "blockysize": 4},
}
OURS, PEER = "rasteret_beam", "rasterio, /vsicurl/"


def make(folder: Path) -> None:
    """Write rasters of noise, once."""
    folder.mkdir(parents=True, exist_ok=True)
    grid = {"crs": "EPSG:32631", "transform": from_origin(WEST, NORTH, PIXEL, PIXEL), "width": SIZE, "height": SIZE}
    for kind, options in KINDS.items():
        for number in range(FILES):
            path = folder / f"{kind}_{number}.tif"
            if not path.exists():
                pixels = np.random.default_rng(number).integers(0, 255, (SIZE, SIZE)).astype(options["dtype"])
                with rasterio.open(path, "w", driver="GTiff", count=1, **grid, **options) as dataset:
                    dataset.write(pixels, 1)


def ours_headers(urls: list[str]) -> Collection:
    return build_from_cogs(urls)


def peer_headers(urls: list[str]) -> list[dict]:
    def profile(url: str) -> dict:
        with rasterio.Env(), rasterio.open(url) as dataset:
            return dict(dataset.profile)

    with ThreadPoolExecutor(16) as threads:
        return list(threads.map(profile, urls))


def ours_values(collection: Collection, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    points = pa.table({"x": x, "y": y})
    samples = collection.sample_points(points, ["B1"], x_column="x", y_column="y", geometry_crs=32631)
    order = [("record_id", "ascending"), ("point_index", "ascending")]
    return samples.sort_by(order)["value"].to_numpy()


def peer_values(urls: list[str], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """One window for each block of a file that has points, each file by one thread at a time."""

    def values(url: str) -> np.ndarray:
        found = np.empty(len(x))
        with rasterio.Env(), rasterio.open(url) as dataset:
            high, wide = dataset.block_shapes[0]
            row, col = (NORTH - y) // PIXEL, (x - WEST) // PIXEL
            block = (row // high) * SIZE + col // wide
            for number in np.unique(block):
                here = block == number
                top, left = int(row[here][0] // high * high), int(col[here][0] // wide * wide)
                window = Window(left, top, min(wide, SIZE - left), min(high, SIZE - top))
                pixels = dataset.read(1, window=window)
                found[here] = pixels[row[here].astype(int) - top, col[here].astype(int) - left]
        return found

    with ThreadPoolExecutor(UNITS_AHEAD) as threads:
        return np.concatenate(list(threads.map(values, urls)))


def timed(work: Callable[[], object], server: ServerProcess) -> tuple[object, tuple[float, int, int]]:
    """What some work gives; its seconds, and the requests and bytes that the server counted."""
    server.counts()
    started = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - started
    counts = server.counts()
    return result, (seconds, counts["requests"], counts["bytes"])


def benchmark(folder: Path, runs: int, latency: float, points: int) -> None:
    """Run both tools in turn and print the medians."""
    make(folder)
    rng = np.random.default_rng(1)
    x, y = WEST + rng.uniform(0, SIZE * PIXEL, points), NORTH - rng.uniform(0, SIZE * PIXEL, points)
    print(f"{points:,} points, {FILES} files of {SIZE} x {SIZE}; latency {1000 * latency:.0f} ms; medians of {runs}.\n")
    print("| files | tool | headers s | requests | MB | samples s | requests | MB |")
    print("|---|---|---:|---:|---:|---:|---:|---:|")
    for kind in KINDS:
        found: dict[str, list[tuple[float, ...]]] = {OURS: [], PEER: []}
        for _ in range(runs):
            with ServerProcess(folder, latency) as server:
                urls = [f"{server.url}/{kind}_{number}.tif" for number in range(FILES)]
                collection, headers = timed(lambda urls=urls: ours_headers(urls), server)
                ours, samples = timed(lambda made=collection: ours_values(made, x, y), server)
                found[OURS].append((*headers, *samples))
                _, headers = timed(lambda urls=urls: peer_headers(urls), server)
                theirs, samples = timed(lambda urls=urls: peer_values(urls, x, y), server)
                found[PEER].append((*headers, *samples))
                np.testing.assert_array_equal(ours, theirs)
        for tool, each in found.items():
            first, asked, size, second, again, more = (statistics.median(column) for column in zip(*each, strict=True))
            left = f"| {kind} | {tool} | {first:.2f} | {asked:,.0f} | {size / 1e6:.1f} |"
            print(f"{left} {second:.2f} | {again:,.0f} | {more / 1e6:.1f} |")


def main() -> None:
    """Parse the flags and benchmark."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    default = Path(tempfile.gettempdir()) / "rasteret_beam_benchmark" / "gdal_files"
    parser.add_argument("--folder", type=Path, default=default, help="where data are kept (%(default)s)")
    parser.add_argument("--points", type=int, default=300, help="(%(default)s)")
    parser.add_argument("--latency", type=float, default=0.03, help="seconds before each answer (%(default)s)")
    parser.add_argument("--runs", type=int, default=3, help="(%(default)s)")
    flags = parser.parse_args()
    benchmark(flags.folder, flags.runs, flags.latency, flags.points)


if __name__ == "__main__":
    main()
