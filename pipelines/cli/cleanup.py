"""What a job has under way: clearing it away when the job fails or is interrupted, and saying what became of it."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from apache_beam.runners.runner import PipelineState

from rasteret_beam.errors import RasteretBeamError, listed, one_line
from rasteret_beam.transforms.runtime.files import delete_folder, matching
from rasteret_beam.transforms.sinks.commit import Output, abandon, end_decided, is_in_place
from rasteret_beam.transforms.sinks.owners import owner, remove_abandoned

UNDECIDED = "the job was not finished; what was under way is removed"


@dataclass
class UnderWay:
    """The files of a job that has not ended.

    Attributes
    ----------
    outputs : sequence of Output
    kept : list of str
        Folders that a failed job leaves for its user.
    runner : str
    is_local : bool
        Whether the job lives and dies with this process.
    folders : list of str
        Further temporary folders.
    result : optional
        Beam's result of the job, once it runs.
    loaded : function
        Gives the table that the job has brought rows into; None where it has not.
    has_begun : bool
        The job was given to its runner.
    """

    outputs: Sequence[Output]
    kept: list[str]
    runner: str
    is_local: bool
    folders: list[str] = field(default_factory=list)
    result: Any = None
    loaded: Callable[[], str | None] = lambda: None
    has_begun: bool = False

    @contextmanager
    def owned(self, runs: bool) -> Iterator[None]:
        """Mark the temporary folders as those of a living process, if the job runs in this one."""
        with ExitStack() as stack:
            for output in self.outputs if runs and self.is_local else ():
                stack.enter_context(owner(output))
            yield

    def fail(self, message: str) -> None:
        """Clear away what a failed job has under way, and print its error and what is left."""
        is_over = self.result is None or self._is_over()  # without a result, no runner has taken the job
        in_place = self._clear() if is_over else self._decided()
        if self.has_begun:
            in_place += self._tables()
        print(f"error: {message}", file=sys.stderr)
        if in_place:
            print(f"in place all the same: {listed(in_place)}", file=sys.stderr)
        if not is_over:
            print(self._goes_on(), file=sys.stderr)
        for folder in self.kept:
            if folder not in message and matching(folder + "/", "**"):
                print(f"files of the unfinished job are kept in {folder}/; delete them when done with", file=sys.stderr)

    def interrupt(self) -> str:
        """Clear away what an interrupted job has under way; gives what became of it."""
        if not self._is_over():
            self._clear_folders(self.folders)
            return self._goes_on()
        in_place = self._clear()
        self._clear_folders(self.kept)
        if not in_place:
            return UNDECIDED
        if len(in_place) == len(self.outputs):
            return f"the output was being put in place, and is complete: {listed(in_place)}"
        return f"{UNDECIDED}; in place all the same: {listed(in_place)}"

    def _is_over(self) -> bool:
        """Whether the job cannot go on without this process."""
        if self.is_local:
            return True
        try:
            return self.result is not None and PipelineState.is_terminal(self.result.state)
        except Exception:  # the server that knows the state is away
            return False

    def _goes_on(self) -> str:
        """What to know about a job that may go on elsewhere."""
        job = f"job {job_id(self.result)}" if self.result is not None else "the job"
        folders = listed(output.temporary + "/" for output in self.outputs)
        return (
            f"{job} may go on with {self.runner} and put its output in place; see there, or cancel it there. "
            f"If it does not, delete what it has left in {folders}"
        )

    def _clear(self) -> list[str]:
        """Delete temporary folders; gives the outputs that are in place all the same."""
        self._clear_folders(self.folders)
        in_place = []
        for output in self.outputs:
            try:
                if abandon(output):
                    in_place.append(output.path)
            except Exception as error:  # each of Beam's filesystems has errors of its own
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
            print(f"whether rows were loaded cannot be found out: {one_line(error)}", file=sys.stderr)
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
    """End what killed runs have left beside the outputs, and say so."""
    for output in outputs:
        if end_decided(output):
            print(f"put in place what a killed run has left for {output.path}", file=sys.stderr)
        removed, left = remove_abandoned(output)
        for folder in removed:
            print(f"removed {folder}/, which a killed run has left", file=sys.stderr)
        for folder in left:
            print(f"{folder}/ is left by a run that may be alive; delete it if it is not", file=sys.stderr)


def _left(folder: str, error: Exception) -> str:
    return f"files under way are left in {folder}/, which cannot be deleted: {one_line(error)}"


def job_id(result: Any) -> str:
    """The id of a job, as its runner calls it."""
    found = getattr(result, "job_id", None) or getattr(result, "_job_id", "")
    return str(found() if callable(found) else found)
