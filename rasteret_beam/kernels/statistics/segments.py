"""Sums along segments of an array."""

import numpy as np

from rasteret_beam.kernels.geo.crs import Floats
from rasteret_beam.kernels.geo.grids import Ints


def running_sums(numbers: Floats, sizes: Ints) -> Floats:
    """The cumulative sums within segments of ``numbers`` [n], one after the other, of these sizes [s].

    Those of a segment do not depend on the others, not even by rounding, as differences of sums over all would.
    """
    found = np.empty(len(numbers))
    ends = np.cumsum(sizes)
    for size in np.unique(sizes):
        at = (ends - size)[sizes == size][:, np.newaxis] + np.arange(size)
        found[at] = np.cumsum(numbers[at], axis=1)
    return found
