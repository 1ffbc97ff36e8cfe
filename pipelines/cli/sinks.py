"""The sinks of a command: checked together, and put in place together."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from rasteret_beam.errors import InputError
from rasteret_beam.readers.storage.output_conflicts import Read, Written, check_apart
from rasteret_beam.transforms.sinks.commit import Output, PutInPlace
from rasteret_beam.transforms.sinks.protocol import Sink


@dataclass(frozen=True)
class SinkOf:
    """A sink, the output of the job that it writes, its step in the graph, and the flag that asks for it.

    ``kind`` is that of :class:`rasteret_beam.readers.storage.output_conflicts.Written`.
    """

    output: str
    step: str
    flag: str
    sink: Sink
    kind: Literal["files", "chips"] = "files"


@dataclass(frozen=True)
class Sinks:
    """All sinks of a job; the first is that of its main output."""

    members: Sequence[SinkOf]

    def check(
        self, options: PipelineOptions, read: Mapping[str, Sequence[str] | None], flags: argparse.Namespace
    ) -> None:
        """Find out, before anything is read, whether all rows can be written.

        Parameters
        ----------
        read : {flag: paths}
            What the job reads, which no output may touch.
        flags : Namespace
            The outputs as they were given.

        Raises
        ------
        RasteretBeamError
        """
        written = [Written(each.flag, prefix, each.kind) for each in self.members for prefix in each.sink.prefixes]
        check_apart(written, [Read(flag, paths) for flag, paths in read.items() if paths])
        taken: dict[tuple[str, str], str] = {}
        for each in self.members:
            for prefix in each.sink.prefixes:
                first = taken.setdefault((each.kind, prefix), each.flag)
                if first != each.flag:
                    given = getattr(flags, each.flag.removeprefix("--"))
                    raise InputError(f"{first} and {each.flag} are both {given}; give two prefixes")
        for each in sorted(self.members, key=lambda each: not each.sink.targets):
            each.sink.check(options)

    def write(self, outputs: Any) -> None:
        """Add the steps that write the outputs of a job, a named tuple, to its pipeline."""
        given = [
            (each, getattr(outputs, each.output) | each.step >> each.sink.staged())
            for each in sorted(self.members, key=lambda each: bool(each.sink.targets))
        ]
        staged = [rows for each, rows in given if each.sink.targets]
        done = [rows for each, rows in given if not each.sink.targets]
        if staged:
            staged | beam.Flatten() | PutInPlace(done[0] if done else None)

    def of(self, output: str) -> Sink | None:
        """The sink of an output, if there is one."""
        return next((each.sink for each in self.members if each.output == output), None)

    @property
    def place(self) -> str:
        """What the main output is called."""
        return self.members[0].sink.place

    @property
    def places(self) -> list[str]:
        """All outputs."""
        return [place for each in self.members for place in each.sink.prefixes or [each.sink.place]]

    @property
    def targets(self) -> list[Output]:
        """What is put in place at the end."""
        return [target for each in self.members for target in each.sink.targets]

    @property
    def count_rows(self) -> bool:
        """Whether all sinks count the rows that they write."""
        return all(each.sink.counts_rows for each in self.members)

    def leftovers(self, options: PipelineOptions) -> list[str]:
        """Folders that stay after a failure."""
        return [folder for each in self.members for folder in each.sink.leftovers(options)]

    def is_done(self, options: PipelineOptions) -> bool:
        """Whether an earlier run of the same name has brought in the rows of the main output."""
        return self.members[0].sink.is_done(options)

    def committed(self, options: PipelineOptions) -> str | None:
        """The main output, if its rows are in before the job has ended."""
        return self.members[0].sink.committed(options)
