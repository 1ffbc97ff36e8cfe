"""Batches of points to chunks, keyed by record and block of tiles."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, Unpack

import apache_beam as beam
import pyarrow as pa
from apache_beam import typehints
from apache_beam.utils.windowed_value import WindowedValue

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam import metrics
from rasteret_beam.collection.collection import Collection
from rasteret_beam.collection.parquet.versions import CollectionVersion
from rasteret_beam.kernels.geo.crs import crs_text
from rasteret_beam.kernels.routing.chunks import ChunkRules, Routed, route
from rasteret_beam.kernels.routing.index import RoutingIndex
from rasteret_beam.kernels.routing.matching import check_times
from rasteret_beam.kernels.sampling.methods import needs_position
from rasteret_beam.keywords import SampleKeywords
from rasteret_beam.model import TileKey
from rasteret_beam.option_fields import options_from, takes_options
from rasteret_beam.options import SampleOptions
from rasteret_beam.readers.jobs.ordered_pool import OrderedPool
from rasteret_beam.transforms.runtime.beam_metrics import count
from rasteret_beam.transforms.runtime.event_times import chunk_rules
from rasteret_beam.transforms.runtime.index_settings import IndexSettings
from rasteret_beam.transforms.runtime.shared_resources import acquire, release
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

MOST_THREADS = 4
"""That route batches: more would wait for each other's Python."""


class RoutingThreads:
    """The threads of a process that route batches: one for each core."""

    def __init__(self) -> None:
        self.most = min(MOST_THREADS, os.cpu_count() or 1)
        self.pool = ThreadPoolExecutor(self.most, thread_name_prefix="route")

    def close(self) -> None:
        self.pool.shutdown(cancel_futures=True)


class RoutedBatch(NamedTuple):
    """A batch after routing, its chunks in a list; ``context`` is what was handed over with it."""

    context: Any
    routed: Routed
    chunks: list[tuple[TileKey, Any]]
    counts: dict[str, int]


class _RouteFn(beam.DoFn):
    """Batches of points to chunks; the next batches are routed while the chunks of one are handed on."""

    def __init__(self, settings: IndexSettings[SampleOptions], crs: str | None, rules: ChunkRules):
        self.settings = settings
        self.crs = crs
        self.rules = rules

    def setup(self) -> None:
        self.with_position = needs_position(self.settings.options)
        self.indexes = self.settings.acquire()
        self.threads: RoutingThreads = acquire(RoutingThreads, RoutingThreads)
        self.ahead: OrderedPool[RoutedBatch] | None = None

    def teardown(self) -> None:
        self._cancel()
        release(RoutingThreads)
        self.settings.release()

    def start_bundle(self) -> None:
        self._cancel()  # what a failed bundle left
        self.ahead = OrderedPool(self.threads.pool, self.threads.most)

    def _cancel(self) -> None:
        if self.ahead is not None:
            self.ahead.cancel()
            self.ahead = None

    def process(
        self,
        points: pa.RecordBatch,
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
        pane: Any = beam.DoFn.PaneInfoParam,
        version: str | None = None,
    ) -> Iterator[Any]:
        assert self.ahead is not None
        seen = parsed(version)
        routing = self.indexes.at(seen).routing
        check_times(routing.matcher, points, self.settings.options.time_column)
        work = partial(self._route, (timestamp, (window,), pane), points, routing, seen)
        yield from self._emit(self.ahead.push(work))

    def finish_bundle(self) -> Iterator[Any]:
        assert self.ahead is not None
        yield from self._emit(self.ahead.drain())

    def _route(
        self, context: Any, points: pa.RecordBatch, routing: RoutingIndex, seen: CollectionVersion | None
    ) -> RoutedBatch:
        routed = route(routing, points, self.crs, self.rules, self.with_position)
        chunks = list(routed.chunks if seen is None else with_version(routed.chunks, seen))
        counts = {
            metrics.POINTS_IN: len(points),
            metrics.POINTS_SAMPLED: 0 if routing.decides_later else routed.sampled,
            metrics.POINTS_UNSAMPLED: len(routed.unsampled),
            metrics.CHUNKS_OUT: len(chunks),
            metrics.VALUES_ROUTED: sum(len(chunk) * len(routing.bands_of(key)) for key, chunk in chunks),
        }
        counts |= {metrics.unsampled(reason): number for reason, number in routed.reasons.items()}
        return RoutedBatch(context, routed, chunks, counts)

    def _emit(self, batches: Iterator[RoutedBatch]) -> Iterator[Any]:
        """Each chunk in the window and at the time of its points, whenever it is ready."""
        for context, routed, chunks, counts in batches:
            for chunk in chunks:
                yield WindowedValue(chunk, *context)
            if len(routed.unsampled):
                yield beam.pvalue.TaggedOutput(UNSAMPLED, WindowedValue(routed.unsampled, *context))
            count(counts)


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
