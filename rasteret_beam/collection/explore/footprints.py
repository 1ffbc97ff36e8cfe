"""The different footprints of a collection's records, with their dates, few enough to draw."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import shapely
from numpy.typing import NDArray

from rasteret_beam.collection.records.selection import RecordSelection
from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.geo.crs import LONLAT, crs_label, is_degrees
from rasteret_beam.schema import BBOX_TYPE, FOOTPRINT_CRS

SIDES = tuple(BBOX_TYPE.names)
SEED = 17
DETAIL = 1 / 4_000
"""Of the extent of a map, the distance by which outlines may be simplified."""


@dataclass(frozen=True, eq=False)
class Footprints:
    """n different footprints, and how many there are in all.

    Attributes
    ----------
    shapes : [n] object
        Shapely geometries in ``crs``.
    first, last : [n] datetime64[D]
        First and last day of the records that have this footprint; NaT where none has one.
    records : [n] int64
        How many records have it.
    ids : [n] object
        The id of one of them.
    crs : str
        OGC:CRS84, or that of another body or a local one.
    different, without : int
        Different footprints of the collection, and records without one.
    """

    shapes: NDArray[np.object_]
    first: NDArray[np.datetime64]
    last: NDArray[np.datetime64]
    records: NDArray[np.int64]
    ids: NDArray[np.object_]
    crs: str
    different: int
    without: int

    def __len__(self) -> int:
        return len(self.shapes)

    @property
    def on_earth(self) -> bool:
        return self.crs == LONLAT

    @property
    def in_degrees(self) -> bool:
        return is_degrees(self.crs)

    def note(self) -> str:
        """What a map of these leaves out."""
        parts = []
        if self.different > len(self):
            parts.append(f"{len(self):,} of {self.different:,} footprints")
        if self.without:
            parts.append(f"{self.without:,} records without a footprint")
        return "; ".join(parts)

    def features(self) -> list[dict[str, Any]]:
        """Properties of each footprint, for maps that show them."""
        columns = (self.ids.tolist(), self.records.tolist(), _days(self.first), _days(self.last))
        return [
            {"id": name, "records": count, "first": first, "last": last}
            for name, count, first, last in zip(*columns, strict=True)
        ]


def footprints_of(collection: RecordSelection, limit: int, *, boxes: bool = False) -> Footprints:
    """The different footprints of a collection: a repeatable random choice, if there are more than ``limit``.

    Records with the same box have the same footprint.

    Parameters
    ----------
    collection : RecordSelection
    limit : int
    boxes : bool
        Boxes in place of outlines, which need not be read.

    Raises
    ------
    InputError
        The collection has no footprints, or footprints in several CRSs.
    """
    records, crs = _records(collection)
    found = records.filter(pc.is_valid(records["xmin"]))
    if not len(found):
        why = f"none of its {len(records):,} records has a footprint" if len(records) else "it has no records"
        raise InputError(f"collection {collection.name!r} has no footprints to draw: {why}")
    ends = [("datetime", "min"), ("datetime", "max"), ("row", "count"), ("row", "min")]
    numbered = found.append_column("row", pa.array(np.arange(len(found))))
    grouped = numbered.group_by(list(SIDES)).aggregate(ends)
    different = len(grouped)
    if different > limit:
        grouped = grouped.sort_by([(side, "ascending") for side in SIDES])
        grouped = grouped.take(np.sort(np.random.default_rng(SEED).choice(different, limit, replace=False)))
    sides = [grouped[side].to_numpy() for side in SIDES]
    ids = found["id"].take(grouped["row_min"]).to_pylist()
    shapes = shapely.box(*sides) if boxes else _outlines(collection, ids, sides)
    first, last = (grouped[f"datetime_{end}"].to_numpy().astype("datetime64[D]") for end in ("min", "max"))
    counts, named = grouped["row_count"].to_numpy(), np.array(ids, dtype=object)
    return Footprints(shapes, first, last, counts, named, crs, different, len(records) - len(found))


def _records(collection: RecordSelection) -> tuple[pa.Table, str]:
    """Id, datetime and box of the records, and the one CRS of the boxes."""
    columns: dict[str, ds.Expression] = {name: pc.field(name) for name in ("id", "datetime")}
    if "bbox" not in collection.schema.names:
        raise InputError(f"collection {collection.name!r} has no footprints to draw: it lacks column bbox")
    columns |= {side: pc.field("bbox", side) for side in SIDES}
    if FOOTPRINT_CRS in collection.schema.names:
        columns[FOOTPRINT_CRS] = pc.field(FOOTPRINT_CRS)
    table = collection.dataset.to_table(columns=columns, filter=collection.filter)
    if FOOTPRINT_CRS not in columns:
        return table, LONLAT
    there = table.filter(pc.is_valid(table["xmin"]))
    known = sorted(pc.unique(pc.fill_null(there[FOOTPRINT_CRS], LONLAT)).to_pylist())
    if len(known) > 1:
        raise InputError(
            f"the footprints are in several CRSs: {listed(map(crs_label, known), 6)}; choose those of one, as with "
            f"where(pyarrow.compute.field({FOOTPRINT_CRS!r}) == ...)"
        )
    return table, known[0] if known else LONLAT


def _outlines(collection: RecordSelection, ids: list[str], sides: list[NDArray[np.float64]]) -> NDArray[np.object_]:
    """The outlines of records, simplified as a map allows; the box where a record has no geometry."""
    of_ids = collection.where(pc.field("id").isin(pa.array(ids, pa.string()))).to_table(["id", "geometry"])
    order = pc.index_in(pa.array(ids, pa.string()), value_set=of_ids["id"].combine_chunks())
    shapes = shapely.from_wkb(of_ids["geometry"].take(order).to_numpy(), on_invalid="ignore")
    missing = shapely.is_missing(shapes) | shapely.is_empty(shapes)
    shapes[missing] = shapely.box(*(side[missing] for side in sides))
    west, south, east, north = shapely.total_bounds(shapes)
    return shapely.simplify(shapes, max(east - west, north - south) * DETAIL)


def _days(moments: NDArray[np.datetime64]) -> list[str]:
    return ["" if np.isnat(moment) else str(moment) for moment in moments]
