"""What a command needs of a sink."""

from collections.abc import Sequence
from typing import Any, Protocol

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from rasteret_beam.transforms.sinks.commit import Output


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
