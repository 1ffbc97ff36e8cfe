"""Polygons matched in time, quality, physical units and enough valid pixels, against rasterio, PROJ and pandas."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import apache_beam as beam
import geopandas as gpd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from shapely.geometry import mapping

from rasteret_beam import Collection, Quality, ReadChips, ReadPolygons, decode_chips
from rasteret_beam.errors import InputError, TileReadError
from tests.support import chip_stack
from tests.support.chip_stack import LEFT, TOP, Expected, Record, chip, ranked
from tests.support.pipelines import Kept, run
from tests.support.properties import examples

CLEAR = Quality("SCL", exclude=chip_stack.CLOUD, missing="fail")
FIELD = shapely.Polygon([(600, 100), (900, 180), (820, 500), (560, 420)])
TIMES = ("2022-01-22T06:00", "2022-01-30", "2021-12-01", "2022-02-20", "2022-04-01")
QUICK = settings(deadline=None, derandomize=True, max_examples=examples(25), suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Record], Collection]:
    return chip_stack.make(tmp_path_factory.mktemp("stack"))


def placed(shape: shapely.Geometry) -> shapely.Geometry:
    """A shape in metres east and south of the corner of the place."""
    return shapely.transform(shape, lambda xy: np.stack([LEFT + xy[:, 0], TOP - xy[:, 1]], axis=1))


def polygon(east: float, south: float, size: float) -> shapely.Geometry:
    return placed(shapely.affinity.translate(shapely.Point(0, 0).buffer(size, quad_segs=3), east, south))


def chips(records: list[Record], shape: Any, band: str = "B1", **how: Any) -> list[tuple[Record, Expected]]:
    found = [(record, chip(record, band, shape, **how)) for record in records]
    return [(record, each) for record, each in found if each is not None]


def first_valid(found: list[tuple[Record, Expected]], min_valid: float, most: int) -> Expected:
    enough = [each for _, each in found[:most] if each.share >= min_valid]
    return (enough or [found[0][1]])[0]


# Times


@QUICK
@given(data=st.data())
def test_the_record_nearest_in_time(stack: tuple[list[Record], Collection], data: st.DataObject) -> None:
    records, collection = stack
    shape = polygon(data.draw(st.integers(250, 1300)), data.draw(st.integers(100, 1000)), 150)
    match = data.draw(st.sampled_from(["nearest", "before", "after", "all"]))
    tolerance = data.draw(st.sampled_from(["6D", "10D", "60D"] + ([] if match == "all" else [None])))
    time, limit = data.draw(st.sampled_from(TIMES)), data.draw(st.sampled_from([None, 1, 3]))
    taken = ranked([record for record, _ in chips(records, shape)], match, time, tolerance)
    taken = taken[: limit or (None if match == "all" else 1)]
    how = {"match": match, "tolerance": tolerance, "limit": limit, "times": time}
    if not taken:
        with pytest.raises(InputError, match="geometry 0 overlaps"):
            collection.get_numpy(shape, ["B1"], geometry_crs=32631, **how)
        return
    expected = [each for _, each in chips(sorted(taken, key=records.index), shape)]
    if len({each.pixels.shape for each in expected}) > 1:
        return
    found, valid = collection.get_numpy(shape, ["B1"], geometry_crs=32631, return_mask=True, **how)
    np.testing.assert_array_equal(found, np.stack([each.pixels for each in expected]), strict=True)
    np.testing.assert_array_equal(valid, np.stack([each.valid for each in expected]), strict=True)


def test_forms_of_times(stack: tuple[list[Record], Collection]) -> None:
    records, collection = stack
    shapes = [placed(FIELD)] * 2
    expected = np.stack([chip(records[at], "B1", shapes[0]).pixels for at in (3, 0)])
    days = [datetime(2022, 1, 30), datetime(2022, 1, 9)]
    degrees = gpd.GeoSeries(shapes, crs=32631).to_crs(4326)
    features = [
        {"type": "Feature", "properties": {"day": str(day.date())}, "geometry": mapping(shape)}
        for day, shape in zip(days, degrees, strict=True)
    ]
    frame = gpd.GeoDataFrame({"day": days}, geometry=shapes, crs=32631)
    table = pa.table({"shape": shapely.to_wkb(shapes), "day": pa.array(days, pa.timestamp("ns"))})
    tables: list[tuple[Any, dict[str, Any]]] = [
        (frame, {}),
        (table, {"geometry_crs": 32631, "geometry_column": "shape"}),
        (table.to_reader(), {"geometry_crs": 32631, "geometry_column": "shape"}),
        (table.set_column(1, "day", pa.array([day.isoformat() for day in days])), {"geometry_crs": 32631}),
    ]
    for given_table, how in tables:
        how.setdefault("geometry_column", "geometry" if given_table is frame else "shape")
        found = collection.get_numpy(given_table, ["B1"], match="nearest", time_column="day", **how)
        np.testing.assert_array_equal(found, expected)
    for given_times in (
        days,
        tuple(map(str, days)),
        [day.date() for day in days],
        [day.replace(tzinfo=UTC) for day in days],
        np.array(days, dtype="datetime64[D]"),
        [np.datetime64(day) for day in days],
        pd.Series(days, dtype="datetime64[ns]"),
        pd.DatetimeIndex(days, tz="UTC"),
        pl.Series(days),
        pa.array(days, pa.timestamp("ms")),
    ):
        found = collection.get_numpy(shapes, ["B1"], geometry_crs=32631, match="nearest", times=given_times)
        np.testing.assert_array_equal(found, expected)
    for one in (days[0], date(2022, 1, 30), "2022-01-30", np.datetime64("2022-01-30"), pd.Timestamp("2022-01-30")):
        found = collection.get_numpy(shapes, ["B1"], geometry_crs=32631, match="nearest", times=one)
        np.testing.assert_array_equal(found, expected[[0, 0]])
    found = collection.get_numpy(features, ["B1"], match="nearest", time_column="day")
    beside = collection.get_numpy(list(degrees), ["B1"], match="nearest", times=days)
    np.testing.assert_array_equal(found, beside)
    assert (found[0] != found[1]).any()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"match": "nearest"}, "match is 'nearest', but time_column is None; .*, or give times="),
        (
            {"match": "nearest", "time_column": "day"},
            "are not a table that has it; give their times with times=",
        ),
        ({"match": "nearest", "times": ["2022-01-01"] * 3}, "there are 3 times, but 2 geometries"),
        (
            {"match": "nearest", "times": ["2022-01-01", "soon"]},
            "row 1 of times is 'soon', which is not a date",
        ),
        ({"match": "nearest", "times": [1, 2]}, "times is int64; it has to hold timestamps, dates or ISO 8601 text"),
        ({"match": "nearest", "times": 5}, "times are a int, which cannot be read as times"),
        ({"match": "nearest", "times": ["2022-01-01", None]}, "geometry 1 has no time: 'times' is null there"),
        ({"match": "before", "times": "2021-01-01"}, "none is near enough in time, .*its time is 2021-01-01T00:00:00"),
        (
            {"match": "nearest", "times": "2021-01-01", "time_column": "day"},
            "and time_column is 'day'",
        ),
        ({"tolerance": "1D"}, "tolerance is '1D', but time_column is None"),
    ],
)
def test_times_that_cannot_be_used(stack: tuple[list[Record], Collection], how: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        stack[1].get_numpy([placed(FIELD)] * 2, ["B1"], geometry_crs=32631, **how)


def test_a_table_without_the_column_of_times(stack: tuple[list[Record], Collection]) -> None:
    frame = gpd.GeoDataFrame({"day": [None]}, geometry=[placed(FIELD)], crs=32631)
    with pytest.raises(InputError, match="the polygons have no column 'when', which time_column names; they have day"):
        stack[1].get_numpy(frame, ["B1"], match="nearest", time_column="when")
    with pytest.raises(InputError, match="row 0 of column 'geometry' has no time: 'day' is null there"):
        stack[1].get_numpy(frame, ["B1"], match="nearest", time_column="day")


# Quality and units


@QUICK
@given(data=st.data())
def test_quality_and_physical_units(stack: tuple[list[Record], Collection], data: st.DataObject) -> None:
    records, collection = stack
    record = data.draw(st.sampled_from(records))
    shape = polygon(data.draw(st.integers(0, 1300)), data.draw(st.integers(0, 1200)), data.draw(st.integers(3, 300)))
    missing = data.draw(st.sampled_from(["pass", "fail"]))
    unscale = data.draw(st.booleans())
    expected = [chip(record, band, shape, rule="clouds", missing=missing, unscale=unscale) for band in ("B2", "B1")]
    if expected[0] is None or expected[1] is None:
        return
    rule = Quality("SCL", exclude=chip_stack.CLOUD, missing=missing)
    found, valid = collection.subset(ids=[record.id]).get_numpy(
        [shape], ["B2", "B1"], geometry_crs=32631, return_mask=True, quality=[rule], unscale=unscale
    )
    np.testing.assert_array_equal(found[0], np.stack([each.pixels for each in expected]), strict=True)
    np.testing.assert_array_equal(valid[0], np.stack([each.valid for each in expected]), strict=True)


def test_scales_that_are_given_and_fills(stack: tuple[list[Record], Collection]) -> None:
    records, collection = stack
    shape = placed(FIELD)
    raw = chip(records[0], "B1", shape)
    found = collection.subset(ids=["R0"]).get_numpy(
        shape, ["B1"], geometry_crs=32631, unscale=True, scales={"B1": (2, 1)}, fill=-9
    )
    np.testing.assert_array_equal(found[0], np.where(raw.valid, raw.pixels * 2.0 + 1.0, -9.0), strict=True)
    with pytest.raises(InputError, match=r"band 'B2' .*is not among the bands that are read"):
        collection.get_numpy(shape, ["B1"], geometry_crs=32631, unscale=True, scales={"B2": (2, 1)})
    codes = collection.subset(ids=["R0"]).get_numpy(
        shape, ["SCL"], geometry_crs=32631, unscale=True, quality="SCL not in 8", return_mask=True
    )
    assert set(codes[0][codes[1]].tolist()) <= {4.0, 5.0, 6.0, 9.0}


def test_records_without_the_quality_band(stack: tuple[list[Record], Collection]) -> None:
    with pytest.raises(InputError, match=r"band SCL is not in 1 of the 8 records to read, .* 'R7'; set missing="):
        stack[1].get_numpy(placed(FIELD), ["B1"], geometry_crs=32631, quality="SCL not in 8,9")
    with pytest.raises(InputError, match=r"lacks band\(s\) CLD"):
        stack[1].get_numpy(placed(FIELD), ["B1"], geometry_crs=32631, quality="CLD <= 40")


def test_only_tiles_of_the_quality_band_under_the_polygon_are_read(tmp_path: Path) -> None:
    """All other tiles of it are broken."""
    records, collection = chip_stack.make(tmp_path)
    shape = polygon(1000, 1000, 60)
    expected = chip(records[0], "B1", shape, rule="clouds")
    break_tiles(records[0].files["SCL"], but=(1, 1))
    one = collection.subset(ids=["R0"])
    found = one.get_numpy(shape, ["B1"], geometry_crs=32631, quality=[CLEAR])
    np.testing.assert_array_equal(found[0], expected.pixels)
    with pytest.raises(TileReadError, match=r"record 'R0', band SCL: .*R0_SCL.tif, tile \(0, 0\)"):
        one.get_numpy(polygon(300, 300, 60), ["B1"], geometry_crs=32631, quality=[CLEAR])


def break_tiles(path: Path, but: tuple[int, int] | None = None) -> None:
    """Write zeros over the bytes of the tiles of a file, but for one."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        across = -(-page.imagewidth // page.tilewidth)
        spans = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    with path.open("r+b") as raw:
        for number, (start, size) in enumerate(spans):
            if divmod(number, across) != but:
                raw.seek(start)
                raw.write(b"\0" * size)


# Enough valid pixels


@QUICK
@given(data=st.data())
def test_the_first_record_with_enough_valid_pixels(stack: tuple[list[Record], Collection], data: st.DataObject) -> None:
    records, collection = stack
    shape = polygon(data.draw(st.integers(150, 1400)), data.draw(st.integers(50, 1200)), data.draw(st.integers(5, 200)))
    match = data.draw(st.sampled_from(["latest", "nearest", "before", "after"]))
    time = None if match == "latest" else data.draw(st.sampled_from(TIMES))
    min_valid, most = data.draw(st.sampled_from([0.3, 0.8, 1.0])), data.draw(st.sampled_from([2, 10]))
    in_order = ranked(records, match, time)
    candidates = chips(in_order, shape, rule="clouds")
    if not candidates:
        return
    expected = first_valid(candidates, min_valid, most)
    how = {"match": match, "times": time, "min_valid": min_valid, "max_candidates": most, "quality": [CLEAR]}
    found, valid = collection.get_numpy([shape], ["B1"], geometry_crs=32631, return_mask=True, skip_invalid=True, **how)
    np.testing.assert_array_equal(found[0], expected.pixels, strict=True)
    np.testing.assert_array_equal(valid[0], expected.valid, strict=True)


def test_a_pixel_has_to_be_valid_in_all_bands(stack: tuple[list[Record], Collection]) -> None:
    records, collection = stack
    for south in range(100, 1200, 100):
        shape = polygon(800, south, 30)
        both = [(chip(record, "B1", shape), chip(record, "B2", shape)) for record in ranked(records, "latest")]
        shares = [np.count_nonzero(one.valid & other.valid) / one.own for one, other in both]
        at = next((number for number, share in enumerate(shares) if share == 1), 0)
        found = collection.get_numpy(
            [shape], ["B1", "B2"], geometry_crs=32631, skip_invalid=True, match="latest", min_valid=1.0
        )
        np.testing.assert_array_equal(found[0], np.stack([each.pixels for each in both[at]]))


def test_no_file_of_a_second_record_is_read_where_the_first_is_valid(tmp_path: Path) -> None:
    records, collection = chip_stack.make(tmp_path)
    for record in records[:-1]:
        break_tiles(record.files["B1"])
    shape, how = polygon(800, 600, 60), {"match": "latest", "skip_invalid": True, "geometry_crs": 32631}
    expected = chip(records[-1], "B1", shape)
    assert expected.share > 0.8
    np.testing.assert_array_equal(collection.get_numpy(shape, ["B1"], **how)[0], expected.pixels)
    with pytest.raises(TileReadError, match="record 'R5', band B1"):
        collection.get_numpy(shape, ["B1"], quality=[CLEAR], **how)


# The same on Beam


def test_the_pipeline_gives_the_same_chips(stack: tuple[list[Record], Collection]) -> None:
    records, collection = stack
    shapes = [polygon(800, south, 90) for south in (200, 500, 900)]
    frame = gpd.GeoDataFrame({"day": ["2022-01-22T06:00", None, "2021-06-01"]}, geometry=shapes, crs=32631)
    how = {"match": "nearest", "time_column": "day", "tolerance": "30D", "quality": [CLEAR], "unscale": True}
    chips_kept, left_kept = Kept(), Kept()

    def build(pipeline: beam.Pipeline) -> None:
        out = pipeline | ReadPolygons(frame) | ReadChips(collection, ["B1"], with_unmatched=True, **how)
        out.chips | "Chips" >> beam.Map(lambda batch: chips_kept.keep([(batch,)]))
        out.unmatched | "Left" >> beam.Map(lambda batch: left_kept.keep([(batch,)]))

    run(build)
    table = pa.Table.from_batches([batch for (batch,) in chips_kept])
    left = pa.Table.from_batches([batch for (batch,) in left_kept])
    nearest = ranked([record for record, _ in chips(records, shapes[0])], "nearest", "2022-01-22T06:00", "30D")[0]
    expected = chip(nearest, "B1", shapes[0], rule="clouds", unscale=True)
    assert table["record_id"].to_pylist() == [nearest.id] and table["geometry_id"].to_pylist() == [0]
    ((pixels, valid),) = decode_chips(table)
    np.testing.assert_array_equal(pixels, expected.pixels)
    np.testing.assert_array_equal(valid, expected.valid)
    reasons = zip(left["geometry_id"].to_pylist(), left["reason"].to_pylist(), strict=True)
    assert sorted(reasons) == [(1, "no_time"), (2, "out_of_tolerance")]
