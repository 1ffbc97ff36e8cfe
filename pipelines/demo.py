"""A demonstration: sample rasters like AlphaEarth embeddings at random points, and draw a map."""

from pipelines.startup import prepare

prepare(__name__)

import argparse
import glob
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import rasterio
import shapely
from matplotlib.figure import Figure
from PIL import Image
from rasterio.transform import Affine

from pipelines import build_collection, sample_points
from pipelines.cli.process import command
from rasteret_beam import plot
from rasteret_beam.kernels.geo.crs import transform

SEED = 20_230_101
BANDS = [f"A{number:02d}" for number in range(16)]
YEARS = (2022, 2023)
SIZE = 1024
PIXEL = 20.0
NODATA = -128
CORNER = (12.0, 0.0)
"""Where UTM zones 32 and 33 meet on the equator; each of the four grids covers a quarter around it."""

QUARTERS = {"32632": (-1, 1), "32732": (-1, -1), "32633": (1, 1), "32733": (1, -1)}
POINTS = 60_000
POLYGONS = 200
COLOURS = 128
"""Of the map: a fifth of the bytes that it has in true colour."""


def write_rasters(folder: Path) -> None:
    """Write eight int8 files of four UTM quarters and two years: 16 planar bands, south-up, zstd, with nodata gaps."""
    folder.mkdir(parents=True, exist_ok=True)
    for epsg, (east, north) in QUARTERS.items():
        lon, lat, affine = _grid(epsg, east, north)
        for year in YEARS:
            profile = {
                "driver": "GTiff",
                "width": SIZE,
                "height": SIZE,
                "count": len(BANDS),
                "dtype": "int8",
                "crs": f"EPSG:{epsg}",
                "transform": affine,
                "nodata": NODATA,
                "tiled": True,
                "blockxsize": 256,
                "blockysize": 256,
                "interleave": "band",
                "compress": "zstd",
            }
            with rasterio.open(folder / f"embedding_{epsg}_{year}.tif", "w", **profile) as dataset:
                gap = _gaps(lon, lat, year)
                for number, band in enumerate(BANDS):
                    dataset.write(np.where(gap, NODATA, _field(lon, lat, number, year)).astype(np.int8), number + 1)
                    dataset.set_band_description(number + 1, band)


def _grid(epsg: str, east: int, north: int) -> tuple[np.ndarray, np.ndarray, Affine]:
    """Longitude and latitude [SIZE, SIZE] of a quarter's pixels, and its affine with rows from south to north."""
    x, y = transform("OGC:CRS84", f"EPSG:{epsg}", np.array([CORNER[0]]), np.array([CORNER[1]]))
    left = np.floor(x[0] / PIXEL) * PIXEL - (SIZE * PIXEL if east < 0 else 0)
    bottom = np.floor(y[0] / PIXEL) * PIXEL - (SIZE * PIXEL if north < 0 else 0)
    cols, rows = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
    lon, lat = transform(f"EPSG:{epsg}", "OGC:CRS84", (left + cols * PIXEL).ravel(), (bottom + rows * PIXEL).ravel())
    affine = Affine(PIXEL, 0.0, left, 0.0, PIXEL, bottom)
    return lon.reshape(SIZE, SIZE), lat.reshape(SIZE, SIZE), affine


def _field(lon: np.ndarray, lat: np.ndarray, band: int, year: int) -> np.ndarray:
    """A smooth field in -127..127 that is continuous across the edges of the files."""
    rng = np.random.default_rng([SEED, band, year])
    # Sines of float32 take a fifth of the time.
    east, north = (lon - CORNER[0]).astype(np.float32), (lat - CORNER[1]).astype(np.float32)
    value = np.zeros_like(east)
    for wave in np.exp2(np.arange(4, dtype=np.float32)):
        direction, phase = rng.uniform(0, 2 * np.pi, 2).astype(np.float32)
        along = east * np.cos(direction) + north * np.sin(direction)
        value += np.sin(along * wave * 40 + phase + np.sin(along * wave * 17)) / wave
    return np.clip(np.round(value * 60), -127, 127)


def _gaps(lon: np.ndarray, lat: np.ndarray, year: int) -> np.ndarray:
    """Circles of nodata, different in each year."""
    rng = np.random.default_rng([SEED, year])
    centres, radii = rng.uniform(-0.18, 0.18, (12, 2)), rng.uniform(0.004, 0.02, 12)
    dx, dy = lon - CORNER[0], lat - CORNER[1]
    return np.any([(dx - x) ** 2 + (dy - y) ** 2 < r**2 for (x, y), r in zip(centres, radii, strict=True)], axis=0)


def write_points(path: Path) -> None:
    """Write random points around the corner of the four grids; some lie outside."""
    rng = np.random.default_rng(SEED)
    table = pa.table(
        {
            "plot_id": pa.array([f"plot-{number:05d}" for number in range(POINTS)]),
            "lon": rng.uniform(CORNER[0] - 0.2, CORNER[0] + 0.2, POINTS),
            "lat": rng.uniform(CORNER[1] - 0.2, CORNER[1] + 0.2, POINTS),
        }
    )
    pq.write_table(table, path)


def write_polygons(path: Path) -> None:
    """Write hexagons of about a kilometre, in degrees, as GeoParquet."""
    rng = np.random.default_rng(SEED + 1)
    centres = rng.uniform(-0.17, 0.17, (POLYGONS, 2)) + CORNER
    corners = np.linspace(0, 2 * np.pi, 7)[None, :, None]
    rings = centres[:, None, :] + 0.005 * np.concatenate([np.cos(corners), np.sin(corners)], axis=2)
    rings[:, -1] = rings[:, 0]
    table = pa.table(
        {
            "field_id": [f"field-{number:03d}" for number in range(POLYGONS)],
            "geometry": pa.array(shapely.to_wkb(shapely.polygons(rings)), type=pa.binary()),
        }
    )
    column = {"encoding": "WKB", "geometry_types": ["Polygon"]}
    geo = {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), path)


def draw_map(samples: pa.Table, path: Path) -> None:
    """Draw the values of one band at the points, nodata in grey."""
    band = BANDS[0]
    chosen = samples.filter(pc.equal(samples["band"], band))
    lon, lat, value = (chosen[name].to_numpy() for name in ("point_x", "point_y", "value"))
    valid = value != NODATA
    figure = Figure(figsize=(8, 7), layout="constrained")
    axes = figure.subplots()
    axes.scatter(lon[~valid], lat[~valid], s=3, c="0.6", label="nodata")
    plot.points(chosen, nodata=NODATA, unit="stored value", ax=axes, s=3)
    axes.set(
        title=f"Band {band}, newest year, at {len(chosen):,} points\n"
        f"four UTM grids meet at {CORNER[0]:g}° E on the equator",
    )
    axes.legend(loc="upper right", markerscale=4)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=90)
    few = Image.open(drawn).convert("RGB").quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


def _run(title: str, main: object, argv: list[str]) -> None:
    print(f"\n$ python -m pipelines.{title} " + " ".join(argv), flush=True)
    code = main(argv)  # type: ignore[operator]
    if code:
        raise SystemExit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demonstration; returns its exit code."""
    flags = argparse.ArgumentParser(prog="python -m pipelines.demo", description=__doc__)
    flags.add_argument("--folder", type=Path, default=Path("demo"), help="folder to write to (default: demo)")
    folder = flags.parse_args(argv).folder
    print(
        f"writing 8 rasters of {len(BANDS)} bands, {POINTS:,} points and {POLYGONS} polygons to {folder}/", flush=True
    )
    write_rasters(folder / "rasters")
    write_points(folder / "points.parquet")
    write_polygons(folder / "polygons.parquet")
    _run(
        "build_collection",
        build_collection.main,
        [
            "--cogs",
            f"{folder}/rasters",
            "--bands",
            ",".join(BANDS),
            "--datetime_regex",
            r"_(\d{4})\.tif",
            "--name",
            "demo",
            "--output",
            f"{folder}/collection",
        ],
    )
    _run(
        "sample_points",
        sample_points.main,
        [
            "--points",
            f"{folder}/points.parquet",
            "--x_column",
            "lon",
            "--y_column",
            "lat",
            "--geometry_crs",
            "4326",
            "--collection",
            f"{folder}/collection",
            "--bands",
            "A00,A01,A15",
            "--match",
            "latest",
            "--output",
            f"{folder}/samples",
            "--unsampled",
            f"{folder}/unsampled",
            "--report",
            f"{folder}/report.html",
        ],
    )
    samples = pa.concat_tables(pq.read_table(path) for path in sorted(glob.glob(f"{folder}/samples-*.parquet")))
    print("\nfirst rows:")
    first = samples.sort_by([("point_index", "ascending"), ("band", "ascending")]).slice(0, 6)
    columns = ["point_index", "plot_id", "record_id", "datetime", "band", "value", "raster_crs"]
    for row in [columns, *(list(row.values()) for row in first.select(columns).to_pylist())]:
        print("  " + "  ".join(f"{value!s:<20}" for value in row))
    draw_map(samples, folder / "map.png")
    print(f"\nmap of the sampled values: {folder}/map.png")
    print(f"report, for a browser: {folder}/report.html")
    return 0


if __name__ == "__main__":
    command(main)
