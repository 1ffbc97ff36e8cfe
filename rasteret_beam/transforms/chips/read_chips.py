"""Polygons to chips: key by record and tile, group, read.

Wiring only: routing is :func:`rasteret_beam.kernels.routing.chip_chunks.route_polygons`, reading
:func:`rasteret_beam.collection.eager.chip_groups.read_chip_group`, or, where records are chosen by their pixels,
:func:`rasteret_beam.collection.eager.chip_places.read_place_group`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Unpack

import apache_beam as beam
import pyarrow as pa

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam import metrics
from rasteret_beam.chip_options import ChipOptions
from rasteret_beam.collection.collection import Collection
from rasteret_beam.collection.eager.chip_groups import ChipJob, ReadRows, read_chip_group
from rasteret_beam.collection.eager.chip_places import read_place_group
from rasteret_beam.collection.index.band_facts import read_facts
from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.kernels.routing.chip_chunks import ChipRules
from rasteret_beam.keywords import ChipKeywords
from rasteret_beam.model import ALL_BANDS, TileKey
from rasteret_beam.option_fields import documents_options, options_from, takes_options
from rasteret_beam.readers.jobs.chip_reader import ChipReader, fill_value
from rasteret_beam.schema import CHIP_DEAD_LETTER_SCHEMA, chips_schema, kept_polygon_fields, unmatched_schema
from rasteret_beam.transforms.polygons.checks import checked_bands
from rasteret_beam.transforms.polygons.reading import PolygonFn, QualityOf, ReadFn, read_by
from rasteret_beam.transforms.polygons.routing import routed_groups
from rasteret_beam.transforms.rows.known import schema_of, with_schemas
from rasteret_beam.transforms.runtime.index_settings import IndexSettings
from rasteret_beam.transforms.runtime.shared_resources import acquire, release


class ChipOutputs(NamedTuple):
    """What :class:`ReadChips` gives when asked for more than chips.

    ``dead_letters`` are tiles that could not be read, with the windows of chips that lack them, in
    ``schema.CHIP_DEAD_LETTER_SCHEMA``; they are there with ``on_error="dead_letter"``.
    """

    chips: beam.PCollection[pa.RecordBatch]
    unmatched: beam.PCollection[pa.RecordBatch] | None = None
    dead_letters: beam.PCollection[pa.RecordBatch] | None = None


class ChipFn(PolygonFn[ChipOptions]):
    """What is needed to read chips."""

    job: ChipJob
    reader_type = ChipReader

    @property
    def _facts_key(self) -> Any:
        return read_facts, self.settings.token

    def make_job(self, index: CollectionIndex, quality: QualityOf) -> ChipJob:
        settings = self.settings
        facts = acquire(self._facts_key, lambda: read_facts(settings.collection, settings.bands))
        return ChipJob(index, facts, settings.collection.name, settings.options, quality)

    def teardown(self) -> None:
        super().teardown()
        release(self._facts_key)


class _ReadFn(ReadFn[ChipOptions], ChipFn):
    def read(self, key: TileKey, chunks: Iterable[pa.RecordBatch]) -> Iterator[ReadRows]:
        if key.bandset == ALL_BANDS:
            return read_place_group(self.reader, self.job, chunks)
        return read_chip_group(self.reader, self.job, key, chunks)


@documents_options(ChipOptions)
class ReadChips(beam.PTransform):
    """Batches of polygons to batches of chips: the pixels under each polygon, on each record that it overlaps.

    A chip has the pixels of :meth:`Collection.get_numpy`, which are those of
    ``rasterio.mask.mask(dataset, [polygon], crop=True, filled=True)`` on the record's file. Unlike
    ``get_numpy``, chips may differ in shape and dtype, and a record that lacks a band still
    gives its other bands. Polygons in are polygons with at least one chip plus polygons
    unmatched; the metrics of :mod:`rasteret_beam.metrics` count both.

    A chip of more than ``max_chip_pixels`` is cut into windows, along tiles: a row each;
    :func:`rasteret_beam.join_windows` puts them together. A row of the default, 2048 x 2048, is at most 36 MB.
    Geometries that are null, empty, no polygons or not valid, or that cannot be brought to the CRS of a record, are an
    error that names the first, or with ``on_invalid="skip"`` go to the unmatched ones. None is repaired.

    With ``on_error="dead_letter"``, a tile that cannot be read becomes a row of another output, with the windows of
    chips that lack it, while all other chips are read: each chip is a row of one of the two.
    :class:`ReadChipDeadLetters` tries them again.

    With ``skip_invalid``, a band of a polygon has the chip of one record: in the order of ``match``, the first on which
    at least ``min_valid`` of the polygon's pixels are valid in this band, else the best. All windows of a chip are of
    one record.

    The polygons may be a stream in windows (:class:`GroupByTile` says which): a chip has the window and the time of
    its polygon.

    Parameters
    ----------
    collection : Collection
    bands : sequence of str
    geometry_crs : optional
        CRS of the polygons, where their batches do not carry it (those of ReadPolygons do).
    rules : ChipRules, optional
        How chips are put together for the shuffle; ``max_chip_pixels`` takes the place of its ``max_pixels``, and
        ``skip_invalid`` that of ``by_place``.
    with_unmatched : bool
        Give :class:`ChipOutputs`: also the polygons without a chip, with a reason each.
    <options>
    options : ChipOptions, optional
        All options as one value.

    Yields
    ------
    RecordBatch
        In :func:`rasteret_beam.schema.chips_schema`: a row for each polygon, record, band and
        window; of at most 16 MB, or one row. :func:`rasteret_beam.decode_chips` gives arrays. With ``with_unmatched``
        or ``on_error="dead_letter"``, :class:`ChipOutputs`.

    Raises
    ------
    InputError
        When made: an option cannot be used. When applied: a band is not in the collection, a record lacks a band of
        ``quality``, or the collection has no records. While running: a geometry cannot be used.
    TileReadError
        While running: a raster file cannot be read.
    """

    @takes_options(ChipOptions)
    def __init__(
        self,
        collection: Collection,
        bands: Sequence[str],
        *,
        geometry_crs: Any = None,
        rules: ChipRules | None = None,
        with_unmatched: bool = False,
        **keywords: Unpack[ChipKeywords],
    ):
        super().__init__()
        options = options_from(keywords, ChipOptions)
        self.collection = collection
        self.bands = bands
        self.geometry_crs = geometry_crs
        given = rules or ChipRules()
        self.rules = replace(given, max_pixels=options.max_chip_pixels, by_place=options.skip_invalid)
        self.with_unmatched = with_unmatched
        self.options = options

    def expand(self, polygons: beam.PCollection) -> Any:
        settings = IndexSettings(self.collection, tuple(self.check()), self.options)
        routed = routed_groups(polygons, settings, self.geometry_crs, self.rules, metrics.CHIPS_ROUTED)
        chips, letters = read_by(_ReadFn(settings), routed.groups)
        outputs = ChipOutputs(chips, routed.unmatched if self.with_unmatched else None, letters)
        found = schema_of(polygons)
        if found is not None:
            kept = kept_polygon_fields(found)
            with_schemas(outputs, chips_schema(kept), unmatched_schema(kept), CHIP_DEAD_LETTER_SCHEMA)
        return outputs if set(outputs[1:]) != {None} else chips

    def check(self) -> list[str]:
        """The bands as a list, if everything asked for can work.

        Raises
        ------
        InputError
            As said of the transform.
        """
        wanted = checked_bands(self.collection, self.bands, self.options)
        if self.options.fill is not None and not self.options.unscale:
            for fact in read_facts(self.collection, wanted).distinct:
                if fact is not None:
                    fill_value(fact, self.options.fill)
        return wanted
