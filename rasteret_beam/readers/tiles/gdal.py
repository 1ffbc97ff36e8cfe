"""Tiles through rasterio: every file that is opened."""

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.io import DatasetReader
from rasterio.windows import Window

from rasteret_beam import metrics
from rasteret_beam.errors import TileReadError
from rasteret_beam.kernels.sampling.validity import flag_names, masked_by_file
from rasteret_beam.metrics import Counters
from rasteret_beam.model import Access, Asset, Grid, tiles_along
from rasteret_beam.readers.gdal.rasters import Raster, RasterPool
from rasteret_beam.readers.jobs.cancellation import Cancelled, CancelToken
from rasteret_beam.readers.storage.byte_ranges import RangeError, state_of
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.readers.tiles.cache import BytesCache
from rasteret_beam.readers.tiles.protocol import NO_MASK, Tile, TileRequest, failed, is_absent, neighbours

READ_BYTES = 32 << 20
"""Decoded bytes asked for in one read of several bands."""

UNMASKED_BYTES = 4 << 20
"""What is remembered of files that turned out to have no mask, at about 400 bytes a band."""

UNITS_BYTES = 4 << 20
"""What is remembered of the scales and offsets of files, likewise."""

Found = tuple[TileRequest, Tile | TileReadError]
Bands = list[TileRequest]
"""Bands of one file in one tile."""


class RasterioEngine:
    """The engine for every file; see :class:`rasteret_beam.readers.tiles.protocol.TileEngine`."""

    def __init__(self, pool: RasterPool | None = None):
        self.pool = RasterPool(skip_sidecars=True) if pool is None else pool
        self._unmasked: BytesCache[bool] = BytesCache(UNMASKED_BYTES)
        self._units: BytesCache[tuple[float, float]] = BytesCache(UNITS_BYTES)

    def plan(self, requests: Sequence[TileRequest]) -> list[list[TileRequest]]:
        """Tiles of one place in one file, or where they lie beside each other on a server, of several places."""
        sets = []
        by_file: dict[str, list[TileRequest]] = {}
        for request in requests:
            by_file.setdefault(request.asset.href, []).append(request)
        for href, of_file in by_file.items():
            skip_sidecars = of_file
            if Location.of(href).has_ranges:
                beside = [request for request in of_file if not (request.mask or is_absent(request))]
                sets += neighbours(beside)
                skip_sidecars = [request for request in of_file if request.mask or is_absent(request)]
            sets += _places(skip_sidecars)
        return sets

    def read(
        self, requests: Sequence[TileRequest], counters: Counters, cancel: CancelToken | None = None
    ) -> Iterator[Found]:
        places = _places(requests)
        if len(places) > 1:
            places = yield from self._read_neighbours(places, counters, cancel)
        for bands in places:
            if cancel is not None:
                cancel.check()
            yield from self._read_place(bands, counters, cancel)

    def _read_neighbours(
        self, places: list[Bands], counters: Counters, cancel: CancelToken | None
    ) -> Generator[Found, None, list[Bands]]:
        """Tiles whose bytes come by one request; gives the places that are left, from one that cannot be read on."""
        spans = [request.span for bands in places for request in bands]
        left = list(places)
        try:
            with (
                self.pool.borrow(state_of(places[0][0].asset), counters, cancel) as raster,
                raster.ahead(min(spans)[0], max(last for _, last in spans), counters, cancel),
            ):
                for bands in places:
                    tiles = _read_tiles(raster, bands, counters, cancel)
                    left.remove(bands)
                    yield from zip(bands, tiles, strict=True)
        except RangeError as error:
            if error.of_file:
                yield from ((request, request.failed(error)) for bands in left for request in bands)
                return []
        except Cancelled:
            raise
        except Exception:
            pass  # each of those left is read for itself, and fails for itself
        return left

    def _read_place(self, bands: Bands, counters: Counters, cancel: CancelToken | None) -> Iterator[Found]:
        reason: BaseException
        if bands[0].mask and all(self._unmasked.get(_band(request.asset)) for request in bands):
            yield from ((request, NO_MASK) for request in bands)
            return
        try:
            with self.pool.borrow(state_of(bands[0].asset), counters, cancel, bands[0].mask) as raster:
                read = self._read_masks if bands[0].mask else _read_tiles
                tiles = read(raster, bands, counters, cancel)
            yield from zip(bands, tiles, strict=True)
            return
        except RangeError as error:
            reason, of_all = error, error.of_file
        except Cancelled:
            raise
        except Exception as error:  # GDAL's, and what comes of sizes that a corrupt header gives: MemoryError, say
            reason, of_all = error.__cause__ or error, False  # rasterio's own text only points at GDAL's
        if of_all or len(bands) == 1:
            yield from ((request, request.failed(reason)) for request in bands)
            return
        # One of these bands cannot be read; the others may.
        for request in bands:
            if cancel is not None:
                cancel.check()
            yield from self._read_place([request], counters, cancel)

    def _read_masks(self, raster: Raster, bands: Bands, counters: Counters, cancel: CancelToken | None) -> list[Tile]:
        """The file's own masks of some bands in one tile."""

        def read(dataset: DatasetReader) -> list[Tile]:
            _check_unchanged(dataset, [request.asset.band_index for request in bands], bands[0].grid)
            flags, dtypes = dataset.mask_flag_enums, dataset.dtypes
            masked = {}
            for request in bands:
                index = request.asset.band_index
                if _is_masked(request.asset, flag_names(flags[index]), dtypes[index]):
                    masked[index] = flags[index]
                else:
                    self._unmasked.put(_band(request.asset), True, 400)
            found = _masks(dataset, masked, _window(bands[0]))
            return [found.get(request.asset.band_index, NO_MASK) for request in bands]

        masks = raster.read(read, counters, cancel)
        if count := sum(mask is not NO_MASK for mask in masks):
            counters.add(metrics.MASK_TILES_READ, count)
        return masks

    def with_units(self, asset: Asset, counters: Counters, cancel: CancelToken | None = None) -> Asset:
        """An asset with what it lacks of scale and offset, by the tags of its file, which is asked once.

        Raises
        ------
        TileReadError
            The file cannot be read.
        Cancelled
            ``cancel`` was given, and the job has ended.
        """
        known = self._units.get(_units_name(asset))
        if known is None:
            try:
                with self.pool.borrow(state_of(asset), counters, cancel, with_sidecars=True) as raster:
                    known = raster.read(partial(_units, asset.band_index), counters, cancel)
            except Cancelled:
                raise
            except Exception as error:
                raise failed(asset, "its scale and offset", error) from error
            self._units.put(_units_name(asset), known, 400)
        scale, offset = known
        return replace(
            asset,
            scale=scale if asset.scale is None else asset.scale,
            offset=offset if asset.offset is None else asset.offset,
        )

    def close(self) -> None:
        self.pool.close()


def _places(requests: Sequence[TileRequest]) -> list[Bands]:
    """Bands in one tile, which GDAL decodes once if they lie interleaved."""
    at_place: dict[tuple[str, int, int, bool], Bands] = {}
    for request in requests:
        at_place.setdefault((request.asset.href, request.tile_row, request.tile_col, request.mask), []).append(request)
    places = []
    for bands in at_place.values():
        most = max(1, READ_BYTES // (8 * bands[0].grid.tile_width * bands[0].grid.tile_height))
        places += [bands[start : start + most] for start in range(0, len(bands), most)]
    return places


def _read_tiles(raster: Raster, bands: Bands, counters: Counters, cancel: CancelToken | None) -> list[Tile]:
    request, window = bands[0], _window(bands[0])
    indexes = [each.asset.band_index for each in bands]

    def read(dataset: DatasetReader) -> list[Tile]:
        _check_unchanged(dataset, indexes, request.grid)
        tiles = list(dataset.read([index + 1 for index in indexes], window=window))
        counters.add(metrics.TILE_BYTES_READ, stored_bytes(dataset, indexes, window))
        return tiles

    tiles = raster.read(read, counters, cancel)
    counters.add(metrics.TILES_DECODED, len(bands))
    return tiles


def _window(request: TileRequest) -> Window:
    height, width = request.shape
    row, col = request.tile_row * request.grid.tile_height, request.tile_col * request.grid.tile_width
    return Window(col, row, width, height)  # type: ignore[call-arg]


def _band(asset: Asset) -> tuple[str, int]:
    return asset.href, asset.band_index


def _units_name(asset: Asset) -> tuple[str, str | None, int, Access, str | None]:
    """File, the state that it was indexed in, band index, and on whose word it is read."""
    stored = asset.stored
    state = (stored.header_digest or stored.etag) if stored is not None else None
    return asset.href, state, asset.band_index, asset.access, asset.access.origin


def _units(band_index: int, dataset: DatasetReader) -> tuple[float, float]:
    """Scale and offset of a band; 1 and 0 where the file has none."""
    if band_index >= dataset.count:
        raise TileReadError(
            f"the file has {dataset.count} band(s), but the collection has band index {band_index}: the file was "
            "changed after the collection was built; build it again"
        )
    return float(dataset.scales[band_index]), float(dataset.offsets[band_index])


def _masks(
    dataset: DatasetReader, masked: Mapping[int, Sequence[MaskFlags]], window: Window
) -> dict[int, NDArray[np.uint8]]:
    """Masks of some bands, given with their flags; one that is of the whole dataset is read once."""
    found: dict[int, NDArray[np.uint8]] = {}
    shared: NDArray[np.uint8] | None = None
    for index, flags in masked.items():
        if MaskFlags.per_dataset not in flags:
            found[index] = dataset.read_masks(index + 1, window=window)
            continue
        shared = dataset.read_masks(index + 1, window=window) if shared is None else shared
        found[index] = shared
    return found


def _is_masked(asset: Asset, flags: str, dtype: str) -> bool:
    """Whether a band's mask has to be read, of a file whose mask is what the collection has it as."""
    if asset.mask not in (None, flags):
        raise TileReadError(
            f"the mask of the file is {flags or 'per_band'}, but the collection has it as {asset.mask or 'per_band'}: "
            "the file, or a mask beside it, was changed after the collection was built; build it again"
        )
    return masked_by_file(flags, dtype, asset.nodata)


def _check_unchanged(dataset: DatasetReader, band_indexes: Sequence[int], grid: Grid) -> None:
    found = f"{dataset.width} x {dataset.height} pixels in {dataset.count} band(s)"
    if (dataset.width, dataset.height) != (grid.width, grid.height) or max(band_indexes) >= dataset.count:
        raise TileReadError(
            f"the file is {found}, but the collection has it as {grid.width} x {grid.height} with band index "
            f"{max(band_indexes)}: the file was changed after the collection was built; build it again"
        )


def stored_bytes(dataset: DatasetReader, band_indexes: Sequence[int], window: Window) -> int:
    """Compressed bytes of the TIFF blocks under a window; 0 for formats and tiles that have none.

    GDAL tells the size of a block in the item ``BLOCK_SIZE_<col>_<row>`` of the TIFF domain;
    bands interleaved by pixel share their blocks.
    """
    if dataset.driver != "GTiff":
        return 0
    shared = dataset.interleaving is not None and dataset.interleaving.name == "pixel"
    total = 0
    shapes = dataset.block_shapes
    for index in band_indexes[:1] if shared else band_indexes:
        height, width = shapes[index]
        for row in range(int(window.row_off) // height, tiles_along(int(window.row_off + window.height), height)):
            for col in range(int(window.col_off) // width, tiles_along(int(window.col_off + window.width), width)):
                total += int(dataset.get_tag_item(f"BLOCK_SIZE_{col}_{row}", "TIFF", bidx=index + 1) or 0)
    return total
