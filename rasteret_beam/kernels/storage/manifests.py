"""The manifest of an output: which files of a run replace which, and what a reader may see meanwhile."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rasteret_beam.errors import OutputError

VERSION = 1

MANIFEST = ".manifest.json"
"""What the name of a manifest ends in; it begins with ``_`` and the output's name."""


@dataclass(frozen=True)
class Manifest:
    """The decision that the files of a run are the output; all names are relative to the manifest's folder.

    Attributes
    ----------
    run : str
        Token of the run.
    started : float
        When the run was set up, in seconds since 1970: of two runs the later one wins.
    moves : {final name: temporary name}
    old : tuple of str
        Files of earlier runs, which go.
    done : bool
        Whether all files have moved and the old ones are gone.
    """

    run: str
    started: float
    moves: Mapping[str, str] = field(default_factory=dict)
    old: tuple[str, ...] = ()
    done: bool = False

    @property
    def order(self) -> tuple[float, str]:
        """Position among the runs of one output."""
        return self.started, self.run

    def to_json(self) -> bytes:
        """The manifest as it is stored."""
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
            It is damaged, or of a later version; names the file.
        """
        try:
            content = json.loads(data)
            if content["version"] != VERSION:
                raise OutputError(
                    f"{path} has version {content['version']}, and this release reads version {VERSION}; update it"
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
        """What a reader of the output sees in place of the files that are there: those of the run, all of them.

        Files that have not moved yet are read where they are. Files that no run of the manifest wrote stay.
        """
        there = set(files)
        if self.done:
            return sorted(there)
        ours = [temporary if temporary in there else final for final, temporary in self.moves.items()]
        gone = {*self.old, *self.moves, *self.moves.values()}
        return sorted({*(there - gone), *ours})
