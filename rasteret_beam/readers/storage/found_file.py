"""Files that a path, a folder or a glob has led to."""

from dataclasses import dataclass

from rasteret_beam.kernels.tables.partitions import partition_keys


@dataclass(frozen=True)
class FoundFile:
    """A file, and how it was found.

    Attributes
    ----------
    path : str
    real : str
        The file that the path leads to through links.
    root : str
        The folder that was given, or that stands before the first wildcard of a glob, with ``/`` at its end; None if
        the file itself was given.
    is_linked : bool
        A part of the path below the root is a link.
    """

    path: str
    real: str
    root: str | None = None
    is_linked: bool = False

    @property
    def keys(self) -> dict[str, str | None]:
        """Values of hive partitions below the root."""
        return partition_keys(self.path, self.root)
