"""Which pixel method options ask for."""

from rasteret_beam.kernels.sampling.interpolation import SIZES, Interpolation
from rasteret_beam.kernels.sampling.pixel_methods import ClosestValid, OwnPixel, PixelMethod
from rasteret_beam.options import SampleOptions


def pixel_method(options: SampleOptions) -> PixelMethod | Interpolation:
    """The method that options ask for."""
    if options.resampling != "nearest":
        return Interpolation(SIZES[options.resampling], options.skip_nodata)
    if options.max_distance_pixels:
        # A number that is not valid has no physical unit.
        only_valid, shown = options.unscale, options.return_neighbourhood
        return ClosestValid(options.max_distance_pixels, options.fallback, shown, only_valid)
    return OwnPixel()


def needs_position(options: SampleOptions) -> bool:
    """Whether it matters where in its pixel a point lies: for the method, or for statistics."""
    return pixel_method(options).needs_position or options.radius is not None


def window_cells(method: PixelMethod | Interpolation) -> int:
    """How much a method holds for a point, in the memory of a cell of a window.

    The pixels of a block are held as they are stored, each with a byte of status, and summed up in portions: four of
    them take about as much as a cell.
    """
    return method.cells // 4 if isinstance(method, Interpolation) else (2 * method.radius + 1) ** 2
