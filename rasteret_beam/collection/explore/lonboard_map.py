"""Draw footprints with Lonboard."""

import json
from importlib import import_module
from typing import Any

import numpy as np
import pyarrow as pa
import shapely

from rasteret_beam.collection.explore.footprints import Footprints
from rasteret_beam.collection.explore.ramp import date_colours, span_of
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.geo.crs import crs_label

OPACITY = 70


def draw(found: Footprints, name: str, tiles: str | None, ax: Any) -> Any:
    """A lonboard.Map with one layer of polygons."""
    lonboard: Any = import_module("lonboard")
    if not found.in_degrees:
        raise InputError(
            f"lonboard draws longitude and latitude, but the footprints are in {crs_label(found.crs)}; use folium or "
            "matplotlib"
        )
    parts, owner = shapely.get_parts(found.shapes, return_index=True)  # a layer has polygons or multipolygons
    facts = pa.Table.from_pylist(found.features()).take(pa.array(owner))
    crs = {"crs": "OGC:CRS84"}  # degrees of any body are drawn as they are
    geometry = pa.field(
        "geometry",
        pa.binary(),
        metadata={"ARROW:extension:name": "geoarrow.wkb", "ARROW:extension:metadata": json.dumps(crs)},
    )
    table = facts.append_column(geometry, pa.array(shapely.to_wkb(parts), pa.binary()))
    colours = date_colours(found.last)[owner]
    fill = np.concatenate([colours, np.full((len(colours), 1), OPACITY, np.uint8)], axis=1)
    layer = lonboard.PolygonLayer(
        table, get_fill_color=fill, get_line_color=colours, line_width_min_pixels=1, auto_highlight=True
    )
    days = span_of(found.last)
    texts = [name, f"{days[0]} (dark) to {days[1]} (light)" if days else "", found.note()]
    settings = {} if tiles is not None else {"basemap": None}
    return lonboard.Map(layer, custom_attribution=[text for text in texts if text], **settings)
