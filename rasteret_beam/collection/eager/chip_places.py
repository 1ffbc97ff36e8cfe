"""Read groups of polygons that are keyed by place: choose the record of each chip by its valid pixels, and read it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import shapely

from rasteret_beam import metrics
from rasteret_beam.collection.eager.chip_groups import ChipJob, ReadRows, group_of, read_chunk
from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.candidates import Candidates
from rasteret_beam.kernels.routing.chip_chunks import ChipPiece, batch_crs, chip_chunk, chip_pieces, hits_of
from rasteret_beam.kernels.routing.chip_windows import Overlap, chip_overlaps
from rasteret_beam.kernels.tables.point_times import point_times
from rasteret_beam.kernels.tables.polygon_geometry import Polygons
from rasteret_beam.readers.gdal.masks import pixels_beyond
from rasteret_beam.readers.jobs.chip_reader import ChipReader, ChipRun, LostChip, WantedChip

PORTION_PIXELS = 1 << 22
"""Pixels of all bands of the polygons that are decided together: few enough that their tiles are still in the cache
when the chips are read."""

PORTION_PAIRS = 1 << 14
"""Pairs of a polygon and a band that are decided together, at most."""

WINDOWS_TOGETHER = 256
"""Windows of a chunk, at most: each may have a copy of its polygon."""


class Chosen(NamedTuple):
    """A record that is looked at, or taken, for the chips of a polygon: its position, and the polygon on its grid."""

    record: int
    overlap: Overlap


@dataclass(frozen=True, eq=False)
class _Choice:
    """Bands of a polygon that are decided among the same records.

    Attributes
    ----------
    ranked : sequence of Chosen
        The best first.
    left : list of str
        Bands without a decision.
    taken : dict
        Of each band that was looked at, the record that is taken: the best one, unless another is found.
    """

    ranked: Sequence[Chosen]
    left: list[str]
    taken: dict[str, Chosen] = field(default_factory=dict)

    def decide(self, depth: int, enough: Iterable[str]) -> None:
        """Take the record at a depth for the bands that have enough valid pixels on it."""
        if not depth:
            self.taken.update(dict.fromkeys(self.left, self.ranked[0]))
        for band in enough:
            self.taken[band] = self.ranked[depth]
            self.left.remove(band)


@dataclass
class _Count:
    """Pixels of a band of a chip that are counted so far, and whether a tile could not be read."""

    valid: int = 0
    own: int = 0
    lost: bool = False


def read_place_group(reader: ChipReader, job: ChipJob, chunks: Iterable[pa.RecordBatch]) -> Iterator[ReadRows]:
    """Choose the records of the polygons of a group, and read their chips into rows of the chip table.

    For each polygon and band, it is the first record, in the order of the match, on which at least ``min_valid`` of the
    polygon's pixels are valid, among ``max_candidates``; else the best one. A record whose tile cannot be read is taken
    too, so that its windows become dead letters.

    Parameters
    ----------
    chunks : iterable of RecordBatch
        Of polygons keyed by place, as :class:`rasteret_beam.kernels.routing.chip_chunks.RoutedPolygons` describes them.

    Yields
    ------
    ReadRows
        As :func:`.chip_groups.read_chip_group`.

    Raises
    ------
    TileReadError, CollectionError, InputError
        As :func:`.chip_groups.read_chip_group`.
    """
    for chunk in chunks:
        for choices in _portions(_choices(job.index, chunk, job.options.max_candidates)):
            _walk(reader, job, choices)
            yield from _read_taken(reader, job, chunk, choices)


def _choices(index: CollectionIndex, chunk: pa.RecordBatch, most: int) -> Iterator[_Choice]:
    """The choices of all polygons, polygon by polygon."""
    crs, column = batch_crs(chunk.schema, None)
    shapes = shapely.force_2d(shapely.from_wkb(chunk["geometry"].to_numpy(zero_copy_only=False)))
    polygons = Polygons(shapes, crs, column, chunk["geometry_id"].to_numpy())
    overlaps = list(chip_overlaps(index.routing, polygons))
    matcher = index.routing.matcher
    times = None if matcher.time_column is None else point_times(chunk, matcher.time_column)
    groups = list(matcher.candidates(hits_of(overlaps), len(chunk), times, most))
    starts = [np.searchsorted(group.point, np.arange(len(chunk) + 1)) for group in groups]
    for row in range(len(chunk)):
        for group, edges in zip(groups, starts, strict=True):
            ranked = _ranked(group, overlaps, edges[row : row + 2])
            if ranked:
                yield _Choice(ranked, list(group.bands))


def _ranked(group: Candidates, overlaps: Sequence[Overlap], edges: Ints) -> list[Chosen]:
    """The records of one polygon, the best first."""
    rows = slice(*edges.tolist())
    pairs = zip(group.record[rows].tolist(), group.hit[rows].tolist(), strict=True)
    return [Chosen(record, overlaps[hit]) for record, hit in pairs]


def _portions(choices: Iterable[_Choice]) -> Iterator[list[_Choice]]:
    """Choices that are decided together, of bounded size."""
    held: list[_Choice] = []
    pixels = pairs = 0
    for choice in choices:
        window = choice.ranked[0].overlap.window
        own = window.height * window.width * len(choice.left)
        if held and (pixels + own > PORTION_PIXELS or pairs + len(choice.left) > PORTION_PAIRS):
            yield held
            held, pixels, pairs = [], 0, 0
        held.append(choice)
        pixels, pairs = pixels + own, pairs + len(choice.left)
    if held:
        yield held


def _walk(reader: ChipReader, job: ChipJob, choices: Sequence[_Choice]) -> None:
    """Look at the records, the best of each polygon first, until all bands are decided."""
    depth, looked = 0, list(choices)
    while looked:
        counts = _look(reader, job, looked, depth)
        for number, choice in enumerate(looked):
            found = {band: counts[number, band] for band in choice.left}
            choice.decide(depth, [band for band, count in found.items() if _is_enough(count, job)])
        depth += 1
        looked = [choice for choice in looked if choice.left and depth < len(choice.ranked)]
        job.counters.add(metrics.CANDIDATES_WALKED, sum(len(choice.left) for choice in looked))


def _is_enough(count: _Count, job: ChipJob) -> bool:
    return count.lost or not count.own or count.valid / count.own >= float(job.options.min_valid)


def _look(reader: ChipReader, job: ChipJob, choices: Sequence[_Choice], depth: int) -> Mapping[tuple[int, str], _Count]:
    """Count the pixels of the undecided bands on the record at a depth, by the position of the choice and band."""
    touched = job.options.all_touched
    counts: dict[tuple[int, str], _Count] = {}
    for number, choice in enumerate(choices):
        overlap = choice.ranked[depth].overlap
        beyond = pixels_beyond(overlap.shape, job.index.routing.grid(overlap.grid), overlap.window, touched)
        counts.update({(number, band): _Count(own=beyond) for band in choice.left})
    run = ChipRun(touched, job.counters, job.options.on_error == "dead_letter")
    for chip in reader.read(_wanted(job, choices, depth), run):
        count = counts[chip.number, chip.band.asset.band]
        if isinstance(chip, LostChip):
            count.lost = True
        else:
            count.valid += int(np.count_nonzero(chip.valid))
            count.own += int(np.count_nonzero(chip.covered))
    return counts


def _wanted(job: ChipJob, choices: Sequence[_Choice], depth: int) -> Iterator[WantedChip]:
    """The windows of the records at a depth: by record, grid and bands, then by the tile in which chips start."""

    def shared(number: int) -> tuple[int, int, tuple[str, ...]]:
        chosen = choices[number].ranked[depth]
        return chosen.record, chosen.overlap.grid, tuple(choices[number].left)

    def start(number: int) -> tuple[int, int]:
        overlap = choices[number].ranked[depth].overlap
        grid = job.index.routing.grid(overlap.grid)
        return overlap.window.row // grid.tile_height, overlap.window.col // grid.tile_width

    order = sorted(range(len(choices)), key=lambda number: (shared(number), start(number), number))
    for (record, grid, bands), numbers in groupby(order, key=shared):
        group = group_of(job, job.index.routing.record_ids[record], bands, job.index.routing.grid(grid))
        for number in numbers:
            for piece in _pieces(job, choices[number].ranked[depth].overlap):
                yield WantedChip(number, group.grid, piece.window, piece.shape, group.bands, group.quality)


def _pieces(job: ChipJob, overlap: Overlap) -> list[ChipPiece]:
    return chip_pieces(overlap, job.index.routing.grid(overlap.grid), job.options.max_chip_pixels)


def _read_taken(
    reader: ChipReader, job: ChipJob, chunk: pa.RecordBatch, choices: Sequence[_Choice]
) -> Iterator[ReadRows]:
    """The chips of the records that are taken."""
    taken: dict[tuple[int, int, tuple[str, ...]], list[Overlap]] = {}
    for choice in choices:
        for (record, grid), overlap, bands in _by_record(choice):
            taken.setdefault((record, grid, bands), []).append(overlap)
    for (record, grid, bands), overlaps in sorted(taken.items(), key=lambda item: item[0]):
        group = group_of(job, job.index.routing.record_ids[record], bands, job.index.routing.grid(grid))
        pieces = [piece for overlap in overlaps for piece in _pieces(job, overlap)]
        # Routing has counted one row for each chip, as it could not know the windows.
        job.counters.add(metrics.CHIPS_ROUTED, (len(pieces) - len(overlaps)) * len(bands))
        for first in range(0, len(pieces), WINDOWS_TOGETHER):
            yield from read_chunk(reader, job, group, chip_chunk(chunk, pieces[first : first + WINDOWS_TOGETHER]))


def _by_record(choice: _Choice) -> Iterator[tuple[tuple[int, int], Overlap, tuple[str, ...]]]:
    """The (record, grid), the polygon on it, and the bands of each record that is taken."""
    bands_of: dict[tuple[int, int], list[str]] = {}
    overlap_of: dict[tuple[int, int], Overlap] = {}
    for band, chosen in choice.taken.items():
        at = chosen.record, chosen.overlap.grid
        bands_of.setdefault(at, []).append(band)
        overlap_of[at] = chosen.overlap
    for at, bands in bands_of.items():
        yield at, overlap_of[at], tuple(bands)
