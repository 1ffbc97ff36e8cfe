"""Looking at something again and again while a stream runs: one value for each window of processing time."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import apache_beam as beam
from apache_beam.io.restriction_trackers import OffsetRange, OffsetRestrictionTracker
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.transforms.core import RestrictionProvider
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

LONGEST_SLEEP = 1.0
"""Seconds. Flink cuts a delay to whole seconds, and keeps state for each turn: a turn sleeps out what was cut off."""


class LookFn(beam.DoFn, RestrictionProvider):
    """A value for each window of ``every`` seconds, the first of which begins at ``begins``.

    A value is looked for when a hundredth of its window has passed, and has the time at which the window begins.
    Values that are overdue (the job began late, or was down) come at once, from one look. The watermark
    is the beginning of the next window, so that readers of the values of a window need not wait for its end.

    Parameters
    ----------
    look : callable
        Gives the value.
    begins, every : int
        Seconds, since 1970 and of a window.
    until : Timestamp
        No look is due at this time or later.
    now, sleep : callable
        The clock, in seconds since 1970.
    """

    def __init__(
        self,
        look: Callable[[], str],
        begins: int,
        every: int,
        until: Timestamp,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self.look = look
        self.begins = begins
        self.every = every
        self.until = until
        self.now = now
        self.sleep = sleep

    def due(self, number: int) -> float:
        """When a window is looked at, in seconds since 1970."""
        return self.begins + number * self.every + self.every / 100

    def time(self, number: int) -> Timestamp:
        """When a window begins."""
        return Timestamp(self.begins + number * self.every)

    @beam.DoFn.unbounded_per_element()  # type: ignore[untyped-decorator]
    def process(
        self,
        _: Any,
        tracker: Any = beam.DoFn.RestrictionParam(),  # noqa: B008  (that is how Beam is told)
        watermark: Any = beam.DoFn.WatermarkEstimatorParam(ManualWatermarkEstimator.default_provider()),  # noqa: B008
    ) -> Iterator[TimestampedValue]:
        number = tracker.current_restriction().start
        watermark.set_watermark(self.time(number))
        self.sleep(min(max(self.due(number) - self.now(), 0.0), LONGEST_SLEEP))
        looked, value = -math.inf, ""
        while self.due(number) <= self.now():
            if not tracker.try_claim(number):
                return
            if looked < self.due(number):
                looked, value = self.now(), self.look()
            yield TimestampedValue(value, self.time(number))
            number += 1
            watermark.set_watermark(self.time(number))
        tracker.defer_remainder(Timestamp(self.due(number)))

    def initial_restriction(self, _: Any) -> OffsetRange:
        left = (self.until.micros - Timestamp(self.due(0)).micros) / 1e6
        return OffsetRange(0, max(0, math.ceil(left / self.every)))

    def create_tracker(self, restriction: OffsetRange) -> OffsetRestrictionTracker:
        return OffsetRestrictionTracker(restriction)

    def restriction_size(self, _: Any, restriction: OffsetRange) -> int:
        """How many looks are overdue: what a runner scales by."""
        passed = math.ceil((self.now() - self.due(0)) / self.every)
        return max(0, min(restriction.stop, passed) - restriction.start)

    def truncate(self, _: Any, restriction: OffsetRange) -> None:
        """A pipeline that is drained looks no more."""
