"""Groups overlap in time: each sample keeps the window and timestamp of its point, and nothing runs on afterwards."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import apache_beam as beam
import pyarrow as pa
import pytest
from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions
from apache_beam.testing import test_stream
from apache_beam.transforms.window import FixedWindows, IntervalWindow

from rasteret_beam import Collection, SamplePoints, metrics
from rasteret_beam.errors import TileReadError
from rasteret_beam.kernels.routing.chunks import ChunkRules, route
from rasteret_beam.metrics import Counters
from rasteret_beam.model import TileKey
from rasteret_beam.readers.jobs.cancellation import Cancelled, CancelToken
from rasteret_beam.readers.jobs.ordered_pool import OrderedPool
from rasteret_beam.readers.jobs.sample_job import SampleJob
from rasteret_beam.readers.jobs.sampler import SAMPLES, UNITS_AHEAD, Sampled, Sampler
from rasteret_beam.readers.tiles.dispatch import Engines
from rasteret_beam.readers.tiles.indexed import IndexedEngine
from rasteret_beam.readers.tiles.protocol import Tile, TileRequest
from rasteret_beam.readers.tiles.source import TileSource
from rasteret_beam.transforms.runtime import shared_resources
from tests.support.pipelines import XY, Kept, run
from tests.support.streams import BATCHES, SECONDS, batches, stamp
from tests.support.threads import own_threads


class _Note(beam.DoFn):
    def __init__(self, kept: Kept):
        self.kept = kept

    def process(self, samples: pa.RecordBatch, time=beam.DoFn.TimestampParam, window=beam.DoFn.WindowParam) -> None:
        self.kept.append((window, float(time), samples.to_pydict()))


def check_windows(kept: Kept, expected: dict[tuple[int, str], float], width: int) -> None:
    """Every row once, in the window and at the time of its point."""
    found = {}
    for window, time, samples in kept:
        for point, record, value in zip(samples["point_index"], samples["record_id"], samples["value"], strict=True):
            assert (point, record) not in found
            found[point, record] = value
            assert time == point // 100 * SECONDS
            start = time // width * width
            assert window == IntervalWindow(start, start + width)
    assert found == expected


@pytest.fixture
def expected(scenes: Collection, points: pa.Table) -> dict[tuple[int, str], float]:
    eager = scenes.sample_points(points.slice(0, 100 * BATCHES), ["B10"], **XY)
    keys = zip(eager["point_index"].to_pylist(), eager["record_id"].to_pylist(), strict=True)
    return dict(zip(keys, eager["value"].to_pylist(), strict=True))


@pytest.mark.parametrize("width", [10, 30])
def test_windows_and_times_of_a_batch_job(scenes: Collection, points: pa.Table, expected: dict, width: int) -> None:
    numbered = list(enumerate(batches(points)))
    kept = Kept()

    def build(pipeline: beam.Pipeline) -> None:
        given = pipeline | beam.Create(numbered, reshuffle=False)
        stamped = given | beam.MapTuple(stamp).with_output_types(pa.RecordBatch)
        stamped | beam.WindowInto(FixedWindows(width)) | SamplePoints(scenes, ["B10"]) | beam.ParDo(_Note(kept))

    counts = run(build)
    check_windows(kept, expected, width)
    assert counts[metrics.SAMPLES_OUT] == len(expected)


def test_windows_and_times_of_a_stream(scenes: Collection, points: pa.Table, expected: dict) -> None:
    stream = test_stream.TestStream()
    for number, batch in enumerate(batches(points)):
        stream = stream.add_elements([stamp(number, batch)])
        stream = stream.advance_watermark_to(number * SECONDS)
    options = PipelineOptions(["--runner=apache_beam.runners.direct.direct_runner.BundleBasedDirectRunner"])
    options.view_as(StandardOptions).streaming = True
    kept = Kept()
    with beam.Pipeline(options=options) as pipeline:
        given = pipeline | stream.advance_watermark_to_infinity().with_output_types(pa.RecordBatch)
        given | beam.WindowInto(FixedWindows(20)) | SamplePoints(scenes, ["B10"]) | beam.ParDo(_Note(kept))
    check_windows(kept, expected, 20)


def test_a_pipeline_leaves_no_thread_behind(scenes: Collection, points: pa.Table) -> None:
    run(lambda pipeline: pipeline | beam.Create(batches(points)) | SamplePoints(scenes, ["B10"]))
    assert not shared_resources._held
    assert not own_threads()


class WaitingEngine(IndexedEngine):
    """Tiles of column ``bad`` cannot be read; the others come when they may."""

    def __init__(self, bad: int | None):
        super().__init__()
        self.bad = bad
        self.reads = 0
        self.may = threading.Event()

    def plan(self, wants: Sequence[TileRequest]) -> list[list[TileRequest]]:
        return [[want] for want in wants]

    def read(
        self, wants: Sequence[TileRequest], counters: Counters, stop: CancelToken | None = None
    ) -> Iterator[tuple[TileRequest, Tile | TileReadError]]:
        self.reads += 1
        if wants[0].tile_col == self.bad:
            yield wants[0], wants[0].failed(ValueError("broken"))
            return
        assert stop is not None
        while not self.may.is_set():
            stop.wait(0.01)
        yield from super().read(wants, counters, stop)


class TestStreams:
    THREADS = UNITS_AHEAD + 1  # or the good groups, which wait, would keep the bad one out

    def start(
        self, scenes: Collection, points: pa.Table, bad: int | None
    ) -> tuple[WaitingEngine, TileSource, Sampler, list[tuple[TileKey, pa.RecordBatch]]]:
        """A stream over an engine that waits, and groups of one tile each: five good, the bad one, and others."""
        engine = WaitingEngine(bad)
        source = TileSource(Engines(engine), threads=self.THREADS)
        index = scenes.index(["B10"], "all")
        chunks = list(route(index.routing, batches(points)[0], None, ChunkRules(block=(1, 1))).chunks)
        chunks.sort(key=lambda chunk: chunk[0].tile_col == bad)
        first_bad = next((at for at, (key, _) in enumerate(chunks) if key.tile_col == bad), len(chunks) - 1)
        chunks.insert(5, chunks.pop(first_bad))
        job = SampleJob(index.routing, index.assets, "scenes")
        return engine, source, Sampler(source, job, Counters()), chunks

    def check_idle(self, engine: WaitingEngine, source: TileSource, stream: Sampler, reads: int) -> None:
        """Nothing waits, and work that pools still hold, which may now run to its end, reads no further tile."""
        engine.may.set()
        waiting = list(stream._pool._waiting)
        for pool in (source.waiting, source._local, source._remote):
            pool.shutdown()
        source.close()
        assert not waiting
        assert engine.reads <= reads
        assert not own_threads()

    def test_one_failing_tile_ends_all(self, scenes: Collection, points: pa.Table) -> None:
        """Groups before the failing one are asked for first, and wait for ever: its error comes nevertheless."""
        engine, source, stream, chunks = self.start(scenes, points, bad=4)
        with pytest.raises(TileReadError, match=r"^record 'P._.', band B10: .*, tile \(\d, 4\): broken$"):
            list(pushed(stream, chunks))
        assert len(chunks) > UNITS_AHEAD
        self.check_idle(engine, source, stream, reads=UNITS_AHEAD)

    def test_cancelling_wakes_what_waits(self, scenes: Collection, points: pa.Table) -> None:
        engine, source, stream, chunks = self.start(scenes, points, bad=None)
        for key, chunk in chunks[:20]:
            assert list(stream.push(None, key, [chunk])) == []
        stream.cancel()
        assert len(chunks) > 20
        self.check_idle(engine, source, stream, reads=20)

    def test_all_comes_in_order(self, scenes: Collection, points: pa.Table) -> None:
        engine, source, stream, chunks = self.start(scenes, points, bad=None)
        engine.may.set()
        rows = list(pushed(stream, chunks))
        assert [sampled.context for sampled in rows] == list(range(len(chunks)))
        for (_, found, kind), (key, chunk) in zip(rows, chunks, strict=True):
            assert kind == SAMPLES
            assert set(found["record_id"].to_pylist()) == {key.record_id}
            assert found["point_index"].equals(chunk["point_index"])
        self.check_idle(engine, source, stream, reads=engine.reads)


def pushed(stream: Sampler, chunks: list[tuple[TileKey, pa.RecordBatch]]) -> Iterator[Sampled]:
    for number, (key, chunk) in enumerate(chunks):
        yield from stream.push(number, key, [chunk])
    yield from stream.drain()


def test_work_that_fails_cancels_what_comes_after_it() -> None:
    stop, started = CancelToken(), []

    def work(number: int) -> int:
        started.append(number)
        if number == 1:
            raise ValueError("one")
        if number > 1:
            stop.wait(60)
        return number

    with ThreadPoolExecutor(2) as pool:
        ahead: OrderedPool[int] = OrderedPool(pool, 9, stop=stop)
        for number in range(9):
            assert list(ahead.push(partial(work, number))) == []
        found = ahead.drain()
        assert next(found) == 0
        with pytest.raises(ValueError, match="one"):
            next(found)
        assert list(ahead.drain()) == []
    assert len(started) < 9


def test_the_first_error_ends_a_job() -> None:
    stop = CancelToken()
    stop.check()
    stop.cancel(first := ValueError("first"))
    stop.cancel(ValueError("second"))
    assert stop.error is first
    for ended in (stop.check, partial(stop.wait, 60)):
        with pytest.raises(Cancelled):
            ended()
