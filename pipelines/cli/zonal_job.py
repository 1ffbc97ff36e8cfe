"""The job of zonal statistics that the flags of a command ask for."""

import argparse
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipelines.cli.polygon_job import PolygonJob
from pipelines.cli.sample_sinks import ZONAL_SINKS, chosen_sink
from pipelines.cli.sinks import SinkOf
from rasteret_beam import ZonalDeadLetters, ZonalOutputs, ZonalStatistics
from rasteret_beam.schema import ZONAL_DEAD_LETTER_SCHEMA
from rasteret_beam.zonal_options import ZonalOptions


class Job(PolygonJob):
    """Statistics of polygons."""

    definition = ZonalOptions
    outputs = ("output", "unmatched", "dead_letter")
    step = "ZonalStatistics"
    letters = ZONAL_DEAD_LETTER_SCHEMA

    def transform(self, bands: Sequence[str], options: ZonalOptions) -> ZonalStatistics:
        return ZonalStatistics(self.collection, bands, options=options, with_unmatched=True)

    def again(self, paths: Sequence[str], options: ZonalOptions) -> ZonalDeadLetters:
        return ZonalDeadLetters(self.collection, list(paths), options=options)

    def main_sinks(self, flags: argparse.Namespace, kept: list[pa.Field]) -> list[SinkOf]:
        schema = self.collection.zonal_schema(kept, self.doing.options, self.crs)
        return [SinkOf("statistics", "WriteStatistics", *chosen_sink(ZONAL_SINKS, flags, schema))]

    def outputs_of(self, read: Any) -> ZonalOutputs:
        return read if isinstance(read, ZonalOutputs) else ZonalOutputs(read)
