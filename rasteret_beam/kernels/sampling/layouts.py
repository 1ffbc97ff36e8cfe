"""Which layouts of the sample table a collection allows."""

import numpy as np

from rasteret_beam.errors import InputError
from rasteret_beam.kernels.routing.index import RoutingIndex
from rasteret_beam.kernels.sampling.neighbourhood import Neighbourhood
from rasteret_beam.schema import LAYOUTS, ON_ERROR


def check_layout(layout: str, around: Neighbourhood, on_error: str = "raise") -> None:
    """Refuse an unknown layout or way with errors, and a layout whose rows have no place for what else is asked for.

    Raises
    ------
    InputError
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout is {layout!r}; it can be one of {LAYOUTS}")
    if on_error not in ON_ERROR:
        raise InputError(f"on_error is {on_error!r}; it can be one of {ON_ERROR}")
    if layout != "long" and on_error != "raise":
        raise InputError(
            f"layout is {layout!r}, but on_error is {on_error!r}; tiles are given up band by band, which only "
            'rows of layout="long" can show'
        )
    if layout != "long" and around.returned:
        raise InputError(
            f"layout is {layout!r}, but return_neighbourhood is {around.return_neighbourhood!r}; windows are given "
            'with layout="long" only'
        )


def check_one_row_each(index: RoutingIndex) -> None:
    """Refuse a collection whose bands cannot stand in one row for each point and record.

    Raises
    ------
    InputError
        Bands of a record lie on several grids; or, with ``match="latest"``, records differ in their bands, so that
        the newest record of one band is not that of another.
    """
    record, bandset, names = index.layers.record, index.layers.bandset, index.layers.bandsets
    ways_out = 'ask for such bands one at a time, or use layout="long"'
    if index.match == "latest":
        if len(names) > 1:
            raise InputError(
                f"the newest record is not the same for bands {names[0][0]} and {names[1][0]} everywhere, so a row "
                f"cannot hold both; {ways_out}"
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
