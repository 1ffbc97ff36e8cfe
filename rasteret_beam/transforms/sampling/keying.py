"""Batches of points to chunks, keyed by record and block of tiles."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Unpack

import apache_beam as beam
import pyarrow as pa
from apache_beam import typehints

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam import metrics
from rasteret_beam.collection.collection import Collection
from rasteret_beam.kernels.geo.crs import crs_text
from rasteret_beam.kernels.routing.chunks import ChunkRules, route
from rasteret_beam.kernels.sampling.pixel_methods import pixel_method
from rasteret_beam.kernels.tables.point_times import check_times
from rasteret_beam.keywords import SampleKeywords
from rasteret_beam.model import TileKey
from rasteret_beam.options import SampleOptions, options_from, takes_options
from rasteret_beam.transforms.runtime.beam_metrics import count
from rasteret_beam.transforms.runtime.event_times import chunk_rules
from rasteret_beam.transforms.runtime.index_settings import IndexSettings
from rasteret_beam.transforms.sampling.collection_updates import (
    Updates,
    VersionOf,
    by_version,
    parsed,
    told,
    with_version,
)
from rasteret_beam.transforms.sampling.outputs import KeyedOutputs

UNSAMPLED = "unsampled"
CHUNKS = "chunks"


class _RouteFn(beam.DoFn):
    def __init__(self, settings: IndexSettings[SampleOptions], crs: str | None, rules: ChunkRules):
        self.settings = settings
        self.crs = crs
        self.rules = rules

    def setup(self) -> None:
        self.with_position = pixel_method(self.settings.options).needs_position
        self.indexes = self.settings.acquire()

    def teardown(self) -> None:
        self.settings.release()

    def process(self, points: pa.RecordBatch, version: str | None = None) -> Iterator[Any]:
        check_times(points, self.settings.options.time_column)
        seen = parsed(version)
        routing = self.indexes.at(seen).routing
        routed = route(routing, points, self.crs, self.rules, self.with_position)
        sent = values = 0
        for key, chunk in routed.chunks if seen is None else with_version(routed.chunks, seen):
            sent += 1
            values += len(chunk) * len(routing.bands_of(key))
            yield key, chunk
        if len(routed.unsampled):
            yield beam.pvalue.TaggedOutput(UNSAMPLED, routed.unsampled)
        counts = {
            metrics.POINTS_IN: len(points),
            metrics.POINTS_SAMPLED: routed.sampled,
            metrics.POINTS_UNSAMPLED: len(routed.unsampled),
            metrics.CHUNKS_OUT: sent,
            metrics.VALUES_ROUTED: values,
        }
        count(counts | {metrics.unsampled(reason): number for reason, number in routed.reasons.items()})


class KeyByRecordAndTile(beam.PTransform):
    """Batches of points to chunks of points, keyed by record and block of tiles.

    Each chunk holds the points of one batch that fall in one block of one record's grid, with
    their pixel on the grid (``schema.PIXEL``), then the columns of the batch.

    Parameters
    ----------
    collection : Collection
    bands : sequence of str
    geometry_crs : optional
        CRS of the points, where their batches do not carry it (those of ReadPoints do).
    rules : ChunkRules, optional
        How chunks are cut; by default as suits the runner.
    with_unsampled : bool
        Give :class:`KeyedOutputs`: also the points that no record contains, with a reason each.
    updates : PCollection, optional
        Versions of the collection, which grows: see :class:`SamplePoints`.
    options : SampleOptions, or its fields
        The same as given to :class:`SampleTiles`.

    Raises
    ------
    InputError
        When made: an option cannot be used. When applied: a band is not in the collection, or the collection has no
        records.
    """

    @takes_options(SampleOptions)
    def __init__(
        self,
        collection: Collection,
        bands: Sequence[str],
        *,
        geometry_crs: Any = None,
        rules: ChunkRules | None = None,
        with_unsampled: bool = False,
        updates: Updates = None,
        **keywords: Unpack[SampleKeywords],
    ):
        super().__init__()
        self.collection = collection
        self.bands = bands
        self.geometry_crs = geometry_crs
        self.rules = rules
        self.with_unsampled = with_unsampled
        self.updates = updates
        self.options = options_from(keywords, SampleOptions)

    def expand(self, points: beam.PCollection) -> Any:
        settings = IndexSettings.of(self.collection, self.bands, self.options, self.updates is not None)
        step = partial(keyed, settings, self.geometry_crs, self.rules)
        outputs = by_version(points, self.updates, settings.first, step)
        return outputs if self.with_unsampled else outputs.chunks


def keyed(
    settings: IndexSettings[SampleOptions],
    geometry_crs: Any,
    rules: ChunkRules | None,
    points: beam.PCollection,
    version: VersionOf | None,
) -> KeyedOutputs:
    """Route batches of points."""
    crs = crs_text(geometry_crs) if geometry_crs is not None else None
    applied = beam.ParDo(_RouteFn(settings, crs, rules or chunk_rules(points)), **told(version))
    routed = points | "Route" >> applied.with_outputs(UNSAMPLED, main=CHUNKS)
    chunks = routed[CHUNKS]
    chunks.element_type = typehints.Tuple[TileKey, pa.RecordBatch]
    routed[UNSAMPLED].element_type = pa.RecordBatch
    return KeyedOutputs(chunks, routed[UNSAMPLED])
