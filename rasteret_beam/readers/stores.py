"""obstore's stores: one for each bucket (or host) and way to read it, shared by the process."""

from datetime import timedelta
from threading import Lock
from typing import Any
from urllib.parse import unquote, urlsplit

from obstore.store import HTTPStore, from_url

from rasteret_beam.model import AS_GIVEN, Access

SCHEMES = ("http", "https", "s3", "gs", "az", "abfs", "abfss")
"""What obstore reads; ``file`` and plain paths are local."""

_stores: dict[tuple[str, Access, timedelta], Any] = {}
_lock = Lock()


def is_url(href: str) -> bool:
    return "://" in href and not href.startswith("file://")


def local_path(href: str) -> str:
    """Path of a local file given as a path or a ``file://`` URL."""
    return href.removeprefix("file://")


def open_store(href: str, access: Access = AS_GIVEN, timeout: timedelta = timedelta(seconds=60)) -> tuple[Any, str]:
    """The store of a URL's bucket or host, and the path in it."""
    parts = urlsplit(href)
    root = f"{parts.scheme}://{parts.netloc}"
    key = root, access, timeout
    with _lock:
        if key not in _stores:
            _stores[key] = _open(root, parts.scheme, access, timeout)
        return _stores[key], unquote(parts.path).lstrip("/")


def _open(root: str, scheme: str, access: Access, timeout: timedelta) -> Any:
    client = {"timeout": timeout, "connect_timeout": min(timeout, timedelta(seconds=30)), "allow_http": True}
    retries = {"max_retries": 0, "retry_timeout": timedelta(0)}
    if scheme in ("http", "https"):
        return HTTPStore.from_url(root, client_options=client, retry_config=retries)  # type: ignore[arg-type]
    return from_url(root, config=_config(scheme, access), client_options=client, retry_config=retries)  # type: ignore[call-overload]


def _config(scheme: str, access: Access) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if access.anonymous:
        config["skip_signature"] = True
    if scheme == "s3":
        config |= {"region": access.region} if access.region else {}
        config |= {"endpoint": access.endpoint} if access.endpoint else {}
        config |= {"request_payer": True} if access.requester_pays else {}
    return config
