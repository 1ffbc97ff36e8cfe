"""Selection criteria as expressions over a collection's columns."""

from collections.abc import Sequence
from datetime import UTC
from datetime import datetime as Datetime
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from rasteret_beam.collection.filters.date_ranges import DateRange, date_bounds
from rasteret_beam.collection.filters.footprint_boxes import plane_box
from rasteret_beam.collection.parquet.layout import SPAN
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.geo.crs import LONLAT, is_degrees


def meets_any(boxes: Sequence[Sequence[float]], what: str = "bbox", crs: str = LONLAT) -> ds.Expression:
    """Records whose box intersects one of the given boxes, in a CRS of footprints; see :func:`meets_box`."""
    degrees = is_degrees(crs)
    return _any([meets_box(box, what) if degrees else plane_box(box, crs, what) for box in boxes])


def _any(expressions: list[ds.Expression]) -> ds.Expression:
    whole = expressions[0]
    for expression in expressions[1:]:
        whole = whole | expression
    return whole


def meets_box(bbox: Sequence[float], what: str = "bbox") -> ds.Expression:
    """Records whose box intersects (west, south, east, north) in degrees; west > east crosses the antimeridian.

    ``what`` is the name of the box in errors.

    Raises
    ------
    InputError
    """
    try:
        west, south, east, north = (float(side) for side in bbox)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} is {bbox!r}; it has to be (west, south, east, north) in degrees") from error
    if not (-90 <= south <= north <= 90 and -360 <= west <= 360 and -360 <= east <= 360):
        raise InputError(f"{what} is {tuple(bbox)}; it has to be (west, south, east, north) in degrees, south <= north")
    spans = [(west, east)] if west <= east else [(west, 180.0), (-180.0, east)]
    meets = [(pc.field("bbox", "xmin") <= upper) & (pc.field("bbox", "xmax") >= lower) for lower, upper in spans]
    return _any(meets) & (pc.field("bbox", "ymin") <= north) & (pc.field("bbox", "ymax") >= south)


def in_range(date_range: DateRange, schema: pa.Schema) -> ds.Expression:
    """Records in a time range; see :func:`rasteret_beam.collection.filters.date_ranges.date_bounds`.

    A record without a datetime matches if the time from ``start_datetime`` to ``end_datetime`` overlaps the range; a
    null leaves that side open. A record without any of the three never matches.
    """
    lower, upper = date_bounds(date_range)
    at = pc.field("datetime")
    within = _all([*_after(lower, schema, "datetime"), *_before(upper, schema, "datetime")])
    if not all(name in schema.names and pa.types.is_timestamp(schema.field(name).type) for name in SPAN):
        return within
    start, end = (pc.field(name) for name in SPAN)
    overlaps = [
        *(start.is_null() | term for term in _before(upper, schema, SPAN[0])),
        *(end.is_null() | term for term in _after(lower, schema, SPAN[1])),
    ]
    return within | _all([at.is_null(), start.is_valid() | end.is_valid(), *overlaps])


def _all(terms: Sequence[ds.Expression]) -> ds.Expression:
    return reduce(lambda one, other: one & other, terms)


def _after(moment: Datetime | None, schema: pa.Schema, name: str) -> list[ds.Expression]:
    return [pc.field(name) >= _moment(moment, schema, name)] if moment is not None else []


def _before(moment: Datetime | None, schema: pa.Schema, name: str) -> list[ds.Expression]:
    return [pc.field(name) <= _moment(moment, schema, name)] if moment is not None else []


def _moment(moment: Datetime, schema: pa.Schema, name: str) -> pa.Scalar:
    """A moment in UTC, to compare with a column of timestamps."""
    zone = schema.field(name).type.tz
    if zone is None:
        return pa.scalar(moment, type=pa.timestamp("us"))
    return pa.scalar(moment.replace(tzinfo=UTC), type=pa.timestamp("us", zone))
