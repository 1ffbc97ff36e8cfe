"""obstore's stores: one per bucket (or host) and access, shared by the process."""

import os
from datetime import timedelta
from threading import Lock
from typing import Any
from urllib.parse import unquote_to_bytes

from obstore.store import HTTPStore, from_url

from rasteret_beam.errors import InputError, without_secrets
from rasteret_beam.model import DEFAULT_ACCESS, Access
from rasteret_beam.readers.storage.access import S3, aws_credentials, endpoint_of, obstore_settings
from rasteret_beam.readers.storage.location import WEB, Location, is_file_uri

TIMEOUT = timedelta(seconds=60)
CONNECT_TIMEOUT = timedelta(seconds=30)
RETRY_TIMEOUT = timedelta(seconds=8)
"""Time after which obstore starts no further attempt."""

SLOW_ANSWERS = 10
"""Limit of a slow but steady answer, as a multiple of the timeout."""

_stores: dict[tuple[str, Access, str | None, timedelta, bool], Any] = {}
_lock = Lock()


def local_path(given: str | os.PathLike[str]) -> str:
    """The local path of a user's text: a path with ``~`` expanded, or a decoded ``file:`` URI (RFC 8089).

    Raises
    ------
    InputError
        The URI names another host.
    """
    text = os.fspath(given)
    if not is_file_uri(text):
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
    """A user's text as a path: a URL or a GDAL name unchanged, anything else by :func:`local_path`."""
    text = os.fspath(given)
    return local_path(text) if Location.of(text).is_local else text


def absolute(given: str | os.PathLike[str]) -> str:
    """As :func:`as_place`, with absolute local paths."""
    place = as_place(given)
    return os.path.abspath(place) if Location.of(place).is_local else place


def service_name(url: str, access: Access = DEFAULT_ACCESS) -> str:
    """A bucket or host, with its endpoint if that is not the default; for errors."""
    scheme, root, _ = Location.of(url).parts
    endpoint = endpoint_of(scheme, access)
    return without_secrets(f"{root} at {endpoint}" if endpoint else root)


def open_store(
    href: str, access: Access = DEFAULT_ACCESS, timeout: timedelta = TIMEOUT, retry: bool = True
) -> tuple[Any, str]:
    """The store of a URL's bucket or host, and the path in it.

    Parameters
    ----------
    timeout : timedelta
        Time without a byte of the answer.
    retry : bool
        Let obstore retry failed requests.
    """
    scheme, root, _ = Location.of(href).parts
    # The endpoint may come from the environment, which can change.
    key = root, access, endpoint_of(scheme, access), timeout, retry
    with _lock:
        if key not in _stores:
            _stores[key] = _open(root, scheme, access, timeout, retry)
        return _stores[key], Location.of(href).key


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
