"""Routing of polygons: the windows of the grids that they crop, cut and keyed for the shuffle."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import shapely
from numpy.typing import NDArray
from shapely.geometry.base import BaseGeometry

from rasteret_beam.chip_options import MAX_CHIP_PIXELS, check_chip_pixels
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.geo.crs import crs_text, same_crs
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.chip_windows import Overlap, PixelWindow, chip_overlaps
from rasteret_beam.kernels.routing.chunks import compacted, parts, range_bits
from rasteret_beam.kernels.routing.index import RoutingIndex, reachable_groups
from rasteret_beam.kernels.routing.layers import Hits, Pick
from rasteret_beam.kernels.routing.matching import matched
from rasteret_beam.kernels.tables.polygon_geometry import (
    Polygons,
    Shapes,
    geometry_label,
    unusable_reasons,
    why_unusable,
)
from rasteret_beam.model import ALL_BANDS, Grid, TileKey, tiles_along
from rasteret_beam.schema import (
    CHIP_SHAPE,
    CHIP_WINDOW,
    POLYGON_COLUMN_KEY,
    POLYGON_CRS_KEY,
    check_polygon_batch,
    kept_polygon_fields,
    unmatched_schema,
)

PIXEL_BYTES = 8
"""What a pixel of a window counts in the size of a group: one of 256 MB crops 32 million pixels."""


WHY_UNMATCHED = {
    "no_time": "has no time (null)",
    "no_record": "overlaps no record that has a requested band",
    "out_of_tolerance": "overlaps records, but none is near enough in time, or on the side asked for",
}
"""Reasons that routing finds, in words that follow the name of a polygon."""


@dataclass(frozen=True)
class ChipRules:
    """How chips are cut and put together for the shuffle.

    Attributes
    ----------
    max_pixels : int
        Pixels of the largest window; larger chips are cut along tiles.
    block : int
        Side, in tiles, of the square of neighbouring tiles whose chips go together.
    max_bytes : int
        Size of the largest chunk of polygons (or of one polygon).
    by_place : bool
        Key polygons by place, a block of tiles of the first grid that each overlaps: its records are chosen where they
        are read.
    group_bytes : int
        About how much work the group of a key may become: bytes of its polygons, and :data:`PIXEL_BYTES` for each pixel
        of their windows. A block that comes to more has a part for each range of ``geometry_id`` that comes to so
        much, which other workers read, and its tiles are read for each.
    """

    max_pixels: int = MAX_CHIP_PIXELS
    block: int = 4
    max_bytes: int = 1 << 20
    by_place: bool = False
    group_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        check_chip_pixels(self.max_pixels)


@dataclass(frozen=True, eq=False)
class RoutedPolygons:
    """A batch of polygons after routing.

    Attributes
    ----------
    chunks : iterator of (TileKey, RecordBatch)
        Chunks have a row a window: the columns :data:`CHIP_WINDOW` (int32) and
        :data:`CHIP_SHAPE` (WKB in the CRS of the grid; null where the polygon is not in the
        window), then ``geometry_id`` and the kept columns. Keyed by place, they have a row a polygon, as the batch
        has it, and carry the CRS.
    matched : int
        Polygons that at least one record overlaps.
    unmatched : RecordBatch
        The other polygons, in the unmatched schema.
    reasons : dict
        How many of those for each reason.
    chips : int
        Pairs of a polygon and a band that have a chip, where polygons are keyed by place.
    """

    chunks: Iterator[tuple[TileKey, pa.RecordBatch]]
    matched: int
    unmatched: pa.RecordBatch
    reasons: dict[str, int]
    chips: int = 0


def route_polygons(
    index: RoutingIndex, batch: pa.RecordBatch, crs: str | None, rules: ChipRules, on_invalid: str = "raise"
) -> RoutedPolygons:
    """Find the windows of a batch of polygons in a collection.

    Parameters
    ----------
    batch : RecordBatch
        In the schema of :func:`rasteret_beam.schema.polygons_schema`.
    crs : str, optional
        CRS of the polygons where the batch does not carry it.
    on_invalid : "raise" or "skip"
        What to do about geometries that are not valid polygons, or that cannot be brought to
        the CRS of a record: an error, or a row in ``unmatched``.

    Raises
    ------
    InputError
        The batch is not one of polygons, its CRS is missing or another than ``crs``, its times cannot be used, or,
        with "raise", a geometry cannot be used; names it.
    """
    check_polygon_batch(batch.schema)
    found, column = batch_crs(batch.schema, crs)
    with_crs = batch.replace_schema_metadata({**(batch.schema.metadata or {}), POLYGON_CRS_KEY: found})
    reachable_groups(index, found, "polygons")
    shapes, left = _usable(batch, column)
    if on_invalid == "raise":
        left.refuse()
    usable = np.flatnonzero(left.reason == np.array(None))
    rows = batch["geometry_id"].to_numpy()
    polygons = Polygons(shapely.force_2d(shapes[usable]), found, column, rows[usable])
    overlaps = [
        overlap._replace(geometry=int(usable[overlap.geometry]))
        for overlap in _overlaps(index, polygons, on_invalid, usable, left)
    ]
    picks, reason, _ = matched(index, batch, hits_of(overlaps), left.reason)
    for number in np.flatnonzero((reason != np.array(None)) & (left.reason == np.array(None))):
        left.add(int(number), reason[number], WHY_UNMATCHED[reason[number]])
    with_chips = np.flatnonzero(left.reason == np.array(None))
    others = len(with_chips), left.rows(with_crs), left.counts()
    if not rules.by_place:
        return RoutedPolygons(_chunks(index, batch, overlaps, picks, rules), *others)
    chips = sum(_chips_of(index, pick) for pick in picks)
    chosen = set(with_chips.tolist())
    by_grid = sorted(overlaps, key=lambda overlap: overlap.grid, reverse=True)
    first = {overlap.geometry: overlap for overlap in by_grid if overlap.geometry in chosen}
    return RoutedPolygons(_at_places(index, with_crs, list(first.values()), rules), *others, chips)


def _chips_of(index: RoutingIndex, pick: Pick) -> int:
    """Pairs of a polygon and a band of a pick that takes one record of each polygon."""
    bandsets = index.layers.bandsets
    groups, counts = np.unique(pick.group, return_counts=True)
    return sum(
        count * len(bandsets[bandset])
        for group, count in zip(groups.tolist(), counts.tolist(), strict=True)
        for _, bandset in pick.layers(group)
    )


def hits_of(overlaps: Sequence[Overlap]) -> Hits:
    """Overlaps as hits; where each of them stands in the list travels as its row."""
    geometry, grid = (np.array([overlap[at] for overlap in overlaps], dtype=np.int64) for at in (0, 1))
    return Hits(geometry, grid, np.arange(len(overlaps), dtype=np.float64), np.zeros(len(overlaps)))


@dataclass(frozen=True, eq=False)
class _Left:
    """Why polygons of a batch have no chip: a reason and its wording each, or None."""

    reason: NDArray[np.object_]
    message: NDArray[np.object_]
    ids: Ints
    column: str | None

    def add(self, number: int, reason: str, why: str) -> None:
        self.reason[number] = reason
        self.message[number] = f"{geometry_label(int(self.ids[number]), self.column)} {why}"

    def refuse(self) -> None:
        first = np.flatnonzero(self.reason != np.array(None))
        if len(first):
            raise InputError(self.message[first[0]])

    def rows(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The polygons that have a reason, in the unmatched schema, with the CRS of the batch."""
        left = np.flatnonzero(self.reason != np.array(None))
        kept = kept_polygon_fields(batch.schema)
        chosen = batch.take(pa.array(left, type=pa.int64()))
        texts = [pa.array(values[left], type=pa.string()) for values in (self.reason, self.message)]
        columns = [*chosen.columns[:2], *texts, *(chosen.column(field.name) for field in kept)]
        crs = {POLYGON_CRS_KEY: batch.schema.metadata[POLYGON_CRS_KEY]}
        return pa.RecordBatch.from_arrays(columns, schema=unmatched_schema(kept).with_metadata(crs))

    def counts(self) -> dict[str, int]:
        reasons = self.reason[self.reason != np.array(None)].tolist()
        return {reason: reasons.count(reason) for reason in dict.fromkeys(reasons)}


def batch_crs(schema: pa.Schema, given: str | None) -> tuple[str, str | None]:
    """The CRS of a batch of polygons, and what its input calls their column.

    Raises
    ------
    InputError
        The CRS is missing, or the batch carries another than the given one.
    """
    metadata = schema.metadata or {}
    carried, column = metadata.get(POLYGON_CRS_KEY), metadata.get(POLYGON_COLUMN_KEY)
    found = carried.decode() if carried is not None else None
    given = crs_text(given) if given is not None else None
    if found is None and given is None:
        raise InputError("the polygons have no CRS; give it with geometry_crs (for longitude and latitude: 4326)")
    if found is not None and given is not None and not same_crs(found, given):
        raise InputError(f"geometry_crs is {given}, but the batch of polygons carries {found}; leave geometry_crs out")
    return found or given or "", column.decode() if column is not None else None


def _usable(batch: pa.RecordBatch, column: str | None) -> tuple[Shapes, _Left]:
    """The geometries of a batch, and why some of them cannot be used."""
    wkb = batch["geometry"]
    shapes: Shapes = shapely.from_wkb(wkb.to_numpy(zero_copy_only=False), on_invalid="ignore")
    reason = unusable_reasons(shapes)
    given = wkb.is_valid().to_numpy(zero_copy_only=False)
    reason[shapely.is_missing(shapes) & given] = "broken"
    left = _Left(reason, np.full(len(shapes), None, dtype=object), batch["geometry_id"].to_numpy(), column)
    for number in np.flatnonzero(reason != np.array(None)):
        why = "is not WKB that can be read" if reason[number] == "broken" else why_unusable(shapes[number])
        left.add(int(number), reason[number], why)
    return shapes, left


def _overlaps(index: RoutingIndex, polygons: Polygons, on_invalid: str, usable: Ints, left: _Left) -> Iterator[Overlap]:
    """The overlaps of all polygons; those that cannot be brought to a record's CRS raise, or are left with a reason."""
    try:
        yield from list(chip_overlaps(index, polygons))
        return
    except InputError:
        if on_invalid == "raise":
            raise
    for number in range(len(polygons)):
        try:
            found = list(chip_overlaps(index, polygons.take(np.array([number]))))
        except InputError as error:
            left.reason[usable[number]], left.message[usable[number]] = "no_projection", str(error)
            continue
        yield from (overlap._replace(geometry=number) for overlap in found)


def _chunks(
    index: RoutingIndex, batch: pa.RecordBatch, overlaps: Sequence[Overlap], picks: Iterable[Pick], rules: ChipRules
) -> Iterator[tuple[TileKey, pa.RecordBatch]]:
    """The windows of one batch by record and block of tiles."""
    for pick in picks:
        groups = dict(zip(pick.hits.row.astype(np.int64).tolist(), pick.group.tolist(), strict=True))
        for group, members in _by_group(overlaps, groups).items():
            layers = [(index.record_ids[record], bandset) for record, bandset in pick.layers(group)]
            for grid, tile_row, tile_col, part, chunk in _pieces(index, batch, members, rules):
                for record_id, bandset in layers:
                    yield TileKey(record_id, grid, bandset, tile_row, tile_col, part), chunk


def _at_places(
    index: RoutingIndex, batch: pa.RecordBatch, firsts: Sequence[Overlap], rules: ChipRules
) -> Iterator[tuple[TileKey, pa.RecordBatch]]:
    """Whole polygons by block of tiles of the first grid that each overlaps."""
    blocks: dict[tuple[int, int, int], list[Overlap]] = {}
    for overlap in sorted(firsts, key=lambda overlap: overlap.geometry):
        blocks.setdefault(_block(index, overlap.grid, overlap.window, rules), []).append(overlap)
    for (grid, tile_row, tile_col), members in sorted(blocks.items()):
        chunk = compacted(batch.take(pa.array([overlap.geometry for overlap in members], type=pa.int64())))
        work = chunk.nbytes + PIXEL_BYTES * sum(overlap.window.height * overlap.window.width for overlap in members)
        shift = range_bits(work, len(batch), rules.group_bytes)
        for part, piece in parts(chunk, "geometry_id", shift, rules.max_bytes):
            yield TileKey("", grid, ALL_BANDS, tile_row, tile_col, part), piece


def _block(index: RoutingIndex, grid: int, window: PixelWindow, rules: ChipRules) -> tuple[int, int, int]:
    """The grid, and the first tile of the block in which a window starts."""
    high, wide = int(index.grids.tile_height[grid]), int(index.grids.tile_width[grid])
    row, col = window.row // (high * rules.block), window.col // (wide * rules.block)
    return grid, row * rules.block, col * rules.block


def _by_group(overlaps: Sequence[Overlap], groups: Mapping[int, int]) -> dict[int, list[Overlap]]:
    """Overlaps, by their position, in the groups of a pick, in the order of the groups."""
    members: dict[int, list[Overlap]] = {group: [] for group in sorted(set(groups.values()))}
    for at, group in groups.items():
        members[group].append(overlaps[at])
    return members


def _pieces(
    index: RoutingIndex, batch: pa.RecordBatch, overlaps: Sequence[Overlap], rules: ChipRules
) -> Iterator[tuple[int, int, int, int, pa.RecordBatch]]:
    """(grid, first tile row, first tile col, part, chunk) of each block in which windows start."""
    blocks: dict[tuple[int, int, int], list[ChipPiece]] = {}
    for overlap in overlaps:
        for piece in chip_pieces(overlap, index.grid(overlap.grid), rules.max_pixels):
            blocks.setdefault(_block(index, overlap.grid, piece.window, rules), []).append(piece)
    for (grid, tile_row, tile_col), members in sorted(blocks.items()):
        chunk = chip_chunk(batch, members)
        work = chunk.nbytes + PIXEL_BYTES * sum(piece.window.height * piece.window.width for piece in members)
        shift = range_bits(work, len(batch), rules.group_bytes)
        for part, piece in parts(chunk, "geometry_id", shift, rules.max_bytes):
            yield grid, tile_row, tile_col, part, piece


class ChipPiece(NamedTuple):
    """A window of a chip, how many it was cut into, the row of the polygon, and what the window sees of it."""

    window: PixelWindow
    windows: int
    geometry: int
    shape: BaseGeometry | None


def chip_pieces(overlap: Overlap, grid: Grid, max_pixels: int) -> list[ChipPiece]:
    """The windows of at most so many pixels into which the chip of a polygon on a grid is cut."""
    windows = cut_window(overlap.window, grid.tile_height, grid.tile_width, max_pixels)
    shapes = shapes_in(overlap.shape, grid, windows)
    return [
        ChipPiece(window, len(windows), overlap.geometry, shape) for window, shape in zip(windows, shapes, strict=True)
    ]


def shapes_in(shape: BaseGeometry, grid: Grid, windows: Sequence[PixelWindow]) -> list[BaseGeometry | None]:
    """What windows need to know of a polygon, so that not each of many carries all of its vertices.

    A window that lies within the polygon gets a box, one that lies outside None, and one on
    the polygon's edge the polygon, whose vertices stay: cut ones would be rounded.

    Parameters
    ----------
    shape : Shapely geometry
        In the CRS of the grid.
    """
    if len(windows) == 1:
        return [shape]
    # A pixel wider all around, so that what touches only the window's border counts as on the edge.
    top, left, high, wide = np.array(windows, dtype=np.float64).T
    rows = np.stack([top - 1, top - 1, top + high + 1, top + high + 1], axis=1)
    cols = np.stack([left - 1, left + wide + 1, left + wide + 1, left - 1], axis=1)
    boxes = shapely.polygons(np.stack(grid.to_world(rows, cols), axis=2))
    shapely.prepare(shape)
    within, meets = shapely.contains_properly(shape, boxes), shapely.intersects(shape, boxes)
    return [box if is_in else shape if near else None for box, is_in, near in zip(boxes, within, meets, strict=True)]


def chip_chunk(batch: pa.RecordBatch, members: Sequence[ChipPiece]) -> pa.RecordBatch:
    """The windows of some polygons of a batch as a chunk; see :class:`RoutedPolygons`."""
    kept = batch.select(["geometry_id", *(field.name for field in kept_polygon_fields(batch.schema))])
    numbers = np.array([(*piece.window, piece.windows) for piece in members], dtype=np.int32)
    columns = {name: pa.array(column) for name, column in zip(CHIP_WINDOW, numbers.T, strict=True)}
    shapes = np.empty(len(members), dtype=object)
    shapes[:] = [piece.shape for piece in members]
    columns[CHIP_SHAPE] = pa.array(shapely.to_wkb(shapes), type=pa.binary())
    taken = kept.take(pa.array([piece.geometry for piece in members], type=pa.int64()))
    columns.update(zip(taken.schema.names, taken.columns, strict=True))
    return compacted(pa.RecordBatch.from_pydict(columns))


def cut_window(window: PixelWindow, tile_height: int, tile_width: int, max_pixels: int) -> list[PixelWindow]:
    """A window, cut along tiles into windows of at most so many pixels, row by row; whole where it is small enough.

    The pieces are about square. Tiles that are larger than ``max_pixels`` themselves are cut too.
    """
    if window.height * window.width <= max_pixels:
        return [window]
    across = tiles_along(window.col % tile_width + window.width, tile_width)
    tiles = max_pixels // (tile_height * tile_width)
    if tiles:
        wide = max(1, min(across, tiles, round((tiles * tile_height / tile_width) ** 0.5)))
        high, step = tiles // wide * tile_height, wide * tile_width
    else:
        step = min(tile_width, max_pixels, max(1, int(max_pixels**0.5)))
        high = max(1, max_pixels // step)
    rows, cols = _cuts(window.row, window.height, high), _cuts(window.col, window.width, step)
    return [PixelWindow(row, col, below - row, beside - col) for row, below in rows for col, beside in cols]


def _cuts(start: int, size: int, step: int) -> list[tuple[int, int]]:
    edges = [start, *range((start // step + 1) * step, start + size, step), start + size]
    return list(pairwise(edges))
