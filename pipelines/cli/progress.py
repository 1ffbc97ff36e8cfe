"""The progress of a local run: a line on a terminal, and now and then a line in a log."""

import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Event, Thread
from typing import Protocol

from rasteret_beam import metrics
from rasteret_beam.metrics import PROGRESS

SECONDS = 0.5
LOG_SECONDS = 60.0
"""Time between two lines where standard error is not a terminal."""

BAR = 20
"""Characters of the bar."""

Shown = Sequence[tuple[str, str]]
"""Names of counters and their labels on the terminal."""

SAMPLING: Shown = (
    (metrics.POINTS_IN, "points routed"),
    (metrics.TILES_DECODED, "tiles decoded"),
    (metrics.SAMPLES_OUT, "rows sampled"),
    (metrics.ROWS_WRITTEN, "rows written"),
)


class Progress(Protocol):
    """What is shown of a run."""

    def line(self, counts: Mapping[str, int], seconds: float) -> str:
        """One line, from the counts since the start of the run."""
        ...


class Counts:
    """Progress of a run whose size is not known: its counts so far."""

    def __init__(self, shown: Shown = SAMPLING):
        self.shown = shown

    def line(self, counts: Mapping[str, int], seconds: float) -> str:
        parts = [f"{counts.get(name, 0):,} {label}" for name, label in self.shown]
        return f"{seconds:5.0f} s  " + ", ".join(parts)


class PointsDone:
    """Progress of a run in rounds: the points whose rows are made, of all.

    Parameters
    ----------
    total : int or None
        Points of the run, if known.
    before : int
        Points of the rounds that an earlier process has finished.
    """

    def __init__(self, total: int | None, before: int = 0):
        self.total = total
        self.before = self.finished = before
        self._start: Mapping[str, int] = PROGRESS.snapshot()

    def end_round(self, points: int) -> None:
        """Count the points of a round that has ended."""
        self.finished += points
        self._start = PROGRESS.snapshot()

    def done(self) -> int:
        """Points of finished rounds, and the share of the present round's points whose values are done with."""
        now = PROGRESS.snapshot()

        def of(name: str) -> int:
            return now.get(name, 0) - self._start.get(name, 0)

        routed, done = of(metrics.VALUES_ROUTED), sum(map(of, metrics.VALUES_DONE))
        return self.finished + (of(metrics.POINTS_IN) * min(done, routed) // routed if routed else 0)

    def line(self, counts: Mapping[str, int], seconds: float) -> str:
        done = self.done()
        rate = f"{counts.get(metrics.SAMPLES_OUT, 0) / max(seconds, 1e-9):,.0f} rows/s"
        if self.total is None:
            return f"{done:,} points done, {counts.get(metrics.POINTS_IN, 0):,} read, {rate}, {clock(seconds)}"
        share = min(1.0, done / max(1, self.total))
        bar = "#" * int(share * BAR)
        line = f"[{bar:-<{BAR}}] {share:4.0%}  {done:,} of {self.total:,} points, {rate}"
        here = done - self.before
        if not here:
            return f"{line}, {counts.get(metrics.POINTS_IN, 0):,} routed"
        return f"{line}, {clock(seconds * (self.total - done) / here)} left"


def clock(seconds: float) -> str:
    """A time as ``h:mm:ss``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


@contextmanager
def progress(shown: Progress, with_log: bool = True) -> Iterator[None]:
    """Show the progress of the work of this process on standard error; ``with_log``: also if it is not a terminal."""
    is_terminal = sys.stderr.isatty()
    if not (is_terminal or with_log):
        yield
        return
    done = Event()
    start, before = time.monotonic(), PROGRESS.snapshot()

    def tick() -> None:
        while not done.wait(SECONDS if is_terminal else LOG_SECONDS):
            counts = {name: value - before.get(name, 0) for name, value in PROGRESS.snapshot().items()}
            _show(shown.line(counts, time.monotonic() - start), is_terminal)

    ticker = Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()
        if is_terminal:
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _show(line: str, is_terminal: bool) -> None:
    if is_terminal:
        width = shutil.get_terminal_size().columns
        print("\r\033[K" + line[: max(1, width - 1)], end="", file=sys.stderr, flush=True)
    else:
        print(line, file=sys.stderr, flush=True)
