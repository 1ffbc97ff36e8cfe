"""The progress line of a local run."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import Event, Thread

from rasteret_beam import metrics
from rasteret_beam.metrics import PROGRESS

SECONDS = 0.5
Shown = Sequence[tuple[str, str]]
"""Names of counters and their labels on the terminal."""

SAMPLING: Shown = (
    (metrics.POINTS_IN, "points routed"),
    (metrics.TILES_DECODED, "tiles decoded"),
    (metrics.SAMPLES_OUT, "rows sampled"),
    (metrics.ROWS_WRITTEN, "rows written"),
)


def progress_line(counts: dict[str, int], seconds: float, shown: Shown = SAMPLING) -> str:
    """Counts so far, as one line."""
    parts = [f"{counts.get(name, 0):,} {label}" for name, label in shown]
    return f"{seconds:5.0f} s  " + ", ".join(parts)


@contextmanager
def progress(shown: Shown = SAMPLING) -> Iterator[None]:
    """Show the counts of this process on standard error, if it is a terminal."""
    if not sys.stderr.isatty():
        yield
        return
    done = Event()
    start = time.monotonic()

    def tick() -> None:
        while not done.wait(SECONDS):
            line = progress_line(PROGRESS.snapshot(), time.monotonic() - start, shown)
            print("\r\033[K" + line, end="", file=sys.stderr)
            sys.stderr.flush()

    ticker = Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()
        print("\r\033[K", end="", file=sys.stderr, flush=True)
