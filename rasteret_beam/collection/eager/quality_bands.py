"""The bands of quality rules: where each record has them, and on which grid."""

from collections.abc import Sequence

import numpy as np

from rasteret_beam.collection.eager.samplable import Samplable
from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.routing.index import RoutingIndex
from rasteret_beam.quality import Quality
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
            collection.check_bands(needed)
        self._rules = tuple(rules)
        there = [band for band in dict.fromkeys(rule.band for rule in rules) if band in collection.bands]
        self._index = collection.index(there, cache_bytes=cache_bytes) if there else None
        self._known: dict[str, tuple[QualityRead, ...]] = {}
        for band in needed:
            assert self._index is not None
            _check_records(self._index, band, routing)

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


def _check_records(quality: CollectionIndex, band: str, routing: RoutingIndex) -> None:
    layers, bandsets = quality.routing.layers, quality.routing.layers.bandsets
    with_band = np.array([band in bandset for bandset in bandsets], dtype=bool)
    having = {quality.routing.record_ids[record] for record in layers.record[with_band[layers.bandset]].tolist()}
    due = [routing.record_ids[record] for record in np.unique(routing.layers.record).tolist()]
    lacking = [record_id for record_id in due if record_id not in having]
    if lacking:
        raise InputError(
            f"quality band {band} is not in {len(lacking)} of the {len(due)} records to read, the first of them "
            f'{lacking[0]!r}; set missing="pass" or missing="fail" in the Quality of {band}, or leave such records out '
            "with subset or where"
        )
