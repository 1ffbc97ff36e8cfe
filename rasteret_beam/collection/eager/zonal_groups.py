"""Read groups of polygons that are keyed by place into rows of zonal statistics."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from rasteret_beam.collection.eager.chip_groups import ReadRows
from rasteret_beam.collection.eager.quality_bands import QualityBands
from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.metrics import Counters
from rasteret_beam.quality import Quality
from rasteret_beam.readers.jobs.zone_reader import ZoneReader
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

    def schema(self, kept: Sequence[pa.Field]) -> pa.Schema:
        """Schema of the rows."""
        return self.options.schema(kept, self.index.records.types)


def read_zonal_group(reader: ZoneReader, job: ZonalJob, chunks: Iterable[pa.RecordBatch]) -> Iterator[ReadRows]:
    """Read the polygons of a group into rows of zonal statistics.

    Parameters
    ----------
    chunks : iterable of RecordBatch
        Of polygons keyed by place, as :class:`rasteret_beam.kernels.routing.chip_chunks.RoutedPolygons` describes them.

    Yields
    ------
    ReadRows
        In the schema of the job, of at most 131,072 rows, by polygon, then by record in collection order, then by
        band; with ``join="left"`` also rows of bands for which a polygon has no record. With
        ``on_error="dead_letter"``, dead letters in ``schema.CHIP_DEAD_LETTER_SCHEMA``: a row for each tile of a band
        that cannot be read, with the polygons that it leaves without a row of the band.

    Raises
    ------
    TileReadError
        A tile cannot be read.
    InputError
        A polygon has more valid pixels than ``max_exact_values``, and median or percentiles are wanted; names both.
    """
    raise NotImplementedError


def read_zones_again(
    reader: ZoneReader, job: ZonalJob, record_id: str, band: str, chunk: pa.RecordBatch
) -> Iterator[ReadRows]:
    """Read the polygons of a dead letter, with the options of the earlier run.

    Parameters
    ----------
    chunk : RecordBatch
        As :func:`rasteret_beam.kernels.sampling.dead_letters.points_of` gives it with ``OF_CHIPS``.

    Yields
    ------
    ReadRows
        As :func:`read_zonal_group`: one row for each polygon.

    Raises
    ------
    InputError
        The collection no longer has the record or the band.
    """
    raise NotImplementedError


def rows_without_record(job: ZonalJob, polygons: pa.RecordBatch) -> pa.RecordBatch:
    """Rows for polygons that have no record, with ``join="left"``: one for each band, with nulls.

    Parameters
    ----------
    polygons : RecordBatch
        With ``geometry_id`` and the kept columns, such as a batch of unmatched polygons.
    """
    raise NotImplementedError
