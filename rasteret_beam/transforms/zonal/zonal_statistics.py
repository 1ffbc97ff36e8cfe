"""Polygons to statistics of the pixels in them: key by place, group, read.

Wiring only: routing is :func:`rasteret_beam.kernels.routing.chip_chunks.route_polygons`, reading
:func:`rasteret_beam.collection.eager.zonal_groups.read_zonal_group`.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, Unpack

import apache_beam as beam
import pyarrow as pa

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam import metrics
from rasteret_beam.collection.collection import Collection
from rasteret_beam.collection.eager.chip_groups import ReadRows
from rasteret_beam.collection.eager.zonal_groups import read_zonal_group, rows_without_record
from rasteret_beam.collection.eager.zonal_job import ZonalJob
from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.collection.index.extra_columns import record_types
from rasteret_beam.kernels.routing.chip_chunks import ChipRules
from rasteret_beam.keywords import ZonalKeywords
from rasteret_beam.model import TileKey
from rasteret_beam.option_fields import documents_options, options_from, takes_options
from rasteret_beam.readers.jobs.zone_reader import ZoneReader
from rasteret_beam.schema import (
    MERGED_RECORDS,
    POLYGON_CRS_KEY,
    ZONAL_DEAD_LETTER_SCHEMA,
    kept_polygon_fields,
    unmatched_schema,
)
from rasteret_beam.transforms.polygons.checks import checked_bands
from rasteret_beam.transforms.polygons.reading import PolygonFn, QualityOf, ReadFn, read_by
from rasteret_beam.transforms.polygons.routing import routed_groups
from rasteret_beam.transforms.rows.known import schema_of, with_schemas
from rasteret_beam.transforms.runtime.beam_metrics import count
from rasteret_beam.transforms.runtime.index_settings import IndexSettings
from rasteret_beam.transforms.sampling.outputs import flat
from rasteret_beam.zonal_options import ZonalOptions


class ZonalOutputs(NamedTuple):
    """What :class:`ZonalStatistics` gives when asked for more than statistics.

    ``unmatched`` are polygons without a record, in ``unmatched_schema`` of :mod:`rasteret_beam.schema`.
    ``dead_letters`` are tiles that could not be read, with the polygons and records whose rows lack them, in
    ``schema.ZONAL_DEAD_LETTER_SCHEMA``; they are there with ``on_error="dead_letter"``.
    """

    statistics: beam.PCollection[pa.RecordBatch]
    unmatched: beam.PCollection[pa.RecordBatch] | None = None
    dead_letters: beam.PCollection[pa.RecordBatch] | None = None


class ZonalFn(PolygonFn[ZonalOptions]):
    """What is needed to read zones."""

    job: ZonalJob
    reader_type = ZoneReader

    def make_job(self, index: CollectionIndex, quality: QualityOf) -> ZonalJob:
        settings = self.settings
        return ZonalJob(index, settings.collection.name, settings.bands, settings.options, quality)


class _ReadFn(ReadFn[ZonalOptions], ZonalFn):
    def read(self, key: TileKey, chunks: Iterable[pa.RecordBatch]) -> Iterator[ReadRows]:
        for rows, failed in read_zonal_group(self.reader, self.job, self._counted(chunks)):
            if not failed:
                of_record = MERGED_RECORDS.name if self.job.options.merges else "record_id"
                self.job.counters.add(metrics.ZONES_WITHOUT_RECORD, rows[of_record].null_count)
            yield ReadRows(rows, failed)

    def _counted(self, chunks: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for chunk in chunks:
            self.job.counters.add(metrics.POLYGONS_READ, len(chunk))
            yield chunk


class _MissingFn(ZonalFn):
    """Batches of unmatched polygons to rows with nulls, in their windows and at their times."""

    def process(self, unmatched: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        rows = rows_without_record(self.job, unmatched)
        count({metrics.ZONES_WITHOUT_RECORD: len(rows)})
        yield rows


@documents_options(ZonalOptions)
class ZonalStatistics(beam.PTransform):
    """Batches of polygons to statistics of the pixels in each polygon, on each record that it overlaps.

    The rows are those of :meth:`Collection.zonal_statistics`. Polygons in are polygons with at least one record plus
    polygons unmatched; the metrics of :mod:`rasteret_beam.metrics` count both, and the rows.

    A polygon of any size is read window by window. Geometries that are null, empty, no polygons or not valid, or that
    cannot be brought to the CRS of a record, are an error that names the first, or with ``on_invalid="skip"`` go to the
    unmatched ones. None is repaired.

    With ``on_error="dead_letter"``, a tile that cannot be read becomes a row of another output, with the polygons
    whose rows lack it, while all other rows are made: each row is in one of the two. :class:`ZonalDeadLetters` tries
    them again.

    The polygons may be a stream in windows (:class:`GroupByTile` says which): a row has the window and the time of its
    polygon.

    Parameters
    ----------
    collection : Collection
    bands : sequence of str
    geometry_crs : optional
        CRS of the polygons, where their batches do not carry it (those of ReadPolygons do).
    rules : ChipRules, optional
        How polygons are put together for the shuffle; they are keyed by place.
    with_unmatched : bool
        Give :class:`ZonalOutputs`: also the polygons without a record, with a reason each.
    <options>
    options : ZonalOptions, optional
        All options as one value.

    Yields
    ------
    RecordBatch
        In :func:`rasteret_beam.schema.zonal_schema`: a row for each polygon, record (or moment) and band. With
        ``with_unmatched`` or ``on_error="dead_letter"``, :class:`ZonalOutputs`.

    Raises
    ------
    InputError
        When made: an option cannot be used. When applied: a band or a column of ``extra_columns`` is not in the
        collection, a record lacks a band of ``quality``, or the collection has no records. While running: a geometry
        cannot be used, or median or percentiles are wanted of a polygon with more than ``max_exact_values`` pixels.
    TileReadError
        While running: a raster file cannot be read.
    """

    @takes_options(ZonalOptions)
    def __init__(
        self,
        collection: Collection,
        bands: Sequence[str],
        *,
        geometry_crs: Any = None,
        rules: ChipRules | None = None,
        with_unmatched: bool = False,
        **keywords: Unpack[ZonalKeywords],
    ):
        super().__init__()
        self.collection = collection
        self.bands = bands
        self.geometry_crs = geometry_crs
        self.rules = replace(rules or ChipRules(), by_place=True)
        self.with_unmatched = with_unmatched
        self.options = options_from(keywords, ZonalOptions)

    def expand(self, polygons: beam.PCollection) -> Any:
        settings = IndexSettings(self.collection, tuple(self.check()), self.options)
        routed = routed_groups(polygons, settings, self.geometry_crs, self.rules)
        rows, letters = read_by(_ReadFn(settings), routed.groups)
        if self.options.join == "left":
            making = beam.ParDo(_MissingFn(settings)).with_output_types(pa.RecordBatch)
            rows = flat("statistics", rows, routed.unmatched | "MissingRows" >> making)
        outputs = ZonalOutputs(rows, routed.unmatched if self.with_unmatched else None, letters)
        found = schema_of(polygons)
        if found is not None:
            kept, crs = kept_polygon_fields(found), (found.metadata or {}).get(POLYGON_CRS_KEY)
            geometry_crs = None if crs is None else crs.decode()
            statistics = partial(self.collection.zonal_schema, kept, self.options, geometry_crs)
            with_schemas(outputs, statistics, unmatched_schema(kept), ZONAL_DEAD_LETTER_SCHEMA)
        return outputs if set(outputs[1:]) != {None} else rows

    def check(self) -> list[str]:
        """The bands as a list, if everything asked for can work.

        Raises
        ------
        InputError
            As said of the transform.
        """
        wanted = checked_bands(self.collection, self.bands, self.options)
        record_types(self.collection, wanted, self.options.extra_columns)
        return wanted
