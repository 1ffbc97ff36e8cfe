"""Run a local job in rounds: each samples a range of the points, and the outputs are put in place after the last.

Memory and temporary disk then depend on the points of a round, not on those of the job, and a killed run can continue
after its last finished round.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import Any, NamedTuple

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.cli.progress import PointsDone
from pipelines.cli.run_identity import Identity, check_same
from pipelines.cli.sinks import Sinks
from rasteret_beam.metrics import POINTS_IN
from rasteret_beam.transforms.sinks import commit as committing
from rasteret_beam.transforms.sinks.rounds import FinishedRound, RoundRecords, listed_files
from rasteret_beam.transforms.sources.held_readers import close_readers
from rasteret_beam.transforms.sources.slices import Slices


class Round(NamedTuple):
    """The points of a round: a range of row numbers."""

    number: int
    first: int
    stop: int


def plan_rounds(sizes: Sequence[int | None], most: int) -> Iterator[Round]:
    """Rounds of at most ``most`` points; they end between row groups where these fit into a round.

    Parameters
    ----------
    sizes : sequence of int or None
        Rows of each part of the table. None stands for an unknown number: the rounds do not end then.
    """
    for number, (first, stop) in enumerate(_ranges(sizes, most)):
        yield Round(number, first, stop)


def _ranges(sizes: Sequence[int | None], most: int) -> Iterator[tuple[int, int]]:
    first = row = 0
    for size in sizes:
        if row > first and (size is None or row + size - first > most):
            yield first, row
            first = row
        while size is None or row + size - first > most:
            yield first, first + most
            first += most
        row += size
    if row > first:
        yield first, row


@dataclass
class Rounds:
    """The rounds of a job.

    Attributes
    ----------
    slices : Slices
    sampling : SamplePoints
    sinks : Sinks
    options : PipelineOptions
    most : int
        Points of a round.
    identity : Identity
        What the rows depend on.
    finished : list of FinishedRound
    """

    slices: Slices
    sampling: Any
    sinks: Sinks
    options: PipelineOptions
    most: int
    identity: Identity
    finished: list[FinishedRound] = field(default_factory=list)
    _is_resumed: bool = False
    _is_loaded: bool = False

    @property
    def records(self) -> RoundRecords:
        return RoundRecords(self.sinks.folders(self.options)[self.sinks.members[0].step])

    @property
    def total(self) -> int | None:
        """Points of the job, if known."""
        sizes = [size for size in self.slices.sizes if size is not None]
        return sum(sizes) if len(sizes) == len(self.slices.sizes) else None

    @cached_property
    def points_done(self) -> PointsDone:
        """Progress of the job, of which finished rounds are a part."""
        return PointsDone(self.total, sum(each.counts.get(POINTS_IN, 0) for each in self.finished))

    def resume(self, round_points: int | None) -> None:
        """Continue the latest unfinished run with the same output.

        Raises
        ------
        InputError
            There is none, it may still be active, or it would give other rows.
        OutputError
            A file of a finished round is missing, or the records are damaged.
        """
        run, described = self.sinks.unfinished_run(self.options)
        began = str(described["began"])
        given = {} if round_points is None else {"--round_points": str(round_points)}
        before = {} if round_points is None else {"--round_points": str(described["round_points"])}
        check_same(described["identity"] | before, self.identity | given, began)
        self.most = int(described["round_points"])
        self.sinks.take_runs(described["runs"])
        self.finished = RoundRecords(run).finished()
        self.sinks.check_files(self.finished, self.options)
        self._is_resumed = True
        print(f"resuming the run that began {began}: {self.progress}", file=sys.stderr)

    @property
    def progress(self) -> str:
        """How much is finished, in words."""
        points = sum(each.counts.get(POINTS_IN, 0) for each in self.finished)
        of = f" of {self.total:,}" if self.total is not None else ""
        return f"{points:,}{of} points in {len(self.finished)} round(s) are finished"

    def resumable(self) -> str | None:
        """How to resume this run, if a part of it is finished."""
        if not self.finished or self._is_loaded:  # rows that are loaded cannot be loaded again
            return None
        return f"{self.progress} and kept; run the command again with --resume to continue, or without it to start anew"

    def run(self, run_pipeline: Callable[[Callable[[beam.Pipeline], None]], dict[str, int]]) -> dict[str, int]:
        """Run the rounds that are not finished, and put the outputs in place; returns the counters of all rounds."""
        self._begin()
        done = {each.number for each in self.finished}
        with ExitStack() as stack:
            stack.callback(close_readers)
            stack.enter_context(self.sampling.held())
            for planned in plan_rounds(self.slices.sizes, self.most):
                if planned.number in done:
                    continue
                if self._is_at_end():
                    break
                counts = run_pipeline(partial(self._build, planned))
                self._finish(planned, counts)
                self.points_done.end_round(counts.get(POINTS_IN, 0))
        staged = self.sinks.after_rounds(self.finished, self.options)
        self._is_loaded = not self.sinks.members[0].sink.targets
        committing.commit(staged)
        return self._total_counts()

    def _begin(self) -> None:
        if self._is_resumed:
            self.sinks.delete_unfinished(self.finished, self.options)
            return
        description = {
            "began": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "round_points": self.most,
            "runs": self.sinks.runs,
            "place": self.sinks.place,
            "identity": self.identity,
        }
        self.records.begin(description)

    def _is_at_end(self) -> bool:
        """Whether a round had fewer points than planned, as the last one of a table of unknown size."""
        return any(each.counts.get(POINTS_IN, 0) < each.stop - each.first for each in self.finished)

    def _build(self, planned: Round, pipeline: beam.Pipeline) -> None:
        points = pipeline | "ReadPoints" >> self.slices.read(planned.first, planned.stop)
        self.sinks.write_round(points | "SamplePoints" >> self.sampling, self.records)

    def _finish(self, planned: Round, counts: dict[str, int]) -> None:
        files = {each.step: listed_files(self.records.listing(each.step)) for each in self.sinks.members}
        done = FinishedRound(*planned, files, counts)
        self.records.finish(done)
        self.finished.append(done)

    def _total_counts(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for each in self.finished:
            for name, value in each.counts.items():
                total[name] = total.get(name, 0) + value
        return total
