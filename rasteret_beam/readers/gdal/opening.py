"""Open GDAL datasets with the allowed drivers, after checking the files that a raster names."""

import os
import re

from rasterio.env import ensure_env_with_credentials
from rasterio.errors import RasterioError, RasterioIOError
from rasterio.io import DatasetReader

from rasteret_beam.errors import one_line
from rasteret_beam.readers.gdal.drivers import (
    HEAD_BYTES,
    SHOWN,
    SIDES,
    VRT,
    allows_vrt,
    driver_of_bytes,
    driver_of_name,
    driver_of_text,
    drivers_for,
    is_tiff,
    why_not_driver,
)
from rasteret_beam.readers.gdal.vrt import MAX_BYTES, is_virtual, sources, why_not_virtual
from rasteret_beam.readers.gdal.vsi_opener import GdalFiles
from rasteret_beam.readers.storage.byte_ranges import FileState, RangeError
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.readers.storage.stores import local_path

UNKNOWN = re.compile("not recognized as")
MISSING = re.compile(r"no such file|does not exist|not exist in|HTTP response code: 4\d\d", re.IGNORECASE)
"""Texts of GDAL's errors about a missing file."""


def open_dataset(name: str, file: FileState, files: GdalFiles | None) -> DatasetReader:
    """Open a dataset if its href and all files that it names are allowed.

    Parameters
    ----------
    name : str
        Name for GDAL.
    files : GdalFiles, optional
        The files that GDAL reads it from.

    Raises
    ------
    RangeError
        It needs another GDAL driver, or names a forbidden file.
    RasterioError
        GDAL cannot open it.
    """
    with_vrt = _check_virtual(file, files) if allows_vrt(file.access) else False
    try:
        dataset = _open(name, drivers_for(file.href, file.access, with_vrt))
    except RasterioIOError as error:
        if UNKNOWN.search(str(error)):
            raise _named(error, file, files) from error
        raise
    if files is None:
        try:
            _check_sides(file)  # GDAL opens it when a mask is read
        except RangeError:
            dataset.close()
            raise
    return dataset


@ensure_env_with_credentials  # type: ignore[untyped-decorator]
def _open(name: str, drivers: list[str]) -> DatasetReader:
    return DatasetReader(name, driver=drivers)  # type: ignore[arg-type]


def _check_virtual(file: FileState, files: GdalFiles | None) -> bool:
    """Whether it is a virtual raster; refuses one that names forbidden files or is in an archive."""
    href, access = file.href, file.access
    if driver_of_text(href) and not os.path.exists(href):
        _refuse(why_not_virtual(href.encode(), "", access))
        return True
    if files is not None:
        with files.open(files.name) as opened:
            data = opened.read(HEAD_BYTES)
            data += opened.read(MAX_BYTES) if is_virtual(data) else b""
    elif Location.of(href).is_local and os.path.isfile(local_path(href)):
        with open(local_path(href), "rb") as local:
            data = local.read(HEAD_BYTES)
            data += local.read(MAX_BYTES) if is_virtual(data) else b""
    else:
        return False
    if not is_virtual(data):
        return False
    place = local_path(href) if files is None else files.name
    _refuse(why_not_virtual(data, place, access))
    if files is not None:
        files.sources = set(sources(data, place))
        files.keep(data)
    return True


def _refuse(why: str | None) -> None:
    if why:
        raise RangeError(why)


def _check_sides(file: FileState) -> None:
    """Refuse a mask or overviews beside a raster that are not TIFF, as another driver could read any file."""
    if Location.of(file.href).is_local:
        path = local_path(file.href)
        for side in (path + ending for ending in SIDES):
            if os.path.isfile(side) and not is_tiff(side):
                raise RangeError(f"its mask or overviews, {side}, are not TIFF, so they are not read")
    elif file.href.startswith("/vsi"):
        for side in (file.href + ending for ending in SIDES):
            try:
                _open(side, ["GTiff"]).close()
            except RasterioError as error:
                if not MISSING.search(str(error)):
                    raise RangeError(f"its mask or overviews, {side}, are not TIFF: {one_line(error)}") from error


def _named(error: RasterioIOError, file: FileState, files: GdalFiles | None) -> Exception:
    """Why no allowed driver opens a file: it needs another one, or its format is unknown."""
    driver = driver_of_bytes(_head(file, files))
    if driver is None:
        driver = driver_of_name(file.href)
    why = why_not_driver(driver, file.access) if driver else None
    if driver == VRT and not why:
        why = "the files that a virtual raster in an archive names cannot be checked; unpack it"
    if why:
        return RangeError(why)
    hint = "" if driver else f" (opened as {SHOWN}; others by name, with access=Access(drivers='NAME'))"
    return RasterioIOError(f"{one_line(error)}{hint}")


def _head(file: FileState, files: GdalFiles | None) -> bytes:
    if files is not None:
        return files.first_bytes
    path = local_path(file.href) if Location.of(file.href).is_local else ""
    if not os.path.isfile(path):
        return b""
    with open(path, "rb") as opened:
        return opened.read(HEAD_BYTES)
