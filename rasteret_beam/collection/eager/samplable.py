"""The interface of collections that eager calls use."""

from collections.abc import Sequence
from typing import Any, Protocol

from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.collection.records.selection import RecordSelection
from rasteret_beam.model import MatchRules


class Samplable(RecordSelection, Protocol):
    """The parts of :class:`rasteret_beam.Collection` that eager calls use, so that they need not import it."""

    def narrowed(self, **criteria: Any) -> "Samplable": ...

    def check_bands(self, bands: Sequence[str], needed_by: str = "") -> list[str]: ...

    def index(
        self,
        bands: Sequence[str],
        match: str | MatchRules = "all",
        cache_bytes: int = ...,
        record_columns: Sequence[str] = (),
    ) -> CollectionIndex: ...
