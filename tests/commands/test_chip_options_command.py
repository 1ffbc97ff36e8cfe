"""The chip command with times, quality rules, physical units and ``--skip_invalid``, by brute force; and retries."""

from pathlib import Path

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely

from pipelines.read_chips import main
from rasteret_beam import decode_chips
from tests.support import chip_stack
from tests.support.chip_stack import LEFT, TOP, ZONE, Record, chip, ranked
from tests.support.commands import Outcome, execute
from tests.support.rasters import damage_tile

TIMES = ("2022-01-22T06:00", "2022-01-30", "2022-02-20")
MATCH = ["--match=nearest", "--time_column=day", "--tolerance=60D"]
CLEAR = ["--quality=SCL not in 8,9", "--unscale"]


@pytest.fixture
def stack(tmp_path: Path) -> tuple[Path, list[Record], gpd.GeoDataFrame]:
    """The stack without the record that lacks SCL, and polygons with times; the last has none."""
    records, collection = chip_stack.make(tmp_path)
    collection.subset(ids=[record.id for record in records[:-1]]).export(tmp_path / "collection")
    collection.export(tmp_path / "all")
    shapes = [shapely.Point(LEFT + 800, TOP - at).buffer(70, quad_segs=3) for at in range(150, 1150, 100)]
    days = [*np.resize(TIMES, len(shapes) - 1).tolist(), None]
    frame = gpd.GeoDataFrame({"plot": range(len(shapes)), "day": days}, geometry=shapes, crs=ZONE)
    frame.to_parquet(tmp_path / "plots.parquet")
    return tmp_path, records[:-1], frame


def read_chips(folder: Path, *flags: str, source: str = "polygons=plots.parquet", output: str = "chips") -> Outcome:
    name, _, path = source.partition("=")
    given = [f"--{name}={folder}/{path}", f"--collection={folder}/collection", f"--output={folder}/{output}"]
    return execute(main, *given, *flags)


def check(folder: Path, frame: gpd.GeoDataFrame, taken: dict[int, Record], output: str = "chips") -> None:
    """The rows of B1 are the chips of the records that are taken, in physical units."""
    rows = pq.read_table(folder / f"{output}-00000-of-00001.parquet")
    found = {row["plot"]: (row, pixels) for row, (pixels, _) in zip(rows.to_pylist(), decode_chips(rows), strict=True)}
    assert {plot: row["record_id"] for plot, (row, _) in found.items()} == {
        plot: record.id for plot, record in taken.items()
    }
    for plot, (_, pixels) in found.items():
        expected = chip(taken[plot], "B1", frame.geometry[plot], rule="clouds", unscale=True)
        assert expected is not None
        np.testing.assert_array_equal(pixels, expected.pixels, strict=True)


def best_first(records: list[Record], frame: gpd.GeoDataFrame) -> dict[int, list[Record]]:
    """The records of each plot with a time, nearest first."""
    return {
        plot: [
            record
            for record in ranked(records, "nearest", day, "60D")
            if chip(record, "B1", frame.geometry[plot]) is not None
        ]
        for plot, day in enumerate(frame["day"][:-1])
    }


def enough(record: Record, shape: shapely.Geometry) -> bool:
    found = chip(record, "B1", shape, rule="clouds")
    return found is not None and found.share >= 0.8


def test_nearest_in_time_with_quality_in_physical_units(stack: tuple[Path, list[Record], gpd.GeoDataFrame]) -> None:
    folder, records, frame = stack
    tiffs = [f"--geotiff={folder}/tiffs", f"--unmatched={folder}/left"]
    outcome = read_chips(folder, "--bands=B1", *MATCH, *CLEAR, *tiffs)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.figures["no_time"] == 1 and outcome.figures["rows"] == len(frame) - 1
    taken = {plot: near[0] for plot, near in best_first(records, frame).items()}
    check(folder, frame, taken)
    with rasterio.open(folder / "tiffs" / f"0@{taken[0].id}@B1.tif") as dataset:
        expected = chip(taken[0], "B1", frame.geometry[0], rule="clouds", unscale=True)
        assert expected is not None and dataset.dtypes[0] == "float64"
        np.testing.assert_array_equal(dataset.read(1), expected.pixels)


@pytest.mark.slow
def test_skip_invalid_takes_the_nearest_clear_record(stack: tuple[Path, list[Record], gpd.GeoDataFrame]) -> None:
    folder, records, frame = stack
    outcome = read_chips(folder, "--bands=B1", *MATCH, *CLEAR, "--skip_invalid", f"--geotiff={folder}/tiffs")
    assert (outcome.code, outcome.err) == (0, "")
    near = best_first(records, frame)
    taken = {
        plot: next((record for record in order if enough(record, frame.geometry[plot])), order[0])
        for plot, order in near.items()
    }
    check(folder, frame, taken)
    assert any(record is not near[plot][0] for plot, record in taken.items())
    assert outcome.figures["chips looked for further on"] > 0
    one = read_chips(folder, "--bands=B1", *MATCH, *CLEAR, "--skip_invalid", "--max_candidates=1", output="one")
    assert one.code == 0
    check(folder, frame, {plot: order[0] for plot, order in near.items()}, "one")


@pytest.mark.parametrize(
    "skip", [pytest.param([], id="best", marks=pytest.mark.slow), pytest.param(["--skip_invalid"], id="valid")]
)
def test_a_damaged_quality_tile_is_tried_again(
    stack: tuple[Path, list[Record], gpd.GeoDataFrame], skip: list[str]
) -> None:
    folder, records, frame = stack
    nearest = {plot: near[0] for plot, near in best_first(records, frame).items()}
    quality = nearest[0].files["SCL"]
    good = quality.read_bytes()
    damage_tile(quality, 0)
    first = read_chips(folder, "--bands=B1", *MATCH, *CLEAR, *skip, f"--dead_letter={folder}/letters")
    assert first.code == 3 and f"--retry '{folder}/letters-*.parquet'" in first.err
    letters = pq.read_table(folder / "letters-00000-of-00001.parquet")
    assert set(letters["href"].to_pylist()) == {str(quality)}
    assert set(letters["record_id"].to_pylist()) == {nearest[0].id} and set(letters["band"].to_pylist()) == {"B1"}
    lost = {number for numbers in letters["geometry_ids"].to_pylist() for number in numbers}
    quality.write_bytes(good)
    again = read_chips(folder, source="retry=letters-*.parquet", output="again")
    assert (again.code, again.err, again.figures["rows"]) == (0, "", len(lost))
    check(folder, frame, dict.fromkeys(lost, nearest[0]), "again")
    rows = pa.concat_tables(
        pq.read_table(folder / f"{name}-00000-of-00001.parquet", columns=["plot"]) for name in ("chips", "again")
    )
    assert sorted(rows["plot"].to_pylist()) == list(range(len(frame) - 1))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--skip_invalid"], "--skip_invalid is True, but --match is 'all'"),
        (["--match=nearest", "--skip_invalid"], "--match is 'nearest', but --time_column is None"),
        (["--match=latest", "--skip_invalid", "--min_valid=0"], "--min_valid is 0.0"),
        (["--match=latest", "--quality=CLD <= 40"], "lacks band(s) CLD"),
        (["--match=nearest", "--time_column=week"], "week"),
        (["--collection={folder}/all", "--quality=SCL not in 8"], "quality band SCL is not in 1 of the 8 records"),
    ],
)
def test_flags_that_cannot_be_used(
    stack: tuple[Path, list[Record], gpd.GeoDataFrame], flags: list[str], message: str
) -> None:
    given = [flag.format(folder=stack[0]) for flag in flags]
    outcome = read_chips(stack[0], "--bands=B1", *given)
    assert outcome.code in (1, 2) and message in outcome.err, outcome.err
