"""Polygons to chips: key by record and tile, group, read.

Wiring only: routing is :func:`rasteret_beam.kernels.routing.chip_chunks.route_polygons`, reading
:func:`rasteret_beam.collection.eager.chip_groups.read_chip_group`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, NamedTuple
from uuid import uuid4

import apache_beam as beam
import pyarrow as pa
from apache_beam import typehints

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam import metrics
from rasteret_beam.collection.collection import Collection
from rasteret_beam.collection.eager.chip_groups import read_chip_group
from rasteret_beam.collection.eager.get_numpy import check_fill
from rasteret_beam.collection.index.band_facts import FactTable, read_facts
from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.kernels.geo.crs import crs_text
from rasteret_beam.kernels.routing.chip_chunks import MAX_CHIP_PIXELS, ChipRules, check_on_invalid, route_polygons
from rasteret_beam.metrics import Counters
from rasteret_beam.model import TileKey
from rasteret_beam.readers.jobs.chip_reader import ChipReader, fill_value
from rasteret_beam.readers.jobs.spill import unspilled
from rasteret_beam.transforms.runtime.beam_metrics import count
from rasteret_beam.transforms.runtime.event_times import in_windows
from rasteret_beam.transforms.runtime.shared_resources import acquire, release
from rasteret_beam.transforms.runtime.spill import spilled

UNMATCHED = "unmatched"
CHUNKS = "chunks"


class ChipOutputs(NamedTuple):
    """What :class:`ReadChips` gives when asked for unmatched polygons too."""

    chips: beam.PCollection[pa.RecordBatch]
    unmatched: beam.PCollection[pa.RecordBatch]


@dataclass(frozen=True)
class _ChipSettings:
    """Which index and facts a DoFn needs; the token lets the DoFns of one process share them."""

    collection: Collection
    bands: tuple[str, ...]
    match: str
    token: str = field(default_factory=lambda: uuid4().hex)

    def acquire_index(self) -> CollectionIndex:
        return acquire((self.token, "index"), lambda: self.collection.index(self.bands, self.match))

    def release_index(self) -> None:
        release((self.token, "index"))

    def acquire_facts(self) -> FactTable:
        return acquire((self.token, "facts"), lambda: read_facts(self.collection, self.bands))

    def release_facts(self) -> None:
        release((self.token, "facts"))


class _RouteFn(beam.DoFn):
    def __init__(self, settings: _ChipSettings, crs: str | None, rules: ChipRules, on_invalid: str):
        self.settings = settings
        self.crs = crs
        self.rules = rules
        self.on_invalid = on_invalid

    def setup(self) -> None:
        self.index = self.settings.acquire_index()

    def teardown(self) -> None:
        self.settings.release_index()

    def process(self, polygons: pa.RecordBatch) -> Iterator[Any]:
        index = self.index.routing
        routed = route_polygons(index, polygons, self.crs, self.rules, self.on_invalid)
        sent = 0
        for key, chunk in routed.chunks:
            sent += len(chunk) * len(index.bands_of(key))
            yield key, chunk
        if len(routed.unmatched):
            yield beam.pvalue.TaggedOutput(UNMATCHED, routed.unmatched)
        counts = {
            metrics.POLYGONS_IN: len(polygons),
            metrics.POLYGONS_MATCHED: routed.matched,
            metrics.POLYGONS_UNMATCHED: len(routed.unmatched),
            metrics.CHIPS_ROUTED: sent,
        }
        count(counts | {metrics.unmatched(reason): number for reason, number in routed.reasons.items()})


class _ReadFn(beam.DoFn):
    def __init__(self, settings: _ChipSettings, all_touched: bool, fill: float | None):
        self.settings = settings
        self.all_touched = all_touched
        self.fill = fill

    def setup(self) -> None:
        self.index = self.settings.acquire_index()
        self.facts = self.settings.acquire_facts()
        self.reader: ChipReader = acquire(ChipReader, ChipReader)

    def teardown(self) -> None:
        self.settings.release_index()
        self.settings.release_facts()
        release(ChipReader)

    def process(self, element: tuple[TileKey, Iterable[pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
        key, chunks = element
        counters = Counters()
        yield from read_chip_group(
            self.reader,
            self.index,
            self.facts,
            self.settings.collection.name,
            key,
            map(unspilled, chunks),
            counters,
            all_touched=self.all_touched,
            fill=self.fill,
        )
        count(counters.take())


@dataclass(eq=False)
class ReadChips(beam.PTransform):
    """Batches of polygons to batches of chips: the pixels under each polygon, on each record that it overlaps.

    A chip has the pixels of :meth:`Collection.get_numpy`, which are those of
    ``rasterio.mask.mask(dataset, [polygon], crop=True, filled=True)`` on the record's file. Unlike
    ``get_numpy``, chips may differ in shape and dtype, and a record that lacks a band still
    gives its other bands. Polygons in are polygons with at least one chip plus polygons
    unmatched; the metrics of :mod:`rasteret_beam.metrics` count both.

    Parameters
    ----------
    collection : Collection
    bands : sequence of str
    geometry_crs : optional
        CRS of the polygons, where their batches do not carry it (those of ReadPolygons do).
    all_touched : bool
        Whether all pixels that a polygon touches are in it, or only those whose centre it
        holds. A sliver that holds no centre gives a chip of fill values.
    fill : number, optional
        In place of pixels that are not valid; by default the band's nodata value, or 0 where
        it has none.
    match : "all" or "latest"
        A chip of every record that a polygon overlaps, or for each band of the newest one
        (ties: the first in collection order).
    max_chip_pixels : int
        A chip of more pixels is cut into windows of at most so many, along tiles: a row each;
        :func:`rasteret_beam.join_windows` puts them together. A row of the default, 2048 x
        2048, is at most 36 MB.
    on_invalid : "raise" or "skip"
        Geometries that are null, empty, no polygons or not valid, or that cannot be brought to
        the CRS of a record, are an error that names the first, or go to the unmatched ones.
        None is repaired.
    rules : ChipRules
        How chips are put together for the shuffle; ``max_chip_pixels`` takes the place of its ``max_pixels``.
    with_unmatched : bool
        Give :class:`ChipOutputs`: also the polygons without a chip, with a reason each.

    Yields
    ------
    RecordBatch
        In :func:`rasteret_beam.schema.chips_schema`: a row for each polygon, record, band and
        window; of at most 16 MB, or one row. :func:`rasteret_beam.decode_chips` gives arrays.

    Raises
    ------
    InputError
        When applied: a band is not in the collection, the collection has no records, or an
        option cannot be used. While running: a geometry cannot be used.
    TileReadError
        While running: a raster file cannot be read.
    """

    collection: Collection
    bands: Sequence[str]
    _: KW_ONLY
    geometry_crs: Any = None
    all_touched: bool = False
    fill: float | None = None
    match: str = "all"
    max_chip_pixels: int = MAX_CHIP_PIXELS
    on_invalid: str = "raise"
    rules: ChipRules = field(default_factory=ChipRules)
    with_unmatched: bool = False

    def __post_init__(self) -> None:
        check_fill(self.fill)
        check_on_invalid(self.on_invalid)
        self.rules = replace(self.rules, max_pixels=self.max_chip_pixels)

    def expand(self, polygons: beam.PCollection) -> Any:
        settings = self._settings()
        crs = crs_text(self.geometry_crs) if self.geometry_crs is not None else None
        routing = _RouteFn(settings, crs, self.rules, self.on_invalid)
        routed = polygons | "Route" >> beam.ParDo(routing).with_outputs(UNMATCHED, main=CHUNKS)
        routed[CHUNKS].element_type = typehints.Tuple[TileKey, pa.RecordBatch]
        routed[UNMATCHED].element_type = pa.RecordBatch
        reading = _ReadFn(settings, self.all_touched, self.fill)
        chunks = routed[CHUNKS] if in_windows(polygons) else spilled(routed[CHUNKS])
        chips = (
            chunks
            | "GroupByTile" >> beam.GroupByKey()
            | "Read" >> beam.ParDo(reading).with_output_types(pa.RecordBatch)
        )
        return ChipOutputs(chips, routed[UNMATCHED]) if self.with_unmatched else chips

    def check(self) -> list[str]:
        """The bands as a list, if everything asked for can work.

        Raises
        ------
        InputError
            As said of the transform.
        """
        wanted = self.collection.check_usable(self.bands, self.match)
        if self.fill is not None:
            for fact in read_facts(self.collection, wanted).distinct:
                if fact is not None:
                    fill_value(fact, self.fill)
        return wanted

    def _settings(self) -> _ChipSettings:
        """Settings that are known to work: what is wrong with them is said while the pipeline is built."""
        return _ChipSettings(self.collection, tuple(self.check()), self.match)
