"""Find the files of paths, folders and globs, with the same rules on a local disk and in buckets."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from os.path import realpath
from typing import Protocol

from rasteret_beam.errors import InputError, MissingInputError, PermissionDeniedError, without_secrets
from rasteret_beam.kernels.storage.globs import (
    Selection,
    as_folder,
    in_folder,
    in_matched,
    is_glob,
    literal_folder,
    matched,
)
from rasteret_beam.model import DEFAULT_ACCESS, Access
from rasteret_beam.readers.storage.committed_files import as_decided
from rasteret_beam.readers.storage.found_file import FoundFile
from rasteret_beam.readers.storage.local_files import Kind, Walk, exists, kind_of
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.readers.storage.objects import check_listable, is_object, list_folder, object_size
from rasteret_beam.readers.storage.stores import as_place

CSV_ENDINGS = (".csv", ".csv.gz", ".csv.bz2", ".tsv", ".tsv.gz", ".tsv.bz2")
PARQUET_ENDINGS = (".parquet", ".geoparquet", ".pq")
RASTER_ENDINGS = (".tif", ".tiff")

LOST_SLASH = re.compile(r"[a-z][a-z0-9+.-]+:/[^/]")

QUERY = re.compile(r"\?[A-Za-z][\w.-]*=")
"""The beginning of a URL's query, such as ``?versionId=1``, as opposed to a glob."""

Paths = str | PathLike[str] | Sequence[str | PathLike[str]]


class Lister(Protocol):
    """Lists the files of one kind of storage."""

    def kind(self, place: str) -> Kind | None:
        """The kind of a literal path."""
        ...

    def files(self, selection: Selection) -> Iterable[tuple[str, str, bool]]:
        """The files of a selection as (path, real path, whether a part of the path is a link)."""
        ...


class LocalLister:
    """Files on the local disk."""

    def kind(self, place: str) -> Kind | None:
        return kind_of(place)

    def files(self, selection: Selection) -> Iterable[tuple[str, str, bool]]:
        return Walk(selection)


@dataclass
class ObjectLister:
    """Objects in buckets; listings are cached."""

    access: Access = DEFAULT_ACCESS
    _listed: dict[tuple[str, str, bool], list[str]] = field(default_factory=dict)

    def kind(self, place: str) -> Kind | None:
        if is_glob(place):
            names = self._names(matched(place))
            inside = as_folder(place)
            return "file" if place in names else "folder" if any(name.startswith(inside) for name in names) else None
        if self._names(in_folder(place)):
            return "folder"
        return "file" if is_object(place, self.access) else None

    def files(self, selection: Selection) -> Iterable[tuple[str, str, bool]]:
        return [(name, name, False) for name in self._names(selection) if selection.files.fullmatch(name)]

    def _names(self, selection: Selection) -> list[str]:
        """URLs of objects that begin with the prefix of a selection."""
        root, start, deep = selection.root, selection.start, selection.is_deep
        if root.endswith("://"):
            raise InputError(f"{start}... has a wildcard in the name of its bucket; name the bucket in full")
        if (root, start, deep) not in self._listed:
            found = list_folder(root.rstrip("/"), self.access, start, deep)
            self._listed[root, start, deep] = [each.url for each in found]
        return self._listed[root, start, deep]


def files_at(place: str, lister: Lister, endings: tuple[str, ...], what: str) -> list[FoundFile]:
    """The files of a path: the file itself, those in a folder, or those that match a glob.

    An existing path is used literally, even if it contains wildcards. A glob that matches only folders selects the
    files in them. In folders, files with these endings are selected and hidden names are skipped; see
    :mod:`rasteret_beam.kernels.storage.globs`.

    Raises
    ------
    MissingInputError
        There are no files; ``what`` names them in the error.
    """
    kind = lister.kind(place)
    if kind == "file":
        return [FoundFile(place, realpath(place) if isinstance(lister, LocalLister) else place)]
    if kind == "folder":
        return _in_folders(place, lister, in_folder(place), endings, what)
    if is_glob(place):
        matches = [] if place.endswith("/") else list(lister.files(matched(place)))
        if matches:
            return [FoundFile(path, real, literal_folder(place), linked) for path, real, linked in matches]
        return _in_folders(place, lister, in_matched(place), endings, what)
    hint = "; pathlib.Path drops a slash of a URL: give it as text" if LOST_SLASH.match(place) else ""
    raise MissingInputError(f"there is no file, folder or match of {without_secrets(place)}{hint}")


def _in_folders(
    place: str, lister: Lister, selection: Selection, endings: tuple[str, ...], what: str
) -> list[FoundFile]:
    found = list(lister.files(selection))
    chosen = [
        FoundFile(path, real, selection.root, linked) for path, real, linked in found if path.lower().endswith(endings)
    ]
    if not found and is_glob(place) and not selection.is_whole:
        raise MissingInputError(
            f"there is no file, folder or match of {without_secrets(place)}; wildcards do not match names "
            "that begin with . or _"
        )
    if not chosen:
        raise MissingInputError(
            f"there is no {what} in {without_secrets(place)}; names that begin with . or _ are skipped"
        )
    return chosen


def find(
    places: Paths,
    endings: tuple[str, ...],
    what: str,
    access: Access = DEFAULT_ACCESS,
    others: Lister | None = None,
) -> list[FoundFile]:
    """The files of a path, a folder or a glob, or of a list of them; each file once, in name order.

    Parameters
    ----------
    endings : tuple of str
        Lower-case endings of the files to select in folders.
    what : str
        Name of the files in errors.
    access : Access
        How buckets are read.
    others : Lister, optional
        Lister for URLs that are neither in a bucket nor on the web.

    Raises
    ------
    MissingInputError, PermissionDeniedError, InputError
        A path does not exist, may not be read, or is not a regular file.
    """
    found: list[FoundFile] = []
    objects = ObjectLister(access)
    for given in [places] if isinstance(places, str | PathLike) else places:
        place = as_place(given)
        if not place.strip():
            raise InputError(f"a path of {what} is empty; give a file, a folder or a glob")
        if Location.of(place).is_object:
            check_listable(place)
            found += [FoundFile(place, place)] if Location.of(place).is_web else files_at(place, objects, endings, what)
        elif Location.of(place).is_remote and others is not None:
            found += files_at(place, others, endings, what)
        else:
            found += files_at(place, LocalLister(), endings, what)
    return as_decided(once(found), access)


def once(found: Iterable[FoundFile]) -> list[FoundFile]:
    """Each file once, in name order: by its path without links if there is one, otherwise by its first path."""
    ordered = sorted(found, key=lambda file: (file.is_linked, file.path))
    return sorted({file.real: file for file in reversed(ordered)}.values(), key=lambda file: file.path)


def find_rasters(places: Paths, access: Access = DEFAULT_ACCESS) -> list[str]:
    """Raster files of paths, URLs, globs and folders (all ``*.tif`` and ``*.tiff``); each once, in name order.

    A name with one of these endings in a bucket is a file without a request; any other name is a folder.

    Raises
    ------
    MissingInputError
        A path or a glob matches nothing.
    """
    given = [places] if isinstance(places, str | PathLike) else places
    return [file.path for file in once(file for place in given for file in rasters_at(place, access))]


def split_lists(texts: Iterable[str], access: Access = DEFAULT_ACCESS) -> list[str]:
    """The paths of rasters in texts that may be comma-separated lists.

    A text that exists as a whole (a file, folder or glob whose name has commas) is one path.
    """
    found: list[str] = []
    for text in texts:
        parts = [part.strip() for part in text.split(",") if part.strip()]
        found += [text] if len(parts) < 2 or _is_one_path(text, parts, access) else parts
    return found


def _is_one_path(text: str, parts: Sequence[str], access: Access) -> bool:
    place = as_place(text)
    where = Location.of(place)
    if _is_gdals(place) or (where.is_remote and (not where.is_object or _has_starts(parts[1:]))):
        return False
    try:
        return object_size(place, access) >= 0 if where.is_web else bool(find(place, RASTER_ENDINGS, "", access))
    except PermissionDeniedError:
        raise
    except OSError:
        return False


def _has_starts(parts: Sequence[str]) -> bool:
    """Whether a part of a URL after a comma begins like a path, so that the URL ends before it."""
    return any("://" in part or part.startswith(("/", "~")) for part in parts)


def expand_rasters(
    hrefs: Iterable[str | PathLike[str]] | str | PathLike[str], access: Access = DEFAULT_ACCESS
) -> list[str]:
    """Hrefs in their order, with folders and globs replaced by their raster files in name order.

    A single file (in a bucket: a name with an extension) is kept, even if it is missing or repeated. Files of folders
    and globs are added once.

    Raises
    ------
    MissingInputError
        A folder or a glob has no rasters.
    """
    kept: list[str] = []
    for given in [hrefs] if isinstance(hrefs, str | PathLike) else hrefs:
        place = as_place(given)
        if _is_one_file(place):
            kept.append(place)
        else:
            known = set(kept)
            kept += [file.path for file in once(rasters_at(place, access)) if file.path not in known]
    return kept


def _is_one_file(place: str) -> bool:
    where = Location.of(place)
    if _is_gdals(place) or (where.is_remote and (not where.is_in_bucket or QUERY.search(place))):
        return True
    if where.is_remote:
        return not is_glob(place) and "." in place.rpartition("/")[2]
    try:
        kind = kind_of(place)
    except (PermissionDeniedError, InputError):  # reading the file reports it
        return True
    return kind == "file" or (kind is None and not is_glob(place))


def _is_gdals(place: str) -> bool:
    """Whether a name is for GDAL only and not also a local path."""
    return place.startswith("/vsi") or (Location.of(place).is_subdataset and not exists(place))


def rasters_at(given: str | PathLike[str], access: Access = DEFAULT_ACCESS) -> list[FoundFile]:
    """The raster files of one path; as :func:`find_rasters`."""
    place = as_place(given)
    if _is_gdals(place) or (Location.of(place).is_remote and (not Location.of(place).is_object or QUERY.search(place))):
        return [FoundFile(place, place)]
    if not Location.of(place).is_remote and place.strip() and _is_one_file(place) and exists(place):
        return [FoundFile(place, realpath(place))]
    if Location.of(place).is_object and place.lower().endswith(RASTER_ENDINGS) and not is_glob(place):
        return [FoundFile(place, place)]
    return find(place, RASTER_ENDINGS, "*.tif file", access)
