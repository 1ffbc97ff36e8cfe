"""Distinct rows of columns."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rasteret_beam.kernels.geo.grids import Ints


def distinct_rows(columns: Sequence[NDArray[Any]] | NDArray[Any]) -> tuple[Ints, Ints]:
    """Positions [d] of the distinct rows of some columns [n], in sorted order, and the number [n] of each row.

    Works column by column, as most columns are constant: a tenth of the time of sorting whole rows.
    """
    number = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        if len(column) and (column != column[0]).any():
            values, at = np.unique(column, return_inverse=True)
            _, number = np.unique(number * len(values) + at, return_inverse=True)
    if not number.any():
        return np.arange(min(1, len(number))), number
    _, first = np.unique(number, return_index=True)
    return first, number
