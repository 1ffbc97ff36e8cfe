"""Names of raster files as users and record tables write them, made absolute."""

import os
import posixpath
import re
from urllib.parse import urljoin

from rasteret_beam.readers.storage.stores import WEB, is_subdataset, is_url, local_path, split_url


def absolute(href: str | os.PathLike[str]) -> str:
    """A local path, or ``file:`` URI, as an absolute path; URLs and GDAL's /vsi paths as they are.

    Of the name of a subdataset (``NETCDF:file.nc:variable``) the file inside is made absolute.
    """
    return resolved(os.fspath(href), os.getcwd())


def resolved(href: str, folder: str) -> str:
    """As :func:`absolute`, but that relative paths begin at a folder, on a local disk or a URL.

    On the web, a path from the root begins at the server (RFC 3986, section 5.2.2).
    """
    if is_url(href) or href.startswith("/vsi") or is_inline(href, folder):
        return href
    if href[:6].lower() == "file:/" or href.startswith("~"):
        return os.path.abspath(local_path(href))
    if is_subdataset(href) and (is_url(folder) or not os.path.exists(os.path.join(folder, href))):
        return href if is_url(folder) else _resolved_subdataset(href, folder)
    if not is_url(folder):
        return os.path.normpath(os.path.join(folder, local_path(href)))
    if split_url(folder)[0] in WEB:
        return urljoin(f"{folder}/", href)
    if href.startswith("/"):
        return href
    _, root, path = split_url(folder)
    return f"{root}/{posixpath.normpath(posixpath.join(path, href))}"


def is_inline(href: str, folder: str) -> bool:
    """Whether an href is the description of a raster (GDAL's XML) in place of a name, and no file has that name."""
    return href.lstrip().startswith("<") and not os.path.exists(os.path.join(folder, href))


def folder_of(path: str) -> str:
    """The folder, local or on a URL, that a file lies in; a query (a signature) is not of the folder."""
    if not is_url(path):
        return os.path.dirname(os.path.abspath(local_path(path)))
    scheme, root, place = split_url(path)
    place = place.partition("?")[0] if scheme in WEB else place
    return f"{root}/{posixpath.dirname(place)}".rstrip("/")


def _resolved_subdataset(name: str, folder: str) -> str:
    """The name of a subdataset with its file made absolute: the quoted part, else the longest part that is a file.

    Where no part is one, it is the first, but for numbers and names of parts that come before (``GTIFF_DIR:2:file``).
    """
    driver, _, rest = name.partition(":")
    if re.match('"?(/vsi|[a-z][a-z0-9+.-]*://)', rest):
        return name
    if '"' in rest:
        before, quoted, after = [*rest.split('"', 2), ""][:3]
        return f'{driver}:{before}"{resolved(quoted, folder)}"{after}'
    parts = rest.split(":")
    spans = [(first, last) for first in range(len(parts)) for last in range(len(parts), first, -1)]
    there = [span for span in spans if os.path.isfile(_joined(parts, span, folder))]
    number = next((n for n, part in enumerate(parts) if not part.isdecimal() and part != "off"), 0)
    first, last = max(there, key=lambda span: span[1] - span[0], default=(number, number + 1))
    return ":".join([driver, *parts[:first], _joined(parts, (first, last), folder), *parts[last:]])


def _joined(parts: list[str], span: tuple[int, int], folder: str) -> str:
    return os.path.normpath(os.path.join(folder, ":".join(parts[slice(*span)])))
