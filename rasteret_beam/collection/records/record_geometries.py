"""Read the footprints of a record table as WKB in longitude and latitude."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import shapely

from rasteret_beam.errors import InputError
from rasteret_beam.kernels.geo.crs import LONLAT, crs_label, same_crs
from rasteret_beam.kernels.tables.point_geometry import data_crs, is_text
from rasteret_beam.schema import FOOTPRINT_CRS


def as_wkb(table: pa.Table, ids: Sequence[str]) -> pa.ChunkedArray:
    """Column ``geometry`` of a record table as WKB.

    Parameters
    ----------
    table : Table
        The column holds WKB, WKT, or GeoJSON as text or as an object.
    ids : sequence of str
        Record ids, for errors.

    Raises
    ------
    InputError
        A geometry cannot be parsed (names its record), or is not in longitude and latitude.
    """
    crs = data_crs(table.schema, "geometry")
    ours = FOOTPRINT_CRS in table.column_names  # which will be that of the files again
    if crs is not None and not same_crs(crs, LONLAT) and not ours:
        raise InputError(
            f"column geometry of the record table is in {crs_label(crs)}; give footprints in longitude and latitude "
            "(OGC:CRS84), or drop the column to use the footprints of the files"
        )
    column = table["geometry"].combine_chunks()
    column = column.storage if isinstance(column, pa.ExtensionArray) else column
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_null(column.type):
        return pa.chunked_array([column.cast(pa.binary())])
    values = np.array(column.to_pylist(), dtype=object)
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        shapes = shapely.from_wkb(values, on_invalid="ignore")
    elif is_text(column.type):
        json = np.array([isinstance(value, str) and value.lstrip().startswith("{") for value in values], dtype=bool)
        shapes = np.full(len(values), None, dtype=object)
        shapes[json] = shapely.from_geojson(values[json], on_invalid="ignore")
        shapes[~json] = shapely.from_wkt(values[~json], on_invalid="ignore")
    else:
        raise InputError(
            f"column geometry of the record table is {column.type}; it has to hold WKB, WKT or GeoJSON in longitude "
            "and latitude; or drop the column to use the footprints of the files"
        )
    broken = np.flatnonzero(shapely.is_missing(shapes) & (values != np.array(None)))
    if len(broken):
        first = int(broken[0])
        raise InputError(
            f"column geometry of record {ids[first]!r} is {values[first][:60]!r}, which is not WKB, WKT or GeoJSON"
        )
    return pa.chunked_array([pa.array(shapely.to_wkb(shapely.force_2d(shapes)), type=pa.binary())])
