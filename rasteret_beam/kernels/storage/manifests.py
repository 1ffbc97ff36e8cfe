"""The manifest of an output: which files of a run replace which, for writers and concurrent readers."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rasteret_beam.errors import OutputError

VERSION = 1

MANIFEST = ".manifest.json"
"""The end of a manifest's name, after ``_`` and the output's name."""


@dataclass(frozen=True)
class Manifest:
    """The commit of a run's files as the output; all names are relative to the manifest's folder.

    Attributes
    ----------
    run : str
        Token of the run.
    started : float
        Start of the run, in seconds since 1970; a later run overrides an earlier one.
    moves : {final name: temporary name}
    old : tuple of str
        Files of earlier runs, to be deleted.
    done : bool
        Whether all files were moved and the old ones deleted.
    """

    run: str
    started: float
    moves: Mapping[str, str] = field(default_factory=dict)
    old: tuple[str, ...] = ()
    done: bool = False

    @property
    def order(self) -> tuple[float, str]:
        """Sort key among the runs of one output."""
        return self.started, self.run

    def to_json(self) -> bytes:
        """The manifest as stored bytes."""
        content = {
            "version": VERSION,
            "run": self.run,
            "started": self.started,
            "done": self.done,
            "moves": dict(self.moves),
            "old": list(self.old),
        }
        return json.dumps(content, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes, path: str) -> "Manifest":
        """Read a stored manifest.

        Raises
        ------
        OutputError
            It is damaged or has a later version; names the file.
        """
        try:
            content = json.loads(data)
            if content["version"] != VERSION:
                raise OutputError(
                    f"{path} has version {content['version']}, but this release reads version {VERSION}; update it"
                )
            return cls(
                str(content["run"]),
                float(content["started"]),
                {str(final): str(temporary) for final, temporary in content["moves"].items()},
                tuple(map(str, content["old"])),
                bool(content["done"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise OutputError(f"{path} cannot be read as the manifest of an output: {error!r}; delete it") from error

    def visible(self, files: Iterable[str]) -> list[str]:
        """The files that a reader of the output should read instead of the present ones: all files of the run.

        Files that were not moved yet are read in their temporary place. Files of other origin stay.
        """
        there = set(files)
        if self.done:
            return sorted(there)
        ours = [temporary if temporary in there else final for final, temporary in self.moves.items()]
        gone = {*self.old, *self.moves, *self.moves.values()}
        return sorted({*(there - gone), *ours})
