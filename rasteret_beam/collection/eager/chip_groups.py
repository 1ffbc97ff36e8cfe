"""Read groups of polygons, keyed by record and block of tiles, into batches of the chip table."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import shapely

from rasteret_beam import metrics
from rasteret_beam.chip_options import ChipOptions
from rasteret_beam.collection.eager.quality_bands import QualityBands
from rasteret_beam.collection.index.band_facts import FactTable
from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.routing.chip_windows import PixelWindow
from rasteret_beam.kernels.routing.layers import NO_DATETIME
from rasteret_beam.kernels.sampling.chip_rows import ChipFacts, ChipPixels, chip_rows
from rasteret_beam.kernels.sampling.dead_letters import OF_CHIPS, Failure, dead_letters, values_lost
from rasteret_beam.metrics import Counters
from rasteret_beam.model import Grid, TileKey
from rasteret_beam.quality import Quality
from rasteret_beam.readers.gdal.masks import window_transform
from rasteret_beam.readers.jobs.chip_quality import QualityRead
from rasteret_beam.readers.jobs.chip_reader import (
    BandChip,
    BandRead,
    ChipReader,
    ChipRun,
    LostChip,
    WantedChip,
    band_read,
)
from rasteret_beam.schema import CHIP_SETTINGS_KEY, CHIP_SHAPE, CHIP_WINDOW

BATCH_BYTES = 16 << 20
BATCH_ROWS = 4096


@dataclass(frozen=True, eq=False)
class ChipJob:
    """The index and the options with which groups of polygons are read.

    Attributes
    ----------
    index : CollectionIndex
    facts : FactTable
        Facts of the collection's records for the bands of ``index``.
    collection : str
        Name of the collection.
    options : ChipOptions
    quality : callable, optional
        From rules to where the records have their bands; needed where there are any.
    counters : Counters
    """

    index: CollectionIndex
    facts: FactTable
    collection: str
    options: ChipOptions
    quality: Callable[[tuple[Quality, ...]], QualityBands] | None = None
    counters: Counters = field(default_factory=Counters)


class ReadRows(NamedTuple):
    """A batch of the results of a group: rows of the chip table, or dead letters (``failed``)."""

    rows: pa.RecordBatch
    failed: bool = False


def read_chip_group(
    reader: ChipReader, job: ChipJob, key: TileKey, chunks: Iterable[pa.RecordBatch]
) -> Iterator[ReadRows]:
    """Read the windows of one group into rows of the chip table.

    Parameters
    ----------
    chunks : iterable of RecordBatch
        Made by :func:`rasteret_beam.kernels.routing.chip_chunks.route_polygons`.

    Yields
    ------
    ReadRows
        At most 16 MB and 4096 rows, or one larger row. With ``on_error="dead_letter"``, also the tiles of each chunk
        that cannot be read, with the windows that need them.

    Raises
    ------
    TileReadError, CollectionError
        A tile cannot be read, or its dtype differs from the one in the collection.
    InputError
        The fill does not fit the dtype of a band.
    """
    grid, bands = job.index.routing.grid_of(key)
    group = group_of(job, key.record_id, bands, grid)
    for chunk in chunks:
        yield from read_chunk(reader, job, group, chunk)


def read_chips_again(
    reader: ChipReader, job: ChipJob, record_id: str, band: str, chunk: pa.RecordBatch
) -> Iterator[ReadRows]:
    """Read the windows of a dead letter, with the options of the earlier run.

    Raises
    ------
    InputError
        The collection no longer has the record or the band, or its pixels differ from those of the earlier run.
    """
    grid = job.index.routing.grid_of_band(record_id, band)
    if grid is None:
        raise InputError(f"a dead letter is of record {record_id!r}, band {band}, which the collection does not have")
    settings = json.loads((chunk.schema.metadata or {})[CHIP_SETTINGS_KEY])
    if settings["grid"] != _pixels_of(grid):
        raise InputError(
            f"a dead letter of record {record_id!r}, band {band} has windows of {_shown(settings['grid'])}, but the "
            f"collection has {_shown(_pixels_of(grid))}; read the polygons anew, not the dead letters"
        )
    again = replace(job, options=replace(job.options, **_given(settings)))
    group = group_of(again, record_id, [band], grid)
    yield from read_chunk(reader, again, group, chunk.replace_schema_metadata(None))


def _pixels_of(grid: Grid) -> list[Any]:
    """The facts of a grid that decide which pixels a window means."""
    return [grid.crs, list(grid.transform), grid.width, grid.height]


def _shown(pixels: Sequence[Any]) -> str:
    crs, transform, width, height = pixels
    return f"{width} x {height} pixels with transform {tuple(transform)} in {crs}"


@dataclass(frozen=True, eq=False)
class ChipGroup:
    """Facts that the chips of a group share."""

    grid: Grid
    bands: tuple[BandRead, ...]
    quality: tuple[QualityRead, ...]
    facts: ChipFacts


def group_of(job: ChipJob, record_id: str, bands: Sequence[str], grid: Grid) -> ChipGroup:
    reads = tuple(
        band_read(asset, fact, job.options)
        for asset, fact in zip(job.index.assets(record_id, bands), job.facts.of(record_id, bands), strict=True)
    )
    moment = int(job.index.routing.datetimes[job.index.routing.positions[record_id]])
    datetime = None if moment == NO_DATETIME else moment
    quality: tuple[QualityRead, ...] = ()
    if job.options.quality:
        assert job.quality is not None
        quality = job.quality(job.options.quality).of(record_id)
    return ChipGroup(grid, reads, quality, ChipFacts(record_id, datetime, job.collection, grid.crs))


def read_chunk(reader: ChipReader, job: ChipJob, group: ChipGroup, chunk: pa.RecordBatch) -> Iterator[ReadRows]:
    windows = [PixelWindow(*row) for row in zip(*(chunk[name].to_pylist() for name in CHIP_WINDOW[:4]), strict=True)]
    counts = chunk[CHIP_WINDOW[4]].to_pylist()
    affines = [tuple(window_transform(group.grid, window)[:6]) for window in windows]
    run = ChipRun(job.options.all_touched, job.counters, job.options.on_error == "dead_letter")
    lost: list[LostChip] = []
    found = (
        _pixels(chip, windows[chip.number], counts[chip.number], affines[chip.number])
        for chip in _without_lost(reader.read(_wanted(chunk, windows, group), run), lost)
    )
    for batch in _batches(found):
        job.counters.add(metrics.CHIPS_OUT, len(batch))
        job.counters.add(metrics.CHIP_PIXELS, sum(chip.pixels.size for chip in batch))
        yield ReadRows(chip_rows(chunk, batch, group.facts))
    if lost:
        letters = _letters(chunk, lost, job.options, group.grid)
        job.counters.add(metrics.DEAD_LETTERS, len(letters))
        job.counters.add(metrics.CHIPS_DEAD_LETTERED, values_lost(letters, OF_CHIPS))
        yield ReadRows(letters, failed=True)


def _without_lost(chips: Iterable[BandChip | LostChip], lost: list[LostChip]) -> Iterator[BandChip]:
    for chip in chips:
        if isinstance(chip, LostChip):
            lost.append(chip)
        else:
            yield chip


def _letters(chunk: pa.RecordBatch, lost: Sequence[LostChip], options: ChipOptions, grid: Grid) -> pa.RecordBatch:
    """A dead letter for each tile that could not be read, with the windows of the chunk that need it."""
    by_tile: dict[tuple[str, str, int, int], list[LostChip]] = {}
    for chip in lost:
        key = chip.band.asset.band, chip.asset.href, chip.tile_row, chip.tile_col
        by_tile.setdefault(key, []).append(chip)
    failures = [
        # The band is that of the chips, also where the file is that of a quality band.
        Failure(replace(chips[0].band.asset, href=href), row, col, chips[0].error, np.array([c.number for c in chips]))
        for (_, href, row, col), chips in by_tile.items()
    ]
    settings = _settings(options) | {"grid": _pixels_of(grid)}
    named = chunk.replace_schema_metadata({CHIP_SETTINGS_KEY: json.dumps(settings)})
    return dead_letters(named, failures, OF_CHIPS)


def _settings(options: ChipOptions) -> dict[str, Any]:
    """The options that decide about pixels, as JSON has them."""
    return {
        "all_touched": bool(options.all_touched),
        "fill": options.fill.item() if isinstance(options.fill, np.generic) else options.fill,
        "quality": [str(rule) for rule in options.quality],
        "unscale": bool(options.unscale),
        "scales": {band: list(pair) for band, pair in options.scales.items()},
    }


def _given(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the settings of a dead letter; older ones have fewer."""
    given = {name: settings[name] for name in ("all_touched", "fill", "quality", "unscale") if name in settings}
    return given | {"scales": {band: tuple(pair) for band, pair in settings.get("scales", {}).items()}}


def _wanted(chunk: pa.RecordBatch, windows: Sequence[PixelWindow], group: ChipGroup) -> Iterator[WantedChip]:
    """The chips to read; windows that start in the same tile are adjacent."""
    high, wide = group.grid.tile_height, group.grid.tile_width
    order = sorted(range(len(windows)), key=lambda row: (windows[row].row // high, windows[row].col // wide, row))
    shapes = chunk[CHIP_SHAPE]
    for row in order:
        yield WantedChip(
            row, group.grid, windows[row], shapely.from_wkb(shapes[row].as_py()), group.bands, group.quality
        )


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
