"""Check that a job does not write over, into or above its inputs."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rasteret_beam.errors import InputError, without_secrets
from rasteret_beam.kernels.storage.globs import glob_regex, is_glob, literal_folder
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.readers.storage.stores import absolute

SHARD = "-00000-of-00001.parquet"
SHARDS = re.compile(r"-\d{5,}-of-\d{5,}\.parquet")


@dataclass(frozen=True)
class Written:
    """An output.

    Attributes
    ----------
    what : str
        Name in errors, such as ``--output``.
    path : str
    kind : "files", "chips", "page" or "collection"
        Parquet files whose names begin with the path; one file; or a folder.
    """

    what: str
    path: str
    kind: Literal["files", "chips", "page", "collection"] = "files"

    @property
    def example(self) -> str:
        """The path of an output file."""
        folders = {"chips": "/0@id@band.tif", "collection": "/year=2000/month=1/part-0.parquet"}
        names = {"files": SHARD, "page": "", **folders}
        return _resolved(self.path) + names[self.kind]

    def replaces(self, file: str) -> bool:
        """Whether the output may replace an input file or contain it in its folder."""
        place = _resolved(self.path)
        if self.kind != "files":
            return file == place or file.startswith(place + "/")
        return file in (place, place + ".parquet") or SHARDS.fullmatch(file.removeprefix(place)) is not None


@dataclass(frozen=True)
class Read:
    """An input: files, folders and globs."""

    what: str
    paths: Sequence[str | os.PathLike[str]]


def check_apart(outputs: Iterable[Written], inputs: Sequence[Read]) -> None:
    """Refuse outputs that would mix with inputs of the same job, now or when it runs again.

    Links in local paths are followed before the comparison.

    Raises
    ------
    InputError
        Names the output and the input.
    """
    for output in outputs:
        for each in inputs:
            for path in each.paths:
                how = _meets(output, absolute(path))
                if how is not None:
                    ours, theirs = without_secrets(output.path), without_secrets(os.fspath(path))
                    raise InputError(
                        f"{output.what} {ours} {how} {each.what} {theirs}, which the job reads; give a path outside"
                    )


def _meets(output: Written, path: str) -> str | None:
    """How an output conflicts with an input, if it does."""
    if is_glob(path) and (Location.of(path).is_remote or not os.path.exists(path)):
        folder = literal_folder(path)
        found = _resolved(folder.rstrip("/")) + "/"
        if glob_regex(found + path.removeprefix(folder)).fullmatch(output.example):
            return "would be found again by"
        return "is above" if output.kind != "files" and output.replaces(found) else None
    place = _resolved(path)
    if output.example.startswith(place + "/"):
        return "lies in"
    return "would replace" if output.replaces(place) else None


def _resolved(path: str) -> str:
    place = absolute(path)
    return place.rstrip("/") if Location.of(place).is_remote else os.path.realpath(place)
