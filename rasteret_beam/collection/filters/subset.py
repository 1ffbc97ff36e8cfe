"""Check the criteria of ``Collection.subset`` and turn them into expressions over the collection's columns."""

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from rasteret_beam.collection.eager.geometries import boxes_of
from rasteret_beam.collection.eager.unknown_keywords import names_of
from rasteret_beam.collection.filters.criteria import in_range, meets_any
from rasteret_beam.collection.filters.date_ranges import DateRange
from rasteret_beam.collection.filters.footprint_boxes import box_crs, in_footprint_crs
from rasteret_beam.collection.records.selection import RecordSelection
from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.schema import CHECKSUMS, EXTRA_SUFFIX, METADATA_SUFFIX

FEW_BOXES = 64

Boxes = list[tuple[float, ...]]


def criteria_of(
    collection: RecordSelection,
    bbox: Sequence[float] | None,
    date_range: DateRange | None,
    geometries: Any,
    cloud_cover_lt: float | None,
    ids: str | Iterable[str] | None,
) -> tuple[list[ds.Expression], Boxes]:
    """An expression for each given criterion, and some of its boxes for errors.

    Raises
    ------
    InputError
        A criterion cannot be used, or there are none.
    """
    criteria: list[ds.Expression] = []
    boxes: Boxes = []
    names = frozenset(collection.schema.names)
    for given, option, column in (
        (bbox, "bbox", "bbox"),
        (geometries, "geometries", "bbox"),
        (cloud_cover_lt, "cloud_cover_lt", "eo:cloud_cover"),
    ):
        if given is not None and column not in names:
            raise InputError(f"{option} needs column {column}, which the collection lacks")
    if bbox is not None:
        criteria.append(_in_boxes(collection, [bbox], box_crs(collection.dataset, collection.filter), "bbox"))
        boxes.append(tuple(map(float, bbox)))
    if date_range is not None:
        criteria.append(in_range(date_range, collection.schema))
    if geometries is not None:
        found, given = boxes_of(geometries)
        criteria.append(
            _meets_boxes(collection, found, box_crs(collection.dataset, collection.filter, given, "geometries"))
        )
        boxes += map(tuple, found[:FEW_BOXES].tolist())
    if cloud_cover_lt is not None:
        criteria.append(pc.field("eo:cloud_cover") < _percent(cloud_cover_lt))
    if ids is not None:
        criteria.append(pc.field("id").isin(pa.array(names_of(ids, "ids"), type=pa.string())))
    if not criteria:
        raise InputError("subset needs a criterion: bbox, date_range, geometries, cloud_cover_lt or ids")
    return criteria, boxes


def _percent(given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, Real) or not math.isfinite(given):
        raise InputError(f"cloud_cover_lt is {given!r}; it has to be a number, in percent")
    return float(given)


def _in_boxes(collection: RecordSelection, boxes: Sequence[Any], crs: str, what: str) -> ds.Expression:
    """Records whose footprint is in a CRS, and whose box intersects one of some boxes in it."""
    meets, in_crs = meets_any(boxes, what, crs), in_footprint_crs(collection.schema, crs)
    return meets if in_crs is None else in_crs & meets


def _meets_boxes(collection: RecordSelection, boxes: Floats, crs: str) -> ds.Expression:
    what = "the box of a geometry"
    if len(boxes) <= FEW_BOXES:
        return _in_boxes(collection, boxes.tolist(), crs, what)
    # An expression with this many terms would overflow Arrow's stack; select the records by id instead.
    parts = [boxes[start : start + FEW_BOXES].tolist() for start in range(0, len(boxes), FEW_BOXES)]
    ids = {
        record
        for part in parts
        for record in collection.where(_in_boxes(collection, part, crs, what)).to_table(["id"])["id"].to_pylist()
    }
    return pc.field("id").isin(pa.array(sorted(ids), type=pa.string()))


def check_expression(expression: Any, schema: pa.Schema) -> None:
    """Refuse a condition that cannot be applied to the columns of a collection.

    Raises
    ------
    InputError
    """
    if not isinstance(expression, ds.Expression):
        raise InputError(
            f"where takes an Arrow expression, such as pyarrow.compute.field('id') == 'a', not a "
            f"{type(expression).__name__}"
        )
    try:
        schema.empty_table().filter(expression)
    except (pa.ArrowException, TypeError) as error:
        of_bands = ("assets", "grids", CHECKSUMS)
        names = [n for n in schema.names if n not in of_bands and not n.endswith((METADATA_SUFFIX, EXTRA_SUFFIX))]
        reason = str(error).splitlines()[0]
        raise InputError(
            f"where({expression}) cannot be used: {reason}; the collection has columns {listed(names, 40)}"
        ) from error
