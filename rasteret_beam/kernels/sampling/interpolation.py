"""Interpolation: the value at a point between the centres of the pixels around it.

Source of the cubic kernel: Keys (1981), Cubic convolution interpolation for digital image processing, a = -0.5, which
is the Catmull-Rom spline, as GDAL has it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.sampling.blocks import Blocks
from rasteret_beam.kernels.sampling.parts import Spots
from rasteret_beam.kernels.sampling.pixel_methods import Picked
from rasteret_beam.kernels.sampling.validity import Mask, Pixels, Status, Statuses

ON_CENTRE = 1e-8
"""A point so close to a row or column of centres, in pixels, is on it, and needs no other row or column."""

LEAST_WEIGHT = 1e-9
"""Weights of the valid pixels that add up to less give no value."""

PORTION = 16_384
"""Points that are interpolated at a time: their arrays fit into a processor's cache."""

SIZES = {"bilinear": 2, "cubic": 4}
"""Pixels on each side of the block of a method."""


@dataclass(frozen=True, eq=False)
class WeightedBlocks(Blocks):
    """The pixels around n points, and their weights.

    Attributes
    ----------
    down, across : [size, n] float64
        Weights of the rows and of the columns; that of a pixel is their product.
    own : [n] int64
        Which of the k pixels the point lies in.
    """

    down: Floats
    across: Floats
    own: Ints

    @classmethod
    def of(cls, spots: Spots, size: int) -> "WeightedBlocks":
        """Those around points, whose positions in their pixels are there."""
        assert spots.row_part is not None and spots.col_part is not None
        above, beside = spots.row_part < 0.5, spots.col_part < 0.5
        margin = size // 2 - 1
        own = (above + margin) * size + beside + margin
        down, across = (weights(part, size) for part in (spots.row_part, spots.col_part))
        return cls(size, size, spots.row - above - margin, spots.col - beside - margin, down, across, own)

    def used(self, points: Ints) -> Mask:
        """Which pixels [k, m] of some of the points have a weight."""
        used: Mask = (self.down[:, None, points] != 0) & (self.across[None, :, points] != 0)
        return used.reshape(self.cells, len(points))

    def take(self, points: Ints | slice) -> "WeightedBlocks":
        """Those of some of the points."""
        top, left, own = self.top[points], self.left[points], self.own[points]
        return WeightedBlocks(self.height, self.width, top, left, self.down[:, points], self.across[:, points], own)


def weights(part: Floats, size: int) -> Floats:
    """Weights [size, n] of the rows (or columns) of a block.

    Parameters
    ----------
    part : [n] float64
        Where in its pixel a point lies, 0 to 1.
    size : 2 or 4
        Linear, or cubic.
    """
    t = np.where(part < 0.5, part + 0.5, part - 0.5)  # from the centre before the point
    t[t < ON_CENTRE] = 0.0
    t[t > 1 - ON_CENTRE] = 1.0
    if size == SIZES["bilinear"]:
        return np.stack([1 - t, t])
    return np.stack(
        [
            ((1 - 0.5 * t) * t - 0.5) * t,
            (1.5 * t - 2.5) * t * t + 1,
            ((2 - 1.5 * t) * t + 0.5) * t,
            (0.5 * t - 0.5) * t * t,
        ]
    )


@dataclass(frozen=True)
class Interpolation:
    """The weighted sum of the pixels around the point.

    Attributes
    ----------
    size : int
        Pixels on each side of the block.
    skip_nodata : bool
        Leave out pixels that are not valid, and divide by the weights of the others; else the sample is not valid.
    """

    size: int
    skip_nodata: bool = False
    needs_validity: bool = True
    needs_position: bool = True

    @property
    def mends(self) -> bool:
        """Whether a sample can be valid though the point's own pixel, which always has a weight, is not."""
        return self.skip_nodata

    @property
    def cells(self) -> int:
        return self.size * self.size

    def interpolated(self, blocks: WeightedBlocks, pixels: Pixels, status: Statuses) -> Picked:
        """Values of n points, NaN where the sample is not valid.

        Parameters
        ----------
        blocks : WeightedBlocks
        pixels : [k, n]
            In the band's own dtype; 64-bit integers beyond 2^53 are rounded to float64.
        status : [k, n] uint8
            The :class:`.validity.Status` of each pixel. That of a sample that is not valid is that of the point's own
            pixel if this is not valid, else that of the first pixel that is not, row by row; ``NODATA`` where infinite
            pixels add up to NaN.
        """
        count = blocks.count
        values, of_samples = np.empty(count), np.zeros(count, dtype=np.uint8)
        for start in range(0, count, PORTION):
            at = slice(start, start + PORTION)
            block, here = blocks.take(at), status[:, at]
            with np.errstate(invalid="ignore", over="ignore"):  # pixels that do not count may be anything
                whole = pixels[:, at].astype(np.float64)
                values[at] = _sums(block, whole)
            points = _in_doubt(here, whole, pixels.dtype)
            if len(points):
                found = self._of_valid(block.take(points), whole[:, points], here[:, points])
                values[start + points], of_samples[start + points] = found
        return Picked(values, status=of_samples)

    def _of_valid(self, blocks: WeightedBlocks, pixels: Floats, status: Statuses) -> tuple[Floats, Statuses]:
        """Values and statuses of points some of whose pixels are not valid, or not finite."""
        invalid, used = status != Status.VALID, blocks.used(np.arange(blocks.count))
        missing = invalid & used
        counted = used & ~invalid
        with np.errstate(invalid="ignore", over="ignore"):  # infinite pixels
            values = _sums(blocks, np.where(counted, pixels, 0.0))
        lacking = missing.any(axis=0)
        if not self.skip_nodata:
            values[lacking] = np.nan
        else:
            total = _sums(blocks, counted.astype(np.float64))
            with np.errstate(divide="ignore", invalid="ignore"):
                values[lacking] /= np.where(np.abs(total) >= LEAST_WEIGHT, total, np.nan)[lacking]
        valid = values == values  # infinite pixels of both signs add up to NaN
        why = np.where(lacking, _why(blocks, status, missing), np.uint8(Status.NODATA))
        return values, np.where(valid, np.uint8(Status.VALID), why)


def _in_doubt(status: Statuses, pixels: Floats, dtype: np.dtype) -> Ints:
    """Points for which not all pixels [k, n] just add up: some are not valid, or, of floats, not finite."""
    doubt = status.any(axis=0)
    if dtype.kind == "f":
        doubt |= ~np.isfinite(pixels).all(axis=0)
    return np.flatnonzero(doubt)


def _sums(blocks: WeightedBlocks, pixels: Floats) -> Floats:
    """The weighted sum [n] of the pixels [k, n] of each block."""
    total = np.zeros(pixels.shape[1])
    for row in range(blocks.height):
        of_row = blocks.across[0] * pixels[row * blocks.width]
        for col in range(1, blocks.width):
            of_row += blocks.across[col] * pixels[row * blocks.width + col]
        of_row *= blocks.down[row]
        total += of_row
    return total


def _why(blocks: WeightedBlocks, status: Statuses, missing: Mask) -> Statuses:
    """The status [n] of samples that are not valid, by which pixels [k, n] are missing."""
    columns = np.arange(missing.shape[1])
    first = np.where(missing[blocks.own, columns], blocks.own, missing.argmax(axis=0))
    why: NDArray[np.uint8] = status[first, columns]
    return why
