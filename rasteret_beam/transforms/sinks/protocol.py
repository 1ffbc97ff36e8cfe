"""What a command needs of a sink."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions

from rasteret_beam.schema import samples_schema
from rasteret_beam.transforms.rows.known import schema_of
from rasteret_beam.transforms.sinks.commit import Output, PutInPlace, Staged


class Sink(Protocol):
    """Where a command's rows go.

    Attributes
    ----------
    place : str
        What the output is called.
    prefixes : sequence of str
        Paths at which it writes files.
    targets : sequence of Output
        Its outputs that are put in place at the end of the job, together with those of other sinks.
    counts_rows : bool
        It counts the rows that it writes, so that a job's accounts can be checked.
    """

    @property
    def place(self) -> str: ...

    @property
    def prefixes(self) -> Sequence[str]: ...

    @property
    def targets(self) -> Sequence[Output]: ...

    @property
    def counts_rows(self) -> bool: ...

    def check(self, options: PipelineOptions) -> None:
        """Find out, before anything is read, whether rows can be written.

        Raises
        ------
        RasteretBeamError
        """
        ...

    def staged(self) -> beam.PTransform[Any, Any]:
        """From batches to what :class:`.commit.PutInPlace` takes; without ``targets``, to a sign that rows are in."""
        ...

    def leftovers(self, options: PipelineOptions) -> Sequence[str]:
        """Folders that stay after a failure, for the next try or for a look."""
        ...

    def is_done(self, options: PipelineOptions) -> bool:
        """Whether an earlier run of the same name has brought all rows in."""
        ...

    def committed(self, options: PipelineOptions) -> str | None:
        """Its place, if the rows of this run are in before the job has ended."""
        ...


@runtime_checkable
class RoundSink(Protocol):
    """A sink that can take its rows in rounds: it writes files in each, and brings all of them in after the last.

    Attributes
    ----------
    run : str
        Id of the run, part of the name of its temporary folder; a resumed run sets that of the killed one.
    takes_rounds : bool
        With its settings.
    """

    run: str

    @property
    def targets(self) -> Sequence[Output]: ...

    @property
    def takes_rounds(self) -> bool: ...

    def folder(self, options: PipelineOptions) -> str:
        """The temporary folder of this run."""
        ...

    def other_runs(self, options: PipelineOptions) -> Sequence[str]:
        """Ids of other runs with this output whose temporary folders are there."""
        ...

    def in_round(self) -> beam.PTransform[Any, Any]:
        """From batches to one list of the files of a round, which are not empty."""
        ...

    def after_rounds(self, files: Sequence[str], options: PipelineOptions) -> Staged | None:
        """What is to be put in place, from the files of all rounds; a sink that is not put in place does its work."""
        ...


class FileSink:
    """What sinks have in common whose files are put in place at the end of the job."""

    target: Output
    counts_rows = True

    @property
    def targets(self) -> list[Output]:
        return [self.target]

    def leftovers(self, options: PipelineOptions) -> list[str]:
        return []

    def is_done(self, options: PipelineOptions) -> bool:
        return False

    def committed(self, options: PipelineOptions) -> str | None:
        return None


class RoundFileSink(FileSink):
    """What those of them have in common that take their rows in rounds."""

    takes_rounds = True

    @property
    def run(self) -> str:
        return self.target.run

    @run.setter
    def run(self, run: str) -> None:
        self.target = replace(self.target, run=run)

    def folder(self, options: PipelineOptions) -> str:
        return self.target.temporary

    def other_runs(self, options: PipelineOptions) -> list[str]:
        return self.target.other_runs()


class RowFileSink(RoundFileSink):
    """What those of them have in common that write rows.

    Attributes
    ----------
    schema : Schema, optional
        Of a file without rows; by default that of the step that makes the rows.
    """

    schema: pa.Schema | None

    def put(self, rows: beam.PCollection, staged: Any) -> beam.PCollection[str]:
        """Stage the rows, by a transform with a ``schema``, and put the files in place."""
        known = schema_of(rows)
        if self.schema is None and known is not None:
            staged.schema = known
        return rows | "Stage" >> staged | "PutInPlace" >> PutInPlace()

    def schema_without_rows(self) -> pa.Schema:
        """The schema that is given, or what rows have of which nothing else is known."""
        return self.schema if self.schema is not None else self.usual_schema()

    def usual_schema(self) -> pa.Schema:
        """Of rows of which nothing else is known."""
        return samples_schema()
