"""Draw footprints with Matplotlib."""

from typing import Any

import numpy as np
import shapely

from rasteret_beam.collection.explore.footprints import Footprints
from rasteret_beam.kernels.geo.map_axes import map_axes
from rasteret_beam.matplotlib_axes import axes_of, draw_colour_bar, draw_map_axes, draw_note, pyplot

STYLE = {"linewidths": 0.6, "alpha": 0.5, "edgecolors": "0.3"}


def draw(found: Footprints, name: str, tiles: str | None, ax: Any) -> Any:
    """Axes with collections of polygons: the dated ones coloured by the newest date of their records, others grey."""
    ax = axes_of(ax, figsize=(8, 5))
    parts, owner = shapely.get_parts(found.shapes, return_index=True)
    outlines = np.fromiter(map(shapely.get_coordinates, shapely.get_exterior_ring(parts)), object, len(parts))
    day = found.last[owner]
    dated = ~np.isnat(day)
    polygons = pyplot().matplotlib.collections.PolyCollection
    if not dated.all():
        ax.add_collection(polygons(outlines[~dated], facecolors="0.7", **STYLE))
    if dated.any():
        shown = polygons(outlines[dated], cmap="viridis", **STYLE)
        shown.set_array(pyplot().matplotlib.dates.date2num(day[dated]))
        ax.add_collection(shown)
        if len(np.unique(day[dated])) > 1:
            _draw_dates(ax, shown)
        else:
            name = f"{name}, newest date {day[dated][0]}"
    _, south, _, north = shapely.total_bounds(found.shapes)
    ax.autoscale_view()
    draw_map_axes(ax, map_axes(found.crs), float(south + north) / 2)
    ax.set_title(name)
    draw_note(ax, found.note())
    return ax


def _draw_dates(ax: Any, shown: Any) -> None:
    dates = pyplot().matplotlib.dates
    ticks = dates.AutoDateLocator(maxticks=6)
    draw_colour_bar(ax, shown, "newest date (UTC)", ticks=ticks, format=dates.ConciseDateFormatter(ticks))
