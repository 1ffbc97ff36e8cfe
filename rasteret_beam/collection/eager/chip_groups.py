"""Groups of polygons, keyed by record and block of tiles, to batches of the chip table."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import shapely

from rasteret_beam import metrics
from rasteret_beam.collection.index.band_facts import FactTable
from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.kernels.routing.chip_windows import PixelWindow
from rasteret_beam.kernels.routing.layers import NO_DATETIME
from rasteret_beam.kernels.sampling.chip_rows import ChipFacts, ChipPixels, chip_rows
from rasteret_beam.metrics import Counters
from rasteret_beam.model import Grid, TileKey
from rasteret_beam.readers.gdal.masks import window_transform
from rasteret_beam.readers.jobs.chip_reader import BandChip, BandRead, ChipReader, WantedChip, fill_value
from rasteret_beam.schema import CHIP_SHAPE, CHIP_WINDOW

BATCH_BYTES = 16 << 20
BATCH_ROWS = 4096


def read_chip_group(
    reader: ChipReader,
    index: CollectionIndex,
    facts: FactTable,
    collection: str,
    key: TileKey,
    chunks: Iterable[pa.RecordBatch],
    counters: Counters,
    *,
    all_touched: bool = False,
    fill: float | None = None,
) -> Iterator[pa.RecordBatch]:
    """Rows of the chip table for the windows of one group.

    Parameters
    ----------
    facts : FactTable
        Of the collection's records and the bands of ``index``.
    chunks : iterable of RecordBatch
        As :func:`rasteret_beam.kernels.routing.chip_chunks.route_polygons` makes them.
    all_touched, fill
        As in :func:`rasteret_beam.collection.eager.get_numpy.get_numpy`.

    Yields
    ------
    RecordBatch
        Of at most 16 MB and 4096 rows, or one row.

    Raises
    ------
    TileReadError, CollectionError
        A tile cannot be read, or holds another dtype than the collection says.
    InputError
        The fill does not fit the dtype of a band.
    """
    grid, bands = index.routing.grid_of(key)
    reads = tuple(
        BandRead(asset, fact, fill_value(fact, fill))
        for asset, fact in zip(index.assets(key.record_id, bands), facts.of(key.record_id, bands), strict=True)
    )
    moment = int(index.routing.datetimes[index.routing.positions[key.record_id]])
    common = ChipFacts(key.record_id, None if moment == NO_DATETIME else moment, collection, grid.crs)
    for chunk in chunks:
        windows = [
            PixelWindow(*row) for row in zip(*(chunk[name].to_pylist() for name in CHIP_WINDOW[:4]), strict=True)
        ]
        counts = chunk[CHIP_WINDOW[4]].to_pylist()
        affines = [tuple(window_transform(grid, window)[:6]) for window in windows]
        wanted = _wanted(chunk, windows, grid, reads)
        found = (
            _pixels(chip, windows[chip.number], counts[chip.number], affines[chip.number])
            for chip in reader.read(wanted, all_touched, counters)
        )
        for batch in _batches(found):
            counters.add(metrics.CHIPS_OUT, len(batch))
            counters.add(metrics.CHIP_PIXELS, sum(chip.pixels.size for chip in batch))
            yield chip_rows(chunk, batch, common)


def _wanted(
    chunk: pa.RecordBatch, windows: Sequence[PixelWindow], grid: Grid, reads: tuple[BandRead, ...]
) -> Iterator[WantedChip]:
    """What to read; windows that start in one tile come after each other."""
    order = sorted(
        range(len(windows)),
        key=lambda row: (windows[row].row // grid.tile_height, windows[row].col // grid.tile_width, row),
    )
    shapes = chunk[CHIP_SHAPE]
    for row in order:
        yield WantedChip(row, grid, windows[row], shapely.from_wkb(shapes[row].as_py()), reads)


def _pixels(chip: BandChip, window: PixelWindow, count: int, affine: Sequence[float]) -> ChipPixels:
    fill = float(np.real(chip.band.fill))
    return ChipPixels(chip.number, chip.band.asset.band, window, count, affine, fill, chip.pixels, chip.valid)


def _batches(chips: Iterable[ChipPixels]) -> Iterator[list[ChipPixels]]:
    held: list[ChipPixels] = []
    size = 0
    for chip in chips:
        if held and (size + chip.nbytes > BATCH_BYTES or len(held) == BATCH_ROWS):
            yield held
            held, size = [], 0
        held.append(chip)
        size += chip.nbytes
    if held:
        yield held
