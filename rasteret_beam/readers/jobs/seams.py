"""Seams of a mosaic: which records beside give the pixels beyond the grid of another, band by band."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from rasteret_beam.errors import TileReadError
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.beside import Neighbour, shares
from rasteret_beam.kernels.sampling.units import needs_file, same_units
from rasteret_beam.model import Asset, Grid
from rasteret_beam.readers.jobs.sample_job import SampleJob


class Unread(NamedTuple):
    """A band whose file cannot tell its scale and offset."""

    asset: Asset
    error: TileReadError


Found: TypeAlias = Asset | Unread


@dataclass(frozen=True, eq=False)
class Seam:
    """Pixels [m] beyond the grid of a record, for some of its bands.

    Attributes
    ----------
    job : SampleJob
    grid : Grid
    assets : sequence of Asset
        Of the record, all on the grid.
    row, col : [m] int64
        On the grid.
    tagged : callable
        Gives an asset with the scale and offset of its file's tags, or the error.
    """

    job: SampleJob
    grid: Grid
    assets: Sequence[Asset]
    row: Ints
    col: Ints
    tagged: Callable[[Asset], Asset | TileReadError]

    def shares(self) -> Iterator["Share"]:
        """What each of the records beside gives: each pixel is of the first that holds it and is mixed."""
        for neighbours, assets in self._alike():
            found = [self._of_neighbour(each, assets) for each in neighbours]
            together: dict[tuple[int, ...], dict[str, Found]] = {}
            for own in map(self._with_units, assets) if found else ():
                band = (own.asset if isinstance(own, Unread) else own).band
                mixed = tuple(at for at, of_record in enumerate(found) if self._mixes(own, of_record[band]))
                together.setdefault(mixed, {})[band] = own
            for numbers, bands in together.items():
                of_neighbour = {neighbours[at]: found[at] for at in numbers}
                for neighbour, positions in shares(list(of_neighbour), self.row, self.col):
                    given = {
                        band: own if isinstance(own, Unread) else of_neighbour[neighbour][band]
                        for band, own in bands.items()
                    }
                    yield Share(neighbour, given, positions)

    def _alike(self) -> Iterator[tuple[list[Neighbour], list[Asset]]]:
        """Records beside that hold some of the pixels, and the bands for which these are the same records."""
        record = self.job.routing.positions[self.assets[0].record_id]
        alike: dict[tuple[Neighbour, ...], list[Asset]] = {}
        for asset in self.assets:
            alike.setdefault(self.job.beside.neighbours(record, asset.band, self._distance), []).append(asset)
        for neighbours, assets in alike.items():
            yield [each for each in neighbours if each.holds(self.row, self.col).any()], assets

    @property
    def _distance(self) -> int:
        """How far beyond the grid the pixels lie."""
        sides = -self.row, self.row - self.grid.height + 1, -self.col, self.col - self.grid.width + 1
        return int(np.maximum.reduce(sides).max())

    def _of_neighbour(self, neighbour: Neighbour, assets: Sequence[Asset]) -> Mapping[str, Found]:
        bands = [asset.band for asset in assets]
        there = self.job.assets(self.job.routing.record_ids[neighbour.record], bands)
        return {asset.band: self._with_units(asset) for asset in there}

    def _with_units(self, asset: Asset) -> Found:
        """An asset with its scale and offset, which decide whether its pixels are mixed, or how."""
        if self.job.needs_file(asset) or (not self.job.options.unscale and needs_file(asset, {})):
            found = self.tagged(asset)
            return found if isinstance(found, Asset) else Unread(asset, found)
        return asset

    def _mixes(self, own: Found, other: Found) -> bool:
        """Whether pixels of another record stand beside those of the one that is sampled, as far as can be told."""
        if self.job.options.unscale or isinstance(own, Unread) or isinstance(other, Unread):
            return True
        return same_units(own, other)


class Share(NamedTuple):
    """What a record beside gives.

    Attributes
    ----------
    neighbour : Neighbour
    assets : mapping of band to Asset or Unread
    at : [k] int64
        Which of the m pixels.
    """

    neighbour: Neighbour
    assets: Mapping[str, Found]
    at: Ints

    def place(self, seam: Seam) -> tuple[Ints, Ints]:
        """Rows and columns [k] on the grid of the record beside."""
        return seam.row[self.at] - self.neighbour.row, seam.col[self.at] - self.neighbour.col
