"""A job over polygons that the flags of a command ask for."""

import argparse
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.cli.flags import access, access_of_collection, file_settings, option_values
from pipelines.cli.remote_workers import check_collection, check_packages, check_paths, collection_place
from pipelines.cli.sample_sinks import file_kind, files_sink
from pipelines.cli.sinks import SinkOf, Sinks
from rasteret_beam import ReadPolygons, WriteChipsToParquet, WriteSamplesToCsv
from rasteret_beam.collection.collection import Collection, load
from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.routing.chip_chunks import route_polygons
from rasteret_beam.kernels.routing.matching import check_times
from rasteret_beam.kernels.routing.no_hit import why_no_polygon_hit
from rasteret_beam.model import DEFAULT_ACCESS
from rasteret_beam.option_fields import options_of
from rasteret_beam.schema import kept_polygon_fields, unmatched_schema

OF_POLYGONS = (
    "geometry_column geometry_crs columns bands bbox date_range polygons_anonymous polygons_requester_pays "
    "column_types csv_delimiter csv_decimal csv_encoding layer unmatched"
).split()
"""Flags beside options that dead letters have decided."""


class PolygonJob:
    """The job that the flags ask for; making it finds out what is wrong with them before any pixel is read.

    A subclass says what is done with the polygons.

    Attributes
    ----------
    definition : type
        Of the options.
    outputs : sequence of str
        Flags with paths that are written.
    step : str
        In the graph.
    letters : Schema
        Of its dead letters.

    Raises
    ------
    RasteretBeamError
        Something is missing, unknown or unusable.
    """

    definition: ClassVar[Any]
    outputs: ClassVar[Sequence[str]]
    step: ClassVar[str]
    letters: ClassVar[pa.Schema]

    def __init__(self, flags: argparse.Namespace, options: PipelineOptions):
        check_packages(options)
        given = {f"--{name}": getattr(flags, name) for name in ("polygons", "retry", *self.outputs)}
        given |= {"--collection": collection_place(flags.collection)}
        check_paths(options, given, lambda: _collection(flags))
        self.collection = _collection(flags)
        self.reading: ReadPolygons | None = None
        self.crs: str | None = None
        kept = self._retry(flags) if flags.retry else self._look_at_polygons(flags)
        check_collection(options, self.collection, self.bands)
        self.collection.check_files()
        self.sinks = Sinks([*self.main_sinks(flags, kept), *self._leftover_sinks(flags, kept)])
        if self.reading is not None:
            self._check_first()
        read = {"--polygons": flags.polygons, "--retry": flags.retry, "--collection": [flags.collection]}
        self.sinks.check(options, read, flags)

    @abstractmethod
    def transform(self, bands: Sequence[str], options: Any) -> Any:
        """What is done with polygons."""

    @abstractmethod
    def again(self, paths: Sequence[str], options: Any) -> Any:
        """What is done with dead letters."""

    @abstractmethod
    def main_sinks(self, flags: argparse.Namespace, kept: list[pa.Field]) -> list[SinkOf]:
        """Where the rows go, for the columns of the polygons that pass through."""

    @abstractmethod
    def outputs_of(self, read: Any) -> Any:
        """What a transform gives, as a named tuple."""

    def _options(self, flags: argparse.Namespace) -> Any:
        on_error: Literal["raise", "dead_letter"] = "dead_letter" if flags.dead_letter else "raise"
        return self.definition(**option_values(flags, self.definition), on_error=on_error)

    def _look_at_polygons(self, flags: argparse.Namespace) -> list[pa.Field]:
        """Read a table of polygons; gives the columns that pass through."""
        self.reading = ReadPolygons(
            flags.polygons,
            geometry_column=flags.geometry_column,
            geometry_crs=flags.geometry_crs,
            columns=flags.columns,
            time_column=flags.time_column,
            access=access(flags, "polygons_") or DEFAULT_ACCESS,
            **file_settings(flags),
        )
        self.doing = self.transform(flags.bands, self._options(flags))
        self.bands = self.doing.check()
        polygons = self.reading.polygon_columns()
        self.crs = polygons.crs
        self.first = self.reading.first_batch()
        if self.first is None:
            raise InputError(f"{listed(flags.polygons)} holds no polygons: there is no row in it")
        return kept_polygon_fields(polygons.schema)

    def _retry(self, flags: argparse.Namespace) -> list[pa.Field]:
        """Read dead letters; gives the columns that pass through."""
        usual = {each.name: each.default for each in options_of(self.definition)}
        decided = [each.name for each in options_of(self.definition) if not each.facts.retry]
        given = [
            name for name in (*OF_POLYGONS, *decided) if getattr(flags, name) not in (None, False, usual.get(name))
        ]
        if given:
            raise InputError(f"--{given[0]} does not go with --retry, whose dead letters say it all; leave it out")
        self.doing = self.again(flags.retry, self._options(flags))
        self.bands = self.collection.check_usable(self.doing.bands) if self.doing.bands else []
        return list(self.doing.kept)

    def _check_first(self) -> None:
        """Route the first polygons, which refuses those that are not valid before the job begins."""
        assert self.first is not None
        options = self.doing.options
        self.index = self.collection.index(self.bands, options.match_rules).routing
        check_times(self.index.matcher, self.first, options.time_column)
        route_polygons(self.index, self.first, self.crs, self.doing.rules, options.on_invalid)

    def _leftover_sinks(self, flags: argparse.Namespace, kept: list[pa.Field]) -> list[SinkOf]:
        found = []
        if flags.unmatched:
            unmatched = files_sink(WriteChipsToParquet, WriteSamplesToCsv, flags.unmatched, unmatched_schema(kept))
            kind = file_kind(flags.unmatched)
            found.append(SinkOf("unmatched", "WriteUnmatched", "--unmatched", unmatched, kind))
        if flags.dead_letter:
            letters = WriteChipsToParquet(flags.dead_letter, schema=self.letters)
            found.append(SinkOf("dead_letters", "WriteDeadLetters", "--dead_letter", letters))
        return found

    def build(self, pipeline: beam.Pipeline) -> None:
        """Add the job's steps to a pipeline."""
        polygons = pipeline if self.reading is None else pipeline | "ReadPolygons" >> self.reading
        self.sinks.write(self.outputs_of(polygons | self.step >> self.doing))

    def why_nothing_matched(self) -> str:
        """Why all polygons are unmatched, as far as the first batch of them tells."""
        assert self.first is not None and self.crs is not None
        return why_no_polygon_hit(self.index, self.first, self.crs)


def _collection(flags: argparse.Namespace) -> Collection:
    collection = load(flags.collection, access=access_of_collection(flags))
    return collection.narrowed(bbox=flags.bbox, date_range=flags.date_range)
