"""Explain why a filter by boxes matches no record."""

import os
from collections.abc import Sequence

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs as pafs

from rasteret_beam.collection.filters.criteria import meets_any
from rasteret_beam.collection.filters.footprint_boxes import footprint_crss
from rasteret_beam.errors import listed
from rasteret_beam.kernels.geo.crs import LONLAT, crs_label
from rasteret_beam.kernels.routing.no_hit import EXCHANGED

SMALL = 16 << 20
"""Size of local files up to which a subset is searched for a record at once, not when it is used."""

Boxes = Sequence[Sequence[float]]


def is_small(dataset: ds.Dataset) -> bool:
    """Whether a collection is in memory or in a few local files."""
    if not isinstance(dataset, ds.FileSystemDataset):
        return True
    local = isinstance(dataset.filesystem, pafs.LocalFileSystem)
    return local and sum(os.path.getsize(path) for path in dataset.files if os.path.exists(path)) <= SMALL


def why_no_record(dataset: ds.Dataset, boxes: Boxes) -> str:
    """A sentence about boxes (west, south, east, north) that no record intersects; detects exchanged coordinates."""
    shown = listed([_shown(box) for box in boxes], 2)
    known = footprint_crss(dataset, None)
    if known != [LONLAT]:
        crs = listed(map(crs_label, known), 6)
        return f"no record intersects {shown} (west, south, east, north); the footprints are in {crs}"
    exchanged = [(south, west, north, east) for west, south, east, north in boxes]
    if _meet(dataset, exchanged):
        return f"no record intersects {shown} (west, south, east, north in degrees), but some do {EXCHANGED}"
    return f"no record intersects {shown} (west, south, east, north in degrees); {_where(dataset)}"


def _meet(dataset: ds.Dataset, boxes: Boxes) -> bool:
    usable = [box for box in boxes if -90 <= box[1] <= box[3] <= 90 and max(abs(box[0]), abs(box[2])) <= 360]
    if not usable or "bbox" not in dataset.schema.names:
        return False
    return len(dataset.scanner(columns=["id"], filter=meets_any(usable)).head(1)) > 0


def _where(dataset: ds.Dataset) -> str:
    if "bbox" not in dataset.schema.names:
        return "the records have no boxes"
    sides = dataset.to_table(columns={side: pc.field("bbox", side) for side in ("xmin", "ymin", "xmax", "ymax")})
    ends = [
        most(sides[side]).as_py()
        for side, most in zip(sides.column_names, (pc.min, pc.min, pc.max, pc.max), strict=True)
    ]
    known = None not in ends and np.isfinite(ends).all()
    return f"the records lie in {_shown(ends)}" if known else "the records have no boxes"


def _shown(box: Sequence[float]) -> str:
    return f"({', '.join(f'{side:g}' for side in box)})"
