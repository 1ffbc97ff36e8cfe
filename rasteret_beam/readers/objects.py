"""Objects in buckets and files on the web: finding, opening, putting, deleting.

Bytes are read by obstore with the retries of :mod:`.ranges`. What is no reading of bytes on gs:// goes through
google-cloud-storage.
"""

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import obstore
from obstore.exceptions import BaseError

from rasteret_beam.errors import (
    InputError,
    MissingInputError,
    OutputError,
    RasteretBeamError,
    one_line,
    without_secrets,
)
from rasteret_beam.kernels.globs import glob_regex, is_glob, literal_start
from rasteret_beam.metrics import Tally
from rasteret_beam.model import AS_GIVEN, Access
from rasteret_beam.readers.access import GS, S3, billed_project, gcs_client
from rasteret_beam.readers.answers import MISSING, said, status_of
from rasteret_beam.readers.ranges import FileState, RangeError, RangeReader
from rasteret_beam.readers.stores import BUCKETS, SCHEMES, WEB, is_addressable, is_url, open_store, split_url
from rasteret_beam.readers.web import WebError, size_of

BUFFER_BYTES = 4 << 20
"""Read at a time where a file is read from its beginning to its end."""

GRANT_READING = {
    GS: "grant roles/storage.objectViewer on the bucket",
    S3: "allow s3:ListBucket on the bucket and s3:GetObject on its objects",
}
GRANT_WRITING = {
    GS: "grant roles/storage.objectAdmin on the bucket",
    S3: "allow s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject and s3:DeleteObject on its objects",
}


@dataclass(frozen=True)
class Found:
    """An object, and its bytes."""

    url: str
    size: int


def is_remote_object(path: str) -> bool:
    """Whether a path is a URL that is read here, by obstore or from the web."""
    return is_url(path) and split_url(path)[0] in SCHEMES


def is_web(path: str) -> bool:
    return split_url(path)[0] in WEB


def check_listable(url: str) -> None:
    """Refuse a folder or a glob on the web, which has no listing.

    Raises
    ------
    InputError
    """
    path = url.partition("?")[0]
    if is_web(url) and (path.endswith("/") or "*" in path):
        raise InputError(
            f"{without_secrets(url)} cannot be listed: a web server has no folders; name each file by its own URL, or "
            "give the bucket's URI (gs://, s3://)"
        )


def find_objects(url: str, access: Access = AS_GIVEN) -> list[str]:
    """The objects that a URL names: itself, those that match it as a glob, or those in it as a folder; in name order.

    Raises
    ------
    MissingInputError
        The bucket cannot be listed. Nothing found is an empty list.
    """
    check_listable(url)
    if is_web(url):
        return [url]
    if is_glob(url):
        matches = glob_regex(url).fullmatch
        return [found.url for found in list_objects(literal_start(url), access) if matches(found.url)]
    found = [item.url for item in list_objects(url.rstrip("/"), access)]
    if url in found:
        return [url]
    folder = url.rstrip("/") + "/"
    return [item for item in found if item.startswith(folder)]


def list_objects(prefix: str, access: Access = AS_GIVEN) -> list[Found]:
    """Objects whose URL begins with a text, in name order, without the markers of empty folders.

    Raises
    ------
    MissingInputError
        There is no such bucket, or it may not be listed.
    """
    scheme, root, start = split_url(prefix)
    with _reading(root):
        if scheme == GS:
            found = list(_gcs_listing(root.removeprefix("gs://"), start, access))
        else:
            store, _ = open_store(root, access)
            # obstore takes whole folders only.
            listed = obstore.list(store, prefix=start.rpartition("/")[0] or None, chunk_size=1000)
            metas = (meta for chunk in listed for meta in chunk)
            found = [(meta["path"], meta["size"]) for meta in metas if meta["path"].startswith(start)]
    return [Found(f"{root}/{name}", size) for name, size in sorted(found) if not name.endswith("/")]


def _gcs_listing(bucket: str, start: str, access: Access) -> Iterator[tuple[str, int]]:
    place = gcs_client(access).bucket(bucket, user_project=billed_project(access))
    for blob in place.list_blobs(prefix=start, fields="items(name,size),nextPageToken"):
        yield blob.name, int(blob.size or 0)


@contextmanager
def _reading(what: str) -> Iterator[None]:
    """Turn a client's error into one that says what to grant or mend."""
    try:
        yield
    except RasteretBeamError:
        raise
    except Exception as error:
        raise MissingInputError(f"{without_secrets(what)} cannot be listed: {explained(error, what)}") from error


def explained(error: Exception, url: str, writing: bool = False) -> str:
    """What a storage client's error means for whoever runs the job, on one line."""
    scheme, root, _ = split_url(url)
    code = getattr(error, "code", None)
    if not isinstance(code, int):
        code = status_of(error)
    grants = GRANT_WRITING if writing else GRANT_READING
    text = said(error) if isinstance(error, BaseError | FileNotFoundError) else one_line(error)
    if code == 404 and scheme in BUCKETS:
        return f"there is no bucket {root} ({text})"
    if code in (401, 403):
        return f"{text}; {grants.get(scheme, 'grant it')} to the account that runs this, or name credentials that may"
    if type(error).__name__ == "DefaultCredentialsError":
        return f"{text}; or read a public bucket with anonymous=True (--anonymous)"
    return text


class ObjectFile(io.RawIOBase):
    """A remote file of known size, to be read from anywhere."""

    def __init__(self, href: str, size: int, access: Access = AS_GIVEN, ranges: RangeReader | None = None):
        self._state = FileState(href, access=access)
        self._size = size
        self._ranges = ranges or RangeReader()
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def size(self) -> int:
        return self._size

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        stop = self._size if size is None or size < 0 else min(self._size, self._at + size)
        if stop <= self._at:
            return b""
        try:
            data = self._ranges.read(self._state, self._at, stop, Tally())
        except RangeError as error:
            raise OSError(f"{without_secrets(self._state.href)}: {error}") from error
        self._at = stop
        return bytes(data)

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: object, /) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


def open_object(href: str, access: Access = AS_GIVEN) -> ObjectFile:
    """A remote file to read from anywhere.

    Raises
    ------
    FileNotFoundError, OSError
        It is not there, or not to be read.
    """
    return ObjectFile(href, object_size(href, access), access)


def open_to_the_end(href: str, access: Access = AS_GIVEN) -> io.BufferedReader:
    """A remote file to read from its beginning to its end, some megabytes at a time."""
    return io.BufferedReader(open_object(href, access), BUFFER_BYTES)


def object_size(href: str, access: Access = AS_GIVEN) -> int:
    """Bytes of a remote file.

    Raises
    ------
    FileNotFoundError, OSError
    """
    shown = without_secrets(href)
    try:
        if not is_addressable(href):
            return size_of(href)
        store, path = open_store(href, access)
        return int(obstore.head(store, path)["size"])
    except (WebError, BaseError, FileNotFoundError) as error:
        missing = isinstance(error, FileNotFoundError) or getattr(error, "status", None) == 404
        text = MISSING if missing else explained(error, href)
        raise (FileNotFoundError if missing else OSError)(f"{shown}: {text}") from error


def read_object(href: str, access: Access = AS_GIVEN) -> bytes:
    """All bytes of a remote file."""
    return open_object(href, access).readall()


def check_bucket_output(path: str, what: str) -> None:
    """Refuse an output on the web.

    Raises
    ------
    OutputError
    """
    if is_url(path) and is_web(path):
        raise OutputError(
            f"{what} {without_secrets(path)} cannot be written: a web server takes no files; give a local path or a "
            "bucket's URI (gs://, s3://)"
        )


def put_object(url: str, data: bytes, access: Access = AS_GIVEN) -> None:
    """Write an object, whole or not at all.

    Raises
    ------
    OutputError
    """
    scheme, root, path = split_url(url)
    try:
        if scheme == GS:
            bucket = gcs_client(access).bucket(root.removeprefix("gs://"), user_project=billed_project(access))
            bucket.blob(path).upload_from_string(data, content_type="application/octet-stream")
        else:
            store, path = open_store(url, access)
            obstore.put(store, path, data)
    except RasteretBeamError:
        raise
    except Exception as error:
        raise OutputError(f"{url} cannot be written: {explained(error, url, writing=True)}") from error


def delete_objects(urls: Iterable[str], access: Access = AS_GIVEN) -> None:
    """Delete objects, as far as they are there.

    Raises
    ------
    OutputError
    """
    for url in urls:
        scheme, root, path = split_url(url)
        try:
            if scheme == GS:
                bucket = gcs_client(access).bucket(root.removeprefix("gs://"), user_project=billed_project(access))
                bucket.delete_blobs([path], on_error=lambda blob: None)
            else:
                store, path = open_store(url, access)
                obstore.delete(store, path)
        except FileNotFoundError:
            continue
        except Exception as error:
            raise OutputError(f"{url} cannot be deleted: {explained(error, url, writing=True)}") from error
