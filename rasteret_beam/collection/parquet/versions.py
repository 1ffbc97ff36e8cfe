"""Versions of a growing collection: its files at a moment, and the index of these files.

A version is a text, so that Beam's coder of strings can encode it as a side input.
"""

import json
import os
from base64 import b85decode, b85encode
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from threading import Lock
from zlib import compress, decompress

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pafs

from rasteret_beam.collection.collection import Collection
from rasteret_beam.collection.index.collection_index import CollectionIndex
from rasteret_beam.collection.parquet.arrow_filesystem import on_remote
from rasteret_beam.collection.parquet.files import is_part, two_builds
from rasteret_beam.errors import CollectionError, InputError, MissingInputError, without_secrets
from rasteret_beam.kernels.storage.globs import in_folder
from rasteret_beam.model import DEFAULT_ACCESS, Access, MatchRules
from rasteret_beam.readers.storage.committed_files import undone_beside
from rasteret_beam.readers.storage.local_files import Walk
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.readers.storage.objects import Found, find_objects, list_folder, object_size

FileStamp = tuple[int, str] | None
"""Size of a file and its ETag or modification time, which change when it is rewritten; None if it is gone."""

KEPT_VERSIONS = 3
"""Indexes that a process holds: for the newest windows, the previous ones, and late points."""


@dataclass(frozen=True)
class CollectionVersion:
    """The files of a collection at a moment.

    Attributes
    ----------
    files : tuple of (path, bytes, mark)
        In name order; the mark is an object's ETag, or a file's modification time in nanoseconds since 1970.
    """

    files: tuple[tuple[str, int, str], ...]

    @classmethod
    def of(cls, text: str) -> "CollectionVersion":
        return cls(tuple((path, size, mark) for path, size, mark in json.loads(decompress(b85decode(text)))))

    @cached_property
    def text(self) -> str:
        """The version as compressed text, as Flink keeps the version of each window while the job runs."""
        return b85encode(compress(self._plain)).decode()

    @cached_property
    def digest(self) -> str:
        return sha256(self._plain).hexdigest()[:16]

    @cached_property
    def _plain(self) -> bytes:
        return json.dumps(self.files).encode()

    def check_against(self, files: Mapping[str, FileStamp], place: str) -> None:
        """Refuse files that have changed since this version; those not in ``files`` are not compared.

        Raises
        ------
        CollectionError
        """
        for path, *state in self.files:
            found = files.get(path, tuple(state))
            if found != tuple(state):
                what = "is gone" if found is None else "has been rewritten"
                raise CollectionError(
                    f"{path} of the growing collection {place} {what}, so points routed before cannot be "
                    "sampled; add records as new files, and end the job before you change existing files"
                )


def look(path: str, access: Access = DEFAULT_ACCESS) -> CollectionVersion:
    """The Parquet files of a collection now; names that start with ``_`` or ``.`` are skipped.

    Raises
    ------
    MissingInputError
        There is none.
    CollectionError
        A build of the collection was killed while it moved files into place.
    """
    found = files_now(path, access)
    if undone_beside(path, access) is not None:
        raise CollectionError(f"{two_builds(path, path)}. Build it again before a stream uses it")
    if not found:
        raise MissingInputError(f"{without_secrets(path)} has no Parquet files")
    return CollectionVersion(tuple(sorted((each.url, each.size, each.etag) for each in found)))


def files_now(path: str, access: Access = DEFAULT_ACCESS) -> list[Found]:
    """The Parquet files of a collection, without a look at the state of its build."""
    return _remote_files(path, access) if Location.of(path).is_remote else _local_files(path)


def _remote_files(url: str, access: Access) -> list[Found]:
    if Location.of(url).is_web:
        return [Found(url, object_size(url, access))]
    folder = url.rstrip("/")
    inside = list_folder(folder, access)
    if not inside:
        return [Found(each, object_size(each, access)) for each in find_objects(folder, access)]
    return [each for each in inside if is_part(each.url[len(folder) :])]


def _local_files(path: str) -> list[Found]:
    files = pafs.LocalFileSystem()
    found = files.get_file_info(path)
    if found.type != pafs.FileType.Directory:
        return [_local_state(found)] if found.is_file else []
    inside = [file for file, *_ in Walk(in_folder(path)) if is_part(file[len(path) :])]
    return [_local_state(entry) for entry in files.get_file_info(inside) if entry.is_file]


def _local_state(entry: pafs.FileInfo) -> Found:
    return Found(entry.path, entry.size, str(entry.mtime_ns))


def first_version(collection: Collection) -> CollectionVersion:
    """The present version of a growing collection.

    Raises
    ------
    InputError
        The collection is in memory only.
    """
    if collection.path is None:
        raise InputError(
            f"collection {collection.name!r} is in memory, where it cannot grow; export it and load it again"
        )
    return look(collection.path, collection.access)


def at_version(collection: Collection, version: CollectionVersion, schema: pa.Schema) -> Collection:
    """The collection with only the files of a version, read in the given schema.

    Raises
    ------
    CollectionError
        A file has changed.
    """
    place = str(collection.path).rstrip("/")
    paths = [path for path, _, _ in version.files]
    version.check_against(_states(paths, place, collection.access), place)
    filesystem: pafs.FileSystem = pafs.LocalFileSystem()
    if Location.of(place).is_remote:
        filesystem, place = on_remote(place, collection.access)
        paths = [path.partition("://")[2] for path in paths]
    dataset = ds.dataset(
        paths,
        schema=schema,
        filesystem=filesystem,
        format="parquet",
        partitioning=ds.partitioning(flavor="hive"),
        partition_base_dir=os.path.dirname(place) if paths == [place] else place,
    )
    return collection.over(dataset)


def _states(paths: Sequence[str], place: str, access: Access) -> dict[str, FileStamp]:
    """The present state of some files."""
    found = files_now(place, access)
    now = {each.url: (each.size, each.etag) for each in found}
    return {path: now.get(path) for path in paths}


@dataclass(eq=False)
class IndexVersions:
    """The indexes of a collection in one process: of the collection itself, or of its versions.

    One object serves all threads; an index is built on first use.

    Parameters
    ----------
    collection : Collection
    bands : sequence of str
    match : str or MatchRules
    cache_bytes : int
        Limit of each index's cache.
    schema : Schema, optional
        Schema to read versions with.
    record_columns : sequence of str
        Columns of the collection that rows are to have.
    """

    collection: Collection
    bands: Sequence[str]
    match: str | MatchRules
    cache_bytes: int
    schema: pa.Schema | None = None
    record_columns: Sequence[str] = ()
    _held: OrderedDict[str | None, CollectionIndex] = field(default_factory=OrderedDict, init=False)
    _known: dict[str, FileStamp] = field(default_factory=dict, init=False)
    _lock: Lock = field(default_factory=Lock, init=False)

    def at(self, version: CollectionVersion | None = None) -> CollectionIndex:
        """The index of a version, or of the collection itself.

        Raises
        ------
        CollectionError
            A file of the version is gone or has been rewritten.
        """
        key = version.digest if version is not None else None
        with self._lock:
            if key not in self._held:
                self._held[key] = self._made(version)
            self._held.move_to_end(key)
            while len(self._held) > KEPT_VERSIONS:
                self._held.popitem(last=False)
            return self._held[key]

    def _made(self, version: CollectionVersion | None) -> CollectionIndex:
        collection = self.collection
        if version is not None:
            assert self.schema is not None
            version.check_against(self._known, str(collection.path))
            collection = at_version(collection, version, self.schema)
            self._known |= {path: (size, mark) for path, size, mark in version.files}
        return collection.index(self.bands, self.match, self.cache_bytes, self.record_columns)
