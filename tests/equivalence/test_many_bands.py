"""A raster of twice as many bands takes twice the work, in calls and comparisons of names."""

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import rasterio
import shapely
from rasterio.transform import Affine

from rasteret_beam import Collection, build_from_cogs, load
from tests.support.pipelines import XY

POINT = pa.table({"x": [500_005.0], "y": [5_000_315.0]})
BOX = shapely.box(500_000, 5_000_200, 500_100, 5_000_300)
COUNTS = (10, 20, 40)


class Name(str):
    """A band's name whose comparisons are calls that a profiler sees."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def calls(work: Callable[[], object]) -> int:
    """Calls of functions, built-in ones too, in this thread and those that the work starts."""
    count = 0

    def profile(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return count


@pytest.fixture(scope="module")
def rasters(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Files of some bands each, of one tile."""
    folder = tmp_path_factory.mktemp("bands")
    grid = {"crs": "EPSG:32631", "transform": Affine(10, 0, 500_000, 0, -10, 5_000_320), "width": 32, "height": 32}
    tiled = {"tiled": True, "blockxsize": 32, "blockysize": 32, "interleave": "band"}
    paths = {}
    for count in COUNTS:
        paths[count] = folder / f"{count}.tif"
        with rasterio.open(paths[count], "w", driver="GTiff", count=count, dtype="uint8", **grid, **tiled) as dataset:
            dataset.write(np.zeros((count, 32, 32), "uint8"))
    return paths


def build(collection: Collection, bands: list[Any], path: Path) -> None:
    build_from_cogs([path])


def export_and_load(collection: Collection, bands: list[Any], path: Path) -> None:
    collection.export(path.with_suffix(""))
    load(path.with_suffix("")).subset(bbox=(-180, -90, 180, 90)).describe()


def sample(collection: Collection, bands: list[Any], path: Path) -> None:
    collection.sample_points(POINT, bands, **XY)


def sample_exported(collection: Collection, bands: list[Any], path: Path) -> None:
    load(path.with_suffix("")).sample_points(POINT, bands, **XY, match="latest", layout="values")


def fall_back(collection: Collection, bands: list[Any], path: Path) -> None:
    collection.sample_points(POINT, bands, **XY, max_distance_pixels=1, layout="columns")


def plan(collection: Collection, bands: list[Any], path: Path) -> None:
    collection.plan(POINT, bands, **XY)


def chips(collection: Collection, bands: list[Any], path: Path) -> None:
    collection.get_numpy(BOX, bands, geometry_crs=32631)


def plain(collection: Collection, bands: list[Any], path: Path) -> None:
    """A collection of another maker: no grids, and masks that the file has to be asked for."""
    table = collection.to_table()
    ours = [name for name in table.column_names if name.endswith("_extra") or name == "grids"]
    fall_back(Collection.from_table(table.drop_columns(ours)), bands, path)


@pytest.mark.parametrize("work", [build, export_and_load, sample, sample_exported, fall_back, plan, chips, plain])
def test_work_grows_as_the_bands(rasters: dict[int, Path], work: Callable[..., None]) -> None:
    counted = []
    for count in COUNTS:
        collection = build_from_cogs([rasters[count]])
        bands = [Name(band) for band in collection.bands]
        if work is sample_exported:
            collection.export(rasters[count].with_suffix(""))
        work(collection, bands, rasters[count])  # what is made once in a process
        counted.append(calls(lambda: work(collection, bands, rasters[count])))  # noqa: B023
    few, more, most = counted
    assert most - more < 2.1 * (more - few), counted
