"""Polygons to chunks, keyed by record and tile or by place, and polygons that no record overlaps.

The rules are :func:`rasteret_beam.kernels.routing.chip_chunks.route_polygons`.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
from apache_beam import typehints

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam import metrics
from rasteret_beam.kernels.geo.crs import crs_text
from rasteret_beam.kernels.routing.chip_chunks import ChipRules, route_polygons
from rasteret_beam.kernels.routing.matching import check_times
from rasteret_beam.model import TileKey
from rasteret_beam.polygon_options import PolygonOptions
from rasteret_beam.transforms.runtime.beam_metrics import count
from rasteret_beam.transforms.runtime.event_times import GroupByTile
from rasteret_beam.transforms.runtime.index_settings import IndexSettings

UNMATCHED = "unmatched"
CHUNKS = "chunks"


class RoutedGroups(NamedTuple):
    """Groups of polygons by key, and the polygons without a record."""

    groups: beam.PCollection
    unmatched: beam.PCollection[pa.RecordBatch]


def routed_groups(
    polygons: beam.PCollection,
    settings: IndexSettings[Any],
    geometry_crs: Any,
    rules: ChipRules,
    rows_routed: str | None = None,
) -> RoutedGroups:
    """Route polygons and group them.

    ``rows_routed`` names the counter of the rows that are to be made of them; None where reading counts them.
    """
    crs = crs_text(geometry_crs) if geometry_crs is not None else None
    routing = beam.ParDo(_RouteFn(settings, crs, rules, rows_routed))
    routed = polygons | "Route" >> routing.with_outputs(UNMATCHED, main=CHUNKS)
    routed[CHUNKS].element_type = typehints.Tuple[TileKey, pa.RecordBatch]
    routed[UNMATCHED].element_type = pa.RecordBatch
    return RoutedGroups(routed[CHUNKS] | GroupByTile(spill=True), routed[UNMATCHED])


class _RouteFn(beam.DoFn):
    def __init__(
        self, settings: IndexSettings[PolygonOptions], crs: str | None, rules: ChipRules, rows_routed: str | None
    ):
        self.settings = settings
        self.crs = crs
        self.rules = rules
        self.rows_routed = rows_routed

    def setup(self) -> None:
        self.indexes = self.settings.acquire()

    def teardown(self) -> None:
        self.settings.release()

    def process(self, polygons: pa.RecordBatch) -> Iterator[Any]:
        index = self.indexes.at().routing
        check_times(index.matcher, polygons, self.settings.options.time_column)
        routed = route_polygons(index, polygons, self.crs, self.rules, self.settings.options.on_invalid)
        sent = 0
        for key, chunk in routed.chunks:
            sent += 0 if self.rules.by_place else len(chunk) * len(index.bands_of(key))
            yield key, chunk
        if len(routed.unmatched):
            yield beam.pvalue.TaggedOutput(UNMATCHED, routed.unmatched)
        counts = {
            metrics.POLYGONS_IN: len(polygons),
            metrics.POLYGONS_MATCHED: routed.matched,
            metrics.POLYGONS_UNMATCHED: len(routed.unmatched),
        }
        if self.rows_routed is not None:
            counts[self.rows_routed] = sent + routed.chips
        count(counts | {metrics.unmatched(reason): number for reason, number in routed.reasons.items()})
