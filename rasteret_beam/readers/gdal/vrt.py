"""Check the files that a virtual raster (GDAL's VRT) names, as GDAL opens them with any driver.

Format: GDAL's documentation of VRT. Only elements that name files are read.
"""

import os
import posixpath
import re
from collections.abc import Iterator
from xml.etree import ElementTree

from rasteret_beam.errors import without_secrets
from rasteret_beam.model import Access
from rasteret_beam.readers.gdal.drivers import HEAD_BYTES, SIDES, VRT, driver_of_bytes, is_tiff, why_not_driver
from rasteret_beam.readers.storage.href_policy import is_trusted, named_in, why_gdal_refused, why_refused
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.readers.storage.stores import local_path

FILES = ("sourcefilename", "sourcedataset")
"""Elements whose text names a file."""

ATTRIBUTES = ("subclass", "relativetovrt")

MARKUP = re.compile(rb"<!|<\?(?!xml\s)|encoding\s*=\s*[\"'](?!(?i:utf-8)[\"'])")
"""Comments, CDATA, declarations of entities, and other encodings than UTF-8."""

PLAIN = ("", "vrtsourcedrasterband", "vrtderivedrasterband")
RAW = "vrtrawrasterband"
"""A band that reads the bytes of any file as pixels."""

MAX_BYTES = 64 << 20
MAX_DEPTH = 8


def is_virtual(head: bytes) -> bool:
    """Whether GDAL opens a file with this beginning as a virtual raster."""
    return driver_of_bytes(head) == VRT


def why_not_virtual(data: bytes, place: str, access: Access, depth: int = 0) -> str | None:
    """Why a virtual raster must not be opened: it names forbidden or unknown files; None if it may be.

    Parameters
    ----------
    data : bytes
        The whole description.
    place : str
        Path or URL of the file; the working folder for a description in an href.
    """
    if depth > MAX_DEPTH:
        return f"virtual rasters are nested more than {MAX_DEPTH} levels deep"
    try:
        root = ElementTree.fromstring(data.rstrip(b"\0"))
    except ElementTree.ParseError as error:
        return f"its description of a virtual raster is not XML: {error}"
    inside = named_in(place, access)
    if why := _why_irregular(data, root, inside) or _why_not_kind(root, inside):
        return why
    for name, is_beside in _named(root, place):
        why = why_refused(name, inside) if is_beside else why_gdal_refused(name, inside)
        why = why or _why_not_source(name, inside, depth)
        if why:
            return f"it is a virtual raster that names {without_secrets(name)}: {why}"
    return None


def _why_irregular(data: bytes, root: ElementTree.Element, access: Access) -> str | None:
    """Why GDAL may interpret a description differently: it mixes elements and attributes and parses XML loosely."""
    for element in root.iter():
        tag, attributes = _local(element.tag), [_local(name) for name in element.attrib]
        odd = [name for name in attributes if name in FILES] + [tag] * (tag in ATTRIBUTES)
        odd += [tag] * (tag in FILES and len(element) > 0)
        odd += [name for name in attributes if attributes.count(name) > 1]
        if odd:
            return f"its description of a virtual raster is irregular: {odd[0]} is in an unexpected place"
    if not is_trusted(access) and MARKUP.search(data):
        return "its description of a virtual raster has comments or other markup, and is from an untrusted place"
    return None


def _why_not_kind(root: ElementTree.Element, access: Access) -> str | None:
    kinds = [_kind(element) for element in root.iter()]
    if RAW in kinds:
        return "it is a virtual raster with a raw band, which can read any file as pixels"
    odd = [kind for kind in kinds if kind not in PLAIN]
    if odd and not is_trusted(access):
        return (
            f"it is a virtual raster of kind {odd[0]} from an untrusted place, and the files that it names are unknown"
        )
    return None


def _kind(element: ElementTree.Element) -> str:
    return _attribute(element, "subclass").lower()


def _attribute(element: ElementTree.Element, name: str) -> str:
    """An attribute by its name, ignoring case."""
    return next((value.strip() for each, value in element.attrib.items() if _local(each) == name), "")


def _local(tag: str) -> str:
    return tag.rpartition("}")[2].lower()


def sources(data: bytes, place: str) -> list[str]:
    """The paths or URLs of the files that a checked description names."""
    return [name for name, _ in _named(ElementTree.fromstring(data.rstrip(b"\0")), place)]


def _named(root: ElementTree.Element, place: str) -> Iterator[tuple[str, bool]]:
    """The files that a description names, and whether they are relative to it."""
    for element in root.iter():
        if _local(element.tag) in FILES and (text := (element.text or "").strip()):
            named = Location.of(text)
            absolute = text.startswith("/") or named.is_remote or named.is_subdataset or "<" in text
            flag = _attribute(element, "relativetovrt")
            if flag not in ("", "0") and not absolute:
                yield _beside(place, text), True
            if flag != "1" or absolute:  # GDAL's interpretation of other flags is unknown
                yield text, False


def _beside(place: str, name: str) -> str:
    folder = place.partition("?")[0].rpartition("/")[0]
    return f"{folder}/{name}" if Location.of(place).is_remote else posixpath.join(folder, name)


def _why_not_source(name: str, access: Access, depth: int) -> str | None:
    """Why a local file that a virtual raster names must not be opened, by its driver and the files it names."""
    if "<" in name and driver_of_bytes(name.encode()) == VRT:
        return why_not_virtual(name.encode(), "", access, depth + 1)
    if not Location.of(name).is_local or not os.path.isfile(path := local_path(name)):
        return None
    for side in (path + ending for ending in SIDES):
        if os.path.isfile(side) and not is_tiff(side):
            return f"its mask or overviews, {side}, are not TIFF"
    with open(path, "rb") as file:
        head = file.read(HEAD_BYTES)
        whole = head + file.read(MAX_BYTES) if is_virtual(head) else b""
    return why_not_content(head, whole, path, access, depth + 1)


def why_not_content(head: bytes, whole: bytes, place: str, access: Access, depth: int = 0) -> str | None:
    """Why a file must not be opened with all GDAL drivers, as GDAL opens the files of a virtual raster.

    Parameters
    ----------
    head : bytes
        The first :data:`.drivers.HEAD_BYTES` of it; ``whole`` is needed only for a virtual raster.
    """
    driver = driver_of_bytes(head)
    if driver == VRT:
        return why_not_driver(VRT, access) or why_not_virtual(whole, place, access, depth)
    if driver is None:
        named = [name for name in access.drivers if not name.startswith("/")]
        return None if named or not head else "its first bytes are not those of an allowed raster format"
    return why_not_driver(driver, access)
