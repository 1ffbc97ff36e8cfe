"""What a job of zonal statistics reads, and how."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pyarrow as pa

from rasteret_beam.collection.eager.quality_bands import QualityBands
from rasteret_beam.collection.eager.zonal_rows import RowMaker
from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.kernels.statistics.zones import Needs
from rasteret_beam.metrics import Counters
from rasteret_beam.options import SampleOptions
from rasteret_beam.quality import Quality
from rasteret_beam.readers.jobs.chip_quality import QualityRead
from rasteret_beam.readers.jobs.sample_job import SampleJob
from rasteret_beam.readers.jobs.zone_reader import ZoneRules
from rasteret_beam.statistics import VALID_FRACTION
from rasteret_beam.zonal_options import ZonalOptions


@dataclass(frozen=True, eq=False)
class ZonalJob:
    """The index and the options with which groups of polygons are read.

    Attributes
    ----------
    index : CollectionIndex
        With ``options.record_columns``, and matching by ``options.match_rules``.
    collection : str
        Name of the collection.
    bands : sequence of str
        In output order.
    options : ZonalOptions
    quality : callable, optional
        From rules to where the records have their bands; needed where there are any.
    counters : Counters
    """

    index: CollectionIndex
    collection: str
    bands: Sequence[str]
    options: ZonalOptions
    quality: Callable[[tuple[Quality, ...]], QualityBands] | None = None
    counters: Counters = field(default_factory=Counters)

    def schema(self, polygons: pa.Schema) -> pa.Schema:
        """Schema of the rows of batches of polygons."""
        return self.row_maker.schema(polygons)

    @cached_property
    def row_maker(self) -> RowMaker:
        return RowMaker(self.index, self.collection, self.bands, self.options)

    @cached_property
    def needs(self) -> Needs:
        """What the statistics need."""
        return Needs.of(self.options.statistics)

    @property
    def needs_shares(self) -> bool:
        """Whether the valid share of the pixels of polygons has to be known."""
        return self.options.skip_invalid or VALID_FRACTION in self.options.statistics

    @cached_property
    def sampling(self) -> SampleJob:
        """How pixels are gathered."""
        options = SampleOptions(on_error=self.options.on_error)
        return SampleJob(self.index.routing, self.index.assets, self.collection, self.bands, options)

    @cached_property
    def zone_rules(self) -> ZoneRules:
        options = self.options
        unscaled = frozenset(rule.band for rule in options.quality)
        dead_letters = options.on_error == "dead_letter"
        return ZoneRules(self.needs, dead_letters, options.unscale, options.scales, unscaled, self.counters)

    def quality_reads(self, record_id: str) -> tuple[QualityRead, ...]:
        """The rules, each with the band of a record."""
        if not self.options.quality:
            return ()
        assert self.quality is not None
        return self.quality(self.options.quality).of(record_id)
