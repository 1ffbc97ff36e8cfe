"""The CRS of the boxes that select records, and the boxes as conditions."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from rasteret_beam.collection.records.selection import RecordSelection
from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.geo.crs import LONLAT, crs_label, same_crs
from rasteret_beam.schema import FOOTPRINT_CRS


def footprint_crss(dataset: ds.Dataset, filter: ds.Expression | None) -> list[str]:
    """CRSs of the footprints of some records, sorted; CRS84 alone if the collection has no others."""
    if FOOTPRINT_CRS not in dataset.schema.names or "bbox" not in dataset.schema.names:
        return [LONLAT]
    columns = {FOOTPRINT_CRS: pc.field(FOOTPRINT_CRS), "side": pc.field("bbox", "xmin")}
    table = dataset.to_table(columns=columns, filter=filter)
    there = table.filter(pc.is_valid(table["side"]))[FOOTPRINT_CRS]
    return sorted(pc.unique(pc.fill_null(there, LONLAT)).to_pylist()) or [LONLAT]


def box_crs(dataset: ds.Dataset, filter: ds.Expression | None, given: str | None = None, what: str = "bbox") -> str:
    """The CRS of a box that selects records: that of all footprints, or CRS84 if some have it.

    Parameters
    ----------
    dataset, filter
        The records.
    given : str, optional
        The CRS that the input declares.
    what : str
        Name of the option in errors.

    Raises
    ------
    InputError
        No footprint is in the given CRS; or none is given, and the footprints are in several, none of which is CRS84.
    """
    known = footprint_crss(dataset, filter)
    if given is not None:
        found = next((crs for crs in known if same_crs(crs, given)), None)
        if found is None:
            where = "longitude and latitude (OGC:CRS84)" if known == [LONLAT] else listed(map(crs_label, known), 6)
            raise InputError(f"{what} are in {crs_label(given)}; give them in {where}")
        return found
    if LONLAT in known:
        return LONLAT
    if len(known) > 1:
        raise InputError(
            f"{what} needs footprints in one CRS, but they are in {listed(map(crs_label, known), 6)}; choose those of "
            f"one first, with where(pyarrow.compute.field({FOOTPRINT_CRS!r}) == ...)"
        )
    return known[0]


def bounds_crs(collection: RecordSelection) -> str | None:
    """CRS of ``bounds``, and of a ``bbox`` that ``subset`` takes.

    OGC:CRS84 if records lie on the Earth; otherwise that of all footprints (the geographic CRS of another body, or an
    engineering CRS); None if they are in several.
    """
    known = footprint_crss(collection.dataset, collection.filter)
    return LONLAT if LONLAT in known else known[0] if len(known) == 1 else None


def in_footprint_crs(schema: pa.Schema, crs: str) -> ds.Expression | None:
    """The condition that a footprint is in a CRS; None if all are."""
    if FOOTPRINT_CRS not in schema.names:
        return None
    return pc.field(FOOTPRINT_CRS).is_null() if crs == LONLAT else pc.field(FOOTPRINT_CRS) == crs


def plane_box(bbox: Sequence[Any], crs: str, what: str = "bbox") -> ds.Expression:
    """Records whose box intersects (xmin, ymin, xmax, ymax) in an engineering CRS.

    Raises
    ------
    InputError
    """
    try:
        west, south, east, north = (float(side) for side in bbox)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} is {bbox!r}; it has to be (xmin, ymin, xmax, ymax) in {crs_label(crs)}") from error
    if not (west <= east and south <= north):
        raise InputError(f"{what} is {tuple(bbox)}; it has to be (xmin, ymin, xmax, ymax), each minimum first")
    across = (pc.field("bbox", "xmin") <= east) & (pc.field("bbox", "xmax") >= west)
    return across & (pc.field("bbox", "ymin") <= north) & (pc.field("bbox", "ymax") >= south)
