"""The real geoid grids: overlapping records, 0..360 longitudes, PixelIsPoint, deflate with predictor 3."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import rasterio

from rasteret_beam import build_from_cogs
from tests.support.rasters import pixel_of

FOLDER = Path(os.environ.get("RASTERET_BEAM_REAL_DATA", Path(__file__).parents[3] / "shared" / "data")) / "geoid"
FILES = sorted(FOLDER.glob("*.tif"))

pytestmark = pytest.mark.skipif(not FILES, reason=f"no real rasters in {FOLDER} (set RASTERET_BEAM_REAL_DATA)")


def expected(path: Path, lon: np.ndarray, lat: np.ndarray) -> dict[int, float]:
    """Values of one grid, by point number: at each longitude as given, else turned by 360 degrees."""
    with rasterio.open(path) as dataset:
        band = dataset.read(1)
        found: dict[int, float] = {}
        for turn in (360.0, -360.0, 0.0):
            row, col = (np.asarray(part) for part in pixel_of(dataset.transform, lon + turn, lat))
            inside = (row >= 0) & (row < dataset.height) & (col >= 0) & (col < dataset.width)
            found |= {int(n): float(band[row[n], col[n]]) for n in np.flatnonzero(inside)}
    return found


def test_every_value_equals_rasterio_s() -> None:
    rng = np.random.default_rng(11)
    lon, lat = rng.uniform(-135, -60, 10_000), rng.uniform(20, 62, 10_000)
    collection = build_from_cogs(FILES, name="geoid")
    samples, unsampled = collection.sample_points(
        pa.table({"lon": lon, "lat": lat}), ["B1"], geometry_crs=4269, return_unsampled=True
    )
    assert len(collection) == 9
    assert len(unsampled) == 0  # EGM96 is global
    total = 0
    for path in FILES:
        rows = samples.filter(pc.equal(samples["record_id"], path.stem))
        values = expected(path, lon, lat)
        assert dict(zip(rows["point_index"].to_pylist(), rows["value"].to_pylist(), strict=True)) == values
        total += len(values)
    assert total == len(samples)
    records_of_point = np.bincount(samples["point_index"].to_numpy())
    assert records_of_point.max() >= 3  # GEOID99 tiles overlap
