"""Points in windows: files for each window, batches made of rows, collections that grow, and what is refused."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import shapely
from apache_beam import pvalue
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.core import Windowing
from apache_beam.transforms.trigger import (
    AccumulationMode,
    AfterCount,
    AfterProcessingTime,
    AfterWatermark,
    DefaultTrigger,
    Repeatedly,
)
from apache_beam.transforms.window import FixedWindows, GlobalWindows, IntervalWindow, Sessions, TimestampedValue

import rasteret_beam
from rasteret_beam import (
    Collection,
    CollectionUpdates,
    GroupByTile,
    KeyByRecordAndTile,
    PointBatches,
    SamplePoints,
    SampleTiles,
    WriteSamplesToParquet,
    metrics,
)
from rasteret_beam.collection.parquet.versions import CollectionVersion, IndexVersions, look
from rasteret_beam.errors import CollectionError, InputError, MissingInputError
from rasteret_beam.schema import points_schema
from rasteret_beam.transforms.sinks import windowed_parquet
from rasteret_beam.transforms.sinks.windowed_parquet import waiting_trigger, window_name
from tests.support.pipelines import LOCAL, XY, Kept, run
from tests.support.streams import SECONDS, Values, batches, brute_force, melted, rows_of, stamp, values_of, window_files

BANDS = ["B10", "B20"]


def in_windows(pipeline: beam.Pipeline, points: pa.Table, width: int) -> beam.PCollection:
    """The points in batches of 100, at a time of their own each, in windows."""
    given = pipeline | beam.Create(list(enumerate(batches(points))), reshuffle=False)
    return given | beam.MapTuple(stamp).with_output_types(pa.RecordBatch) | beam.WindowInto(FixedWindows(width))


def unbounded(pipeline: beam.Pipeline, kind: Any = pa.RecordBatch) -> beam.PCollection:
    """An unbounded input, of which only the construction is looked at."""
    given = pipeline | f"Create {uuid4().hex}" >> beam.Create([]).with_output_types(kind)
    given.is_bounded = False
    return given


class TestFiles:
    def test_each_window_has_its_rows(self, scenes: Collection, points: pa.Table, tmp_path: Path) -> None:
        def build(pipeline: beam.Pipeline) -> None:
            samples = in_windows(pipeline, points, 30) | SamplePoints(scenes, BANDS)
            samples | WriteSamplesToParquet(str(tmp_path / "s"), window_shards=2)

        counts = run(build)
        files = window_files(tmp_path)
        assert list(files) == [(start, start + 30) for start in (0, 30, 60, 90)]
        written = 0
        for (start, end), panes in files.items():
            assert list(panes) == [0]
            assert [path.name[-35:-21] for path in panes[0]] == ["00000-of-00002", "00001-of-00002"]
            found = rows_of(panes[0])
            assert found == brute_force(scenes, batches(points)[int(start) // SECONDS : int(end) // SECONDS], BANDS)
            written += len(found)
        assert counts[metrics.ROWS_WRITTEN] == counts[metrics.VALUES_ROUTED] == written

    def test_windows_have_interpolated_rows(self, scenes: Collection, points: pa.Table, tmp_path: Path) -> None:
        def build(pipeline: beam.Pipeline) -> None:
            samples = in_windows(pipeline, points, 60) | SamplePoints(scenes, ["B10"], resampling="bilinear")
            samples | WriteSamplesToParquet(str(tmp_path / "s"))

        run(build)
        found = {at: value for panes in window_files(tmp_path).values() for at, value in rows_of(panes[0]).items()}
        whole = pa.Table.from_batches(batches(points))
        expected = scenes.sample_points(
            pa.table({"x": whole["point_x"], "y": whole["point_y"]}), ["B10"], **XY, resampling="bilinear"
        )
        keys = zip(*(expected[name].to_pylist() for name in ("point_index", "record_id", "band")), strict=True)
        np.testing.assert_array_equal([found.pop(key) for key in keys], expected["value"].to_numpy())
        assert not found and len(expected) > 500

    def test_a_second_run_adds_files(self, scenes: Collection, points: pa.Table, tmp_path: Path) -> None:
        (tmp_path / "s-00000-of-00001.parquet").write_text("of a batch job")

        def build(pipeline: beam.Pipeline) -> None:
            (
                in_windows(pipeline, points, 1000)
                | SamplePoints(scenes, ["B10"])
                | WriteSamplesToParquet(str(tmp_path / "s"))
            )

        run(build)
        run(build)
        (tmp_path / "s-00000-of-00001.parquet").unlink()
        (panes,) = window_files(tmp_path).values()
        first, second = panes[0]
        assert rows_of([first]) == rows_of([second]) != {}

    def test_a_file_that_is_not_complete_is_never_seen(self, tmp_path: Path) -> None:
        whole = pa.RecordBatch.from_pydict({"v": [1.0]})
        other = pa.RecordBatch.from_pydict({"w": ["no number"]})

        def build(pipeline: beam.Pipeline) -> None:
            rows = pipeline | beam.Create([whole, other], reshuffle=False).with_output_types(pa.RecordBatch)
            windowed = rows | beam.WindowInto(FixedWindows(10))
            windowed | WriteSamplesToParquet(str(tmp_path / "s"), row_group_rows=1)

        with pytest.raises(Exception, match="schema"):
            run(build)
        assert list(tmp_path.iterdir()) == []

    def test_rows_come_together_in_pieces(self) -> None:
        """A batch of samples may hold 10 MB and more, which is much for a record of a shuffle."""
        rows = pa.RecordBatch.from_pydict({"number": range(300_000), "text": [f"row {at}" for at in range(300_000)]})
        shards, parts = zip(*windowed_parquet._ShardFn(3).process(rows), strict=True)
        assert len(set(shards)) == 1
        assert max(part.nbytes for part in parts) <= 1 << 20 and len(parts) < 15
        assert pa.Table.from_batches(parts).equals(pa.Table.from_batches([rows]))

    def test_what_is_done_again_gives_one_file(self, tmp_path: Path) -> None:
        final, hidden = str(tmp_path / "s-1.parquet"), str(tmp_path / ".1.parquet")
        Path(hidden).write_text("rows")
        for _ in range(2):
            assert windowed_parquet._put_in_place(final, hidden) == final
            assert [path.name for path in tmp_path.iterdir()] == ["s-1.parquet"]
            assert Path(final).read_text() == "rows"
        Path(hidden).write_text("all rows")  # the same pane, after the runner went back to a checkpoint
        assert windowed_parquet._put_in_place(final, hidden) == final
        assert [path.name for path in tmp_path.iterdir()] == ["s-1.parquet"]
        assert Path(final).read_text() == "all rows"

    def test_names_of_windows(self) -> None:
        window = IntervalWindow(1_700_000_000, 1_700_000_000.5)
        assert window_name(window) == "20231114T221320Z-20231114T221320.500000Z"
        assert window_name(GlobalWindows().get_window_coder().decode(b"")) == "global"

    @pytest.mark.parametrize(
        ("trigger", "expected"),
        [
            (None, AfterWatermark(late=AfterProcessingTime(9))),
            (AfterWatermark(late=AfterCount(1)), AfterWatermark(late=AfterProcessingTime(9))),
            (
                AfterWatermark(early=AfterCount(5), late=AfterCount(1)),
                AfterWatermark(early=AfterProcessingTime(9), late=AfterProcessingTime(9)),
            ),
            (
                Repeatedly(AfterCount(5)),
                AfterWatermark(early=AfterProcessingTime(9), late=AfterProcessingTime(9)),
            ),
        ],
    )
    def test_late_rows_wait_for_others(self, trigger: Any, expected: Any) -> None:
        windowing = Windowing(FixedWindows(10), trigger, AccumulationMode.DISCARDING, allowed_lateness=5)
        assert repr(waiting_trigger(windowing, 9)) == repr(expected)
        windowing = Windowing(GlobalWindows(), trigger or DefaultTrigger(), AccumulationMode.DISCARDING)
        assert repr(waiting_trigger(windowing, 9)) == repr(Repeatedly(AfterProcessingTime(9)))


class TestRefused:
    """What would give nothing, or rows twice, is said while the pipeline is built."""

    def test_the_global_window_of_a_stream(self, scenes: Collection) -> None:
        pipeline = beam.Pipeline(options=PipelineOptions(LOCAL))
        message = "the input of GroupByTile is unbounded and in the global window, which never ends"
        with pytest.raises(InputError, match=message):
            unbounded(pipeline) | SamplePoints(scenes, BANDS)
        with pytest.raises(InputError, match=r"the input of WriteSamplesToParquet is unbounded .* beam.WindowInto"):
            unbounded(pipeline) | "W" >> WriteSamplesToParquet("s")

    def test_a_repeated_trigger_is_taken(self, scenes: Collection) -> None:
        pipeline = beam.Pipeline(options=PipelineOptions(LOCAL))
        again = beam.WindowInto(
            GlobalWindows(), trigger=Repeatedly(AfterCount(9)), accumulation_mode=AccumulationMode.DISCARDING
        )
        samples = unbounded(pipeline) | again | SamplePoints(scenes, BANDS)
        assert isinstance(samples | WriteSamplesToParquet("s"), pvalue.PCollection)

    def test_panes_that_accumulate(self, scenes: Collection) -> None:
        pipeline = beam.Pipeline(options=PipelineOptions(LOCAL))
        windows = beam.WindowInto(
            FixedWindows(10),
            trigger=AfterWatermark(late=AfterCount(1)),
            accumulation_mode=AccumulationMode.ACCUMULATING,
            allowed_lateness=60,
        )
        rows = unbounded(pipeline) | windows
        with pytest.raises(InputError, match=r"accumulation_mode=ACCUMULATING, so each later pane .*\.DISCARDING$"):
            rows | SamplePoints(scenes, BANDS)
        with pytest.raises(InputError, match="the input of WriteSamplesToParquet have accumulation_mode=ACCUMULATING"):
            rows | "W" >> WriteSamplesToParquet("s")

    def test_no_shard(self) -> None:
        with pytest.raises(InputError, match="window_shards is 0"):
            WriteSamplesToParquet("s", window_shards=0)


class Plot(NamedTuple):
    id: int
    x: float
    y: float
    plot: str


ROWS = [
    {"id": 7, "x": 500_005.0, "y": 5_399_995.0, "plot": "a"},
    {"id": 2**62, "x": 500_015.0, "y": 5_399_985.0, "plot": "b"},
    {"id": 9, "x": None, "y": 5_399_985.0, "plot": None},
    {"id": 8, "x": 500_025.0, "y": 5_399_975.0, "plot": "d"},
]
TYPES = pa.schema([("id", pa.int64()), ("x", pa.float64()), ("y", pa.float64()), ("plot", pa.string())])


class _KeepPlace(beam.DoFn):
    def __init__(self, kept: Kept):
        self.kept = kept

    def process(self, batch: Any, time=beam.DoFn.TimestampParam, window=beam.DoFn.WindowParam) -> None:
        self.kept.append((window, float(time), batch))


class TestPointBatches:
    def made(self, rows: list[Any], kind: Any = None, times: dict[int, float] | None = None, **how: Any) -> list:
        kept = Kept()
        times = times or {}

        def build(pipeline: beam.Pipeline) -> None:
            numbered = pipeline | beam.Create(list(enumerate(rows)), reshuffle=False)
            stamped = numbered | beam.MapTuple(lambda number, row: TimestampedValue(row, times.get(number, 0)))
            if kind is not None:
                stamped.element_type = kind
            windowed = stamped | beam.WindowInto(FixedWindows(10))
            windowed | PointBatches("id", geometry_crs=32631, **how) | beam.ParDo(_KeepPlace(kept))

        run(build)
        return sorted(kept, key=lambda element: element[:2])

    def test_dicts_by_window(self) -> None:
        (one, first, batch), (two, second, rest) = self.made(ROWS, schema=TYPES, times={0: 4.5, 1: 12, 2: 3.25, 3: 11})
        assert (one, first, two, second) == (IntervalWindow(0, 10), 3.25, IntervalWindow(10, 20), 11)
        kept = [TYPES.field(name) for name in ("id", "x", "y", "plot")]
        assert batch.schema.equals(points_schema(kept, "EPSG:32631"), check_metadata=True)
        assert batch.to_pydict() == {
            "point_index": [7, 9],
            "point_x": [500_005.0, None],
            "point_y": [5_399_995.0, 5_399_985.0],
            "id": [7, 9],
            "x": [500_005.0, None],
            "y": [5_399_995.0, 5_399_985.0],
            "plot": ["a", None],
        }
        assert rest["point_index"].to_pylist() == [2**62, 8]

    def test_rows_bring_their_types(self) -> None:
        plots = [Plot(*row.values()) for row in ROWS if row["x"] is not None]
        ((_, _, batch),) = self.made(plots, Plot, columns=["plot", "id"])
        assert [(field.name, field.type) for field in batch.schema][3:] == [("plot", pa.string()), ("id", pa.int64())]
        assert batch["plot"].to_pylist() == ["a", "b", "d"]
        assert batch["point_index"].to_pylist() == batch["id"].to_pylist() == [7, 2**62, 8]

    def test_arrow_batches_stay_as_they_are(self) -> None:
        given = [pa.RecordBatch.from_pylist(ROWS[start : start + 2], schema=TYPES) for start in (0, 2)]
        made = self.made(given, pa.RecordBatch, schema=TYPES, times={0: 1, 1: 2})
        assert [time for _, time, _ in made] == [1, 2]
        assert [batch["point_index"].to_pylist() for _, _, batch in made] == [[7, 2**62], [9, 8]]

    def test_batches_are_bounded(self) -> None:
        made = self.made([row | {"id": number} for number in range(3) for row in ROWS], schema=TYPES, batch_rows=5)
        assert sorted(len(batch) for _, _, batch in made) == [2, 5, 5]

    @pytest.mark.parametrize(
        ("rows", "message"),
        [
            ([ROWS[0] | {"id": None}], "row 0 of column 'id' is null, and index_column needs a number"),
            ([ROWS[0] | {"x": "east"}], "column 'x' of the stream of points should be double"),
            ([ROWS[0] | {"id": 1.5}], "column 'id' of the stream of points should be int64: .* 1.5"),
            ([b'{"id": 7}'], "the stream of points has a bytes without 'id'; give dicts, Beam Rows or NamedTuples"),
        ],
    )
    def test_bad_rows(self, rows: list[Any], message: str) -> None:
        with pytest.raises(Exception, match=message):
            self.made(rows, schema=TYPES)

    def test_ids_beyond_64_bits(self) -> None:
        wide = TYPES.set(0, pa.field("id", pa.uint64()))
        with pytest.raises(Exception, match="column 'id' does not fit into 64 bits with a sign"):
            self.made([ROWS[0] | {"id": 2**63}], schema=wide)

    def test_arrow_batches_of_other_columns(self) -> None:
        other = pa.RecordBatch.from_pydict({"id": [1], "x": [1], "y": [2.0], "plot": ["a"]})
        with pytest.raises(Exception, match=r"should have one column 'x' of type double; it has id \(int64\), x \(int"):
            self.made([other], pa.RecordBatch, schema=TYPES)

    @pytest.mark.parametrize("schema_says", [True, False])
    def test_arrow_batches_in_another_crs(self, schema_says: bool) -> None:
        def geometries(crs: str | None) -> pa.Schema:
            said = {"ARROW:extension:name": "geoarrow.wkb", "ARROW:extension:metadata": json.dumps({"crs": crs})}
            return pa.schema([("id", pa.int64()), pa.field("geometry", pa.binary(), metadata=said)])

        own = geometries("EPSG:32631" if schema_says else None)
        point = shapely.to_wkb(shapely.Point(3.0, 48.0))
        kept = [pa.RecordBatch.from_pydict({"id": [1], "geometry": [point]}, schema=own)]
        assert len(self.made(kept, pa.RecordBatch, schema=own)) == 1
        other = pa.RecordBatch.from_pydict({"id": [2], "geometry": [point]}, schema=geometries("EPSG:4326"))
        with pytest.raises(
            Exception,
            match=r"column 'geometry' of a batch .* is in EPSG:4326, but its points are expected in EPSG:32631",
        ):
            self.made([*kept, other], pa.RecordBatch, schema=own)

    @pytest.mark.parametrize(
        ("how", "message"),
        [
            ({"schema": TYPES.remove(0)}, "the stream of points has no column 'id'"),
            ({"schema": TYPES.set(0, pa.field("id", pa.string()))}, "it has to hold integers"),
            ({}, "whose columns are unknown; give schema="),
            ({"schema": TYPES, "windows": GlobalWindows()}, "would have one timestamp for points of many windows"),
            ({"schema": TYPES, "geometry_crs": None}, "give it with geometry_crs"),
        ],
    )
    def test_what_is_wrong_is_said_early(self, how: dict[str, Any], message: str) -> None:
        rows = unbounded(beam.Pipeline(options=PipelineOptions(LOCAL)), dict[str, Any])
        windows = how.pop("windows", FixedWindows(10))
        with pytest.raises(InputError, match=message):
            rows | beam.WindowInto(windows) | PointBatches("id", **{"geometry_crs": 32631, **how})


def later_version(path: str) -> TimestampedValue:
    """What is there when the job runs, for windows from 60 on."""
    return TimestampedValue(look(path).text, 60)


@pytest.fixture
def growing(scenes: Collection, tmp_path: Path) -> tuple[Collection, Collection]:
    """A collection of two records in a folder, and the records that are still to come."""
    first = ["P0_1", "P1_2"]
    scenes.where(pc.field("id").isin(first)).export(tmp_path / "growing")
    return rasteret_beam.load(tmp_path / "growing"), scenes.where(~pc.field("id").isin(first))


class TestGrowing:
    @pytest.mark.parametrize("layout", ["long", "columns"])
    def test_each_window_is_sampled_from_its_version(
        self, scenes: Collection, growing: tuple[Collection, Collection], points: pa.Table, tmp_path: Path, layout: str
    ) -> None:
        """Windows of 0 to 60 have no version, so the first one; later ones have that of after the growth."""
        collection, more = growing
        (tmp_path / "out").mkdir()
        pipeline = beam.Pipeline(options=PipelineOptions(LOCAL))
        looked = pipeline | "U" >> beam.Create([str(collection.path)]) | beam.Map(later_version).with_output_types(str)
        updates = looked | "V" >> beam.WindowInto(FixedWindows(60))
        sampling = SamplePoints(collection, BANDS, updates=updates, layout=layout)
        in_windows(pipeline, points, 30) | sampling | WriteSamplesToParquet(str(tmp_path / "out" / "s"))
        more.export(tmp_path / "growing" / "more")
        pipeline.run().wait_until_finish()

        before = scenes.where(pc.field("id").isin(["P0_1", "P1_2"]))
        for (start, end), panes in window_files(tmp_path / "out").items():
            given = batches(points)[int(start) // SECONDS : int(end) // SECONDS]
            expected: Values = brute_force(before if start < 60 else scenes, given, BANDS)
            table = pa.concat_tables(pq.read_table(path) for path in panes[0])
            assert values_of(table if layout == "long" else melted(table, BANDS)) == expected != {}

    def test_routing_and_sampling_need_the_same_versions(
        self, growing: tuple[Collection, Collection], points: pa.Table
    ) -> None:
        collection, _ = growing

        def build(pipeline: beam.Pipeline) -> None:
            text = pipeline | "U" >> beam.Create([look(str(collection.path)).text])
            updates = text | "V" >> beam.WindowInto(FixedWindows(60))
            keyed = in_windows(pipeline, points, 30) | KeyByRecordAndTile(collection, BANDS, updates=updates)
            keyed | GroupByTile() | SampleTiles(collection, BANDS)

        with pytest.raises(Exception, match=r"points were routed by version [0-9a-f]{16} .* from version None"):
            run(build)

    def test_versions(self, growing: tuple[Collection, Collection]) -> None:
        collection, more = growing
        folder = Path(str(collection.path))
        first = look(str(folder))
        indexes = IndexVersions(collection, ["B10"], "all", 1 << 20, collection.schema)
        assert CollectionVersion.of(first.text) == first
        assert [path.removeprefix(str(folder)) for path, _, _ in first.files] == [
            "/year=2023/month=4/part-0.parquet",
            "/year=2023/month=7/part-0.parquet",
        ]
        for name in (".hidden/a.parquet", "_temporary/a.parquet", "more.new-12ab34cd/a.parquet", "notes.txt"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text("not yet")
        assert look(str(folder)) == first
        more.export(folder / "more.parquet")
        second = look(str(folder))
        assert len(second.files) == 3 and second.digest != first.digest
        assert indexes.at(first).routing.record_ids == ["P0_1", "P1_2"]
        assert sorted(indexes.at(second).routing.record_ids) == ["P0_0", "P0_1", "P0_2", "P1_0", "P1_1", "P1_2"]
        assert indexes.at(CollectionVersion.of(first.text)) is indexes.at(first)
        assert [asset.band for asset in indexes.at(second).assets("P1_1", ["B10"])] == ["B10"]

    def test_a_file_that_is_written_anew_is_refused(self, growing: tuple[Collection, Collection]) -> None:
        collection, _ = growing
        first = look(str(collection.path))
        indexes = IndexVersions(collection, ["B10"], "all", 1 << 20, collection.schema)
        indexes.at(first)
        path = first.files[0][0]
        os.utime(path, (1, 1))
        with pytest.raises(CollectionError, match=r"part-0.parquet of the growing collection .* has been rewritten"):
            indexes.at(look(str(collection.path)))
        anew = IndexVersions(collection, ["B10"], "all", 1 << 20, collection.schema)
        with pytest.raises(CollectionError, match="has been rewritten"):
            anew.at(first)
        Path(path).unlink()
        with pytest.raises(CollectionError, match="is gone"):
            anew.at(first)

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(MissingInputError, match="has no Parquet files"):
            look(str(tmp_path))

    @pytest.mark.parametrize("windows", [None, GlobalWindows(), Sessions(10)])
    def test_windows_without_one_version_are_refused(
        self, growing: tuple[Collection, Collection], windows: Any
    ) -> None:
        pipeline = beam.Pipeline(options=PipelineOptions(LOCAL))
        updates = pipeline | CollectionUpdates(growing[0], every=5)
        points = unbounded(pipeline) if windows is None else unbounded(pipeline) | beam.WindowInto(windows)
        with pytest.raises(InputError, match=r"the points are in (GlobalWindows|Sessions), which do not each belong"):
            points | SamplePoints(growing[0], BANDS, updates=updates)

    def test_what_else_is_refused(self, scenes: Collection, growing: tuple[Collection, Collection]) -> None:
        pipeline = beam.Pipeline(options=PipelineOptions(LOCAL))
        points = unbounded(pipeline) | beam.WindowInto(FixedWindows(5))
        updates = pipeline | CollectionUpdates(growing[0], every=5)
        with pytest.raises(InputError, match="is in memory, where it cannot grow; export it"):
            points | "A" >> SamplePoints(scenes, BANDS, updates=updates)
        everywhere = pipeline | "E" >> beam.Create([""])
        with pytest.raises(InputError, match="the updates are in the global window"):
            points | "C" >> SamplePoints(growing[0], BANDS, updates=everywhere)
        with pytest.raises(InputError, match="every is 0"):
            CollectionUpdates(growing[0], every=0)
