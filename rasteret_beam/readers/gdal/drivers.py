"""GDAL drivers: which may open rasters, and which one a file or a name needs.

GDAL tries some 150 drivers on a file, whatever its name is. Many of them read other resources that the file names:
files, servers, parts of this machine's disk.
"""

import re
from collections.abc import Iterable

from rasterio.drivers import raster_driver_extensions

from rasteret_beam.model import Access

VRT = "VRT"
USUAL = ("GTiff", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID", "JP2Lura", "PNG", "JPEG")
"""Drivers that read only the file itself."""

SHOWN = "GeoTIFF, JPEG 2000, PNG and JPEG"

BY_NAME = ("netCDF", "HDF5", "HDF5Image", "HDF4", "HDF4Image")
"""Drivers whose datasets always have the driver in their names."""

FAMILIES = {
    "HDF5": ("HDF5", "HDF5Image", "netCDF"),
    "HDF5Image": ("HDF5", "HDF5Image"),
    "HDF4Image": ("HDF4", "HDF4Image"),
}
"""Groups of drivers that open each other's files."""

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
"""Drivers by the prefix of a dataset's name; for other drivers the prefix is their name up to a ``_``."""

ROOTS = {
    "vrtdataset": VRT,
    "gdal_wms": "WMS",
    "gdal_wmts": "WMTS",
    "wcs_gdal": "WCS",
    "mrf_meta": "MRF",
    "gdaltileindexdataset": "GTI",
}
"""Drivers by the first element of an XML description."""

ROOT = re.compile(r"<\s*(?:\w+:)?([A-Za-z_][\w.-]*)")

HEAD_BYTES = 1024
"""Length of the beginning of a file that GDAL uses to identify it."""

TIFF = (b"II*\0", b"II+\0", b"MM\0*", b"MM\0+")
"""First bytes of a TIFF and a BigTIFF in either byte order (TIFF 6.0, section 2)."""

SIDES = (".msk", ".MSK", ".ovr", ".OVR")
"""Masks and overviews beside a raster, which GDAL opens with any driver."""

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
    """Whether a local file starts like a TIFF."""
    with open(path, "rb") as file:
        return file.read(4) in TIFF


def driver_of_bytes(head: bytes) -> str | None:
    """The GDAL driver for a file by its first bytes; None if they do not identify it."""
    for magic, driver in MAGIC:
        if head.startswith(magic):
            return driver
    text = head[:HEAD_BYTES].partition(b"\0")[0].decode("latin-1")
    return driver_of_text(text) if "<" in text else None


def driver_of_text(text: str) -> str | None:
    """The driver of an XML description; GDAL accepts some of them anywhere in a text."""
    for found in ROOT.finditer(text):
        if found[1].lower() in ROOTS:
            return ROOTS[found[1].lower()]
    return None


def driver_of_prefix(prefix: str) -> str:
    """The driver of a dataset named ``PREFIX:...``."""
    return PREFIXES.get(prefix.upper()) or prefix.partition("_")[0]


def driver_of_name(path: str) -> str | None:
    """The driver for the extension of a path."""
    ending = path.partition("?")[0].rpartition("/")[2].rpartition(".")[2].lower()
    return raster_driver_extensions().get(ending)


def is_by_name(driver: str) -> bool:
    """Whether the name of a dataset, if the user gives it, allows its driver."""
    return driver in BY_NAME


def drivers_for(href: str, access: Access, with_vrt: bool) -> list[str]:
    """The drivers that may open a dataset, by GDAL's names.

    Parameters
    ----------
    with_vrt : bool
        Whether it may be a virtual raster, whose files were checked before.
    """
    named = [name for name in access.drivers if not is_driver(name, (VRT,)) and not name.startswith("/")]
    prefix = re.match(r"(\w+):(?!//)", href)
    if prefix is not None and is_by_name(driver := driver_of_prefix(prefix[1])):
        named.append(driver)
    both = [f"{name}Image" for name in named if is_driver(name, ("HDF4", "HDF5"))]
    return [*USUAL, *named, *both, *([VRT] if with_vrt else [])]


def is_driver(name: str, among: Iterable[str]) -> bool:
    """Whether a driver is in a list, ignoring case."""
    return name.lower() in {each.lower() for each in among}


def allows_vrt(access: Access) -> bool:
    """Whether virtual rasters are opened."""
    return access.vrt or is_driver(VRT, access.drivers)


def why_not_driver(driver: str, access: Access) -> str | None:
    """Why a driver may not open rasters, with the option that allows it; None if it may."""
    family = FAMILIES.get(driver, (driver,))
    if any(is_driver(each, (*USUAL, *access.drivers)) for each in family) or (driver == VRT and allows_vrt(access)):
        return None
    option = "vrt=True" if driver == VRT else f"drivers='{driver}'"
    return (
        f"it needs GDAL's driver {driver}, but only {SHOWN} are read by default; if you trust it and the files that it "
        f"may name, allow it with access=Access({option})"
    )
