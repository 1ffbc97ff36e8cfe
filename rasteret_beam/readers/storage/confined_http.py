"""Read byte ranges of URLs from untrusted sources, without reaching local hosts by name or redirect.

obstore follows redirects silently, and a name may resolve to any address. So these requests are made here: each address
and each redirect is checked before a request is sent. Connections are kept per thread.
"""

import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, InvalidURL
from threading import local
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, unquote, urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener, getproxies, proxy_bypass

from rasteret_beam.errors import one_line
from rasteret_beam.kernels.storage.hosts import host_of
from rasteret_beam.model import Access
from rasteret_beam.readers.storage.href_policy import why_not_host
from rasteret_beam.readers.storage.http_ranges import WebError, basic
from rasteret_beam.readers.storage.location import WEB
from rasteret_beam.readers.storage.storage_errors import MISSING, NO_RANGES, NOT_ALLOWED, PASSING

REDIRECTS = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 10
MAX_KEPT = 16
"""Connections per thread."""

LEFT_OVER = 64 << 10
"""Bytes of an unused answer that are read to keep its connection open."""

SAFE = "/%:=&?~#+!$,;'@()*[]|"
"""Unescaped characters of a URL (RFC 3986), and ``%`` of parts that are already encoded."""

_thread = local()


@dataclass(frozen=True)
class _Asking:
    """A request, the limit of its answer, and the check of hosts and addresses."""

    headers: dict[str, str]
    timeout: float
    most: int
    why_not: Callable[[str | None], str | None]

    def headers_for(self, user: str) -> dict[str, str]:
        return self.headers | ({"Authorization": basic(unquote(user))} if user else {})


Answer = tuple[int, Message, bytes]


def get_range(
    url: str, start: int, stop: int, access: Access, timeout: float, etag: str | None = None
) -> tuple[bytes, int, str | None]:
    """Bytes from ``start`` up to ``stop`` or the end of the file, the size of the file, and its ETag.

    Parameters
    ----------
    etag : str, optional
        Required ETag of the file.

    Raises
    ------
    WebError
        With status 412 if the file has another ETag.
    """
    headers = {"Range": f"bytes={start}-{stop - 1}", "User-Agent": "rasteret_beam"}
    headers |= {"If-Match": etag} if etag else {}
    asking = _Asking(headers, timeout, stop - start, partial(why_not_host, access=access))
    try:
        status, found, body = _follow(url, asking)
    except (HTTPException, TimeoutError, OSError) as error:
        raise WebError(
            f"no answer: {one_line(error)}", passing=not isinstance(error, ssl.SSLError | InvalidURL)
        ) from error
    if status in (401, 403, 404):
        raise WebError(MISSING if status == 404 else NOT_ALLOWED, status)
    if status >= 400:
        raise WebError(f"the server answered {status}", status, status >= 500 or status in PASSING)
    span = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", found.get("Content-Range") or "")
    if status != 206 or span is None or int(span[1]) != start:
        raise WebError(NO_RANGES)
    return body, int(span[3]), found.get("ETag")


def _follow(url: str, asking: _Asking) -> Answer:
    for _ in range(MAX_REDIRECTS):
        _check(url, asking)
        if urlsplit(url).scheme in getproxies() and not proxy_bypass(urlsplit(url).hostname or ""):
            return _by_proxy(url, asking)
        answer = _ask(url, asking)
        place = answer[1].get("Location")
        if answer[0] not in REDIRECTS or not place:
            return answer
        url = urljoin(url, place)
    raise WebError(f"the server redirects more than {MAX_REDIRECTS} times")


def _check(url: str, asking: _Asking) -> None:
    scheme = urlsplit(url).scheme
    if scheme not in WEB:
        raise WebError(f"the server redirects to {scheme}:, which is not http or https")
    if why := asking.why_not(host_of(url)):
        raise WebError(why)


def _ask(url: str, asking: _Asking) -> Answer:
    """Send a request on an open connection, or on a new one if the server has closed it."""
    kept: dict[tuple[str, str], HTTPConnection] = _thread.__dict__.setdefault("kept", {})
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    key = parts.scheme, host
    target = quote(parts.path or "/", SAFE) + (f"?{quote(parts.query, SAFE)}" if parts.query else "")
    for is_kept in (True, False) if key in kept else (False,):
        connection = kept.pop(key) if is_kept else _connect(parts.scheme, host, asking)
        try:
            if is_kept and connection.sock is not None:
                connection.sock.settimeout(asking.timeout)
            connection.request("GET", target, headers=asking.headers_for(user))
            answer = connection.getresponse()
            body = _body(answer, asking.most)
        except (HTTPException, OSError) as error:
            connection.close()
            if is_kept and not isinstance(error, TimeoutError):
                continue
            raise
        _keep(kept, key, connection, answer)
        return answer.status, answer.headers, body
    raise AssertionError("the last attempt returns or raises")


def _body(answer: HTTPResponse, most: int) -> bytes:
    """The requested bytes only; nothing of another answer, such as a whole file."""
    body = answer.read(most if answer.status == 206 else LEFT_OVER)
    if not answer.isclosed() and answer.read(1):
        answer.will_close = True
    return body if answer.status == 206 else b""


def _keep(
    kept: dict[tuple[str, str], HTTPConnection], key: tuple[str, str], connection: HTTPConnection, answer: HTTPResponse
) -> None:
    if answer.will_close:
        connection.close()
        return
    if len(kept) >= MAX_KEPT:
        kept.pop(next(iter(kept))).close()
    kept[key] = connection


def _connect(scheme: str, host: str, asking: _Asking) -> HTTPConnection:
    connection = (HTTPSConnection if scheme == "https" else HTTPConnection)(host, timeout=asking.timeout)
    connection.connect()
    if why := asking.why_not(str(connection.sock.getpeername()[0])):
        connection.close()
        raise WebError(why)
    return connection


class _Redirects(HTTPRedirectHandler):
    def __init__(self, asking: _Asking):
        self._asking = asking

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Request | None:
        _check(newurl, self._asking)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _by_proxy(url: str, asking: _Asking) -> Answer:
    """A connection through the environment's proxy, which resolves names itself."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    request = Request(parts._replace(netloc=host).geturl(), headers=asking.headers_for(user))
    try:
        with build_opener(_Redirects(asking)).open(request, timeout=asking.timeout) as answer:
            return answer.status, answer.headers, answer.read(asking.most)
    except HTTPError as error:
        return error.code, error.headers, b""
    except URLError as error:
        raise error.reason if isinstance(error.reason, OSError) else OSError(str(error.reason)) from error
