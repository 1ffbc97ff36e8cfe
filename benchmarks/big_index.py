"""A large collection index: 300,000 records x 64 bands, and 1,000,000 points over all of it, routed to tiles.

The collection is AlphaEarth's in shape: a planar file of 64 int8 bands for each record, 8192 x 8192 pixels of 10 m
in tiles of 1024, south-up, in all 120 UTM zones, years 2018 to 2023. Its files do not exist. The offsets of their
tiles are the same in every record, so Parquet packs 20 GB of them into little; in memory they have their full size.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import shapely

from rasteret_beam import load
from rasteret_beam.collection.eager.inputs import point_stream
from rasteret_beam.collection.eager.touched_tiles import TileCounts, first_tiles, tile_numbers
from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.collection.parquet.checksums import with_checksums
from rasteret_beam.collection.parquet.layout import schema_metadata
from rasteret_beam.collection.parquet.writing import row_group_rows, writer_options
from rasteret_beam.kernels.routing.chunks import ChunkRules, route
from rasteret_beam.kernels.routing.index import locate
from rasteret_beam.kernels.tables.point_columns import choose_columns, coordinates, point_batch
from rasteret_beam.schema import ASSET_TYPE, BAND_EXTRA_TYPE, BAND_METADATA_TYPE, BBOX_TYPE, GRID_TYPE

YEARS = range(2018, 2024)
BANDS = [f"A{number:02d}" for number in range(64)]
SIZE, TILE, PIXEL = 8192, 1024, 10.0
SIDE = SIZE * PIXEL
TILES = (SIZE // TILE) ** 2
ACROSS, WEST = 8, 172_320.0
"""Files side by side in a zone, and the easting where they begin."""

TILE_BYTES = 700_000
POINTS = 1_000_000
MISSES = 12
PHASES = ("index", "tiles", "chunks_all", "chunks_latest", "assets_64", "assets_1")


def places(count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """EPSG code, west and south [count] of the files of one year: rows of 8 in each zone, away from the equator."""
    number = np.arange(count)
    zone, at = number % 120, number // 120
    north = zone < 60
    row = at // ACROSS
    south = np.where(north, row * SIDE, 10_000_000.0 - (row + 1) * SIDE)
    return np.where(north, 32601 + zone, 32701 + zone - 60), WEST + at % ACROSS * SIDE, south


def make_collection(folder: Path, records: int, ours: bool) -> None:
    """Write the collection, as ``Collection.export`` does, unless it is there; a year is a file.

    ``ours`` are the columns that Rasteret's own collections lack: ``grids`` and ``{band}_extra``.
    """
    marker = folder.with_suffix(".json")
    wanted = json.dumps({"records": records, "ours": ours})
    if marker.exists() and marker.read_text() == wanted:
        return
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(partial(_write_year, folder, records // len(YEARS), ours), YEARS))
    marker.write_text(wanted)


def _write_year(folder: Path, count: int, ours: bool, year: int) -> None:
    place = folder / f"year={year}" / "month=1" / "part-0.parquet"
    place.parent.mkdir(parents=True, exist_ok=True)
    epsg, west, south = places(count)
    first = with_checksums(_records(year, slice(0, min(64, count)), epsg, west, south, ours), "the collection")
    rows = row_group_rows(first)
    schema = first.schema.with_metadata(schema_metadata(first, "big", ""))
    with pq.ParquetWriter(place, schema, **writer_options(schema)) as writer:
        for start in range(0, count, rows):
            part = slice(start, min(count, start + rows))
            records = _records(year, part, epsg, west, south, ours)
            writer.write_table(with_checksums(records, "the collection"))


def _records(year: int, part: slice, epsg: np.ndarray, west: np.ndarray, south: np.ndarray, ours: bool) -> pa.Table:
    """Some records of a year, in the layout of a collection."""
    names = [f"{year}_{number:06d}" for number in range(part.start, part.stop)]
    epsg, west, south = epsg[part], west[part], south[part]
    n = len(epsg)
    hrefs = pa.array(
        [f"s3://bucket/aef/annual/{year}/{code}/{name}.tiff" for code, name in zip(epsg, names, strict=True)]
    )
    assets = {
        band: _struct(ASSET_TYPE, {"href": hrefs, "band_index": [number] * n}) for number, band in enumerate(BANDS)
    }
    columns = {
        "id": pa.array(names),
        "datetime": pa.array([datetime(year, 1, 1)] * n, type=pa.timestamp("us")),
        **_footprints(epsg, west, south),
        "assets": _struct(pa.struct([(band, ASSET_TYPE) for band in BANDS]), assets),
        "proj:epsg": pa.array(epsg, type=pa.int32()),
        "crs": pa.array([f"EPSG:{code}" for code in epsg]),
    }
    if ours:
        columns["grids"] = _grids(epsg, west, south)
    shared = _shared_metadata(west, south)
    for number, band in enumerate(BANDS):
        offsets = 65_536 + TILE_BYTES * (number * TILES + np.arange(TILES))
        counts = np.full(TILES, TILE_BYTES - 16)
        stored = {"tile_offsets": _repeated(offsets, n), "tile_byte_counts": _repeated(counts, n)}
        columns[f"{band}_metadata"] = _struct(BAND_METADATA_TYPE, {**shared, **stored})
        if ours:
            columns[f"{band}_extra"] = _struct(BAND_EXTRA_TYPE, _shared_extra(n))
    return pa.table(columns)


def _struct(kind: pa.StructType, values: dict[str, Any]) -> pa.StructArray:
    """A struct array of columns, null where none is given."""
    length = len(next(iter(values.values())))
    arrays = [
        pa.nulls(length, field.type) if field.name not in values else _typed(values[field.name], field.type)
        for field in kind
    ]
    return pa.StructArray.from_arrays(arrays, fields=list(kind))


def _typed(values: Any, kind: pa.DataType) -> pa.Array:
    return values if isinstance(values, pa.Array) else pa.array(values, type=kind)


def _repeated(values: np.ndarray, n: int, kind: pa.DataType | None = None) -> pa.ListArray:
    """A list array of which each of ``n`` lists has the same values."""
    flat = pa.array(np.tile(values, n), type=kind or pa.int64())
    return pa.ListArray.from_arrays(pa.array(np.arange(n + 1) * len(values), type=pa.int32()), flat)


def _lists(values: np.ndarray) -> pa.ListArray:
    """Rows [n, m] as lists of m numbers."""
    edges = np.arange(len(values) + 1) * values.shape[1]
    return pa.ListArray.from_arrays(pa.array(edges, type=pa.int32()), pa.array(values.ravel(), type=pa.float64()))


def _footprints(epsg: np.ndarray, west: np.ndarray, south: np.ndarray) -> dict[str, pa.Array]:
    """Columns ``geometry`` and ``bbox``; straight between corners, as nothing here needs them exact."""
    corners = np.stack(
        [
            np.stack([west + right * SIDE, south + up * SIDE], axis=1)
            for right, up in ((0, 0), (1, 0), (1, 1), (0, 1), (0, 0))
        ],
        axis=1,
    )
    for code in np.unique(epsg):
        here = epsg == code
        to_lonlat = pyproj.Transformer.from_crs(int(code), "OGC:CRS84", always_xy=True)
        corners[here] = np.stack(to_lonlat.transform(corners[here, :, 0], corners[here, :, 1]), axis=2)
    low, high = corners.min(axis=1), corners.max(axis=1)
    sides = {"xmin": low[:, 0], "ymin": low[:, 1], "xmax": high[:, 0], "ymax": high[:, 1]}
    return {
        "geometry": pa.array(shapely.to_wkb(shapely.polygons(corners)), type=pa.binary()),
        "bbox": _struct(BBOX_TYPE, sides),
    }


def _grids(epsg: np.ndarray, west: np.ndarray, south: np.ndarray) -> pa.ListArray:
    n = len(epsg)
    zero, pixel = np.zeros(n), np.full(n, PIXEL)
    values = {
        "bands": [json.dumps(BANDS)] * n,
        "crs": [f"EPSG:{code}" for code in epsg],
        "transform": _lists(np.stack([pixel, zero, west, zero, pixel, south], axis=1)),
        **{name: [SIZE] * n for name in ("width", "height")},
        **{name: [TILE] * n for name in ("tile_width", "tile_height")},
    }
    return pa.ListArray.from_arrays(pa.array(np.arange(n + 1), type=pa.int32()), _struct(GRID_TYPE, values))


def _shared_metadata(west: np.ndarray, south: np.ndarray) -> dict[str, Any]:
    """What the metadata of all bands of a record have in common."""
    n = len(west)
    pixel, zero = np.full(n, PIXEL), np.zeros(n)
    return {
        **{name: pa.array([SIZE] * n, type=pa.int32()) for name in ("image_width", "image_height")},
        **{name: pa.array([TILE] * n, type=pa.int32()) for name in ("tile_width", "tile_height")},
        "dtype": pa.array(["int8"] * n),
        "transform": _lists(np.stack([pixel, west, pixel, south], axis=1)),
        "predictor": pa.array([1] * n, type=pa.int32()),
        "compression": pa.array([50000] * n, type=pa.int32()),
        "pixel_scale": _lists(np.stack([pixel, -pixel, zero], axis=1)),
        "tiepoint": _lists(np.stack([zero, zero, zero, west, south, zero], axis=1)),
        "nodata": pa.array([-128.0] * n),
        "samples_per_pixel": pa.array([len(BANDS)] * n, type=pa.int32()),
        "planar_configuration": pa.array([2] * n, type=pa.int32()),
        "photometric": pa.array([1] * n, type=pa.int32()),
    }


def _shared_extra(n: int) -> dict[str, Any]:
    return {
        "scale": [1.0] * n,
        "offset": [0.0] * n,
        "mask": ["nodata"] * n,
        "byte_order": ["little"] * n,
        "bits_per_sample": [8] * n,
        "fill_order": [1] * n,
        "file_size": [65_536 + TILE_BYTES * TILES * len(BANDS)] * n,
    }


def make_points(path: Path, records: int, count: int, seed: int = 20230105) -> None:
    """Points spread evenly over the records' area, as lon and lat in degrees."""
    rng = np.random.default_rng(seed)
    epsg, west, south = places(records // len(YEARS))
    record = rng.integers(0, len(epsg), count)
    x, y = west[record] + rng.uniform(0, SIDE, count), south[record] + rng.uniform(0, SIDE, count)
    for code in np.unique(epsg):
        here = epsg[record] == code
        to_lonlat = pyproj.Transformer.from_crs(int(code), "OGC:CRS84", always_xy=True)
        x[here], y[here] = to_lonlat.transform(x[here], y[here])
    pq.write_table(pa.table({"lon": x, "lat": y}), path, row_group_size=131_072)


def run_phase(folder: Path, phase: str) -> None:
    """Load the collection and its index of all 64 bands, then do one thing with it; prints seconds as JSON."""
    clock = _Clock()
    collection = load(folder)
    clock.mark("load")
    index = collection.index(collection.bands, "latest" if phase == "chunks_latest" else "all")
    clock.mark("index")
    if phase == "tiles":
        clock.result["points_on_tiles"] = _to_tiles(index, folder)
        clock.mark("route")
    elif phase.startswith("chunks"):
        clock.result["chunks"] = _to_chunks(index, folder)
        clock.mark("route")
    elif phase.startswith("assets"):
        clock.result["ms_per_miss"] = _misses(index, int(phase.rpartition("_")[2]))
    print(json.dumps(clock.result))


class _Clock:
    def __init__(self) -> None:
        self.result: dict[str, Any] = {}
        self.wall = time.perf_counter()

    def mark(self, name: str) -> None:
        now = time.perf_counter()
        self.result[name] = round(now - self.wall, 2)
        self.wall = now


def _point_batches(folder: Path) -> Iterator[tuple[pa.RecordBatch, str]]:
    table = pq.read_table(folder.with_suffix(".points.parquet"))
    chosen = choose_columns(table.schema, x_column="lon", y_column="lat", geometry_crs=4326)
    for batch in point_stream(table):
        yield point_batch(batch, 0, chosen), chosen.crs


def _to_tiles(index: CollectionIndex, folder: Path) -> int:
    """Count the points of every tile of every grid, as a plan does; pairs of a point and a grid."""
    routing, counts = index.routing, TileCounts()
    first = first_tiles(routing)
    for batch, crs in _point_batches(folder):
        counts.add(tile_numbers(routing, first, locate(routing, crs, *coordinates(batch, crs)[:2])))
    return int(counts.total()[1].sum())


def _to_chunks(index: CollectionIndex, folder: Path) -> int:
    """Cut the points into chunks for the shuffle, as a pipeline does."""
    return sum(1 for batch, _ in _point_batches(folder) for _ in route(index.routing, batch, None, ChunkRules()).chunks)


def _misses(index: CollectionIndex, bands: int) -> list[float]:
    """Milliseconds to find the assets of records far from each other."""
    records = np.random.default_rng(1).choice(index.routing.record_ids, MISSES, replace=False)
    found = []
    for record in records.tolist():
        started = time.perf_counter()
        index.assets(record, BANDS[:bands])
        found.append(round((time.perf_counter() - started) * 1000, 1))
    return found


def measure(folder: Path, phase: str) -> dict[str, Any]:
    """Run a phase in a process of its own: what it printed, and what it cost."""
    out, err = folder.with_suffix(".out"), folder.with_suffix(".err")
    command = [sys.executable, "-m", "benchmarks.big_index", str(folder), "--phase", phase]
    cost = json.loads(
        subprocess.check_output([sys.executable, "-m", "benchmarks.measure", str(out), str(err), *command])
    )
    if cost["status"]:
        raise SystemExit(err.read_text())
    return {"wall": cost["wall"], "cpu": cost["cpu"], "peak_gb": cost["peak"] / 1e9, **json.loads(out.read_text())}


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("folder", type=Path, help="where the collection is, or is to be written (250 MB)")
    flags.add_argument("--records", type=int, default=300_000)
    flags.add_argument("--without_grids", action="store_true", help="write Rasteret's columns only")
    flags.add_argument("--phase", choices=PHASES, help="run this one, in this process")
    given = flags.parse_args()
    if given.phase:
        run_phase(given.folder, given.phase)
        return
    make_collection(given.folder, given.records, ours=not given.without_grids)
    make_points(given.folder.with_suffix(".points.parquet"), given.records, POINTS)
    for phase in PHASES:
        print(phase, json.dumps(measure(given.folder, phase)), flush=True)


if __name__ == "__main__":
    main()
