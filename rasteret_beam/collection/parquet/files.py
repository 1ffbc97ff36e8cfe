"""Find the Parquet files of a collection, on disk or in a bucket, and open them as a dataset."""

import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs

from rasteret_beam.collection.eager.unknown_keywords import like_path
from rasteret_beam.collection.parquet.arrow_filesystem import on_remote, url_of
from rasteret_beam.errors import (
    CollectionError,
    MissingInputError,
    PermissionDeniedError,
    RasteretBeamError,
    listed,
    one_line,
    without_secrets,
)
from rasteret_beam.kernels.storage.globs import in_folder, is_glob
from rasteret_beam.kernels.storage.manifests import Manifest
from rasteret_beam.model import DEFAULT_ACCESS, Access
from rasteret_beam.readers.storage.committed_files import undone_beside
from rasteret_beam.readers.storage.listing import PARQUET_ENDINGS, find
from rasteret_beam.readers.storage.local_files import Walk, denied, exists, in_memory, kind_of
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.readers.storage.stores import absolute

log = logging.getLogger(__name__)

PARTITIONS = ("year", "month")

OF_A_FOLDER = re.compile(r"(year=[^/]+/(month=[^/]+/)?)?[^/]+")
"""Folders of a collection's files below its folder."""

OF_PARTITIONS = re.compile(r"(/[^/=]+=[^/]*)*$")
"""The end of a path of a partition's folder, which is not the folder of the collection."""

IN_EACH_FILE = ("id", "assets")
"""Required columns of each file."""

UNDER_WAY = ".new-"
"""Part of the names of folders that a collection is being written to."""


def open_dataset(path: str | os.PathLike[str], access: Access = DEFAULT_ACCESS) -> ds.Dataset:
    """A Parquet file, a folder of Parquet files with hive partitions, or a glob as a dataset.

    Raises
    ------
    MissingInputError
        The path does not exist, or the folder has no Parquet files.
    CollectionError
        The path is not Parquet.
    """
    path = absolute(path)
    if not (Location.of(path).is_remote or exists(path) or is_glob(path) or undone_beside(path, access)):
        raise MissingInputError(f"there is no file or folder {path}{like_path(path)}")
    shown = without_secrets(path)
    try:
        dataset = _open(path, access)
    except RasteretBeamError:
        raise
    except PermissionError as error:
        raise _denied(error, path) from error
    except FileNotFoundError as error:
        raise MissingInputError(f"there is no file or folder {shown}: {one_line(error)}") from error
    except (pa.ArrowInvalid, OSError) as error:
        raise CollectionError(f"{shown} cannot be read as Parquet: {one_line(error)}") from error
    if not dataset.files:
        raise MissingInputError(f"folder {shown} has no Parquet files")
    return dataset


def read_record_table(path: str | os.PathLike[str], access: Access = DEFAULT_ACCESS) -> pa.Table:
    """All rows of a record table: a Parquet file, a folder or a glob; errors as :func:`open_dataset`."""
    dataset = open_dataset(path, access)
    shown = without_secrets(os.fspath(path))
    try:
        with in_memory(f"the record table {shown}"):
            return dataset.to_table()
    except PermissionError as error:
        raise _denied(error, shown) from error
    except (OSError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise CollectionError(f"{shown} cannot be read as Parquet: {one_line(error)}") from error


def _denied(error: PermissionError, path: str) -> PermissionDeniedError:
    """Our error for Arrow's error about a file without read permission; only Arrow's text has the path."""
    named = re.search(r"'([^']+)'", str(error))
    return denied(named[1] if named and os.path.isabs(named[1]) else path)


@contextmanager
def readable(path: str) -> Iterator[None]:
    """Turn Arrow's errors about damaged Parquet into errors that name the collection.

    Raises
    ------
    CollectionError
    """
    try:
        with in_memory(f"the columns that are read of the collection in {path}"):
            yield
    except RasteretBeamError:
        raise
    except PermissionError as error:
        raise _denied(error, path) from error
    except (OSError, pa.ArrowException) as error:
        raise CollectionError(f"the collection in {without_secrets(path)} cannot be read: {one_line(error)}") from error


def _open(path: str, access: Access) -> ds.Dataset:
    filesystem: pafs.FileSystem
    filesystem, place = on_remote(path, access) if Location.of(path).is_remote else (pafs.LocalFileSystem(), path)
    if is_glob(path) and not (Location.of(path).is_web or exists(path)):
        found = find(path, PARQUET_ENDINGS, "Parquet file", access)
        _check_done(found[0].root or path, access)
        start = len(path) - len(place)  # Arrow's paths in buckets have no scheme
        return _dataset(sorted(file.path[start:] for file in found), filesystem, (found[0].root or "")[start:])
    if not Location.of(path).is_remote:
        kind_of(path)
    info = filesystem.get_file_info(place)
    if info.type != pafs.FileType.File:
        decided = undone_beside(path, access)
        if decided is not None:
            return _as_decided(decided, filesystem, place.rstrip("/"))
        if "=" in os.path.basename(path.rstrip("/")):
            _check_done(path, access)
    if info.type == pafs.FileType.NotFound:
        raise MissingInputError(f"there is no file or folder {without_secrets(path)}{_hint(path)}")
    if info.type == pafs.FileType.Directory:
        return _dataset(_files_in(filesystem, place), filesystem, place)
    return _dataset([place], filesystem, os.path.dirname(place))


def _check_done(part: str, access: Access) -> None:
    """Refuse to read a part of a collection, or a glob, if a build was killed while it moved files into place."""
    folder = OF_PARTITIONS.sub("", part.rstrip("/"))
    if undone_beside(folder, access) is not None:
        raise CollectionError(f"{two_builds(part, folder)}. Load the whole folder, or build the collection again first")


def two_builds(place: str, collection: str) -> str:
    """The error text for a collection whose build was killed while it moved files into place."""
    return (
        f"{without_secrets(place)} holds files of two builds: one of the collection {without_secrets(collection)} was "
        "killed while its files were put in place"
    )


def _as_decided(manifest: Manifest, filesystem: pafs.FileSystem, folder: str) -> ds.Dataset:
    """The complete new version of a collection whose build was killed while it moved files into place.

    Files that were not moved yet are in folders of their partitions too.
    """
    start = folder.rfind("/") + 1
    is_there = filesystem.get_file_info(folder).type == pafs.FileType.Directory
    parts = [path for path in _names_in(filesystem, folder) if is_part(path[len(folder) :])] if is_there else []
    waiting = [
        info.path
        for info in filesystem.get_file_info([folder[:start] + name for name in manifest.moves.values()])
        if info.is_file
    ]
    seen = manifest.visible(path[start:] for path in [*parts, *waiting])
    return _dataset([folder[:start] + name for name in seen], filesystem, folder[:start])


def _dataset(files: list[str], filesystem: pafs.FileSystem, base: str) -> ds.Dataset:
    """Files below folder ``base`` as a dataset; folders below it give the partitions."""

    def opened(partitioning: ds.Partitioning) -> ds.Dataset:
        return ds.dataset(
            files, filesystem=filesystem, format="parquet", partitioning=partitioning, partition_base_dir=base
        )

    try:
        return opened(ds.partitioning(flavor="hive"))
    except pa.ArrowInvalid as error:
        if "couldn't infer type" not in str(error):
            raise
        # All partitions are null, as no record has a datetime.
        typed = ds.partitioning(pa.schema([(name, pa.int32()) for name in PARTITIONS]), flavor="hive")
        return opened(typed)


def _files_in(filesystem: pafs.FileSystem, folder: str) -> list[str]:
    """The Parquet files of a folder at any depth, in name order; see :func:`is_part`.

    Raises
    ------
    MissingInputError
        There are none.
    """
    inner = {path: path[len(folder.rstrip("/")) :] for path in _names_in(filesystem, folder)}
    files = sorted(path for path, name in inner.items() if is_part(name))
    shown = [path for path, name in sorted(inner.items()) if not is_part(name) and not is_hidden(name)]
    if shown and not any(OF_A_FOLDER.fullmatch(inner[path].lstrip("/")) for path in files):
        files = []  # such as a folder of rasters with a collection in a subfolder
    if not files:
        there = f"; it has {listed(os.path.basename(path) for path in shown)}" if shown else ""
        raise MissingInputError(
            f"folder {without_secrets(folder)} has no Parquet files{there}. Build a collection from raster files with "
            "build_from_cogs, or from a record table with build_from_table"
        )
    if shown:
        log.warning(
            "ignoring %d file(s) of the collection %s, as their names do not end in %s: %s",
            len(shown),
            without_secrets(folder),
            ", ".join(PARQUET_ENDINGS),
            listed(map(without_secrets, shown), 5),
        )
    return files


def _names_in(filesystem: pafs.FileSystem, folder: str) -> Iterable[str]:
    """Paths of the files below a folder; local links are followed, and hidden folders are skipped."""
    if isinstance(filesystem, pafs.LocalFileSystem):
        return (path for path, *_ in Walk(in_folder(folder)))
    found = filesystem.get_file_info(pafs.FileSelector(folder, recursive=True))
    return (entry.path for entry in found if entry.is_file)


def is_part(inner: str) -> bool:
    """Whether a file belongs to the collection, by its path below the collection's folder."""
    return inner.lower().endswith(PARQUET_ENDINGS) and not is_hidden(inner)


def is_hidden(inner: str) -> bool:
    """Whether a part of a path is hidden (see :mod:`rasteret_beam.kernels.storage.globs`) or being written."""
    return UNDER_WAY in inner or in_folder("").files.fullmatch(inner.lstrip("/")) is None


def check_parts(dataset: ds.Dataset) -> None:
    """Refuse a dataset with a file that does not have records; see :func:`check_part`."""
    for part in dataset.get_fragments():
        if isinstance(part, ds.ParquetFileFragment):
            with readable(url_of(part)):
                there = part.physical_schema.names
            check_part(there, url_of(part))


def check_part(columns: Sequence[str], path: str) -> None:
    """Refuse a Parquet file in a collection's folder that lacks the columns of records.

    Raises
    ------
    CollectionError
    """
    missing = [name for name in IN_EACH_FILE if name not in columns]
    if missing:
        raise CollectionError(
            f"{without_secrets(path)} is not a file of a collection: it lacks column(s) {listed(missing)}; it has "
            f"{listed(columns)}. Move it out of the collection's folder"
        )


def _hint(path: str) -> str:
    return "; folders cannot be listed over HTTP: give the URL of one Parquet file" if Location.of(path).is_web else ""
