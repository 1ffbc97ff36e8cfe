"""Dead letters of an earlier job of zonal statistics, tried again."""

from collections.abc import Iterator
from typing import Unpack

import pyarrow as pa

from rasteret_beam.collection.collection import Collection
from rasteret_beam.collection.eager.chip_groups import ReadRows
from rasteret_beam.collection.eager.zonal_groups import read_zones_again
from rasteret_beam.kernels.sampling.dead_letters import OF_ZONES, points_of
from rasteret_beam.keywords import ZonalRetryKeywords
from rasteret_beam.option_fields import documents_options, options_from, takes_options
from rasteret_beam.readers.storage.listing import Paths
from rasteret_beam.transforms.polygons.dead_letters import PolygonDeadLetters
from rasteret_beam.transforms.polygons.reading import ReadAgainFn
from rasteret_beam.transforms.runtime.index_settings import IndexSettings
from rasteret_beam.transforms.zonal.zonal_statistics import ZonalFn, ZonalOutputs
from rasteret_beam.zonal_options import ZonalOptions


@documents_options(ZonalOptions, lambda option: option.facts.retry)
class ZonalDeadLetters(PolygonDeadLetters):
    """Tiles that an earlier run gave up, with just the polygons whose rows lack them, to statistics.

    They are made with the options of the earlier run, but for those given here.

    Parameters
    ----------
    collection : Collection
        The same, or one built anew in which the files are mended.
    path : str or pathlib.Path, or a list of such
        Parquet written of ``ZonalStatistics(...).dead_letters``: a file, a folder or a glob.
    <options>
    options : ZonalOptions, optional
        All options as one value, of which those above are taken.

    Yields
    ------
    RecordBatch
        As of :class:`ZonalStatistics`; with ``on_error="dead_letter"``, :class:`ZonalOutputs`.

    Raises
    ------
    InputError
        When made: the files are not dead letters of zonal statistics, or are of runs with other columns. When applied:
        the collection lacks a band, or there is no dead letter. While running: the collection lacks a record.
    """

    kind = OF_ZONES
    outputs = ZonalOutputs

    @takes_options(ZonalOptions, lambda option: option.facts.retry)
    def __init__(self, collection: Collection, path: Paths, **keywords: Unpack[ZonalRetryKeywords]):
        super().__init__(collection, path)
        options, settings = options_from(keywords, ZonalOptions), self._letters.settings
        self.options: ZonalOptions = options if settings is None else options.with_settings(settings)

    def reading(self, settings: IndexSettings[ZonalOptions]) -> ReadAgainFn[ZonalOptions]:
        return _ReadAgainFn(settings)


class _ReadAgainFn(ReadAgainFn[ZonalOptions], ZonalFn):
    def read_again(self, letter: pa.RecordBatch) -> Iterator[ReadRows]:
        record_id, band = (letter[name][0].as_py() for name in ("record_id", "band"))
        return read_zones_again(self.reader, self.job, record_id, band, points_of(letter, 0, OF_ZONES))
