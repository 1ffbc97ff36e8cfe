"""Batches of points to batches of samples: key by record and tile, group, sample."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property, partial
from typing import Any, Unpack

import apache_beam as beam

from rasteret_beam.collection.collection import Collection
from rasteret_beam.kernels.routing.chunks import ChunkRules
from rasteret_beam.keywords import SampleKeywords
from rasteret_beam.option_fields import documents_options, options_from, takes_options
from rasteret_beam.options import SampleOptions
from rasteret_beam.schema import DEAD_LETTER_SCHEMA, POINT_CRS_KEY, kept_fields, unsampled_schema
from rasteret_beam.transforms.rows.known import schema_of, with_schemas
from rasteret_beam.transforms.runtime.event_times import GroupByTile
from rasteret_beam.transforms.runtime.index_settings import IndexSettings
from rasteret_beam.transforms.sampling.collection_updates import VersionOf, by_version
from rasteret_beam.transforms.sampling.keying import keyed
from rasteret_beam.transforms.sampling.missing import with_missing
from rasteret_beam.transforms.sampling.outputs import flat
from rasteret_beam.transforms.sampling.sampling import held, sampled, with_types


@documents_options(SampleOptions)
class SamplePoints(beam.PTransform):
    """Batches of points to batches of samples: KeyByRecordAndTile, GroupByTile, SampleTiles.

    Rows in are rows sampled at least once plus rows unsampled; the metrics of
    :mod:`rasteret_beam.metrics` count both. With ``with_unsampled`` or ``on_error="dead_letter"`` it gives
    :class:`SamplingOutputs`.

    The points may be a stream in windows (:class:`GroupByTile` says which): a sample has the
    window and the time of its point. The collection may grow meanwhile, with ``updates``, the
    versions that :class:`rasteret_beam.CollectionUpdates` gives: points are sampled from the
    version of their window, and those of windows before the first from the files that were
    there when the pipeline was built.

    Parameters
    ----------
    collection : Collection
    bands : sequence of str
    geometry_crs, rules, with_unsampled
        As of :class:`KeyByRecordAndTile`.
    updates : PCollection, optional
        Versions of the collection, which grows.
    <options>
    options : SampleOptions, optional
        All options as one value.

    Yields
    ------
    RecordBatch
        In ``samples_schema`` of :mod:`rasteret_beam.schema`: one row a point, record and band
        (or, in a wide layout, a point and record); values are stored numbers, or, with ``unscale``, in physical units.
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
        updates: beam.PCollection[str] | None = None,
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

    @cached_property
    def _settings(self) -> IndexSettings[SampleOptions]:
        return IndexSettings.of(self.collection, self.bands, self.options, self.updates is not None)

    def held(self) -> AbstractContextManager[None]:
        """Hold the collection's index and the caches of this process between pipelines that use this transform."""
        return held(self._settings)

    def expand(self, points: beam.PCollection) -> Any:
        settings = with_types(self._settings)
        outputs = by_version(points, self.updates, settings.first, partial(self._sampled, settings))
        found = schema_of(points)
        if found is not None:
            kept, crs = kept_fields(found), (found.metadata or {}).get(POINT_CRS_KEY)
            geometry_crs = None if crs is None else crs.decode()
            samples = partial(self.collection.sample_schema, settings.bands, kept, self.options, geometry_crs)
            with_schemas(outputs, samples, unsampled_schema(kept), DEAD_LETTER_SCHEMA)
        return outputs

    def _sampled(
        self, settings: IndexSettings[SampleOptions], points: beam.PCollection, version: VersionOf | None
    ) -> Any:
        routed = points | "KeyByRecordAndTile" >> _Step(
            partial(keyed, settings, self.geometry_crs, self.rules), version
        )
        groups = routed.chunks | GroupByTile(spill=True)
        outputs = groups | "SampleTiles" >> _Step(partial(sampled, settings), version)
        unsampled = routed.unsampled
        if outputs.unsampled is not None:
            unsampled = flat("unsampled", unsampled, outputs.unsampled)
        outputs = outputs._replace(unsampled=unsampled if self.with_unsampled else None)
        if self.options.join == "left":
            outputs = outputs._replace(samples=with_missing(settings, outputs.samples, unsampled))
        return outputs if set(outputs[1:]) != {None} else outputs.samples


class _Step(beam.PTransform):
    """A step of the composite, under a name in the graph."""

    def __init__(self, step: Any, version: VersionOf | None):
        super().__init__()
        self.step = step
        self.version = version

    def expand(self, rows: beam.PCollection) -> Any:
        return self.step(rows, self.version)
