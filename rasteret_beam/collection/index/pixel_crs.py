"""The CRS of outlines of pixels: that of the rasters, if all have one."""

import pyarrow as pa
import pyarrow.compute as pc

from rasteret_beam.collection.records.selection import RecordSelection
from rasteret_beam.kernels.geo.crs import LONLAT, crs_text, footprint_crs
from rasteret_beam.options import SampleOptions


def pixel_crs(collection: RecordSelection, options: SampleOptions) -> str | None:
    """The CRS of the column of geometries with ``geometry="pixel"``; None with any other.

    It is that of all records; where these have several, longitude and latitude, on another body those of its rasters.
    """
    if options.geometry != "pixel":
        return None
    names = [name for name in ("crs", "proj:epsg") if name in collection.schema.names]
    distinct = collection.to_table(names).group_by(names).aggregate([]) if names else pa.table({})
    texts = pa.chunked_array([pa.nulls(len(distinct), pa.string())])
    if "crs" in names:
        texts = distinct["crs"].cast(pa.string())
    if "proj:epsg" in names:
        texts = pc.coalesce(texts, pc.binary_join_element_wise("EPSG", distinct["proj:epsg"].cast(pa.string()), ":"))
    found = {crs_text(text) for text in texts.to_pylist() if text is not None}
    on_bodies = found if len(found) == 1 else {footprint_crs(text) for text in found}
    return on_bodies.pop() or LONLAT if len(on_bodies) == 1 else LONLAT
