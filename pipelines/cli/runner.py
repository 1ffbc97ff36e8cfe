"""Run a pipeline from the command line, with one line for an error and a correct exit code.

The command does not wait for a job on Dataflow: the launcher of a template ends once the job is submitted, and a
terminal need not stay open for hours.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import (
    DirectOptions,
    GoogleCloudOptions,
    PipelineOptions,
    PortableOptions,
    StandardOptions,
    TestOptions,
)
from apache_beam.runners.runner import PipelineState

from pipelines.cli.arguments import spelt
from pipelines.cli.cleanup import UnderWay, clear_earlier, job_id
from pipelines.cli.job_servers import check_buckets, check_server, end_children
from pipelines.cli.logs import quiet, quiet_workers, show_traceback
from pipelines.cli.memory_report import is_local
from pipelines.cli.process import FAILED, INTERRUPTED, root_message
from pipelines.cli.progress import SAMPLING, Counts, Shown, progress
from pipelines.cli.rounds import Rounds
from pipelines.cli.subcommands import error_line
from rasteret_beam import metrics
from rasteret_beam.errors import listed
from rasteret_beam.metrics import NAMESPACE
from rasteret_beam.schema import UNSAMPLED_REASONS
from rasteret_beam.transforms.sinks.commit import Output, uninterrupted


def run(
    build: Callable[[beam.Pipeline], Any],
    options: PipelineOptions,
    outputs: Sequence[Output],
    shown: Shown = SAMPLING,
    kept: Callable[[], Sequence[str]] = list,
    loaded: Callable[[], str | None] = lambda: None,
    rounds: Rounds | None = None,
) -> tuple[dict[str, int], float] | int:
    """Build a pipeline and run it to its end, or on Dataflow until the job is submitted.

    Parameters
    ----------
    build : function of the pipeline
    options : PipelineOptions
    outputs : sequence of Output
        Their temporary folders are deleted when the run fails or is interrupted.
    shown : sequence of (counter, label)
        Counters in the progress line of a local run.
    kept : function
        Returns the folders to delete when the run is interrupted, and to name when it fails.
    loaded : function
        Returns the table that this run has loaded rows into, or None.
    rounds : Rounds, optional
        Rounds of the job, which take the place of ``build``.

    Returns
    -------
    (counts, seconds), or the exit code of a run that failed or that the command did not wait for
    """
    start = time.monotonic()
    runner = str(options.view_as(StandardOptions).runner)
    under_way = UnderWay(outputs, kept, runner, _lives_here(options), loaded=loaded)
    if rounds is not None:
        under_way.resumable = rounds.resumable
    try:
        check_server(options)
        check_buckets(options)
        clear_earlier(outputs)
        with (
            progress(rounds.points_done if rounds is not None else Counts(shown), with_log=is_local(options)),
            quiet("apache_beam"),
            quiet_workers(in_processes=options.view_as(DirectOptions).direct_running_mode == "multi_processing"),
            under_way.owned(is_waited_for(options)),
            _leaving_on_signals(under_way),
        ):
            if rounds is not None:
                return rounds.run(partial(_counts_of, options, under_way)), time.monotonic() - start
            pipeline = _built(build, options, under_way)
            if not is_waited_for(options):
                print(_handed_over(pipeline, options))
                return 0
            state = _end_state(pipeline, under_way)
    except Exception as error:
        show_traceback()
        under_way.fail(spelt(root_message(error)))
        return FAILED
    if state != PipelineState.DONE:
        under_way.fail(f"the job ended in state {state}; see the runner's log")
        return FAILED
    try:
        return counted(under_way.result), time.monotonic() - start
    except Exception as error:
        show_traceback()
        why = spelt(root_message(error))
        return not_complete(f"the job's counters cannot be read: {why}", [output.path for output in outputs])


def _built(build: Callable[[beam.Pipeline], Any], options: PipelineOptions, under_way: UnderWay) -> beam.Pipeline:
    pipeline = beam.Pipeline(options=options)
    # Beam deletes it after the run, but not if the pipeline does not run or the process exits early.
    under_way.folders.append(pipeline.local_tempdir)
    build(pipeline)
    return pipeline


def _end_state(pipeline: beam.Pipeline, under_way: UnderWay) -> str:
    under_way.has_begun = True
    under_way.result = pipeline.run()
    return str(under_way.result.wait_until_finish())


def _counts_of(options: PipelineOptions, under_way: UnderWay, build: Callable[[beam.Pipeline], Any]) -> dict[str, int]:
    """Run one of several pipelines of a job; returns its counters.

    Raises
    ------
    Exception
        It fails.
    """
    pipeline = _built(build, options, under_way)
    state = _end_state(pipeline, under_way)
    if state != PipelineState.DONE:
        raise RuntimeError(f"the job ended in state {state}")
    under_way.folders.remove(pipeline.local_tempdir)
    try:
        return counted(under_way.result)
    except Exception as error:
        raise RuntimeError(f"the job's counters cannot be read: {root_message(error)}") from error


def not_complete(why: str, places: Iterable[str]) -> int:
    """Report that the output is in place but may lack rows; returns the exit code."""
    message = f"the output is in place but not complete: {why}; check {listed(places)}"
    print(error_line(message), file=sys.stderr)
    return FAILED


@contextmanager
def _leaving_on_signals(under_way: UnderWay) -> Iterator[None]:
    """On SIGINT, SIGTERM and SIGHUP, remove unfinished files and exit at once.

    An exception does not work: Beam wraps it in an error of the current step, and waits for threads that may be waiting
    for a server. Python's handler does not work either: it runs in the main thread, which does not wake if the signal
    arrives just before it begins to wait. So a separate thread reads the signal numbers from the descriptor that
    ``signal.set_wakeup_fd`` writes to.
    """
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def watch() -> None:
        while came := os.read(reading, 1):
            if came[0] in numbers:
                try:
                    with uninterrupted():
                        message = under_way.interrupt()
                        end_children()
                        start = b"\r\033[K" if sys.stderr.isatty() else b""
                        os.write(sys.stderr.fileno(), start + f"interrupted: {message}\n".encode())
                finally:  # also if the reader is gone: Ctrl-C ends the tee of `2>&1 | tee log` too
                    os._exit(INTERRUPTED)

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    fd_before = signal.set_wakeup_fd(writing)
    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    watcher = threading.Thread(target=watch, name="signals", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(fd_before)
        os.close(writing)
        watcher.join()
        os.close(reading)


def counted(result: Any) -> dict[str, int]:
    """The project's counters of a finished job, summed over its steps."""
    counts: dict[str, int] = {}
    for metric in result.metrics().query()["counters"]:
        if metric.key.metric.namespace == NAMESPACE:
            name = metric.key.metric.name
            value = metric.committed if metric.committed is not None else metric.attempted
            counts[name] = counts.get(name, 0) + int(value or 0)
    return counts


def summary(counts: dict[str, int], seconds: float) -> str:
    """The counts of a sampling job as lines for the terminal."""
    reasons = [
        (f"    {reason}", metrics.unsampled(reason))
        for reason in UNSAMPLED_REASONS
        if counts.get(metrics.unsampled(reason))
    ]
    dead = [("tiles given up", metrics.DEAD_LETTERS), ("  values in them", metrics.VALUES_DEAD_LETTERED)]
    dead = dead if counts.get(metrics.DEAD_LETTERS) else []
    left = [("values left out", metrics.VALUES_LEFT_OUT), ("values looked for further on", metrics.CANDIDATES_WALKED)]
    lines = [
        ("points read", metrics.POINTS_IN),
        ("  sampled", metrics.POINTS_SAMPLED),
        ("  unsampled", metrics.POINTS_UNSAMPLED),
        *reasons,
        ("rows", metrics.SAMPLES_OUT),
        *dead,
        *((label, name) for label, name in left if counts.get(name)),
        ("tiles decoded", metrics.TILES_DECODED),
        ("bytes of tiles read", metrics.TILE_BYTES_READ),
    ]
    return figures(counts, seconds, lines)


def figures(counts: dict[str, int], seconds: float, lines: Sequence[tuple[str, str]]) -> str:
    """Counts, by (label, counter), and the time as lines for the terminal."""
    shown = [f"{label:<34}{counts.get(name, 0):>16,}" for label, name in lines]
    return "\n".join([*shown, f"{'seconds':<34}{seconds:>16.1f}"])


def accounting_error(
    counts: dict[str, int], with_unsampled: bool = False, written: bool = True, rows_each: int | None = None
) -> str | None:
    """An inconsistency in the counts of a sampling job, or None.

    ``written``: the sinks count all rows; ``rows_each``: rows that every point has to have.

    Routing, sampling and writing count independently, so a batch that is lost between two of them is found.
    """

    def of(name: str) -> int:
        return counts.get(name, 0)

    if of(metrics.POINTS_IN) != of(metrics.POINTS_SAMPLED) + of(metrics.POINTS_UNSAMPLED):
        return (
            f"{of(metrics.POINTS_IN)} points were read, but {of(metrics.POINTS_SAMPLED)} sampled and "
            f"{of(metrics.POINTS_UNSAMPLED)} left unsampled"
        )
    if of(metrics.VALUES_ROUTED) != sum(map(of, metrics.VALUES_DONE)):
        left_out = of(metrics.VALUES_LEFT_OUT)
        return (
            f"{of(metrics.VALUES_ROUTED)} values were to be sampled, but {of(metrics.VALUES_SAMPLED)} were and "
            f"{of(metrics.VALUES_DEAD_LETTERED)} were given up" + (f", {left_out} left out" if left_out else "")
        )
    if rows_each is not None:
        wanted, found = of(metrics.POINTS_IN) * rows_each, of(metrics.SAMPLES_OUT) + of(metrics.VALUES_DEAD_LETTERED)
        if found != wanted:
            return f"{of(metrics.POINTS_IN)} points were to have {wanted} rows, but {found} were made or given up"
    rows = of(metrics.SAMPLES_OUT) + of(metrics.DEAD_LETTERS) + (of(metrics.POINTS_UNSAMPLED) if with_unsampled else 0)
    if written and rows != of(metrics.ROWS_WRITTEN):
        return f"{rows} rows were to be written, but {of(metrics.ROWS_WRITTEN)} were"
    return None


def is_waited_for(options: PipelineOptions) -> bool:
    """Whether the command waits for the end of the job and can report its counts."""
    chosen = options.view_as(StandardOptions)
    leaves = chosen.no_wait_until_finish and not is_local(options)
    return not (_is_dataflow(options) or leaves or options.view_as(TestOptions).dry_run)


def _lives_here(options: PipelineOptions) -> bool:
    """Whether the job ends with this process, because its workers or its runner are in it."""
    portable = options.view_as(PortableOptions)
    return is_local(options) or portable.job_endpoint == "embed" or portable.environment_type == "LOOPBACK"


def _is_dataflow(options: PipelineOptions) -> bool:
    return str(options.view_as(StandardOptions).runner).lower().endswith("dataflowrunner")


def _handed_over(pipeline: beam.Pipeline, options: PipelineOptions) -> str:
    """Submit a pipeline without waiting for it; returns a line for the terminal.

    Dataflow's dry run checks the whole job; other runners have no dry run and would run the job.
    """
    cloud = options.view_as(GoogleCloudOptions)
    if options.view_as(TestOptions).dry_run:
        if _is_dataflow(options):
            pipeline.run()
        return "dry run: the job can be built; nothing was submitted"
    result = pipeline.run()
    if cloud.template_location:
        return f"the job is written to {cloud.template_location}; nothing was submitted"
    place = f"project {cloud.project}, region {cloud.region}" if _is_dataflow(options) else "the runner"
    return f"submitted as job {job_id(result)} to {place}; the output appears when the job has finished"
