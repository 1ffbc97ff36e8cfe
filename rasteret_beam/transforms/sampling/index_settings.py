"""What the DoFns of a job need to know: the index of a collection, which those of one process share, and options."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from uuid import uuid4

import apache_beam as beam
import pyarrow as pa

from rasteret_beam.collection.collection import Collection
from rasteret_beam.collection.parquet.versions import CollectionVersion, IndexVersions, first_version
from rasteret_beam.options import SampleOptions
from rasteret_beam.readers.tiles.budget import CacheBudget
from rasteret_beam.transforms.runtime.shared_resources import acquire, release
from rasteret_beam.transforms.sampling.collection_updates import VersionOf, by_version

Updates: TypeAlias = "beam.PCollection[str] | VersionOf | None"


@dataclass(frozen=True)
class IndexSettings:
    """Which index a DoFn needs, and the options of the job; the token lets the DoFns of one process share the index.

    ``first`` and ``schema`` are there where the collection grows: its version and schema when the pipeline was built.
    """

    collection: Collection
    bands: tuple[str, ...]
    options: SampleOptions = SampleOptions()  # noqa: RUF009
    first: CollectionVersion | None = None
    schema: pa.Schema | None = None
    token: str = field(default_factory=lambda: uuid4().hex)

    @property
    def cache(self) -> CacheBudget:
        """What the caches of a process may hold."""
        return CacheBudget(self.options.cache_bytes)

    def acquire(self) -> IndexVersions:
        return acquire(self.token, self._made)

    def _made(self) -> IndexVersions:
        indexes = IndexVersions(self.collection, self.bands, self.options.match_rules, self.cache.share, self.schema)
        if self.first is None:
            indexes.at()
        return indexes

    def release(self) -> None:
        release(self.token)

    def by_version(
        self,
        rows: beam.PCollection,
        updates: Updates,
        step: Callable[[beam.PCollection, VersionOf | None], Any],
    ) -> Any:
        """Apply a step to rows; where the collection grows, as :func:`.collection_updates.by_version`."""
        return step(rows, None) if self.first is None else by_version(rows, updates, self.first, step)


def index_settings(
    collection: Collection, bands: Sequence[str], options: SampleOptions, updates: Updates = None
) -> IndexSettings:
    """Settings that are known to work: what is wrong with them is said while the pipeline is built."""
    first = first_version(collection) if updates is not None else None
    wanted = collection.check_usable(bands, options.match_rules)
    schema = collection.schema if first is not None else None
    return IndexSettings(collection, tuple(wanted), options, first, schema)
