"""GDAL's drivers: those that open rasters, and which one a file or a name is for.

GDAL tries some 150 drivers on a file, whatever its name is. Many of them read what a file tells them to: other files,
servers, parts of this machine's disk.
"""

import re
from collections.abc import Iterable

from rasterio.drivers import raster_driver_extensions

from rasteret_beam.model import Access

VRT = "VRT"
USUAL = ("GTiff", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID", "JP2Lura", "PNG", "JPEG")
"""Drivers that read the file itself, and no other that it names."""

SHOWN = "GeoTIFF, JPEG 2000, PNG and JPEG"

BY_NAME = ("netCDF", "HDF5", "HDF5Image", "HDF4", "HDF4Image")
"""Whose datasets have no other name than that with the driver in it."""

FAMILIES = {
    "HDF5": ("HDF5", "HDF5Image", "netCDF"),
    "HDF5Image": ("HDF5", "HDF5Image"),
    "HDF4Image": ("HDF4", "HDF4Image"),
}
"""Drivers of which each may open what another is for."""

PREFIXES = {
    "GTIFF_DIR": "GTiff",
    "GTIFF_RAW": "GTiff",
    "J2K_SUBFILE": "JP2OpenJPEG",
    "JPEG_SUBFILE": "JPEG",
    "NETCDF": "netCDF",
    "HDF5": "HDF5Image",
    "HDF4_SDS": "HDF4Image",
    "HDF4_EOS": "HDF4Image",
    "HDF4": "HDF4",
}
"""Drivers by the beginning of a dataset's name; others have their own name there, up to a ``_``."""

ROOTS = {
    "vrtdataset": VRT,
    "gdal_wms": "WMS",
    "gdal_wmts": "WMTS",
    "wcs_gdal": "WCS",
    "mrf_meta": "MRF",
    "gdaltileindexdataset": "GTI",
}
"""Drivers by the first element of a description in XML."""

ROOT = re.compile(r"<\s*(?:\w+:)?([A-Za-z_][\w.-]*)")

HEAD_BYTES = 1024
"""Of a file, by which GDAL tells what it is."""

TIFF = (b"II*\0", b"II+\0", b"MM\0*", b"MM\0+")
"""First bytes of a TIFF and a BigTIFF, of either byte order (TIFF 6.0, section 2)."""

SIDES = (".msk", ".MSK", ".ovr", ".OVR")
"""Masks and overviews beside a raster, which GDAL opens by any driver."""

MAGIC = (
    *((magic, "GTiff") for magic in TIFF),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JP2OpenJPEG"),
    (b"\xff\x4f\xff\x51", "JP2OpenJPEG"),
    (b"\x89HDF\r\n\x1a\n", "HDF5"),
    (b"CDF\x01", "netCDF"),
    (b"CDF\x02", "netCDF"),
    (b"CDF\x05", "netCDF"),
    (b"\x0e\x03\x13\x01", "HDF4"),
    (b"EHFA_HEADER_TAG", "HFA"),
    (b"GRIB", "GRIB"),
    (b"GIF8", "GIF"),
    (b"NITF", "NITF"),
    (b"%PDF", "PDF"),
    (b"SQLite format 3\0", "GPKG"),
)


def is_tiff(path: str) -> bool:
    """Whether a local file begins as a TIFF."""
    with open(path, "rb") as file:
        return file.read(4) in TIFF


def driver_of_bytes(head: bytes) -> str | None:
    """The driver of GDAL's that a file's first bytes are for; None where they do not tell."""
    for magic, driver in MAGIC:
        if head.startswith(magic):
            return driver
    text = head[:HEAD_BYTES].partition(b"\0")[0].decode("latin-1")
    return driver_of_text(text) if "<" in text else None


def driver_of_text(text: str) -> str | None:
    """The driver of a description in XML; GDAL takes some of them wherever in a text they begin."""
    for found in ROOT.finditer(text):
        if found[1].lower() in ROOTS:
            return ROOTS[found[1].lower()]
    return None


def driver_of_prefix(prefix: str) -> str:
    """The driver of a dataset that is named ``PREFIX:...``."""
    return PREFIXES.get(prefix.upper()) or prefix.partition("_")[0]


def driver_of_name(path: str) -> str | None:
    """The driver that the ending of a path is for."""
    ending = path.partition("?")[0].rpartition("/")[2].rpartition(".")[2].lower()
    return raster_driver_extensions().get(ending)


def is_by_name(driver: str) -> bool:
    """Whether a user's own name of a dataset is enough to allow its driver."""
    return driver in BY_NAME


def drivers_for(href: str, access: Access, with_vrt: bool) -> list[str]:
    """The drivers that open a dataset, by GDAL's names.

    Parameters
    ----------
    with_vrt : bool
        Whether it can be a virtual raster; where it can, what that names was looked at before.
    """
    named = [name for name in access.drivers if not is_driver(name, (VRT,)) and not name.startswith("/")]
    prefix = re.match(r"(\w+):(?!//)", href)
    if prefix is not None and is_by_name(driver := driver_of_prefix(prefix[1])):
        named.append(driver)
    both = [f"{name}Image" for name in named if is_driver(name, ("HDF4", "HDF5"))]
    return [*USUAL, *named, *both, *([VRT] if with_vrt else [])]


def is_driver(name: str, among: Iterable[str]) -> bool:
    """Whether a driver is among some; case does not count."""
    return name.lower() in {each.lower() for each in among}


def allows_vrt(access: Access) -> bool:
    """Whether virtual rasters are opened."""
    return access.vrt or is_driver(VRT, access.drivers)


def why_not_driver(driver: str, access: Access) -> str | None:
    """Why a driver does not open rasters; None where it does. The text names the option that allows it."""
    family = FAMILIES.get(driver, (driver,))
    if any(is_driver(each, (*USUAL, *access.drivers)) for each in family) or (driver == VRT and allows_vrt(access)):
        return None
    option = "vrt=True" if driver == VRT else f"drivers='{driver}'"
    return (
        f"GDAL's driver {driver} would read it, and rasters are read as {SHOWN} alone; if you trust it, and what it "
        f"may lead to, allow it with access=Access({option})"
    )
