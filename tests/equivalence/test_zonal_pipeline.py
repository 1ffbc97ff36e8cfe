"""Zonal statistics in a pipeline: the rows of the eager call, every polygon accounted for, windows kept."""

from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import shapely
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import FixedWindows, IntervalWindow, TimestampedValue

from rasteret_beam import (
    Collection,
    ReadPolygons,
    WriteZonalStatisticsToParquet,
    ZonalOptions,
    ZonalStatistics,
    metrics,
)
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.routing.chip_chunks import ChipRules
from tests.support.pipelines import LOCAL, Kept, run
from tests.support.zonal_jobs import ORDER, table_of, zonal, zones_of

LEFT, TOP = 500_000.0, 5_400_000.0
BANDS = ["B10", "B20"]
ALL = ("count", "valid_fraction", "mean", "median", "std", "min", "max", "sum", "majority", "variety", "percentile_2.5")
NUMBER = 40


@pytest.fixture(scope="module")
def fields() -> pa.Table:
    """Turned boxes over both places, across edges and tiles; one large, one without a pixel centre, two outside."""
    rng = np.random.default_rng(3)
    corner = rng.uniform([LEFT - 100, TOP - 3_050], [LEFT + 5_050, TOP + 100], (NUMBER, 2))
    side = rng.uniform(20, 400, (NUMBER, 2))
    shapes = [shapely.affinity.rotate(shapely.box(*at, *(at + by)), 20) for at, by in zip(corner, side, strict=True)]
    shapes[0] = shapely.box(LEFT - 500, TOP - 2_500, LEFT + 4_000, TOP - 100)
    shapes[1] = shapely.box(LEFT + 100.5, TOP - 103, LEFT + 103, TOP - 100.5)
    shapes[-2:] = shapely.box(0, 0, 9, 9), shapely.box(LEFT, TOP + 500, LEFT + 50, TOP + 600)
    days = pa.array([19_360 + 5 * number for number in range(NUMBER)], pa.int32()).cast(pa.date32())
    crops = pa.array(rng.choice(["wheat", "maize"], NUMBER)).dictionary_encode()
    return pa.table({"geometry": shapely.to_wkb(shapes), "crop": crops, "seen": days})


HOW: dict[str, dict[str, Any]] = {
    "all statistics": {"statistics": ALL, "extra_columns": ["record:eo:cloud_cover"]},
    "shares": {"coverage": "fraction", "statistics": ("count", "mean", "median"), "match": "latest"},
    "touched, left": {"coverage": "all_touched", "join": "left"},
    "nearest in time": {"match": "nearest", "time_column": "seen", "tolerance": "60D", "join": "left"},
    "by moment": {"merge": "datetime", "overlap_tolerance": "1D", "join": "left", "statistics": ("count", "sum")},
    "clear": {"quality": ["B10 >= 4000"], "skip_invalid": True, "match": "latest", "min_valid": 0.7},
    "units": {"unscale": True, "scales": {"B10": (0.0001, -0.1)}, "statistics": ("min", "max")},
}


FAST = ("all statistics", "touched, left", "by moment")
"""Those that are tried each time; the others with the slow tests."""


@pytest.mark.parametrize("name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in HOW])
def test_the_pipeline_gives_the_rows_of_the_eager_call(
    scenes: Collection, fields: pa.Table, tmp_path: Path, name: str
) -> None:
    how = HOW[name]
    eager = scenes.zonal_statistics(fields, BANDS, geometry_crs=32631, **how)
    counts = zonal(scenes, fields, BANDS, tmp_path / "rows", **how)
    found, wanted = zones_of(tmp_path / "rows"), eager.sort_by(ORDER)
    assert found.schema.equals(wanted.schema) and len(found) == len(wanted) > NUMBER
    for column in wanted.column_names:
        assert found[column].to_pylist() == wanted[column].to_pylist(), column
    _check_accounts(counts, tmp_path / "rows", how)


def _check_accounts(counts: dict[str, int], prefix: Path, how: dict[str, Any]) -> None:
    rows, left = zones_of(prefix), table_of(Path(f"{prefix}_left"))
    unmatched = set(left["geometry_id"].to_pylist())
    assert counts[metrics.POLYGONS_IN] == NUMBER == counts[metrics.POLYGONS_MATCHED] + len(left)
    assert counts[metrics.POLYGONS_READ] == counts[metrics.POLYGONS_MATCHED]
    of_record = rows["records" if how.get("merge") == "datetime" else "record_id"]
    with_record = rows.filter(pc.is_valid(of_record))
    assert counts[metrics.ZONES_ROUTED] == counts[metrics.ZONES_OUT] == len(with_record)
    assert counts.get(metrics.ZONES_WITHOUT_RECORD, 0) == len(rows) - len(with_record)
    assert counts[metrics.ROWS_WRITTEN] == len(rows) + len(left)
    there = set(rows["geometry_id"].to_pylist())
    if how.get("join") == "left":
        assert there == set(range(NUMBER))
        assert {*zip(rows["geometry_id"].to_pylist(), rows["band"].to_pylist(), strict=True)} == {
            (number, band) for number in range(NUMBER) for band in BANDS
        }
    else:
        assert there == set(range(NUMBER)) - unmatched


def test_rows_of_unmatched_polygons_are_null(scenes: Collection, fields: pa.Table, tmp_path: Path) -> None:
    options = ZonalOptions(join="left", statistics=["count", "variety", "mean"], match="latest")
    zonal(scenes, fields.slice(NUMBER - 2), BANDS, tmp_path / "rows", options=None, **_given(options))
    rows = zones_of(tmp_path / "rows")
    assert rows.select(["geometry_id", "band", "count", "variety", "mean", "record_id", "datetime"]).to_pylist() == [
        {
            "geometry_id": number,
            "band": band,
            "count": None,
            "variety": None,
            "mean": None,
            "record_id": None,
            "datetime": None,
        }
        for number in range(2)
        for band in BANDS
    ]
    assert rows["collection"].to_pylist() == ["scenes"] * 4
    assert rows["crop"].to_pylist() == [crop for crop in fields["crop"].to_pylist()[-2:] for _ in BANDS]


def _given(options: ZonalOptions) -> dict[str, Any]:
    return {"join": options.join, "statistics": options.statistics, "match": options.match}


@pytest.mark.slow
def test_small_chunks_and_groups_give_the_same_rows(scenes: Collection, fields: pa.Table, tmp_path: Path) -> None:
    """Also where a place has several groups: the large polygon has one of its own."""
    rules = ChipRules(block=1, max_bytes=500, group_bytes=1 << 16)
    counts = zonal(scenes, fields, BANDS, tmp_path / "rows", rules=rules, match="latest")
    wanted = scenes.zonal_statistics(fields, BANDS, geometry_crs=32631, match="latest").sort_by(ORDER)
    assert zones_of(tmp_path / "rows").drop_columns(["crop"]).equals(wanted.drop_columns(["crop"]))
    assert counts[metrics.POLYGONS_READ] == counts[metrics.POLYGONS_MATCHED]


def test_polygons_that_cannot_be_used(scenes: Collection, tmp_path: Path) -> None:
    """They end the job, or are unmatched and have rows of a left join."""
    bad = shapely.from_wkt("POLYGON ((500000 5399000, 500100 5399100, 500000 5399100, 500100 5399000, 500000 5399000))")
    good = shapely.box(LEFT, TOP - 50, LEFT + 50, TOP)
    table = pa.table({"geometry": shapely.to_wkb([bad, good, shapely.Point(0, 0)])})
    with pytest.raises(Exception, match="row 0 of column 'geometry' is not a valid polygon"):
        zonal(scenes, table, BANDS, tmp_path / "rows")
    counts = zonal(scenes, table, BANDS, tmp_path / "rows", on_invalid="skip", join="left", match="latest")
    assert counts[metrics.POLYGONS_UNMATCHED] == 2 and counts[metrics.unmatched("invalid")] == 1
    assert table_of(tmp_path / "rows_left")["reason"].to_pylist() == ["invalid", "not_polygon"]
    assert zones_of(tmp_path / "rows")["geometry_id"].to_pylist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"bands": ["B99"]}, "B99"),
        ({"extra_columns": ["record:gone"]}, "the collection has no column 'gone'"),
        ({"quality": ["SCL > 3"]}, "SCL"),
        ({"unscale": True, "scales": {"B99": (1, 0)}}, "B99"),
    ],
)
def test_what_the_collection_lacks_is_refused_when_applied(
    scenes: Collection, fields: pa.Table, how: dict[str, Any], message: str
) -> None:
    pipeline = beam.Pipeline(options=PipelineOptions(LOCAL))
    polygons = pipeline | ReadPolygons(fields, geometry_crs=32631)
    given = {"bands": BANDS, **how}
    with pytest.raises(InputError, match=message):
        polygons | ZonalStatistics(scenes, **given)


def test_too_large_a_polygon_for_a_median(scenes: Collection, fields: pa.Table, tmp_path: Path) -> None:
    with pytest.raises(
        Exception, match=r"row 0 of column 'geometry' has more than 5000 valid pixels of .*max_exact_values is 5000"
    ):
        zonal(scenes, fields, ["B10"], tmp_path / "rows", statistics=["median"], max_exact_values=5000)


class _Note(beam.DoFn):
    def __init__(self, kept: Kept):
        self.kept = kept

    def process(self, rows: pa.RecordBatch, time: Any = beam.DoFn.TimestampParam, window: Any = beam.DoFn.WindowParam):
        self.kept.keep((number, float(time), window) for number in rows["geometry_id"].to_pylist())


def test_rows_have_the_window_and_the_time_of_their_polygon(scenes: Collection) -> None:
    """Those of unmatched polygons too."""
    boxes = [shapely.box(LEFT + at, TOP - at - 40, LEFT + at + 40, TOP - at) for at in (0, 10, 20, 90_000)]
    whole = ReadPolygons(boxes, geometry_crs=32631).first_batch()
    assert whole is not None
    kept = Kept()

    def build(pipeline: beam.Pipeline) -> None:
        given = pipeline | beam.Create([(at, whole.slice(at, 1)) for at in range(4)], reshuffle=False)
        stamped = beam.MapTuple(lambda at, batch: TimestampedValue(batch, at * 25)).with_output_types(pa.RecordBatch)
        windows = given | stamped | beam.WindowInto(FixedWindows(50))
        windows | ZonalStatistics(scenes, ["B10"], match="latest", join="left") | beam.ParDo(_Note(kept))

    run(build)
    windows = [IntervalWindow(0, 50)] * 2 + [IntervalWindow(50, 100)] * 2
    assert sorted(kept) == [(at, 25.0 * at, window) for at, window in enumerate(windows)]


def test_files_of_windows(scenes: Collection, tmp_path: Path) -> None:
    """A stream in windows is written to files of each, by the sink of zonal statistics too."""
    whole = ReadPolygons([shapely.box(LEFT + at, TOP - 90, LEFT + at + 40, TOP) for at in (0, 50)], geometry_crs=32631)
    batch = whole.first_batch()
    assert batch is not None

    def build(pipeline: beam.Pipeline) -> None:
        given = pipeline | beam.Create([0, 1], reshuffle=False)
        stamped = beam.Map(lambda at: TimestampedValue(batch.slice(at, 1), at * 60)).with_output_types(pa.RecordBatch)
        windows = given | stamped | beam.WindowInto(FixedWindows(60))
        windows | ZonalStatistics(scenes, ["B10"], match="latest") | WriteZonalStatisticsToParquet(tmp_path / "z")

    counts = run(build)
    files = sorted(tmp_path.glob("z-19700101T*-pane-0-00000-of-00001-*.parquet"))
    assert [pq.read_table(file)["geometry_id"].to_pylist() for file in files] == [[0], [1]]
    assert counts[metrics.ROWS_WRITTEN] == 2


def test_a_stream_without_windows_is_refused_by_the_sink() -> None:
    pipeline = beam.Pipeline(options=PipelineOptions(LOCAL))
    rows = pipeline | beam.Create([]).with_output_types(pa.RecordBatch)
    rows.is_bounded = False
    with pytest.raises(InputError, match="the input of WriteZonalStatisticsToParquet is unbounded"):
        rows | WriteZonalStatisticsToParquet("out/z")


def test_outputs_by_what_is_asked_for(scenes: Collection, fields: pa.Table) -> None:
    def given(**how: Any) -> Any:
        polygons = beam.Pipeline() | ReadPolygons(fields, geometry_crs=32631)
        return polygons | ZonalStatistics(scenes, BANDS, **how)

    assert isinstance(given(), beam.PCollection)
    dead = given(on_error="dead_letter")
    assert dead.unmatched is None and dead.dead_letters is not None
    left = given(with_unmatched=True)
    assert left.unmatched is not None and left.dead_letters is None
