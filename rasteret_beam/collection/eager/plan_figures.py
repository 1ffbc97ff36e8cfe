"""The figures of a plan: its totals, and the tiles with the most points."""

import json
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from rasteret_beam import metrics

COUNTS_KEY = b"rasteret_beam.plan"
"""Schema metadata key of a plan: its counts of points, as JSON."""

RECORDS = "records"
CANDIDATES = "max_candidates"
QUALITY_POINTS = "quality_points"
TILES_OF_UNKNOWN_SIZE = "tiles_of_unknown_size"


def plan_totals(table: pa.Table) -> dict[str, int]:
    """The sums of a plan, under the names of the metrics of a run (see :mod:`rasteret_beam.metrics`).

    It also has :data:`RECORDS`; :data:`TILES_OF_UNKNOWN_SIZE`, whose bytes are not in the sum; and with
    ``skip_invalid`` :data:`CANDIDATES`, the number of records that may be read at a point, of which the plan has one.
    """
    counts = json.loads((table.schema.metadata or {})[COUNTS_KEY])
    of_quality = counts.pop(QUALITY_POINTS)
    read = pc.or_(pc.is_valid(table["request"]), pc.equal(table["engine"], "rasterio"))
    totals = {
        RECORDS: pc.count_distinct(table["record_id"]),
        metrics.TILES_DECODED: pc.sum(read, min_count=0),
        metrics.TILE_BYTES_READ: pc.sum(table["bytes"], min_count=0),
        TILES_OF_UNKNOWN_SIZE: pa.scalar(table["bytes"].null_count),
        metrics.RANGE_REQUESTS: pc.count_distinct(table["request"]),
        metrics.SAMPLES_OUT: pc.sum(table["points"], min_count=0),
    }
    sums = counts | {name: sum.as_py() for name, sum in totals.items()}
    return sums | {metrics.SAMPLES_OUT: sums[metrics.SAMPLES_OUT] - of_quality}


def crowded_tiles(table: pa.Table, count: int = 10) -> list[dict[str, Any]]:
    """The tiles of a plan with the most points: record_id, tile_row, tile_col, points, and a list of bands."""
    if not len(table):
        return []
    places = ["record_id", "tile_row", "tile_col", "points"]
    grouped = table.group_by(places).aggregate([("band", "list")]).rename_columns([*places, "bands"])
    order = [("points", "descending"), *((name, "ascending") for name in places[:3])]
    return grouped.take(pc.select_k_unstable(grouped, k=count, sort_keys=order)).to_pylist()
