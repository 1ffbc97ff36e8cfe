"""What a virtual raster (GDAL's VRT) leads to: it opens other files, by any driver, and GDAL asks nobody.

Format: GDAL's VRT, as its documentation has it. Only what names files is read here.
"""

import os
import posixpath
from collections.abc import Iterator
from xml.etree import ElementTree

from rasteret_beam.errors import without_secrets
from rasteret_beam.model import Access
from rasteret_beam.readers.formats import HEAD_BYTES, VRT, driver_of_bytes, why_not_driver
from rasteret_beam.readers.stores import is_local_file, is_subdataset, is_url, local_path
from rasteret_beam.readers.trust import is_trusted, named_in, why_gdal_refused, why_refused

FILES = ("sourcefilename", "sourcedataset")
"""Elements whose text names a file."""

PLAIN = ("", "vrtsourcedrasterband", "vrtderivedrasterband")
RAW = "vrtrawrasterband"
"""A band that takes the bytes of any file for pixels."""

MAX_BYTES = 64 << 20
MAX_DEPTH = 8


def is_virtual(head: bytes) -> bool:
    """Whether GDAL takes a file that begins so for a virtual raster."""
    return driver_of_bytes(head) == VRT


def why_not_virtual(data: bytes, place: str, access: Access, depth: int = 0) -> str | None:
    """Why a virtual raster is not opened: it leads to what it may not, or to what cannot be told; None where it may be.

    Parameters
    ----------
    data : bytes
        The whole description.
    place : str
        Where it lies: a path or a URL; the working folder for one in an href.
    """
    if depth > MAX_DEPTH:
        return f"virtual rasters lie in each other more than {MAX_DEPTH} deep"
    try:
        root = ElementTree.fromstring(data.rstrip(b"\0"))
    except ElementTree.ParseError as error:
        return f"its description of a virtual raster is no XML: {error}"
    inside = named_in(place, access)
    if why := _why_not_kind(root, inside):
        return why
    for name, is_beside in _named(root, place):
        why = why_refused(name, inside) if is_beside else why_gdal_refused(name, inside)
        why = why or _why_not_source(name, inside, depth)
        if why:
            return f"it is a virtual raster that names {without_secrets(name)}: {why}"
    return None


def _why_not_kind(root: ElementTree.Element, access: Access) -> str | None:
    kinds = {_local(each.tag): _kind(each) for each in root.iter() if _kind(each)}
    if RAW in kinds.values():
        return "it is a virtual raster with a raw band, which takes the bytes of any file for pixels"
    odd = [kind for kind in kinds.values() if kind not in PLAIN]
    if odd and not is_trusted(access):
        return f"it is a virtual raster of kind {odd[0]}, and lies elsewhere; what it leads to cannot be told"
    return None


def _kind(element: ElementTree.Element) -> str:
    found = {name.lower(): value for name, value in element.attrib.items()}.get("subclass", "").strip().lower()
    return found if _local(element.tag) in ("vrtdataset", "vrtrasterband") else ""


def _local(tag: str) -> str:
    return tag.rpartition("}")[2].lower()


def sources(data: bytes, place: str) -> list[str]:
    """The files that a description, which has been looked at, names as paths or URLs."""
    return [name for name, _ in _named(ElementTree.fromstring(data.rstrip(b"\0")), place)]


def _named(root: ElementTree.Element, place: str) -> Iterator[tuple[str, bool]]:
    """The files that a description names, and whether relative to itself."""
    for element in root.iter():
        if _local(element.tag) in FILES and (text := (element.text or "").strip()):
            flag = {name.lower(): value for name, value in element.attrib.items()}.get("relativetovrt", "0")
            is_beside = flag.strip() not in ("0", "") and not (
                text.startswith("/") or is_url(text) or is_subdataset(text) or "<" in text
            )
            yield (_beside(place, text) if is_beside else text), is_beside


def _beside(place: str, name: str) -> str:
    folder = place.partition("?")[0].rpartition("/")[0]
    return f"{folder}/{name}" if is_url(place) else posixpath.join(folder, name)


def _why_not_source(name: str, access: Access, depth: int) -> str | None:
    """Of the content of a local file that a virtual raster names: its driver, and what it leads to."""
    if "<" in name and driver_of_bytes(name.encode()) == VRT:
        return why_not_virtual(name.encode(), "", access, depth + 1)
    if not is_local_file(name) or not os.path.isfile(path := local_path(name)):
        return None
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
        whole = head + file.read(MAX_BYTES) if is_virtual(head) else b""
    return why_not_content(head, whole, path, access, depth + 1)


def why_not_content(head: bytes, whole: bytes, place: str, access: Access, depth: int = 0) -> str | None:
    """Why a file is not opened by GDAL with all its drivers, as GDAL opens what a virtual raster names.

    Parameters
    ----------
    head : bytes
        The first :data:`.formats.HEAD_BYTES` of it; ``whole`` is needed of a virtual raster alone.
    """
    driver = driver_of_bytes(head)
    if driver == VRT:
        return why_not_driver(VRT, access) or why_not_virtual(whole, place, access, depth)
    if driver is None:
        named = [name for name in access.drivers if not name.startswith("/")]
        return None if named or not head else "its first bytes are not those of a raster that is opened"
    return why_not_driver(driver, access)
