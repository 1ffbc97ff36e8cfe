"""Whether the bands of a collection can stand in one row."""

import numpy as np

from rasteret_beam.errors import InputError
from rasteret_beam.kernels.routing.index import RoutingIndex


def check_one_row_each(index: RoutingIndex) -> None:
    """Refuse a collection whose bands cannot stand in one row for each point and record.

    Raises
    ------
    InputError
        Bands of a record lie on several grids; or records are taken for each band apart, and differ in their bands, so
        that the record of one band is not that of another.
    """
    record, bandset, names = index.layers.record, index.layers.bandset, index.layers.bandsets
    ways_out = 'ask for such bands one at a time, or use layout="long"'
    if index.matcher.by_band:
        if len(names) > 1:
            raise InputError(
                f"{index.matcher.by_band} is not the same for bands {names[0][0]} and {names[1][0]} everywhere, so a "
                f"row cannot hold both; {ways_out}"
            )
        return
    layers = np.bincount(record, minlength=len(index.record_ids))
    several = np.flatnonzero(layers > 1)
    if len(several):
        sets = [names[number] for number in bandset[record == several[0]]]
        raise InputError(
            f"bands {sets[0][0]} and {sets[1][0]} of record {index.record_ids[several[0]]!r} lie on different grids, "
            f"so a row cannot hold both; {ways_out}"
        )
