"""Reading across the seams of a mosaic: pixels beyond the grid of a record, of the records beside it.

Each record goes by its own nodata value, mask and quality rules, and with ``unscale`` by its own scale and offset.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from rasteret_beam.errors import TileReadError
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.sampling.blocks import WantedBlocks
from rasteret_beam.kernels.sampling.dead_letters import Failure, everywhere
from rasteret_beam.kernels.sampling.gather import PixelValues, Wanted, by_tile
from rasteret_beam.kernels.sampling.validity import Mask, Pixels, Statuses
from rasteret_beam.model import Asset, Grid
from rasteret_beam.readers.jobs.sample_job import SampleJob
from rasteret_beam.readers.jobs.seams import Seam, Share, Unread


class RecordRules(Protocol):
    """Rules on the pixels of records beyond those of their bands: quality."""

    def at_pixels_of(self, record: int, grid: Grid, row: Ints, col: Ints) -> tuple[Mask, list[Failure]]:
        """Whether pixels [m] of a grid pass the rules of a record, and what could not be read, by position in [m]."""
        ...


class TileReader(Protocol):
    """How the pixels of other records are read."""

    @property
    def job(self) -> SampleJob: ...

    def gather(
        self, grid: Grid, wanted: Sequence[Wanted], assets: Sequence[Asset], reach: int, masks: bool
    ) -> tuple[list[dict[str, PixelValues]], list[Failure]]:
        """What is at the pixels of each of the wanted, by band."""
        ...

    def reach(self, grid: Grid) -> int:
        """How many rows of a tile to read beyond those that are needed."""
        ...

    def tagged(self, asset: Asset) -> Asset | TileReadError:
        """An asset with the scale and offset of its file's tags, or the error, where it becomes a dead letter."""
        ...


class Given(NamedTuple):
    """Pixels of one band, [m] each, that a record beside gives to blocks.

    Attributes
    ----------
    position : [m] int64
        Flat ones.
    pixels : [m]
        In the dtype of the band there; with ``unscale`` in physical units, float64, NaN where not valid.
    status : [m] uint8
    """

    position: Ints
    pixels: Pixels
    status: Statuses


@dataclass(frozen=True, eq=False)
class BesideRead:
    """What the records beside give, for each of the wanted blocks and each band, and what could not be read of them.

    Failures name the record that is sampled, and the file and tile that could not be read.
    """

    given: dict[tuple[WantedBlocks[Any], str], list[Given]] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)


def read_beside(
    reader: TileReader, grid: Grid, wanted: Sequence[Wanted], assets: Sequence[Asset], rules: RecordRules | None
) -> BesideRead:
    """Read the pixels of blocks that lie beyond the grid of a record; those of no record beside stay missing.

    Parameters
    ----------
    assets : sequence of Asset
        Of the record, all on the grid.

    Raises
    ------
    TileReadError
        A tile cannot be read, and ``on_error`` is "raise".
    """
    blocks = [each for each in wanted if isinstance(each, WantedBlocks) and len(each.beyond.position)]
    if not blocks:
        return BesideRead()
    row, col = (np.concatenate([getattr(each.beyond, name) for each in blocks]) for name in ("row", "col"))
    return SeamReader(reader, blocks, Seam(reader.job, grid, assets, row, col, reader.tagged), rules).run()


class SeamReader:
    """Reads what lies beyond one grid, for m pixels of all the wanted blocks."""

    def __init__(self, reader: TileReader, blocks: Sequence[WantedBlocks[Any]], seam: Seam, rules: RecordRules | None):
        self._reader, self._job, self._rules = reader, reader.job, rules
        self._blocks, self._seam = blocks, seam
        self._point = np.concatenate([each.beyond.position % each.blocks.count for each in blocks])
        self._found = BesideRead()

    def run(self) -> BesideRead:
        """Read what each of the records beside gives."""
        for share in self._seam.shares():
            self._read(share)
        return self._found

    def _read(self, share: Share) -> None:
        """Read those of the m pixels that a record beside gives."""
        grid, row, col = self._job.routing.grid(share.neighbour.grid), *share.place(self._seam)
        assets = [asset for asset in share.assets.values() if isinstance(asset, Asset)]
        for band, unread in share.assets.items():
            if isinstance(unread, Unread):
                self._lose(everywhere(unread.asset, by_tile(grid, row, col), unread.error), [band], share.at)
        pixels, bands = Wanted.at_points(grid, row, col), [asset.band for asset in assets]
        (found,), failures = self._reader.gather(grid, [pixels], assets, self._reader.reach(grid), masks=True)
        for failure in failures:
            self._lose([failure], [failure.asset.band], share.at)
        passing = None
        if self._rules is not None and assets:
            passing, of_rules = self._rules.at_pixels_of(share.neighbour.record, grid, row, col)
            self._lose(of_rules, bands, share.at)
        for asset in assets:
            self._give(asset, found[asset.band], passing, share.at)

    def _lose(self, failures: Sequence[Failure], bands: Sequence[str], at: Ints) -> None:
        """Give up the points, band by band, whose pixels cannot be read or decided."""
        own = self._seam.assets[0].record_id
        for failure in failures:
            points = np.unique(self._point[at[failure.points]])
            for band in bands:
                asset = replace(failure.asset, record_id=own, band=band)
                self._found.failures.append(replace(failure, asset=asset, points=points))

    def _give(self, asset: Asset, found: PixelValues, passing: Mask | None, at: Ints) -> None:
        """Hand the pixels of a band to the blocks that they are of."""
        pixels, status = self._job.counted(found, asset, passing)
        start = 0
        for blocks in self._blocks:
            stop = start + len(blocks.beyond.position)
            here = (at >= start) & (at < stop)
            position = blocks.beyond.position[at[here] - start]
            given = self._found.given.setdefault((blocks, asset.band), [])
            given.append(Given(position, pixels[here], status[here]))
            start = stop
