"""The chip job that the flags of a command ask for."""

import argparse
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from pipelines.cli.polygon_job import PolygonJob
from pipelines.cli.sinks import SinkOf
from rasteret_beam import ChipOutputs, ReadChipDeadLetters, ReadChips, WriteChipsToGeoTiff, WriteChipsToParquet
from rasteret_beam.chip_options import ChipOptions
from rasteret_beam.schema import CHIP_DEAD_LETTER_SCHEMA, chips_schema


class Job(PolygonJob):
    """Chips of polygons."""

    definition = ChipOptions
    outputs = ("output", "unmatched", "dead_letter", "geotiff")
    step = "ReadChips"
    letters = CHIP_DEAD_LETTER_SCHEMA

    def transform(self, bands: Sequence[str], options: ChipOptions) -> ReadChips:
        return ReadChips(self.collection, bands, options=options, with_unmatched=True)

    def again(self, paths: Sequence[str], options: ChipOptions) -> ReadChipDeadLetters:
        return ReadChipDeadLetters(self.collection, list(paths), options=options)

    def main_sinks(self, flags: argparse.Namespace, kept: list[pa.Field]) -> list[SinkOf]:
        chips = WriteChipsToParquet(flags.output, schema=chips_schema(kept))
        found = [SinkOf("chips", "WriteChips", "--output", chips)]
        if flags.geotiff is not None:
            found.append(SinkOf("chips", "WriteGeoTiffs", "--geotiff", WriteChipsToGeoTiff(flags.geotiff), "chips"))
        return found

    def outputs_of(self, read: Any) -> ChipOutputs:
        return read if isinstance(read, ChipOutputs) else ChipOutputs(read)
