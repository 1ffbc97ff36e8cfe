"""Routing: which records contain a point, and which pixel of their grids holds it.

Routing needs no pixel and no file. It is finished before points are shuffled: a batch is
transformed once for each CRS of the collection (not once for each record), compared with
the distinct grids of that CRS. What comes out is cut into chunks in :mod:`.chunks`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import shapely
from numpy.typing import NDArray

from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.geo.crs import LONLAT, Floats, crs_label, full_turn, reaches, transform
from rasteret_beam.kernels.geo.grids import GridTable, Ints, inside, pixel_positions
from rasteret_beam.kernels.geo.regions import ByLongitude, Region, region_of_box
from rasteret_beam.kernels.routing.depth import GridDepth
from rasteret_beam.kernels.routing.layers import BandGrids, Hits, Layers, only_bands, tiles_of_coarsest
from rasteret_beam.kernels.routing.match import EveryRecord, Matcher, check_match, matcher_of
from rasteret_beam.kernels.routing.places import (
    Placed,
    PlacesOfPoints,
    PlacesOfRecords,
    check_quality_bands,
    places_of,
)
from rasteret_beam.model import ALL_BANDS, ALL_RECORDS, Grid, MatchRules, TileKey

FEW_GRIDS = 8
"""Up to so many boxes, comparing a batch with each of them beats a search tree."""


@dataclass(frozen=True, eq=False)
class CrsGroup:
    """The grids of one CRS: where they are in the index, and how to find those near a point."""

    crs: str
    numbers: Ints
    grids: GridTable
    boxes: Floats
    region: Region | None
    tree: shapely.STRtree | None = field(repr=False)

    @classmethod
    def build(cls, crs: str, numbers: Ints, grids: GridTable) -> "CrsGroup":
        boxes = grids.boxes()
        hull = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
        tree = shapely.STRtree(shapely.box(*boxes.T)) if len(boxes) > FEW_GRIDS else None
        return cls(crs, numbers, grids, boxes, region_of_box(crs, hull), tree)


@dataclass(frozen=True, eq=False)
class RoutingIndex:
    """All that routing knows of a collection, for some bands and one way to match.

    Attributes
    ----------
    record_ids : [r] list of str
    datetimes : [r] int64
        Microseconds since 1970; ``NO_DATETIME`` where a record has none.
    grids : [g] GridTable
        Distinct grids. ``grid_crs`` [g] are their CRSs.
    groups : list of CrsGroup
    matcher : Matcher
        Which of the records that contain a point are taken, or (with ``places``) where points are keyed.
    bands : tuple of str
        Those to sample, in output order.
    rules : MatchRules
    places : "", "record" or "point"
        Points are keyed by record and tile, or by place; see :class:`rasteret_beam.model.MatchRules`.
    """

    record_ids: list[str]
    datetimes: Ints
    grids: GridTable
    grid_crs: list[str]
    groups: list[CrsGroup]
    matcher: Matcher
    bands: tuple[str, ...]
    rules: MatchRules
    places: str
    positions: dict[str, int] = field(repr=False)
    _band_grids: BandGrids = field(repr=False)
    _sampled: NDArray[np.bool_] | None = field(repr=False)

    @property
    def layers(self) -> Layers:
        """Which record has which bands to sample on which grid, sorted by grid, then by record."""
        return self.matcher.layers

    @property
    def all_layers(self) -> Layers:
        """The same, of quality bands too; in any order."""
        return self._band_grids.layers

    def grid_of(self, key: TileKey) -> tuple[Grid, tuple[str, ...]]:
        """The grid that a key names, and the bands to read on it."""
        return self.grid(key.grid), self.bands_of(key)

    def bands_of(self, key: TileKey) -> tuple[str, ...]:
        """The bands that a key names."""
        return self.bands if key.bandset == ALL_BANDS else self.layers.bandsets[key.bandset]

    def record_id(self, number: int) -> str:
        """The id of a record, empty for :data:`ALL_RECORDS`."""
        return "" if number == ALL_RECORDS else self.record_ids[number]

    def grid(self, number: int) -> Grid:
        """The grid at a position of the index."""
        return self.grids.grid(number, self.grid_crs[number])

    def band_grids(self, band: str) -> Ints:
        """Number of the grid, [r], on which each record has a band (to sample, or of quality); -1 where it lacks it."""
        return self._band_grids.of(band)

    @cached_property
    def tiles_of_coarsest(self) -> tuple[Ints, Ints]:
        """Tiles of each grid, [g] down and [g] across, that the largest tile on any grid of its records covers."""
        return tiles_of_coarsest(self.grids, self._band_grids.layers)

    @property
    def by_record(self) -> Matcher:
        """The matcher whose picks are records and their bands, also where points are keyed by place."""
        return self.matcher.matcher if isinstance(self.matcher, Placed) else self.matcher

    @property
    def takes_all(self) -> bool:
        """Whether all records that contain a point are taken."""
        return isinstance(self.by_record, EveryRecord)

    def records_together(self) -> PlacesOfRecords:
        """A matcher whose picks are records with all of their bands."""

        def made(sets: Layers, count: int) -> Matcher:
            return matcher_of(self.rules, sets, self.datetimes, count)

        return PlacesOfRecords(self.by_record, len(self.grids), made)

    @property
    def decides_later(self) -> bool:
        """Whether only those who read pixels know which points are sampled."""
        return self.places == "point"

    def to_sample(self, hits: Hits) -> Hits:
        """The hits on grids that have bands to sample: all but those that have bands of quality alone."""
        return hits if self._sampled is None else hits.take(self._sampled[hits.grid])

    def grid_of_band(self, record_id: str, band: str) -> Grid | None:
        """The grid on which a record has a band, or None."""
        position = self.positions.get(record_id)
        number = -1 if position is None else int(self.band_grids(band)[position])
        return None if number < 0 else self.grid(number)


def build_index(
    record_ids: list[str],
    datetimes: Ints,
    grids: GridTable,
    grid_crs: list[str],
    layers: Layers,
    match: str | MatchRules = "all",
    bands: Sequence[str] | None = None,
) -> RoutingIndex:
    """Prepare the search for the grids that contain a point.

    Parameters
    ----------
    layers : Layers
        Of the bands to sample, and of the bands that decide about quality.
    bands : sequence of str, optional
        Those to sample, in output order; by default all.

    Raises
    ------
    InputError
        ``match`` is unknown, two records have one id, or records lack a quality band.
    """
    positions = _positions(record_ids)
    check_match(match)
    rules = MatchRules(match) if isinstance(match, str) else match
    band_grids = BandGrids(layers, len(record_ids))
    if bands is None:
        bands = list(dict.fromkeys(band for bandset in layers.bandsets for band in bandset))
    wanted = only_bands(layers, bands) if rules.quality else layers
    check_quality_bands(rules, record_ids, wanted, band_grids.of)
    depth = GridDepth.of_grids(grids, grid_crs) if rules.overlap == "first" else None
    matcher = matcher_of(rules, wanted, datetimes, len(grids), depth)
    places = places_of(rules, matcher)
    if places == "point":
        matcher = PlacesOfPoints(matcher, len(grids))
    elif places == "record":
        matcher = PlacesOfRecords(matcher, len(grids), lambda sets, count: matcher_of(rules, sets, datetimes, count))
    sampled = np.bincount(wanted.grid, minlength=len(grids)) > 0
    shared = positions, band_grids, None if sampled.all() else sampled
    groups = _crs_groups(grids, grid_crs)
    return RoutingIndex(record_ids, datetimes, grids, grid_crs, groups, matcher, tuple(bands), rules, places, *shared)


def _positions(record_ids: Sequence[str]) -> dict[str, int]:
    positions = {record_id: number for number, record_id in enumerate(record_ids)}
    if len(positions) < len(record_ids):
        seen: set[str] = set()
        twice = sorted({name for name in record_ids if name in seen or seen.add(name)})  # type: ignore[func-returns-value]
        raise InputError(f"record id(s) {listed(twice)} stand more than once in the collection; ids must be unique")
    return positions


def _crs_groups(grids: GridTable, grid_crs: Sequence[str]) -> list[CrsGroup]:
    groups = []
    crs_names, crs_of_grid = np.unique(np.array(grid_crs, dtype=object), return_inverse=True)
    for number, crs in enumerate(crs_names):
        members = np.flatnonzero(crs_of_grid == number)
        groups.append(CrsGroup.build(str(crs), members, grids.take(members)))
    return groups


def locate(index: RoutingIndex, crs: str, x: Floats, y: Floats) -> Hits:
    """Every grid that contains each of ``n`` points given in ``crs``; NaN coordinates hit nothing.

    Where a geographic grid spans more than a full turn, a point hits it once: at its
    longitude as given, else at the longitude turned. Grids whose CRS PROJ cannot reach
    contain none of the points.

    Raises
    ------
    InputError
        No grid's CRS can be reached.
    """
    usable = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    groups = reachable_groups(index, crs)
    narrow = len(groups) > 1 and reaches(crs, LONLAT)
    placed = ByLongitude(*transform(crs, LONLAT, x[usable], y[usable])) if narrow else None
    found = []
    for group in groups:
        near = usable
        if placed is not None and group.region is not None and group.crs != crs:
            near = usable[placed.covered(group.region)]
        if len(near):
            hits = _locate_in_group(group, *transform(crs, group.crs, x[near], y[near]))
            found.append(Hits(near[hits.point], group.numbers[hits.grid], hits.row, hits.col))
    if not found:
        none, nowhere = np.empty(0, dtype=np.int64), np.empty(0)
        return Hits(none, none, nowhere, nowhere)
    columns = zip(*((hits.point, hits.grid, hits.row, hits.col) for hits in found), strict=True)
    return Hits(*(np.concatenate(column) for column in columns))


def reachable_groups(index: RoutingIndex, crs: str, what: str = "points") -> list[CrsGroup]:
    """The groups of an index to whose CRS PROJ brings points (or ``what`` they are) given in ``crs``.

    Raises
    ------
    InputError
        There are groups, but none can be reached: points on another celestial body, or in another
        engineering CRS, than all rasters.
    """
    reachable = [group for group in index.groups if reaches(crs, group.crs)]
    if index.groups and not reachable:
        there = listed([crs_label(group.crs) for group in index.groups], 4)
        raise InputError(
            f"the {what} are in {crs_label(crs)}, from which PROJ has no transformation to the CRS of any raster of "
            f"the collection ({there}); give {what} in one of these, or another collection"
        )
    return reachable


def _locate_in_group(group: CrsGroup, x: Floats, y: Floats) -> Hits:
    found = []
    for shift in turns_to(group, x):
        point, grid = _near_boxes(group, x + shift, y)
        row, col = pixel_positions(group.grids, grid, x[point] + shift, y[point])
        hit = np.flatnonzero(inside(group.grids, grid, row, col))
        found.append(Hits(point[hit], grid[hit], row[hit], col[hit]))
    hits = Hits(*(np.concatenate([getattr(h, name) for h in found]) for name in ("point", "grid", "row", "col")))
    if len(found) > 1:
        _, first = np.unique(hits.point * len(group.grids) + hits.grid, return_index=True)
        hits = hits.take(np.sort(first))
    return hits


def turns_to(group: CrsGroup, x: Floats) -> list[float]:
    """Whole turns by which points may have to be shifted to meet the group's grids; 0 comes first."""
    turn = full_turn(group.crs)
    finite = x[np.isfinite(x)]
    if turn is None or not len(finite):
        return [0.0]
    lowest = np.ceil((group.boxes[:, 0].min() - finite.max()) / turn)
    highest = np.floor((group.boxes[:, 2].max() - finite.min()) / turn)
    turns = np.arange(lowest, highest + 1)
    return [0.0, *(float(k * turn) for k in sorted(turns, key=abs) if k != 0)]


def _near_boxes(group: CrsGroup, x: Floats, y: Floats) -> tuple[Ints, Ints]:
    """Pairs (point, grid) where the grid's box holds the point."""
    if group.tree is not None:
        finite = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
        point, grid = group.tree.query(shapely.points(x[finite], y[finite]))
        return finite[point], grid
    xmin, ymin, xmax, ymax = group.boxes.T
    near = [
        np.flatnonzero((x >= xmin[grid]) & (x <= xmax[grid]) & (y >= ymin[grid]) & (y <= ymax[grid]))
        for grid in range(len(group.boxes))
    ]
    return np.concatenate(near), np.repeat(np.arange(len(near)), [len(points) for points in near])
