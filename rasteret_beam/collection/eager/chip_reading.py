"""Reading the chips of whole records: all of them, or of each polygon the first that has enough valid pixels."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from rasteret_beam.chip_options import ChipOptions
from rasteret_beam.collection.eager.chip_plan import Chip
from rasteret_beam.collection.eager.quality_bands import QualityBands
from rasteret_beam.collection.index.band_facts import FactTable
from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.metrics import Counters
from rasteret_beam.readers.gdal.masks import pixels_beyond
from rasteret_beam.readers.jobs.chip_reader import BandChip, BandRead, ChipReader, ChipRun, WantedChip, band_read


@dataclass(frozen=True, eq=False)
class ChipReading:
    """What reading the chips of some bands needs; ``facts`` are those of the records of all chips."""

    reader: ChipReader
    index: CollectionIndex
    facts: FactTable
    quality: QualityBands
    options: ChipOptions
    bands: Sequence[str]

    def bands_of(self, record_id: str) -> tuple[BandRead, ...]:
        """How the bands of a record are read.

        Raises
        ------
        InputError
            The fill does not fit the dtype of a band.
        """
        pairs = zip(self.index.assets(record_id, self.bands), self.facts.of(record_id), strict=True)
        return tuple(band_read(asset, fact, self.options) for asset, fact in pairs)

    def read(self, chips: Mapping[int, Chip]) -> Iterator[BandChip]:
        """Every band of some chips, by the number of each; all bands of a chip one after the other."""
        for chip in self.reader.read(self._wanted(chips), ChipRun(self.options.all_touched, Counters())):
            assert isinstance(chip, BandChip)
            yield chip

    def read_whole(self, chips: Mapping[int, Chip]) -> Iterator[tuple[int, list[BandChip]]]:
        """The same, the bands of a chip together, in order."""
        place = {band: number for number, band in enumerate(self.bands)}
        for number, bands in groupby(self.read(chips), key=lambda chip: chip.number):
            yield number, sorted(bands, key=lambda chip: place[chip.band.asset.band])

    def _wanted(self, chips: Mapping[int, Chip]) -> Iterator[WantedChip]:
        """The chips to read; chips that start in the same tile are adjacent."""

        def start(number: int) -> tuple[str, int, int]:
            grid, window = chips[number].layers[0].grid, chips[number].layers[0].window
            return chips[number].record_id, window.row // grid.tile_height, window.col // grid.tile_width

        reads: dict[str, tuple[BandRead, ...]] = {}
        for number in sorted(chips, key=start):
            record_id = chips[number].record_id
            if record_id not in reads:
                reads = {record_id: self.bands_of(record_id)}
            bands = zip(chips[number].layers, reads[record_id], strict=True)
            # Bands with the same pixels may have different tiles.
            for _, group in groupby(bands, key=lambda pair: pair[0].grid):
                members = list(group)
                layer, read = members[0][0], tuple(band for _, band in members)
                yield WantedChip(number, layer.grid, layer.window, layer.shape, read, self.quality.of(record_id))


def first_valid(reading: ChipReading, chips: Sequence[Chip]) -> list[tuple[Chip, list[BandChip]]]:
    """Of the chips of each polygon, which are given best first, the first that has enough valid pixels, else the best.

    A pixel is valid where it is in all bands. No pixel is read of the chips that come after the one that is taken.
    """
    candidates = {geometry: list(group) for geometry, group in groupby(chips, key=lambda chip: chip.geometry)}
    taken: dict[int, tuple[Chip, list[BandChip]]] = {}
    left, depth = list(candidates), 0
    while left:
        enough = set()
        for geometry, bands in reading.read_whole({geometry: candidates[geometry][depth] for geometry in left}):
            chip = candidates[geometry][depth]
            if valid_share(chip, bands, reading.options.all_touched) >= float(reading.options.min_valid):
                enough.add(geometry)
            if not depth or geometry in enough:
                taken[geometry] = chip, bands
        depth += 1
        left = [geometry for geometry in left if geometry not in enough and depth < len(candidates[geometry])]
    return [taken[geometry] for geometry in candidates]


def valid_share(chip: Chip, bands: Sequence[BandChip], all_touched: bool) -> float:
    """Share of valid pixels among those of the polygon, also those beyond the raster; 1 where it has no pixel."""
    layer = chip.layers[0]
    own = np.count_nonzero(bands[0].covered) + pixels_beyond(layer.shape, layer.grid, layer.window, all_touched)
    valid = np.logical_and.reduce([band.valid for band in bands])
    return np.count_nonzero(valid) / own if own else 1.0
