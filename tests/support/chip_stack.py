"""A small stack of records with cloud masks on other grids, and its chips by rasterio and brute force."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyproj
import rasterio
import rasterio.features
import rasterio.mask
import shapely
from rasterio.transform import Affine

from rasteret_beam import Collection, build_from_table

ZONE, OTHER_ZONE = "EPSG:32631", "EPSG:32632"
LEFT, TOP = 706_000.0, 5_700_000.0
"""The corner of the place, 100 km from the zone's edge, in :data:`ZONE`."""

CLOUD, NODATA = (8, 9), 255
DATES = ("2022-01-10", "2022-01-20", "2022-01-24T12:00", "2022-01-30", "2022-01-30", "2022-02-09", None, "2022-03-01")
UNITS = {True: (0.0001, -0.1), False: (0.0001, 0.0)}
"""Scale and offset, after and before the change in the middle of the stack."""


@dataclass(frozen=True)
class Record:
    """A record of the stack: its files by band, and its datetime (NaT for none)."""

    id: str
    moment: pd.Timestamp
    files: dict[str, Path]
    units: tuple[float, float]


def write(path: Path, values: np.ndarray, crs: str, affine: Affine, nodata: int, units: tuple[float, float]) -> Path:
    height, width = values.shape
    profile = {"driver": "GTiff", "width": width, "height": height, "count": 1, "dtype": values.dtype, "crs": crs}
    tiles = {"tiled": True, "blockxsize": 32, "blockysize": 32, "compress": "deflate"}
    with rasterio.open(path, "w", transform=affine, nodata=nodata, **profile, **tiles) as dataset:
        dataset.write(values, 1)
        dataset.scales, dataset.offsets = (units[0],), (units[1],)
    return path


def clouds(random: np.random.Generator, size: int) -> np.ndarray:
    """Classes with blobs of clouds, and a strip without data."""
    rows, cols = np.mgrid[:size, :size]
    classes = random.choice(np.array([4, 5, 6], dtype=np.uint8), (size, size))
    for _ in range(random.integers(0, 7)):
        row, col, radius = [*random.uniform(0, size, 2), random.uniform(5, 20)]
        classes[(rows - row) ** 2 + (cols - col) ** 2 < radius**2] = random.choice(CLOUD)
    classes[:, : random.integers(0, 4)] = NODATA
    return classes


def make(folder: Path) -> tuple[list[Record], Collection]:
    """Bands B1 and B2 at 10 m, SCL at 20 m off their pixels, of one record in the other zone; the last lacks SCL.

    The records at odd places begin 300 m farther east, so that some end where others do not.
    """
    random = np.random.default_rng(7)
    east, north = pyproj.Transformer.from_crs(ZONE, OTHER_ZONE, always_xy=True).transform(LEFT, TOP)
    records, rows = [], []
    for number, date in enumerate(DATES):
        units = UNITS[number >= 4]
        left = LEFT + 300 * (number % 2)
        files = {}
        for band in ("B1", "B2"):
            values = random.integers(1, 10_000, (128, 128)).astype(np.uint16)
            values[random.integers(0, 128, 40), random.integers(0, 128, 40)] = 0
            affine = Affine(10, 0, left, 0, -10, TOP)
            files[band] = write(folder / f"R{number}_{band}.tif", values, ZONE, affine, 0, units)
        if number + 1 < len(DATES):
            crs, x, y = (OTHER_ZONE, east - 200, north + 200) if number == 2 else (ZONE, left + 7, TOP + 3)
            affine = Affine(20, 0, x, 0, -20, y)
            classes = clouds(random, 90 if number == 2 else 64)
            files["SCL"] = write(folder / f"R{number}_SCL.tif", classes, crs, affine, NODATA, (1.0, 0.0))
        records.append(Record(f"R{number}", pd.Timestamp(date), files, units))
        assets = {band: {"href": str(path), "band_index": 0} for band, path in files.items()}
        rows.append({"id": f"R{number}", "datetime": date, "assets": assets})
    moments = pa.array([record.moment for record in records], pa.timestamp("us"), from_pandas=True)
    table = pa.Table.from_pylist(rows)
    place = table.schema.get_field_index("datetime")
    return records, build_from_table(table.set_column(place, "datetime", moments))


@dataclass(frozen=True)
class Expected:
    """A chip: pixels, valid pixels, and how many pixels the polygon has, also beyond the raster."""

    pixels: np.ndarray
    valid: np.ndarray
    own: int

    @property
    def share(self) -> float:
        return np.count_nonzero(self.valid) / self.own if self.own else 1.0


def chip(
    record: Record, band: str, shape: Any, *, rule: str = "", missing: str = "fail", unscale: bool = False
) -> Expected | None:
    """The chip of a polygon (in :data:`ZONE`); None without an overlap. ``rule`` "clouds": SCL neither 8 nor 9."""
    with rasterio.open(record.files[band]) as dataset:
        try:
            found, affine = rasterio.mask.mask(dataset, [shape], crop=True, filled=False)
        except ValueError:
            return None
        corners = [dataset.transform @ at for at in ((0, 0), (dataset.width, 0), (dataset.width, dataset.height))]
        edges = shapely.Polygon([*corners, dataset.transform @ (0, dataset.height)])
        if not shapely.relate_pattern(shape, edges, "T********"):
            return None
        around = dataset.transform @ Affine.translation(-400, -400)
        everything = rasterio.features.geometry_mask([shape], (928, 928), around, invert=True)
    valid = ~np.ma.getmaskarray(found)[0]
    if rule:
        valid &= clear(record, affine, valid.shape, missing)
    pixels = found.data[0]
    if unscale:
        scale, offset = record.units
        pixels = np.where(valid, pixels * scale + offset, np.nan)
    else:
        pixels = np.where(valid, pixels, 0).astype(pixels.dtype)
    return Expected(pixels, valid, int(everything.sum()))


def clear(record: Record, affine: Affine, shape: tuple[int, int], missing: str) -> np.ndarray:
    """Pixels whose centre lies on a pixel of SCL that is neither a cloud nor nodata."""
    passing = np.full(shape, missing == "pass")
    if "SCL" not in record.files:
        return passing
    with rasterio.open(record.files["SCL"]) as dataset:
        classes = dataset.read(1)
        mover = pyproj.Transformer.from_crs(ZONE, dataset.crs, always_xy=True)
        rows, cols = np.indices(shape)
        places = mover.transform(*(affine * (cols + 0.5, rows + 0.5)))
        col, row = (np.floor(part).astype(int) for part in ~dataset.transform * places)
        around = np.pad(classes, 1000, constant_values=NODATA)
        return ~np.isin(around[row + 1000, col + 1000], (*CLOUD, NODATA))
    return passing


def ranked(records: list[Record], match: str, time: Any = None, tolerance: str | None = None) -> list[Record]:
    """The records that a match takes into account, the best first."""
    frame = pd.DataFrame({"moment": [record.moment for record in records], "order": range(len(records))})
    if match == "latest":
        frame = frame.sort_values(["moment", "order"], ascending=[False, True], na_position="last")
        return [records[at] for at in frame["order"]]
    frame = frame.dropna()
    apart = frame["moment"] - pd.Timestamp(time)
    keep = {"before": apart <= pd.Timedelta(0), "after": apart >= pd.Timedelta(0)}.get(match, apart == apart)
    if tolerance is not None:
        keep &= apart.abs() <= pd.Timedelta(tolerance)
    frame = frame.assign(apart=apart.abs())[keep].sort_values(["apart", "moment", "order"])
    return [records[at] for at in frame["order"]]
