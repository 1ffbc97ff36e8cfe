"""Records of the finished rounds of a run, so that a killed run can be resumed.

They are small JSON files in the temporary folder of the run's main output: ``_rounds/run.json`` describes the run, and
``_rounds/00003.json`` lists the files and counters of a finished round. The latter is written after the round's files
are complete, so a round without it is run again.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from rasteret_beam.errors import OutputError
from rasteret_beam.transforms.runtime.files import delete_files, matching
from rasteret_beam.transforms.sinks.commit import write_whole

VERSION = 1
FOLDER = "_rounds"
RUN = "run.json"
FILES = "*.*"
"""The files that sinks write to a temporary folder, which have an extension."""

ROUND = re.compile(r"(\d{5,})\.json")


@dataclass(frozen=True)
class FinishedRound:
    """A finished round of a run.

    Attributes
    ----------
    number : int
        From 0.
    first, stop : int
        Its range of row numbers.
    files : {step: files}
        Files that each sink has written, relative to the temporary folder of the sink.
    counts : {counter: value}
    """

    number: int
    first: int
    stop: int
    files: Mapping[str, Sequence[str]] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class RoundRecords:
    """The records in a temporary folder."""

    temporary: str

    @property
    def folder(self) -> str:
        return f"{self.temporary}/{FOLDER}"

    def begin(self, run: Mapping[str, Any]) -> None:
        """Write the description of a run."""
        self._write(RUN, {"version": VERSION, **run})

    def run(self) -> dict[str, Any] | None:
        """The description of the run; None if the folder has none.

        Raises
        ------
        OutputError
            It is damaged or of another version.
        """
        path = f"{self.folder}/{RUN}"
        if not FileSystems.exists(path):
            return None
        found = _read(path)
        if found.get("version") != VERSION:
            raise OutputError(
                f"{path} has version {found.get('version')}, but this release reads version {VERSION}; resume the run "
                "with the release that began it, or start it anew without --resume"
            )
        return found

    def finish(self, done: FinishedRound) -> None:
        """Record a finished round."""
        files = {step: list(names) for step, names in done.files.items()}
        content = {"first": done.first, "stop": done.stop, "files": files, "counts": dict(done.counts)}
        self._write(f"{done.number:05d}.json", content)

    def finished(self) -> list[FinishedRound]:
        """The finished rounds, in order.

        Raises
        ------
        OutputError
            A record is damaged.
        """
        found = []
        for path in matching(f"{self.folder}/", "*.json"):
            named = ROUND.fullmatch(path.rsplit("/", 1)[-1])
            if named is not None:
                found.append(FinishedRound(int(named[1]), **_read(path)))
        return sorted(found, key=lambda each: each.number)

    def _write(self, name: str, content: Mapping[str, Any]) -> None:
        write_whole(f"{self.folder}/{name}", json.dumps(content, indent=1).encode())

    def listing(self, step: str) -> str:
        """The file in which a round lists the files of a sink before it is recorded."""
        return f"{self.folder}/{step}.files"


def _read(path: str) -> dict[str, Any]:
    try:
        with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            found: dict[str, Any] = json.loads(file.read())
    except ValueError as error:
        raise OutputError(f"{path} is damaged: {error}; start the run anew without --resume") from error
    return found


@dataclass(eq=False)
class ListFiles(beam.PTransform):
    """Write the names of the files of a round, one list, to a file; it is read after the pipeline has ended."""

    path: str

    def expand(self, files: beam.PCollection[list[str]]) -> beam.PCollection[str]:
        return files | beam.Map(_list_files, self.path).with_output_types(str)


def _list_files(files: list[str], path: str) -> str:
    write_whole(path, json.dumps(sorted(files)).encode())
    return path


def listed_files(path: str) -> list[str]:
    """The names that :class:`ListFiles` has written."""
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return [str(name) for name in json.loads(file.read())]


def delete_unfinished(temporary: str, files: Sequence[str]) -> None:
    """Delete the files of rows in a temporary folder that are not among the given ones, which belong to no round."""
    known = set(files)
    delete_files([path for path in matching(f"{temporary}/", FILES) if path not in known])
