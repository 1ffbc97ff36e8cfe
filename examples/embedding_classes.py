"""Land cover from embeddings: labelled points give a centroid for each class, and other points take the nearest one.

Run with ``python -m examples.embedding_classes`` from the root of a checkout (``make pictures`` does).
"""

import argparse
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import rasterio
from matplotlib.figure import Figure
from rasterio.transform import Affine

import rasteret_beam

CRS = "EPSG:32632"
WEST, NORTH, PIXEL, SIZE = 500_000.0, 5_300_000.0, 10.0, 256
BANDS = [f"A{number:02d}" for number in range(16)]
NODATA = -128
CLASSES = ["water", "forest", "crops", "town"]
COLOURS = ["tab:blue", "tab:green", "gold", "tab:red"]


class Result(NamedTuple):
    """What was found at the points without a label.

    Attributes
    ----------
    x, y : [n] float64
    truth, guess : [n] int
        Numbers of classes.
    """

    x: np.ndarray
    y: np.ndarray
    truth: np.ndarray
    guess: np.ndarray

    @property
    def accuracy(self) -> float:
        return float(np.mean(self.truth == self.guess))


def land_cover() -> np.ndarray:
    """Class of each pixel [SIZE, SIZE]: a river through forest and crops, and a town."""
    rows, cols = np.mgrid[:SIZE, :SIZE] / SIZE
    cover = np.where(cols + 0.15 * np.sin(rows * 9) < 0.5, CLASSES.index("forest"), CLASSES.index("crops"))
    cover[(rows - 0.65) ** 2 + (cols - 0.7) ** 2 < 0.03] = CLASSES.index("town")
    cover[np.abs(rows - 0.35 - 0.08 * np.sin(cols * 8)) < 0.05] = CLASSES.index("water")
    return cover


def write_embeddings(path: Path) -> None:
    """An int8 file of 16 bands: a direction for each class, blurred by noise, with a gap of nodata."""
    rng = np.random.default_rng(64)
    directions = rng.normal(0, 30, (len(CLASSES), len(BANDS)))
    values = directions[land_cover()] + rng.normal(0, 40, (SIZE, SIZE, len(BANDS)))
    values = np.clip(np.round(values), -127, 127).astype(np.int8)
    values[200:, 200:] = NODATA
    profile = {"driver": "GTiff", "width": SIZE, "height": SIZE, "count": len(BANDS), "dtype": "int8", "crs": CRS}
    storage = {"tiled": True, "blockxsize": 64, "blockysize": 64, "interleave": "band", "compress": "zstd"}
    transform = Affine(PIXEL, 0, WEST, 0, -PIXEL, NORTH)
    with rasterio.open(path, "w", **profile, **storage, nodata=NODATA, transform=transform) as dataset:
        dataset.write(np.moveaxis(values, 2, 0))


def points(number: int, seed: int) -> pa.Table:
    """Random points with the class that lies there."""
    rng = np.random.default_rng(seed)
    cols, rows = rng.uniform(0, SIZE, (2, number))
    label = land_cover()[rows.astype(int), cols.astype(int)]
    return pa.table({"x": WEST + cols * PIXEL, "y": NORTH - rows * PIXEL, "label": label})


def embeddings_at(collection: rasteret_beam.Collection, where: pa.Table) -> tuple[pa.Table, np.ndarray]:
    """Samples with data, and their embeddings [n, bands] as unit vectors."""
    samples = collection.sample_points(where, BANDS, x_column="x", y_column="y", geometry_crs=CRS, layout="values")
    vectors = samples["values"].combine_chunks().flatten().to_numpy().reshape(-1, len(BANDS))
    valid = (vectors != NODATA).all(axis=1)
    vectors = vectors[valid]
    return samples.filter(pa.array(valid)), vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def classify(folder: Path) -> Result:
    """Learn from 200 labelled points, and classify 6,000 others."""
    write_embeddings(folder / "embeddings.tif")
    collection = rasteret_beam.build_from_cogs([folder / "embeddings.tif"], bands=BANDS, name="embeddings")
    labelled, known = embeddings_at(collection, points(200, seed=1))
    labels = labelled["label"].to_numpy()
    centroids = np.stack([known[labels == number].mean(axis=0) for number in range(len(CLASSES))])
    others, vectors = embeddings_at(collection, points(6000, seed=2))
    nearest = (vectors @ centroids.T / np.linalg.norm(centroids, axis=1)).argmax(axis=1)
    return Result(others["x"].to_numpy(), others["y"].to_numpy(), others["label"].to_numpy(), nearest)


def draw(found: Result, path: Path) -> None:
    """Maps of the truth and of the guesses, side by side."""
    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    panels = {"truth": found.truth, f"nearest centroid, {found.accuracy:.0%} right": found.guess}
    for panel, (title, numbers) in zip(axes, panels.items(), strict=True):
        for number, (name, colour) in enumerate(zip(CLASSES, COLOURS, strict=True)):
            chosen = numbers == number
            x, y = (found.x[chosen] - WEST) / 1000, (found.y[chosen] - NORTH) / 1000
            panel.scatter(x, y, s=3, color=colour, label=name)
        panel.set(title=title, xlabel="km east", aspect="equal")
    axes[0].set_ylabel("km north")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, markerscale=4)
    figure.savefig(path, dpi=90)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument("--picture", type=Path, default=Path(__file__).with_suffix(".png"))
    picture = flags.parse_args().picture
    with tempfile.TemporaryDirectory() as folder:
        found = classify(Path(folder))
    draw(found, picture)
    print(f"{found.accuracy:.1%} of {len(found.truth):,} points right: {picture}")


if __name__ == "__main__":
    main()
