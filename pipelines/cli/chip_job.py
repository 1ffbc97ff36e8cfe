"""The chip job that the flags of a command ask for."""

import argparse
from typing import Literal

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.cli.flags import access, access_of_collection, csv_settings, option_values
from pipelines.cli.remote_workers import check_collection, check_packages, check_paths, collection_place
from pipelines.cli.sinks import SinkOf, Sinks
from rasteret_beam import (
    ChipOutputs,
    ReadChipDeadLetters,
    ReadChips,
    ReadPolygons,
    WriteChipsToGeoTiff,
    WriteChipsToParquet,
)
from rasteret_beam.chip_options import ChipOptions
from rasteret_beam.collection.collection import Collection, load
from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.routing.chip_chunks import route_polygons
from rasteret_beam.kernels.routing.matching import check_times
from rasteret_beam.kernels.routing.no_hit import why_no_polygon_hit
from rasteret_beam.model import DEFAULT_ACCESS
from rasteret_beam.option_fields import options_of
from rasteret_beam.schema import CHIP_DEAD_LETTER_SCHEMA, chips_schema, kept_polygon_fields, unmatched_schema

OUTPUTS = ("output", "unmatched", "dead_letter", "geotiff")

NOT_WITH_RETRY = (
    "geometry_column geometry_crs columns bands bbox date_range polygons_anonymous polygons_requester_pays "
    "column_types csv_delimiter csv_decimal csv_encoding match time_column tolerance limit "
    "quality skip_invalid min_valid max_candidates unscale scales all_touched fill max_chip_pixels on_invalid unmatched"
).split()


class Job:
    """The job that the flags ask for; making it finds out what is wrong with them before any pixel is read.

    Raises
    ------
    RasteretBeamError
        Something is missing, unknown or unusable.
    """

    def __init__(self, flags: argparse.Namespace, options: PipelineOptions):
        check_packages(options)
        given = {f"--{name}": getattr(flags, name) for name in ("polygons", "retry", *OUTPUTS)}
        given |= {"--collection": collection_place(flags.collection)}
        check_paths(options, given, lambda: _collection(flags))
        self.collection = _collection(flags)
        self.reading: ReadPolygons | None = None
        kept = self._retry(flags) if flags.retry else self._look_at_polygons(flags)
        check_collection(options, self.collection, self.bands)
        self.collection.check_files()
        self.sinks = _sinks(flags, kept)
        if self.reading is not None:
            self._check_first()
        read = {"--polygons": flags.polygons, "--retry": flags.retry, "--collection": [flags.collection]}
        self.sinks.check(options, read, flags)

    def _options(self, flags: argparse.Namespace) -> ChipOptions:
        on_error: Literal["raise", "dead_letter"] = "dead_letter" if flags.dead_letter else "raise"
        return ChipOptions(**option_values(flags, ChipOptions), on_error=on_error)

    def _look_at_polygons(self, flags: argparse.Namespace) -> list[pa.Field]:
        """Read the chips of a table of polygons; gives the columns that pass through."""
        self.reading = ReadPolygons(
            flags.polygons,
            geometry_column=flags.geometry_column,
            geometry_crs=flags.geometry_crs,
            columns=flags.columns,
            time_column=flags.time_column,
            access=access(flags, "polygons_") or DEFAULT_ACCESS,
            **csv_settings(flags),
        )
        self.chips = ReadChips(self.collection, flags.bands, options=self._options(flags), with_unmatched=True)
        self.bands = self.chips.check()
        polygons = self.reading.polygon_columns()
        self.crs = polygons.crs
        self.first = self.reading.first_batch()
        if self.first is None:
            raise InputError(f"{listed(flags.polygons)} holds no polygons: there is no row in it")
        return kept_polygon_fields(polygons.schema)

    def _retry(self, flags: argparse.Namespace) -> list[pa.Field]:
        """Read the chips of dead letters; gives the columns that pass through."""
        usual = {each.name: each.default for each in options_of(ChipOptions)}
        given = [name for name in NOT_WITH_RETRY if getattr(flags, name) not in (None, False, usual.get(name))]
        if given:
            raise InputError(f"--{given[0]} does not go with --retry, whose dead letters say it all; leave it out")
        self.again = ReadChipDeadLetters(self.collection, flags.retry, options=self._options(flags))
        self.bands = self.collection.check_usable(self.again.bands) if self.again.bands else []
        return self.again.kept

    def _check_first(self) -> None:
        """Route the first polygons, which refuses those that are not valid before the job begins."""
        assert self.first is not None
        self.index = self.collection.index(self.bands, self.chips.options.match_rules).routing
        check_times(self.index.matcher, self.first, self.chips.options.time_column)
        route_polygons(self.index, self.first, self.crs, self.chips.rules, self.chips.options.on_invalid)

    def build(self, pipeline: beam.Pipeline) -> None:
        """Add the job's steps to a pipeline."""
        if self.reading is not None:
            read = pipeline | "ReadPolygons" >> self.reading | "ReadChips" >> self.chips
        else:
            read = pipeline | "ReadChips" >> self.again
            read = read if isinstance(read, ChipOutputs) else ChipOutputs(read)
        self.sinks.write(read)

    def why_nothing_matched(self) -> str:
        """Why all polygons are unmatched, as far as the first batch of them tells."""
        assert self.first is not None
        return why_no_polygon_hit(self.index, self.first, self.crs)


def _sinks(flags: argparse.Namespace, kept: list[pa.Field]) -> Sinks:
    """The sinks that the flags ask for."""
    chips = WriteChipsToParquet(flags.output, schema=chips_schema(kept))
    found = [SinkOf("chips", "WriteChips", "--output", chips)]
    if flags.unmatched:
        unmatched = WriteChipsToParquet(flags.unmatched, schema=unmatched_schema(kept))
        found.append(SinkOf("unmatched", "WriteUnmatched", "--unmatched", unmatched))
    if flags.dead_letter:
        letters = WriteChipsToParquet(flags.dead_letter, schema=CHIP_DEAD_LETTER_SCHEMA)
        found.append(SinkOf("dead_letters", "WriteDeadLetters", "--dead_letter", letters))
    if flags.geotiff is not None:
        found.append(SinkOf("chips", "WriteGeoTiffs", "--geotiff", WriteChipsToGeoTiff(flags.geotiff), "chips"))
    return Sinks(found)


def _collection(flags: argparse.Namespace) -> Collection:
    collection = load(flags.collection, access=access_of_collection(flags))
    return collection.narrowed(bbox=flags.bbox, date_range=flags.date_range)
