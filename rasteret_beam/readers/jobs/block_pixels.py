"""Pixels of blocks, as sums over them take them: which are valid, and in which units they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.sampling.blocks import WantedBlocks
from rasteret_beam.kernels.sampling.dead_letters import Failure
from rasteret_beam.kernels.sampling.gather import PixelValues, Wanted
from rasteret_beam.kernels.sampling.validity import Mask, Pixels, Status, Statuses
from rasteret_beam.model import Asset, Grid
from rasteret_beam.readers.jobs.beside_pixels import BesideRead
from rasteret_beam.readers.jobs.sample_job import SampleJob


class PixelRules(Protocol):
    """Rules on the pixels of a record beyond those of its bands: quality."""

    def at_points(self) -> Mask:
        """Whether the points pass, [n]."""
        ...

    def at_pixels(self, grid: Grid, row: Ints, col: Ints) -> tuple[Mask, list[Failure]]:
        """Whether pixels [m] of a grid pass, by their centres; and what could not be read, by position in [m]."""
        ...

    def take(self, rows: Ints) -> "PixelRules":
        """For those of the points at some positions."""
        ...

    def at_pixels_of(self, record: int, grid: Grid, row: Ints, col: Ints) -> tuple[Mask, list[Failure]]:
        """The same by the rules of another record, given by its position in the index."""
        ...


class BlockValues(NamedTuple):
    """One band at the k pixels of the blocks of n points.

    Attributes
    ----------
    pixels : [k, n]
        In the band's own dtype; with ``unscale`` in physical units, float64, NaN where not valid.
    status : [k, n] uint8
        The :class:`.validity.Status` of each.
    """

    pixels: Pixels
    status: Statuses


@dataclass(frozen=True, eq=False)
class BlockRead:
    """What one read has of its blocks, beside the gathered pixels.

    Attributes
    ----------
    job : SampleJob
    passing : mapping of [k * n] bool
        Which pixels of each of the wanted blocks pass the quality rules; empty without rules.
    failed : list of Failure
        What could not be read for all bands.
    beside : BesideRead
        What lies beyond the grid.
    """

    job: SampleJob
    passing: Mapping[WantedBlocks[Any], Mask]
    failed: list[Failure]
    beside: BesideRead

    @classmethod
    def of(
        cls, job: SampleJob, grid: Grid, wanted: Sequence[Wanted], rules: PixelRules | None, beside: BesideRead
    ) -> "BlockRead":
        """Read it, for all that is wanted on a grid."""
        passing: dict[WantedBlocks[Any], Mask] = {}
        failed: list[Failure] = []
        for each in wanted:
            if rules is not None and isinstance(each, WantedBlocks):
                passing[each], failed_here = _pass(rules, grid, each)
                failed += failed_here
        return cls(job, passing, failed, beside)

    def failures(self, assets: Sequence[Asset]) -> list[Failure]:
        """What could not be read, as failures of each band."""
        of_all = [replace(each, asset=replace(each.asset, band=asset.band)) for asset in assets for each in self.failed]
        return of_all + self.beside.failures

    def values(self, wanted: WantedBlocks[Any], found: PixelValues, asset: Asset) -> BlockValues:
        """The gathered pixels of a band, as they count; those beyond the grid are of the records beside, or missing."""
        pixels, status = self.job.counted(found, asset, self.passing.get(wanted))
        status[wanted.beyond.position] = Status.NODATA
        for given in self.beside.given.get((wanted, asset.band), ()):
            if given.pixels.dtype != pixels.dtype:
                with np.errstate(invalid="ignore"):  # pixels that are not read may be anything
                    pixels = pixels.astype(np.float64)
            pixels[given.position], status[given.position] = given.pixels, given.status
        shape = wanted.blocks.cells, wanted.blocks.count
        return BlockValues(pixels.reshape(shape), status.reshape(shape))


def _pass(rules: PixelRules, grid: Grid, wanted: WantedBlocks[Any]) -> tuple[Mask, list[Failure]]:
    """Which pixels [k * n] of blocks pass the rules, by their centres; and which points cannot be decided."""
    there = wanted.inside(grid)
    passes, failed = rules.at_pixels(grid, there.row, there.col)
    passing = np.zeros(wanted.size, dtype=bool)
    passing[there.position] = passes
    point = there.position % wanted.blocks.count
    return passing, [replace(each, points=np.unique(point[each.points])) for each in failed]
