"""On Prism, Beam's portable runner: the commands with Python workers as processes, and streams."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from apache_beam import coders
from apache_beam.testing import test_stream
from apache_beam.transforms.periodicsequence import PeriodicImpulse
from apache_beam.transforms.trigger import AccumulationMode, AfterCount, AfterWatermark
from apache_beam.transforms.window import FixedWindows, IntervalWindow
from apache_beam.utils.timestamp import Timestamp

import rasteret_beam
from rasteret_beam import (
    Collection,
    CollectionUpdates,
    PointBatches,
    ReadPoints,
    SamplePoints,
    WriteSamplesToParquet,
    metrics,
)
from rasteret_beam.collection.parquet.versions import CollectionVersion, at_version
from tests.support.pipelines import ORDER, XY, Kept, read, run, sample_to
from tests.support.portable import Hold, check_commands, prism, worker_pool
from tests.support.streams import SECONDS, batches, brute_force, rows_of, stamp, window_files

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("same_signal_handlers")]

BANDS = ["B10", "B20"]


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    with prism(tmp_path_factory.mktemp("prism")) as options:
        yield options


@pytest.fixture
def streaming(runner: list[str]) -> list[str]:
    """Workers are threads of the test's process, so that steps can tell the test what they see."""
    return [*runner, "--environment_type=LOOPBACK", "--streaming"]


def test_commands_with_workers_as_threads(runner: list[str], points: pa.Table, tmp_path: Path) -> None:
    check_commands(tmp_path, points, [*runner, "--environment_type=LOOPBACK"])


def test_commands_with_workers_as_processes(runner: list[str], points: pa.Table, tmp_path: Path) -> None:
    with worker_pool(tmp_path) as workers:
        check_commands(tmp_path, points, [*runner, *workers])
    log = (tmp_path / "workers.log").read_text()
    assert log.count("Starting worker with command") == 4


def kill_when_said(said: Path) -> None:
    while not said.exists():
        time.sleep(0.05)
    os.kill(int(said.read_text()), signal.SIGKILL)


def test_a_worker_that_is_killed_ends_the_job(
    runner: list[str], scenes: Collection, points: pa.Table, tmp_path: Path
) -> None:
    """Prism tries no bundle again; the output is that of the run before, whole."""
    scenes.export(tmp_path / "scenes")
    collection, said = rasteret_beam.load(tmp_path / "scenes"), tmp_path / "said"
    earlier, _ = sample_to(tmp_path / "s", points.slice(0, 50), collection)

    def build(pipeline: beam.Pipeline) -> None:
        samples = pipeline | ReadPoints(points, **XY) | SamplePoints(collection, BANDS)
        held = samples | beam.ParDo(Hold(str(said))).with_output_types(pa.RecordBatch)
        held | WriteSamplesToParquet(str(tmp_path / "s"))

    killing = threading.Thread(target=kill_when_said, args=[said], daemon=True)
    killing.start()
    with worker_pool(tmp_path) as workers, pytest.raises(RuntimeError, match="SDK worker disconnected"):
        run(build, [*runner, *workers])
    assert int(said.read_text()) != os.getpid()
    assert read(tmp_path / "s").sort_by(ORDER).equals(earlier)


class _Note(beam.DoFn):
    def __init__(self, kept: Kept):
        self.kept = kept

    def process(
        self,
        rows: Any,
        time: Any = beam.DoFn.TimestampParam,
        window: Any = beam.DoFn.WindowParam,
        pane: Any = beam.DoFn.PaneInfoParam,
    ) -> Iterator[Any]:
        self.kept.append((window, float(time), pane.index, rows))
        yield rows


def noted(kept: Kept) -> beam.ParDo:
    return beam.ParDo(_Note(kept)).with_output_types(pa.RecordBatch)


def test_late_points(streaming: list[str], scenes: Collection, points: pa.Table, tmp_path: Path) -> None:
    """Six batches on time, two late in the first window, and one that is too late."""
    given = batches(points)
    stream = test_stream.TestStream(coder=coders.registry.get_coder(pa.RecordBatch))
    for number in range(6):
        stream = stream.add_elements([stamp(number, given[number])]).advance_watermark_to(number * SECONDS + 1)
    stream = stream.add_elements([stamp(0, given[6]), stamp(1, given[7])])
    stream = stream.advance_watermark_to(200).add_elements([stamp(1, given[8])])
    windows = beam.WindowInto(
        FixedWindows(20),
        trigger=AfterWatermark(late=AfterCount(1)),
        accumulation_mode=AccumulationMode.DISCARDING,
        allowed_lateness=60,
    )
    kept = Kept()

    def build(pipeline: beam.Pipeline) -> None:
        batched = pipeline | stream.advance_watermark_to_infinity().with_output_types(pa.RecordBatch)
        samples = batched | windows | SamplePoints(scenes, BANDS)
        samples | noted(kept) | WriteSamplesToParquet(str(tmp_path / "s"))

    counts = run(build, streaming)
    files = window_files(tmp_path)
    expected = {(0, 20): [given[:2], given[6:8]], (20, 40): [given[2:4]], (40, 60): [given[4:6]]}
    assert set(files) == set(expected)
    for window, panes in expected.items():
        # The two late batches wait for each other, so they share the file of one pane.
        assert list(files[window]) == list(range(len(panes)))
        for number, of_pane in enumerate(panes):
            assert rows_of(files[window][number]) == brute_force(scenes, of_pane, BANDS)

    times = {number: number * SECONDS for number in range(6)} | {6: 0, 7: SECONDS}
    for window, when, _, rows in kept:
        assert {times[point // 100] for point in rows["point_index"].to_pylist()} == {when}
        assert window == IntervalWindow(when // 20 * 20, when // 20 * 20 + 20)
    dropped = len(brute_force(scenes, [given[8]], BANDS))
    assert counts[metrics.POINTS_IN] == 900
    assert counts[metrics.VALUES_ROUTED] - counts[metrics.VALUES_SAMPLED] == dropped > 0
    assert counts[metrics.ROWS_WRITTEN] == counts[metrics.SAMPLES_OUT] == counts[metrics.VALUES_SAMPLED]


def test_a_periodic_source(streaming: list[str], scenes: Collection, points: pa.Table, tmp_path: Path) -> None:
    """Rows of messages, a message every quarter of a second, to files of each second; the stream is drained."""
    begin = float(int(time.time()) - 1)
    schema = points.drop_columns(["kind"]).schema.append(pa.field("id", pa.int64()))
    kept = Kept()

    def build(pipeline: beam.Pipeline) -> None:
        ticks = pipeline | PeriodicImpulse(begin, begin + 3, fire_interval=0.25)
        rows = ticks | beam.FlatMap(message, points.drop_columns(["kind"]), begin).with_output_types(dict[str, Any])
        made = rows | beam.WindowInto(FixedWindows(1)) | PointBatches("id", schema=schema, **XY)
        (made | "NotePoints" >> noted(kept) | SamplePoints(scenes, BANDS) | WriteSamplesToParquet(str(tmp_path / "s")))

    run(build, streaming)
    given: dict[Any, list[pa.RecordBatch]] = {}
    for window, _, _, batch in kept:
        given.setdefault((float(window.start), float(window.end)), []).append(batch)
    assert sum(len(batch) for batches in given.values() for batch in batches) == 12 * 40
    files = window_files(tmp_path)
    assert list(files) == sorted(given) == [(begin + number, begin + number + 1) for number in range(3)]
    for window, panes in files.items():
        found = [path for paths in panes.values() for path in paths]
        assert rows_of(found) == brute_force(scenes, given[window], BANDS) != {}


def message(tick: Any, table: pa.Table, begin: float) -> list[dict[str, Any]]:
    """The forty points of a tick, with ids that are made of its number."""
    number = round((float(tick) - begin) * 4)
    rows = table.slice(40 * number, 40).to_pylist()
    return [row | {"id": (number << 32) + place} for place, row in enumerate(rows)]


def grow_once_seen(kept: Kept, more: Collection, folder: Path) -> threading.Thread:
    """Let a collection grow after its first version came through a noting step; gives the thread that waits for it."""

    def grow() -> None:
        while not kept:
            time.sleep(0.05)
        more.export(folder)

    waiting = threading.Thread(target=grow, daemon=True)
    waiting.start()
    return waiting


def test_a_collection_that_grows_while_the_stream_runs(
    streaming: list[str], scenes: Collection, points: pa.Table, tmp_path: Path
) -> None:
    """Each window has the records of its version, and those before the updates have the first ones.

    The stream begins in the past and runs until windows with and without the new records ended.
    """
    first = pc.field("id").isin(["P0_1", "P1_2"])
    scenes.where(first).export(tmp_path / "growing")
    collection, given = rasteret_beam.load(tmp_path / "growing"), batches(points)[:4]
    (tmp_path / "out").mkdir()
    begin = int(time.time())
    oldest, newest = begin - 30, begin + 16
    kept = Kept()

    def build(pipeline: beam.Pipeline) -> None:
        updates = pipeline | CollectionUpdates(collection, every=2, until=Timestamp(newest + 2))
        updates | beam.ParDo(_Note(kept))
        ticks = pipeline | PeriodicImpulse(oldest, newest, fire_interval=0.5, data=given * 23)
        ticks.element_type = pa.RecordBatch
        windowed = ticks | beam.WindowInto(FixedWindows(1))
        samples = windowed | SamplePoints(collection, BANDS, updates=updates)
        samples | WriteSamplesToParquet(str(tmp_path / "out" / "s"))

    grown = grow_once_seen(kept, scenes.where(~first), tmp_path / "growing" / "more")
    run(build, streaming)
    grown.join()
    versions = {int(window.start): CollectionVersion.of(text) for window, _, _, text in kept}
    assert len(versions) == len(kept) and begin - 2 < min(versions) < begin + 2
    files, records = window_files(tmp_path / "out"), set()
    assert len(files) == newest - oldest
    for (start, _), panes in files.items():
        window = int(start) // 2 * 2
        early = window < min(versions)
        seen = scenes.where(first) if early else at_version(collection, versions[window], collection.schema)
        number = round(start - oldest) * 2
        of_window = [given[number % 4], given[(number + 1) % 4]]
        assert rows_of(panes[0]) == brute_force(seen, of_window, BANDS) != {}
        records.add((early, len(seen)))
    assert records == {(True, 2), (False, 2), (False, 6)}


def test_points_that_come_after_the_collection_grew_have_the_version_of_their_window(
    streaming: list[str], scenes: Collection, points: pa.Table, tmp_path: Path
) -> None:
    """They come for a window before it grew, and for one before the updates."""
    first = pc.field("id").isin(["P0_1", "P1_2"])
    scenes.where(first).export(tmp_path / "growing")
    collection, given = rasteret_beam.load(tmp_path / "growing"), batches(points)[:10]
    (tmp_path / "out").mkdir()
    begin = int(time.time()) // 2 * 2
    kept = Kept()
    before, growing, after = begin - 20, begin, begin + 14
    times = [before, growing, *[after] * 6, before, growing]
    late = beam.WindowInto(
        FixedWindows(2),
        trigger=AfterWatermark(late=AfterCount(1)),
        accumulation_mode=AccumulationMode.DISCARDING,
        allowed_lateness=600,
    )

    def build(pipeline: beam.Pipeline) -> None:
        until = Timestamp(begin + 20)
        updates = pipeline | CollectionUpdates(collection, every=2, until=until, allowed_lateness=600)
        updates | beam.ParDo(_Note(kept))
        data = [(Timestamp(when), batch) for when, batch in zip(times, given, strict=True)]
        came = pipeline | PeriodicImpulse(begin, begin + 2 * len(data), fire_interval=2, data=data)
        came.element_type = pa.RecordBatch
        samples = came | late | SamplePoints(collection, BANDS, updates=updates)
        samples | WriteSamplesToParquet(str(tmp_path / "out" / "s"), wait_seconds=1)

    grown = grow_once_seen(kept, scenes.where(~first), tmp_path / "growing" / "more")
    run(build, streaming)
    grown.join()
    files = window_files(tmp_path / "out")
    assert set(files) == {(when, when + 2) for when in (before, growing, after)}
    for window, panes in files.items():
        found = rows_of(path for paths in panes.values() for path in paths)
        version = scenes if window[0] == after else scenes.where(first)
        of_window = [batch for when, batch in zip(times, given, strict=True) if when == window[0]]
        assert found == brute_force(version, of_window, BANDS) != {}
