"""The command with the times of points: rows as brute force has them, unsampled points, a plan, a retry, and errors."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.sample_points import main
from rasteret_beam import Collection, build_from_cogs
from tests.support.commands import execute
from tests.support.pipelines import ORDER, XY, read
from tests.support.rasters import RasterCase, damage_tile

DATES = pd.to_datetime(["2023-05-01", "2023-05-09", "2023-05-30"])
TEN_DAYS = pd.Timedelta("10D")
DAMAGED = 5  # tile (1, 1) of 4 across
MATCH = ["--match=nearest", "--time_column=date", "--tolerance=10D", "--limit=2", "--extra_columns=time_difference"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Collection, pd.DataFrame]:
    """Three dates at one place; 300 points with text dates, every 50th without one and some beside the rasters."""
    folder = tmp_path_factory.mktemp("dates")
    options = {"COMPRESS": "DEFLATE"}
    paths = [
        RasterCase(name=f"d{number}", dtype="int16", count=1, options=options).write(folder) for number in range(3)
    ]
    collection = build_from_cogs(paths, datetime=list(DATES), name="dates")
    collection.export(folder / "collection")
    rng = np.random.default_rng(5)
    frame = pd.DataFrame(
        {"x": 500_000 + rng.uniform(-50, 203 * 16, 300), "y": 4_500_000 - rng.uniform(0, 157 * 16, 300)}
    )
    days = pd.Timestamp("2023-04-15") + pd.to_timedelta(rng.integers(0, 70, 300), "D")
    frame["date"] = days.strftime("%Y-%m-%d").where(frame.index % 50 != 7)
    frame.to_csv(folder / "points.csv", index_label="plot")
    return folder, collection, frame


def flags_of(folder: Path) -> list[str]:
    place = [f"--points={folder}/points.csv", "--x_column=x", "--y_column=y", "--geometry_crs=32631"]
    return [*place, "--columns=plot", f"--collection={folder}/collection", "--bands=B1"]


def wanted_rows(frame: pd.DataFrame) -> tuple[dict[tuple[int, str], float], dict[int, str]]:
    """Seconds of the two nearest dates within ten days, by point and record; and the reasons of the other points."""
    rows: dict[tuple[int, str], float] = {}
    reasons = {}
    for point, (x, date) in enumerate(zip(frame["x"], pd.to_datetime(frame["date"]), strict=True)):
        if pd.isna(date):
            reasons[point] = "no_time"
            continue
        apart = [(abs(moment - date), moment, number) for number, moment in enumerate(DATES)]
        near = sorted(each for each in apart if each[0] <= TEN_DAYS)[:2]
        if x < 500_000 or not near:
            reasons[point] = "no_record" if x < 500_000 else "out_of_tolerance"
            continue
        rows |= {(point, f"d{number}"): (moment - date).total_seconds() for _, moment, number in near}
    return rows, reasons


def test_rows_plan_and_reasons(scenes: tuple[Path, Collection, pd.DataFrame], tmp_path: Path) -> None:
    folder, collection, frame = scenes
    rows, reasons = wanted_rows(frame)
    assert set(reasons.values()) == {"no_time", "no_record", "out_of_tolerance"} and len(rows) > 150
    done = execute(main, *flags_of(folder), *MATCH, f"--output={tmp_path}/out", f"--unsampled={tmp_path}/left")
    assert (done.code, done.err) == (0, "")
    assert done.figures["no_time"] == 6 and done.figures["rows"] == len(rows)
    found = read(tmp_path / "out")
    keys = zip(found["point_index"].to_pylist(), found["record_id"].to_pylist(), strict=True)
    assert dict(zip(keys, found["time_difference"].to_pylist(), strict=True)) == rows
    assert found["date"].to_pylist() == [frame["date"][at] for at in found["point_index"].to_pylist()]
    left = read(tmp_path / "left")
    assert dict(zip(left["point_index"].to_pylist(), left["reason"].to_pylist(), strict=True)) == reasons
    eager = collection.sample_points(
        pa.table(frame.assign(plot=range(300))), ["B1"], **XY, columns=["plot"], match="nearest", time_column="date",
        tolerance="10D", limit=2, extra_columns=["time_difference"],
    )  # fmt: skip
    assert found.sort_by(ORDER).equals(eager.sort_by(ORDER).cast(found.schema))
    plan = execute(main, *flags_of(folder), *MATCH, "--plan")
    assert plan.code == 0 and plan.figures["rows"] == len(rows)
    assert [plan.figures[name] for name in ("no_time", "no_record", "out_of_tolerance")] == [
        list(reasons.values()).count(name) for name in ("no_time", "no_record", "out_of_tolerance")
    ]


def test_dead_letters_are_tried_again(scenes: tuple[Path, Collection, pd.DataFrame], tmp_path: Path) -> None:
    """A retry gives the rows that are missing, with their time differences."""
    folder, _, frame = scenes
    shutil.copy(folder / "d1.tif", tmp_path / "good.tif")
    damage_tile(folder / "d1.tif", DAMAGED)
    try:
        first = execute(main, *flags_of(folder), *MATCH, f"--output={tmp_path}/first", f"--dead_letter={tmp_path}/dead")
    finally:
        shutil.copy(tmp_path / "good.tif", folder / "d1.tif")
    assert first.code == 3
    retry = [f"--retry={tmp_path}/dead-*.parquet", f"--collection={folder}/collection", "--time_column=date"]
    second = execute(main, *retry, "--extra_columns=time_difference", f"--output={tmp_path}/second")
    assert (second.code, second.err) == (0, "")
    both = pa.concat_tables([read(tmp_path / "first"), read(tmp_path / "second")])
    assert len(both) > len(read(tmp_path / "first"))
    keys = zip(both["point_index"].to_pylist(), both["record_id"].to_pylist(), strict=True)
    assert dict(zip(keys, both["time_difference"].to_pylist(), strict=True)) == wanted_rows(frame)[0]
    refused = execute(main, *retry, "--tolerance=1D", f"--output={tmp_path}/third")
    assert refused.code == 1
    assert "--tolerance does not go with --retry, whose dead letters say it all; leave it out" in refused.err


ERRORS = {
    "no column": (
        ["--match=nearest"],
        "--match is 'nearest', but --time_column is None; name the column of the points",
    ),
    "unknown column": (
        ["--match=nearest", "--time_column=when"],
        "points.csv has no column 'when'; it has plot, x, y, date",
    ),
    "length": ([*MATCH[:2], "--tolerance=10"], "--tolerance is '10', which is not a length of time; give text such as"),
    "latest": (
        ["--match=latest", "--time_column=date", "--limit=2"],
        "--limit is 2, but --match is 'latest', which takes",
    ),
    "numbers": (["--match=before", "--time_column=x"], "points.csv is double; it has to hold timestamps, dates or ISO"),
    "text": (
        ["--match=before", "--time_column=plot"],
        "row 0 of --time_column 'plot' is '0', which is not a date or time",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(scenes: tuple[Path, Collection, pd.DataFrame], tmp_path: Path, case: str) -> None:
    flags, message = ERRORS[case]
    done = execute(main, *flags_of(scenes[0]), *flags, f"--output={tmp_path}/out")
    assert done.code == 1 and message in done.err and not list(tmp_path.iterdir())


def test_no_point_in_time(scenes: tuple[Path, Collection, pd.DataFrame], tmp_path: Path) -> None:
    folder = scenes[0]
    points = pa.table({"x": [500_100.0], "y": [4_499_900.0], "date": ["1999-01-01T10:00:00+01:00"]})
    pq.write_table(points, tmp_path / "old.parquet")
    flags = [f"--points={tmp_path}/old.parquet", *flags_of(folder)[1:4], *flags_of(folder)[5:]]
    done = execute(main, *flags, "--match=before", "--time_column=date", f"--output={tmp_path}/out")
    assert done.code == 0
    assert (
        "none of the points has a record in time: their times go from 1999-01-01T09:00:00 to 1999-01-01T09:00:00, the "
        "datetimes of the records from 2023-05-01T00:00:00 to 2023-05-30T00:00:00; use a larger tolerance or another"
    ) in done.err
