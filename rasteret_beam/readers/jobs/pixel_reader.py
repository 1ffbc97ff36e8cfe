"""Reading pixels: tiles and masks of bands, and what the pixel method of a job makes of them."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import NamedTuple

import numpy as np

from rasteret_beam.errors import TileReadError
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.sampling.blocks import WantedBlocks
from rasteret_beam.kernels.sampling.dead_letters import Failure, everywhere, left_over
from rasteret_beam.kernels.sampling.gather import PixelValues, TilePixels, Wanted, by_tile, tile_order, tiles_of
from rasteret_beam.kernels.sampling.interpolation import Interpolation, WeightedBlocks
from rasteret_beam.kernels.sampling.parts import Spots
from rasteret_beam.kernels.sampling.pixel_methods import Around, OwnPixels, Picked, PixelMethod, Window
from rasteret_beam.kernels.sampling.validity import Status, may_be_masked
from rasteret_beam.kernels.statistics.shapes import portions
from rasteret_beam.metrics import Counters
from rasteret_beam.model import Asset, Grid
from rasteret_beam.readers.jobs.beside_pixels import read_beside
from rasteret_beam.readers.jobs.block_pixels import BlockRead, PixelRules
from rasteret_beam.readers.jobs.cancellation import CancelToken
from rasteret_beam.readers.jobs.sample_job import SampleJob
from rasteret_beam.readers.jobs.windows import WINDOW_CELLS, Windows
from rasteret_beam.readers.tiles.protocol import NO_MASK, Tile, TileRequest
from rasteret_beam.readers.tiles.source import TileSource

WHOLE_SHARE = 0.875
"""Of a tile's rows: where more are needed, all are read, so that whoever needs the others finds them in the cache."""


class Read(NamedTuple):
    """Some bands at points: the assets with all facts that rows need, what is picked, and what could not be read."""

    assets: Sequence[Asset]
    picked: dict[str, Picked]
    failures: list[Failure]

    @classmethod
    def joined(cls, parts: "Sequence[Read]", points: Sequence[Ints]) -> "Read":
        """What is read at n points in parts, whose points are at these positions; each is in one part."""
        order = np.concatenate(points)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        picked = {band: Picked.joined([each.picked[band] for each in parts]).take(place) for band in parts[0].picked}
        failures = [
            replace(failure, points=at[failure.points])
            for each, at in zip(parts, points, strict=True)
            for failure in each.failures
        ]
        return cls(parts[0].assets, picked, failures)


class PixelReader:
    """Reads the pixels of one job; threads may use it at the same time."""

    def __init__(self, source: TileSource, job: SampleJob, counters: Counters, cancel: CancelToken):
        self.job = job
        self._source = source
        self._counters = counters
        self._cancel = cancel

    def picked(self, assets: Sequence[Asset], spots: Spots, rules: PixelRules | None = None) -> Read:
        """What the method picks at n points for each band, as rows have it.

        Raises
        ------
        TileReadError
            A tile cannot be read, and ``on_error`` is "raise".
        """
        parts = self._parts(spots)
        if not parts:
            return self._picked(assets, spots, rules)
        read = [self._picked(assets, spots.take(at), rules and rules.take(at)) for at in parts]
        return Read.joined(read, parts)

    def _parts(self, spots: Spots) -> list[Ints]:
        """Positions of points that are read together: where blocks are, those of a tile lie together in memory."""
        if self.job.window is not None:
            return portions(self.job.window, spots, WINDOW_CELLS)
        in_blocks = isinstance(self.job.method, Interpolation)
        return [tile_order(spots.grid, spots.row, spots.col)] if in_blocks else []

    def _picked(self, assets: Sequence[Asset], spots: Spots, rules: PixelRules | None) -> Read:
        """What the method picks at points, which are in the order of their tiles where blocks are needed."""
        grid, method, with_status = spots.grid, self.job.method, self.job.needs_status or rules is not None
        of_value, windows = self._of_value(spots), Windows.of(self.job, spots)
        wanted = [of_value] if windows is None else [of_value, windows.wanted]
        in_blocks = windows is not None or isinstance(of_value, WantedBlocks)
        own, masks = tiles_of(grid, spots.row, spots.col) if in_blocks else None, with_status or windows is not None
        found, failures = self.gather(grid, wanted, assets, self.reach(grid), masks, first=own)
        assets = [self.job.with_units(self._with_tags(asset, spots, failures)) for asset in assets]
        blocks = BlockRead.of(self.job, grid, wanted, rules, read_beside(self, grid, wanted, assets, rules))
        failures += blocks.failures(assets)
        picked: dict[str, Picked] = {}
        for asset in assets:
            at_value, *in_window = (of_set.pop(asset.band) for of_set in found)
            if isinstance(method, Interpolation):
                assert isinstance(of_value, WantedBlocks)
                here = method.interpolated(of_value.blocks, *blocks.values(of_value, at_value, asset))
            else:
                here = self._at_points(method, asset, spots, at_value, rules, failures)
            if windows is not None:
                values = blocks.values(windows.wanted, in_window[0], asset)
                here = replace(here, statistics=windows.statistics(values))
            picked[asset.band] = self.job.finished(here, asset)
        return Read(assets, picked, failures)

    def _of_value(self, spots: Spots) -> Wanted:
        """The pixels that the values of n points need: their own, or blocks."""
        if isinstance(self.job.method, Interpolation):
            return WantedBlocks.on(spots.grid, WeightedBlocks.of(spots, self.job.method.size))
        return Wanted.at_points(spots.grid, spots.row, spots.col)

    def _at_points(
        self,
        method: PixelMethod,
        asset: Asset,
        spots: Spots,
        found: PixelValues,
        rules: PixelRules | None,
        failures: list[Failure],
    ) -> Picked:
        """What a method picks that begins with the pixels that the points lie in."""
        status = found.status(asset.nodata, asset.mask) if self.job.needs_status or rules is not None else None
        if rules is not None and status is not None:
            status[(status == Status.VALID) & ~rules.at_points()] = Status.MASKED
        there = left_over(failures, asset.band, len(spots.row))
        own = OwnPixels(spots.grid, found.values(), there, status, spots.row_part, spots.col_part)
        return self.job.scaled(method.pick(own, partial(self._cells, spots, asset, failures, rules)), asset)

    def reach(self, grid: Grid) -> int:
        """How many rows of a tile to read beyond those that are needed.

        A walk comes back to a tile for other points: decoded down to the row of one, it would be read again.
        """
        if self.job.options.skip_invalid:
            return grid.tile_height
        return 0 if isinstance(self.job.method, Interpolation) else self.job.method.radius

    def _with_tags(self, asset: Asset, spots: Spots, failures: list[Failure]) -> Asset:
        """An asset with the scale and offset of its file's tags, where they are wanted and the collection has none."""
        found = self.tagged(asset) if self.job.needs_file(asset) else asset
        if isinstance(found, TileReadError):
            failures += everywhere(asset, by_tile(spots.grid, spots.row, spots.col), found)
            return asset
        return found

    def tagged(self, asset: Asset) -> Asset | TileReadError:
        """An asset with the scale and offset of its file's tags, where the collection has none.

        The error is given where it becomes a dead letter, and else raised.
        """
        try:
            return self._source.with_units(asset, self._counters, self._cancel)
        except TileReadError as error:
            if self.job.options.on_error == "dead_letter":
                return error
            self._cancel.cancel(error)  # so that the job's other reads are left undone
            raise

    def gather(
        self,
        grid: Grid,
        wanted: Sequence[Wanted],
        assets: Sequence[Asset],
        reach: int,
        masks: bool,
        first: Collection[tuple[int, int]] | None = None,
    ) -> tuple[list[dict[str, PixelValues]], list[Failure]]:
        """What is at the pixels of each of the wanted, by band; tiles are read once, ``reach`` rows further.

        Masks are read only if they matter, and only of files that have or may have one. Tiles that are not among the
        ``first`` come after these: by then they may be under way, or in the cache, for points that lie in them.
        """
        found = [{asset.band: PixelValues(each.size) for asset in assets} for each in wanted]
        in_tile: dict[tuple[int, int], list[tuple[int, TilePixels]]] = {}
        for number, each in enumerate(wanted):
            for place, pixels in each.in_tile.items():
                in_tile.setdefault(place, []).append((number, pixels))
        failures: list[Failure] = []

        def on_tile(request: TileRequest, tile: Tile | TileReadError) -> None:
            parts = in_tile[request.tile_row, request.tile_col]
            if tile is NO_MASK:
                return
            if not isinstance(tile, TileReadError):
                for number, pixels in parts:
                    of_band = found[number][request.asset.band]
                    (of_band.put_mask if request.mask else of_band.put)(tile, pixels)
            elif self.job.options.on_error == "dead_letter":
                points = distinct_points([each.point for _, each in parts])
                failures.append(Failure(request.asset, request.tile_row, request.tile_col, tile, points))
            else:
                self._cancel.cancel(tile)  # so that the job's other reads are left undone
                raise tile

        masked = [asset for asset in assets if may_be_masked(asset)] if masks else []
        others = [] if first is None else [place for place in in_tile if place not in first]
        for places in ([place for place in in_tile if first is None or place in first], others):
            rows = {place: _rows(in_tile[place], reach, grid) for place in places}
            requests = chain(
                (TileRequest(asset, grid, *place, rows[place]) for asset in assets for place in places),
                (TileRequest(asset, grid, *place, 0, mask=True) for asset in masked for place in places),
            )
            self._source.each(requests, on_tile, self._counters, self._cancel)
        return found, failures

    def _cells(
        self,
        spots: Spots,
        asset: Asset,
        failures: list[Failure],
        rules: PixelRules | None,
        points: Ints,
        window: Window,
    ) -> Around:
        """The windows around m of the points."""
        grid = spots.grid
        rows, cols = spots.row[points][:, None] + window.row, spots.col[points][:, None] + window.col
        in_raster = (rows >= 0) & (rows < grid.height) & (cols >= 0) & (cols < grid.width)
        inside = np.flatnonzero(in_raster)
        row, col = rows.flat[inside], cols.flat[inside]
        (found,), failed = self.gather(grid, [Wanted.at_points(grid, row, col)], [asset], reach=0, masks=True)
        pixels = found[asset.band].values()
        passes = found[asset.band].valid(asset.nodata)
        if rules is not None:
            of_rules, failed_rules = rules.at_pixels(grid, row, col)
            passes &= of_rules
            failed = [*failed, *(replace(each, asset=replace(each.asset, band=asset.band)) for each in failed_rules)]
        cells = np.zeros(in_raster.shape, dtype=pixels.dtype)
        valid = np.zeros(in_raster.shape, dtype=bool)
        cells.flat[inside] = pixels
        valid.flat[inside] = passes
        # A tile beside that cannot be read leaves the points without a value whose window reaches into it.
        failures += [replace(each, points=points[inside[each.points] // len(window.row)]) for each in failed]
        return Around(cells, valid, in_raster)


def distinct_points(parts: Sequence[Ints]) -> Ints:
    """Points of several lists, each once; those of a single list in its order."""
    return parts[0] if len(parts) == 1 else np.unique(np.concatenate(parts))


def _rows(parts: Sequence[tuple[int, TilePixels]], reach: int, grid: Grid) -> int:
    """Rows of a tile to read."""
    rows = max(pixels.last_row for _, pixels in parts) + 1 + reach
    return rows if rows < WHOLE_SHARE * grid.tile_height else grid.tile_height
