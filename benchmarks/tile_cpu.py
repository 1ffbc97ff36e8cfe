"""CPU seconds for each touched tile, and what reading only the first bytes of tiles would save.

    python -m benchmarks.tile_cpu

One point at a random place in every tile of the scenes of `benchmarks.data` (uint16, tiles of 512, deflate with
predictor 2), through the eager call: user and system time of the whole call, divided by the tiles that it decodes.
Then, without sampling: the share of a tile's compressed bytes that its rows down to the point need, and what an
estimate from the row alone would fetch.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import rasterio
from isal import isal_zlib
from pyproj import Transformer

import rasteret_beam
from benchmarks.data import S2

MARGINS = (0.0, 0.02, 0.05, 0.1)
"""Added to the estimated share of a tile's bytes."""


def one_point_a_tile(folder: Path, seed: int = 1) -> pa.Table:
    """Longitude and latitude of a random point in each tile of each place."""
    rng = np.random.default_rng(seed)
    lon, lat = [], []
    for path in sorted({path.name.split("_")[0]: path for path in folder.glob("*.tif")}.values()):
        with rasterio.open(path) as dataset:
            size, tile = dataset.width, dataset.block_shapes[0][0]
            row, col = np.mgrid[0:size:tile, 0:size:tile].reshape(2, -1)
            row = row + rng.uniform(0, np.minimum(tile, size - row))
            col = col + rng.uniform(0, np.minimum(tile, size - col))
            x, y = dataset.transform * (col, row)
            found = Transformer.from_crs(dataset.crs, 4326, always_xy=True).transform(x, y)
            lon.append(found[0])
            lat.append(found[1])
    return pa.table({"lon": np.concatenate(lon), "lat": np.concatenate(lat)})


def cpu_for_each_tile(collection: rasteret_beam.Collection, points: pa.Table) -> tuple[float, int]:
    """Milliseconds of CPU of a whole call for each value it gives (one a tile and band), and their number."""
    start = time.process_time()
    samples = collection.sample_points(points, S2.bands, x_column="lon", y_column="lat", geometry_crs=4326)
    return 1000 * (time.process_time() - start) / len(samples), len(samples)


def bytes_needed(path: Path, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Share of a tile's rows [n] down to a random point in it, and of its bytes that these rows need."""
    rng = np.random.default_rng(seed)
    rows, shares = [], []
    for tile in stored_tiles(path):
        last = int(rng.integers(512))
        inflating = isal_zlib.decompressobj()
        wanted, fed = (last + 1) * 1024, 0
        given = 0
        while given < wanted:
            piece = tile[fed : fed + 1024]
            given += len(inflating.decompress(piece))
            fed += len(piece)
        rows.append((last + 1) / 512)
        shares.append(fed / len(tile))
    return np.array(rows), np.array(shares)


def stored_tiles(path: Path) -> list[bytes]:
    """The whole tiles of a scene as they are stored."""
    import tifffile

    with tifffile.TiffFile(path) as tiff, open(path, "rb") as file:
        page = tiff.pages[0]
        found = []
        for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
            file.seek(offset)
            found.append(file.read(count))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(tempfile.gettempdir()) / "rasteret_beam_benchmark"
    parser.add_argument("--folder", type=Path, default=default, help="where data are kept (%(default)s)")
    parser.add_argument("--runs", type=int, default=5)
    flags = parser.parse_args()
    scenes = flags.folder / "scenes"
    S2.make(scenes)
    for path in scenes.glob("*.tif"):
        path.read_bytes()
    collection = rasteret_beam.build_from_table(S2.record_table(scenes), enrich_cog=True, name="bench")
    points = one_point_a_tile(scenes)
    runs = [cpu_for_each_tile(collection, points) for _ in range(flags.runs)]
    tiles = {count for _, count in runs}
    print(f"CPU for each of {tiles} tiles, one point in each: {statistics.median(ms for ms, _ in runs):.2f} ms")
    rows, shares = bytes_needed(sorted(scenes.glob("*.tif"))[0])
    print(f"bytes needed down to the point: {shares.mean():.1%} of a tile's, on average")
    for margin in MARGINS:
        estimate = np.minimum(1, rows + margin)
        short = estimate < shares
        fetched = np.where(short, 1, estimate).mean()
        print(f"estimate rows + {margin:.0%}: {fetched:.1%} of the bytes, {1 + short.mean():.2f} times the requests")


if __name__ == "__main__":
    main()
