"""Tiles by the collection's index: no header is read, neighbouring tiles are fetched together, rows decoded by need.

Which files it reads is decided from facts in the index (:func:`fallback_reason`); the others
are left to rasterio.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from rasteret_beam import metrics
from rasteret_beam.errors import TileReadError
from rasteret_beam.kernels.storage.coalescing import LOCAL, REMOTE, CoalesceRules
from rasteret_beam.kernels.storage.tiff_index import (
    LERC,
    STREAMED,
    ZSTD,
    samples_in_tile,
    why_converted,
    why_inconsistent,
)
from rasteret_beam.metrics import Counters
from rasteret_beam.model import Asset, Grid, StoredBand
from rasteret_beam.readers.jobs.cancellation import CancelToken
from rasteret_beam.readers.storage.byte_ranges import RangeError, RangeReader, state_of
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.readers.tiles.decode import CODECS, LERC_INNER, DecodeError, decode_tile
from rasteret_beam.readers.tiles.protocol import Tile, TileRequest, is_absent, neighbours

NORMAL_FILL_ORDER = 1

PREFIX_MARGIN = 0.02
"""Of a tile's bytes: with it, a second request was needed for 9 tiles of 100, and without for 94."""

ZSTD_BLOCK = 128 << 10
"""Pixels come out of Zstandard in blocks of so many bytes (RFC 8878, section 3.1.1.2)."""

MOST_OF_A_TILE = 0.8

Found = tuple[TileRequest, Tile | TileReadError]


def fallback_reason(asset: Asset, grid: Grid) -> str | None:
    """The fact for which rasterio has to read a band; None where the index describes its pixels fully."""
    stored, href = asset.stored, asset.href
    if stored is None or not len(stored.tile_offsets):
        found = stored.fallback_reason if stored is not None else None
        return found or "the collection has no tile offsets for it: it is striped, or no TIFF"
    if href.startswith("/vsi") or (Location.of(href).is_remote and not Location.of(href).has_ranges):
        return "only GDAL reads this URL"
    return (
        _why_not_decoded(stored)
        or why_converted(stored)
        or why_inconsistent(stored, grid, asset.band_index)
        or stored.fallback_reason
    )


def _why_not_decoded(stored: StoredBand) -> str | None:
    if stored.compression not in (*CODECS, LERC):
        return f"TIFF compression {stored.compression}"
    if stored.compression == LERC and stored.lerc_compression not in LERC_INNER:
        return f"LERC inside compression {stored.lerc_compression}"
    if stored.compression == LERC and stored.byte_order == "big":
        return "LERC in a big-endian file"
    if stored.byte_order is None and stored.dtype not in ("uint8", "int8"):
        return "the collection does not have its byte order"
    if stored.fill_order not in (None, NORMAL_FILL_ORDER):
        return f"fill order {stored.fill_order}"
    return None


class IndexedEngine:
    """The engine for tiled TIFFs whose tiles the collection has the offsets of.

    Parameters
    ----------
    ranges : RangeReader, optional
    remote, local : CoalesceRules
        Which ranges are fetched together: from a server, and from a local disk, where a request is cheap.
    prefix_reads : bool
        Of a remote tile that lies alone, ask only for the bytes that its wanted rows should need.
    """

    def __init__(
        self,
        ranges: RangeReader | None = None,
        remote: CoalesceRules = REMOTE,
        local: CoalesceRules = LOCAL,
        prefix_reads: bool = False,
    ):
        self.ranges = ranges or RangeReader()
        self.remote = remote
        self.local = local
        self.prefix_reads = prefix_reads

    def plan(self, requests: Sequence[TileRequest]) -> list[list[TileRequest]]:
        """Sets of tiles that lie beside each other in one file; those that are not in their file are a set too."""
        sets = []
        by_file: dict[str, list[TileRequest]] = {}
        for request in requests:
            by_file.setdefault(request.asset.href, []).append(request)
        for href, of_file in by_file.items():
            rules = self.remote if Location.of(href).is_remote else self.local
            absent = [request for request in of_file if is_absent(request)]
            present = [request for request in of_file if not is_absent(request)]
            sets += [absent] if absent else []
            sets += neighbours(present, rules)
        return sets

    def read(
        self, requests: Sequence[TileRequest], counters: Counters, cancel: CancelToken | None = None
    ) -> Iterator[Found]:
        if is_absent(requests[0]):
            yield from self._absent(requests)
            return
        places = [request.span for request in requests]
        first, last = places[0][0], max(end for _, end in places)
        if self.prefix_reads and len(set(places)) == 1 and Location.of(requests[0].asset.href).is_remote:
            enough = _prefix_bytes(requests)
            if enough < last - first:
                yield from self._read_prefix(requests, first, first + enough, last, counters, cancel)
                return
        try:
            data = memoryview(self.ranges.read(state_of(requests[0].asset), first, last, counters, cancel))
        except RangeError as error:
            if error.of_file or len(set(places)) == 1:
                yield from ((request, request.failed(error)) for request in requests)
                return
            # The range as a whole cannot be read; some of its tiles may.
            for together in _same_place(requests):
                yield from self.read(together, counters, cancel)
            return
        for together in _same_place(requests):
            start, end = together[0].span
            yield from _decoded(together, data[start - first : end - first], counters)

    def _absent(self, requests: Sequence[TileRequest]) -> Iterator[Found]:
        try:
            self.ranges.check(state_of(requests[0].asset))
        except RangeError as error:
            yield from ((request, request.failed(error)) for request in requests)
        else:
            yield from ((request, _absent_tile(request)) for request in requests)

    def _read_prefix(
        self,
        requests: Sequence[TileRequest],
        first: int,
        middle: int,
        last: int,
        counters: Counters,
        cancel: CancelToken | None,
    ) -> Iterator[Found]:
        """Tiles from the first bytes of one tile; from all its bytes, by another read, where the first fall short."""
        file = state_of(requests[0].asset)
        try:
            data = self.ranges.read(file, first, middle, counters, cancel)
            found = list(_decoded(requests, memoryview(data), counters))
            if isinstance(found[0][1], TileReadError):
                rest = self.ranges.read(file, middle, last, counters, cancel)
                found = list(_decoded(requests, memoryview(bytes(data) + bytes(rest)), counters))
        except RangeError as error:
            found = [(request, request.failed(error)) for request in requests]
        yield from found

    def close(self) -> None:
        """Nothing stays open between reads."""


def _prefix_bytes(requests: Sequence[TileRequest]) -> int:
    """Estimate of the first bytes of a tile that hold the rows wanted; all of them, where that is most of it."""
    request = max(requests, key=lambda each: each.rows)
    stored, grid = request.asset.stored, request.grid
    assert stored is not None
    count = request.span[1] - request.span[0]
    if stored.compression not in STREAMED:
        return count
    share = request.rows / grid.tile_height + PREFIX_MARGIN
    if stored.compression == ZSTD:
        row_bytes = grid.tile_width * samples_in_tile(stored) * np.dtype(stored.dtype).itemsize
        share += ZSTD_BLOCK / (row_bytes * grid.tile_height)
    return max(1, int(count * share)) if share < MOST_OF_A_TILE else count


def _same_place(requests: Sequence[TileRequest]) -> list[list[TileRequest]]:
    """The wants of one stored tile together: bands that lie interleaved in it."""
    by_place: dict[tuple[int, int], list[TileRequest]] = {}
    for request in requests:
        by_place.setdefault(request.span, []).append(request)
    return list(by_place.values())


def _decoded(requests: Sequence[TileRequest], data: memoryview, counters: Counters) -> Iterator[Found]:
    stored, grid = requests[0].asset.stored, requests[0].grid
    assert stored is not None
    try:
        pixels = decode_tile(data, stored, grid, min(grid.tile_height, max(request.rows for request in requests)))
    except DecodeError as error:
        yield from ((request, request.failed(error, "it cannot be decoded: ")) for request in requests)
        return
    counters.add(metrics.TILES_DECODED, len(requests))
    counters.add(metrics.TILES_INDEXED, len(requests))
    counters.add(metrics.TILE_BYTES_READ, len(data))
    interleaved = samples_in_tile(stored) > 1
    for request in requests:
        height, width = request.shape
        yield request, pixels[:height, :width, request.asset.band_index if interleaved else 0]


def _absent_tile(request: TileRequest) -> Tile:
    """A tile that its file leaves out: nodata, as near as the dtype comes to it, or 0; as GDAL reads it."""
    asset = request.asset
    assert asset.stored is not None
    dtype = np.dtype(asset.stored.dtype)
    value: float = 0.0 if asset.nodata is None else asset.nodata
    if dtype.kind in "iu" and not isinstance(value, int):
        value = 0 if np.isnan(value) else int(np.clip(np.round(value), *_ends(dtype)))
    return np.full(request.shape, value, dtype=dtype)


def _ends(dtype: np.dtype) -> tuple[int, int]:
    return int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
