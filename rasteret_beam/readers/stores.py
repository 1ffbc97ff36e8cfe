"""obstore's stores: one for each bucket (or host) and way to read it, shared by the process."""

import re
from datetime import timedelta
from threading import Lock
from typing import Any
from urllib.parse import unquote
from urllib.request import url2pathname

from obstore.store import HTTPStore, from_url

from rasteret_beam.model import AS_GIVEN, Access
from rasteret_beam.readers.access import AZURE, GS, S3, aws_credentials, endpoint_of, obstore_settings

WEB = ("http", "https")
BUCKETS = (S3, GS, *AZURE)
SCHEMES = (*WEB, *BUCKETS)
"""What obstore reads; ``file`` and plain paths are local."""

TIMEOUT = timedelta(seconds=60)
CONNECT_TIMEOUT = timedelta(seconds=30)
SLOW_ANSWERS = 10
"""An answer that keeps coming may take so many times the timeout: a slow line is no failure."""

_stores: dict[tuple[str, Access, str | None, timedelta, bool], Any] = {}
_lock = Lock()


SUBDATASET = re.compile(r"(?!(?i:file):/)[A-Za-z][A-Za-z0-9_]+:(?!//)")
"""How GDAL's names of datasets inside a file begin: NETCDF:file.nc:variable, HDF5:"file.h5"://group, GTIFF_DIR:2:x."""


def is_url(href: str) -> bool:
    return "://" in href and not href.startswith("file://") and not is_subdataset(href)


def is_subdataset(href: str) -> bool:
    """Whether it is GDAL's name of a dataset inside a file; a local path that looks so begins with ``/`` or ``.``."""
    return SUBDATASET.match(href) is not None


def is_local_file(href: str) -> bool:
    """Whether it names a file on a local disk as the system knows it: no URL, /vsi path or subdataset."""
    return not (is_url(href) or href.startswith("/vsi") or is_subdataset(href))


def local_path(href: str) -> str:
    """Path of a local file given as a path or a ``file:`` URI, whose path is percent-decoded (RFC 8089)."""
    if not href.startswith("file:/"):
        return href
    host, _, path = href.removeprefix("file:").removeprefix("//").partition("/")
    return url2pathname(f"/{path}") if host in ("", "localhost") else unquote(f"{host}/{path}")


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


def open_store(
    href: str, access: Access = AS_GIVEN, timeout: timedelta = TIMEOUT, retry: bool = True
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
    retries = {"max_retries": 5, "retry_timeout": SLOW_ANSWERS * timeout} if retry else NO_RETRIES
    if scheme in WEB:
        return HTTPStore.from_url(root, client_options=client, retry_config=retries)  # type: ignore[arg-type]
    config, headers = obstore_settings(scheme, access)
    client |= {"default_headers": headers} if headers else {}
    keys = aws_credentials(access) if scheme == S3 else None
    given = {} if keys is None else {"credential_provider": keys}
    return from_url(root, config=config, client_options=client, retry_config=retries, **given)  # type: ignore[call-overload]


NO_RETRIES = {"max_retries": 0, "retry_timeout": timedelta(0)}
