"""Plan a sampling job from the index of the collection, without opening a file."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_beam import metrics
from rasteret_beam.collection.eager.inputs import point_stream
from rasteret_beam.collection.eager.samplable import Samplable
from rasteret_beam.collection.filters.date_ranges import DateRange
from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.chunks import ChunkRules, chunks_of_pick
from rasteret_beam.kernels.routing.index import RoutingIndex, locate
from rasteret_beam.kernels.routing.layers import Hits, Pick
from rasteret_beam.kernels.routing.matching import matched
from rasteret_beam.kernels.tables.point_columns import choose_columns, coordinates, point_batch
from rasteret_beam.keywords import PlanKeywords
from rasteret_beam.model import Asset, TileKey
from rasteret_beam.options import SampleOptions, options_from, takes_options
from rasteret_beam.readers.tiles.indexed import IndexedEngine, fallback_reason
from rasteret_beam.readers.tiles.protocol import TileRequest
from rasteret_beam.schema import UNSAMPLED_REASONS

PLAN_SCHEMA = pa.schema(
    [
        ("record_id", pa.string()),
        ("band", pa.string()),
        ("tile_row", pa.int32()),
        ("tile_col", pa.int32()),
        ("points", pa.int64()),
        ("href", pa.string()),
        ("offset", pa.int64()),
        ("bytes", pa.int64()),
        ("engine", pa.string()),
        ("reason", pa.string()),
        ("request", pa.int64()),
    ]
)
COUNTS_KEY = b"rasteret_beam.plan"
"""Schema metadata key of a plan: its counts of points, as JSON."""

COUNTED = (
    metrics.POINTS_IN,
    metrics.POINTS_SAMPLED,
    metrics.POINTS_UNSAMPLED,
    *map(metrics.unsampled, UNSAMPLED_REASONS),
)
RECORDS = "records"
TILES_OF_UNKNOWN_SIZE = "tiles_of_unknown_size"
BATCH_ROWS = 65_536


@takes_options(SampleOptions, lambda option: option.facts.routing)
def plan(
    collection: Samplable,
    points: Any,
    bands: Sequence[str],
    *,
    x_column: str | None = None,
    y_column: str | None = None,
    geometry_column: str | None = None,
    geometry_crs: Any = None,
    bbox: Sequence[float] | None = None,
    date_range: DateRange | None = None,
    geometries: Any = None,
    cloud_cover_lt: float | None = None,
    ids: str | Iterable[str] | None = None,
    **keywords: Unpack[PlanKeywords],
) -> pa.Table:
    """The tiles that sampling these points would read, without opening a file.

    Memory grows with the number of tiles, not with the number of points.

    Parameters
    ----------
    collection, points, bands, match, x_column, y_column, geometry_column, geometry_crs
        As for :func:`rasteret_beam.collection.eager.sample.sample_points`. Windows around nodata pixels
        (``max_distance_pixels``) may need more tiles, which the plan does not have.
    bbox, date_range, geometries, cloud_cover_lt, ids
        As for :meth:`Collection.subset`.

    Returns
    -------
    Table
        In :data:`PLAN_SCHEMA`, with a row for each tile that contains a point, for each band of each record.

        - ``points``: number of points in the tile. The sum is the number of sample rows.
        - ``offset``, ``bytes``: position of the tile in its file, and its compressed size; null where the
          index lacks them, as for striped files. ``bytes`` is 0 for a tile that the file does not store,
          which has no ``offset``, and for a tile that is interleaved with that of another band, whose row
          has the bytes. The sum is the number of bytes to read.
        - ``engine``: "indexed"; or "rasterio", with the ``reason`` why the indexed engine cannot read the tile.
        - ``request``: number of the byte range that the indexed engine requests for the tile; null for tiles
          without a request. The number of distinct values is the number of requests.

        :func:`plan_totals` gives the sums, with the points that have no record.

    Raises
    ------
    InputError
        A column, band, CRS or option cannot be used.
    """
    options = options_from(keywords, SampleOptions)
    collection = collection.narrowed(
        bbox=bbox, date_range=date_range, geometries=geometries, cloud_cover_lt=cloud_cover_lt, ids=ids
    )
    index = collection.index(bands, options.match_rules)
    stream = point_stream(points)
    chosen = choose_columns(
        stream.schema,
        x_column=x_column,
        y_column=y_column,
        geometry_column=geometry_column,
        geometry_crs=geometry_crs,
        columns=(),
        time_column=options.time_column,
        first_value=stream.first_value,
    )
    return plan_batches(index, (point_batch(batch, 0, chosen) for batch in stream), chosen.crs)


def plan_batches(index: CollectionIndex, batches: Iterable[pa.RecordBatch], crs: str) -> pa.Table:
    """The plan for batches of points, which are read once; see :func:`plan`."""
    routing = index.routing
    touched: dict[int, TouchedTiles] = {}
    first_tile = first_tiles(routing)
    counts = dict.fromkeys(COUNTED, 0)
    for batch in batches:
        x, y, reason = coordinates(batch, crs)
        found = matched(routing, batch, locate(routing, crs, x, y), reason)
        _count(counts, found.reason)
        for number, pick in enumerate(found.picks):
            touched.setdefault(number, TouchedTiles(routing, first_tile, pick.layers)).add(pick)
    groups = (group for tiles in touched.values() for group in tiles.groups())
    schema = PLAN_SCHEMA.with_metadata({COUNTS_KEY: json.dumps(counts)})
    return pa.Table.from_batches(_batched(_Rows(index), groups), schema=PLAN_SCHEMA).cast(schema)


def plan_totals(table: pa.Table) -> dict[str, int]:
    """The sums of a plan, under the names of the metrics of a run (see :mod:`rasteret_beam.metrics`).

    It also has :data:`RECORDS`, and :data:`TILES_OF_UNKNOWN_SIZE`, whose bytes are not in the sum.
    """
    read = pc.or_(pc.is_valid(table["request"]), pc.equal(table["engine"], "rasterio"))
    totals = {
        RECORDS: pc.count_distinct(table["record_id"]),
        metrics.TILES_DECODED: pc.sum(read, min_count=0),
        metrics.TILE_BYTES_READ: pc.sum(table["bytes"], min_count=0),
        TILES_OF_UNKNOWN_SIZE: pa.scalar(table["bytes"].null_count),
        metrics.RANGE_REQUESTS: pc.count_distinct(table["request"]),
        metrics.SAMPLES_OUT: pc.sum(table["points"], min_count=0),
    }
    return json.loads((table.schema.metadata or {})[COUNTS_KEY]) | {name: sum.as_py() for name, sum in totals.items()}


def crowded_tiles(table: pa.Table, count: int = 10) -> list[dict[str, Any]]:
    """The tiles of a plan with the most points: record_id, tile_row, tile_col, points, and a list of bands."""
    if not len(table):
        return []
    places = ["record_id", "tile_row", "tile_col", "points"]
    grouped = table.group_by(places).aggregate([("band", "list")]).rename_columns([*places, "bands"])
    order = [("points", "descending"), *((name, "ascending") for name in places[:3])]
    return grouped.take(pc.select_k_unstable(grouped, k=count, sort_keys=order)).to_pylist()


class TileCounts:
    """Numbers of points of the tiles that have points; tiles are numbered over all grids."""

    def __init__(self) -> None:
        self._tiles = self._points = np.empty(0, dtype=np.int64)
        self._waiting: list[tuple[Ints, Ints]] = []

    def add(self, tiles: Ints) -> None:
        """Count points by the number [n] of their tile."""
        self._waiting.append(np.unique(tiles, return_counts=True))
        if sum(len(waiting) for waiting, _ in self._waiting) > len(self._tiles):
            self.total()

    def total(self) -> tuple[Ints, Ints]:
        """Sorted numbers [m] of the tiles, and their numbers [m] of points."""
        tiles, points = (
            np.concatenate(parts) for parts in zip((self._tiles, self._points), *self._waiting, strict=True)
        )
        self._tiles, at = np.unique(tiles, return_inverse=True)
        self._points = np.zeros(len(self._tiles), dtype=np.int64)
        np.add.at(self._points, at, points)
        self._waiting = []
        return self._tiles, self._points


def first_tiles(routing: RoutingIndex) -> Ints:
    """Number [g] of the first tile of each grid."""
    tiles = routing.grids.tiles_across() * routing.grids.tiles_down()
    return np.cumsum(tiles) - tiles


def tile_numbers(routing: RoutingIndex, first_tile: Ints, hits: Hits) -> Ints:
    """Number of the tile of each hit, over all grids."""
    grids = routing.grids
    row = hits.row.astype(np.int64) // grids.tile_height[hits.grid]
    col = hits.col.astype(np.int64) // grids.tile_width[hits.grid]
    return first_tile[hits.grid] + row * grids.tiles_across()[hits.grid] + col


def _count(counts: dict[str, int], reason: np.ndarray) -> None:
    reason[reason == np.array(None)] = "sampled"
    names, numbers = np.unique(reason.astype(str), return_counts=True)
    found = dict(zip(names.tolist(), numbers.tolist(), strict=True))
    sampled = found.pop("sampled", 0)
    counts[metrics.POINTS_IN] += len(reason)
    counts[metrics.POINTS_SAMPLED] += sampled
    counts[metrics.POINTS_UNSAMPLED] += len(reason) - sampled
    for name, number in found.items():
        counts[metrics.unsampled(name)] += number


Group = tuple[TileKey, tuple[str, ...], Any, Ints, Ints, Ints]
"""A key that points are grouped by, its bands and its grid; and the rows, columns and points of its tiles."""


class TouchedTiles:
    """The tiles of one of a matcher's picks over all batches; each group of hits has separate tiles."""

    def __init__(self, routing: RoutingIndex, first_tile: Ints, layers: Callable[[int], Sequence[tuple[int, int]]]):
        self._routing, self._first_tile, self._layers = routing, first_tile, layers
        self._tiles = int((routing.grids.tiles_across() * routing.grids.tiles_down()).sum())
        self._counts = TileCounts()

    def add(self, pick: Pick) -> None:
        self._counts.add(pick.group * self._tiles + tile_numbers(self._routing, self._first_tile, pick.hits))

    def groups(self) -> Iterator[Group]:
        """The groups that sampling reads at once; each tile is routed as one point, so it is cut in the same way."""
        numbers, points = self._counts.total()
        group, tiles = np.divmod(numbers, max(self._tiles, 1))
        grids = self._routing.grids
        grid = np.searchsorted(self._first_tile, tiles, side="right") - 1
        row, col = np.divmod(tiles - self._first_tile[grid], grids.tiles_across()[grid])
        top, left = row * grids.tile_height[grid], col * grids.tile_width[grid]
        point = np.arange(len(tiles))
        batch = pa.record_batch({"point_index": point})
        hits = Hits(point, grid, top.astype(np.float64), left.astype(np.float64))
        pick = Pick(hits, group, self._layers)
        for key, chunk in chunks_of_pick(self._routing, batch, pick, ChunkRules(), with_position=False):
            at = chunk["point_index"].to_numpy()
            named, bands = self._routing.grid_of(key)
            yield key, bands, named, row[at], col[at], points[at]


class _Rows:
    """Makes rows of the plan from groups; requests are numbered over all groups."""

    def __init__(self, index: CollectionIndex):
        self.index = index
        self.engine = IndexedEngine()
        self.requests = 0

    def of(self, group: Group) -> Iterator[tuple[Any, ...]]:
        key, bands, grid, row, col, points = group
        held = dict(zip(zip(row.tolist(), col.tolist(), strict=True), points.tolist(), strict=True))
        indexed: list[TileRequest] = []
        seen: set[tuple[str, int]] = set()
        for asset in self.index.assets(key.record_id, bands):
            why = fallback_reason(asset, grid)
            wants = [TileRequest(asset, grid, *place, grid.tile_height) for place in held]
            if why is None:
                indexed += wants
            else:
                yield from (_row(want, held, seen, "rasterio", why, None) for want in wants)
        for together in self.engine.plan(indexed):
            number = self.requests if _stored(together[0])[1] else None
            self.requests += number is not None
            yield from (_row(want, held, seen, "indexed", None, number) for want in together)


def _row(
    want: TileRequest,
    held: dict[tuple[int, int], int],
    seen: set[tuple[str, int]],
    engine: str,
    reason: str | None,
    request: int | None,
) -> tuple[Any, ...]:
    asset: Asset = want.asset
    offset, size = _stored(want)
    if offset is not None and size:
        # Interleaved bands share their tiles, which are read once.
        size = 0 if (asset.href, offset) in seen else size
        seen.add((asset.href, offset))
    place = want.tile_row, want.tile_col
    return asset.record_id, asset.band, *place, held[place], asset.href, offset, size, engine, reason, request


def _stored(want: TileRequest) -> tuple[int | None, int | None]:
    """Offset and byte count of a tile: None if unknown; None and 0 for a tile that the file does not store."""
    stored, grid = want.asset.stored, want.grid
    down, across = grid.tile_counts()
    if stored is None or not len(stored.tile_offsets) == len(stored.tile_byte_counts) == across * down:
        return None, None
    number = want.tile_row * across + want.tile_col
    size = stored.tile_byte_counts[number]
    return (stored.tile_offsets[number] if size else None), size


def _batched(rows: _Rows, groups: Iterable[Group]) -> Iterator[pa.RecordBatch]:
    waiting: list[tuple[Any, ...]] = []
    for group in groups:
        waiting += rows.of(group)
        if len(waiting) >= BATCH_ROWS:
            yield _batch(waiting)
            waiting = []
    if waiting:
        yield _batch(waiting)


def _batch(rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, PLAN_SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=PLAN_SCHEMA)
