"""Benchmark of routing with the times of points beside `match="latest"`: the records of each point, and its chunks.

    python -m benchmarks.time_match [--points 1000000] [--places 30] [--dates 100] [--runs 5]

No file is read: the index is made of grids like Sentinel-2's, in three UTM zones, with a record for each place and
date. Ways to match take turns, and the median of the CPU seconds over the runs is printed, with its ratio to latest.
"""

import argparse
import statistics
import time
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from rasteret_beam.collection.eager.inputs import BATCH_ROWS
from rasteret_beam.kernels.geo.crs import LONLAT, transform
from rasteret_beam.kernels.geo.grids import GridTable
from rasteret_beam.kernels.routing.chunks import ChunkRules, route
from rasteret_beam.kernels.routing.index import RoutingIndex, build_index
from rasteret_beam.kernels.routing.layers import Layers
from rasteret_beam.model import Grid, MatchRules
from rasteret_beam.schema import points_schema

SEED = 15
SIZE, PIXEL = 5490, 20.0
DAY = 86_400_000_000
ZONES = ("EPSG:32631", "EPSG:32632", "EPSG:32633")
WAYS = {
    "latest": MatchRules("latest"),
    "nearest": MatchRules("nearest", "when"),
    "nearest within 10 days": MatchRules("nearest", "when", 10 * DAY),
    "before": MatchRules("before", "when"),
    "after": MatchRules("after", "when"),
    "the 2 nearest": MatchRules("nearest", "when", None, 2),
    "nearest, first of those that overlap": MatchRules("nearest", "when", overlap="first"),
}


def index_of(places: int, dates: int, rules: MatchRules) -> RoutingIndex:
    """Records of so many places, one beside the other in three zones, at dates five days apart."""
    grids = []
    for place in range(places):
        left = 300_000.0 + (place // 3 % 4) * SIZE * PIXEL
        top = 5_900_000.0 - (place // 12) * SIZE * PIXEL
        grids.append(Grid(ZONES[place % 3], (PIXEL, 0.0, left, 0.0, -PIXEL, top), SIZE, SIZE, 512, 512))
    record = np.arange(places * dates)
    return build_index(
        [f"r{number}" for number in record],
        record // places * 5 * DAY,
        GridTable.from_grids(grids),
        [grid.crs for grid in grids],
        Layers(record, record % places, np.zeros_like(record), [("B04",)]),
        rules,
    )


def batches_of(index: RoutingIndex, points: int, dates: int) -> list[pa.RecordBatch]:
    """Random points in the places, in longitude and latitude, with random times."""
    rng = np.random.default_rng(SEED)
    place = rng.integers(0, len(index.grids), points)
    rows, cols = rng.uniform(0, SIZE, (2, points))
    a, _, c, _, e, f = index.grids.transform[place].T
    lon, lat = np.empty(points), np.empty(points)
    for zone in ZONES:
        at = np.flatnonzero(np.array(index.grid_crs, dtype=object)[place] == zone)
        lon[at], lat[at] = transform(zone, LONLAT, (a * cols + c)[at], (e * rows + f)[at])
    when = pa.array(rng.integers(0, dates * 5 * DAY, points), pa.timestamp("us"))
    columns = [pa.array(np.arange(points)), pa.array(lon), pa.array(lat), when]
    schema = points_schema([pa.field("when", when.type)], LONLAT)
    return pa.Table.from_arrays(columns, schema=schema).to_batches(max_chunksize=BATCH_ROWS)


def routed(index: RoutingIndex, batches: Sequence[pa.RecordBatch]) -> tuple[float, int, int]:
    """CPU seconds to route all batches, and how many chunks and rows come of it."""
    chunks = rows = 0
    start = time.process_time()
    for batch in batches:
        for _, chunk in route(index, batch, None, ChunkRules()).chunks:
            chunks += 1
            rows += len(chunk)
    return time.process_time() - start, chunks, rows


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for flag, default in {"points": 1_000_000, "places": 30, "dates": 100, "runs": 5}.items():
        parser.add_argument(f"--{flag}", type=int, default=default)
    given = parser.parse_args(argv)
    indexes = {way: index_of(given.places, given.dates, rules) for way, rules in WAYS.items()}
    batches = batches_of(indexes["latest"], given.points, given.dates)
    found: dict[str, list[tuple[float, int, int]]] = {way: [] for way in WAYS}
    for _ in range(given.runs):
        for way, index in indexes.items():
            found[way].append(routed(index, batches))
    seconds = {way: statistics.median(run[0] for run in runs) for way, runs in found.items()}
    print("| match | CPU seconds | times latest | chunks | rows |\n|---|---|---|---|---|")
    for way, runs in found.items():
        ratio = seconds[way] / seconds["latest"]
        print(f"| {way} | {seconds[way]:.2f} | {ratio:.2f} | {runs[0][1]:,} | {runs[0][2]:,} |")


if __name__ == "__main__":
    main()
