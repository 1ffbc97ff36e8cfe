"""What the DoFns of a job need: the index of a collection, which those of one process share, and the options."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from uuid import uuid4

import pyarrow as pa

from rasteret_beam.collection.collection import Collection
from rasteret_beam.collection.parquet.versions import CollectionVersion, IndexVersions, first_version
from rasteret_beam.job_options import JobOptions
from rasteret_beam.kernels.sampling.value_types import ValueTypes
from rasteret_beam.readers.tiles.budget import CacheBudget
from rasteret_beam.transforms.runtime.shared_resources import acquire, release

Options = TypeVar("Options", bound=JobOptions)


@dataclass(frozen=True)
class IndexSettings(Generic[Options]):
    """Which index a DoFn needs, and the options of the job; the token lets the DoFns of one process share the index.

    ``first`` and ``schema`` are there where the collection grows: its version and schema when the pipeline was built.
    ``value_types`` and ``pixel_crs`` are only needed where points are sampled.
    """

    collection: Collection
    bands: tuple[str, ...]
    options: Options
    first: CollectionVersion | None = None
    schema: pa.Schema | None = None
    value_types: ValueTypes | None = None
    pixel_crs: str | None = None
    token: str = field(default_factory=lambda: uuid4().hex)

    @classmethod
    def of(
        cls, collection: Collection, bands: Sequence[str], options: Options, grows: bool = False
    ) -> "IndexSettings[Options]":
        """Settings that are known to work.

        Raises
        ------
        InputError
            A band is not in the collection, or the collection has no records or, in memory, cannot grow.
        """
        first = first_version(collection) if grows else None
        wanted = collection.check_usable(bands, options.match_rules)
        return cls(collection, tuple(wanted), options, first, collection.schema if grows else None)

    @property
    def cache(self) -> CacheBudget:
        """What the caches of a process may hold."""
        return CacheBudget(self.options.cache_bytes)

    def acquire(self) -> IndexVersions:
        return acquire(self.token, self._made)

    def _made(self) -> IndexVersions:
        settings = self.options.match_rules, self.cache.share, self.schema, self.options.record_columns
        indexes = IndexVersions(self.collection, self.bands, *settings)
        if self.first is None:
            indexes.at()
        return indexes

    def release(self) -> None:
        release(self.token)
