"""The walk over candidates: which records the points of a place are sampled of, decided where pixels are read.

Candidates are read best first. Those of the next depth are read only for points, band by band, that still lack a valid
sample; and pixels only where the record's quality rules pass, unless the row shows them anyway.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow as pa

from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.candidates import Candidates
from rasteret_beam.kernels.routing.index import locate
from rasteret_beam.kernels.sampling.dead_letters import Failure, left_over
from rasteret_beam.kernels.sampling.interpolation import Interpolation
from rasteret_beam.kernels.sampling.parts import Pairs, Part, Spots
from rasteret_beam.kernels.sampling.pixel_methods import Picked
from rasteret_beam.kernels.sampling.validity import Mask, is_invalid
from rasteret_beam.kernels.tables.distinct import distinct_rows
from rasteret_beam.kernels.tables.point_columns import coordinates
from rasteret_beam.readers.jobs.pixel_reader import PixelReader
from rasteret_beam.readers.jobs.place_rows import WHY_NONE
from rasteret_beam.readers.jobs.place_units import PlaceUnit, SampledPlace
from rasteret_beam.readers.jobs.quality_pixels import Placed, QualityAtPoints, QualityBand, RecordQuality
from rasteret_beam.schema import POINT_CRS_KEY, TIME


class PlaceWalk:
    """Samples the points of one unit."""

    def __init__(self, reader: PixelReader, unit: PlaceUnit):
        self.reader, self.unit = reader, unit
        self.job, self.options = reader.job, reader.job.options
        self.routing = reader.job.routing
        self.hits = locate(self.routing, *_coordinates(unit.chunk))
        self._order = np.lexsort((self.hits.grid, self.hits.point))
        self._sorted = self._keys(self.hits.point[self._order], self.hits.grid[self._order])
        self.pairs = Pairs(len(unit.chunk), unit.bands)
        self.parts: list[Part] = []
        self.failures: list[Failure] = []
        self._qualities: dict[int, RecordQuality] = {}

    def run(self) -> SampledPlace:
        """Read all that the points need.

        Raises
        ------
        TileReadError
            A tile cannot be read, and ``on_error`` is "raise".
        """
        for group in self._groups():
            BandWalk(self, group).run()
        return SampledPlace(self.unit, self.pairs, self._why_none(), self.parts, self.failures)

    def _groups(self) -> Iterator[Candidates]:
        """Candidates of the wanted bands; groups of bands are decided together."""
        if self.unit.record_id:
            yield from self._of_record(self.routing.positions[self.unit.record_id])
            return
        times = self.unit.chunk[TIME].to_numpy() if TIME in self.unit.chunk.schema.names else None
        matcher = self.routing.matcher
        most = self.options.max_candidates if self.options.skip_invalid else matcher.most
        for group in matcher.candidates(self.hits, len(self.unit.chunk), times, most):
            bands = tuple(band for band in group.bands if band in self.unit.bands)
            if bands:
                yield replace(group, bands=bands)

    def _of_record(self, record: int) -> Iterator[Candidates]:
        """The one candidate that there is of each point, on each grid of a record."""
        on_grid: dict[int, list[str]] = {}
        for band in self.unit.bands:
            on_grid.setdefault(int(self.routing.band_grids(band)[record]), []).append(band)
        for number, bands in on_grid.items():
            at = self._order[self.hits.grid[self._order] == number]
            depth = np.zeros(len(at), dtype=np.int64)
            yield Candidates(tuple(bands), self.hits.point[at], np.full(len(at), record), at, depth)

    def spots(self, number: int, hit: Ints) -> Spots:
        """Where hits lie on their grid."""
        row, col = self.hits.row[hit], self.hits.col[hit]
        at_row, at_col = row.astype(np.int64), col.astype(np.int64)
        parts = (row - at_row, col - at_col) if self.job.needs_position else (None, None)
        return Spots(self.routing.grid(number), at_row, at_col, *parts)

    def quality(self, record: int, points: Ints, hit: Ints) -> tuple[QualityAtPoints | None, list[Failure]]:
        """The quality rules of a record at some points, if the job has any; and what could not be read for them.

        Where values are interpolated, a point passes if the centre of its pixel does.

        Parameters
        ----------
        points, hit : [n] int64
            The points, and their hits on the one grid of the bands to sample.
        """
        if not self.options.quality:
            return None, []
        of_record = self.record_quality(record)
        if isinstance(self.job.method, Interpolation):
            own = self.spots(int(self.hits.grid[hit[0]]), hit)
            passing, failures = of_record.at_pixels(own.grid, own.row, own.col)
        else:
            passing, failures = of_record.passes(len(points), partial(self._place, points))
        return QualityAtPoints(passing, of_record), failures

    def record_quality(self, record: int) -> RecordQuality:
        """The quality rules of a record."""
        found = self._qualities.get(record)
        if found is None:
            found = self._qualities[record] = RecordQuality.of(self.reader, record)
        return found

    def _place(self, points: Ints, band: QualityBand) -> Placed:
        """Where points lie on the grid of a quality band."""
        keys = self._keys(points, np.full(len(points), band.number))
        at = np.minimum(np.searchsorted(self._sorted, keys), len(self._sorted) - 1)
        hit = self._order[at]
        inside = self._sorted[at] == keys
        row, col = (np.where(inside, place[hit], 0).astype(np.int64) for place in (self.hits.row, self.hits.col))
        return inside, row, col

    def _keys(self, point: Ints, grid: Ints) -> Ints:
        return point * len(self.routing.grids) + grid

    def _why_none(self) -> np.ndarray:
        """Why a pair without a row has none: its samples were dropped, or no record has the band there, or in time."""
        why = np.zeros(self.pairs.rows.shape, dtype=np.uint8)
        if self.options.join != "left":
            return why
        if self.routing.matcher.time_column is not None and not self.unit.record_id:
            for column, band in enumerate(self.unit.bands):
                with_band = np.isin(self.hits.grid, self.routing.band_grids(band))
                why[self.hits.point[with_band], column] = WHY_NONE.index("out_of_tolerance")
        why[self.pairs.with_record] = WHY_NONE.index("invalid")
        return why


class BandWalk:
    """The walk over the candidates of bands that are decided together."""

    def __init__(self, place: PlaceWalk, candidates: Candidates):
        self.place, self.candidates = place, candidates
        self.bands, self.columns = candidates.bands, place.pairs.columns(candidates.bands)
        self.options = place.options
        self.most = place.routing.matcher.most
        """Rows of a pair, at most."""
        self.reserve: list[Part] = []
        """Samples of best records that are not valid, for pairs that turn out to have no valid one."""
        self.unread: list[tuple[int, Ints]] = []
        """Records and candidates, the pixels of which were not read, as they fail a quality rule."""

    def run(self) -> None:
        candidates = self.candidates
        self.place.pairs.with_record[np.ix_(np.unique(candidates.point), np.array(self.columns))] = True
        if not self.options.skip_invalid:
            for record, rows in self._by_record(np.arange(len(candidates.point))):
                self._take(record, rows, np.ones((len(rows), len(self.bands)), dtype=bool))
            return
        for depth in range(int(candidates.depth.max(initial=-1)) + 1):
            rows = np.flatnonzero(candidates.depth == depth)
            rows = rows[self._open()[candidates.point[rows]].any(axis=1)]
            for record, of_record in self._by_record(rows):
                self._take(record, of_record, self._open()[candidates.point[of_record]])
        if self.options.invalid != "drop":
            self._take_invalid()

    def _open(self) -> Mask:
        """Pairs [points, bands of the walk] that may have another row."""
        pairs = self.place.pairs
        full = pairs.rows[:, self.columns] >= (np.inf if self.most is None else self.most)
        return ~(full | pairs.lost[:, self.columns])

    def _by_record(self, rows: Ints) -> Iterator[tuple[int, Ints]]:
        """Positions of candidates by record, in the order of points."""
        record = self.candidates.record[rows]
        order = np.argsort(record, kind="stable")
        starts = np.flatnonzero(np.diff(record[order])) + 1
        for of_record in np.split(rows[order], starts) if len(rows) else ():
            yield int(self.candidates.record[of_record[0]]), of_record

    def _take(self, record: int, rows: Ints, wanted: Mask) -> None:
        """Sample a record at candidates [n], for the bands [n, bands] that are wanted of it."""
        points = self.candidates.point[rows]
        quality, failures = self.place.quality(record, points, self.candidates.hit[rows])
        for failure in failures:
            for column, band in enumerate(self.bands):
                self._lose(failure, band, points, failure.points[wanted[failure.points, column]])
        if quality is not None and failures:
            there = np.flatnonzero(there_after(failures, len(rows)))
            rows, wanted, quality = rows[there], wanted[there], quality.take(there)
        if quality is not None and not self._shows_invalid:
            passing = np.flatnonzero(quality.passing)
            failing = np.flatnonzero(~quality.passing)
            self.unread.append((record, rows[failing]))
            rows, wanted, quality = rows[passing], wanted[passing], quality.take(passing)
        for bands, at in _patterns(wanted):
            self._read(record, [self.bands[band] for band in bands], rows[at], quality and quality.take(at))

    @property
    def _shows_invalid(self) -> bool:
        """Whether pixels are needed that fail a quality rule: for their value, or for those beside them."""
        if self.place.job.method.mends:
            return True
        return self.options.invalid != "drop" and not self.options.skip_invalid

    def _read(self, record: int, bands: Sequence[str], rows: Ints, quality: QualityAtPoints | None) -> None:
        """Read some bands of a record at candidates, and add the samples that are taken to those of the place."""
        for part, at in self._parts(record, bands, rows, quality):
            ((_, picked),) = part.picked.items()
            none = np.zeros(len(at), dtype=bool)
            invalid = none if picked.status is None else is_invalid(picked.status)
            if not self.options.skip_invalid:
                self._add(part.take(np.flatnonzero(~invalid)) if self.options.invalid == "drop" else part)
                continue
            depth = self.candidates.depth[at]
            self._add_valid(part.take(np.flatnonzero(~invalid)), depth[~invalid])
            if self.options.invalid != "drop":
                self.reserve.append(part.take(np.flatnonzero(invalid & (depth < (self.most or 1)))))

    def _add_valid(self, part: Part, depth: Ints) -> None:
        """Add samples of one band, with the number of better records that are left aside."""
        ((band, picked),) = part.picked.items()
        before = self.place.pairs.rows[part.points, self.place.pairs.columns([band])[0]]
        self._add(replace(part, picked={band: _aside(picked, depth - before)}))

    def _parts(
        self, record: int, bands: Sequence[str], rows: Ints, quality: QualityAtPoints | None
    ) -> Iterator[tuple[Part, Ints]]:
        """Samples of each band of a record, whatever they are, and of which candidates: those that could be read."""
        if not len(rows):
            return
        place, hit = self.place, self.candidates.hit[rows]
        spots = place.spots(int(place.hits.grid[hit[0]]), hit)
        assets = place.job.assets(place.routing.record_ids[record], bands)
        assets, picked, failures = place.reader.picked(assets, spots, quality)
        points = self.candidates.point[rows]
        for failure in failures:
            self._lose(failure, failure.asset.band, points, failure.points)
        for asset in assets:
            part = Part(record, points, spots, [asset], {asset.band: picked[asset.band]})
            there = np.flatnonzero(left_over(failures, asset.band, len(rows)))
            yield part.take(there), rows[there]

    def _add(self, part: Part) -> None:
        if len(part.points):
            self.place.parts.append(part)
            self.place.pairs.add(part)

    def _take_invalid(self) -> None:
        """Give pairs without a valid sample those of their best records, with their status."""
        found = self.place.pairs.rows[:, self.columns].copy()
        none = (found == 0) & ~self.place.pairs.lost[:, self.columns]
        best = self.most or 1
        for record, rows in self.unread:
            rows = rows[self.candidates.depth[rows] < best]
            for bands, at in _patterns(none[self.candidates.point[rows]]):
                names = [self.bands[band] for band in bands]
                passing = np.zeros(len(at), dtype=bool)
                quality = QualityAtPoints(passing, self.place.record_quality(record))
                self.reserve += [part for part, _ in self._parts(record, names, rows[at], quality)]
        for part in self.reserve:
            (band,) = part.picked
            lost = self.place.pairs.lost[part.points, self.place.pairs.columns([band])[0]]
            self._add(part.take(np.flatnonzero(none[part.points, self.bands.index(band)] & ~lost)))

    def _lose(self, failure: Failure, band: str, points: Ints, at: Ints) -> None:
        """Give up the pairs of a band, and of those of the points [n] at some places, whose tile cannot be read."""
        if not len(at):
            return
        self.place.pairs.lost[points[at], self.place.pairs.columns([band])[0]] = True
        asset = replace(failure.asset, band=band)
        self.place.failures.append(replace(failure, asset=asset, points=points[at]))


def _coordinates(chunk: pa.RecordBatch) -> tuple[str, np.ndarray, np.ndarray]:
    crs = chunk.schema.metadata[POINT_CRS_KEY].decode()
    x, y, _ = coordinates(chunk, crs)
    return crs, x, y


def there_after(failures: Sequence[Failure], count: int) -> Mask:
    """Which of so many points no failure is of."""
    there = np.ones(count, dtype=bool)
    for failure in failures:
        there[failure.points] = False
    return there


def _aside(picked: Picked, number: Ints) -> Picked:
    return replace(picked, candidate=number) if number.any() else picked


def _patterns(wanted: Mask) -> Iterator[tuple[list[int], Ints]]:
    """The rows [n] of a mask [n, k] that want the same, with the columns that they want; without those of none."""
    first, number = distinct_rows(wanted.T)
    for at, row in enumerate(first):
        if wanted[row].any():
            yield np.flatnonzero(wanted[row]).tolist(), np.flatnonzero(number == at)
