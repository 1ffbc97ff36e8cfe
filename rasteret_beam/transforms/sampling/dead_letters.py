"""Dead letters of an earlier run, tried again."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Unpack

import apache_beam as beam
import pyarrow as pa

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam import metrics
from rasteret_beam.collection.collection import Collection
from rasteret_beam.collection.index.band_facts import sample_types, warn_of_rounding
from rasteret_beam.collection.index.extra_columns import record_types
from rasteret_beam.collection.index.pixel_crs import pixel_crs
from rasteret_beam.collection.index.quality_checks import check_rules
from rasteret_beam.kernels.sampling.dead_letters import OF_POINTS, points_of, value_type_of, values_lost
from rasteret_beam.kernels.sampling.value_types import ValueTypes
from rasteret_beam.keywords import SampleRetryKeywords
from rasteret_beam.option_fields import documents_options, options_from, takes_options
from rasteret_beam.options import SampleOptions
from rasteret_beam.readers.jobs.sample_job import chunk_crs
from rasteret_beam.readers.storage.listing import Paths
from rasteret_beam.scales import check_scaled_bands
from rasteret_beam.schema import kept_fields
from rasteret_beam.transforms.runtime.beam_metrics import count
from rasteret_beam.transforms.runtime.index_settings import IndexSettings
from rasteret_beam.transforms.sampling.sampling import SampleFn, sampled_by
from rasteret_beam.transforms.sources.dead_letters import DeadLetterFiles
from rasteret_beam.transforms.sources.table_files import shown


@documents_options(SampleOptions, lambda option: option.facts.retry)
class SampleDeadLetters(beam.PTransform):
    """Tiles that an earlier run gave up, with just the points that were in them, to batches of samples.

    Parameters
    ----------
    collection : Collection
        The same, or one built anew in which the files are mended.
    path : str or pathlib.Path, or a list of such
        Parquet written of ``SamplePoints(...).dead_letters``: a file, a folder or a glob.
    <options>
    options : SampleOptions, optional
        All options as one value; ``max_distance_pixels``, ``resampling`` and ``statistics`` should be those of the
        earlier run. Which records are sampled is decided already.

    Raises
    ------
    InputError
        When made: the files are not dead letters, or an option cannot be used. When applied: the collection lacks a
        band.
    """

    @takes_options(SampleOptions, lambda option: option.facts.retry)
    def __init__(self, collection: Collection, path: Paths, **keywords: Unpack[SampleRetryKeywords]):
        super().__init__()
        self.collection = collection
        self.path = path
        self.options = replace(
            options_from(keywords, SampleOptions),
            match="all",
            tolerance=None,
            limit=None,
            overlap="all",
            skip_invalid=False,
        )
        check_scaled_bands(self.options.scales, collection.bands)  # of the earlier run, of which few may have failed
        self._letters = DeadLetterFiles(path, OF_POINTS)

    def __repr__(self) -> str:
        return f"SampleDeadLetters({shown(self.path)})"

    @property
    def bands(self) -> list[str]:
        """Those of the dead letters."""
        return self._letters.bands

    @property
    def kept(self) -> list[pa.Field]:
        """The columns of the points that pass through."""
        return kept_fields(self._letters.first_schema)

    def geometry_crs(self) -> str | None:
        """CRS of the column of geometries, if the samples have one."""
        if self.options.geometry == "point":
            return chunk_crs(self._letters.first_schema)
        return pixel_crs(self.collection, self.options)

    def value_types(self) -> ValueTypes:
        """The type of each band's values: with ``value_type="raw"`` that of the earlier run, if it was "raw" too.

        Raises
        ------
        InputError
            The types of the files do not go together.
        """
        of_run = value_type_of(self._letters.first_schema) if self.options.value_type == "raw" else None
        if of_run is not None:
            return dict.fromkeys(self.bands, of_run)
        return sample_types(self.collection, self.bands, self.options)

    def expand(self, begin: Any) -> Any:
        letters = begin | self._letters
        settings = IndexSettings.of(self.collection, self.bands, self.options)
        warn_of_rounding(self.collection, settings.bands, self.options)
        record_types(self.collection, settings.bands, self.options.extra_columns)
        check_rules(self.collection, self.options)
        crs = pixel_crs(self.collection, self.options)
        settings = replace(settings, value_types=self.value_types(), pixel_crs=crs)
        outputs = sampled_by(_SampleAgainFn(settings), letters)
        return outputs._replace(unsampled=None)  # the earlier run has accounted for all points


class _SampleAgainFn(SampleFn):
    def process(
        self,
        letters: pa.RecordBatch,
        timestamp: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
        pane: Any = beam.DoFn.PaneInfoParam,
    ) -> Iterator[Any]:
        assert self.sampler is not None
        count({metrics.VALUES_ROUTED: values_lost(letters)})
        record_id, band = (letters[name][0].as_py() for name in ("record_id", "band"))
        yield from self._emit(
            self.sampler.push_again((timestamp, (window,), pane), record_id, band, points_of(letters, 0))
        )
