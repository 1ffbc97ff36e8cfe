"""Reading chips: the pixels of windows, masked by their polygon, a few windows ahead."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from rasteret_beam.chip_options import ChipOptions
from rasteret_beam.errors import CollectionError, InputError, TileReadError
from rasteret_beam.kernels.routing.chip_windows import PixelWindow, as_dtype
from rasteret_beam.kernels.sampling.units import STORED, Units, in_units, needs_file, units_of
from rasteret_beam.kernels.sampling.validity import Mask, is_left_in, not_nan
from rasteret_beam.metrics import Counters
from rasteret_beam.model import Asset, Grid
from rasteret_beam.readers.gdal.masks import polygon_mask
from rasteret_beam.readers.jobs.cancellation import CancelToken
from rasteret_beam.readers.jobs.chip_quality import LostTile, QualityRead, WindowQuality
from rasteret_beam.readers.jobs.ordered_pool import OrderedPool
from rasteret_beam.readers.tiles.pixel_windows import BandWindow, read_window
from rasteret_beam.readers.tiles.source import TileSource

AHEAD_BYTES = 64 << 20
"""Pixels that are read before they are handed over, beyond those of one window."""

READ_BYTES = 16 << 20
"""Pixels of the bands that are read together."""

Array = NDArray[np.generic]


@dataclass(frozen=True)
class BandFacts:
    """What masking has to know of a band of a record.

    Attributes
    ----------
    dtype : numpy dtype
    nodata : number or None
        An int where float64 cannot hold it.
    """

    dtype: np.dtype
    nodata: float | None


class BandRead(NamedTuple):
    """A band to read.

    Attributes
    ----------
    asset : Asset
    fact : BandFacts
    fill : number
        Value for pixels that are not valid, in the dtype of the pixels that are given.
    scales : mapping of band to (scale, offset), optional
        Give pixels in physical units, as float64: with these, else those of the collection or the file.
    """

    asset: Asset
    fact: BandFacts
    fill: np.generic
    scales: Mapping[str, Units] | None = None

    @property
    def dtype(self) -> np.dtype:
        """Of the pixels that are given."""
        return self.fact.dtype if self.scales is None else np.dtype(np.float64)


@dataclass(frozen=True, eq=False)
class WantedChip:
    """A window to read under a polygon.

    Attributes
    ----------
    number : int
        The caller's.
    grid : Grid
        Of all the bands.
    window : PixelWindow
    shape : Shapely geometry or None
        The polygon, in the CRS of the grid; None where it is not in the window.
    bands : tuple of BandRead
    quality : tuple of QualityRead
        Rules that valid pixels pass.
    """

    number: int
    grid: Grid
    window: PixelWindow
    shape: BaseGeometry | None
    bands: tuple[BandRead, ...]
    quality: tuple[QualityRead, ...] = ()


class BandChip(NamedTuple):
    """One band of a chip: [height, width] pixels, with the fill where ``valid`` [height, width] is not True.

    ``covered`` [height, width] are the pixels that the polygon covers.
    """

    number: int
    band: BandRead
    pixels: Array
    valid: Mask
    covered: Mask


class LostChip(NamedTuple):
    """One band of a chip that has no pixels: the first of its tiles, row by row, that could not be read, and why.

    ``asset`` is what was read: the band, or a quality band.
    """

    number: int
    band: BandRead
    asset: Asset
    tile_row: int
    tile_col: int
    error: TileReadError


@dataclass(frozen=True)
class ChipRun:
    """How chips are read.

    Attributes
    ----------
    all_touched : bool
        Whether all pixels that a polygon touches are in it, or only those whose centre it holds.
    counters : Counters
    dead_letters : bool
        Give a :class:`LostChip` in place of one whose tiles cannot be read, instead of raising an error.
    """

    all_touched: bool
    counters: Counters
    dead_letters: bool = False


class ChipReader:
    """Reads chips; one object serves all threads of a process.

    Parameters
    ----------
    source : TileSource, optional
    threads : int, optional
        Windows read at the same time.
    """

    def __init__(self, source: TileSource | None = None, threads: int | None = None):
        self.threads = threads or min(8, os.cpu_count() or 1)
        self._source = source or TileSource()
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="chips")

    def read(self, wanted: Iterable[WantedChip], run: ChipRun) -> Iterator[BandChip | LostChip]:
        """Every band of every chip, in the order given; windows in which the polygon covers no pixel are not read.

        Threads read a few windows ahead; polygons are rasterised in the calling thread.

        Raises
        ------
        TileReadError
            A tile cannot be read, and the run takes no dead letters; names the record, the band, the file and the tile.
        CollectionError
            A file holds another dtype than the collection says.
        """
        stop = CancelToken()
        ahead: OrderedPool[list[BandChip | LostChip]] = OrderedPool(self._pool, 4 * self.threads, AHEAD_BYTES, stop)
        try:
            for chip in wanted:
                covered = _covered(chip, run.all_touched)
                quality = WindowQuality(self._source, chip.quality, chip.grid, chip.window, covered)
                for bands, size in _together(chip):
                    work = partial(self._read, chip, bands, covered, quality, run, stop)
                    for done in ahead.push(work, size):
                        yield from done
            for done in ahead.drain():
                yield from done
        finally:
            ahead.cancel()

    def _read(
        self,
        chip: WantedChip,
        bands: Sequence[BandRead],
        covered: Mask,
        quality: WindowQuality,
        run: ChipRun,
        stop: CancelToken,
    ) -> list[BandChip | LostChip]:
        if not covered.any():
            return [_without_pixels(chip, band, covered) for band in bands]
        with stop.ending():
            passing = quality.passing(run.counters, stop, run.dead_letters)
            if isinstance(passing, LostTile):
                return [LostChip(chip.number, band, *passing) for band in bands]
            if not passing.any():
                return [_without_pixels(chip, band, covered) for band in bands]
            assets = [band.asset for band in bands]
            found = read_window(self._source, assets, chip.grid, chip.window, run.counters, stop, run.dead_letters)
            pairs = zip(bands, found, strict=True)
            return [self._masked(chip, band, window, covered, passing, run, stop) for band, window in pairs]

    def _masked(
        self,
        chip: WantedChip,
        band: BandRead,
        window: BandWindow,
        covered: Mask,
        passing: Mask,
        run: ChipRun,
        stop: CancelToken,
    ) -> BandChip | LostChip:
        if window.errors:
            place = min(window.errors)
            return LostChip(chip.number, band, band.asset, *place, window.errors[place])
        pixels = window.pixels()
        _check_dtype(pixels.dtype, band)
        inside = passing & is_left_in(pixels, band.fact.nodata, window.file_mask())
        valid = inside & not_nan(pixels)
        if band.scales is not None:
            try:
                pixels = in_units(pixels, valid, self._units(band.asset, band.scales, run, stop))
            except TileReadError as error:
                if not run.dead_letters:
                    raise
                return LostChip(chip.number, band, band.asset, *next(iter(window.parts)), error)
        pixels[~inside] = band.fill
        return BandChip(chip.number, band, pixels, valid, covered)

    def _units(self, asset: Asset, given: Mapping[str, Units], run: ChipRun, stop: CancelToken) -> Units:
        if needs_file(asset, given):
            asset = self._source.with_units(asset, run.counters, stop)
        return units_of(asset, given)

    def close(self) -> None:
        """End the threads and close what is open."""
        self._pool.shutdown(cancel_futures=True)
        self._source.close()


def _covered(chip: WantedChip, all_touched: bool) -> Mask:
    """Pixels of the window that the polygon covers."""
    if chip.shape is None:
        return np.zeros(chip.window.shape, dtype=bool)
    return polygon_mask(chip.shape, chip.grid, chip.window, all_touched)


def _without_pixels(chip: WantedChip, band: BandRead, covered: Mask) -> BandChip:
    """A chip none of whose pixels is valid."""
    none = np.zeros_like(covered)
    return BandChip(chip.number, band, np.full(chip.window.shape, band.fill), none, covered)


def _check_dtype(dtype: np.dtype, band: BandRead) -> None:
    asset, expected = band.asset, band.fact.dtype
    if dtype != expected:
        raise CollectionError(
            f"record {asset.record_id!r}, band {asset.band}: {asset.href} holds {dtype}, but the collection "
            f"has it as {expected}: the file was changed after the collection was built; build it again"
        )


def _together(chip: WantedChip) -> Iterator[tuple[list[BandRead], int]]:
    """Bands of a chip that are read together, of one file and at most :data:`READ_BYTES`, and their bytes."""
    pixels = chip.window.height * chip.window.width
    for _, of_file in groupby(chip.bands, key=lambda band: band.asset.href):
        bands: list[BandRead] = []
        size = 0
        for band in of_file:
            own = pixels * band.fact.dtype.itemsize
            if bands and size + own > READ_BYTES:
                yield bands, size
                bands, size = [], 0
            bands.append(band)
            size += own
        yield bands, size


def _nodata(fact: BandFacts) -> float:
    """The nodata value, of which a band of integers takes the whole part."""
    assert fact.nodata is not None
    return int(fact.nodata) if fact.dtype.kind in "iu" and np.isfinite(fact.nodata) else fact.nodata


def band_read(asset: Asset, fact: BandFacts, options: ChipOptions) -> BandRead:
    """How a band is read with some options.

    Raises
    ------
    InputError
        The fill does not fit the dtype.
    """
    if not options.unscale:
        return BandRead(asset, fact, fill_value(fact, options.fill))
    never_scaled = any(rule.band == asset.band for rule in options.quality)
    fill = np.float64(np.nan if options.fill is None else options.fill)
    return BandRead(asset, fact, fill, {asset.band: STORED} if never_scaled else options.scales)


def fill_value(fact: BandFacts, fill: float | None) -> np.generic:
    """The value for pixels that are not valid, in the band's dtype.

    Raises
    ------
    InputError
        It does not fit the dtype.
    """
    wanted = fill if fill is not None else _nodata(fact) if fact.nodata is not None else 0
    fits = as_dtype(wanted, fact.dtype)
    if fits is None:
        what = "fill is" if fill is not None else "the band's nodata value is"
        raise InputError(f"{what} {wanted:g}, which {fact.dtype} cannot hold; give a fill that it can")
    return fits
