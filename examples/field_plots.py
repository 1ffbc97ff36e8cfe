"""Cloud-free reflectance of 500 plots, each from the scene nearest to the day of its survey, drawn beside the truth.

Run with ``python -m examples.field_plots`` from the root of a checkout (``make pictures`` does). The page
docs/field_plots.md explains the options.
"""

import argparse
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shapely
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import rasteret_beam
from tests.support import stack

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "field_plots.png"
NEAREST = {"match": "nearest", "time_column": "surveyed", "tolerance": "10D", "unscale": True, "join": "left"}
CLEAR = {"quality": ["preset:sentinel-2-l2a"], "skip_invalid": True}


def sampled(collection: rasteret_beam.Collection, **options: Any) -> pd.DataFrame:
    """A row for each plot, with reflectance and NDVI."""
    frame = collection.sample_points(
        stack.plots(),
        ["B04", "B08", "B11"],
        x_column="lon",
        y_column="lat",
        geometry_crs=4326,
        layout="columns",
        extra_columns=["status", "time_difference"],
        **NEAREST,
        **options,
    ).to_pandas()
    frame["ndvi"] = (frame.B08 - frame.B04) / (frame.B08 + frame.B04)
    return frame.sort_values("point_index", ignore_index=True)


def truth(frame: pd.DataFrame) -> np.ndarray:
    """NDVI of the ground at each plot, on the day of its scene; NaN where there is none."""
    x, y = stack.projector("EPSG:4326", stack.ZONE).transform(frame.lon.to_numpy(), frame.lat.to_numpy())
    found = np.full(len(frame), np.nan)
    for moment in frame.datetime.dropna().unique():
        rows = (frame.datetime == moment).to_numpy()
        found[rows] = stack.ndvi(x[rows], y[rows], datetime.fromisoformat(str(pd.Timestamp(moment))))
    return found


def draw_map(axes: Axes, clear: pd.DataFrame) -> None:
    """Plots by NDVI over the outlines of the three tiles."""
    x, y = stack.projector("EPSG:4326", stack.ZONE).transform(clear.lon.to_numpy(), clear.lat.to_numpy())
    for place in stack.PLACES:
        square = shapely.box(place.west, place.north - stack.SIDE, place.west + stack.SIDE, place.north)
        outline = shapely.transform(square, stack.projector(place.crs, stack.ZONE).transform, interleaved=False)
        east, north = ((shapely.get_coordinates(outline) - (stack.WEST, stack.NORTH)) / 1000).T
        axes.plot(east, north, color="0.4", linewidth=1)
        axes.annotate(place.name, (east.mean(), north.min() - 0.05), color="0.3", fontsize=8, ha="center", va="top")
    has = clear.ndvi.notna().to_numpy()
    east, north = (x - stack.WEST) / 1000, (y - stack.NORTH) / 1000
    points = axes.scatter(
        east[has], north[has], c=clear.ndvi[has], cmap="YlGn", vmin=0, vmax=0.9, s=22, edgecolors="0.3", linewidths=0.4
    )
    axes.scatter(east[~has], north[~has], marker="x", color="tab:red", s=16, linewidths=0.9, label="no clear scene")
    axes.set(
        title="NDVI of 500 plots, three tiles in two UTM zones",
        xlabel="km east",
        ylabel="km north",
        aspect="equal",
        ylim=(-3.3, 0.5),
    )
    axes.legend(loc="upper right", fontsize=8)
    axes.figure.colorbar(points, ax=axes, label="NDVI", shrink=0.85)


def draw(nearest: pd.DataFrame, clear: pd.DataFrame, path: Path) -> None:
    """The map; NDVI beside the truth; and how far in time the scenes are."""
    figure = Figure(figsize=(9, 8), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1, 1.05))
    draw_map(above.subplots(), clear)
    left, right = below.subplots(1, 2)
    ways = (("nearest scene", nearest, "tab:orange", "x"), ("nearest clear scene", clear, "tab:green", "o"))
    for name, frame, color, marker in ways:
        left.scatter(truth(frame), frame.ndvi, s=12, color=color, marker=marker, linewidths=0.8, label=name)
    left.plot([0, 1], [0, 1], color="0.5", linewidth=0.8, zorder=0)
    left.set(title="Sampled and true NDVI", xlabel="NDVI of the ground", ylabel="NDVI of the sample")
    left.set(xlim=(0.1, 0.9), ylim=(-0.05, 0.9))
    left.legend(fontsize=8)
    days = [frame.time_difference.dropna() / 86_400 for _, frame, _, _ in ways]
    right.hist(
        days, bins=np.arange(-10.5, 11), color=[color for *_, color, _ in ways], label=[name for name, *_ in ways]
    )
    right.set(title="From the survey to the scene", xlabel="days", ylabel="plots")
    right.legend(fontsize=8)
    figure.savefig(path, dpi=90)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--picture", type=Path, default=PICTURE)
    picture = flags.parse_args().picture
    with tempfile.TemporaryDirectory() as folder:
        collection = rasteret_beam.build_from_table(stack.write_stack(Path(folder)), name="stack")
        nearest, clear = sampled(collection), sampled(collection, **CLEAR)
    draw(nearest, clear, picture)
    print(f"{clear.ndvi.notna().sum()} of {len(clear)} plots have a clear scene within 10 days: {picture}")


if __name__ == "__main__":
    main()
