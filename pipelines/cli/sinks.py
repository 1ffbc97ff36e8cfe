"""The sinks of a command: checked together, and put in place together."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.cli.remote_workers import check_paths
from rasteret_beam.errors import InputError, OutputError
from rasteret_beam.readers.storage.output_conflicts import Read, Written, check_apart
from rasteret_beam.transforms.runtime.files import matching
from rasteret_beam.transforms.sinks.commit import Output, PutInPlace, Staged, end_decided, is_in_place, read_manifest
from rasteret_beam.transforms.sinks.owners import is_active
from rasteret_beam.transforms.sinks.protocol import RoundSink, Sink
from rasteret_beam.transforms.sinks.rounds import FILES, FinishedRound, ListFiles, RoundRecords, delete_unfinished


@dataclass(frozen=True)
class SinkOf:
    """A sink, the output of the job that it writes, its step in the graph, and the flag that asks for it.

    ``kind`` is that of :class:`rasteret_beam.readers.storage.output_conflicts.Written`.
    """

    output: str
    step: str
    flag: str
    sink: Sink
    kind: Literal["files", "file", "chips"] = "files"


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
                first = taken.setdefault(("files" if each.kind == "file" else each.kind, prefix), each.flag)
                if first != each.flag:
                    given = getattr(flags, each.flag.removeprefix("--"))
                    raise InputError(f"{first} and {each.flag} are both {given}; give two prefixes")
        for each in sorted(self.members, key=lambda each: not each.sink.targets):
            each.sink.check(options)
            check_paths(options, {each.flag: getattr(each.sink, "data_folder", None)})

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

    @property
    def take_rounds(self) -> bool:
        """Whether all sinks can take their rows in rounds."""
        return len(self._in_rounds) == len(self.members)

    @property
    def _in_rounds(self) -> list[tuple[str, RoundSink]]:
        """The sinks that can, by step."""
        found = [(each.step, each.sink) for each in self.members]
        return [(step, sink) for step, sink in found if isinstance(sink, RoundSink) and sink.takes_rounds]

    @property
    def runs(self) -> dict[str, str]:
        """Id of the run for each step."""
        return {step: sink.run for step, sink in self._in_rounds}

    def take_runs(self, runs: Mapping[str, str]) -> None:
        """Continue runs with these ids."""
        for step, sink in self._in_rounds:
            sink.run = runs[step]

    def folders(self, options: PipelineOptions) -> dict[str, str]:
        """Temporary folder of each step."""
        return {step: sink.folder(options) for step, sink in self._in_rounds}

    def write_round(self, outputs: Any, records: RoundRecords) -> None:
        """Add the steps that write the outputs of a round, a named tuple, to its pipeline."""
        names = {each.step: each.output for each in self.members}
        for step, sink in self._in_rounds:
            files = getattr(outputs, names[step]) | step >> sink.in_round()
            files | f"List{step}" >> ListFiles(records.listing(step))

    def check_files(self, finished: Sequence[FinishedRound], options: PipelineOptions) -> None:
        """Find out whether the files of finished rounds are there, except of outputs that are in place.

        Raises
        ------
        OutputError
        """
        decided = {target.temporary for target in self.targets if is_in_place(target)}
        for step, folder in self.folders(options).items():
            there = set(matching(f"{folder}/", FILES))
            gone = sorted(set(_files(finished, step)) - there)
            if gone and folder not in decided:
                raise OutputError(
                    f"{gone[0]} of a finished round is gone, so the run cannot be resumed; restore it, or leave out "
                    "--resume to start anew"
                )

    def delete_unfinished(self, finished: Sequence[FinishedRound], options: PipelineOptions) -> None:
        """Delete the files of a round that a killed run has not finished."""
        for step, folder in self.folders(options).items():
            delete_unfinished(folder, _files(finished, step))

    def after_rounds(self, finished: Sequence[FinishedRound], options: PipelineOptions) -> list[Staged]:
        """Load the rows of all rounds where no files are put in place; returns the others, the main output last."""
        sinks = [*reversed(self._in_rounds)]
        sinks.sort(key=lambda each: bool(each[1].targets))
        staged = [sink.after_rounds(_files(finished, step), options) for step, sink in sinks]
        return [each for each in staged if each is not None]

    def unfinished_run(self, options: PipelineOptions) -> tuple[str, dict[str, Any]]:
        """The temporary folder and the description of the latest unfinished run with the same main output.

        Raises
        ------
        InputError
            There is none, or it is active.
        """
        for target in self.targets:
            end_decided(target)
        _, main = self._in_rounds[0]
        start = main.folder(options).removesuffix(main.run)
        found = [(start + run, RoundRecords(start + run).run()) for run in main.other_runs(options)]
        runs = [(folder, run) for folder, run in found if run is not None and run["place"] == self.place]
        if not runs:
            raise InputError(f"--resume: {self._nothing_to_resume()}; leave out --resume to start anew")
        folder, run = max(runs, key=lambda each: str(each[1]["began"]))
        if is_active(folder):
            raise InputError(
                f"--resume: the run onto {self.place} that began {run['began']} is still active; wait for it, or end it"
            )
        return folder, run

    def _nothing_to_resume(self) -> str:
        last = read_manifest(self.targets[0]) if self.members[0].sink.targets else None
        if last is None:
            return f"there is no unfinished run onto {self.place}"
        began = datetime.fromtimestamp(last.started, UTC)
        return f"the last run onto {self.place}, which began {began:%Y-%m-%dT%H:%M:%SZ}, is complete and in place"

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

    @property
    def run_id(self) -> str:
        """The name that the user has given to the run, where its main output takes one."""
        return getattr(self.members[0].sink, "run_id", None) or ""

    def committed(self, options: PipelineOptions) -> str | None:
        """The main output, if its rows are in before the job has ended."""
        return self.members[0].sink.committed(options)


def _files(finished: Sequence[FinishedRound], step: str) -> list[str]:
    """Files of a sink, in the order of the rounds."""
    return [file for each in finished for file in each.files.get(step, ())]
