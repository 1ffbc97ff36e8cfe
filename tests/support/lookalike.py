"""A small look-alike of the AlphaEarth collection: two UTM zones that meet on the equator, two years, south-up."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import rasterio
from pyproj import Transformer
from rasterio.transform import Affine

from rasteret_beam import Collection, build_from_cogs

BANDS = ("A00", "A01")
YEARS = (2022, 2023)
BOTTOMS = {32632: 0.0, 32732: 9_999_200.0}
"""Northing of the lowest pixel row: the zones lie north and south of the equator."""

WIDTH, HEIGHT, PIXEL, LEFT = 480, 16, 50.0, 755_000.0
NODATA = -128


def build_lookalike(folder: Path, valid: float = 1.0) -> Collection:
    """Four int8 files of two planar bands over longitude 11.3 to 11.5, as a collection; a share of pixels is valid."""
    paths = [_write(folder / f"aef_{epsg}_{year}.tif", epsg, year, valid) for epsg in BOTTOMS for year in YEARS]
    years = {str(path): int(path.stem[-4:]) for path in paths}
    return build_from_cogs(
        paths, bands={band: number for number, band in enumerate(BANDS)}, datetime=years.__getitem__, name="aef"
    )


def _write(path: Path, epsg: int, year: int, valid: float) -> Path:
    profile = {
        "driver": "GTiff",
        "width": WIDTH,
        "height": HEIGHT,
        "count": len(BANDS),
        "dtype": "int8",
        "crs": f"EPSG:{epsg}",
        "transform": Affine(PIXEL, 0, LEFT, 0, PIXEL, BOTTOMS[epsg]),
        "nodata": NODATA,
        "tiled": True,
        "blockxsize": 64,
        "blockysize": 16,
        "interleave": "band",
        "compress": "zstd",
    }
    rng = np.random.default_rng([epsg, year])
    values = rng.integers(-127, 128, (len(BANDS), HEIGHT, WIDTH))
    values[rng.random(values.shape) >= valid] = NODATA
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(values.astype(np.int8))
    return path


def expected(samples: pa.Table, collection: Collection, crs: str = "OGC:CRS84") -> np.ndarray:
    """What rasterio.sample gives for each row of a sample table, by the row's record, band and point."""
    table = collection.to_table(["id", "assets", "crs"])
    records = {row["id"]: row for row in table.to_pylist()}
    values = []
    for row in samples.select(["point_x", "point_y", "record_id", "band"]).to_pylist():
        record = records[row["record_id"]]
        asset = record["assets"][row["band"]]
        place = Transformer.from_crs(crs, record["crs"], always_xy=True).transform(row["point_x"], row["point_y"])
        with rasterio.open(asset["href"]) as dataset:
            values.append(next(dataset.sample([place], indexes=asset["band_index"] + 1))[0])
    return np.array(values, dtype=np.float64)


def check(samples: pa.Table, collection: Collection, rows: int, crs: str = "OGC:CRS84") -> None:
    """Hold that a sample table has so many rows, each with rasterio's value."""
    assert len(samples) == rows
    np.testing.assert_array_equal(samples["value"].to_numpy(), expected(samples, collection, crs))


def in_order(samples: pa.Table) -> pa.Table:
    return samples.sort_by([("point_index", "ascending"), ("record_id", "ascending"), ("band", "ascending")])


def same_points(samples: pa.Table, x: list[float], y: list[float]) -> bool:
    """Whether the points of a sample table are these, in order."""
    once = (
        in_order(samples).group_by("point_index", use_threads=False).aggregate([("point_x", "min"), ("point_y", "min")])
    )
    return bool(pc.all(pc.equal(once["point_x_min"], pa.array(x))).as_py()) and once["point_y_min"].to_pylist() == y
