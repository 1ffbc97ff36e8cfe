"""Read byte ranges of URLs that obstore cannot request: signed URLs with a query, and URLs with a password."""

import base64
import re
import ssl
from http.client import HTTPException, InvalidURL
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from rasteret_beam.errors import one_line
from rasteret_beam.readers.storage.storage_errors import NO_RANGES, PASSING

TIMEOUT = 60.0


class WebError(Exception):
    """A request that failed.

    Attributes
    ----------
    status : int or None
        HTTP status of the answer, if there was one.
    passing : bool
        Whether a retry may help.
    """

    def __init__(self, why: str, status: int | None = None, passing: bool = False):
        super().__init__(why)
        self.status = status
        self.passing = passing


def get_range(url: str, start: int, stop: int, timeout: float = TIMEOUT) -> tuple[bytes, int]:
    """Bytes from ``start`` up to ``stop`` or the end of the file, and the size of the file.

    Raises
    ------
    WebError
    """
    request = _request(url)
    request.add_header("Range", f"bytes={start}-{stop - 1}")
    try:
        with urlopen(request, timeout=timeout) as answer:
            found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers.get("Content-Range", ""))
            if answer.status != 206 or found is None or int(found[1]) != start:
                raise WebError(NO_RANGES)
            return answer.read(), int(found[3])
    except HTTPError as error:
        passing = error.code >= 500 or error.code in PASSING
        raise WebError(f"the server answered {error.code} {error.reason}", error.code, passing) from error
    except (URLError, HTTPException, TimeoutError, OSError) as error:
        reason = getattr(error, "reason", error)
        passing = not isinstance(reason, ssl.SSLError | InvalidURL)
        raise WebError(f"no answer: {one_line(_as_error(reason))}", passing=passing) from error


def size_of(url: str, timeout: float = TIMEOUT) -> int:
    """Size of the file, from a request for its first bytes, as a signature is often valid for GET only.

    Raises
    ------
    WebError
    """
    return get_range(url, 0, 4, timeout)[1]


def _as_error(reason: object) -> BaseException:
    return reason if isinstance(reason, BaseException) else OSError(str(reason))


def _request(url: str) -> Request:
    """A request with user and password in its header."""
    parts = urlsplit(url)
    user, at, host = parts.netloc.rpartition("@")
    request = Request(urlunsplit(parts._replace(netloc=host, fragment="")))
    if at:
        request.add_header("Authorization", basic(unquote(user)))
    return request


def basic(user: str) -> str:
    """The header of ``user:password`` (RFC 7617)."""
    return "Basic " + base64.b64encode(user.encode()).decode()
