"""Windows around points, of whose pixels statistics are wanted."""

from collections.abc import Sequence
from dataclasses import dataclass

from rasteret_beam.kernels.sampling.blocks import Blocks, WantedBlocks
from rasteret_beam.kernels.sampling.parts import Spots
from rasteret_beam.kernels.sampling.validity import Mask, Status
from rasteret_beam.kernels.statistics.windows import Statistic, window_statistics
from rasteret_beam.readers.jobs.block_pixels import BlockValues
from rasteret_beam.readers.jobs.sample_job import SampleJob

WINDOW_CELLS = 1 << 19
"""Pixels of windows, of one band, that are held at the same time; those across tiles take some 150 bytes each."""


@dataclass(frozen=True, eq=False)
class Windows:
    """The windows of n points.

    Attributes
    ----------
    names : sequence of str
        Statistics that are wanted.
    wanted : WantedBlocks
        Their pixels.
    cells : [k, n] bool, optional
        Which pixels of their blocks are cells of the windows; None if all are.
    """

    names: Sequence[str]
    wanted: WantedBlocks[Blocks]
    cells: Mask | None

    @classmethod
    def of(cls, job: SampleJob, spots: Spots) -> "Windows | None":
        """Those around points, if the job wants statistics."""
        if job.window is None:
            return None
        blocks = job.window.blocks(spots)
        return cls(job.options.statistics, WantedBlocks.on(spots.grid, blocks), job.window.cells(blocks))

    def statistics(self, values: BlockValues) -> dict[str, Statistic]:
        """Of one band, whose pixels are given."""
        valid = values.status == Status.VALID
        if self.cells is not None:
            valid &= self.cells
        return window_statistics(self.names, values.pixels, valid, self.cells)
