"""Benchmark of `skip_invalid`: tiles that a job decodes beside those that brute force needs, and its time.

    python -m benchmarks.clear_samples [--points 300 3000 10000] [--runs 3]

Two places of zones 31 and 32 that overlap, 12 dates; B04 of 10 m (2048 x 2048, tiles of 256), a class band of 20 m
(1024 x 1024, tiles of 128), half of it under clouds: blobs, each as wide as several tiles. The points are random, with
times. Brute force walks the records of each point one by one (`tests/support/oracle.py`), and needs the class tile of
each record that it looks at, and the B04 tile of the one that it takes.

The counts are those of a pipeline, the seconds those of the eager call: of `match="latest"`, of the same with the
quality rule, which reads the class tile of that record too, and of the same with `skip_invalid`.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyproj
import rasterio
from rasterio.transform import Affine

from benchmarks.data import pixels
from rasteret_beam import Collection, Quality, ReadPoints, SamplePoints, build_from_table, metrics
from tests.support.oracle import needed_tiles, points_of, read_records
from tests.support.pipelines import run

SEED = 15
SIZE, BLOCK = 2048, 256
SIDE = SIZE * 10.0
DATES = [datetime(2023, 5, 3) + timedelta(days=5 * number) for number in range(12)]
CLOUD, LAND = 9, 4
RULE: dict[str, Any] = {"band": "SCL", "exclude": [CLOUD]}
WHERE = {"x_column": "x", "y_column": "y", "geometry_crs": 32631}
CLEAR = {"quality": [RULE], "skip_invalid": True}
WAYS: dict[str, dict[str, Any]] = {
    "latest": {"match": "latest"},
    "latest, quality": {"match": "latest", "quality": [RULE], "invalid": "null"},
    "latest, the next if cloudy": {"match": "latest"} | CLEAR,
    "nearest, the next if cloudy": {"match": "nearest"} | CLEAR,
}


def places() -> list[tuple[str, float, float]]:
    """CRS and upper left corner of the two places; the second begins two kilometres before the first ends."""
    x, y = pyproj.Transformer.from_crs("EPSG:4326", "EPSG:32631", always_xy=True).transform(6, 52)
    east, north = pyproj.Transformer.from_crs("EPSG:32631", "EPSG:32632", always_xy=True).transform(x, y)
    return [
        ("EPSG:32631", round(x / 20) * 20.0 - SIDE + 1000, round(y / 20) * 20.0),
        ("EPSG:32632", round(east / 20) * 20.0 - 1000, round(north / 20) * 20.0),
    ]


def clouds(rng: np.random.Generator) -> np.ndarray:
    """Class band of a scene, [SIZE / 2, SIZE / 2]: blobs until half of it is under clouds."""
    size = SIZE // 2
    row, col = np.ogrid[:size, :size]
    found = np.full((size, size), LAND, np.uint8)
    while (found == CLOUD).mean() < 0.5:
        at_row, at_col, radius = rng.uniform(0, size), rng.uniform(0, size), rng.uniform(60, 220)
        found[(row - at_row) ** 2 + ((col - at_col) / 1.4) ** 2 < radius**2] = CLOUD
    return found


def make(folder: Path) -> pa.Table:
    """Write the files, and give their record table."""
    rng = np.random.default_rng(SEED)
    rows = []
    for taken in DATES:
        for number, (crs, left, top) in enumerate(places()):
            assets = {}
            for band, pixel in (("B04", 10), ("SCL", 20)):
                path = folder / f"P{number}_{taken:%Y%m%d}_{band}.tif"
                values = clouds(rng) if band == "SCL" else pixels(rng, SIZE)
                block = BLOCK * 10 // pixel
                profile = {"width": len(values), "height": len(values), "count": 1, "dtype": values.dtype, "crs": crs}
                storage = {"tiled": True, "blockxsize": block, "blockysize": block, "compress": "deflate"}
                transform = Affine(pixel, 0, left, 0, -pixel, top)
                with rasterio.open(
                    path, "w", driver="GTiff", nodata=0, transform=transform, **profile, **storage
                ) as to:
                    to.write(values, 1)
                assets[band] = {"href": str(path), "band_index": 0}
            rows.append({"id": f"P{number}_{taken:%Y%m%d}", "datetime": taken, "assets": assets})
    return pa.Table.from_pylist(rows)


def random_points(count: int) -> pa.Table:
    """Over both places, with times of the season."""
    rng = np.random.default_rng(SEED + count)
    _, left, top = places()[0]
    when = np.datetime64(DATES[0], "us") + rng.integers(0, 55 * 86_400, count) * np.timedelta64(1_000_000, "us")
    x, y = left + rng.uniform(0, 2 * SIDE - 2000, count), top - rng.uniform(0, SIDE, count)
    return pa.table({"x": x, "y": y, "when": when})


def as_keywords(way: dict[str, Any]) -> dict[str, Any]:
    """Options as the calls take them."""
    return way | {"quality": [Quality(**rule) for rule in way.get("quality", ())], "time_column": "when"}


def decoded(collection: Collection, points: pa.Table, way: dict[str, Any]) -> dict[str, int]:
    """The counters of a pipeline."""

    def build(pipeline: beam.Pipeline) -> None:
        read = pipeline | ReadPoints(points, **WHERE, time_column="when")
        read | SamplePoints(collection, ["B04"], **as_keywords(way))

    return run(build)


def seconds(collection: Collection, points: pa.Table, way: dict[str, Any]) -> tuple[float, float]:
    """Wall and CPU seconds of the eager call."""
    wall, cpu = time.perf_counter(), time.process_time()
    collection.sample_points(points, ["B04"], **WHERE, **as_keywords(way))
    return time.perf_counter() - wall, time.process_time() - cpu


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[300, 3_000, 10_000])
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args(argv)
    print("| points | match | tiles needed | tiles decoded | ratio | wall s | CPU s |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        table = make(Path(folder))
        collection, records = build_from_table(table, name="half"), read_records(table)
        for count in given.points:
            points = random_points(count)
            taken: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
            for _ in range(given.runs):
                for way, options in WAYS.items():
                    taken[way].append(seconds(collection, points, options))
            for way, options in WAYS.items():
                needed = len(needed_tiles(records, points_of(points, "x", "y", "EPSG:32631", "when"), ["B04"], options))
                tiles = decoded(collection, points, options)[metrics.TILES_DECODED]
                wall, cpu = (statistics.median(each) for each in zip(*taken[way], strict=True))
                figures = f"{needed:,} | {tiles:,} | {tiles / needed:.2f} | {wall:.2f} | {cpu:.2f}"
                print(f"| {count:,} | {way} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
