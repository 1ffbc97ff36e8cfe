"""Dead letters of an earlier chip job, tried again."""

from collections.abc import Iterator
from typing import Unpack

import pyarrow as pa

from rasteret_beam import metrics
from rasteret_beam.chip_options import ChipOptions
from rasteret_beam.collection.collection import Collection
from rasteret_beam.collection.eager.chip_groups import ReadRows, read_chips_again
from rasteret_beam.kernels.sampling.dead_letters import OF_CHIPS, points_of, values_lost
from rasteret_beam.keywords import ChipRetryKeywords
from rasteret_beam.option_fields import documents_options, options_from, takes_options
from rasteret_beam.readers.storage.listing import Paths
from rasteret_beam.transforms.chips.read_chips import ChipFn, ChipOutputs
from rasteret_beam.transforms.polygons.dead_letters import PolygonDeadLetters
from rasteret_beam.transforms.polygons.reading import ReadAgainFn
from rasteret_beam.transforms.runtime.index_settings import IndexSettings


@documents_options(ChipOptions, lambda option: option.facts.retry)
class ReadChipDeadLetters(PolygonDeadLetters):
    """Tiles that an earlier run gave up, with just the chips that lack them, to batches of chips.

    They are read with the options of the earlier run, but for those given here.

    Parameters
    ----------
    collection : Collection
        The same, or one built anew in which the files are mended; with the same pixels.
    path : str or pathlib.Path, or a list of such
        Parquet written of ``ReadChips(...).dead_letters``: a file, a folder or a glob.
    <options>
    options : ChipOptions, optional
        All options as one value, of which those above are taken.

    Yields
    ------
    RecordBatch
        As of :class:`ReadChips`; with ``on_error="dead_letter"``, :class:`ChipOutputs`.

    Raises
    ------
    InputError
        When made: the files are not dead letters of chips. When applied: the collection lacks a band, or there is no
        dead letter. While running: the collection lacks a record, or has other pixels.
    """

    kind = OF_CHIPS
    outputs = ChipOutputs

    @takes_options(ChipOptions, lambda option: option.facts.retry)
    def __init__(self, collection: Collection, path: Paths, **keywords: Unpack[ChipRetryKeywords]):
        super().__init__(collection, path)
        self.options: ChipOptions = options_from(keywords, ChipOptions)

    def reading(self, settings: IndexSettings[ChipOptions]) -> ReadAgainFn[ChipOptions]:
        return _ReadAgainFn(settings)


class _ReadAgainFn(ReadAgainFn[ChipOptions], ChipFn):
    def read_again(self, letter: pa.RecordBatch) -> Iterator[ReadRows]:
        self.job.counters.add(metrics.CHIPS_ROUTED, values_lost(letter, OF_CHIPS))
        record_id, band = (letter[name][0].as_py() for name in ("record_id", "band"))
        return read_chips_again(self.reader, self.job, record_id, band, points_of(letter, 0, OF_CHIPS))
