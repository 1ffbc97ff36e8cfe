"""NDVI of 467 fields on twelve dates, from cloud-free pixels, drawn beside the truth.

Run with ``python -m examples.fields_over_time`` from the root of a checkout (``make pictures`` does). The page
docs/fields_over_time.md explains the options.
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
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure

import rasteret_beam
from tests.support import stack

PICTURE = Path(__file__).parents[1] / "docs" / "images" / "fields_over_time.png"
CLEAR = {"quality": ["preset:sentinel-2-l2a"]}
LEAST = 0.8
"""Of a field, the part that has to be clear."""

SHOWN = datetime(2022, 5, 28)
"""The day of the map."""

SERIES = ("6/-4", "4/-18", "16/-8")


def means(collection: rasteret_beam.Collection, **options: Any) -> pd.DataFrame:
    """A row for each field and date: NDVI of its mean reflectance, and the part of it that is valid."""
    rows = collection.zonal_statistics(
        stack.fields(),
        ["B04", "B08"],
        geometry_crs=4326,
        statistics=["mean", "valid_fraction"],
        coverage="fraction",
        merge="datetime",
        unscale=True,
        **options,
    ).to_pandas()
    wide = rows.pivot(index=["field", "datetime"], columns="band", values="mean")
    wide["ndvi"] = (wide.B08 - wide.B04) / (wide.B08 + wide.B04)
    wide["valid"] = rows.groupby(["field", "datetime"]).valid_fraction.min()
    return wide.reset_index()


def outlines() -> pd.Series:
    """The fields by name, in zone 31."""
    table = stack.fields()
    shapes = shapely.from_wkb(table["geometry"].to_pylist())
    there = shapely.transform(shapes, stack.projector("EPSG:4326", stack.ZONE).transform, interleaved=False)
    return pd.Series(there, index=table["field"].to_pylist())


def truth(frame: pd.DataFrame) -> np.ndarray:
    """NDVI of the ground of each row."""
    x, y = shapely.get_coordinates(shapely.centroid(outlines()[frame.field].to_list())).T
    found = np.full(len(frame), np.nan)
    for moment in frame.datetime.unique():
        rows = (frame.datetime == moment).to_numpy()
        found[rows] = stack.ndvi(x[rows], y[rows], pd.Timestamp(moment).to_pydatetime())
    return found


def draw_map(axes: Axes, clear: pd.DataFrame) -> None:
    """The fields of one day by NDVI; grey where too little of them is clear."""
    day = clear[clear.datetime.dt.date == SHOWN.date()].set_index("field")
    shapes = outlines()
    corners = [(shapely.get_coordinates(shape) - (stack.WEST, stack.NORTH)) / 1000 for shape in shapes]
    values = day.ndvi.where(day.valid >= LEAST).reindex(shapes.index)
    has = values.notna().to_numpy()
    axes.add_collection(PolyCollection([c for c, yes in zip(corners, has, strict=True) if not yes], color="0.85"))
    fields = PolyCollection([c for c, yes in zip(corners, has, strict=True) if yes], cmap="YlGn")
    fields.set_array(values[has])
    fields.set_clim(0, 0.9)
    axes.add_collection(fields)
    halo = {"boxstyle": "round,pad=0.15", "color": "white", "alpha": 0.8}
    for name in SERIES:
        place = (shapely.get_coordinates(shapely.centroid(shapes[name]))[0] - (stack.WEST, stack.NORTH)) / 1000
        axes.annotate(name, place, fontsize=7, ha="center", va="center", bbox=halo)
    axes.autoscale_view()
    axes.set(
        title=f"NDVI of {has.sum()} of {len(shapes)} fields on {SHOWN:%-d %B %Y}; grey: not clear",
        xlabel="km east",
        ylabel="km north",
        aspect="equal",
    )
    axes.figure.colorbar(fields, ax=axes, label="NDVI", shrink=0.85)


def draw_series(axes: Axes, every: pd.DataFrame, clear: pd.DataFrame) -> None:
    """NDVI of some fields over the dates, beside the truth."""
    for name, color in zip(SERIES, ("tab:green", "tab:blue", "tab:purple"), strict=True):
        of_field = every[every.field == name]
        axes.plot(of_field.datetime, truth(of_field), color=color, linewidth=1, label=f"{name}, ground")
        axes.scatter(of_field.datetime, of_field.ndvi, marker="x", color=color, s=18, linewidths=0.8, alpha=0.6)
        good = clear[(clear.field == name) & (clear.valid >= LEAST)]
        axes.scatter(good.datetime, good.ndvi, color=color, s=24, zorder=3)
    axes.set(title="Three fields; x: all pixels, dots: clear pixels", ylabel="NDVI", ylim=(-0.05, 0.95))
    axes.tick_params(axis="x", labelrotation=30, labelsize=8)
    axes.legend(fontsize=7, loc="lower center")


def draw_truth(axes: Axes, every: pd.DataFrame, clear: pd.DataFrame) -> None:
    """NDVI beside that of the ground."""
    good = clear[clear.valid >= LEAST]
    for name, frame, color in (("all pixels", every, "tab:orange"), ("clear pixels", good, "tab:green")):
        axes.scatter(truth(frame), frame.ndvi, s=5, color=color, linewidths=0, label=name)
    axes.plot([0, 1], [0, 1], color="0.5", linewidth=0.8, zorder=0)
    axes.set(title="All fields and dates", xlabel="NDVI of the ground", ylabel="NDVI of the means")
    axes.set(xlim=(0.1, 0.9), ylim=(-0.05, 0.95))
    axes.legend(fontsize=8, markerscale=3)


def draw(every: pd.DataFrame, clear: pd.DataFrame, path: Path) -> None:
    """The map, some series, and all means beside the truth."""
    figure = Figure(figsize=(9, 8), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(1.05, 1))
    draw_map(above.subplots(), clear)
    left, right = below.subplots(1, 2)
    draw_series(left, every, clear)
    draw_truth(right, every, clear)
    figure.savefig(path, dpi=78)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--picture", type=Path, default=PICTURE)
    picture = flags.parse_args().picture
    with tempfile.TemporaryDirectory() as folder:
        collection = rasteret_beam.build_from_table(stack.write_stack(Path(folder)), name="stack")
        every, clear = means(collection), means(collection, **CLEAR)
    draw(every, clear, picture)
    print(f"{(clear.valid >= LEAST).sum()} of {len(clear)} fields and dates are clear: {picture}")


if __name__ == "__main__":
    main()
