"""Column ``status``: what samples are, or why points have none."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from rasteret_beam.columns import STATUSES
from rasteret_beam.kernels.sampling.validity import Status, Statuses
from rasteret_beam.schema import UNSAMPLED_REASONS

DICTIONARY = pa.array([*STATUSES, *UNSAMPLED_REASONS])
"""The same in every batch, so that consumers of streams need no replacement."""


def status_array(codes: Statuses) -> pa.Array:
    """The column of statuses [n] of samples."""
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int8)), DICTIONARY)


def reason_array(reasons: pa.Array) -> pa.Array:
    """The column of the reasons [n] of points without a sample."""
    return pa.DictionaryArray.from_arrays(pc.index_in(reasons, DICTIONARY).cast(pa.int8()), DICTIONARY)


def first_not_valid(of_bands: Sequence[Statuses]) -> Statuses:
    """Statuses [n] of rows of several bands: valid where all bands are, else that of the first that is not."""
    combined = of_bands[0].copy()
    for codes in of_bands[1:]:
        combined = np.where(combined == Status.VALID, codes, combined)
    return combined
