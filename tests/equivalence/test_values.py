"""Values equal rasterio's on every kind of raster."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import tifffile

from rasteret_beam import build_from_cogs
from rasteret_beam.metrics import TILE_BYTES_READ, TILES_DECODED, TILES_INDEXED, Counters
from rasteret_beam.readers.gdal.headers import read_headers
from rasteret_beam.readers.tiles.dispatch import Engines
from rasteret_beam.readers.tiles.protocol import TileRequest
from tests.support import rasters, tiles


def sampled(path: Path, x: np.ndarray, y: np.ndarray) -> tuple[pa.Table, pa.Table, list[str]]:
    collection = build_from_cogs([path], name="case")
    table = pa.table({"x": x, "y": y})
    samples, unsampled = collection.sample_points(
        table, collection.bands, x_column="x", y_column="y", geometry_crs=collection.crs[0], return_unsampled=True
    )
    return samples, unsampled, collection.bands


@pytest.mark.parametrize("case", rasters.CASES, ids=lambda case: case.name)
def test_values_equal_rasterio(case: rasters.RasterCase, tmp_path: Path) -> None:
    path = case.write(tmp_path)
    x, y = rasters.points_for(path, 300, seed=3)
    if case.name == "longitude_0_360":
        keep = (x >= 0) & (x < 360)  # beyond, a turn of the circle brings the point back onto the grid
        x, y = x[keep], y[keep]
    samples, unsampled, bands = sampled(path, x, y)
    for index, band in enumerate(bands):
        values, inside = rasters.oracle(path, index, x, y)
        rows = samples.filter(pc.equal(samples["band"], band)).sort_by("point_index")
        np.testing.assert_array_equal(rows["point_index"].to_numpy(), np.flatnonzero(inside))
        np.testing.assert_array_equal(rows["value"].to_numpy(), values[inside])
    assert sorted(unsampled["point_index"].to_pylist()) == np.flatnonzero(~inside).tolist()
    assert set(unsampled["reason"].to_pylist()) <= {"no_record", "out_of_range"}


def test_a_turn_of_the_circle_does_not_matter(tmp_path: Path) -> None:
    path = rasters.case("geographic").write(tmp_path)
    x, y = rasters.points_for(path, 300, seed=4)
    values, inside = rasters.oracle(path, 0, x, y)
    interior = inside & (np.abs(x - np.round(x, 3)) > 1e-9)  # not on an edge, where adding 360 rounds
    samples, _, _ = sampled(path, x[interior] - 360.0, y[interior])
    np.testing.assert_array_equal(samples.sort_by("point_index")["value"].to_numpy(), values[interior])


@pytest.mark.parametrize(
    "name", ["deflate_noise", "tiles_pixel", "tiles_band", "sparse", "strips_7", "jpeg_ycbcr", "big_float32", "bigtiff"]
)
def test_bytes_read_are_the_file_s_own(tmp_path: Path, name: str) -> None:
    wants, counters = tiles.wants_of(rasters.case(name).write(tmp_path)), Counters()
    engine = Engines().plan(wants[:1])[0].engine
    tiles.read(engine, wants, counters)
    engine.close()
    with tifffile.TiffFile(tmp_path / f"{name}.tif") as tiff:
        assert counters.snapshot()[TILE_BYTES_READ] == sum(tiff.pages[0].databytecounts)
    present = [want for want in wants if counters.snapshot().get(TILES_INDEXED) is None or counts(want)]
    assert counters.snapshot()[TILES_DECODED] == len(present)


def counts(want: TileRequest) -> int:
    """Stored bytes of a tile; none are decoded where there are none."""
    assert want.asset.stored is not None
    return want.asset.stored.tile_byte_counts[
        want.tile_row * -(-want.grid.width // want.grid.tile_width) + want.tile_col
    ]


def test_overviews_are_not_read(tmp_path: Path) -> None:
    header = read_headers(str(rasters.case("overviews").write(tmp_path)))[0]
    assert (header.grid.width, header.grid.height) == (203, 157)


def test_strips_are_taken_together_up_to_a_tile_s_size(tmp_path: Path) -> None:
    grid = read_headers(str(rasters.case("strips_7").write(tmp_path)))[0].grid
    assert (grid.tile_width, grid.tile_height) == (203, 157)
