"""Run a command over polygons, and tell what it did."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.cli.arguments import spelt
from pipelines.cli.flags import Parser, pipeline_options
from pipelines.cli.polygon_job import PolygonJob
from pipelines.cli.process import INCOMPLETE
from pipelines.cli.progress import Shown
from pipelines.cli.runner import figures, not_complete, run
from rasteret_beam import metrics
from rasteret_beam.schema import UNMATCHED_REASONS

Counts = Mapping[str, int]


@dataclass(frozen=True)
class PolygonCommand:
    """What differs between the commands over polygons.

    Attributes
    ----------
    parser : function
    job : function of the flags and Beam's options
    shown : sequence of (counter, label)
        In the progress line of a local run.
    matched : str
        What polygons with a record are called.
    lines : function of the counts
        Labels and counters of the summary, after those of the polygons.
    wrong : function of the counts and the job
        What does not add up in the counts of the rows, if anything.
    missing : function of the flags, optional
        Which flag is missing, if one is.
    """

    parser: Callable[[], Parser]
    job: Callable[[argparse.Namespace, PipelineOptions], PolygonJob]
    shown: Shown
    matched: str
    lines: Callable[[Counts], Sequence[tuple[str, str]]]
    wrong: Callable[[Counts, Any], str | None]
    missing: Callable[[argparse.Namespace], str | None] = lambda flags: None

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run the command; gives its exit code."""
        known = self.parser()
        flags, rest = known.parse(argv)
        options = pipeline_options(rest)
        if not flags.retry and flags.bands is None:
            known.error("the following arguments are required: --bands")
        missing = self.missing(flags)
        if missing is not None:
            known.error(missing)
        job = self.job(flags, options)
        sinks = job.sinks
        if sinks.is_done(options):
            print(f"run {sinks.run_id} has its rows in {sinks.place} already; nothing was read or written")
            return 0
        outcome = run(
            job.build,
            options,
            sinks.targets,
            self.shown,
            kept=lambda: sinks.leftovers(options),
            loaded=lambda: sinks.committed(options),
        )
        return outcome if isinstance(outcome, int) else self._end(job, *outcome)

    def _end(self, job: PolygonJob, counts: dict[str, int], seconds: float) -> int:
        """Tell what a job did, and check its accounts."""
        print(self.summary(counts, seconds))
        print(f"{'output':<34}{job.sinks.place}")
        if not counts.get(metrics.POLYGONS_MATCHED) and counts.get(metrics.POLYGONS_UNMATCHED):
            print(f"warning: {spelt(job.why_nothing_matched())}", file=sys.stderr)
        wrong = _polygons_lost(counts) or self.wrong(counts, job)
        if wrong is not None:
            return not_complete(wrong, job.sinks.places)
        letters = job.sinks.of("dead_letters")
        if letters is not None and counts.get(metrics.DEAD_LETTERS):
            print(
                f"warning: {counts[metrics.DEAD_LETTERS]} tile(s) could not be read; try them again with "
                f"--retry '{letters.place}'",
                file=sys.stderr,
            )
            return INCOMPLETE
        return 0

    def summary(self, counts: dict[str, int], seconds: float) -> str:
        """What a job did, as lines for the terminal."""
        reasons = [(f"    {reason}", metrics.unmatched(reason)) for reason in UNMATCHED_REASONS]
        lines = [
            ("polygons read", metrics.POLYGONS_IN),
            (f"  with {self.matched}", metrics.POLYGONS_MATCHED),
            ("  unmatched", metrics.POLYGONS_UNMATCHED),
            *found(counts, reasons),
            *self.lines(counts),
            ("tiles decoded", metrics.TILES_DECODED),
            ("bytes of tiles read", metrics.TILE_BYTES_READ),
        ]
        return figures(counts, seconds, lines)


def found(counts: Counts, lines: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The lines whose counters are not 0."""
    return [(label, name) for label, name in lines if counts.get(name)]


def _polygons_lost(counts: Counts) -> str | None:
    read, matched = counts.get(metrics.POLYGONS_IN, 0), counts.get(metrics.POLYGONS_MATCHED, 0)
    left = counts.get(metrics.POLYGONS_UNMATCHED, 0)
    if read != matched + left:
        return f"{read} polygons were read, but {matched} have a record and {left} are unmatched"
    return None


def rows_lost(counts: Counts, job: PolygonJob, rows: int) -> str | None:
    """What does not add up between the rows that are made and those that are written."""
    left = counts.get(metrics.POLYGONS_UNMATCHED, 0) if job.sinks.of("unmatched") is not None else 0
    due = rows + counts.get(metrics.DEAD_LETTERS, 0) + left
    written = counts.get(metrics.ROWS_WRITTEN, 0)
    if job.sinks.count_rows and due != written:
        return f"{due} rows were to be written, but {written} were"
    return None
