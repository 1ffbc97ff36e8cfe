"""obstore's stores: one for each bucket (or host) and way to read it, shared by the process."""

import os
import re
from datetime import timedelta
from threading import Lock
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from obstore.store import HTTPStore, from_url

from rasteret_beam.errors import InputError, without_secrets
from rasteret_beam.model import DEFAULT_ACCESS, Access
from rasteret_beam.readers.storage.access import AZURE, GS, S3, aws_credentials, endpoint_of, obstore_settings

WEB = ("http", "https")
BUCKETS = (S3, GS, *AZURE)
SCHEMES = (*WEB, *BUCKETS)
"""What obstore reads; ``file`` and plain paths are local."""

TIMEOUT = timedelta(seconds=60)
CONNECT_TIMEOUT = timedelta(seconds=30)
RETRY_TIMEOUT = timedelta(seconds=8)
"""After which obstore begins no further try."""

SLOW_ANSWERS = 10
"""An answer that keeps coming may take so many times the timeout: a slow line is no failure."""

_stores: dict[tuple[str, Access, str | None, timedelta, bool], Any] = {}
_lock = Lock()


SUBDATASET = re.compile(r"(?!(?i:file):/)[A-Za-z][A-Za-z0-9_]+:(?!//)")
"""How GDAL's names of datasets inside a file begin: NETCDF:file.nc:variable, HDF5:"file.h5"://group, GTIFF_DIR:2:x."""


def is_url(href: str) -> bool:
    """Whether it is a URL of anything but a local file."""
    return "://" in href and not _is_file_uri(href) and not is_subdataset(href)


def _is_file_uri(text: str) -> bool:
    return text[:6].lower() == "file:/"


def is_subdataset(href: str) -> bool:
    """Whether it is GDAL's name of a dataset inside a file; a local path that looks so begins with ``/`` or ``.``."""
    return SUBDATASET.match(href) is not None


def is_local_file(href: str) -> bool:
    """Whether it names a file on a local disk as the system knows it: no URL, /vsi path or subdataset."""
    return not (is_url(href) or href.startswith("/vsi") or is_subdataset(href))


def local_path(given: str | os.PathLike[str]) -> str:
    """The local path that a user gives: a path, ``~`` in it expanded, or a ``file:`` URI (RFC 8089), decoded.

    Raises
    ------
    InputError
        The URI names another host.
    """
    text = os.fspath(given)
    if not _is_file_uri(text):
        return os.path.expanduser(text)
    path = text[len("file:") :]
    if path.startswith("//"):
        host, slash, path = path[2:].partition("/")
        if host.lower() not in ("", "localhost"):
            raise InputError(
                f"{text} names the host {host!r}; a file: URI of this machine has three slashes, as in "
                f"file:///{host}/{path}"
            )
        path = slash + path
    return os.fsdecode(unquote_to_bytes(path))


def as_place(given: str | os.PathLike[str]) -> str:
    """What a user gives as a path: a URL or a name of GDAL's as it is, all else as :func:`local_path`."""
    text = os.fspath(given)
    return local_path(text) if is_local_file(text) else text


def absolute(given: str | os.PathLike[str]) -> str:
    """As :func:`as_place`, with local paths made absolute."""
    place = as_place(given)
    return os.path.abspath(place) if is_local_file(place) else place


def is_addressable(href: str) -> bool:
    """Whether obstore can ask for exactly this URL: it sends no query and no password, and writes paths its own way."""
    scheme, root, path = split_url(href)
    if scheme not in SCHEMES or "?" in href:
        return False
    if scheme in WEB and ("@" in root or "#" in href or "%2f" in path.lower()):
        return False
    return not {"", ".", ".."} & set(_decoded(scheme, path).split("/"))


def has_ranges(href: str) -> bool:
    """Whether byte ranges of this URL can be asked for, by obstore or (signed URLs, passwords) as a web request."""
    return is_addressable(href) or (is_url(href) and split_url(href)[0] in WEB)


def split_url(href: str) -> tuple[str, str, str]:
    """Scheme, root (up to the bucket or host) and path, as written, of a URL."""
    scheme, _, rest = href.partition("://")
    host, _, path = rest.partition("/")
    return scheme, f"{scheme}://{host}", path


def service_name(url: str, access: Access = DEFAULT_ACCESS) -> str:
    """A bucket or host, and where it is asked for if that is not the platform's own place; for an error."""
    scheme, root, _ = split_url(url)
    endpoint = endpoint_of(scheme, access)
    return without_secrets(f"{root} at {endpoint}" if endpoint else root)


def open_store(
    href: str, access: Access = DEFAULT_ACCESS, timeout: timedelta = TIMEOUT, retry: bool = True
) -> tuple[Any, str]:
    """The store of a URL's bucket or host, and the path in it.

    Parameters
    ----------
    timeout : timedelta
        Without a byte of the answer.
    retry : bool
        Let obstore ask again when a request fails.
    """
    scheme, root, path = split_url(href)
    # The endpoint may come from the environment, which may change.
    key = root, access, endpoint_of(scheme, access), timeout, retry
    with _lock:
        if key not in _stores:
            _stores[key] = _open(root, scheme, access, timeout, retry)
        return _stores[key], _decoded(scheme, path)


def _decoded(scheme: str, path: str) -> str:
    """Paths on the web are percent-encoded; the name of an object in a bucket stands as it is, as GDAL has it."""
    return unquote(path) if scheme in WEB else path


def _open(root: str, scheme: str, access: Access, timeout: timedelta, retry: bool) -> Any:
    client = {
        "timeout": SLOW_ANSWERS * timeout,
        "read_timeout": timeout,
        "connect_timeout": min(timeout, CONNECT_TIMEOUT),
        "allow_http": True,
    }
    retries = {"max_retries": 5, "retry_timeout": RETRY_TIMEOUT} if retry else NO_RETRIES
    if scheme in WEB:
        return HTTPStore.from_url(root, client_options=client, retry_config=retries)  # type: ignore[arg-type]
    config, headers = obstore_settings(scheme, access)
    client |= {"default_headers": headers} if headers else {}
    keys = aws_credentials(access) if scheme == S3 else None
    given = {} if keys is None else {"credential_provider": keys}
    return from_url(root, config=config, client_options=client, retry_config=retries, **given)  # type: ignore[call-overload]


NO_RETRIES = {"max_retries": 0, "retry_timeout": timedelta(0)}
