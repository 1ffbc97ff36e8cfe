"""Versions of a growing collection: each window has one that is really there, and when a stream looks for them."""

import json
import shutil
from collections.abc import Callable, Iterator
from hashlib import md5
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from apache_beam.io.watermark_estimators import ManualWatermarkEstimator
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.pipeline import AppliedPTransform, PipelineVisitor
from apache_beam.runners.sdf_utils import RestrictionTrackerView, ThreadsafeRestrictionTracker
from apache_beam.transforms.window import FixedWindows, SlidingWindows, TimestampedValue, WindowFn
from apache_beam.utils.timestamp import MAX_TIMESTAMP, Timestamp

import rasteret_beam
from rasteret_beam import Collection, CollectionUpdates, GroupByTile, KeyByRecordAndTile, SamplePoints, SampleTiles
from rasteret_beam.collection.parquet.versions import CollectionVersion
from rasteret_beam.transforms.sampling import collection_updates
from rasteret_beam.transforms.sampling.polling import LookFn
from tests.support.pipelines import LOCAL, Kept
from tests.support.streams import Values, batches, brute_force, values_of

BANDS = ["B10", "B20"]
EVERY = 600
BUILT = 10_000_007.5
"""When the pipelines of these tests are built, in seconds since 1970."""

BEGINS = 9_999_600
"""When the window of the updates begins in which that is."""

TIMES = (-5000, 0, BEGINS - 601, BEGINS - 1, BEGINS, BEGINS + 250, BEGINS + 700, BEGINS + 1700)
"""Of batches of points: long before the updates begin, just before, and in their windows."""


class _Note(beam.DoFn):
    def __init__(self, kept: Kept, name: Any):
        self.kept, self.name = kept, name

    def process(self, row: Any, window: Any = beam.DoFn.WindowParam) -> None:
        self.kept.append((self.name, window, row))


class _Waiting(PipelineVisitor):
    """Finds the steps that wait for side inputs."""

    def __init__(self) -> None:
        self.found: list[AppliedPTransform] = []

    def visit_transform(self, step: AppliedPTransform) -> None:
        if step.side_inputs:
            self.found.append(step)


@pytest.fixture
def growing(scenes: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Collection, Collection]:
    """A collection of two records in a folder, and the records that are still to come."""
    monkeypatch.setattr(collection_updates, "time", SimpleNamespace(time=lambda: BUILT))
    first = pc.field("id").isin(["P0_1", "P1_2"])
    scenes.where(first).export(tmp_path / "growing")
    return rasteret_beam.load(tmp_path / "growing"), scenes.where(~first)


def in_windows(pipeline: beam.Pipeline, points: pa.Table, windows: WindowFn) -> beam.PCollection:
    given = pipeline | beam.Create(list(zip(batches(points), TIMES, strict=False)), reshuffle=False)
    return given | beam.MapTuple(TimestampedValue).with_output_types(pa.RecordBatch) | beam.WindowInto(windows)


def sampled_at_once(collection: Collection, points: beam.PCollection, updates: beam.PCollection) -> beam.PCollection:
    return points | SamplePoints(collection, BANDS, updates=updates)


def sampled_in_steps(collection: Collection, points: beam.PCollection, updates: beam.PCollection) -> beam.PCollection:
    keyed = points | KeyByRecordAndTile(collection, BANDS, updates=updates)
    return keyed | GroupByTile() | SampleTiles(collection, BANDS, updates=updates)


@pytest.mark.parametrize(
    ("sampled", "windows"),
    [
        (sampled_at_once, FixedWindows(300)),
        (sampled_at_once, SlidingWindows(600, 300)),
        (sampled_in_steps, FixedWindows(EVERY)),
    ],
)
def test_no_step_waits_for_a_version_that_never_comes(
    scenes: Collection,
    growing: tuple[Collection, Collection],
    points: pa.Table,
    windows: WindowFn,
    sampled: Callable[..., beam.PCollection],
) -> None:
    """Flink gives an element on when each side input of the step has a value for the window of the element."""
    kept = Kept()
    collection, more = growing
    pipeline = beam.Pipeline(options=PipelineOptions(LOCAL))
    updates = pipeline | CollectionUpdates(collection, every=EVERY, until=Timestamp(BEGINS + 4 * EVERY))
    samples = sampled(collection, in_windows(pipeline, points, windows), updates)
    samples | "NoteSamples" >> beam.ParDo(_Note(kept, "samples"))
    more.export(Path(str(collection.path)) / "more")

    waiting = _Waiting()
    pipeline.visit(waiting)
    for number, step in enumerate(waiting.found):
        (rows,), (side,) = step.main_inputs.values(), step.side_inputs
        rows | f"NoteRows{number}" >> beam.ParDo(_Note(kept, ("rows", number)))
        side.pvalue | f"NoteSide{number}" >> beam.ParDo(_Note(kept, ("side", number)))
    pipeline.run().wait_until_finish()
    assert len(waiting.found) == 2
    for number in range(2):
        there = [window for name, window, _ in kept if name == ("side", number)]
        assert len(there) == len(set(there)) == 4  # one version in each window
        needed = {side_window(window) for name, window, _ in kept if name == ("rows", number)}
        assert needed and needed <= set(there)

    before = scenes.where(pc.field("id").isin(["P0_1", "P1_2"]))
    found: dict[Any, list[pa.RecordBatch]] = {}
    for name, window, rows in kept:
        if name == "samples":
            found.setdefault(window, []).append(rows)
    given: dict[Any, list[pa.RecordBatch]] = {}
    for batch, when in zip(batches(points), TIMES, strict=False):
        for window in windows.assign(WindowFn.AssignContext(Timestamp(when))):
            given.setdefault(window, []).append(batch)
    assert found.keys() == given.keys()
    for window, rows in found.items():
        version = before if window.end <= Timestamp(BEGINS) else scenes
        expected: Values = brute_force(version, given[window], BANDS)
        assert values_of(pa.Table.from_batches(rows)) == expected != {}


def side_window(window: Any) -> Any:
    """The window of the updates that one of the points is mapped to, by every runner."""
    return FixedWindows(EVERY).assign(WindowFn.AssignContext(window.max_timestamp()))[0]


def test_runners_are_told_of_plain_fixed_windows(growing: tuple[Collection, Collection]) -> None:
    """A Java runner such as Flink knows no windows of Python's, and maps windows to those of side inputs by itself."""
    pipeline = beam.Pipeline(options=PipelineOptions(LOCAL))
    updates = pipeline | CollectionUpdates(growing[0], every=EVERY, allowed_lateness=3600)
    assert not updates.is_bounded and updates.element_type is str
    components = pipeline.to_runner_api().components
    kinds = {each.window_fn.urn for each in components.windowing_strategies.values()}
    assert kinds == {"beam:window_fn:global_windows:v1", "beam:window_fn:fixed_windows:v1"}


def test_all_outputs_come_from_both_sides_of_the_first_version(
    growing: tuple[Collection, Collection], points: pa.Table, tmp_path: Path
) -> None:
    """Samples, points beside all records, and those of a raster that is gone, on both sides of the first version."""
    assets = growing[0].to_table(["assets"])["assets"].to_pylist()
    copies = [shutil.copy(record["B10"]["href"], tmp_path) for record in assets]
    rasteret_beam.build_from_cogs(copies).export(tmp_path / "copies")
    Path(copies[0]).unlink()
    collection = rasteret_beam.load(tmp_path / "copies")
    kept = Kept()
    pipeline = beam.Pipeline(options=PipelineOptions(LOCAL))
    updates = pipeline | CollectionUpdates(collection, every=EVERY, until=Timestamp(BEGINS + 4 * EVERY))
    given = in_windows(pipeline, points, FixedWindows(300))
    outputs = given | SamplePoints(collection, ["B1"], with_unsampled=True, on_error="dead_letter", updates=updates)
    for name, rows in outputs._asdict().items():
        assert rows.element_type is pa.RecordBatch
        rows | name >> beam.ParDo(_Note(kept, name))
    pipeline.run().wait_until_finish()
    for name in outputs._fields:
        sides = {window.end <= Timestamp(BEGINS) for given_by, window, rows in kept if given_by == name and len(rows)}
        assert sides == {True, False}
    total = sum(len(batch) for batch, _ in zip(batches(points), TIMES, strict=False))
    sampled = {point for name, _, rows in kept if name != "unsampled" for point in points_of(name, rows)}
    unsampled = [point for name, _, rows in kept if name == "unsampled" for point in rows["point_index"].to_pylist()]
    assert len(sampled) + len(unsampled) == total and sampled.isdisjoint(unsampled)


def points_of(name: str, rows: pa.RecordBatch) -> list[int]:
    """Numbers of points of samples, or of dead letters."""
    if name == "samples":
        return rows["point_index"].to_pylist()
    return [point for points in rows["point_indexes"].to_pylist() for point in points]


class _Flink:
    """How Flink runs a splittable DoFn: it waits whole seconds, and keeps what is left to do at each turn as state."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, began: float):
        self.clock = began
        self.turns = 0
        self.watermark: Timestamp | None = None
        monkeypatch.setattr(Timestamp, "now", lambda: Timestamp(self.clock))

    def now(self) -> float:
        return self.clock

    def sleep(self, seconds: float) -> None:
        self.clock += seconds

    def run(self, looking: LookFn, until: float) -> Iterator[tuple[float, TimestampedValue]]:
        """Gives each value with the time at which it came."""
        rest: Any = looking.initial_restriction(b"")
        state: Any = None
        while self.clock < until:
            tracker = ThreadsafeRestrictionTracker(looking.create_tracker(rest))
            estimator = ManualWatermarkEstimator(state)
            for value in looking.process(b"", RestrictionTrackerView(tracker), estimator):
                yield self.clock, value
            self.turns += 1
            self.clock += 0.003  # what a turn takes
            self.watermark = state = estimator.current_watermark()
            tracker.check_done()
            deferred = tracker.deferred_status()
            if deferred is None:
                return
            rest = deferred[0]
            self.clock += max(deferred[1].micros, 0) // 1_000_000


@pytest.mark.parametrize(("every", "windows"), [(1, 40), (2, 40), (7, 40), (600, 40), (86_400, 5)])
def test_one_look_and_one_turn_for_each_window(monkeypatch: pytest.MonkeyPatch, every: int, windows: int) -> None:
    begins = BEGINS // every * every
    flink = _Flink(monkeypatch, begins + 0.37 * every)
    looking = LookFn(lambda: str(flink.clock), begins, every, MAX_TIMESTAMP, flink.now, flink.sleep)
    came = list(flink.run(looking, begins + windows * every))
    assert [float(value.timestamp) for _, value in came] == [begins + number * every for number in range(len(came))]
    assert windows <= len(came) <= windows + 1
    for number, (when, value) in enumerate(came):
        due = begins + (number + 0.01) * every
        assert number == 0 or due <= when < due + 0.1
        assert float(value.value) == when
    assert flink.turns <= len(came) + 1
    assert flink.watermark == Timestamp(begins + len(came) * every)  # the next window's begin: this one is closed


def test_what_is_overdue_comes_from_one_look(monkeypatch: pytest.MonkeyPatch) -> None:
    flink = _Flink(monkeypatch, BEGINS + 1000.5 * EVERY)
    looks = []
    looking = LookFn(
        lambda: looks.append(flink.clock) or str(len(looks)), BEGINS, EVERY, MAX_TIMESTAMP, flink.now, flink.sleep
    )
    came = [value for _, value in flink.run(looking, BEGINS + 1003 * EVERY)]
    assert [float(value.timestamp) for value in came] == [BEGINS + number * EVERY for number in range(1003)]
    assert [value.value for value in came] == ["1"] * 1001 + ["2", "3"]


@pytest.mark.parametrize(
    ("until", "windows"),
    [(BEGINS - 5, 0), (BEGINS + 6, 0), (BEGINS + 6.001, 1), (BEGINS + 606, 1), (BEGINS + 607, 2)],
)
def test_looks_end(monkeypatch: pytest.MonkeyPatch, until: float, windows: int) -> None:
    flink = _Flink(monkeypatch, BEGINS + 0.5)
    looking = LookFn(lambda: "", BEGINS, EVERY, Timestamp(until), flink.now, flink.sleep)
    assert len(list(flink.run(looking, BEGINS + 10 * EVERY))) == windows
    assert flink.clock <= BEGINS + max(1.6, (windows - 1) * EVERY + 7)


def test_looks_that_are_overdue_are_counted_for_the_runner() -> None:
    now = [BEGINS + 3.2 * EVERY]
    looking = LookFn(lambda: "", BEGINS, EVERY, Timestamp(BEGINS + 100 * EVERY), lambda: now[0])
    whole = looking.initial_restriction(b"")
    assert looking.restriction_size(b"", whole) == 4
    now[0] = BEGINS + 1000 * EVERY
    assert looking.restriction_size(b"", whole) == 100
    assert looking.truncate(b"", whole) is None


def test_a_version_is_small() -> None:
    """Flink keeps one for each window; the ETags are what does not shrink."""
    days = [f"day-{number // 12:04d}/year=2024/month={number % 12}" for number in range(600)]
    files = tuple((f"s3://bucket/grids/{day}/part-0.parquet", 50_000, md5(day.encode()).hexdigest()) for day in days)
    version = CollectionVersion(files)
    assert len(version.text) < 45 * len(files) < len(json.dumps(files)) / 2
    assert CollectionVersion.of(version.text) == version
    assert CollectionVersion.of(version.text).digest == version.digest
