"""Decide which hrefs may be opened: what an untrusted collection or file may make this machine read.

One policy applies to every open. A trusted href (from the user, or from a collection or record table on a local disk)
may name any file and host. An href in a bucket or on the web may name neither local files nor local hosts
(:mod:`rasteret_beam.kernels.storage.hosts`), unless its source is on the same local host. In both cases only a few GDAL
drivers (:mod:`.drivers`) and file systems are used; :class:`rasteret_beam.Access` allows others by name.
"""

import os
import re
from dataclasses import replace
from functools import lru_cache

from rasteret_beam.errors import without_secrets
from rasteret_beam.kernels.storage.hosts import LOOPBACK, host_of, nearness
from rasteret_beam.model import Access
from rasteret_beam.readers.gdal.drivers import VRT, driver_of_prefix, driver_of_text, is_by_name, why_not_driver
from rasteret_beam.readers.storage.location import BUCKETS, WEB, Location

ARCHIVES = ("zip", "tar", "gzip")
OBJECTS = ("s3", "gs", "az", "adls", "oss", "swift")
"""GDAL file systems of buckets, whose hosts come from GDAL's settings."""

CURL = "curl"

CHAIN = re.compile(r"/?vsi([a-z0-9_]+)(?:[/?]|$)")

LOCAL = "access=Access(allow_local=True)"


def named_in(place: str, access: Access) -> Access:
    """The access for hrefs in a collection, record table or VRT at a place."""
    return replace(access, origin=place if Location.of(place).is_remote or place.startswith("/vsi") else None)


def why_refused(href: str, access: Access) -> str | None:
    """Why an href must not be opened; None if it may be.

    The text names the option that allows it; the caller adds the href.
    """
    return _why_refused(href, access, access.origin)


@lru_cache(1 << 12)
def _why_refused(href: str, access: Access, origin: str | None) -> str | None:
    if "<" in href and (inline := driver_of_text(href)) and not os.path.exists(href):
        return why_not_driver(inline, access) or (None if inline == VRT else _why_opaque(access))
    if Location.of(href).is_subdataset:
        return _why_not_subdataset(href, access)
    if href.startswith("/vsi"):
        return _why_not_chain(href, access)
    if Location.of(href).is_remote:
        return _why_not_url(href, access)
    return _why_not_local(access)


def is_trusted(access: Access) -> bool:
    """Whether hrefs may name files of this machine."""
    return access.origin is None or access.allow_local


def is_confined(href: str, access: Access) -> bool:
    """Whether redirects and resolved names of a web server must not lead to local hosts."""
    return access.origin is not None and Location.of(href).is_web


def why_not_host(host: str | None, access: Access) -> str | None:
    """Why a host or an address must not be requested; None if it may be."""
    near = nearness(host)
    if access.origin is None or near is None or _lies_at(host, access.origin):
        return None
    if near == LOOPBACK and (access.allow_local or _near_origin(access) == LOOPBACK):
        return None
    allowed = f"; if you trust it, allow that with {LOCAL}" if near == LOOPBACK else ""
    return f"it leads to {near} ({host or 'not shown'}), and is named by {_origin(access)}{allowed}"


def _near_origin(access: Access) -> str | None:
    origin = access.origin or ""
    return nearness(host_of(origin)) if Location.of(origin).is_web else None


def _lies_at(host: str | None, origin: str) -> bool:
    return host is not None and Location.of(origin).is_web and host == host_of(origin)


def _origin(access: Access) -> str:
    return f"{without_secrets(access.origin or '')}, which does not lie there"


def _why_not_local(access: Access) -> str | None:
    if is_trusted(access):
        return None
    where = without_secrets(access.origin or "")
    return f"it is a file of this machine, named by {where}, from elsewhere; if you trust that, allow it with {LOCAL}"


def _why_opaque(access: Access) -> str | None:
    """Why a name that only GDAL understands must not be opened."""
    if is_trusted(access):
        return None
    where = without_secrets(access.origin or "")
    return f"what it leads to cannot be told, and it is named by {where}; if you trust that, allow it with {LOCAL}"


def _why_not_subdataset(href: str, access: Access) -> str | None:
    prefix, _, rest = href.partition(":")
    driver = driver_of_prefix(prefix)
    if (why := why_not_driver(driver, access)) and not (access.origin is None and is_by_name(driver)):
        return why
    if is_trusted(access):
        return None
    quoted = re.search('"([^"]*)"', rest)
    inner = quoted[1] if quoted else re.sub(r"^(?:(?:off|\d+):)+", "", rest)
    return why_gdal_refused(inner, access)


def why_gdal_refused(href: str, access: Access) -> str | None:
    """As :func:`why_refused`, for requests of GDAL itself, which follows redirects silently."""
    if Location.of(href).is_web:
        return _why_not_url(href, access) or _why_not_curl(access)
    return _why_refused(href, access, access.origin)


def _why_not_curl(access: Access) -> str | None:
    if is_trusted(access) or _near_origin(access) == LOOPBACK:
        return None
    return (
        "GDAL would send the requests itself and follow any redirect; give the plain URL of the file, "
        f"or, if you trust {without_secrets(access.origin or '')}, allow it with {LOCAL}"
    )


def _why_not_chain(path: str, access: Access) -> str | None:
    """Why a path through GDAL's file systems (``/vsizip//vsicurl/https://host/a.zip/b.tif``) must not be opened."""
    found = CHAIN.match(path)
    if found is None:
        return _why_not_local(access)
    name, inner = found[1], path[found.end() :]
    if name in ARCHIVES:
        inner = inner.removeprefix("{")
        return _why_not_chain(inner, access) if CHAIN.match(inner) else why_gdal_refused(inner, access)
    if name in OBJECTS:
        return None
    if name == CURL:
        return _why_not_curled(inner, access)
    if f"/vsi{name}/" in {f"/{each.strip('/')}/" for each in access.drivers}:
        return _why_opaque(access)
    return (
        f"GDAL's file system /vsi{name}/ is not allowed (only /vsizip/, /vsitar/, /vsigzip/, /vsicurl/ "
        f"and those of buckets); if you trust it, allow it with access=Access(drivers='/vsi{name}/')"
    )


def _why_not_curled(url: str, access: Access) -> str | None:
    if Location.of(url).scheme not in (*WEB, "ftp"):
        return _why_opaque(access)
    return why_not_host(host_of(url), access) or _why_not_curl(access)


def _why_not_url(href: str, access: Access) -> str | None:
    scheme, _, rest = href.partition("://")
    if scheme in WEB:
        return why_not_host(host_of(href), access)
    if scheme in (*BUCKETS, "oss"):
        return None
    if scheme == "vrt":
        return "vrt:// is not opened, as it can name any file; give a VRT file, with access=Access(vrt=True)"
    parts = scheme.split("+")
    if all(part in (*ARCHIVES, *WEB, *BUCKETS, "file") for part in parts):
        return (
            _why_not_local(access)
            if parts[-1] in (*ARCHIVES, "file")
            else why_gdal_refused(f"{parts[-1]}://{rest}", access)
        )
    return _why_not_curled(href, access) if scheme == "ftp" else _why_opaque(access)
