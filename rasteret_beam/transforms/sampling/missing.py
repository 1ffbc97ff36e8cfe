"""Points without a sample to rows of the sample table, for ``join="left"``."""

from collections.abc import Iterator

import apache_beam as beam
import pyarrow as pa

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam import metrics
from rasteret_beam.collection.index.extra_columns import record_types
from rasteret_beam.kernels.sampling.missing_rows import rows_of_unsampled
from rasteret_beam.kernels.sampling.value_types import ValueTypes
from rasteret_beam.options import SampleOptions
from rasteret_beam.transforms.runtime.beam_metrics import count
from rasteret_beam.transforms.runtime.index_settings import IndexSettings
from rasteret_beam.transforms.sampling.outputs import flat


class _MissingFn(beam.DoFn):
    """Batches of unsampled points to batches of rows, in their windows and at their times."""

    def __init__(
        self,
        bands: tuple[str, ...],
        options: SampleOptions,
        types: ValueTypes,
        collection: str,
        of_records: dict[str, pa.DataType],
        pixel_crs: str | None,
    ):
        self.settings = bands, options, types, collection, of_records, pixel_crs

    def process(self, unsampled: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        for rows in rows_of_unsampled(unsampled, *self.settings):
            count({metrics.SAMPLES_OUT: len(rows)})
            yield rows


def with_missing(
    settings: IndexSettings[SampleOptions], samples: beam.PCollection, unsampled: beam.PCollection
) -> beam.PCollection:
    """The samples, and rows of the points that have none."""
    assert settings.value_types is not None
    types = record_types(settings.collection, settings.bands, settings.options.extra_columns)
    of_rows = settings.value_types, settings.collection.name, types, settings.pixel_crs
    making = _MissingFn(settings.bands, settings.options, *of_rows)
    missing = unsampled | "MissingRows" >> beam.ParDo(making).with_output_types(pa.RecordBatch)
    return flat("samples", samples, missing)
