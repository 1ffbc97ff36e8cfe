"""Reading chips: the pixels of windows, masked by their polygon, a few windows ahead."""

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from rasteret_beam.errors import CollectionError, InputError
from rasteret_beam.kernels.routing.chip_windows import PixelWindow, as_dtype
from rasteret_beam.kernels.sampling.validity import Mask, is_left_in, not_nan
from rasteret_beam.metrics import Counters
from rasteret_beam.model import Asset, Grid
from rasteret_beam.readers.gdal.masks import polygon_mask
from rasteret_beam.readers.tiles.dispatch import Engines
from rasteret_beam.readers.tiles.pixel_windows import WindowReader

AHEAD_BYTES = 64 << 20
"""Pixels that are read before they are handed over, but for what one window holds."""

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
    """A band to read: where it is, what is known of it, and the value for pixels that are not valid."""

    asset: Asset
    fact: BandFacts
    fill: np.generic


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
    """

    number: int
    grid: Grid
    window: PixelWindow
    shape: BaseGeometry | None
    bands: tuple[BandRead, ...]


class BandChip(NamedTuple):
    """One band of a chip: [height, width] pixels, with the fill where ``valid`` [height, width] is not True."""

    number: int
    band: BandRead
    pixels: Array
    valid: Mask


class ChipReader:
    """Reads chips; one object serves all threads of a process.

    Parameters
    ----------
    engines : Engines, optional
    threads : int, optional
        Windows read at the same time.
    """

    def __init__(self, engines: Engines | None = None, threads: int | None = None):
        self.threads = threads or min(8, os.cpu_count() or 1)
        self._reader = WindowReader(engines)
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="chips")

    def read(self, wanted: Iterable[WantedChip], all_touched: bool, counters: Counters) -> Iterator[BandChip]:
        """Every band of every chip, in the order given; windows in which the polygon covers no pixel are not read.

        Threads read a few windows ahead; polygons are rasterised in the calling thread.

        Raises
        ------
        TileReadError
            A tile cannot be read; names the record, the band, the file and the tile.
        CollectionError
            A file holds another dtype than the collection says.
        """
        pending: deque[tuple[int, Future[list[BandChip]]]] = deque()
        held = 0
        try:
            for chip in wanted:
                covered = (
                    np.zeros(chip.window.shape, dtype=bool)
                    if chip.shape is None
                    else polygon_mask(chip.shape, chip.grid, chip.window, all_touched)
                )
                for bands, size in _together(chip):
                    pending.append((size, self._pool.submit(self._read, chip, bands, covered, counters)))
                    held += size
                    while len(pending) > 1 and (len(pending) > 4 * self.threads or held > AHEAD_BYTES):
                        size, future = pending.popleft()
                        yield from future.result()
                        held -= size
            while pending:
                yield from pending.popleft()[1].result()
        finally:
            for _, future in pending:
                future.cancel()
            for _, future in pending:
                if not future.cancelled():
                    future.exception()

    def _read(self, chip: WantedChip, bands: Sequence[BandRead], covered: Mask, counters: Counters) -> list[BandChip]:
        if not covered.any():
            return [BandChip(chip.number, band, np.full(chip.window.shape, band.fill), covered) for band in bands]
        found = self._reader.read([band.asset for band in bands], chip.grid, chip.window, counters)
        return [self._masked(chip, band, pixels, covered, counters) for band, pixels in zip(bands, found, strict=True)]

    def _masked(self, chip: WantedChip, band: BandRead, pixels: Array, covered: Mask, counters: Counters) -> BandChip:
        asset, fact, fill = band
        if pixels.dtype != fact.dtype:
            raise CollectionError(
                f"record {asset.record_id!r}, band {asset.band}: {asset.href} holds {pixels.dtype}, but the collection "
                f"has it as {fact.dtype}: the file was changed after the collection was built; build it again"
            )
        file_mask = self._reader.read_file_mask(asset, chip.grid, chip.window, counters)
        inside = covered & is_left_in(pixels, fact.nodata, file_mask)
        pixels[~inside] = fill
        return BandChip(chip.number, band, pixels, inside & not_nan(pixels))

    def close(self) -> None:
        """End the threads and close what is open."""
        self._pool.shutdown(cancel_futures=True)
        self._reader.close()


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
