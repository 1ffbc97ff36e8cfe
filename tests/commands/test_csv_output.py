"""CSV output of the commands and the sinks, as Python's csv module reads it."""

import csv
import gzip
import json
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from apache_beam.transforms.window import FixedWindows
from hypothesis import given
from hypothesis import strategies as st

from pipelines import read_chips, sample_points, zonal_statistics
from pipelines.cli.flags import OTHER_ENDINGS
from rasteret_beam import Collection, WriteSamplesToCsv, build_from_cogs, load
from rasteret_beam.errors import InputError, OutputError
from rasteret_beam.kernels.tables.csv_text import csv_batch, json_text
from rasteret_beam.schema import geometry_field
from rasteret_beam.transforms.sinks import csv as csv_sink
from rasteret_beam.transforms.sinks.rounds import RoundRecords
from tests.support.commands import Outcome, execute
from tests.support.pipelines import XY, run
from tests.support.rasters import RasterCase

NAMES = ["plain", 'quo"te', "com,ma", "two\nlines", "", None, "é"]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection ``c`` of one raster, points ``p.parquet``, some of them outside, and polygons ``f.parquet``."""
    folder = tmp_path_factory.mktemp("inputs")
    path = RasterCase(name="s", dtype="int16", count=2, width=64, height=64, tile=(16, 16)).write(folder)
    build_from_cogs([path], bands=["B1", "B2"], name="one", datetime=["2023-06-01T10:30:00"]).export(folder / "c")
    rng = np.random.default_rng(4)
    x, y = rng.uniform(499_900, 501_024, 70), rng.uniform(4_498_976, 4_500_000, 70)
    seen = [datetime(2024, 1, 1, 12, tzinfo=UTC), None] * 35
    table = pa.table({"x": x, "y": y, "name": NAMES * 10, "seen": pa.array(seen, pa.timestamp("ms", "UTC"))})
    pq.write_table(table, folder / "p.parquet", row_group_size=30)
    shapes = shapely.to_wkb([shapely.box(500_100, 4_499_500, 500_200, 4_499_600), shapely.box(0, 0, 1, 1)])
    pq.write_table(pa.table({"geometry": shapes, "field": ["a", "b"]}), folder / "f.parquet")
    return folder


@pytest.fixture(scope="module")
def samples(inputs: Path) -> pa.Table:
    return collection(inputs).sample_points(pq.read_table(inputs / "p.parquet"), ["B1", "B2"], **XY)


def collection(inputs: Path) -> Collection:
    return load(inputs / "c")


def sample(inputs: Path, *words: object) -> Outcome:
    flags = [f"--points={inputs}/p.parquet", "--x_column=x", "--y_column=y", "--geometry_crs=32631", "--bands=B1,B2"]
    return execute(sample_points.main, *flags, f"--collection={inputs}/c", *words)


def rows_of(path: Path) -> list[dict[str, str]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix.lower() == ".gz" else data).decode()
    return list(csv.DictReader(StringIO(text, newline=""), strict=True))


def expected(samples: pa.Table) -> list[dict[str, str]]:
    """Text of the rows, made one by one."""

    def text(value: object) -> str:
        if isinstance(value, datetime):
            return value.isoformat().replace("+00:00", "Z")
        return "" if value is None else str(value)

    return [{name: text(value) for name, value in row.items()} for row in samples.to_pylist()]


def by_row(rows: list[dict[str, str]]) -> list[tuple[str, ...]]:
    return sorted(tuple(row.values()) for row in rows)


def as_numbers(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Numbers in the form of Python: CSV has 3 where it has 3.0."""
    return [row | {name: str(float(row[name])) for name in ("point_x", "point_y", "value", "x", "y")} for row in rows]


@pytest.mark.parametrize(("name", "more"), [("s.csv", ["--round_points=25"]), ("s.csv.gz", []), ("s.CSV.GZ", [])])
def test_the_file_has_the_samples(inputs: Path, samples: pa.Table, tmp_path: Path, name: str, more: list[str]) -> None:
    outcome = sample(inputs, f"--output={tmp_path}/{name}", f"--unsampled={tmp_path}/left.csv", *more)
    assert outcome.code == 0, outcome.err
    assert f"{tmp_path}/{name}\n" in outcome.out
    rows = rows_of(tmp_path / name)
    assert list(rows[0]) == samples.schema.names
    assert by_row(as_numbers(rows)) == by_row(expected(samples))
    assert {row["datetime"] for row in rows} == {"2023-06-01T10:30:00"}
    assert {row["seen"] for row in rows} == {"2024-01-01T12:00:00Z", ""}
    left = rows_of(tmp_path / "left.csv")
    assert {int(row["point_index"]) for row in left} == set(range(70)) - set(samples["point_index"].to_pylist())
    assert {row["reason"] for row in left} == {"no_record"}
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {name, "left.csv", f"_{name}.manifest.json", "_left.csv.manifest.json"}


def test_a_failed_run_leaves_the_file_and_is_resumed(
    inputs: Path, samples: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s.csv").write_text("before")
    real = RoundRecords.finish

    def finish(self: RoundRecords, done: object) -> None:
        if len(self.finished()) == 2:
            raise OutputError("the network is gone")
        real(self, done)

    flags = f"--output={tmp_path}/s.csv", "--round_points=30"
    with monkeypatch.context() as patch:
        patch.setattr(RoundRecords, "finish", finish)
        assert sample(inputs, *flags).code == 1
    assert (tmp_path / "s.csv").read_text() == "before"
    outcome = sample(inputs, *flags, "--resume")
    assert outcome.code == 0 and "60 of 70 points in 2 round(s) are finished" in outcome.err
    assert by_row(as_numbers(rows_of(tmp_path / "s.csv"))) == by_row(expected(samples))
    assert {path.name for path in tmp_path.iterdir()} == {"s.csv", "_s.csv.manifest.json"}


def test_lists_geometries_and_outputs_without_rows(inputs: Path, tmp_path: Path) -> None:
    options = ["--layout=values", "--geometry=pixel", f"--output={tmp_path}/s.csv"]
    assert sample(inputs, *options).code == 0
    table = collection(inputs).sample_points(
        pq.read_table(inputs / "p.parquet"), ["B1", "B2"], layout="values", geometry="pixel", **XY
    )
    found = {int(row["point_index"]): row for row in rows_of(tmp_path / "s.csv")}
    assert len(found) == len(table)
    for row in table.to_pylist():
        own = found[row["point_index"]]
        assert json.loads(own["values"]) == row["values"]
        assert shapely.from_wkt(own["geometry"]).equals(shapely.from_wkb(row["geometry"]))
    outcome = sample(inputs, "--geometry_crs=32633", f"--output={tmp_path}/s.csv")
    assert outcome.code == 0
    assert (tmp_path / "s.csv").read_text().splitlines() == [
        ",".join(f'"{name}"' for name in collection(inputs).sample_schema(["B1", "B2"]).names)
        + ',"x","y","name","seen"'
    ]


def test_zonal_statistics(inputs: Path, tmp_path: Path) -> None:
    flags = [f"--polygons={inputs}/f.parquet", "--geometry_crs=32631", f"--collection={inputs}/c", "--bands=B1"]
    more = [f"--output={tmp_path}/z.csv", f"--unmatched={tmp_path}/u.csv", "--statistics=count,mean"]
    assert execute(zonal_statistics.main, *flags, *more).code == 0
    polygons = pq.read_table(inputs / "f.parquet")
    table = collection(inputs).zonal_statistics(polygons, ["B1"], geometry_crs=32631, statistics=["count", "mean"])
    (row,), (own,) = table.to_pylist(), rows_of(tmp_path / "z.csv")
    assert (int(own["count"]), float(own["mean"]), own["field"]) == (row["count"], row["mean"], "a")
    (left,) = rows_of(tmp_path / "u.csv")
    assert bytes.fromhex(left["geometry"]) == polygons["geometry"][1].as_py() and left["reason"] == "no_record"


def test_many_rows_are_warned_of(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_sink, "MANY_ROWS", 10)
    outcome = sample(inputs, f"--output={tmp_path}/s.csv")
    rows = len(rows_of(tmp_path / "s.csv"))
    assert f"{tmp_path}/s.csv has {rows} rows; spreadsheets show at most 1,048,576. Write Parquet, " in outcome.err
    monkeypatch.setattr(csv_sink, "MANY_ROWS", rows)
    assert sample(inputs, f"--output={tmp_path}/s.csv").err == ""


@pytest.mark.parametrize("ending", OTHER_ENDINGS[::9])
def test_other_endings_are_refused(inputs: Path, tmp_path: Path, ending: str) -> None:
    outcome = sample(inputs, f"--output={tmp_path}/s{ending}")
    assert outcome.code == 2 and list(tmp_path.iterdir()) == []
    assert outcome.err.endswith(
        f"--output: '{tmp_path}/s{ending}' ends in {ending}, which is not written; give a path that ends in .csv or "
        f".csv.gz for a CSV file, or a prefix of Parquet files such as '{tmp_path}/s'\n"
    )


@pytest.mark.parametrize("flag", ["--output", "--unsampled", "--report"])
def test_a_folder_is_refused_before_a_pixel_is_read(
    inputs: Path, tmp_path: Path, flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ("s.html" if flag == "--report" else "s.csv")
    folder.mkdir()
    monkeypatch.setattr(sample_points.Job, "build", None)
    more = [f"--output={tmp_path}/other.csv"] if flag != "--output" else []
    outcome = sample(inputs, f"{flag}={folder}", *more)
    assert outcome.code == 1
    assert outcome.err.endswith(f"output {folder} cannot be written: it is a folder; give the path of a file\n")
    assert list(tmp_path.rglob("*")) == [folder]


def test_what_is_parquet_only_is_not_csv(inputs: Path, tmp_path: Path) -> None:
    outcome = sample(inputs, f"--output={tmp_path}/s.csv", f"--dead_letter={tmp_path}/d.csv")
    assert outcome.code == 2 and "--dead_letter" in outcome.err and "written to Parquet only" in outcome.err
    flags = [f"--polygons={inputs}/f.parquet", f"--collection={inputs}/c", "--bands=B1"]
    outcome = execute(read_chips.main, *flags, f"--output={tmp_path}/d.csv")
    assert outcome.code == 2 and "--output" in outcome.err and "written to Parquet only" in outcome.err
    for path in ("s.parquet", "s", "", ".csv", "out/.csv.gz"):
        with pytest.raises(InputError, match="give the path of a CSV file, such as out/samples"):
            WriteSamplesToCsv(path)


def test_the_points_are_not_replaced(inputs: Path, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("x,y\n500100,4499500\n")
    flags = ["--x_column=x", "--y_column=y", "--geometry_crs=32631", f"--collection={inputs}/c", "--bands=B1"]
    outcome = execute(sample_points.main, *flags, f"--points={tmp_path}/p.csv", f"--output={tmp_path}/p.csv")
    assert outcome.code == 1 and "would replace --points" in outcome.err
    outcome = execute(sample_points.main, *flags, f"--points={tmp_path}", f"--output={tmp_path}/s.csv")
    assert outcome.code == 1 and "lies in --points" in outcome.err
    assert execute(sample_points.main, *flags, f"--points={tmp_path}/p.csv", f"--output={tmp_path}/q.csv").code == 0


def test_windows_are_refused(tmp_path: Path) -> None:
    message = "WriteSamplesToCsv writes one file .*; write them with WriteSamplesToParquet, which gives each window"
    with pytest.raises(InputError, match=message), beam.Pipeline() as pipeline:
        rows = pipeline | beam.Create([1]) | beam.WindowInto(FixedWindows(10))
        rows | WriteSamplesToCsv(tmp_path / "s.csv")


VALUES = {
    "moment": (pa.timestamp("us"), [datetime(2023, 1, 2, 3, 4, 5, 600), None], ["2023-01-02T03:04:05.000600", ""]),
    "whole": (pa.timestamp("ns"), [datetime(2023, 1, 2, 3, 4, 50), None], ["2023-01-02T03:04:50", ""]),
    "zone": (
        pa.timestamp("s", "Europe/Berlin"),
        [datetime(2023, 7, 1, tzinfo=UTC), None],
        ["2023-07-01T00:00:00Z", ""],
    ),
    "day": (pa.date32(), [date(2023, 1, 2), None], ["2023-01-02", ""]),
    "hour": (pa.time32("s"), [time(1, 2, 3), None], ["01:02:03", ""]),
    "span": (pa.duration("ms"), [timedelta(days=1, milliseconds=500), None], ["86400.5", ""]),
    "spans": (
        pa.duration("ns"),
        [timedelta(days=200, milliseconds=1), timedelta(milliseconds=35)],
        ["17280000.001", "0.035"],
    ),
    "half": (pa.float16(), [1.5, None], ["1.5", ""]),
    "exact": (pa.decimal128(5, 2), [Decimal("1.50"), None], ["1.50", ""]),
    "code": (pa.dictionary(pa.int8(), pa.string()), ["a", None], ["a", ""]),
    "bytes": (pa.binary(), [b"\x00\xff", None], ["00ff", ""]),
    "fixed": (pa.binary(2), [b"\x00\xff", None], ["00ff", ""]),
    "list": (pa.list_(pa.float64()), [[1.5, None, float("nan")], None], ["[1.5,null,null]", ""]),
    "pair": (pa.list_(pa.int16(), 2), [[1, -2], None], ["[1,-2]", ""]),
    "texts": (pa.large_list(pa.string()), [['q"', "é\n"], []], ['["q\\"","é\\n"]', "[]"]),
    "listed": (pa.list_(pa.duration("us")), [[timedelta(milliseconds=1500), None], None], ["[1.5,null]", ""]),
    "struct": (
        pa.struct([("a", pa.int8()), ('b"', pa.bool_())]),
        [{"a": 1, 'b"': True}, None],
        ['{"a":1,"b\\"":true}', ""],
    ),
    "map": (pa.map_(pa.string(), pa.int8()), [[("k", 1)], None], ['[{"key":"k","value":1}]', ""]),
    "deep": (pa.list_(pa.list_(pa.date32())), [[[date(2023, 1, 2)], None], None], ['[["2023-01-02"],null]', ""]),
    "nothing": (pa.null(), [None, None], ["", ""]),
}


def test_columns_of_all_types(tmp_path: Path) -> None:
    table = pa.table({name: pa.array(values, kind) for name, (kind, values, _) in VALUES.items()})
    run(lambda pipeline: pipeline | beam.Create(table.to_batches()) | WriteSamplesToCsv(tmp_path / "s.csv"))
    rows = rows_of(tmp_path / "s.csv")
    assert {name: [row[name] for row in rows] for name in VALUES} == {
        name: texts for name, (*_, texts) in VALUES.items()
    }


def test_geometries_of_slices_are_wkt() -> None:
    wkb = [None, shapely.to_wkb(shapely.Point(0.1, 2)), shapely.to_wkb(shapely.LineString([(1 / 3, 0), (1, 1)]))]
    schema = pa.schema([geometry_field(None), ("raw", pa.binary())])
    batch = pa.RecordBatch.from_arrays([pa.array(wkb), pa.array([b"a", None, b"\xff"])], schema=schema).slice(1)
    found = csv_batch(batch).to_pydict()
    assert found == {"geometry": ["POINT (0.1 2)", "LINESTRING (0.3333333333333333 0, 1 1)"], "raw": [None, "ff"]}


@given(
    st.lists(st.none() | st.lists(st.none() | st.text(max_size=4), max_size=3), max_size=6),
    st.lists(st.none() | st.lists(st.none() | st.floats(width=64, allow_infinity=False, allow_nan=False), max_size=3)),
)
def test_json_reads_back(texts: list, numbers: list) -> None:
    for values, kind in ((texts, pa.string()), (numbers, pa.float64())):
        array = pa.array([None, *values], pa.list_(kind)).slice(1)
        assert [json.loads(text) for text in json_text(array).to_pylist()] == values
