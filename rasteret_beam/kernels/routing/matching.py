"""A batch of points and a matcher: what is taken of the records that contain each point, and why some have none."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.index import RoutingIndex
from rasteret_beam.kernels.routing.layers import Hits, Pick
from rasteret_beam.kernels.routing.match import Matcher
from rasteret_beam.kernels.tables.point_times import NO_TIME, point_times


class Matched(NamedTuple):
    """What is taken of the records that contain the points of a batch.

    Attributes
    ----------
    picks : iterable of Pick
    reason : [n] object
        None for points that are sampled, else a key of ``schema.UNSAMPLED_REASONS``.
    times : [n] int64 or None
        Of the points, where the matcher goes by them.
    """

    picks: Iterable[Pick]
    reason: NDArray[np.object_]
    times: Ints | None


def matched(
    index: RoutingIndex,
    points: pa.RecordBatch,
    hits: Hits,
    reason: NDArray[np.object_],
    matcher: Matcher | None = None,
) -> Matched:
    """The picks of a matcher among the hits of a batch, and why points have none.

    Parameters
    ----------
    points : RecordBatch
        With the matcher's ``time_column``, if it has one.
    hits : Hits
        On all grids.
    reason : [n] object
        Why a point cannot be sampled, or None.
    matcher : Matcher, optional
        By default that of the index.

    Raises
    ------
    InputError
        There is no such column, or it does not hold times.
    """
    matcher = matcher or index.matcher
    hits = index.to_sample(hits)
    reason = reason.copy()
    usable = reason == np.array(None)
    reason[usable] = "no_record"
    if matcher.time_column is None:
        reason[hits.point] = None
        return Matched(matcher.picks(hits, len(points)), reason, None)
    times = point_times(points, matcher.time_column)
    timed = times != NO_TIME
    reason[usable & ~timed] = "no_time"
    hits = hits.take(timed[hits.point])
    reason[hits.point] = "out_of_tolerance"
    picks = list(matcher.picks(hits, len(points), times))
    for pick in picks:
        reason[pick.hits.point] = None
    return Matched(picks, reason, times)


def check_times(matcher: Matcher, points: pa.RecordBatch, column: str | None) -> None:
    """Refuse a batch whose times cannot be read, before any pixel is; times that the matcher reads are left to it.

    Raises
    ------
    InputError
        As :func:`.point_times.point_times`.
    """
    if column is not None and matcher.time_column is None:
        point_times(points, column)
