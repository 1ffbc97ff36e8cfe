"""Reading across the seams of a mosaic: pixels beyond the grid of a record, of the records beside it.

Each record goes by its own nodata value, mask and quality rules, and with ``unscale`` by its own scale and offset.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import numpy as np

from rasteret_beam.errors import TileReadError
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.beside import Neighbour, shares
from rasteret_beam.kernels.sampling.blocks import WantedBlocks
from rasteret_beam.kernels.sampling.dead_letters import Failure, everywhere
from rasteret_beam.kernels.sampling.gather import PixelValues, Wanted, by_tile
from rasteret_beam.kernels.sampling.units import in_units, needs_file, same_units
from rasteret_beam.kernels.sampling.validity import Mask, Pixels, Status, Statuses
from rasteret_beam.model import Asset, Grid
from rasteret_beam.readers.jobs.work_units import SampleJob


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


class Source(NamedTuple):
    """A record beside, and its bands: assets, or why their files cannot be read."""

    neighbour: Neighbour
    assets: Mapping[str, Asset | TileReadError]


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
    return SeamReader(reader, grid, blocks, assets, rules).run() if blocks else BesideRead()


class SeamReader:
    """Reads what lies beyond one grid, for m pixels of all the wanted blocks."""

    def __init__(
        self,
        reader: TileReader,
        grid: Grid,
        blocks: Sequence[WantedBlocks[Any]],
        assets: Sequence[Asset],
        rules: RecordRules | None,
    ):
        self._reader, self._job, self._rules = reader, reader.job, rules
        self._grid, self._blocks, self._assets = grid, blocks, assets
        self._row, self._col = (
            np.concatenate([getattr(each.beyond, name) for each in blocks]) for name in ("row", "col")
        )
        self._point = np.concatenate([each.beyond.position % each.blocks.count for each in blocks])
        self._found = BesideRead()

    def run(self) -> BesideRead:
        """Read what each of the records beside gives."""
        for bands, sources in self._sources():
            by_neighbour = {source.neighbour: source for source in sources}
            for neighbour, at in shares(list(by_neighbour), self._row, self._col):
                self._read(by_neighbour[neighbour], bands, at)
        return self._found

    def _sources(self) -> Iterator[tuple[list[str], list[Source]]]:
        """Bands, and the records that give their pixels, those to be asked first in front."""
        alike: dict[tuple[Neighbour, ...], list[Asset]] = {}
        for asset in self._assets:
            found = self._job.beside.neighbours(self._record, asset.band, self._distance)
            alike.setdefault(found, []).append(asset)
        for neighbours, assets in alike.items():
            bands = [asset.band for asset in assets]
            near = [self._source(each, bands) for each in neighbours if each.holds(self._row, self._col).any()]
            together: dict[tuple[int, ...], list[str]] = {}
            for asset in assets if near else ():
                own, band = self._own(asset), asset.band
                mixed = tuple(at for at, each in enumerate(near) if self._mixes(own, each.assets[band]))
                together.setdefault(mixed, []).append(band)
            for numbers, of_numbers in together.items():
                yield of_numbers, [near[number] for number in numbers]

    @cached_property
    def _record(self) -> int:
        return self._job.routing.positions[self._assets[0].record_id]

    @property
    def _distance(self) -> int:
        """How far beyond the grid the pixels lie."""
        sides = -self._row, self._row - self._grid.height + 1, -self._col, self._col - self._grid.width + 1
        return int(np.maximum.reduce(sides).max())

    def _source(self, neighbour: Neighbour, bands: Sequence[str]) -> Source:
        assets = self._job.assets(self._job.routing.record_ids[neighbour.record], bands)
        return Source(neighbour, {asset.band: self._with_units(asset) for asset in assets})

    def _with_units(self, asset: Asset) -> Asset | TileReadError:
        """An asset with its scale and offset, which decide whether its pixels are mixed, or how."""
        unscaled = self._job.options.unscale
        if self._job.needs_file(asset) or (not unscaled and needs_file(asset, {})):
            return self._reader.tagged(asset)
        return asset

    def _own(self, asset: Asset) -> Asset | None:
        """An asset of the record with its scale and offset; None where its file cannot be read, and points are lost."""
        found = self._with_units(asset)
        if isinstance(found, Asset):
            return found
        edge = (np.clip(self._row, 0, self._grid.height - 1), np.clip(self._col, 0, self._grid.width - 1))
        self._lose(everywhere(asset, by_tile(self._grid, *edge), found), [asset.band], np.arange(len(self._row)))
        return None

    def _mixes(self, own: Asset | None, other: Asset | TileReadError) -> bool:
        """Whether pixels of another record stand beside those of the one that is sampled."""
        if self._job.options.unscale or isinstance(other, TileReadError):
            return True
        return own is not None and same_units(own, other)

    def _read(self, source: Source, bands: Sequence[str], at: Ints) -> None:
        """Read some bands of a record beside at those of the m pixels that it gives."""
        neighbour, grid = source.neighbour, self._job.routing.grid(source.neighbour.grid)
        row, col = self._row[at] - neighbour.row, self._col[at] - neighbour.col
        pixels = Wanted.at_points(grid, row, col)
        assets: list[Asset] = []
        for band in bands:
            asset = source.assets[band]
            if isinstance(asset, Asset):
                assets.append(asset)
            else:
                of_record = self._job.assets(self._job.routing.record_ids[neighbour.record], [band])[0]
                self._lose(everywhere(of_record, by_tile(grid, row, col), asset), [band], at)
        (found,), failures = self._reader.gather(grid, [pixels], assets, self._reader.reach(grid), masks=True)
        passing = None
        if self._rules is not None and assets:
            passing, of_rules = self._rules.at_pixels_of(neighbour.record, grid, row, col)
            self._lose(of_rules, [asset.band for asset in assets], at)
        for failure in failures:
            self._lose([failure], [failure.asset.band], at)
        for asset in assets:
            self._give(asset, found[asset.band], passing, at)

    def _lose(self, failures: Sequence[Failure], bands: Sequence[str], at: Ints) -> None:
        """Give up the points, band by band, whose pixels cannot be read or decided."""
        own = self._assets[0].record_id
        for failure in failures:
            points = np.unique(self._point[at[failure.points]])
            for band in bands:
                asset = replace(failure.asset, record_id=own, band=band)
                self._found.failures.append(replace(failure, asset=asset, points=points))

    def _give(self, asset: Asset, found: PixelValues, passing: Mask | None, at: Ints) -> None:
        """Hand the pixels of a band to the blocks that they are of."""
        pixels, status = found.values(), found.status(asset.nodata, asset.mask)
        if passing is not None:
            status[(status == Status.VALID) & ~passing] = Status.MASKED
        if self._job.options.unscale:
            pixels = in_units(pixels, status == Status.VALID, self._job.units(asset))
        start = 0
        for blocks in self._blocks:
            stop = start + len(blocks.beyond.position)
            here = (at >= start) & (at < stop)
            position = blocks.beyond.position[at[here] - start]
            given = self._found.given.setdefault((blocks, asset.band), [])
            given.append(Given(position, pixels[here], status[here]))
            start = stop
