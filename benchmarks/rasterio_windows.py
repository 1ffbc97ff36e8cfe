"""Peer of the benchmark: one rasterio window per touched tile, in one thread.

What a careful user writes by hand: points are transformed once per CRS and sorted by internal tile once per
grid; then every touched tile of every file is read once, and its pixels are gathered with numpy.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import rasterio
from rasterio.windows import Window

from benchmarks.data import COLLECTIONS, Imagery

SCHEMA = pa.schema(
    [
        ("point_index", pa.int64()),
        ("point_x", pa.float64()),
        ("point_y", pa.float64()),
        ("record_id", pa.string()),
        ("datetime", pa.timestamp("us")),
        ("band", pa.string()),
        ("value", pa.float64()),
    ]
)


@dataclass(frozen=True)
class TiledPoints:
    """The points in one grid, sorted by tile.

    `point`, `row` and `col` (int64, equally long) are a point's number and its pixel in the whole raster.
    `windows` holds each touched tile with the half-open range (start, stop) of its points.
    """

    point: np.ndarray
    row: np.ndarray
    col: np.ndarray
    windows: list[tuple[Window, int, int]]


@dataclass(frozen=True)
class Values:
    """The values [n] of one band of a record, and the numbers of their points."""

    record_id: str
    datetime: datetime
    band: str
    point: np.ndarray
    value: np.ndarray

    def rows(self, lon: np.ndarray, lat: np.ndarray) -> pa.RecordBatch:
        """As rows of a table."""
        constants = [self.record_id, self.datetime, self.band]
        repeated = [pa.repeat(pa.scalar(value), len(self.value)) for value in constants]
        columns = [self.point, lon[self.point], lat[self.point], *repeated, self.value]
        return pa.record_batch(columns, schema=SCHEMA)


def tile_points(x: np.ndarray, y: np.ndarray, dataset: rasterio.DatasetReader) -> TiledPoints:
    """Sort the points, given in the raster's CRS, by internal tile; points outside are left out."""
    tile_height, tile_width = dataset.block_shapes[0]
    inverse = ~dataset.transform
    col = np.floor(inverse.a * x + inverse.b * y + inverse.c)
    row = np.floor(inverse.d * x + inverse.e * y + inverse.f)
    point = np.flatnonzero((col >= 0) & (row >= 0) & (col < dataset.width) & (row < dataset.height))
    row, col = row[point].astype(np.int64), col[point].astype(np.int64)
    tiles_across = -(-dataset.width // tile_width)
    tile = row // tile_height * tiles_across + col // tile_width
    order = np.argsort(tile, kind="stable")
    tiles, starts = np.unique(tile[order], return_index=True)
    stops = np.append(starts[1:], len(order))
    windows = []
    for number, start, stop in zip(tiles.tolist(), starts.tolist(), stops.tolist(), strict=True):
        top, left = number // tiles_across * tile_height, number % tiles_across * tile_width
        height, width = min(tile_height, dataset.height - top), min(tile_width, dataset.width - left)
        windows.append((Window(left, top, width, height), start, stop))
    return TiledPoints(point[order], row[order], col[order], windows)


def read_values(dataset: rasterio.DatasetReader, band_index: int, points: TiledPoints) -> np.ndarray:
    """The stored values under the points as float64, in the points' order; `band_index` is 0-based."""
    values = np.empty(len(points.point))
    for window, start, stop in points.windows:
        pixels = dataset.read(band_index + 1, window=window)
        here = slice(start, stop)
        values[here] = pixels[points.row[here] - window.row_off, points.col[here] - window.col_off]
    return values


def sample(lon: np.ndarray, lat: np.ndarray, imagery: Imagery, folder: Path) -> Iterator[Values]:
    """The values at the points (EPSG:4326) in every record and band: one file after the other."""
    projected: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    tiled: dict[tuple[object, ...], TiledPoints] = {}
    for record in imagery.record_table(folder).to_pylist():
        epsg = record["proj:epsg"]
        if epsg not in projected:
            projected[epsg] = pyproj.Transformer.from_crs(4326, epsg, always_xy=True).transform(lon, lat)
        for band in imagery.bands:
            asset = record["assets"][band]
            with rasterio.open(asset["href"]) as dataset:
                grid = (epsg, dataset.transform, dataset.shape, dataset.block_shapes[asset["band_index"]])
                if grid not in tiled:
                    tiled[grid] = tile_points(*projected[epsg], dataset)
                here = tiled[grid]
                if len(here.point):
                    values = read_values(dataset, asset["band_index"], here)
                    yield Values(record["id"], record["datetime"], band, here.point, values)


def main() -> None:
    """Parse the flags, sample, write Parquet, and print the number of rows; or only read the values, and time that."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=Path, required=True, help="Parquet with lon and lat in EPSG:4326")
    parser.add_argument("--imagery", choices=COLLECTIONS, default="s2", help="which collection (%(default)s)")
    parser.add_argument("--collection-folder", type=Path, required=True, help="folder of benchmarks.data")
    parser.add_argument("--output", type=Path, help="Parquet file of the samples; without it no row is made")
    flags = parser.parse_args()
    points = pq.read_table(flags.points, columns=["lon", "lat"])
    lon, lat = points["lon"].to_numpy(), points["lat"].to_numpy()
    started = time.perf_counter()
    values = sample(lon, lat, COLLECTIONS[flags.imagery], flags.collection_folder)
    rows = 0
    if flags.output is None:
        rows = sum(len(found.value) for found in values)
        print(f"call_seconds {time.perf_counter() - started:.3f}")
    else:
        with pq.ParquetWriter(flags.output, SCHEMA, compression="zstd") as writer:
            for found in values:
                writer.write_batch(found.rows(lon, lat))
                rows += len(found.value)
    print(f"rows {rows}")


if __name__ == "__main__":
    main()
