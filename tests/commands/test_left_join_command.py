"""The command with --join left and extra columns: outputs, layouts, rounds, dead letters, and accounting."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.sample_points import main
from rasteret_beam import Collection, build_from_cogs, load
from rasteret_beam.kernels.sampling.missing_rows import rows_of_unsampled
from rasteret_beam.transforms.sampling import missing
from tests.support.commands import as_flags, execute
from tests.support.pipelines import ORDER, XY, read
from tests.support.rasters import RasterCase, damage_tile

pytestmark = pytest.mark.usefixtures("same_signal_handlers")

POINTS = 300
DAMAGED = 5  # tile (1, 1) of 4 across
EXTRA = ["status", "record:platform", "pixel_lon"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One scene of two bands; points, a fifth of them beside it and some without coordinates."""
    folder = tmp_path_factory.mktemp("left")
    options = {"COMPRESS": "DEFLATE", "INTERLEAVE": "BAND"}
    path = RasterCase(name="scene", dtype="int16", count=2, nodata=7, gaps=7, options=options).write(folder)
    table = build_from_cogs([path], datetime=["2023-01-01"], name="left").to_table()
    Collection.from_table(table.append_column("platform", pa.array(["s2"])), name="left").export(folder / "collection")
    rng = np.random.default_rng(1)
    x, y = 500_000 + rng.uniform(-40 * 16, 203 * 16, POINTS), 4_500_000 - rng.uniform(0, 157 * 16, POINTS)
    points = pa.table({"x": pa.array(x, mask=np.arange(POINTS) % 60 == 3), "y": y, "plot": [*range(POINTS)]})
    pq.write_table(points, folder / "points.parquet", row_group_size=80)
    return folder


def flags(folder: Path, output: Path | None, **more: Any) -> list[str]:
    given = {"points": folder / "points.parquet", "x_column": "x", "y_column": "y", "geometry_crs": 32631}
    given |= {"collection": folder / "collection", "bands": "B1,B2", "join": "left", "match": "latest"}
    return as_flags(**given | {"output": output} | more)


def eager(folder: Path, **options: Any) -> pa.Table:
    points = pq.read_table(folder / "points.parquet")
    options = {"join": "left", "match": "latest"} | options | XY
    return load(folder / "collection").sample_points(points, ["B1", "B2"], **options).sort_by(ORDER[:1])


@pytest.mark.parametrize("layout", ["long", "values", "columns"])
@pytest.mark.parametrize("round_points", [pytest.param(None, marks=pytest.mark.slow), 90])
def test_outputs(folder: Path, tmp_path: Path, layout: str, round_points: int | None) -> None:
    extra = EXTRA if layout == "long" else EXTRA[:2]
    given = {"layout": layout, "extra_columns": ",".join(extra), "round_points": round_points}
    done = execute(main, *flags(folder, tmp_path / "s", unsampled=tmp_path / "left", **given))
    assert (done.code, done.err) == (0, "")
    left = read(tmp_path / "left")
    each = 2 if layout == "long" else 1
    assert done.figures["rows"] == POINTS * each and done.figures["unsampled"] == len(left) > 40
    found = read(tmp_path / "s")
    order = ORDER if layout == "long" else ORDER[:1]
    wanted = eager(folder, layout=layout, extra_columns=extra)
    assert found.sort_by(order).equals(wanted.sort_by(order)) and len(found) == POINTS * each
    assert set(found["status"].to_pylist()) == {"valid", "nodata", "null", "no_record"}
    plan = execute(main, *flags(folder, None, **given | {"round_points": None}), "--plan")
    assert plan.code == 0 and plan.figures["rows"] == POINTS * each
    missing_points = found.filter(pa.compute.is_null(found["record_id"]))["point_index"].to_pylist()
    assert sorted(set(missing_points)) == left["point_index"].to_pylist()


@pytest.mark.parametrize("invalid", ["keep", "null", "drop"])
@pytest.mark.parametrize("skip_invalid", [False, True])
def test_dead_letters_and_their_retry(folder: Path, tmp_path: Path, invalid: str, skip_invalid: bool) -> None:
    """Both runs together give the rows of all points and bands, those that are dropped too."""
    shutil.copy(folder / "scene.tif", tmp_path / "good.tif")
    extra = ",".join(EXTRA)
    words = flags(folder, tmp_path / "first", dead_letter=tmp_path / "dead", extra_columns=extra, invalid=invalid)
    damage_tile(folder / "scene.tif", DAMAGED)
    try:
        first = execute(main, *words, *(["--skip_invalid"] if skip_invalid else []))
    finally:
        shutil.copy(tmp_path / "good.tif", folder / "scene.tif")
    assert first.code == 3 and 1 < first.figures["values in them"] == 2 * POINTS - first.figures["rows"]
    again = as_flags(retry=f"{tmp_path}/dead-*.parquet", collection=folder / "collection", output=tmp_path / "second")
    again += as_flags(join="left", extra_columns=extra, invalid=invalid)
    refused = execute(main, *again, "--skip_invalid")
    assert refused.code == 1 and "--skip_invalid does not go with --retry, whose dead letters say" in refused.err
    second = execute(main, *again)
    assert (second.code, second.err) == (0, "")
    both = pa.concat_tables([read(tmp_path / "first"), read(tmp_path / "second")]).sort_by(ORDER)
    wanted = eager(folder, extra_columns=EXTRA, invalid=invalid, skip_invalid=skip_invalid).sort_by(ORDER)
    assert records(both) == records(wanted) and len(both) == 2 * POINTS
    assert ("invalid" in both["status"].to_pylist()) == (invalid == "drop")


def records(rows: pa.Table) -> list[str]:
    return sorted(map(repr, rows.to_pylist()))


def test_rows_that_are_lost(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command adds them up, and does not end well."""

    def without_first(*given: Any) -> Iterator[pa.RecordBatch]:
        rows = iter(rows_of_unsampled(*given))
        next(rows, None)
        yield from rows

    monkeypatch.setattr(missing, "rows_of_unsampled", without_first)
    done = execute(main, *flags(folder, tmp_path / "s"))
    assert done.code == 1
    assert f"{POINTS} points were to have {2 * POINTS} rows, but " in done.err and "made or given up" in done.err


ERRORS = {
    "mistyped column": ("record:platfrom", "error: --extra_columns have 'record:platfrom', but the collection has no"),
    "mistyped name": ("pixel_long", "error: --extra_columns have 'pixel_long' (did you mean 'pixel_lon'?); there are"),
    "wide": ("B1_record_id", "error: --layout is 'long', but --extra_columns have 'B1_record_id'; each row of one"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(folder: Path, tmp_path: Path, case: str) -> None:
    names, message = ERRORS[case]
    done = execute(main, *flags(folder, tmp_path / "s", extra_columns=names))
    assert done.code == 1 and done.err.startswith(message) and not list(tmp_path.iterdir())
