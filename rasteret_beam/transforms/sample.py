"""Points to samples: key by record and tile, group, sample.

Wiring only: routing is :func:`rasteret_beam.kernels.chunking.route`, sampling
:meth:`rasteret_beam.readers.sampler.TileSampler.sample`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, NamedTuple
from uuid import uuid4

import apache_beam as beam
import pyarrow as pa
from apache_beam import typehints
from apache_beam.utils.windowed_value import WindowedValue

import rasteret_beam.transforms.coders  # noqa: F401  (registers the coders)
from rasteret_beam import metrics
from rasteret_beam.collection.collection import Collection
from rasteret_beam.collection.index import CollectionIndex
from rasteret_beam.kernels.chunking import ChunkRules, route
from rasteret_beam.kernels.crs import crs_text
from rasteret_beam.kernels.layouts import check_layout, check_one_row_each
from rasteret_beam.kernels.neighbourhood import Neighbourhood
from rasteret_beam.metrics import Tally
from rasteret_beam.model import TileKey
from rasteret_beam.readers.budget import DEFAULT_CACHE_BYTES, CacheBudget
from rasteret_beam.readers.sampler import SampleJob, SampleStream, TileSampler
from rasteret_beam.transforms.counting import count
from rasteret_beam.transforms.shared import acquire, release

UNSAMPLED = "unsampled"
CHUNKS = "chunks"


class KeyedOutputs(NamedTuple):
    """What :class:`KeyByRecordAndTile` gives when asked for unsampled points too."""

    chunks: beam.PCollection[tuple[TileKey, pa.RecordBatch]]
    unsampled: beam.PCollection[pa.RecordBatch]


class SamplingOutputs(NamedTuple):
    """What :class:`SamplePoints` gives when asked for unsampled points too."""

    samples: beam.PCollection[pa.RecordBatch]
    unsampled: beam.PCollection[pa.RecordBatch]


@dataclass(frozen=True)
class _IndexSettings:
    """Which index a DoFn needs; the token lets the DoFns of one process share it."""

    collection: Collection
    bands: tuple[str, ...]
    match: str
    cache: CacheBudget = CacheBudget()  # noqa: RUF009
    token: str = field(default_factory=lambda: uuid4().hex)

    def acquire(self) -> CollectionIndex:
        return acquire(self.token, lambda: self.collection.index(self.bands, self.match, self.cache.share))

    def release(self) -> None:
        release(self.token)


class _RouteFn(beam.DoFn):
    def __init__(self, settings: _IndexSettings, crs: str | None, rules: ChunkRules, with_position: bool):
        self.settings = settings
        self.crs = crs
        self.rules = rules
        self.with_position = with_position

    def setup(self) -> None:
        self.index = self.settings.acquire()

    def teardown(self) -> None:
        self.settings.release()

    def process(self, points: pa.RecordBatch) -> Iterator[Any]:
        routed = route(self.index.routing, points, self.crs, self.rules, self.with_position)
        sent = 0
        for key, chunk in routed.chunks:
            sent += 1
            yield key, chunk
        if len(routed.unsampled):
            yield beam.pvalue.TaggedOutput(UNSAMPLED, routed.unsampled)
        counts = {
            metrics.POINTS_IN: len(points),
            metrics.POINTS_SAMPLED: routed.sampled,
            metrics.POINTS_UNSAMPLED: len(routed.unsampled),
            metrics.CHUNKS_OUT: sent,
        }
        count(counts | {metrics.unsampled(reason): number for reason, number in routed.reasons.items()})


class _SampleFn(beam.DoFn):
    def __init__(self, settings: _IndexSettings, around: Neighbourhood, layout: str):
        self.settings = settings
        self.around = around
        self.layout = layout

    def setup(self) -> None:
        self.index = self.settings.acquire()
        cache = self.settings.cache
        self.sampler: TileSampler = acquire(cache, lambda: TileSampler.of_budget(cache))
        self.stream: SampleStream | None = None

    def teardown(self) -> None:
        self._cancel()
        self.settings.release()
        release(self.settings.cache)

    def start_bundle(self) -> None:
        self._cancel()  # what a failed bundle left
        name, bands = self.settings.collection.name, self.settings.bands
        job = SampleJob(self.index.routing, self.index.assets, name, self.around, self.layout, bands)
        self.stream = self.sampler.stream(job, Tally())

    def process(
        self,
        element: tuple[TileKey, Iterable[pa.RecordBatch]],
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
        pane: Any = beam.DoFn.PaneInfoParam,
    ) -> Iterator[WindowedValue]:
        assert self.stream is not None
        yield from self._emit(self.stream.push((timestamp, (window,), pane), *element))

    def finish_bundle(self) -> Iterator[WindowedValue]:
        assert self.stream is not None
        yield from self._emit(self.stream.drain())

    def _emit(self, sampled: Iterator[tuple[Any, pa.RecordBatch]]) -> Iterator[WindowedValue]:
        """Each batch in the window and at the time of its points, whenever it is ready."""
        try:
            for (timestamp, windows, pane), rows in sampled:
                yield WindowedValue(rows, timestamp, windows, pane)
        finally:
            assert self.stream is not None
            count(self.stream.tally.take())

    def _cancel(self) -> None:
        if self.stream is not None:
            self.stream.cancel()
            self.stream = None


@dataclass(eq=False)
class KeyByRecordAndTile(beam.PTransform):
    """Batches of points to chunks of points, keyed by record and block of tiles.

    Each chunk holds the points of one batch that fall in one block of one record's grid, with
    their pixel on the grid (``schema.PIXEL``), then the columns of the batch.

    Parameters
    ----------
    collection : Collection
    bands : sequence of str
    match : "all" or "latest"
        Every record that contains a point, or for each band the newest.
    geometry_crs : optional
        CRS of the points, where their batches do not carry it (those of ReadPoints do).
    rules : ChunkRules
        How chunks are cut.
    max_distance_pixels : int
        That of :class:`SampleTiles`; with 0, where in its pixel a point lies is not sent along.
    with_unsampled : bool
        Give :class:`KeyedOutputs`: also the points that no record contains, with a reason each.

    Raises
    ------
    InputError
        When applied: a band is not in the collection, or the collection has no records.
    """

    collection: Collection
    bands: Sequence[str]
    _: KW_ONLY
    match: str = "all"
    geometry_crs: Any = None
    rules: ChunkRules = field(default_factory=ChunkRules)
    max_distance_pixels: int = 0
    with_unsampled: bool = False
    settings: _IndexSettings | None = field(default=None, repr=False)

    def expand(self, points: beam.PCollection) -> Any:
        settings = self.settings or _settings(self.collection, self.bands, self.match)
        crs = crs_text(self.geometry_crs) if self.geometry_crs is not None else None
        routed = points | "Route" >> beam.ParDo(
            _RouteFn(settings, crs, self.rules, self.max_distance_pixels > 0)
        ).with_outputs(UNSAMPLED, main=CHUNKS)
        chunks = routed[CHUNKS]
        chunks.element_type = typehints.Tuple[TileKey, pa.RecordBatch]
        routed[UNSAMPLED].element_type = pa.RecordBatch
        return KeyedOutputs(chunks, routed[UNSAMPLED]) if self.with_unsampled else chunks


class GroupByTile(beam.PTransform):
    """Chunks of one key together: the only shuffle between points and samples."""

    def expand(self, chunks: beam.PCollection) -> beam.PCollection[tuple[TileKey, Iterable[pa.RecordBatch]]]:
        return chunks | beam.GroupByKey()


@dataclass(eq=False)
class SampleTiles(beam.PTransform):
    """Groups of points to batches in the samples schema; each touched tile is decoded once.

    Parameters
    ----------
    collection, bands, match, max_distance_pixels
        The same as given to :class:`KeyByRecordAndTile`.
    max_distance_pixels, return_neighbourhood, fallback
        Nodata fallback, as in :func:`rasteret_beam.collection.sample.sample_points`.
    layout : "long", "values" or "columns"
        Of the sample table, as there.
    cache_bytes : int
        What the caches of a process may hold in all: decoded tiles, open files, tile offsets, GDAL's blocks.

    Raises
    ------
    InputError
        When applied: as :class:`KeyByRecordAndTile`, or the layout does not suit the options or the collection.
    """

    collection: Collection
    bands: Sequence[str]
    _: KW_ONLY
    match: str = "all"
    max_distance_pixels: int = 0
    return_neighbourhood: str = "off"
    fallback: str = "closest"
    layout: str = "long"
    cache_bytes: int = DEFAULT_CACHE_BYTES
    settings: _IndexSettings | None = field(default=None, repr=False)

    def expand(self, groups: beam.PCollection) -> beam.PCollection[pa.RecordBatch]:
        settings = self.settings or _settings(self.collection, self.bands, self.match, self.cache_bytes)
        around = Neighbourhood(self.max_distance_pixels, self.return_neighbourhood, self.fallback)
        check_layout(self.layout, around)
        if self.layout != "long":
            check_one_row_each(self.collection.index(settings.bands, self.match).routing)
        return groups | "Sample" >> beam.ParDo(_SampleFn(settings, around, self.layout)).with_output_types(
            pa.RecordBatch
        )


@dataclass(eq=False)
class SamplePoints(beam.PTransform):
    """Batches of points to batches of samples: KeyByRecordAndTile, GroupByTile, SampleTiles.

    Rows in are rows sampled at least once plus rows unsampled; the metrics of
    :mod:`rasteret_beam.metrics` count both. Parameters as :class:`KeyByRecordAndTile` and
    :class:`SampleTiles`; with ``with_unsampled`` it gives :class:`SamplingOutputs`.

    Yields
    ------
    RecordBatch
        In ``samples_schema`` of :mod:`rasteret_beam.schema`: one row a point, record and band
        (or, in a wide layout, a point and record); raw values as float64.
    """

    collection: Collection
    bands: Sequence[str]
    _: KW_ONLY
    match: str = "all"
    geometry_crs: Any = None
    rules: ChunkRules = field(default_factory=ChunkRules)
    max_distance_pixels: int = 0
    return_neighbourhood: str = "off"
    fallback: str = "closest"
    layout: str = "long"
    cache_bytes: int = DEFAULT_CACHE_BYTES
    with_unsampled: bool = False

    def expand(self, points: beam.PCollection) -> Any:
        settings = _settings(self.collection, self.bands, self.match, self.cache_bytes)
        routed = points | KeyByRecordAndTile(
            self.collection,
            self.bands,
            match=self.match,
            geometry_crs=self.geometry_crs,
            rules=self.rules,
            max_distance_pixels=self.max_distance_pixels,
            with_unsampled=True,
            settings=settings,
        )
        sampling = SampleTiles(
            self.collection,
            self.bands,
            match=self.match,
            max_distance_pixels=self.max_distance_pixels,
            return_neighbourhood=self.return_neighbourhood,
            fallback=self.fallback,
            layout=self.layout,
            settings=settings,
        )
        samples = routed.chunks | GroupByTile() | sampling
        return SamplingOutputs(samples, routed.unsampled) if self.with_unsampled else samples


def _settings(
    collection: Collection, bands: Sequence[str], match: str, cache_bytes: int = DEFAULT_CACHE_BYTES
) -> _IndexSettings:
    """Settings that are known to work: what is wrong with them is said while the pipeline is built."""
    wanted = collection.check_usable(bands, match)
    return _IndexSettings(collection, tuple(wanted), match, CacheBudget(cache_bytes))
