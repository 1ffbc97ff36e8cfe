"""Chunks: the routed points of one batch, cut by record and block of tiles for the shuffle."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_beam.errors import InputError
from rasteret_beam.kernels.geo.crs import epsg_code, same_crs
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.index import RoutingIndex, locate
from rasteret_beam.kernels.routing.layers import Pick
from rasteret_beam.kernels.routing.matching import matched
from rasteret_beam.kernels.sampling.rows import unsampled_rows
from rasteret_beam.kernels.tables.point_columns import coordinates
from rasteret_beam.kernels.tables.point_crs import exact_crs
from rasteret_beam.model import TileKey
from rasteret_beam.schema import (
    PIXEL,
    POINT_CRS_KEY,
    POINT_EPSG_KEY,
    POINT_FIELDS,
    POSITION,
    SAME_AS_KEY,
    TIME,
    check_point_batch,
    kept_fields,
)

COORDINATES = ("point_x", "point_y")

SMALL_DICTIONARY = 64
"""Entries that are not worth choosing from."""

WIDE_COLUMNS = 1024
"""A table of more columns has larger chunks, in proportion: else its arrays would be mostly overhead."""

FEW_BATCHES = 256
"""A group of as many chunks of a block may be too large; of a smaller share of the points no notice is taken."""

UNITS_TOGETHER = 8
"""Blocks that share a cache while their points look for a record. A tile that some have left may be needed by others
further on, so the tiles of all of these blocks are to fit."""

Chunks = Iterator[tuple[TileKey, pa.RecordBatch]]


@dataclass(frozen=True)
class ChunkRules:
    """How chunks are cut.

    Attributes
    ----------
    block : (int, int)
        Rows and columns, in tiles, of the block of neighbouring tiles whose points go together. A file's
        tiles lie row by row, so a wide block is read by few requests.
    block_values : int
        Pixels times bands that a block holds, at most, or it is one tile: the tiles of a group are to fit into a cache
        while its points are sampled unit by unit. Where points are keyed by place, the pixels of each record that they
        may need count.
    max_bytes : int
        Size of the largest chunk (more for tables of over a thousand columns); a shuffle's sort buffers hold several.
    group_bytes : int
        About how large the group of a key may become. A block that comes to more has a part for each range of
        ``point_index`` that comes to so many bytes, which other workers sample, and its tiles are read for each.
    """

    block: tuple[int, int] = (4, 16)
    block_values: int = 1 << 24
    max_bytes: int = 1 << 20
    group_bytes: int = 256 << 20


@dataclass(frozen=True, eq=False)
class Routed:
    """A batch of points after routing.

    Attributes
    ----------
    chunks : iterator of (TileKey, RecordBatch)
        Chunks have the columns :data:`PIXEL` (int32, pixel on the grid) and, if asked for,
        :data:`POSITION` (float64, where in the pixel), then those of the points.

        By place, the pixel is that on the key's grid, there is no position, the metadata have the CRS of the points,
        and column :data:`TIME` (int64, microseconds since 1970) comes before those of the points where the matcher
        goes by their times.
    sampled : int
        Points for which at least one record is taken.
    unsampled : RecordBatch
        The other points, in the unsampled schema.
    reasons : dict
        How many of those for each reason.
    """

    chunks: Chunks
    sampled: int
    unsampled: pa.RecordBatch
    reasons: dict[str, int]


def route(
    index: RoutingIndex, points: pa.RecordBatch, crs: str | None, rules: ChunkRules, with_position: bool = False
) -> Routed:
    """Find the pixels of a batch of points in a collection.

    Parameters
    ----------
    points : RecordBatch
        In the schema of :func:`rasteret_beam.schema.points_schema`.
    crs : str, optional
        CRS of the points where the batch does not carry it.
    with_position : bool
        Also give where in its pixel a point lies, which nodata fallback needs.

    Raises
    ------
    InputError
        The batch is not one of points, its CRS is missing or another than ``crs``, or its times cannot be used.
    """
    check_point_batch(points.schema)
    crs = _batch_crs(points.schema, crs)
    x, y, reason = coordinates(points, crs)
    found = matched(index, points, locate(index, crs, x, y), reason)
    unsampled, counts = unsampled_rows(points, found.reason, epsg_code(crs), crs)
    sent = _sent(index, points, crs, found.times)
    cut = chunks(index, sent, found.picks, rules, with_position and not index.places)
    return Routed(cut, len(points) - len(unsampled), unsampled, counts)


def _sent(index: RoutingIndex, points: pa.RecordBatch, crs: str, times: Ints | None) -> pa.RecordBatch:
    """The points as they go through the shuffle; by place with all that is needed to find their grids and records."""
    code = epsg_code(crs)
    metadata = exact_crs(code, crs) | ({} if code is None else {POINT_EPSG_KEY: str(code)})
    if not index.places:
        return points.replace_schema_metadata(metadata or None)
    schema, columns = points.schema, points.columns
    if times is not None:
        schema, columns = schema.insert(0, pa.field(TIME, pa.int64())), [pa.array(times), *columns]
    return pa.RecordBatch.from_arrays(columns, schema=schema.with_metadata(metadata | {POINT_CRS_KEY: crs}))


def _batch_crs(schema: pa.Schema, given: str | None) -> str:
    carried = (schema.metadata or {}).get(POINT_CRS_KEY)
    found = carried.decode() if carried is not None else None
    if found is None and given is None:
        raise InputError("the points have no CRS; give it with geometry_crs (for longitude and latitude: 4326)")
    if found is not None and given is not None and not same_crs(found, given):
        raise InputError(f"geometry_crs is {given}, but the batch of points carries {found}; leave geometry_crs out")
    return found or given or ""


def chunks(
    index: RoutingIndex, points: pa.RecordBatch, picks: Iterable[Pick], rules: ChunkRules, with_position: bool
) -> Iterator[tuple[TileKey, pa.RecordBatch]]:
    """Cut the points of one batch into chunks of one record and one block of tiles.

    Yields
    ------
    TileKey, RecordBatch
        As in :class:`Routed`.
    """
    for pick in picks:
        yield from chunks_of_pick(index, points, pick, rules, with_position)


def chunks_of_pick(
    index: RoutingIndex, points: pa.RecordBatch, pick: Pick, rules: ChunkRules, with_position: bool
) -> Iterator[tuple[TileKey, pa.RecordBatch]]:
    """Of one pick of a matcher; otherwise as :func:`chunks`."""
    for group, grid, tile_row, tile_col, chunk, size in _cut(index, points, pick, rules, with_position):
        layers = [(index.record_id(record), bandset) for record, bandset in pick.layers(group)]
        for part, piece in _parts(chunk, size, len(points), rules):
            for record_id, bandset in layers:
                yield TileKey(record_id, grid, bandset, tile_row, tile_col, part), piece


def _cut(
    index: RoutingIndex, points: pa.RecordBatch, pick: Pick, rules: ChunkRules, with_position: bool
) -> Iterator[tuple[int, int, int, int, pa.RecordBatch, int | None]]:
    """(group, grid, first tile row, first tile col, points, bytes) of each block of a group that was hit."""
    hits = pick.hits
    if not len(hits.point):
        return
    row, col = hits.row.astype(np.int64), hits.col.astype(np.int64)
    rows, cols = block_shapes(index, rules)
    block_row = row // (index.grids.tile_height * rows)[hits.grid]
    block_col = col // (index.grids.tile_width * cols)[hits.grid]
    order = np.lexsort((block_col, block_row, pick.group))
    group, block_row, block_col = pick.group[order], block_row[order], block_col[order]
    changes = (np.diff(group) != 0) | (np.diff(block_row) != 0) | (np.diff(block_col) != 0)
    starts = np.concatenate([[0], np.flatnonzero(changes) + 1])
    stops = np.append(starts[1:], len(order))
    columns = {name: pa.array(pixel[order], type=pa.int32()) for name, pixel in zip(PIXEL, (row, col), strict=True)}
    if with_position:
        parts = ((hits.row - row)[order], (hits.col - col)[order])
        columns.update(zip(POSITION, map(pa.array, parts), strict=True))
    taken = without_same(points.take(pa.array(hits.point[order])))
    columns.update(zip(taken.schema.names, taken.columns, strict=True))
    ordered = pa.RecordBatch.from_pydict(columns, metadata=taken.schema.metadata)
    ends = _row_ends(ordered)
    grid = hits.grid[order[starts]]
    blocks = (group[starts], grid, block_row[starts] * rows[grid], block_col[starts] * cols[grid], starts, stops)
    for number, on, tile_row, tile_col, start, stop in zip(*(column.tolist() for column in blocks), strict=True):
        chunk = ordered.slice(start, stop - start)
        if ends is None:
            yield number, on, tile_row, tile_col, compacted(chunk), None
        else:
            yield number, on, tile_row, tile_col, chunk, int(ends[stop] - ends[start])


def _row_ends(batch: pa.RecordBatch) -> Ints | None:
    """Bytes of the first rows of a batch, [n + 1]; None where columns are of types whose rows differ in other ways.

    Asking each of many small chunks for its size would take longer than cutting it.
    """
    sizes = np.zeros(len(batch) + 1, dtype=np.int64)
    for column in batch.columns:
        if pa.types.is_string(column.type) or pa.types.is_binary(column.type):
            sizes[1:] += pc.fill_null(pc.binary_length(column), 0).to_numpy() + 5
        elif pa.types.is_primitive(column.type):
            sizes[1:] += column.type.bit_width // 8 + 1
        else:
            return None
    return np.cumsum(sizes)


def block_shapes(index: RoutingIndex, rules: ChunkRules) -> tuple[Ints, Ints]:
    """Rows and columns, in tiles, of the blocks of each grid: as wide as may be, then as high.

    Where points are keyed by place, a block is as large as the largest tile on the other grids of its records, if
    ``rules.block`` has so many tiles: else each of its parts would read that tile.
    """
    tiles = rules.block_values // (
        index.grids.tile_height.astype(np.int64) * index.grids.tile_width * _bands_read(index)
    )
    down, across = index.tiles_of_coarsest if index.places else (np.ones_like(tiles), np.ones_like(tiles))
    down, across = np.minimum(down, rules.block[0]), np.minimum(across, rules.block[1])
    tiles = np.maximum(tiles, down * across)
    cols = np.clip(tiles // down, 1, rules.block[1]) // across * across
    return np.clip(tiles // cols, 1, rules.block[0]) // down * down, cols


def _bands_read(index: RoutingIndex) -> int:
    """Bands, of all the records of a point, that are read in a block."""
    if not index.places:
        return max(map(len, index.layers.bandsets), default=1)
    bands = len({*index.bands, *index.rules.quality_bands})
    if index.places == "record":
        return bands
    records = int(np.bincount(index.layers.grid).max(initial=1))
    if index.matcher.time_column is None:  # else points of a block have different ones
        records = min(records, index.rules.candidates or index.matcher.most or records)
    return bands * records * (UNITS_TOGETHER if records > 1 else 1)


def without_same(points: pa.RecordBatch) -> pa.RecordBatch:
    """The points without the kept columns that equal a coordinate, which need not travel twice through the shuffle."""
    same = []
    for place, field in enumerate(kept_fields(points.schema)):
        plain = field.type == pa.float64() and field.nullable and not field.metadata
        for source in COORDINATES if plain else ():
            if points.column(field.name).equals(points.column(source)):
                same.append((place, field.name, source))
                break
    if not same:
        return points
    metadata = (points.schema.metadata or {}) | {SAME_AS_KEY: json.dumps(same).encode()}
    left_out = {name for _, name, _ in same}
    others = points.select([number for number, name in enumerate(points.schema.names) if name not in left_out])
    return others.replace_schema_metadata(metadata)


def split_kept(chunk: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.RecordBatch | None]:
    """A chunk as its points, with the chunk's metadata, and its kept columns.

    These are None where there are none, and for chunks of something other than points, which stay whole.
    """
    index = chunk.schema.get_field_index(POINT_FIELDS[0].name)
    first_kept = index + len(POINT_FIELDS)
    if index < 0 or first_kept == chunk.num_columns:
        return chunk, None
    points = chunk.select(range(first_kept))
    kept = chunk.select(range(first_kept, chunk.num_columns))
    return points, kept.replace_schema_metadata(None)


def with_kept(points: pa.RecordBatch, kept: pa.RecordBatch) -> pa.RecordBatch:
    """The chunk of :func:`split_kept`."""
    schema = pa.schema([*points.schema, *kept.schema], metadata=points.schema.metadata)
    return pa.RecordBatch.from_arrays([*points.columns, *kept.columns], schema=schema)


def compacted(chunk: pa.RecordBatch) -> pa.RecordBatch:
    """The chunk with small dictionaries: a slice would carry its parent's, whole, through the shuffle."""
    if not any(pa.types.is_dictionary(field.type) for field in chunk.schema):
        return chunk
    return pa.RecordBatch.from_arrays([_compacted(column) for column in chunk.columns], schema=chunk.schema)


def _compacted(column: pa.Array) -> pa.Array:
    if not pa.types.is_dictionary(column.type) or len(column.dictionary) <= max(SMALL_DICTIONARY, 2 * len(column)):
        return column
    used = column.dictionary_decode().dictionary_encode()
    indices = used.indices.cast(column.type.index_type)
    return pa.DictionaryArray.from_arrays(indices, used.dictionary, ordered=column.type.ordered)


def _parts(
    chunk: pa.RecordBatch, size: int | None, batch_rows: int, rules: ChunkRules
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The chunk, of so many bytes if they are known, in pieces of at most ``max_bytes``, each with its part."""
    if size is not None and size <= rules.max_bytes and size * FEW_BATCHES < rules.group_bytes:
        yield 0, chunk
        return
    shift = range_bits(chunk.nbytes, batch_rows, rules.group_bytes)
    yield from parts(chunk, "point_index", shift, rules.max_bytes)


def parts(
    chunk: pa.RecordBatch, number: str, shift: int | None, max_bytes: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The chunk in pieces of at most ``max_bytes``, each with its part: the range of row numbers that it begins in.

    The first range is part 0, as is a chunk of little: the last batch of an input may be small.

    Parameters
    ----------
    number : str
        The column of row numbers.
    shift : int or None
        Of :func:`range_bits`.
    """
    for piece in pieces(chunk, max_bytes):
        yield 0 if shift is None else piece[number][0].as_py() >> shift, piece


def range_bits(chunk_bytes: int, batch_rows: int, group_bytes: int) -> int | None:
    """Ranges of two to this power of rows give a group of at most so many bytes, if all batches are like this one.

    None where a block comes to so little that one group holds it, whatever the input.
    """
    if chunk_bytes * FEW_BATCHES < group_bytes:
        return None
    return max(1, batch_rows * group_bytes // chunk_bytes).bit_length() - 1


def pieces(chunk: pa.RecordBatch, max_bytes: int) -> Iterator[pa.RecordBatch]:
    """A chunk in pieces of at most so many bytes for each :data:`WIDE_COLUMNS` columns, or of one row.

    Rows may differ in length.
    """
    return _pieces(chunk, max_bytes * max(1, chunk.num_columns // WIDE_COLUMNS))


def _pieces(chunk: pa.RecordBatch, max_bytes: int) -> Iterator[pa.RecordBatch]:
    if chunk.nbytes <= max_bytes or len(chunk) == 1:
        yield chunk
        return
    rows = max(1, len(chunk) * max_bytes // chunk.nbytes)
    if rows == len(chunk):
        rows //= 2
    for start in range(0, len(chunk), rows):
        yield from _pieces(chunk.slice(start, rows), max_bytes)
