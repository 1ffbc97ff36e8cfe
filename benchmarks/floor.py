"""What a sample costs at least: reading and decoding each touched tile once, gathering, and writing the rows.

    python -m benchmarks.floor [--collections s2,aef] [--points 1000000]

CPU seconds on one thread, of each part alone, beside those of our eager call. Tiles are read and decoded by the code
that the call uses, gathering is one numpy index for each tile, and rows are written by `pyarrow.parquet.write_table`.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

import rasteret_beam
from benchmarks.data import COLLECTIONS, S2, Imagery
from benchmarks.sample_points import OURS, POINT_SEED, Folders, Pythons, prepare
from rasteret_beam.metrics import Counters
from rasteret_beam.readers.tiles.indexed import IndexedEngine
from rasteret_beam.readers.tiles.protocol import TileRequest


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of this process for a piece of work, and what it gives."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def requests(collection: rasteret_beam.Collection, imagery: Imagery) -> Iterator[list[TileRequest]]:
    """Every tile of the sampled bands, whole, record by record."""
    index = collection.index(imagery.bands)
    for record_id in index.routing.record_ids:
        grid = index.routing.grid_of_band(record_id, imagery.bands[0])
        down, across = grid.tile_counts()
        yield [
            TileRequest(asset, grid, row, col, grid.tile_height)
            for asset in index.assets(record_id, imagery.bands)
            for row in range(down)
            for col in range(across)
        ]


def decoded(wanted: list[list[TileRequest]]) -> list[np.ndarray]:
    """The tiles, read and decoded in this thread."""
    engine, counters, tiles = IndexedEngine(), Counters(), []
    for of_record in wanted:
        for together in engine.plan(of_record):
            tiles += [tile for _, tile in engine.read(together, counters)]
    return tiles


def gathered(tiles: list[np.ndarray], pixels: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
    """The values under pixels of each tile, as float64."""
    return [tile[row, col].astype(np.float64) for tile, (row, col) in zip(tiles, pixels, strict=True)]


def measure(imagery: Imagery, folders: Folders, n: int) -> None:
    """Print the parts for one collection."""
    prepare(folders, imagery, [n], [OURS], Pythons(""))
    collection = rasteret_beam.load(folders.ours)
    points = pq.read_table(folders.points(n))
    where = {"x_column": "lon", "y_column": "lat", "geometry_crs": 4326}
    call, samples = seconds(lambda: collection.sample_points(points, imagery.bands, **where))
    wanted = list(requests(collection, imagery))
    decode, tiles = seconds(lambda: decoded(wanted))
    rng = np.random.default_rng(POINT_SEED)
    each = -(-len(samples) // len(tiles))
    pixels = [(rng.integers(0, len(tile), each), rng.integers(0, tile.shape[1], each)) for tile in tiles]
    gather, _ = seconds(lambda: gathered(tiles, pixels))
    with tempfile.TemporaryDirectory() as folder:
        write, _ = seconds(lambda: pq.write_table(samples, Path(folder, "samples.parquet"), compression="zstd"))
    floor = decode + gather
    print(f"{imagery.name}, {n:,} points, {len(samples):,} rows, {len(tiles):,} tiles; CPU seconds:")
    for what, cost in (("read and decode", decode), ("gather", gather), ("write", write), ("our eager call", call)):
        print(f"  {what:16} {cost:6.2f}   {cost / len(samples) * 1e9:6.0f} ns a row")
    print(f"  the call is {call / floor:.2f} times reading, decoding and gathering")


def main() -> None:
    """Parse the flags and measure."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    default = Path(tempfile.gettempdir()) / "rasteret_beam_benchmark"
    parser.add_argument("--folder", type=Path, default=default, help="where data are kept (%(default)s)")
    parser.add_argument("--collections", default="s2,aef", help="some of s2,aef (%(default)s)")
    parser.add_argument("--points", type=int, default=1_000_000, help="number of points (%(default)s)")
    flags = parser.parse_args()
    for imagery in (COLLECTIONS[name] for name in flags.collections.split(",")):
        folders = Folders(flags.folder.resolve() / ("" if imagery is S2 else imagery.name))
        measure(imagery, folders, flags.points)


if __name__ == "__main__":
    main()
