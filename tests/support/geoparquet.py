"""The keys that GeoParquet 1.1.0 requires, checked by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import shapely

SIDES = ("xmin", "ymin", "xmax", "ymax")


def check_geoparquet(path: Path, types: set[str]) -> dict[str, Any]:
    """Whether a file is GeoParquet 1.1.0 with a covering, and its metadata are right; the metadata of its geometry."""
    stored = pq.read_metadata(path).metadata
    geo = json.loads(stored[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["primary_column"] == "geometry"
    (column,) = geo["columns"].values()
    assert column["encoding"] == "WKB"
    assert set(column["geometry_types"]) == types
    assert column["crs"] is None or pyproj.CRS.from_json_dict(column["crs"]) is not None
    assert column["covering"] == {"bbox": {side: ["bbox", side] for side in SIDES}}
    table = pq.read_table(path)
    assert table.schema.field("geometry").type == pa.binary()
    boxes = np.array([[box[side] for side in SIDES] for box in table["bbox"].to_pylist() if box is not None])
    shapes = shapely.from_wkb(table["geometry"].drop_null().to_numpy(zero_copy_only=False))
    assert shapely.is_valid(shapes).all()
    np.testing.assert_array_equal(boxes.reshape(-1, 4), shapely.bounds(shapes))
    assert table["bbox"].null_count == table["geometry"].null_count
    if len(shapes):
        np.testing.assert_array_equal(column["bbox"], shapely.total_bounds(shapes))
    else:
        assert "bbox" not in column
    return dict(column)
