"""Benchmark of statistics of windows: beside plain sampling, and beside `rasterstats.zonal_stats` on the same buffers.

    python -m benchmarks.window_statistics [--collections s2,aef] [--points 100000] [--peer_points 5000] [--runs 3]

The collections and points are those of `benchmarks.sample_points`; both calls are eager. Five statistics are of squares
of 5 x 5 pixels. rasterstats gets one file of s2, the whole band as an array, and circles of 50 m around points in it as
polygons of 256 corners; ours gets the points and `radius=50`, and opens the file itself. Counts of pixels are compared.
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
import shapely

import rasteret_beam
from benchmarks.data import COLLECTIONS, S2, Imagery
from benchmarks.sample_points import POINT_SEED, Folders

FIVE = ["mean", "std", "min", "max", "median"]
OF_PEER = ["count", *FIVE]
SQUARE: dict[str, Any] = {"statistics": FIVE, "window_pixels": 2}
RADIUS, CORNERS = 50.0, 64
LONLAT: dict[str, Any] = {"x_column": "lon", "y_column": "lat", "geometry_crs": 4326}

Seconds = tuple[float, float]
"""Wall and CPU seconds."""


def prepare(folders: Folders, imagery: Imagery, count: int) -> None:
    """Make what is missing of scenes, points and collection, and bring the scenes into the page cache."""
    imagery.make(folders.scenes)
    if not folders.points(count).exists():
        imagery.write_points(folders.points(count), count, POINT_SEED)
    if not folders.ours.exists():
        records = imagery.record_table(folders.scenes)
        rasteret_beam.build_from_table(records, enrich_cog=True, name="bench").export(str(folders.ours))
    for path in folders.scenes.glob("*.tif"):
        path.read_bytes()


def timed(call: Callable[[], Any]) -> tuple[Any, Seconds]:
    wall, cpu = time.perf_counter(), time.process_time()
    found = call()
    return found, (time.perf_counter() - wall, time.process_time() - cpu)


def beside_plain(folders: Folders, imagery: Imagery, count: int, runs: int) -> None:
    """Print the seconds of plain sampling and of statistics, in turn."""
    points, collection = pq.read_table(folders.points(count)), rasteret_beam.load(folders.ours)
    ways: dict[str, dict[str, Any]] = {"plain": {}, "five statistics of 5 x 5 pixels": SQUARE}
    taken: dict[str, list[Seconds]] = {way: [] for way in ways}
    rows = 0
    for _ in range(runs):
        for way, options in ways.items():
            table, seconds = timed(lambda: collection.sample_points(points, imagery.bands, **LONLAT, **options))  # noqa: B023
            taken[way].append(seconds)
            rows = len(table)
    plain = statistics.median(wall for wall, _ in taken["plain"])
    for way, seconds_of_way in taken.items():
        wall, cpu = (statistics.median(each) for each in zip(*seconds_of_way, strict=True))
        print(f"| {imagery.name} | {rows:,} | {way} | {wall:.2f} | {wall / plain:.2f} | {cpu:.2f} |", flush=True)


def beside_rasterstats(folders: Folders, count: int, runs: int) -> None:
    """Print the seconds of rasterstats and of ours for circles around random points of one scene, in turn."""
    from rasterstats import zonal_stats

    place, band = S2.places[0], S2.bands[0]
    path = S2.path(folders.scenes, place, S2.dates[0], (band,))
    rng = np.random.default_rng(POINT_SEED)
    x, y = place.west + rng.uniform(0, S2.side, count), place.north - rng.uniform(0, S2.side, count)
    points, buffers = pa.table({"x": x, "y": y}), shapely.buffer(shapely.points(x, y), RADIUS, quad_segs=CORNERS)

    def peer() -> list[dict[str, Any]]:
        with rasterio.open(path) as dataset:
            values, transform = dataset.read(1), dataset.transform
        found: list[dict[str, Any]] = zonal_stats(buffers, values, affine=transform, nodata=S2.nodata, stats=OF_PEER)
        return found

    def ours() -> pa.Table:
        where = {"x_column": "x", "y_column": "y", "geometry_crs": place.epsg}
        collection = rasteret_beam.build_from_cogs([path], bands={band: 0})
        return collection.sample_points(points, [band], **where, statistics=OF_PEER, radius=RADIUS)

    theirs_taken, ours_taken = [], []
    for _ in range(runs):
        theirs, seconds = timed(peer)
        theirs_taken.append(seconds[0])
        table, seconds = timed(ours)
        ours_taken.append(seconds[0])
    table = table.sort_by("point_index")
    equal = np.mean(table["count"].to_numpy() == [each["count"] for each in theirs])
    means = np.abs(table["mean"].to_numpy() - [each["mean"] for each in theirs])
    wall, of_peer = statistics.median(ours_taken), statistics.median(theirs_taken)
    print(
        f"\n{count:,} circles of {RADIUS:g} m on one scene: rasterstats {of_peer:.2f} s, ours {wall:.2f} s, which is "
    )
    print(f"{of_peer / wall:.0f} times as fast; {equal:.2%} of the counts are equal (a polygon of {4 * CORNERS} ")
    print(f"corners is no circle); means differ by {np.median(means):.1e} at the median.")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(tempfile.gettempdir()) / "rasteret_beam_benchmark"
    parser.add_argument("--folder", type=Path, default=default, help="where data are kept (%(default)s)")
    parser.add_argument("--collections", default="s2,aef", help="some of s2,aef (%(default)s)")
    parser.add_argument("--points", type=int, default=100_000)
    parser.add_argument("--peer_points", type=int, default=5_000, help="circles beside rasterstats (%(default)s)")
    parser.add_argument("--runs", type=int, default=3)
    given = parser.parse_args(argv)
    print("| collection | rows | | wall s | wall, plain = 1 | CPU s |")
    print("|---|---:|---|---:|---:|---:|")
    root = given.folder.resolve()
    for name in given.collections.split(","):
        folders = Folders(root / ("" if name == "s2" else name))
        prepare(folders, COLLECTIONS[name], given.points)
        beside_plain(folders, COLLECTIONS[name], given.points, given.runs)
    if importlib.util.find_spec("rasterstats"):
        S2.make(Folders(root).scenes)
        beside_rasterstats(Folders(root), given.peer_points, given.runs)
    else:
        print("\nrasterstats is not installed: python -m pip install rasterstats")


if __name__ == "__main__":
    main()
