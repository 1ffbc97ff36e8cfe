"""Criteria that records are chosen by, as expressions over a collection's columns."""

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from rasteret_beam.collection.date_ranges import DateRange, date_bounds
from rasteret_beam.errors import InputError


def meets_any(boxes: Sequence[Sequence[float]], what: str = "bbox") -> ds.Expression:
    """Records whose box meets one of some boxes; see :func:`meets_box`."""
    return _any([meets_box(box, what) for box in boxes])


def _any(expressions: list[ds.Expression]) -> ds.Expression:
    whole = expressions[0]
    for expression in expressions[1:]:
        whole = whole | expression
    return whole


def meets_box(bbox: Sequence[float], what: str = "bbox") -> ds.Expression:
    """Records whose box meets (west, south, east, north), in degrees; one with west > east spans the antimeridian.

    ``what`` is what an error calls it.

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


def in_range(date_range: DateRange) -> ds.Expression:
    """Records of a span of time; see :func:`rasteret_beam.collection.date_ranges.date_bounds`."""
    lower, upper = (pa.scalar(moment, type=pa.timestamp("us")) for moment in date_bounds(date_range))
    at = pc.field("datetime")
    if not lower.is_valid:
        return at <= upper
    return (at >= lower) & (at <= upper) if upper.is_valid else at >= lower
