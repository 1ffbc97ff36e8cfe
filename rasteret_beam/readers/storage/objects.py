"""Find, open, write and delete objects in buckets; find and open files on the web.

Bytes are read with obstore and the retries of :mod:`.byte_ranges`. All other operations on gs:// use
google-cloud-storage.
"""

import io
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

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
from rasteret_beam.metrics import Counters
from rasteret_beam.model import DEFAULT_ACCESS, Access
from rasteret_beam.readers.storage import first_contact
from rasteret_beam.readers.storage.access import GS, S3, billed_project, gcs_client
from rasteret_beam.readers.storage.byte_ranges import FileState, RangeError, RangeReader
from rasteret_beam.readers.storage.location import BUCKETS, Location
from rasteret_beam.readers.storage.storage_errors import MISSING, describe, status_of
from rasteret_beam.readers.storage.stores import open_store, service_name

BUFFER_BYTES = 4 << 20
"""Bytes per request when a file is read sequentially."""

LISTING_SECONDS = 8
"""Seconds during which a listing on gs:// is retried, as long as a read is."""

AWAY = re.compile("no answer|was refused|host's name|Could not connect|Connect timeout|Read timeout")
"""Texts of client errors about a service that does not answer."""

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
    """An object, its size in bytes, and its ETag."""

    url: str
    size: int
    etag: str = ""


def check_listable(url: str) -> None:
    """Refuse a folder or a glob on the web, which cannot be listed.

    Raises
    ------
    InputError
    """
    path = url.partition("?")[0]
    if Location.of(url).is_web and (path.endswith("/") or "*" in path):
        raise InputError(
            f"{without_secrets(url)} cannot be listed: a web server has no folders; give the URL of each file, or "
            "give the bucket's URI (gs://, s3://)"
        )


def find_objects(url: str, access: Access = DEFAULT_ACCESS) -> list[str]:
    """The objects of a literal URL: those in the folder, or the object itself; in name order.

    Raises
    ------
    MissingInputError
        The bucket cannot be listed. Without objects the list is empty.
    """
    check_listable(url)
    if Location.of(url).is_web:
        return [url]
    inside = [each.url for each in list_folder(url, access)]
    return inside if inside or not is_object(url, access) else [url]


def is_object(url: str, access: Access = DEFAULT_ACCESS) -> bool:
    """Whether an object with this name exists.

    Raises
    ------
    MissingInputError
        The request fails.
    """
    scheme, root, path = Location.of(url).parts
    if not path or path.endswith("/"):
        return False
    if scheme == GS:
        with _listing(root, access):
            return bool(
                _gcs_bucket(root, access).blob(path).exists(retry=_gcs_retry(), timeout=first_contact.FIRST_SECONDS)
            )
    try:
        return object_size(url, access) >= 0
    except FileNotFoundError:
        return False
    except OSError as error:
        raise MissingInputError(str(error)) from error


def list_folder(url: str, access: Access = DEFAULT_ACCESS, start: str = "", deep: bool = True) -> list[Found]:
    """Objects in a folder, in name order, without the markers of empty folders.

    Parameters
    ----------
    start : str
        Only objects whose URL begins with this.
    deep : bool
        Include objects in subfolders.

    Raises
    ------
    MissingInputError
        The bucket does not exist or may not be listed.
    """
    scheme, root, path = Location.of(url.rstrip("/") + "/").parts
    start = start or f"{root}/{path}"
    with _listing(root, access):
        listed = _gcs_objects if scheme == GS else _store_objects
        found = sorted(listed(root, path, start.removeprefix(f"{root}/"), access, deep))
    return [Found(f"{root}/{name}", size, etag) for name, size, etag in found if not name.endswith("/")]


def _gcs_bucket(root: str, access: Access) -> Any:
    return gcs_client(access).bucket(root.removeprefix("gs://"), user_project=billed_project(access))


def _gcs_retry() -> Any:
    from google.cloud.storage.retry import DEFAULT_RETRY

    return DEFAULT_RETRY.with_delay(initial=0.25, maximum=4.0, multiplier=2.0).with_timeout(LISTING_SECONDS)


def _gcs_objects(root: str, folder: str, start: str, access: Access, deep: bool) -> Iterator[tuple[str, int, str]]:
    fields, delimiter = "items(name,size,etag),nextPageToken", None if deep else "/"
    bucket = _gcs_bucket(root, access)
    settings = {"fields": fields, "retry": _gcs_retry(), "timeout": first_contact.FIRST_SECONDS}
    for blob in bucket.list_blobs(prefix=start, delimiter=delimiter, **settings):
        yield blob.name, int(blob.size or 0), blob.etag or ""


def _store_objects(root: str, folder: str, start: str, access: Access, deep: bool) -> Iterator[tuple[str, int, str]]:
    store, _ = open_store(root, access, timedelta(seconds=first_contact.FIRST_SECONDS))
    prefix = folder.rstrip("/") or None  # obstore lists whole folders only
    if deep:
        metas = [meta for chunk in obstore.list(store, prefix=prefix, chunk_size=1000) for meta in chunk]
    else:
        metas = list(obstore.list_with_delimiter(store, prefix=prefix)["objects"])
    for meta in metas:
        if meta["path"].startswith(start):
            yield meta["path"], meta["size"], meta["e_tag"] or ""


@contextmanager
def _listing(root: str, access: Access) -> Iterator[None]:
    """Turn a client's error into one that says what to grant or correct."""
    try:
        yield
    except RasteretBeamError:
        raise
    except Exception as error:
        raise MissingInputError(f"{service_name(root, access)} cannot be listed: {explained(error, root)}") from error


def explained(error: Exception, url: str, writing: bool = False) -> str:
    """A storage client's error on one line, with what to do."""
    scheme, root, _ = Location.of(url).parts
    code = _status(error)
    grants = GRANT_WRITING if writing else GRANT_READING
    text = describe(error) if isinstance(error, BaseError | FileNotFoundError) else one_line(error)
    if hasattr(error, "response") and text.startswith("("):  # upload with google-cloud-storage
        text = f"the server answered {code}"
    if code == 404 and scheme in BUCKETS:
        return f"there is no bucket {root} ({text})"
    if code in (401, 403):
        return f"{text}; {grants.get(scheme, 'grant it')} to the current account, or use other credentials"
    if type(error).__name__ == "RetryError":  # google-cloud-storage
        return f"no answer in time; last error: {_last_try(error)}; {first_contact.WAY_OUT}"
    if type(error).__name__ == "DefaultCredentialsError":
        return f"{text}; or read a public bucket with anonymous=True"
    return f"{text}; {first_contact.WAY_OUT}" if code is None and AWAY.search(text) else text


def _last_try(error: Exception) -> str:
    """The error of a client's last attempt; for a connection, the system's error."""
    last = getattr(error, "cause", None) or error
    inner = getattr(last.args[0], "reason", last) if last.args else last
    return one_line(inner).rpartition("): ")[2]


def is_denied(error: BaseException | None) -> bool:
    """Whether an error is about missing permission."""
    while error is not None:
        if isinstance(error, Exception) and _status(error) in (401, 403):
            return True
        error = error.__cause__
    return False


def _status(error: Exception) -> int | None:
    """The HTTP status of an error of any client."""
    answer = getattr(error, "response", None)
    given = (getattr(error, "status", None), getattr(error, "code", None), getattr(answer, "status_code", None))
    return next((code for code in given if isinstance(code, int)), None) or status_of(error)


class ObjectFile(io.RawIOBase):
    """A seekable remote file of known size."""

    def __init__(self, href: str, size: int, access: Access = DEFAULT_ACCESS, ranges: RangeReader | None = None):
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
            data = self._ranges.read(self._state, self._at, stop, Counters())
        except RangeError as error:
            href = self._state.href
            raise OSError(
                f"{without_secrets(href)}: {error if error.status == 404 else explained(error, href)}"
            ) from error
        self._at = stop
        return bytes(data)

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: object, /) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


def open_object(href: str, access: Access = DEFAULT_ACCESS) -> ObjectFile:
    """A remote file for random access.

    Raises
    ------
    FileNotFoundError, OSError
        It does not exist or cannot be read.
    """
    return ObjectFile(href, object_size(href, access), access)


def open_to_the_end(href: str, access: Access = DEFAULT_ACCESS) -> io.BufferedReader:
    """A remote file for sequential reading, some megabytes at a time."""
    return io.BufferedReader(open_object(href, access), BUFFER_BYTES)


def object_size(href: str, access: Access = DEFAULT_ACCESS) -> int:
    """Bytes of a remote file.

    Raises
    ------
    FileNotFoundError, OSError
    """
    try:
        return RangeReader().state(FileState(href, access=access)).size or 0
    except RangeError as error:
        missing = error.status == 404
        text = MISSING if missing else explained(error, href)
        raise (FileNotFoundError if missing else OSError)(f"{without_secrets(href)}: {text}") from error


def read_object(href: str, access: Access = DEFAULT_ACCESS) -> bytes:
    """All bytes of a remote file."""
    return open_object(href, access).readall()


def check_bucket_output(path: str, what: str) -> None:
    """Refuse an output on the web.

    Raises
    ------
    OutputError
    """
    if Location.of(path).is_web:
        raise OutputError(
            f"{what} {without_secrets(path)} cannot be written to a web server; give a local path or a "
            "bucket's URI (gs://, s3://)"
        )


def put_object(url: str, data: bytes, access: Access = DEFAULT_ACCESS) -> None:
    """Write an object atomically.

    Raises
    ------
    OutputError
    """
    scheme, root, path = Location.of(url).parts
    try:
        if scheme == GS:
            bucket = _gcs_bucket(root, access)
            bucket.blob(path).upload_from_string(data, content_type="application/octet-stream")
        else:
            store, path = open_store(url, access)
            obstore.put(store, path, data)
    except RasteretBeamError:
        raise
    except Exception as error:
        raise OutputError(f"{url} cannot be written: {explained(error, url, writing=True)}") from error


def delete_objects(urls: Iterable[str], access: Access = DEFAULT_ACCESS) -> None:
    """Delete objects; missing ones are ignored.

    Raises
    ------
    OutputError
    """
    for url in urls:
        scheme, root, path = Location.of(url).parts
        try:
            if scheme == GS:
                bucket = _gcs_bucket(root, access)
                bucket.delete_blobs([path], on_error=lambda blob: None)
            else:
                store, path = open_store(url, access)
                obstore.delete(store, path)
        except FileNotFoundError:
            continue
        except Exception as error:
            raise OutputError(f"{url} cannot be deleted: {explained(error, url, writing=True)}") from error
