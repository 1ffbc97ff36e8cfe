"""Find the files of an output by its manifest, if a run was killed while it moved files into place."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from rasteret_beam.errors import MissingInputError
from rasteret_beam.kernels.storage.manifests import MANIFEST, Manifest
from rasteret_beam.model import Access
from rasteret_beam.readers.storage.found_file import FoundFile
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.readers.storage.objects import is_denied, is_object, list_folder, read_object

SHARD = re.compile(r"-\d{5,}-of-\d{5,}\.parquet")
"""The end of the names of an output's files."""


def as_decided(found: Sequence[FoundFile], access: Access) -> list[FoundFile]:
    """Found files, with the files of a committed run instead of those that they replace, moved or not.

    Only files in folders and globs with names that sinks write can belong to an output.
    """
    files = {file.path: file for file in found}
    inside = [file for file in found if file.root is not None and SHARD.search(file.path)]
    for folder, like in {file.path[: file.path.rfind("/") + 1]: file for file in inside}.items():
        if not Location.of(folder).is_web:
            for manifest in _undone(folder, access):
                files = _with_decided(files, folder, like, manifest, access)
    return sorted(files.values(), key=lambda file: file.path)


def undone_beside(folder: str, access: Access) -> Manifest | None:
    """The manifest of an output folder with committed files that may not have been moved yet.

    None too if the parent folder may not be read, and on the web, which has no folders.

    Raises
    ------
    MissingInputError
        A server does not answer.
    """
    above, slash, name = folder.rstrip("/").rpartition("/")
    if not name or above.endswith("/") or Location.of(folder).is_web:  # the root, or a whole bucket
        return None
    path = f"{above}{slash}_{name}{MANIFEST}"
    try:
        if not _exists(path, access):
            return None
        data = read_object(path, access) if Location.of(path).is_object else _bytes(path)
    except PermissionError:
        return None
    except MissingInputError as error:
        if is_denied(error):
            return None
        raise
    manifest = Manifest.from_json(data, path)
    return None if manifest.done else manifest


def _with_decided(
    files: dict[str, FoundFile], folder: str, like: FoundFile, manifest: Manifest, access: Access
) -> dict[str, FoundFile]:
    """Files by path, with those in a folder according to its manifest; new ones have the root of ``like``."""
    there = {path.removeprefix(folder) for path in files if path.startswith(folder)}
    if not there & {*manifest.moves, *manifest.old}:
        return files  # the given path is not part of this output
    waiting = {fresh for fresh in manifest.moves.values() if _exists(folder + fresh, access)}
    seen = {folder + name for name in manifest.visible(there | waiting)}
    kept = {path: file for path, file in files.items() if not path.startswith(folder) or path in seen}
    return kept | {path: replace(like, path=path, real=path) for path in seen - set(kept)}


def _undone(folder: str, access: Access) -> Iterable[Manifest]:
    """The manifests in a folder with committed files that may not have been moved yet.

    The folder ends in ``/``, or is empty for the working directory.
    """
    if Location.of(folder).is_object:
        listed = list_folder(folder, access, f"{folder}_", False)
        paths = [each.url for each in listed if each.url.endswith(MANIFEST)]
        texts = [(read_object(path, access), path) for path in paths]
    else:
        names = [name for name in os.listdir(folder or ".") if name.startswith("_") and name.endswith(MANIFEST)]
        texts = [(_bytes(folder + name), folder + name) for name in names]
    return [manifest for data, path in texts if not (manifest := Manifest.from_json(data, path)).done]


def _bytes(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _exists(path: str, access: Access) -> bool:
    return is_object(path, access) if Location.of(path).is_object else os.path.exists(path)
