"""Memory and temporary disk of a local run: an estimate for the plan, and a warning if the machine has less."""

import shutil
import sys
import tempfile

import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

from rasteret_beam.collection.eager.memory_estimate import Estimate, Routing, TableSize, estimate
from rasteret_beam.collection.eager.plan_view import human_bytes
from rasteret_beam.kernels.routing.index import RoutingIndex
from rasteret_beam.readers.jobs.free_resources import free_memory, own_memory
from rasteret_beam.readers.tiles.budget import CacheBudget

DEFAULT_POINTS, LEAST_POINTS = 10_000_000, 1_000_000
"""Points of a round, and the fewest that are chosen where memory is short, as each round reads its tiles anew."""

FEWER = "keep fewer columns (--columns), lower --round_points, or run on a cluster (--runner)"


def is_local(options: PipelineOptions) -> bool:
    """Whether the job runs in this process, in Beam's local runner."""
    return str(options.view_as(StandardOptions).runner).endswith("FnApiRunner")


class MemoryCheck:
    """An estimate of what a local run needs, and how many points a round of it has.

    Too little memory is a warning, not an error: the estimate can be wrong by half, the load of the machine changes,
    and swap may help. A job that fits should not need a flag.
    """

    def __init__(self, table: TableSize, cache: CacheBudget, round_points: int | None = None, in_rounds: bool = False):
        self.table = table
        self.cache = cache
        self.round_points = (round_points or DEFAULT_POINTS) if in_rounds else None
        self._is_chosen = in_rounds and round_points is None
        self.estimate = estimate(table, None, Routing(), cache, self.round_points)
        self._has_warned = False

    def route(self, index: RoutingIndex, batch: pa.RecordBatch, crs: str) -> None:
        """Add the first batch of points to the estimate, and choose the points of a round if they are not given."""
        routing = Routing.of(index, batch, crs)
        self.estimate = estimate(self.table, batch, routing, self.cache, self.round_points)
        while self._is_chosen and self.round_points and self.round_points > LEAST_POINTS and self._fills_half():
            self.round_points = max(LEAST_POINTS, self.round_points // 2)
            self.estimate = estimate(self.table, batch, routing, self.cache, self.round_points)

    def _fills_half(self) -> bool:
        """Whether the estimate is more than half of the free memory or of the free temporary disk."""
        free, room = free_memory(), shutil.disk_usage(tempfile.gettempdir()).free
        return (free is not None and 2 * self.estimate.memory > free + own_memory()) or 2 * self.estimate.disk > room

    def lines(self) -> list[str]:
        """The estimate for the terminal."""
        lines = [f"{'memory of a local run, about':<36}{human_bytes(self.estimate.memory):>16}"]
        if self.estimate.disk:
            lines.append(f"{'temporary disk of it, at most':<36}{human_bytes(self.estimate.disk):>16}")
        return lines

    def warn(self) -> None:
        """Print once what the machine lacks, and what to do."""
        found = self._too_little()
        if found and not self._has_warned:
            self._has_warned = True
            print(f"warning: {found}", file=sys.stderr)

    def _too_little(self) -> str:
        free = free_memory()
        if free is not None and self.estimate.memory > free + own_memory():
            need, left = human_bytes(self.estimate.memory), human_bytes(free + own_memory())
            return f"this job needs about {need} of memory, but {left} are free; {_way_out(self.estimate)}"
        folder = tempfile.gettempdir()
        room = shutil.disk_usage(folder).free
        if self.estimate.disk > room:
            need, left = human_bytes(self.estimate.disk), human_bytes(room)
            return (
                f"this job needs up to {need} of temporary disk, but {folder} has {left} free; set TMPDIR to a "
                f"folder with more, or {FEWER}"
            )
        return ""


def _way_out(found: Estimate) -> str:
    if not found.reading:
        return FEWER
    return f"{human_bytes(found.reading)} of it hold one row group: write --points with smaller row groups, or {FEWER}"
