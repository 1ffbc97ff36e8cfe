"""Make the hrefs of users and record tables absolute."""

import os
import posixpath
import re
from urllib.parse import urljoin

from rasteret_beam.readers.storage.location import WEB, Location
from rasteret_beam.readers.storage.stores import local_path


def absolute(href: str | os.PathLike[str]) -> str:
    """A local path or ``file:`` URI as an absolute path; URLs and GDAL's /vsi paths are unchanged.

    In the name of a subdataset (``NETCDF:file.nc:variable``) the file becomes absolute.
    """
    return resolved(os.fspath(href), os.getcwd())


def resolved(href: str, folder: str) -> str:
    """As :func:`absolute`, but relative paths start at a folder, which may be local or a URL.

    On the web, a path from the root starts at the server (RFC 3986, section 5.2.2).
    """
    if Location.of(href).is_remote or href.startswith("/vsi") or is_inline(href, folder):
        return href
    if href[:6].lower() == "file:/" or href.startswith("~"):
        return os.path.abspath(local_path(href))
    base = Location.of(folder)
    if Location.of(href).is_subdataset and (base.is_remote or not os.path.exists(os.path.join(folder, href))):
        return href if base.is_remote else _resolved_subdataset(href, folder)
    if not base.is_remote:
        return os.path.normpath(os.path.join(folder, local_path(href)))
    if base.is_web:
        return urljoin(f"{folder}/", href)
    if href.startswith("/"):
        return href
    return f"{base.root}/{posixpath.normpath(posixpath.join(base.path, href))}"


def is_inline(href: str, folder: str) -> bool:
    """Whether an href is an inline description of a raster (GDAL's XML) and not the name of a file."""
    return href.lstrip().startswith("<") and not os.path.exists(os.path.join(folder, href))


def folder_of(path: str) -> str:
    """The folder of a file, local or a URL; a query (a signature) is removed."""
    if not Location.of(path).is_remote:
        return os.path.dirname(os.path.abspath(local_path(path)))
    scheme, root, place = Location.of(path).parts
    place = place.partition("?")[0] if scheme in WEB else place
    return f"{root}/{posixpath.dirname(place)}".rstrip("/")


def _resolved_subdataset(name: str, folder: str) -> str:
    """The name of a subdataset with its file made absolute: the quoted part, or the longest part that is a file.

    If no part is a file, it is the first part after numbers and names of parts (``GTIFF_DIR:2:file``).
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
