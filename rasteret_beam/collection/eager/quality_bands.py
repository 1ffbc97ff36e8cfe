"""The bands of quality rules: where each record has them, and on which grid."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from rasteret_beam.collection.eager.samplable import Samplable
from rasteret_beam.kernels.geo.grids import Ints
from rasteret_beam.kernels.routing.index import RoutingIndex
from rasteret_beam.kernels.routing.places import check_quality_bands
from rasteret_beam.model import MatchRules
from rasteret_beam.quality import NEEDS_BANDS, Quality
from rasteret_beam.readers.jobs.chip_quality import QualityRead


class QualityBands:
    """Where the records of a collection have the bands of some rules.

    Parameters
    ----------
    collection : Samplable
    rules : sequence of Quality
    routing : RoutingIndex
        Of the bands to read.
    cache_bytes : int
        Limit of the cache of facts of files.

    Raises
    ------
    InputError
        The collection, or a record with bands to read, lacks a band that it must have; names the band, how many
        records, and the first of them.
    """

    def __init__(self, collection: Samplable, rules: Sequence[Quality], routing: RoutingIndex, cache_bytes: int):
        needed = list(dict.fromkeys(rule.band for rule in rules if rule.missing == "error"))
        if needed:
            collection.check_bands(needed, NEEDS_BANDS)
        self._rules = tuple(rules)
        there = [band for band in dict.fromkeys(rule.band for rule in rules) if band in collection.bands]
        self._index = collection.index(there, cache_bytes=cache_bytes) if there else None
        self._known: dict[str, tuple[QualityRead, ...]] = {}
        due = MatchRules(quality=tuple((rule.band, rule.missing) for rule in rules))
        found = None if self._index is None else self._index.routing
        check_quality_bands(due, routing.record_ids, routing.layers, partial(_grids_of, found, routing), "read")

    def of(self, record_id: str) -> tuple[QualityRead, ...]:
        """The rules, each with the band of a record."""
        found = self._known.get(record_id)
        if found is None:
            found = tuple(self._read(record_id, rule) for rule in self._rules)
            self._known = {record_id: found} if len(self._known) >= 1000 else self._known | {record_id: found}
        return found

    def _read(self, record_id: str, rule: Quality) -> QualityRead:
        grid = None if self._index is None else self._index.routing.grid_of_band(record_id, rule.band)
        if self._index is None or grid is None:
            return QualityRead(rule, None, None)
        return QualityRead(rule, self._index.assets(record_id, [rule.band])[0], grid)


def _grids_of(quality: RoutingIndex | None, routing: RoutingIndex, band: str) -> Ints:
    """Number of the grid, in an index of quality bands, on which each record of another has a band, or -1."""
    assert quality is not None
    grids = quality.band_grids(band)
    at = [quality.positions.get(record_id, -1) for record_id in routing.record_ids]
    return np.array([-1 if place < 0 else grids[place] for place in at], dtype=np.int64)
