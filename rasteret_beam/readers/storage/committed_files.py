"""Outputs as their manifests have decided, where a run was killed while it put its files in place."""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from rasteret_beam.errors import MissingInputError
from rasteret_beam.kernels.storage.manifests import MANIFEST, Manifest
from rasteret_beam.model import Access
from rasteret_beam.readers.storage.found_file import FoundFile
from rasteret_beam.readers.storage.objects import (
    is_denied,
    is_object,
    is_remote_object,
    is_web,
    list_folder,
    read_object,
)

SHARD = re.compile(r"-\d{5,}-of-\d{5,}\.parquet")
"""What the names of an output's files end in."""


def as_decided(found: Sequence[FoundFile], access: Access) -> list[FoundFile]:
    """Found files with those of a decided run in place of those that they replace, moved already or not.

    Only files of folders and globs, and only of such names as the sinks give, can be of an output.
    """
    files = {file.path: file for file in found}
    inside = [file for file in found if file.root is not None and SHARD.search(file.path)]
    for folder, like in {file.path[: file.path.rfind("/") + 1]: file for file in inside}.items():
        if not is_web(folder):
            for manifest in _undone(folder, access):
                files = _with_decided(files, folder, like, manifest, access)
    return sorted(files.values(), key=lambda file: file.path)


def undone_beside(folder: str, access: Access) -> Manifest | None:
    """The manifest of an output that is a folder, if it has decided on files which may not have moved yet.

    None too where nothing beside the folder may be looked at, and on the web, which has no folders.

    Raises
    ------
    MissingInputError
        A server does not answer.
    """
    above, slash, name = folder.rstrip("/").rpartition("/")
    if not name or above.endswith("/") or is_web(folder):  # the root, or a whole bucket
        return None
    path = f"{above}{slash}_{name}{MANIFEST}"
    try:
        if not _exists(path, access):
            return None
        data = read_object(path, access) if is_remote_object(path) else _bytes(path)
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
    """Files by path, those in a folder as a manifest has decided; new ones are found as ``like`` was."""
    there = {path.removeprefix(folder) for path in files if path.startswith(folder)}
    if not there & {*manifest.moves, *manifest.old}:
        return files  # what was asked for is not of this output
    waiting = {fresh for fresh in manifest.moves.values() if _exists(folder + fresh, access)}
    seen = {folder + name for name in manifest.visible(there | waiting)}
    kept = {path: file for path, file in files.items() if not path.startswith(folder) or path in seen}
    return kept | {path: replace(like, path=path, real=path) for path in seen - set(kept)}


def _undone(folder: str, access: Access) -> Iterable[Manifest]:
    """The manifests in a folder that have decided on files which may not have moved yet.

    The folder has ``/`` at its end, and is empty for the working directory.
    """
    if is_remote_object(folder):
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
    return is_object(path, access) if is_remote_object(path) else os.path.exists(path)
