"""Remove the unfinished files of a job that fails or is interrupted, and report which outputs are in place."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from apache_beam.runners.runner import PipelineState

from pipelines.cli.subcommands import error_line
from rasteret_beam.errors import RasteretBeamError, listed, one_line
from rasteret_beam.transforms.runtime.files import delete_folder, matching
from rasteret_beam.transforms.sinks.commit import Output, abandon, end_decided, is_in_place
from rasteret_beam.transforms.sinks.owners import owner, remove_abandoned

UNDECIDED = "the job did not finish; its unfinished files are removed"


@dataclass
class UnderWay:
    """The files of a job that has not ended.

    Attributes
    ----------
    outputs : sequence of Output
    kept : function
        Returns the folders that a failed job keeps.
    runner : str
    is_local : bool
        Whether the job ends when this process ends.
    folders : list of str
        Further temporary folders.
    result : optional
        Beam's result of the job, once it runs.
    loaded : function
        Returns the table that the job has loaded rows into, or None.
    has_begun : bool
        The job was given to its runner.
    resumable : function
        Returns how to continue the run, if a part of it is finished; its files are then kept.
    """

    outputs: Sequence[Output]
    kept: Callable[[], Sequence[str]]
    runner: str
    is_local: bool
    folders: list[str] = field(default_factory=list)
    result: Any = None
    loaded: Callable[[], str | None] = lambda: None
    has_begun: bool = False
    resumable: Callable[[], str | None] = lambda: None

    @contextmanager
    def owned(self, runs: bool) -> Iterator[None]:
        """Mark the temporary folders as used by this process, if the job runs in it."""
        with ExitStack() as stack:
            for output in self.outputs if runs and self.is_local else ():
                stack.enter_context(owner(output))
            yield

    def fail(self, message: str) -> None:
        """Remove the unfinished files of a failed job; print its error and what remains."""
        is_over = self.result is None or self._is_over()  # without a result, the job was not submitted
        in_place = self._ended() if is_over else self._decided()
        if self.has_begun:
            in_place += self._tables()
        print(error_line(message), file=sys.stderr)
        how = self._how_to_resume(in_place)
        if how is not None:
            print(how, file=sys.stderr)
        if in_place:
            print(f"already in place: {listed(in_place)}", file=sys.stderr)
        if not is_over:
            print(self._goes_on(), file=sys.stderr)
        for folder in self.kept():
            if folder not in message and matching(folder + "/", "**"):
                print(
                    f"files of the unfinished job are kept in {folder}/; delete them when you no longer need them",
                    file=sys.stderr,
                )

    def interrupt(self) -> str:
        """Remove the unfinished files of an interrupted job; returns a message about its outputs."""
        if not self._is_over():
            self._clear_folders(self.folders)
            return self._goes_on()
        in_place = self._ended()
        how = self._how_to_resume(in_place)
        if how is not None:
            return f"the job did not finish; {how}"
        self._clear_folders(self.kept())
        if not in_place:
            return UNDECIDED
        if len(in_place) == len(self.outputs):
            return f"the output is complete and in place: {listed(in_place)}"
        return f"{UNDECIDED}; already in place: {listed(in_place)}"

    def _is_over(self) -> bool:
        """Whether the job ends with this process."""
        if self.is_local:
            return True
        try:
            return self.result is not None and PipelineState.is_terminal(self.result.state)
        except Exception:  # the server that has the state does not answer
            return False

    def _goes_on(self) -> str:
        """A message about a job that may still run on its runner."""
        job = f"job {job_id(self.result)}" if self.result is not None else "the job"
        folders = listed(output.temporary + "/" for output in self.outputs)
        return (
            f"{job} may still be running on {self.runner} and write its output; check or cancel it there. "
            f"If it is not running, delete {folders}"
        )

    def _ended(self) -> list[str]:
        """Delete the files of the job unless it can be resumed; returns the outputs that are in place."""
        in_place = self._decided()
        if self._how_to_resume(in_place) is None:
            return self._clear(self.outputs)
        return self._clear([output for output in self.outputs if output.path in in_place])

    def _how_to_resume(self, in_place: Sequence[str]) -> str | None:
        main = self.outputs[0].path if self.outputs else None
        return None if main in in_place else self.resumable()

    def _clear(self, outputs: Sequence[Output]) -> list[str]:
        """Delete temporary folders; returns the outputs that are in place."""
        self._clear_folders(self.folders)
        in_place = []
        for output in outputs:
            try:
                if abandon(output):
                    in_place.append(output.path)
            except Exception as error:  # each Beam filesystem has its own errors
                print(_left(output.temporary, error), file=sys.stderr)
        return in_place

    def _decided(self) -> list[str]:
        try:
            return [output.path for output in self.outputs if is_in_place(output)]
        except Exception:  # told as an output that may yet come
            return []

    def _tables(self) -> list[str]:
        try:
            table = self.loaded()
        except RasteretBeamError as error:
            print(f"cannot find out whether rows were loaded: {one_line(error)}", file=sys.stderr)
            return []
        return [table] if table is not None else []

    @staticmethod
    def _clear_folders(folders: Sequence[str]) -> None:
        for folder in folders:
            try:
                delete_folder(folder)
            except Exception as error:
                print(_left(folder, error), file=sys.stderr)


def clear_earlier(outputs: Sequence[Output]) -> None:
    """Complete or remove what killed runs have left beside the outputs, and print a line for each."""
    for output in outputs:
        if end_decided(output):
            print(f"put the files that a killed run had completed for {output.path} in place", file=sys.stderr)
        removed, left = remove_abandoned(output)
        for folder in removed:
            print(f"removed {folder}/, left by a killed run", file=sys.stderr)
        for folder in left:
            print(f"{folder}/ belongs to a run that may still be active; delete it if it is not", file=sys.stderr)


def _left(folder: str, error: Exception) -> str:
    return f"unfinished files remain in {folder}/, which cannot be deleted: {one_line(error)}"


def job_id(result: Any) -> str:
    """The runner's id of a job."""
    found = getattr(result, "job_id", None) or getattr(result, "_job_id", "")
    return str(found() if callable(found) else found)
