"""Draw footprints with Folium."""

from html import escape
from importlib import import_module
from typing import Any

import numpy as np
import shapely

from rasteret_beam.collection.explore.footprints import Footprints
from rasteret_beam.collection.explore.ramp import ANCHORS, date_colours, hexadecimal, span_of
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.geo.crs import crs_label

SHOWN = {"id": "record", "records": "records", "first": "first date", "last": "last date"}
BOX = (
    "position:absolute;z-index:1000;left:10px;bottom:24px;background:white;color:black;padding:4px 8px;"
    "font:12px sans-serif"
)


def draw(found: Footprints, name: str, tiles: str | None, ax: Any) -> Any:
    """A folium.Map; one without tiles has plane coordinates where these are not longitude and latitude on Earth."""
    folium: Any = import_module("folium")
    view = "EPSG3857" if found.on_earth else "EPSG4326" if found.in_degrees else "Simple"
    try:
        drawn = folium.Map(tiles=tiles, crs=view, prefer_canvas=True, control_scale=found.on_earth)
    except ValueError as error:
        raise InputError(f"folium cannot use tiles {tiles!r}: {error}") from error
    colours = [hexadecimal(colour) for colour in date_colours(found.last)]
    shapes = zip(found.shapes, found.features(), colours, strict=True)
    features = [
        {"type": "Feature", "geometry": shapely.geometry.mapping(shape), "properties": facts | {"colour": colour}}
        for shape, facts, colour in shapes
    ]
    folium.GeoJson(
        {"type": "FeatureCollection", "features": features},
        name=name,
        style_function=lambda feature: {
            "color": feature["properties"]["colour"],
            "weight": 1,
            "fillOpacity": 0.25,
        },
        tooltip=folium.GeoJsonTooltip(list(SHOWN), aliases=list(SHOWN.values())),
    ).add_to(drawn)
    west, south, east, north = shapely.total_bounds(found.shapes).tolist()
    drawn.fit_bounds([[south, west], [north, east]])
    drawn.get_root().html.add_child(folium.Element(_legend(found, name)))
    return drawn


def _legend(found: Footprints, name: str) -> str:
    days = span_of(found.last)
    stops = ",".join(hexadecimal(colour) for colour in ANCHORS.astype(np.uint8))
    bar = f'<div style="height:8px;background:linear-gradient(to right,{stops})"></div>'
    dates = f"{bar}{days[0]} to {days[1]}" if days else "no dates"
    where = "" if found.on_earth else f"{escape(crs_label(found.crs))}<br>"
    note = f"<br>{escape(found.note())}" if found.note() else ""
    return f'<div style="{BOX}"><b>{escape(name) or "collection"}</b><br>{where}{dates}{note}</div>'
