"""``merge="datetime"``: records of one moment give the statistics of the mosaic that they were cut from."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import rasterio
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine

from rasteret_beam import Collection, build_from_table
from rasteret_beam.errors import InputError
from tests.support.polygons import polygons
from tests.support.properties import examples

CORNER = (300_000.0, 4_900_000.0)
SIZE = 120
UTM: dict[str, Any] = {"geometry_crs": 32633}
STATISTICS = ("count", "valid_fraction", "mean", "std", "median", "min", "max", "sum", "majority", "variety")
DAY = datetime(2024, 6, 1, 10)


def write(path: Path, values: np.ndarray, row: int, col: int, apart: float = 0.0) -> str:
    """A part of a mosaic that begins at a pixel of it, or so far from there."""
    high, wide = values.shape
    affine = Affine(10, 0, CORNER[0] + 10 * (col + apart), 0, -10, CORNER[1] - 10 * row)
    profile = {"driver": "GTiff", "width": wide, "height": high, "count": 1, "dtype": values.dtype, "nodata": 0}
    tiles = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    with rasterio.open(path, "w", crs="EPSG:32633", transform=affine, **profile, **tiles) as dataset:
        dataset.write(values, 1)
    return str(path)


def collection_of(files: list[tuple[str, str, datetime | None]]) -> Collection:
    rows = [
        {"id": name, "datetime": moment, "assets": {"B1": {"href": href, "band_index": 0}}}
        for name, href, moment in files
    ]
    table = pa.Table.from_pylist(rows)
    place = table.schema.get_field_index("datetime")
    moments = pa.array([moment for _, _, moment in files], pa.timestamp("us"))
    return build_from_table(table.set_column(place, "datetime", moments))


@pytest.fixture(scope="module")
def mosaic(tmp_path_factory: pytest.TempPathFactory) -> tuple[Collection, Collection]:
    """One raster with gaps, and four that overlap by 20 pixels, of times some seconds apart; each lacks some pixels."""
    folder = tmp_path_factory.mktemp("mosaic")
    rng = np.random.default_rng(1)
    whole = rng.integers(1, 40, (SIZE, SIZE)).astype(np.uint16)
    whole[30:34, 60:90] = 0
    parts = []
    for number, (row, col) in enumerate(((0, 0), (0, 50), (50, 0), (50, 50))):
        part = whole[row : row + 70, col : col + 70].copy()
        inner = np.zeros(part.shape, dtype=bool)
        # What a part lacks, others have: its own quarter of the overlaps is complete.
        inner[10 if row else 0 : None if row else 60, 10 if col else 0 : None if col else 60] = True
        part[~inner & (rng.uniform(size=part.shape) < 0.5)] = 0
        moment = DAY + timedelta(seconds=7 * number)
        parts.append((f"part{number}", write(folder / f"part{number}.tif", part, row, col), moment))
    one = collection_of([("whole", write(folder / "whole.tif", whole, 0, 0), DAY)])
    return one, collection_of(parts)


@pytest.mark.parametrize("coverage", ["centre", "all_touched", "fraction"])
@settings(max_examples=examples(80), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.lists(polygons(SIZE, SIZE), min_size=1, max_size=3))
def test_parts_give_what_the_whole_gives(
    mosaic: tuple[Collection, Collection], coverage: str, drawn: list[shapely.Geometry]
) -> None:
    """Pixels of overlaps count once, from the first record in which they are valid."""
    shapes = [
        shapely.transform(shape, lambda xy: np.stack([CORNER[0] + 10 * xy[:, 0], CORNER[1] - 10 * xy[:, 1]], axis=1))
        for shape in drawn
    ]
    asked: dict[str, Any] = {"statistics": STATISTICS, "coverage": coverage, **UTM}
    whole, parts = (
        each.zonal_statistics(shapes, ["B1"], **asked, merge=merge).to_pylist()
        for each, merge in zip(mosaic, ("record", "datetime"), strict=True)
    )
    assert [row["geometry_id"] for row in parts] == [row["geometry_id"] for row in whole]
    for row, known in zip(parts, whole, strict=True):
        assert (row["record_id"], row["datetime"].date()) == (None, DAY.date())
        assert 1 <= row["records"] <= 4
        assert row["raster_crs"] == 32633
        for name in STATISTICS:
            same = known[name] if known[name] is None else pytest.approx(known[name], rel=1e-9, abs=1e-9)
            assert row[name] == same, name


def box(left: int, top: int, right: int, bottom: int) -> shapely.Geometry:
    """In pixels."""
    return shapely.box(CORNER[0] + 10 * left, CORNER[1] - 10 * bottom, CORNER[0] + 10 * right, CORNER[1] - 10 * top)


def constants(folder: Path, moments: list[datetime | None], apart: float = 0.0) -> Collection:
    """Squares of 20 pixels with 1, 2, ..., each 10 pixels beyond the one before."""
    files = []
    for number, moment in enumerate(moments):
        values = np.full((20, 20), number + 1, dtype=np.uint16)
        files.append((f"R{number}", write(folder / f"{number}.tif", values, 0, 10 * number, apart * number), moment))
    return collection_of(files)


def test_moments_are_apart_by_more_than_the_tolerance(tmp_path: Path) -> None:
    """From one record to the next in time; a row for each moment, in the order of time."""
    late = DAY + timedelta(days=5)
    collection = constants(tmp_path, [late, DAY, DAY + timedelta(seconds=50), DAY + timedelta(seconds=100)])
    asked: dict[str, Any] = {"statistics": ["count", "mean"], "merge": "datetime", **UTM}
    rows = collection.zonal_statistics([box(0, 0, 60, 20)], ["B1"], **asked).to_pylist()
    assert [(row["datetime"], row["records"], row["count"]) for row in rows] == [(DAY, 3, 800), (late, 1, 400)]
    assert rows[0]["mean"] == pytest.approx((400 * 2 + 200 * 3 + 200 * 4) / 800)
    apart = collection.zonal_statistics([box(0, 0, 60, 20)], ["B1"], **asked, overlap_tolerance="10s")
    assert apart["records"].to_pylist() == [1, 1, 1, 1]
    newest = collection.zonal_statistics([box(0, 0, 60, 20)], ["B1"], **asked, match="latest")
    assert newest["count"].to_pylist() == [400]
    early = collection.subset(date_range=("2024-06-01", "2024-06-02"))
    best = early.zonal_statistics([box(0, 0, 60, 20)], ["B1"], **asked, match="latest")
    assert best["records"].to_pylist() == [3]


def test_records_without_a_datetime_are_of_one_moment(tmp_path: Path) -> None:
    """As those of an elevation model, whose tiles have none."""
    rows = constants(tmp_path, [None, None]).zonal_statistics(
        [box(0, 0, 60, 20)], ["B1"], statistics=["count", "sum", "valid_fraction"], merge="datetime", **UTM
    )
    assert rows.select(["datetime", "records", "count", "sum"]).to_pylist() == [
        {"datetime": None, "records": 2, "count": 600, "sum": 400 + 2 * 200}
    ]
    assert rows["valid_fraction"].to_pylist() == [0.5]


@pytest.mark.parametrize(("apart", "count"), [(2e-7, 600), (0.25, 800)])
def test_pixels_of_grids_that_are_not_aligned_all_count(tmp_path: Path, apart: float, count: int) -> None:
    """A quarter of a pixel apart, both records give their pixels; a part of a millionth is rounding."""
    rows = constants(tmp_path, [DAY, DAY], apart).zonal_statistics(
        [box(0, 0, 60, 20)], ["B1"], statistics=["count"], merge="datetime", **UTM
    )
    assert rows["count"].to_pylist() == [count]


def test_what_rows_of_several_records_cannot_have(tmp_path: Path) -> None:
    collection = constants(tmp_path, [DAY])
    shapes = [box(0, 0, 10, 10)]
    with pytest.raises(InputError, match="skip_invalid is True, but merge is 'datetime'"):
        collection.zonal_statistics(shapes, ["B1"], **UTM, merge="datetime", skip_invalid=True, match="latest")
    with pytest.raises(InputError, match="extra_columns have 'record:id', but merge is 'datetime'"):
        collection.zonal_statistics(shapes, ["B1"], **UTM, merge="datetime", extra_columns=["record:id"])
