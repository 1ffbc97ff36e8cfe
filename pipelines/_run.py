"""Running a pipeline from the command line: one clear line for an error, an honest exit code."""

import logging
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.runners.runner import PipelineState

from pipelines._progress import SAMPLING, Shown, progress
from rasteret_beam import metrics
from rasteret_beam.errors import RasteretBeamError
from rasteret_beam.metrics import NAMESPACE
from rasteret_beam.schema import UNSAMPLED_REASONS
from rasteret_beam.transforms.files import delete_folder, matching

USAGE, FAILED, INTERRUPTED = 2, 1, 130

# The error of a worker arrives as the text of its traceback.
OURS = re.compile(r"^rasteret_beam\.errors\.\w+Error: (.*?)(?= \[while running '|\n\n|\n\w+Error: |\Z)", re.M | re.S)
STEP = re.compile(r" \[while running '([^']*)'\]")


def command(main: Callable[[], int]) -> NoReturn:
    """Run a command's main function and leave with its exit code; our errors become one line."""
    try:
        code = main()
    except RasteretBeamError as error:
        print(f"error: {error}", file=sys.stderr)
        code = FAILED
    except KeyboardInterrupt:
        print("interrupted before the job began", file=sys.stderr)
        code = INTERRUPTED
    sys.exit(code)


def run(
    build: Callable[[beam.Pipeline], Any],
    options: PipelineOptions,
    temporaries: Iterable[str],
    shown: Shown = SAMPLING,
    kept: Iterable[str] = (),
) -> tuple[dict[str, int], float] | int:
    """Build and run a pipeline to its end.

    Parameters
    ----------
    build : function of the pipeline
    options : PipelineOptions
    temporaries : iterable of str
        Folders to delete when the run fails or is interrupted.
    shown : sequence of (counter, label)
        What a local run shows while it is under way.
    kept : iterable of str
        Folders to delete when the run is interrupted, and to name when it fails.

    Returns
    -------
    (counts, seconds), or the exit code of a run that did not succeed
    """
    start = time.monotonic()
    temporaries, kept = list(temporaries), list(kept)
    try:
        with progress(shown), _quiet(), _leaving_on_signals([*temporaries, *kept]):
            pipeline = beam.Pipeline(options=options)
            build(pipeline)
            result = pipeline.run()
            state = result.wait_until_finish()
    except Exception as error:
        _clean(temporaries)
        message = root_message(error)
        print(f"error: {message}", file=sys.stderr)
        _name_kept(folder for folder in kept if folder not in message)
        return FAILED
    if state != PipelineState.DONE:
        _clean(temporaries)
        print(f"error: the job ended in state {state}; see the runner's log", file=sys.stderr)
        _name_kept(kept)
        return FAILED
    return counted(result), time.monotonic() - start


@contextmanager
def _leaving_on_signals(temporaries: list[str]) -> Iterator[None]:
    """On Ctrl-C and on termination, remove what is under way and leave at once.

    An exception would not do: Beam wraps it as an error of the step it meets, and waits for
    threads that may be waiting for a server.
    """

    def leave(*_: object) -> None:
        _clean(temporaries)
        start = b"\r\033[K" if sys.stderr.isatty() else b""
        os.write(2, start + b"interrupted: the job was not finished; what was under way is removed\n")
        os._exit(INTERRUPTED)

    before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _quiet:
    """Keep Beam's log of a failing bundle off the terminal: its traceback repeats the one line we print."""

    def __enter__(self) -> None:
        self.before = logging.getLogger("apache_beam").level
        logging.getLogger("apache_beam").setLevel(logging.CRITICAL + 1)

    def __exit__(self, *_: object) -> None:
        logging.getLogger("apache_beam").setLevel(self.before)


def _clean(temporaries: Iterable[str]) -> None:
    for folder in temporaries:
        delete_folder(folder)


def _name_kept(folders: Iterable[str]) -> None:
    for folder in folders:
        if matching(folder + "/", "**"):
            print(f"files of the unfinished job are kept in {folder}/; delete them when done with", file=sys.stderr)


def root_message(error: BaseException) -> str:
    """The message of our error at the root of a failed run, or the last line of any other."""
    text = str(error)
    if isinstance(error, RasteretBeamError):
        return STEP.sub("", text)
    found = OURS.findall(text)
    if found:
        return str(found[-1]).strip()
    lines = [line for line in text.splitlines() if line.strip()]
    return STEP.sub(r" (in step \1)", lines[-1]) if lines else type(error).__name__


def counted(result: Any) -> dict[str, int]:
    """Our counters of a finished job, over all its steps."""
    counts: dict[str, int] = {}
    for metric in result.metrics().query()["counters"]:
        if metric.key.metric.namespace == NAMESPACE:
            name = metric.key.metric.name
            value = metric.committed if metric.committed is not None else metric.attempted
            counts[name] = counts.get(name, 0) + int(value or 0)
    return counts


def summary(counts: dict[str, int], seconds: float) -> str:
    """What a sampling job did, as lines for the terminal."""
    reasons = [
        (f"    {reason}", metrics.unsampled(reason))
        for reason in UNSAMPLED_REASONS
        if counts.get(metrics.unsampled(reason))
    ]
    lines = [
        ("points read", metrics.POINTS_IN),
        ("  sampled", metrics.POINTS_SAMPLED),
        ("  unsampled", metrics.POINTS_UNSAMPLED),
        *reasons,
        ("rows", metrics.SAMPLES_OUT),
        ("tiles decoded", metrics.TILES_DECODED),
        ("bytes of tiles read", metrics.TILE_BYTES_READ),
    ]
    return figures(counts, seconds, lines)


def figures(counts: dict[str, int], seconds: float, lines: Sequence[tuple[str, str]]) -> str:
    """Counts as lines of (label, counter) for the terminal, and the time."""
    shown = [f"{label:<34}{counts.get(name, 0):>16,}" for label, name in lines]
    return "\n".join([*shown, f"{'seconds':<34}{seconds:>16.1f}"])


def accounting_error(counts: dict[str, int]) -> str | None:
    """What does not add up in the counts of a sampling job, if anything."""
    points, sampled = counts.get(metrics.POINTS_IN, 0), counts.get(metrics.POINTS_SAMPLED, 0)
    left, rows = counts.get(metrics.POINTS_UNSAMPLED, 0), counts.get(metrics.SAMPLES_OUT, 0)
    if points != sampled + left:
        return f"{points} points were read, but {sampled} sampled and {left} left unsampled"
    written = counts.get(metrics.ROWS_WRITTEN, 0)
    return f"{rows} rows were sampled, but {written} written" if rows > written else None


def is_local(options: PipelineOptions) -> bool:
    """Whether the job runs in this process."""
    return str(options.view_as(StandardOptions).runner).endswith("FnApiRunner")
