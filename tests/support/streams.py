"""Streams of points: what to expect of each window, by rasterio, and what its files hold."""

import re
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import rasterio
from apache_beam.transforms.window import TimestampedValue

from rasteret_beam import Collection
from rasteret_beam.kernels.tables.point_columns import choose_columns, point_batch
from tests.support.pipelines import XY

Values = dict[tuple[int, str, str], float]
"""(point_index, record_id, band) to value."""

SECONDS = 10
BATCHES = 12

NAME = re.compile(
    r"s-(?P<start>\d{8}T\d{6}(?:\.\d{6})?Z)-(?P<end>\d{8}T\d{6}(?:\.\d{6})?Z)-pane-(?P<pane>\d+)"
    r"-(?P<shard>\d{5})-of-(?P<shards>\d{5})-(?P<run>[0-9a-f]{12})\.parquet"
)


def batches(points: pa.Table) -> list[pa.RecordBatch]:
    """The points in batches of 100, as ReadPoints gives them."""
    chosen = choose_columns(points.schema, **XY)
    slices = (points.slice(start, 100).combine_chunks().to_batches()[0] for start in range(0, 100 * BATCHES, 100))
    return [point_batch(batch, 100 * number, chosen) for number, batch in enumerate(slices)]


def stamp(number: int, batch: pa.RecordBatch) -> TimestampedValue:
    return TimestampedValue(batch, number * SECONDS)


def brute_force(collection: Collection, batches: Iterable[pa.RecordBatch], bands: Sequence[str]) -> Values:
    """Values of points in the rasters' CRS, file by file."""
    points = pa.Table.from_batches(batches)
    index, x, y = (points[name].to_numpy() for name in ("point_index", "point_x", "point_y"))
    found: Values = {}
    for record, band, href in _files(collection, bands):
        with rasterio.open(href) as dataset:
            col, row = (np.floor(place).astype(int) for place in ~dataset.transform * (x, y))
            inside = (row >= 0) & (row < dataset.height) & (col >= 0) & (col < dataset.width)
            values = dataset.read(1)[row[inside], col[inside]].tolist()
        found |= {(point, record, band): value for point, value in zip(index[inside].tolist(), values, strict=True)}
    return found


def _files(collection: Collection, bands: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for record in collection.to_table(["id", "assets"]).to_pylist():
        for band in bands:
            if record["assets"][band] is not None:
                yield record["id"], band, record["assets"][band]["href"]


def values_of(table: pa.Table) -> Values:
    """Those of a sample table, which has each once."""
    columns = (table[name].to_pylist() for name in ("point_index", "record_id", "band", "value"))
    rows = list(zip(*columns, strict=True))
    found = {(point, record, band): value for point, record, band, value in rows}
    assert len(found) == len(rows)
    return found


def window_files(folder: Path) -> dict[tuple[float, float], dict[int, list[Path]]]:
    """The files of a stream by window and pane; no other file is there, hidden ones included."""
    found: dict[tuple[float, float], dict[int, list[Path]]] = {}
    for path in sorted(folder.iterdir()):
        parts = NAME.fullmatch(path.name)
        assert parts is not None, path.name
        window = seconds(parts["start"]), seconds(parts["end"])
        found.setdefault(window, {}).setdefault(int(parts["pane"]), []).append(path)
    return found


def seconds(moment: str) -> float:
    kind = "%Y%m%dT%H%M%S.%fZ" if "." in moment else "%Y%m%dT%H%M%SZ"
    return datetime.strptime(moment, kind).replace(tzinfo=UTC).timestamp()


def rows_of(paths: Iterable[Path]) -> Values:
    return values_of(pa.concat_tables(pq.read_table(path) for path in paths))


def melted(wide: pa.Table, bands: Sequence[str]) -> pa.Table:
    """The long table of one with a column for each band."""
    others = [name for name in wide.column_names if name not in bands]
    tables = []
    for band in bands:
        there = wide.filter(wide[band].is_valid())
        columns = there.select(others).append_column("band", pa.array([band] * len(there)))
        tables.append(columns.append_column("value", there[band]))
    return pa.concat_tables(tables)
