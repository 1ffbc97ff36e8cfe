"""Reading zones: the values of the pixels that polygons cover, tile by tile, for many polygons at the same time."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from rasteret_beam import metrics
from rasteret_beam.errors import TileReadError
from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.sampling.dead_letters import Failure
from rasteret_beam.kernels.sampling.gather import Wanted
from rasteret_beam.kernels.sampling.units import STORED, Units, in_units, needs_file, units_of
from rasteret_beam.kernels.sampling.validity import Mask
from rasteret_beam.kernels.statistics.zone_pixels import ZonePixels, wanted_of
from rasteret_beam.kernels.statistics.zones import Needs, ZoneStates
from rasteret_beam.metrics import Counters
from rasteret_beam.model import Asset, Grid
from rasteret_beam.quality import Quality
from rasteret_beam.readers.jobs.cancellation import CancelToken
from rasteret_beam.readers.jobs.chip_quality import QualityRead
from rasteret_beam.readers.jobs.ordered_pool import OrderedPool
from rasteret_beam.readers.jobs.pixel_reader import PixelReader
from rasteret_beam.readers.jobs.quality_pixels import QualityBand, RecordQuality
from rasteret_beam.readers.jobs.sample_job import SampleJob
from rasteret_beam.readers.tiles.source import TileSource


@dataclass(frozen=True, eq=False)
class ZoneLayer:
    """Some bands of a record, on a grid whose first pixel lies somewhere on the grid of the zones.

    Attributes
    ----------
    assets : sequence of Asset
        Of the bands.
    quality : sequence of QualityRead
        Rules that valid pixels pass.
    grid : Grid
    row, col : int
        Its first pixel on the grid of the zones.
    """

    assets: Sequence[Asset]
    quality: Sequence[QualityRead]
    grid: Grid
    row: int = 0
    col: int = 0

    def inside(self, pixels: ZonePixels) -> Mask:
        """Which of the pixels lie on the grid of the layer."""
        row, col = pixels.row - self.row, pixels.col - self.col
        return (row >= 0) & (col >= 0) & (row < self.grid.height) & (col < self.grid.width)


class PlacedPixels:
    """Pixels of zones, sorted by tile once for each grid that records have them on."""

    def __init__(self, pixels: ZonePixels):
        self.pixels = pixels
        self._known: dict[tuple[Grid, int, int], Wanted] = {}

    def wanted(self, layer: ZoneLayer) -> Wanted:
        """The pixels that the layer has."""
        key = layer.grid, layer.row, layer.col
        if key not in self._known:
            inside = np.flatnonzero(layer.inside(self.pixels))
            row, col = self.pixels.row[inside] - layer.row, self.pixels.col[inside] - layer.col
            found = Wanted.at_points(layer.grid, row, col)
            if len(inside) < len(self.pixels):
                placed = {place: replace(part, point=inside[part.point]) for place, part in found.in_tile.items()}  # type: ignore[type-var]
                found = Wanted(len(self.pixels), placed)
            self._known[key] = found
        return self._known[key]

    def take(self, zones: Ints) -> "PlacedPixels":
        """Those of some zones, in ascending order."""
        taken = self.pixels.take(zones)
        return self if taken is self.pixels else PlacedPixels(taken)


@dataclass(frozen=True, eq=False)
class ZoneRules:
    """How zones are read.

    Attributes
    ----------
    needs : Needs
        What the statistics need.
    dead_letters : bool
        Give failures in place of raising the error of a tile.
    unscale : bool
        Values are in physical units, by ``scales`` where they have the band.
    unscaled : frozenset of str
        Bands that are never scaled, as their numbers are codes.
    counters : Counters
    """

    needs: Needs
    dead_letters: bool
    unscale: bool
    scales: Mapping[str, Units]
    unscaled: frozenset[str]
    counters: Counters


@dataclass(frozen=True, eq=False)
class ZoneTask:
    """Zones to read in one or several layers; where several have a valid pixel, that of the first counts.

    Attributes
    ----------
    number : int
        The caller's.
    placed : PlacedPixels
    layers : sequence of ZoneLayer
        All with the same bands.
    """

    number: int
    placed: PlacedPixels
    layers: Sequence[ZoneLayer]

    @property
    def bands(self) -> list[str]:
        return [asset.band for asset in self.layers[0].assets]


@dataclass(frozen=True, eq=False)
class ZonesRead:
    """What is read for a task: by band the states of its zones; and what could not be read, by position of zones."""

    number: int
    states: dict[str, ZoneStates]
    failures: list[Failure] = field(default_factory=list)


class ZoneReader:
    """Reads the pixels of zones; one object serves all threads of a process.

    Parameters
    ----------
    source : TileSource, optional
    """

    def __init__(self, source: TileSource | None = None):
        self.source = source or TileSource()

    def read(self, tasks: Iterable[ZoneTask], job: SampleJob, rules: ZoneRules) -> Iterator[ZonesRead]:
        """The tasks in their order, some at the same time.

        Raises
        ------
        TileReadError
            A tile cannot be read, and the rules take no dead letters; names record, band, file and tile.
        """
        stop = CancelToken()
        reader = PixelReader(self.source, job, rules.counters, stop)
        ahead: OrderedPool[ZonesRead] = OrderedPool(self.source.waiting, min(8, os.cpu_count() or 1) + 1, stop=stop)
        try:
            for task in tasks:
                for layer in task.layers:
                    task.placed.wanted(layer)  # here, as it is shared by other tasks
                yield from ahead.push(partial(_read, reader, task, rules, self.source, stop))
            yield from ahead.drain()
        finally:
            ahead.cancel()

    def close(self) -> None:
        """End the threads and close what is open."""
        self.source.close()


def _read(reader: PixelReader, task: ZoneTask, rules: ZoneRules, source: TileSource, stop: CancelToken) -> ZonesRead:
    with stop.ending():
        work = _Reading(reader, task, rules, source, stop)
        for layer in task.layers:
            work.add(layer)
        return work.finish()


@dataclass(eq=False)
class _Reading:
    """A task under way: values and valid pixels of each band so far, of zones of p pixels."""

    reader: PixelReader
    task: ZoneTask
    rules: ZoneRules
    source: TileSource
    stop: CancelToken
    values: dict[str, NDArray[np.generic]] = field(default_factory=dict)
    valid: dict[str, Mask] = field(default_factory=dict)
    failures: list[Failure] = field(default_factory=list)

    def add(self, layer: ZoneLayer) -> None:
        """Read the pixels of a layer that are not valid in those before it."""
        wanted = self.task.placed.wanted(layer)
        passing = self._passing(layer)
        for assets in [layer.assets] if not self.valid else [[asset] for asset in layer.assets]:
            before = self.valid.get(assets[0].band)
            need = passing if before is None else ~before if passing is None else passing & ~before
            chosen = wanted if need is None else wanted_of(wanted, need)
            (found,), failures = self.reader.gather(layer.grid, [chosen], assets, layer.grid.tile_height, masks=True)
            self._lose(failures)
            for asset in assets:
                pixels = found.pop(asset.band)
                there = _there(chosen)
                valid = pixels.valid(asset.nodata) & there
                self._take(asset, pixels.values(), valid)

    def _passing(self, layer: ZoneLayer) -> Mask | None:
        """Which pixels pass the rules of quality, [p]; None where there are no rules."""
        if not layer.quality:
            return None
        pixels = self.task.placed.pixels
        passing = np.zeros(len(pixels), dtype=bool)
        at = np.flatnonzero(layer.inside(pixels))
        quality = RecordQuality(self.reader, _by_band(layer.quality))
        row, col = pixels.row[at] - layer.row, pixels.col[at] - layer.col
        passing[at], failed = quality.at_pixels(layer.grid, row, col)
        for asset in layer.assets:
            named = (
                replace(each, asset=replace(each.asset, band=asset.band), points=at[each.points]) for each in failed
            )
            self._lose(named)
        return passing

    def _lose(self, failures: Iterable[Failure]) -> None:
        pixels = self.task.placed.pixels
        self.failures += [replace(each, points=pixels.zones_of(each.points)) for each in failures]

    def _take(self, asset: Asset, values: NDArray[np.generic], valid: Mask) -> None:
        """Take the valid pixels of a band, in units where they are wanted."""
        if self.rules.unscale and asset.band not in self.rules.unscaled:
            values = in_units(values, valid, self._units(asset))
        if asset.band not in self.valid:
            self.values[asset.band], self.valid[asset.band] = values, valid
            return
        whole = self.values[asset.band].astype(np.float64)
        whole[valid] = values[valid]
        self.values[asset.band] = whole
        self.valid[asset.band] |= valid

    def _units(self, asset: Asset) -> Units:
        """Scale and offset of a band; where the file that has them cannot be read, all zones are lost."""
        if not needs_file(asset, self.rules.scales):
            return units_of(asset, self.rules.scales)
        try:
            asset = self.source.with_units(asset, self.rules.counters, self.stop)
        except TileReadError as error:
            if not self.rules.dead_letters:
                raise
            zones = np.arange(len(self.task.placed.pixels.counts))
            self.failures.append(Failure(asset, 0, 0, error, zones))
            return STORED
        return units_of(asset, self.rules.scales)

    def finish(self) -> ZonesRead:
        """The states of the zones."""
        pixels, states = self.task.placed.pixels, {}
        for band, valid in self.valid.items():
            values = self.values.pop(band)
            shares: Floats | None = pixels.shares
            if valid.all():
                counts = pixels.counts
            else:
                counts, values = pixels.count(valid), values[valid]
                shares = None if shares is None else shares[valid]
            with np.errstate(invalid="ignore"):
                numbers = values.astype(np.float64)
            states[band] = ZoneStates.of_values(numbers, counts, shares, self.rules.needs)
        self.rules.counters.add(metrics.ZONE_PIXELS, len(pixels) * len(states))
        return ZonesRead(self.task.number, states, self.failures)


def _there(wanted: Wanted) -> Mask:
    """Which of the pixels are wanted."""
    there = np.zeros(wanted.size, dtype=bool)
    for part in wanted.in_tile.values():
        there[part.point] = True
    return there


def _by_band(reads: Sequence[QualityRead]) -> list[QualityBand]:
    """Rules of the same band together."""
    rules: dict[str, list[Quality]] = {}
    for read in reads:
        rules.setdefault(read.rule.band, []).append(read.rule)
    where = {read.rule.band: read for read in reads}
    return [
        QualityBand(of_band, -1 if where[band].grid is None else 0, where[band].grid, where[band].asset)
        for band, of_band in rules.items()
    ]
