"""Plan a sampling job from the index of the collection, without opening a file."""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Unpack

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_beam import metrics
from rasteret_beam.collection.eager.inputs import point_stream
from rasteret_beam.collection.eager.plan_figures import CANDIDATES as CANDIDATES
from rasteret_beam.collection.eager.plan_figures import COUNTS_KEY, QUALITY_POINTS
from rasteret_beam.collection.eager.plan_figures import RECORDS as RECORDS
from rasteret_beam.collection.eager.plan_figures import TILES_OF_UNKNOWN_SIZE as TILES_OF_UNKNOWN_SIZE
from rasteret_beam.collection.eager.plan_figures import crowded_tiles as crowded_tiles
from rasteret_beam.collection.eager.plan_figures import plan_totals as plan_totals
from rasteret_beam.collection.eager.plan_view import Plan
from rasteret_beam.collection.eager.quality_tiles import QualityTiles
from rasteret_beam.collection.eager.samplable import Samplable
from rasteret_beam.collection.eager.seam_tiles import SeamTiles
from rasteret_beam.collection.eager.touched_tiles import Group, TouchedTiles, first_tiles
from rasteret_beam.collection.filters.date_ranges import DateRange
from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.collection.index.quality_checks import check_bands_of_rules
from rasteret_beam.kernels.routing.index import locate
from rasteret_beam.kernels.routing.matching import matched
from rasteret_beam.kernels.sampling.interpolation import SIZES
from rasteret_beam.kernels.tables.point_columns import choose_columns, coordinates, point_batch
from rasteret_beam.keywords import PlanKeywords
from rasteret_beam.model import Asset
from rasteret_beam.option_fields import options_from, takes_options
from rasteret_beam.options import SampleOptions
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
COUNTED = (
    metrics.POINTS_IN,
    metrics.POINTS_SAMPLED,
    metrics.POINTS_UNSAMPLED,
    *map(metrics.unsampled, UNSAMPLED_REASONS),
)
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
) -> Plan:
    """The tiles that sampling these points would read, without opening a file.

    Memory grows with the number of tiles, not with the number of points.

    Parameters
    ----------
    collection, points, bands, match, x_column, y_column, geometry_column, geometry_crs
        As for :func:`rasteret_beam.collection.eager.sample.sample_points`. The plan lacks the further tiles that
        nodata fallback (``max_distance_pixels``), windows of ``statistics``, and the records after the best one, up to
        ``max_candidates``, of ``skip_invalid`` may need; and tiles of quality bands under pixels beside the points'.
    bbox, date_range, geometries, cloud_cover_lt, ids
        As for :meth:`Collection.subset`.

    Returns
    -------
    Plan
        A table with a row for each tile that the points need, for each band of each record; notebooks show its figures.

        - ``points``: number of points in the tile; 0 for tiles into which only blocks of pixels around points reach
          (``resampling``), also from records beside; one that is read for several records has one row. The sum is the
          number of sample rows, but for tiles that are read for the quality of samples alone.
        - ``offset``, ``bytes``: position of the tile in its file, and its compressed size; null where the
          index lacks them, as for striped files. ``bytes`` is 0 for a tile that the file does not store,
          which has no ``offset``, and for a tile that is interleaved with that of another band, whose row
          has the bytes. The sum is the number of bytes to read.
        - ``engine``: "indexed"; or "rasterio", with the ``reason`` why the indexed engine cannot read the tile.
        - ``request``: number of the byte range that the indexed engine requests for the tile; null for tiles
          without a request. The number of distinct values is the number of requests.

        ``plan.totals`` are the sums, with the points that have no record.

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
    check_bands_of_rules(collection, options.quality)
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
    return Plan(plan_batches(index, (point_batch(batch, 0, chosen) for batch in stream), chosen.crs, options))


def plan_batches(
    index: CollectionIndex, batches: Iterable[pa.RecordBatch], crs: str, options: SampleOptions | None = None
) -> pa.Table:
    """The plan for batches of points, which are read once; see :func:`plan`."""
    routing, matcher = index.routing, index.routing.by_record
    touched: dict[int, TouchedTiles] = {}
    seams: dict[int, SeamTiles] = {}
    size = SIZES.get(options.resampling, 1) if options is not None else 1
    first_tile = first_tiles(routing)
    quality = QualityTiles(routing, first_tile)
    counts = dict.fromkeys(COUNTED, 0)
    for batch in batches:
        x, y, reason = coordinates(batch, crs)
        hits = locate(routing, crs, x, y)
        found = matched(routing, batch, hits, reason, matcher)
        picks = list(found.picks)
        _count(counts, found.reason)
        for number, pick in enumerate(picks):
            tiles = touched.setdefault(
                number, TouchedTiles(routing, first_tile, pick.layers, routing.layers.bandsets, size)
            )
            tiles.add(pick)
            if options is not None and size > 1:
                seams.setdefault(number, SeamTiles(index, pick.layers, options)).add(pick)
        quality.add(hits, len(batch), picks)
    groups = (group for tiles in touched.values() for group in tiles.groups())
    rows = _Rows(index)
    planned = list(_batched(rows.of(group) for group in groups))
    of_seams = [group for tiles in seams.values() for group in tiles.groups()]
    rows.know(planned, {key.record_id for key, *_ in of_seams})
    planned += _batched(rows.once(group) for group in of_seams)
    further = list(_batched(rows.further(group) for group in quality.groups()))
    counts[QUALITY_POINTS] = sum(pc.sum(batch["points"], min_count=0).as_py() for batch in further)
    counts |= {CANDIDATES: routing.rules.candidates} if routing.rules.candidates is not None else {}
    schema = PLAN_SCHEMA.with_metadata({COUNTS_KEY: json.dumps(counts)})
    return pa.Table.from_batches([*planned, *further], schema=PLAN_SCHEMA).cast(schema)


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


class _Rows:
    """Makes rows of the plan from groups; requests are numbered over all groups."""

    def __init__(self, index: CollectionIndex):
        self.index = index
        self.engine = IndexedEngine()
        self.requests = 0
        self._known: set[tuple[str, str, int, int]] = set()

    def of(self, group: Group) -> Iterator[tuple[Any, ...]]:
        """Rows of the tiles of bands to sample."""
        wants = self._wants(group)
        self._known |= {_name(want) for want in wants if want.asset.band in self.index.routing.rules.quality_bands}
        return self._made(wants, group)

    def further(self, group: Group) -> Iterator[tuple[Any, ...]]:
        """Rows of the tiles of quality bands, but for those that are sampled too."""
        return self._made([want for want in self._wants(group) if _name(want) not in self._known], group)

    def know(self, planned: Sequence[pa.RecordBatch], records: set[str]) -> None:
        """Note the tiles of some records that the plan has."""
        for batch in planned if records else ():
            of_records = batch.filter(pc.is_in(batch["record_id"], value_set=pa.array(sorted(records))))
            names = (of_records[name].to_pylist() for name in PLAN_SCHEMA.names[:4])
            self._known.update(zip(*names, strict=True))

    def once(self, group: Group) -> Iterator[tuple[Any, ...]]:
        """Rows of the tiles that are not known yet."""
        wants = [want for want in self._wants(group) if _name(want) not in self._known]
        self._known.update(map(_name, wants))
        return self._made(wants, group)

    def _wants(self, group: Group) -> list[TileRequest]:
        key, bands, grid, row, col, _ = group
        places = list(zip(row.tolist(), col.tolist(), strict=True))
        assets = self.index.assets(key.record_id, bands)
        return [TileRequest(asset, grid, *place, grid.tile_height) for asset in assets for place in places]

    def _made(self, wants: Sequence[TileRequest], group: Group) -> Iterator[tuple[Any, ...]]:
        _, _, _, row, col, points = group
        held = dict(zip(zip(row.tolist(), col.tolist(), strict=True), points.tolist(), strict=True))
        indexed: list[TileRequest] = []
        seen: set[tuple[str, int]] = set()
        reasons: dict[str, str | None] = {}
        for want in wants:
            band = want.asset.band
            why = reasons[band] = reasons[band] if band in reasons else fallback_reason(want.asset, want.grid)
            if why is None:
                indexed.append(want)
            else:
                yield _row(want, held, seen, "rasterio", why, None)
        for together in self.engine.plan(indexed):
            number = self.requests if _stored(together[0])[1] else None
            self.requests += number is not None
            yield from (_row(want, held, seen, "indexed", None, number) for want in together)


def _name(want: TileRequest) -> tuple[str, str, int, int]:
    return want.asset.record_id, want.asset.band, want.tile_row, want.tile_col


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


def _batched(groups: Iterable[Iterable[tuple[Any, ...]]]) -> Iterator[pa.RecordBatch]:
    waiting: list[tuple[Any, ...]] = []
    for rows in groups:
        waiting += rows
        if len(waiting) >= BATCH_ROWS:
            yield _batch(waiting)
            waiting = []
    if waiting:
        yield _batch(waiting)


def _batch(rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, PLAN_SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=PLAN_SCHEMA)
