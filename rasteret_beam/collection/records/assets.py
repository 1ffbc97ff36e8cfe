"""Read the assets of record tables: which are rasters, their hrefs, and nodata, scale and offset of bands.

Names follow STAC: media types, roles, and ``raster:bands`` of its raster extension 1.0, or ``bands`` (1.1) with
``nodata``, ``raster:scale`` and ``raster:offset``, each in the asset or the item. An asset may also have ``scale`` and
``offset`` without a prefix, beside ``href``.
"""

import json
import logging
import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from rasteret_beam.collection.records.records import Stated
from rasteret_beam.errors import InputError, listed
from rasteret_beam.readers.storage.location import Location
from rasteret_beam.scales import why_unusable
from rasteret_beam.schema import ASSET_TYPE

log = logging.getLogger(__name__)

RASTER_TYPES = (
    "image/tiff",
    "image/geotiff",
    "image/vnd.stac.geotiff",
    "image/x.geotiff",
    "image/jp2",
    "application/x-hdf",
    "application/x-netcdf",
    "application/netcdf",
    "application/x-zarr",
    "application/vnd+zarr",
)
"""Media types of rasters, or their beginnings."""

DOCUMENT_TYPES = ("text/", "application/json", "application/geo+json", "application/xml", "application/pdf")
"""Media types, or their beginnings, that are not rasters whatever the asset's roles are."""

RASTER_ENDINGS = (
    ".tif",
    ".tiff",
    ".jp2",
    ".vrt",
    ".nc",
    ".nc4",
    ".h5",
    ".hdf",
    ".hdf5",
    ".he5",
    ".img",
    ".grib",
    ".grib2",
)

NOT_DATA = frozenset({"thumbnail", "overview", "metadata"})

FACTS = ("nodata", "scale", "offset")
ITEM_COLUMNS = ("nodata", "raster:scale", "raster:offset", "raster:bands", "bands")

Assets = dict[str, dict[str, Any]]


def read_assets(column: pa.ChunkedArray, ids: Sequence[str]) -> list[Assets]:
    """The assets of each record by name; a null asset has no ``href``.

    Parameters
    ----------
    column : ChunkedArray
        Structs, maps, or JSON texts; an asset is a struct (an object) with ``href``, or a text with the href.
    ids : sequence of str
        Record ids, for errors.

    Raises
    ------
    InputError
        An asset has another form; names the record.
    """
    return [_row(value, f"record {ids[number]!r}") for number, value in enumerate(column.to_pylist())]


def _row(value: Any, record: str) -> Assets:
    found = _decoded(value, f"the assets of {record}")
    if found is None:
        return {}
    if isinstance(found, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in found):
        found = dict(found)  # a map
    if not isinstance(found, Mapping):
        raise InputError(f"the assets of {record} are a {type(found).__name__}; give a struct, a map or JSON by name")
    return {str(name): _asset(asset, f"asset {name!r} of {record}") for name, asset in found.items()}


def _decoded(value: Any, what: str) -> Any:
    if not isinstance(value, str) or not value.lstrip().startswith(("{", "[")):
        return value
    try:
        return json.loads(value)
    except json.JSONDecodeError as error:
        raise InputError(f"{what} are a text that is not JSON: {error}") from error


def _asset(value: Any, what: str) -> dict[str, Any]:
    value = _decoded(value, what)
    if value is None:
        return {}
    if isinstance(value, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
        value = dict(value)
    asset = {"href": value} if isinstance(value, str) else value
    if not isinstance(asset, Mapping) or not isinstance(asset.get("href"), str | None):
        raise InputError(f"{what} is {str(value)[:80]!r}; it has to be a struct with a text 'href', or the href itself")
    return dict(asset)


def choose_bands(assets: Sequence[Assets]) -> list[str]:
    """Names of the assets that are rasters, in order of first mention: data, not thumbnails and metadata.

    Raises
    ------
    InputError
        There are none.
    """
    named = list(dict.fromkeys(name for row in assets for name in row))
    rasters = {name for row in assets for name, asset in row.items() if asset.get("href") and is_raster(asset)}
    left = [name for name in named if name not in rasters]
    if not rasters:
        raise InputError(
            "no asset of the record table is a raster by its media type, roles or extension; it has "
            f"{listed(named) or 'none'}. Choose assets with band_codes (--bands)."
        )
    if left:
        log.info("ignoring assets that are not raster data: %s", listed(left))
    return [name for name in named if name in rasters]


def is_raster(asset: Mapping[str, Any]) -> bool:
    kind, roles = asset.get("type"), asset.get("roles") or ()
    roles = {roles} if isinstance(roles, str) else set(roles)
    kind = kind.lower() if isinstance(kind, str) else ""
    if roles & NOT_DATA or kind.startswith(DOCUMENT_TYPES):
        return False
    if kind or roles:
        return kind.startswith(RASTER_TYPES) or "data" in roles
    href = asset["href"]
    if Location.of(href).is_subdataset or href.startswith("/vsi"):
        return True
    path = (urlsplit(href).path if Location.of(href).is_remote else href).rstrip("/").lower()
    # A name without an extension may be a raster; GDAL decides.
    return path.endswith(RASTER_ENDINGS) or not posixpath.splitext(path)[1]


def placed_assets(
    row: Assets, bands: Sequence[str], place: Callable[[str], str], item: Mapping[str, Any], record_id: str
) -> Assets:
    """The given bands of a record's assets: href, band_index, and the table's facts of the band.

    Parameters
    ----------
    place : function
        Makes an href absolute.
    item : mapping
        The record's values of those of :data:`ITEM_COLUMNS` that the table has.

    Raises
    ------
    InputError
        A band index or a number is invalid; names the record and the asset.
    """
    placed = {}
    for band in (band for band in bands if row.get(band, {}).get("href")):
        asset, what = row[band], f"asset {band!r} of record {record_id!r}"
        index = _number(asset.get("band_index") or 0, f"band_index of {what}")
        if not 0 <= index < 1 << 31 or index != int(index):
            raise InputError(
                f"band_index of {what} is {asset['band_index']!r}; it has to be a whole number of 0 or more"
            )
        said = stated(asset, item, int(index), what)
        if wrong := why_unusable(1.0 if said.scale is None else said.scale, said.offset or 0.0):
            raise InputError(f"{wrong}, as the record table has it for {what}; mend or remove it")
        facts = {name: getattr(said, name) for name in FACTS}
        placed[band] = {"href": place(asset["href"]), "band_index": int(index), **facts}
    return placed


def stated(asset: Mapping[str, Any], item: Mapping[str, Any], index: int, what: str) -> Stated:
    """The table's facts of a band: from the asset's entry for the band, or the asset, or the item.

    Raises
    ------
    InputError
        A fact is not a number; names it and ``what``.
    """
    found: dict[str, float] = {}
    for level in (asset, item):
        for source in (entry_of(level, "bands", index), entry_of(level, "raster:bands", index), level):
            for name in FACTS:
                # A column of records that is named "scale" may be anything.
                short = None if source is item and name != "nodata" else source.get(name)
                given = short if source.get(f"raster:{name}") is None else source[f"raster:{name}"]
                if given is not None and name not in found:
                    found[name] = _number(given, f"{name} of {what}")
    return Stated(**found)


def entry_of(level: Mapping[str, Any], name: str, index: int) -> Mapping[str, Any]:
    """The entry of a list of bands (or of its JSON) for a band; empty where there is none."""
    bands = _decoded(level.get(name), name)
    entry = bands[index] if isinstance(bands, list) and index < len(bands) else None
    return entry if isinstance(entry, Mapping) else {}


def _number(value: Any, what: str) -> float:
    """A number, or one of STAC's texts for numbers that JSON lacks: nan, inf, -inf."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} is {value!r}; it has to be a number") from error


def asset_column(rows: Sequence[Assets], bands: Sequence[str]) -> pa.Array:
    """Assets as a struct of bands, with fields for the table's facts if there are any."""
    said = [name for name in FACTS if any(asset[name] is not None for row in rows for asset in row.values())]
    kind = pa.struct([*ASSET_TYPE, *(pa.field(name, pa.float64()) for name in said)])
    return pa.array([dict(row) for row in rows], type=pa.struct([(band, kind) for band in bands]))
