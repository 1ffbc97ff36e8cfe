"""Scenes of one band, and a record table of them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import rasterio
from rasterio.transform import Affine

from rasteret_beam import Collection

DATES = ("2023-01-05", "2023-04-09", "2023-07-18")


def write_scene(path: Path, transform: Affine, seed: int, *, crs: str = "EPSG:32631", size: int = 300) -> Path:
    """A uint16 scene of one band with 64-pixel tiles and random values."""
    values = np.random.default_rng(seed).integers(0, 10_000, (size, size)).astype(np.uint16)
    profile = {
        "driver": "GTiff",
        "width": size,
        "height": size,
        "count": 1,
        "dtype": "uint16",
        "crs": crs,
        "transform": transform,
        "tiled": True,
        "blockxsize": 64,
        "blockysize": 64,
        "compress": "deflate",
        "predictor": 2,
    }
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(values, 1)
    return path


def scene_table(folder: Path) -> pa.Table:
    """A record table: two places that overlap x three dates; band B10 at 10 m, B20 at 20 m; one record lacks B20."""
    rows = []
    for place, left in enumerate((500_000.0, 502_000.0)):
        for number, date in enumerate(DATES):
            seed = place * 10 + number
            record = f"P{place}_{number}"
            fine = write_scene(folder / f"{record}_B10.tif", Affine(10, 0, left, 0, -10, 5_400_000), seed)
            coarse = write_scene(
                folder / f"{record}_B20.tif", Affine(20, 0, left, 0, -20, 5_400_000), 100 + seed, size=150
            )
            assets = {"B10": {"href": str(fine), "band_index": 0}, "B20": {"href": str(coarse), "band_index": 0}}
            if record == "P1_1":
                del assets["B20"]
            rows.append({"id": record, "datetime": date, "assets": assets, "eo:cloud_cover": 10.0 * number})
    return pa.Table.from_pylist(rows)


def elsewhere(collection: Collection, href: str) -> Collection:
    """The collection with another file in all of its assets."""
    table = collection.to_table()
    place = table.column_names.index("assets")
    rows = table["assets"].to_pylist()
    assets = [{band: asset and asset | {"href": href} for band, asset in row.items()} for row in rows]
    moved = table.set_column(place, "assets", pa.array(assets, type=table["assets"].type))
    return Collection.from_table(moved)
