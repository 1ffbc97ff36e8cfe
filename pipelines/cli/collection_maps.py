"""The footprints of a collection for the maps of ``inspect``, those of each CRS for themselves."""

import pyarrow.compute as pc

from rasteret_beam.collection.collection import Collection
from rasteret_beam.collection.explore.footprints import Footprints, footprints_of
from rasteret_beam.errors import InputError
from rasteret_beam.schema import FOOTPRINT_CRS

MOST_OUTLINES = 2_000
"""Different footprints whose outlines are read; of more, the boxes are."""

MOST = 1 << 31


def footprint_groups(collection: Collection) -> tuple[list[Footprints], str]:
    """All different footprints, by their CRS; and why there are none, if there are none."""
    groups = []
    for part in _parts(collection):
        try:
            boxes = footprints_of(part, MOST, boxes=True)
        except InputError as error:
            why = str(error)
            continue
        groups.append(boxes if len(boxes) > MOST_OUTLINES else footprints_of(part, MOST_OUTLINES))
    return groups, "" if groups else why


def _parts(collection: Collection) -> list[Collection]:
    """The records of each CRS of footprints."""
    if FOOTPRINT_CRS not in collection.schema.names:
        return [collection]
    known = pc.unique(collection.to_table([FOOTPRINT_CRS])[FOOTPRINT_CRS]).to_pylist()
    of_crs = pc.field(FOOTPRINT_CRS)
    return [collection.where(of_crs.is_null() if crs is None else of_crs == crs) for crs in known] or [collection]
