"""Commit outputs atomically: all files of a run, or none.

A run writes its files to a temporary folder beside the output, ``_NAME.temporary-RUN``. Then it writes one small file,
``_NAME.manifest.json``, which names its files and the earlier files that they replace. That write is the commit: a
failure before it leaves the earlier output unchanged. After it, the run moves its files, deletes the earlier ones and
removes the folder; if it is killed, the next run with the same output does so. Until then, readers of this package
follow the manifest.
"""

import fcntl
import os
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from time import time
from typing import Any, NamedTuple
from uuid import uuid4

import apache_beam as beam
from apache_beam.io.filesystem import BeamIOError, CompressionTypes
from apache_beam.io.filesystems import FileSystems

from rasteret_beam.errors import OutputError
from rasteret_beam.kernels.storage.manifests import MANIFEST, Manifest
from rasteret_beam.readers.storage.local_files import writing
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.transforms.runtime.files import delete_files, delete_folder, matching
from rasteret_beam.transforms.runtime.one_list import InOneList

MOST_MOVES = 100
"""Objects of a bucket per rename request of Beam."""

_deciding = threading.RLock()
"""Lock that is held while an output is put in place, for :func:`uninterrupted`."""


@dataclass(frozen=True)
class Output:
    """An output of a run: the files with a common path prefix, or a folder of files.

    Attributes
    ----------
    path : str
        Absolute path or URL, without a slash at its end.
    run : str
        Id of the run, part of the name of its temporary folder.
    started : float
        Seconds since 1970.
    """

    path: str
    run: str = field(default_factory=lambda: uuid4().hex[:12])
    started: float = field(default_factory=time)

    @property
    def folder(self) -> str:
        """The folder of the output, the manifest and the temporary folder; ends with a slash."""
        return self.path[: self.path.rfind("/") + 1]

    def _beside(self, suffix: str) -> str:
        return f"{self.folder}_{self.path.removeprefix(self.folder)}{suffix}"

    @property
    def temporary(self) -> str:
        """The temporary folder, which is removed after a success."""
        return self._beside(f".temporary-{self.run}")

    @property
    def manifest(self) -> str:
        """The file that defines which files are the output."""
        return self._beside(MANIFEST)

    def others(self) -> list[str]:
        """Temporary folders of other runs with this output."""
        return [replace(self, run=run).temporary for run in self.other_runs()]

    def other_runs(self) -> list[str]:
        """Ids of other runs that have a temporary folder for this output."""
        start = self._beside(".temporary-")
        inside = {path.removeprefix(start).partition("/")[0] for path in matching(start, "*/**")}
        return sorted(inside - {self.run})


class Staged(NamedTuple):
    """Staged files of a run that are to become its output.

    Attributes
    ----------
    output : Output
    moves : {final path: temporary path}
        Both below ``output.folder``.
    earlier : function of ``output.path``
        Lists the files of earlier runs that the new ones replace.
    """

    output: Output
    moves: Mapping[str, str]
    earlier: Callable[[str], Sequence[str]]

    def to_bytes(self) -> bytes:
        """Encoded for a shuffle; Beam's coder of bytes works on every runner."""
        return pickle.dumps(self)

    @classmethod
    def from_bytes(cls, data: bytes) -> "Staged":
        """Decode the result of :meth:`to_bytes`."""
        staged: Staged = pickle.loads(data)
        return staged


@dataclass(eq=False)
class PutInPlace(beam.PTransform):
    """Put the staged files of all sinks in place after all are complete; returns their names.

    The input is a :class:`Staged` of each sink, as bytes.

    Parameters
    ----------
    after : PCollection, optional
        Has to be complete before.
    """

    after: beam.PCollection | None = None

    def expand(self, staged: beam.PCollection[bytes]) -> beam.PCollection[str]:
        waiting = [beam.pvalue.AsIter(self.after)] if self.after is not None else []
        return staged | "Collect" >> InOneList() | "Commit" >> beam.FlatMap(_committed, *waiting).with_output_types(str)


def _committed(staged_bytes: list[bytes], after: Any = None) -> Iterator[str]:
    staged = [Staged.from_bytes(each) for each in staged_bytes]
    commit(staged)
    for each in staged:
        yield from each.moves


def commit(staged: Sequence[Staged]) -> None:
    """Put the files of a run in place of those of earlier runs.

    After an interruption it may be called again, by this run or by another.

    Raises
    ------
    OutputError
        A later run has already put its output in place, or a file is missing.
    """
    with _deciding, _exclusive(each.output.folder for each in staged):
        todo = [each for each in staged if not _is_decided(each.output)]
        for each in todo:
            gone = [path for path in each.moves.values() if not FileSystems.exists(path)]
            if gone:
                raise OutputError(_gone(each.output.path, gone[0]))
        for each in todo:
            _write(each.output, _decision(each))
        for each in staged:
            finish(each.output)
            delete_folder(each.output.temporary)


def _is_decided(output: Output) -> bool:
    """Whether a run has committed its files; first completes the commit of an earlier run."""
    earlier = finish(output)
    if earlier is None or earlier.run == output.run:
        return earlier is not None
    if earlier.order > (output.started, output.run):
        raise OutputError(_lost(output, earlier))
    return False


def _decision(staged: Staged) -> Manifest:
    output, start = staged.output, len(staged.output.folder)
    moves = {final[start:]: temporary[start:] for final, temporary in staged.moves.items()}
    old = tuple(path[start:] for path in staged.earlier(output.path))
    return Manifest(output.run, output.started, moves, old)


def _lost(output: Output, earlier: Manifest) -> str:
    moment = datetime.fromtimestamp(earlier.started, UTC)
    return (
        f"another run, {earlier.run}, which began later ({moment:%Y-%m-%d %H:%M:%S} UTC), has put its output in place "
        f"at {output.path}; this run, {output.run}, does not replace it: give each run a separate output path"
    )


def finish(output: Output) -> Manifest | None:
    """Complete the commit of a manifest if necessary; returns the manifest, or None."""
    manifest = read_manifest(output)
    if manifest is None or manifest.done:
        return manifest
    move_files({output.folder + final: output.folder + fresh for final, fresh in manifest.moves.items()})
    old = [output.folder + name for name in manifest.old if name not in manifest.moves]
    delete_files([path for path in old if FileSystems.exists(path)])
    done = replace(manifest, done=True)
    _write(output, done)
    delete_folder(replace(output, run=manifest.run).temporary)
    return done


def end_decided(output: Output) -> bool:
    """Complete the commit of a killed run; returns whether there was anything to do."""
    before = read_manifest(output)
    if before is None or before.done:
        return False
    with _deciding, _exclusive([output.folder]):
        finish(output)
    return True


def abandon(output: Output) -> bool:
    """Remove the temporary files of a run, or put its output in place if it is committed.

    Returns
    -------
    bool
        Whether the output of this run is in place.
    """
    with _deciding, _exclusive([output.folder]):
        manifest = finish(output)
        delete_folder(output.temporary)
    return manifest is not None and manifest.run == output.run


def is_in_place(output: Output) -> bool:
    """Whether the output of this run is committed."""
    manifest = read_manifest(output)
    return manifest is not None and manifest.run == output.run


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Wait until this process is not putting an output in place, and block further ones."""
    with _deciding:
        yield


def read_manifest(output: Output) -> Manifest | None:
    """The manifest of an output, or None."""
    path = output.manifest
    if not FileSystems.exists(path):
        return None
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return Manifest.from_json(file.read(), path)


def _write(output: Output, manifest: Manifest) -> None:
    write_whole(output.manifest, manifest.to_json(), f"-{output.run}")


def write_whole(path: str, data: bytes, suffix: str = ".fresh") -> None:
    """Replace a small file atomically: as an object of a bucket, or by renaming a local file."""
    if Location.of(path).is_remote:
        with FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
            file.write(data)
        return
    fresh = path + suffix
    with writing(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(fresh, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)


def move_files(moves: Mapping[str, str]) -> None:
    """Move files, given as {final path: temporary path}; files that were already moved stay.

    Raises
    ------
    OutputError
        A file is in neither place.
    """
    remote = {final: fresh for final, fresh in moves.items() if Location.of(final).is_remote}
    for final, fresh in moves.items():
        if final not in remote:
            _move_local(final, fresh)
    todo = [(fresh, final) for final, fresh in remote.items() if _is_to_move(final, fresh)]
    for at in range(0, len(todo), MOST_MOVES):
        _move_objects(todo[at : at + MOST_MOVES])


def _move_objects(moves: Sequence[tuple[str, str]]) -> None:
    sources, finals = zip(*moves, strict=True)
    try:
        FileSystems.rename(list(sources), list(finals))
    except BeamIOError:
        # Another run may have just moved them to complete an interrupted commit.
        if any(_is_to_move(final, fresh) for fresh, final in moves):
            raise


def _is_to_move(final: str, fresh: str) -> bool:
    if FileSystems.exists(fresh):
        return True
    if not FileSystems.exists(final):
        raise OutputError(_gone(final, fresh))
    return False


def _move_local(final: str, fresh: str) -> None:
    with writing(final):
        os.makedirs(os.path.dirname(final), exist_ok=True)
        try:
            os.replace(fresh, final)
        except FileNotFoundError:
            if not os.path.exists(final):
                raise OutputError(_gone(final, fresh)) from None


def _gone(final: str, fresh: str) -> str:
    return f"{final} cannot be put in place: its temporary file {fresh} is gone"


@contextmanager
def _exclusive(folders: Iterable[str]) -> Iterator[None]:
    """Lock local folders, so that one process at a time puts outputs in place."""
    with ExitStack() as held:
        local = {folder for folder in folders if not Location.of(folder).is_remote}
        for folder in sorted(local):  # always in the same order
            os.makedirs(folder, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY)
            held.callback(os.close, descriptor)
            with suppress(OSError):  # some network filesystems have no locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
