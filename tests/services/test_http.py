"""Sampling over HTTP: no header is read, faults that pass leave no trace, others give one clear error."""

import signal
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from urllib.parse import quote

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from apache_beam.testing.util import assert_that
from rasterio.transform import Affine

from rasteret_beam import Collection, ReadPoints, SamplePoints, build_from_cogs, metrics
from rasteret_beam.errors import BuildError, TileReadError
from rasteret_beam.metrics import Counters
from rasteret_beam.model import TileKey
from rasteret_beam.readers.gdal.headers import read_headers
from rasteret_beam.readers.storage import byte_ranges
from rasteret_beam.readers.storage.byte_ranges import RangeReader, RetryPolicy
from rasteret_beam.readers.tiles import indexed
from rasteret_beam.readers.tiles.dispatch import Engines
from rasteret_beam.readers.tiles.indexed import IndexedEngine
from rasteret_beam.readers.tiles.protocol import TileRequest
from rasteret_beam.readers.tiles.source import REMOTE_READS, TileSource
from rasteret_beam.transforms.runtime import shared_resources
from tests.support import rasters
from tests.support.pipelines import XY, Kept, run
from tests.support.scenes import write_scene
from tests.support.server import Fault, RasterServer, Request, always, first, only, seeded
from tests.support.threads import own_threads

TRIES = 3
QUICK = RetryPolicy(TRIES, first_pause=0.005, timeout=1.0)
LEFT, TOP, TILE = 500_000.0, 5_400_000.0, 640.0  # metres
SCENES = ("s0.tif", "s1.tif")
WIDE = "wide.tif"  # 11 x 11 tiles
NAMES = (
    "a b.tif",
    "100%.tif",
    "50%25.tif",
    "a+b.tif",
    "é ü.tif",
    "x#y.tif",
    "q?r.tif",
    "d e/日本 & co.tif",
    "a%2Fb.tif",
)

PASSING = {
    "503": (Fault(status=503), "the server answered 503 Service Unavailable"),
    "500": (Fault(status=500), "the server answered 500 Internal Server Error"),
    "429": (Fault(status=429), "the server answered 429 Too Many Requests"),
    "408": (Fault(status=408), "the server answered 408 Request Timeout"),
    "reset": (Fault(reset_after=100), "the connection was reset"),
    "reset before the body": (Fault(reset_after=0), "the connection was reset"),
    "broken off": (Fault(stop_after=100), "the answer ended early"),
    "short": (Fault(cut=100), "the server sent bytes "),
    "another range": (Fault(shift=7), "the server sent bytes "),
    "hang": (Fault(hang=30), "no answer, or no further data, within the time limit"),
    "stall": (Fault(stall_after=100), "no answer, or no further data, within the time limit"),
}
STALE = "the file was changed after the collection was built, so its index is stale; build it again"
LASTING = {
    "404": (Fault(status=404), "no such file (the server answered 404 Not Found)"),
    "401": (Fault(status=401), "the server does not allow reading it: the server answered 401 Unauthorized"),
    "403": (Fault(status=403), "the server does not allow reading it: the server answered 403 Forbidden"),
    "410": (Fault(status=410), "the server answered 410 Gone"),
    "412": (Fault(status=412), STALE + " (its ETag is no longer "),
    "no ranges": (Fault(whole=True), "the server does not support byte ranges"),
    "another size": (Fault(size=999_999), STALE + " (it has 999999 bytes, in the collection "),
    "now tiny": (Fault(size=7), STALE + " (it has 7 bytes, in the collection "),
    "another ETag": (Fault(etag='"other"'), STALE + ' (its ETag is "other", in the collection '),
}


@dataclass(frozen=True)
class Served:
    """A server and collections of its files."""

    server: RasterServer
    folder: Path
    scenes: Collection
    wide: Collection
    names: Collection

    def expected(self, record: str, points: pa.Table) -> np.ndarray:
        """rasterio's values at points, NaN outside."""
        values, _ = rasters.oracle(self.folder / f"{record}.tif", 0, *(points[name].to_numpy() for name in "xy"))
        return values


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    (folder / "d e").mkdir()
    for seed, name in enumerate((*SCENES, *NAMES, WIDE)):
        write_scene(folder / name, Affine(10, 0, LEFT, 0, -10, TOP), seed, size=704 if name == WIDE else 300)
    with RasterServer(folder) as server:
        groups = [build_from_cogs([f"{server.url}/{quote(name)}" for name in group]) for group in (SCENES, [WIDE])]
        groups.append(build_from_cogs([f"{server.url}/{quote(name)}" for name in NAMES], record_id=list(NAMES)))
        yield Served(server, folder, *groups)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(byte_ranges, "RETRY_POLICY", QUICK)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def points_in(tiles: list[tuple[int, int]], each: int = 3, seed: int = 1) -> pa.Table:
    """Random points in tiles (row, col)."""
    rng = np.random.default_rng(seed)
    row, col = np.repeat(np.array(tiles, dtype=float), each, axis=0).T
    inside = rng.uniform(0.01, 0.99, (2, len(row)))
    return pa.table({"x": LEFT + TILE * (col + inside[0]), "y": TOP - TILE * (row + inside[1])})


EVERY_OTHER = [(row, col) for row in range(11) for col in range(11) if (row + col) % 2 == 0]
"""Tiles of which no two lie beside each other in the file, so each is a request."""

SOME = points_in([(0, 0), (0, 2), (1, 1), (2, 3), (3, 0), (3, 3)], each=5)
"""Points in tiles of a scene that make a request each."""

BEYOND = pa.table({"x": [LEFT - 5.0, None, float("nan")], "y": [TOP - 5.0, TOP, TOP]})


def check_values(served: Served, table: pa.Table, points: pa.Table, records: tuple[str, ...] = ("s0", "s1")) -> None:
    """One row for each record and point, with rasterio's value."""
    order = [("record_id", "ascending"), ("point_index", "ascending")]
    table = table.sort_by(order)
    assert table["record_id"].to_pylist() == [record for record in records for _ in range(len(points))]
    assert table["point_index"].to_pylist() == list(range(len(points))) * len(records)
    expected = np.concatenate([served.expected(record, points) for record in records])
    np.testing.assert_array_equal(table["value"].to_numpy(), expected)


def wants(collection: Collection, tiles: list[tuple[int, int]]) -> list[TileRequest]:
    index = collection.index(["B1"])
    record = index.routing.record_ids[0]
    grid, bands = index.routing.grid_of(TileKey(record, 0, 0, 0, 0))
    (asset,) = index.assets(record, bands)
    return [TileRequest(asset, grid, row, col, grid.tile_height) for row, col in tiles]


def tile_spans(collection: Collection) -> dict[tuple[int, int], tuple[int, int]]:
    """First byte and end of each tile of a collection's first file."""
    (want,) = wants(collection, [(0, 0)])
    stored, across = want.asset.stored, -(-want.grid.width // want.grid.tile_width)
    pairs = zip(stored.tile_offsets, stored.tile_byte_counts, strict=True)  # type: ignore[union-attr]
    return {divmod(number, across): (start, start + count) for number, (start, count) in enumerate(pairs)}


class TestValues:
    def test_only_tiles_are_asked_for(self, served: Served) -> None:
        served.server.reset()
        check_values(served, served.scenes.sample_points(SOME, ["B1"], **XY), SOME)
        spans = set(tile_spans(served.scenes).values())
        asked = [(request.start, request.stop) for request in served.server.log if request.name == "s0.tif"]
        assert len(asked) == len(set(asked)) == 6 and set(asked) <= spans
        assert {request.method for request in served.server.log} == {"GET"}

    def sent(self, served: Served) -> tuple[int, int]:
        """Requests and bytes since the last reset."""
        return len(served.server.log), sum(request.sent for request in served.server.log)

    def test_prefix_reads_ask_for_fewer_bytes(self, served: Served) -> None:
        points = points_in(EVERY_OTHER, each=1)
        served.server.reset()
        served.wide.sample_points(points, ["B1"], **XY)
        requests, whole = self.sent(served)
        served.server.reset()
        check_values(served, served.wide.sample_points(points, ["B1"], **XY, prefix_reads=True), points, ("wide",))
        more, prefixes = self.sent(served)
        assert requests == len(EVERY_OTHER) <= more <= 1.2 * requests
        assert prefixes <= 0.7 * whole

    def test_a_prefix_that_falls_short_is_followed_by_the_rest(
        self, served: Served, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(indexed, "PREFIX_MARGIN", -0.1)
        points = points_in(EVERY_OTHER, each=1)
        served.server.reset()
        check_values(served, served.wide.sample_points(points, ["B1"], **XY, prefix_reads=True), points, ("wide",))
        requests, _ = self.sent(served)
        assert requests > 1.5 * len(EVERY_OTHER)
        spans = set(tile_spans(served.wide).values())
        asked = sorted((request.start, request.stop) for request in served.server.log)
        joined = {(one[0], other[1]) for one, other in pairwise(asked) if one[1] == other[0]}
        assert len((set(asked) | joined) & spans) > 0.9 * len(EVERY_OTHER)

    def test_a_crowded_raster_takes_few_requests_and_no_more_bytes(self, served: Served) -> None:
        points = points_in([(row, col) for row in range(11) for col in range(11)])
        served.server.reset()
        check_values(served, served.wide.sample_points(points, ["B1"], **XY), points, ("wide",))
        spans = tile_spans(served.wide).values()
        assert sum(request.sent for request in served.server.log) <= 1.05 * sum(stop - start for start, stop in spans)
        assert len(served.server.log) <= len(spans) / 4

    def test_a_sparse_raster_takes_no_more_bytes(self, served: Served) -> None:
        points = points_in(EVERY_OTHER)
        served.server.reset()
        check_values(served, served.wide.sample_points(points, ["B1"], **XY), points, ("wide",))
        spans = tile_spans(served.wide)
        touched = sum(spans[tile][1] - spans[tile][0] for tile in EVERY_OTHER)
        assert sum(request.sent for request in served.server.log) <= 1.05 * touched
        assert len(served.server.log) <= len(EVERY_OTHER)

    def test_names_are_encoded_once(self, served: Served) -> None:
        served.server.reset()
        found = served.names.sample_points(SOME, ["B1"], **XY)
        assert set(pc.unique(found["record_id"]).to_pylist()) == set(NAMES)
        for name in NAMES:
            rows = found.filter(pc.field("record_id") == name).sort_by("point_index")
            expected = served.expected(name.removesuffix(".tif"), SOME)
            np.testing.assert_array_equal(rows["value"].to_numpy(), expected)
        assert {request.name for request in served.server.log} == set(NAMES)


class TestPassingFaults:
    """Asked again, the server answers."""

    @pytest.mark.parametrize("name", PASSING)
    def test_a_tile_comes_right(self, served: Served, name: str) -> None:
        times = 1 if PASSING[name][0].hang or PASSING[name][0].stall_after else TRIES - 1
        served.server.reset(first(times, PASSING[name][0]))
        source, counters, found = TileSource(Engines(IndexedEngine(RangeReader(QUICK)))), Counters(), {}
        source.each(wants(served.scenes, [(2, 3)]), lambda want, tile: found.update({want.tile_row: tile}), counters)
        source.close()
        rows, cols = (np.arange(start, start + 64) for start in (128, 192))
        x, y = (part.ravel() for part in np.meshgrid(LEFT + 10 * cols + 5, TOP - 10 * rows - 5))
        expected = served.expected("s0", pa.table({"x": x, "y": y}))
        np.testing.assert_array_equal(found[2].ravel(), expected)
        counts = counters.snapshot()
        assert counts[metrics.READ_RETRIES] == times == len(served.server.log) - 1
        assert counts[metrics.RANGE_REQUESTS] == counts[metrics.TILES_DECODED] == 1

    @pytest.mark.parametrize("name", [name for name in PASSING if name not in ("hang", "stall")])
    def test_the_eager_call_comes_right(self, served: Served, name: str) -> None:
        served.server.reset(first(TRIES - 1, PASSING[name][0]))
        check_values(served, served.scenes.sample_points(SOME, ["B1"], **XY), SOME)
        asked = Counter((request.name, request.start) for request in served.server.log)
        assert set(asked.values()) == {TRIES} and len(asked) == 12

    def test_a_pipeline_under_all_of_them_adds_up(self, served: Served) -> None:
        faults = [fault for fault, _ in PASSING.values()]
        served.server.reset(seeded(11, 0.5, faults, most=TRIES - 1))
        points = pa.concat_tables([SOME, BEYOND])
        kept = Kept()

        def build(pipeline: beam.Pipeline) -> None:
            sampled = pipeline | ReadPoints(points, **XY) | SamplePoints(served.scenes, ["B1"], with_unsampled=True)
            assert_that(sampled.samples, kept.keep, label="samples")
            assert_that(sampled.unsampled, kept.keep, label="unsampled")

        counts = run(build)
        samples = pa.Table.from_batches([batch for batch in kept if "value" in batch.schema.names])
        unsampled = pa.Table.from_batches([batch for batch in kept if "reason" in batch.schema.names])
        check_values(served, samples, SOME)
        assert sorted(unsampled["reason"].to_pylist()) == ["no_record", "not_finite", "null"]
        assert counts[metrics.POINTS_IN] == len(points)
        assert counts[metrics.POINTS_SAMPLED] == len(SOME) and counts[metrics.POINTS_UNSAMPLED] == len(BEYOND)
        assert counts[metrics.SAMPLES_OUT] == 2 * len(SOME)
        assert counts[metrics.READ_RETRIES] == len(served.server.log) - counts[metrics.RANGE_REQUESTS] > 0


def line_of(error: BaseException) -> str:
    assert "\n" not in str(error)
    return str(error)


class TestHeaders:
    """Headers while a collection is built."""

    def test_passing_faults(self, served: Served) -> None:
        served.server.reset(first(1, Fault(status=503)))
        (header,) = read_headers(f"{served.server.url}/s0.tif")
        assert [*zip(header.tile_offsets, header.tile_byte_counts, strict=True)] == [
            (start, stop - start) for start, stop in tile_spans(served.scenes).values()
        ]
        assert header.file_size == (served.folder / "s0.tif").stat().st_size

    @pytest.mark.parametrize("name", ["404", "403", "410"])
    def test_lasting_faults(self, served: Served, name: str) -> None:
        fault, text = LASTING[name]
        served.server.reset(always(fault))
        with pytest.raises(byte_ranges.RangeError) as caught:
            read_headers(f"{served.server.url}/s0.tif")
        assert line_of(caught.value) == text
        assert len(served.server.log) == 1


class TestErrors:
    """One line that names everything."""

    @pytest.mark.parametrize("name", LASTING)
    def test_what_lasts_is_not_asked_again(self, served: Served, name: str) -> None:
        fault, text = LASTING[name]
        served.server.reset(always(fault))
        with pytest.raises(TileReadError) as caught:
            served.scenes.sample_points(SOME, ["B1"], **XY)
        line = line_of(caught.value)
        start = line.partition(", tile (")[0]
        assert start in {f"record '{record}', band B1: {served.server.url}/{record}.tif" for record in ("s0", "s1")}
        assert f"): {text}" in line and len(line) < 330
        assert max(Counter((request.name, request.start) for request in served.server.log).values()) == 1

    def test_a_missing_file_is_asked_for_once_for_neighbouring_tiles(self, served: Served) -> None:
        served.server.reset(always(Fault(status=404)))
        neighbours = wants(served.scenes, [(0, 0), (0, 1), (0, 2)])
        engine = IndexedEngine(RangeReader(QUICK))
        (together,) = engine.plan(neighbours)
        found = dict(engine.read(together, Counters()))
        assert [str(found[want]).partition(": no such file")[1] for want in neighbours] == [": no such file"] * 3
        assert len(served.server.log) == 1

    @pytest.mark.parametrize("name", PASSING)
    def test_what_does_not_pass_is_told_with_the_last_answer(self, served: Served, name: str) -> None:
        fault, text = PASSING[name]
        served.server.reset(always(fault))
        counters, reader = Counters(), RangeReader(RetryPolicy(TRIES, 0.001, 0.2))
        ((_, error),) = IndexedEngine(reader).read(wants(served.scenes, [(2, 3)]), counters)
        start, stop = tile_spans(served.scenes)[2, 3]
        assert line_of(error).startswith(  # type: ignore[arg-type]
            f"record 's0', band B1: {served.server.url}/s0.tif, tile (2, 3): "
            f"bytes {start} to {stop} could not be read in 3 attempt(s); last error: {text}"
        )
        assert len(served.server.log) == TRIES and counters.snapshot()[metrics.READ_RETRIES] == TRIES - 1

    def test_a_refused_connection(self, served: Served) -> None:
        with RasterServer(served.folder) as gone:
            pass
        with pytest.raises(byte_ranges.RangeError, match=r"in 3 attempt\(s\); last error: the connection was refused$"):
            RangeReader(QUICK).read(byte_ranges.FileState(f"{gone.url}/s0.tif"), 0, 10, Counters())

    def test_a_file_that_ends_early_keeps_its_other_tiles(self, served: Served) -> None:
        """The collection does not know its size, as those of other writers."""
        served.server.reset()
        end = (served.folder / "s0.tif").stat().st_size
        for start, text in ((end - 10, f"ends at byte {end}, but"), (end + 10, f"ends before byte {end + 10}, where")):
            with pytest.raises(byte_ranges.RangeError, match=f"the file {text}.* so its index is stale") as caught:
                state = byte_ranges.FileState(f"{served.server.url}/s0.tif")
                RangeReader(QUICK).read(state, start, end + 20, Counters())
            assert not caught.value.of_file
        assert len(served.server.log) == 2

    def test_a_weak_etag_is_no_condition(self, served: Served) -> None:
        served.server.reset(always(Fault(etag='W/"other"')))
        for etag in ('W/"one"', '"one"'):
            state = byte_ranges.FileState(f"{served.server.url}/s0.tif", etag=etag)
            assert len(RangeReader(QUICK).read(state, 0, 10, Counters())) == 10

    def test_a_pipeline_fails_with_the_same_line(self, served: Served) -> None:
        served.server.reset(only(5, Fault(status=404)))
        points = points_in(EVERY_OTHER)
        with pytest.raises(Exception) as caught:
            run(lambda pipeline: pipeline | ReadPoints(points, **XY) | SamplePoints(served.wide, ["B1"]))
        line = next(line for line in str(caught.value).splitlines() if "band B1" in line)
        assert "record 'wide', band B1: http://127.0.0.1:" in line
        assert "no such file (the server answered 404 Not Found)" in line
        self.check_nothing_runs(served)
        assert not shared_resources._held

    @staticmethod
    def check_nothing_runs(served: Served) -> None:
        before = len(served.server.log)
        assert not own_threads()
        threading.Event().wait(0.1)
        assert len(served.server.log) == before

    def test_the_rest_is_left_undone(self, served: Served) -> None:
        """All the other requests take long, so all that could be under way are; none comes after those."""
        slow, missing = Fault(hang=0.8), Fault(status=404)
        served.server.reset(lambda request: missing if request.number == 0 else slow)
        with pytest.raises(TileReadError, match="no such file"):
            served.wide.sample_points(points_in(EVERY_OTHER), ["B1"], **XY)
        assert len(served.server.log) <= REMOTE_READS + 1 < len(EVERY_OTHER)
        self.check_nothing_runs(served)

    def test_an_interrupt_ends_the_call(self, served: Served) -> None:
        """The key is pressed until the main thread has noticed: it misses a signal that comes just before it waits."""
        noticed = threading.Event()

        def once(*_: object) -> None:
            if not noticed.is_set():
                noticed.set()
                raise KeyboardInterrupt

        def press() -> None:
            while not noticed.wait(0.05):
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        def interrupt(request: Request) -> Fault:
            if request.number == 3:
                threading.Thread(target=press, name="key").start()
            return Fault(status=503, hang=0.8)

        before = signal.signal(signal.SIGINT, once)
        try:
            served.server.reset(interrupt)
            with pytest.raises(KeyboardInterrupt):
                served.wide.sample_points(points_in(EVERY_OTHER), ["B1"], **XY)
        finally:
            noticed.set()
            signal.signal(signal.SIGINT, before)
        assert len(served.server.log) < TRIES * len(EVERY_OTHER) // 2
        self.check_nothing_runs(served)


class TestSecrets:
    """User, password and query of a URL are used, and told to nobody."""

    def test_a_password_is_not_shown(self, served: Served, caplog: pytest.LogCaptureFixture) -> None:
        url = served.server.url.replace("//", "//user:se%40cret@") + "/s0.tif"
        served.server.reset(always(Fault(status=503)))
        (want,) = wants(served.scenes, [(2, 3)])
        with caplog.at_level("DEBUG"), pytest.raises(byte_ranges.RangeError) as caught:
            RangeReader(QUICK).read(byte_ranges.FileState(url), 0, 10, Counters())
        assert "cret" not in str(caught.value) + caplog.text
        asset = replace(want.asset, href=url)
        assert f": {served.server.url}/s0.tif, tile" in str(replace(want, asset=asset).failed(ValueError("why")))

    @pytest.mark.parametrize("secret", ["?token=secret", "//user:secret@"])
    def test_such_urls_are_read(self, served: Served, secret: str) -> None:
        with RasterServer(served.folder) as outside:

            def url(name: str) -> str:
                plain = f"{outside.url}/{name}"
                return plain + secret if secret[0] == "?" else plain.replace("//", secret)

            signed = build_from_cogs([url("s0.tif")], record_id=["s0"])
            check_values(served, signed.sample_points(SOME, ["B1"], **XY), SOME, ("s0",))
            with pytest.raises(BuildError) as caught:
                build_from_cogs([url("none.tif")])
        with pytest.raises(TileReadError) as failed:
            signed.sample_points(SOME, ["B1"], **XY)
        for text in (str(caught.value), line_of(failed.value)):
            assert "secret" not in text and outside.url in text
