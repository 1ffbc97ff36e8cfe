"""The rasters and points that tests put in buckets, and what comes back."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.support.buckets import Place
from tests.support.pipelines import ORDER
from tests.support.rasters import RasterCase

CASES = [
    RasterCase(name="indexed", dtype="uint16", count=2, options={"COMPRESS": "DEFLATE", "PREDICTOR": "2"}),
    RasterCase(name="by_gdal", dtype="uint8", options={"COMPRESS": "JPEG"}),
]
COLUMNS = ["point_index", "record_id", "band", "value"]

POINTS = ["--x_column=x", "--y_column=y", "--geometry_crs=32631"]


def points() -> pa.Table:
    rng = np.random.default_rng(3)
    x, y = 500_000 + rng.uniform(0, 3600, 300), 4_500_000 - rng.uniform(0, 2512, 300)
    return pa.table({"x": x, "y": y, "plot": [f"plot {number}" for number in range(300)]})


def same(found: pa.Table, expected: pa.Table, columns: list[str] = COLUMNS) -> bool:
    return found.select(columns).sort_by(ORDER).equals(expected.select(columns).sort_by(ORDER))


def table_at(place: Place, prefix: str) -> pa.Table:
    names = [name for name in place.names() if name.startswith(prefix)]
    return pa.concat_tables(pq.read_table(pa.BufferReader(place.get(name))) for name in names)
