"""The errors a user of this package can meet.

Every message names the thing, the value found and the value wanted, and the way out.
"""

import re
from collections.abc import Iterable
from difflib import get_close_matches

PASSWORD = re.compile(r"(\w://)[^/\s@'\"]*@")
QUERY = re.compile(r"(\w://[^\s?'\"]+\?)[^\s'\"]+")
INLINE = re.compile(r"<(VRTDataset|GDAL_WM\w+|WCS_GDAL|MRF_META)\b(?! \.\.\.>).*?(</\1\s*>|/>\s*$|$)", re.DOTALL)
"""A description of a raster in place of its name, which may hold passwords."""

OPENER = re.compile(r"/vsiriopener_\w+/\d+/")
"""What stands before the URL of a remote file in GDAL's texts."""


class RasteretBeamError(Exception):
    """Base of all errors raised by rasteret_beam."""


class InputError(RasteretBeamError, ValueError):
    """An argument, a column, a band or a CRS that cannot be used."""


class UnknownOptionError(InputError, TypeError):
    """A keyword argument that a function does not have."""


class MissingInputError(RasteretBeamError, FileNotFoundError):
    """A file, a folder or a collection that is not there."""


class PermissionDeniedError(RasteretBeamError, PermissionError):
    """A file or a folder that is there, and that the account that runs this may not read."""


class CollectionError(RasteretBeamError, ValueError):
    """A collection whose layout or content is not what the format asks for."""


class BuildError(RasteretBeamError):
    """One or more raster files of a collection to build could not be read.

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
            + '\nMend or remove them, or leave them out with on_error="skip".'
        )

    def __reduce__(self) -> tuple[type, tuple[list[tuple[str, str]]]]:
        return BuildError, (self.failures,)


class TileReadError(RasteretBeamError, OSError):
    """A tile that could not be read; names file, record, band and tile.

    Attributes
    ----------
    kind : str
        Class of the error at its root.
    attempts : int
        Times that it was tried.
    """

    kind = "TileReadError"
    attempts = 1


class OutputError(RasteretBeamError, OSError):
    """An output place that cannot be written."""


class NoAnswerError(RasteretBeamError, TimeoutError):
    """A service that does not answer the first time that it is asked."""


class OutOfMemoryError(RasteretBeamError, MemoryError):
    """What is read or written does not fit into memory; names the file."""


def how_to_install(extra: str) -> str:
    """The way out where an extra is missing: from a checkout or a wheel, since the package index has no release yet."""
    return (
        f"in a checkout of rasteret_beam, pip install '.[{extra}]'; of a wheel, "
        f"pip install 'rasteret_beam-VERSION-py3-none-any.whl[{extra}]'"
    )


def one_line(error: BaseException) -> str:
    """An error's text on one line, or its kind where it has none; without the secrets of URLs in it."""
    return without_secrets(" ".join(str(error).split())) or type(error).__name__


def without_secrets(text: str, href: str = "") -> str:
    """A text whose URLs have lost what may be secret: user and password, and the query, where signatures are.

    GDAL's texts have the end of a URL alone; its query is found if the URL is given.
    """
    query = href.partition("?")[2] if "://" in href else ""
    text = OPENER.sub("", text.replace(f"?{query}", "?...") if query else text)
    return QUERY.sub(r"\1...", PASSWORD.sub(r"\1", INLINE.sub(r"<\1 ...>", text)))


def listed(names: object, limit: int = 20) -> str:
    """``a, b, c`` of the names, cut after ``limit`` of them."""
    items = [str(name) for name in names]  # type: ignore[attr-defined]
    shown = ", ".join(items[:limit])
    return shown + (f", ... ({len(items)} in all)" if len(items) > limit else "")


def did_you_mean(name: str, known: Iterable[str], cutoff: float = 0.6) -> str:
    """``" (did you mean ...?)"`` with the nearest of some names, or nothing where none is near."""
    lower = {each.lower(): each for each in known}
    near = get_close_matches(name.lower(), lower, n=1, cutoff=cutoff)
    return f" (did you mean {lower[near[0]]!r}?)" if near else ""
