"""Quality rules of a record, at points and at pixels: its quality bands, read on their own grids."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.sampling.dead_letters import Failure
from rasteret_beam.kernels.sampling.gather import Wanted
from rasteret_beam.kernels.sampling.nearest import pixels_under
from rasteret_beam.kernels.sampling.validity import Mask
from rasteret_beam.model import Asset, Grid
from rasteret_beam.quality import Quality
from rasteret_beam.readers.jobs.pixel_reader import PixelReader

Placed = tuple[Mask, Ints, Ints]
"""Which of n places a grid holds, [n], and their pixels on it, [n] each."""


@dataclass(frozen=True, eq=False)
class QualityBand:
    """A quality band of a record, and its rules.

    Attributes
    ----------
    rules : sequence of Quality
    number : int
        Of its grid in the index; -1 where the record lacks the band.
    grid : Grid or None
    asset : Asset or None
    """

    rules: Sequence[Quality]
    number: int
    grid: Grid | None = None
    asset: Asset | None = None


@dataclass(frozen=True, eq=False)
class RecordQuality:
    """The quality rules of a record; pixels are read when they are asked for."""

    reader: PixelReader
    bands: Sequence[QualityBand]

    @classmethod
    def of(cls, reader: PixelReader, record: int) -> "RecordQuality":
        """The rules of the job for a record, given by its position in the index."""
        return cls(reader, list(_quality_bands(reader, record)))

    def passes(self, count: int, place: Callable[[QualityBand], Placed]) -> tuple[Mask, list[Failure]]:
        """Whether places [count] pass all rules, and which could not be read.

        A band is read only where those before it pass. Beyond a band's grid, and on its nodata, nothing passes.

        Parameters
        ----------
        place : callable
            Where the places lie on the grid of a band.
        """
        passing = np.ones(count, dtype=bool)
        failures: list[Failure] = []
        for band in self.bands:
            if not passing.any():
                break
            if band.asset is None or band.grid is None:
                passing &= all(rule.missing == "pass" for rule in band.rules)
                continue
            inside, row, col = place(band)
            passing &= inside
            at = np.flatnonzero(passing)
            wanted, reach = (
                Wanted.at_points(band.grid, row[at], col[at]),
                band.grid.tile_height,
            )  # other bands need it too
            (found,), failed = self.reader.gather(band.grid, [wanted], [band.asset], reach, masks=True)
            unread = np.zeros(len(at), dtype=bool)
            for each in failed:
                unread[each.points] = True
            failures += [replace(each, points=at[each.points]) for each in failed]
            read = np.flatnonzero(~unread)
            passing[at] = False
            if len(read):
                pixels = found[band.asset.band]
                values, valid = pixels.values()[read], pixels.valid(band.asset.nodata)[read]
                passing[at[read]] = np.logical_and.reduce([rule.passes(values, valid) for rule in band.rules])
        return passing, failures

    def at_pixels(self, grid: Grid, row: Ints, col: Ints) -> tuple[Mask, list[Failure]]:
        """Whether pixels [m] of a grid pass, by their centres."""

        def place(band: QualityBand) -> Placed:
            assert band.grid is not None
            return pixels_under(grid, row, col, band.grid)

        return self.passes(len(row), place)


@dataclass(frozen=True, eq=False)
class QualityAtPoints:
    """The rules of a record for n points, whose own pixels are read; of the kind ``PixelRules``."""

    passing: Mask
    of_record: RecordQuality

    def at_points(self) -> Mask:
        return self.passing

    def at_pixels(self, grid: Grid, row: Ints, col: Ints) -> tuple[Mask, list[Failure]]:
        return self.of_record.at_pixels(grid, row, col)

    def at_pixels_of(self, record: int, grid: Grid, row: Ints, col: Ints) -> tuple[Mask, list[Failure]]:
        return RecordQuality.of(self.of_record.reader, record).at_pixels(grid, row, col)

    def take(self, rows: Ints) -> "QualityAtPoints":
        """For those of the points at some positions."""
        return QualityAtPoints(self.passing[rows], self.of_record)


def _quality_bands(reader: PixelReader, record: int) -> Iterator[QualityBand]:
    routing = reader.job.routing
    rules_of: dict[str, list[Quality]] = {}
    for rule in reader.job.options.quality:
        rules_of.setdefault(rule.band, []).append(rule)
    for band, rules in rules_of.items():
        number = int(routing.band_grids(band)[record])
        if number < 0:
            yield QualityBand(rules, number)
            continue
        asset = reader.job.assets(routing.record_ids[record], [band])[0]
        yield QualityBand(rules, number, routing.grid(number), asset)
