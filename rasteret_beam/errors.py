"""The exceptions of this package.

Every message names the subject, the actual and the expected value, and what to do.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches

PASSWORD = re.compile(r"(\w://)[^/\s@'\"]*@")
QUERY = re.compile(r"(\w://[^\s?'\"]+\?)[^\s'\"]+")
INLINE = re.compile(r"<(VRTDataset|GDAL_WM\w+|WCS_GDAL|MRF_META)\b(?! \.\.\.>).*?(</\1\s*>|/>\s*$|$)", re.DOTALL)
"""An inline description of a raster instead of its name; it may contain passwords."""

OPENER = re.compile(r"/vsiriopener_\w+/\d+/")
"""The prefix of a remote file's URL in GDAL's messages."""


class RasteretBeamError(Exception):
    """Base of all errors raised by rasteret_beam."""


class InputError(RasteretBeamError, ValueError):
    """An argument, a column, a band or a CRS that cannot be used."""


class UnknownOptionError(InputError, TypeError):
    """A keyword argument that a function does not accept."""


class MissingInputError(RasteretBeamError, FileNotFoundError):
    """A file, a folder or a collection that does not exist."""


class PermissionDeniedError(RasteretBeamError, PermissionError):
    """A file or a folder that exists but that the current user may not read."""


class CollectionError(RasteretBeamError, ValueError):
    """A collection whose layout or content does not follow the format."""


class BuildError(RasteretBeamError):
    """Raster files of a collection could not be read while it was built.

    Attributes
    ----------
    failures : list of (href, reason)
        Every file that failed, in input order.
    """

    def __init__(self, failures: list[tuple[str, str]]):
        self.failures = failures
        lines = [f"  {without_secrets(href)}: {without_secrets(reason, href)}" for href, reason in failures]
        super().__init__(
            f"{len(failures)} raster file(s) could not be read:\n"
            + "\n".join(lines)
            + '\nRepair or remove them, or skip them with on_error="skip".'
        )

    def __reduce__(self) -> tuple[type, tuple[list[tuple[str, str]]]]:
        return BuildError, (self.failures,)


class TileReadError(RasteretBeamError, OSError):
    """A tile that could not be read; names file, record, band and tile.

    Attributes
    ----------
    kind : str
        Class of the original error.
    attempts : int
        Number of attempts.
    """

    kind = "TileReadError"
    attempts = 1


class OutputError(RasteretBeamError, OSError):
    """An output that cannot be written."""


class NoAnswerError(RasteretBeamError, TimeoutError):
    """A service that does not answer the first request."""


class OutOfMemoryError(RasteretBeamError, MemoryError):
    """Data that does not fit into memory; names the file."""


def how_to_install(extra: str) -> str:
    """How to install an extra from a checkout or a wheel; the package index has no release yet."""
    return (
        f"in a checkout of rasteret_beam, run pip install '.[{extra}]'; with a wheel, "
        f"pip install 'rasteret_beam-VERSION-py3-none-any.whl[{extra}]'"
    )


def one_line(error: BaseException) -> str:
    """An error's text on one line, or its class if it has none, without secrets in URLs."""
    return without_secrets(" ".join(str(error).split())) or type(error).__name__


def without_secrets(text: str, href: str = "") -> str:
    """A text without the secrets in its URLs: user, password and query, which may contain a signature.

    GDAL's messages contain only the end of a URL; give the URL as ``href`` to remove its query there too.
    """
    query = href.partition("?")[2] if "://" in href else ""
    text = OPENER.sub("", text.replace(f"?{query}", "?...") if query else text)
    return QUERY.sub(r"\1...", PASSWORD.sub(r"\1", INLINE.sub(r"<\1 ...>", text)))


def listed(names: object, limit: int = 20) -> str:
    """The names as ``a, b, c``, at most ``limit`` of them."""
    items = [str(name) for name in names]  # type: ignore[attr-defined]
    shown = ", ".join(items[:limit])
    return shown + (f", ... ({len(items)} in all)" if len(items) > limit else "")


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """``" (did you mean ...?)"`` with the nearest of some names, or nothing where none is near."""
    lower = {each.lower(): each for each in known}
    near = get_close_matches(name.lower(), lower, n=1, cutoff=cutoff)
    return f" (did you mean {lower[near[0]]!r}?)" if near else ""
