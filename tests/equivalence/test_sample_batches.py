"""``Collection.sample_batches``: the rows of ``sample_points``, pulled round by round."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from rasteret_beam import Collection, build_from_cogs
from rasteret_beam.collection.eager import rounds
from rasteret_beam.errors import InputError, TileReadError, UnknownOptionError
from rasteret_beam.readers.gdal.rasters import RasterPool
from rasteret_beam.readers.tiles.source import TileSource
from tests.support import threads
from tests.support.pipelines import ORDER, XY
from tests.support.rasters import RasterCase, damage_tile

BANDS = ["B1", "B2"]
BATCH = 100


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """One file that is read by byte ranges, and one in strips that rasterio reads."""
    folder = tmp_path_factory.mktemp("batches")
    options = {"COMPRESS": "DEFLATE", "INTERLEAVE": "BAND"}
    tiled = RasterCase(name="tiled", dtype="int16", count=2, options=options).write(folder)
    strips = RasterCase(name="strips", dtype="uint16", count=2, tile=None, strip_rows=8).write(folder)
    return build_from_cogs([tiled, strips])


class Points:
    """A stream of points that counts the batches that are taken from it."""

    def __init__(self, batches: int):
        rng = np.random.default_rng(3)
        x, y = (
            500_000 + rng.uniform(-99, 203 * 16, batches * BATCH),
            4_500_000 - rng.uniform(0, 157 * 16, batches * BATCH),
        )
        plot = pa.array([f"plot {number % 7}" for number in range(batches * BATCH)]).dictionary_encode()
        self.table = pa.table({"x": x, "y": y, "plot": plot})
        self.taken = 0

    def reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self.table.schema, self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        for batch in self.table.to_batches(max_chunksize=BATCH):
            self.taken += 1
            yield batch


@pytest.fixture
def small_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "ROUND_POINTS", 3 * BATCH)


@pytest.mark.parametrize("options", [{}, {"layout": "values", "value_type": "raw"}, {"max_distance_pixels": 1}])
def test_rows_are_those_of_sample_points(
    collection: Collection, monkeypatch: pytest.MonkeyPatch, options: dict[str, object]
) -> None:
    bands = BANDS if "layout" not in options else BANDS[:1]
    one = collection if "layout" not in options else collection.subset(ids=["tiled"])
    points = Points(10)
    whole = one.sample_points(points.table, bands, **XY, **options)  # in one round
    monkeypatch.setattr(rounds, "ROUND_POINTS", 3 * BATCH)
    reader = one.sample_batches(points.reader(), bands, **XY, **options)
    assert isinstance(reader, pa.RecordBatchReader) and reader.schema.equals(whole.schema)
    order = [name for name in ORDER if name[0] in whole.column_names]
    assert reader.read_all().sort_by(order).equals(whole.sort_by(order))
    again, unsampled = one.sample_points(points.table, bands, **XY, **options, return_unsampled=True)
    assert again.sort_by(order).equals(whole.sort_by(order))
    left = set(range(10 * BATCH)) - set(whole["point_index"].to_pylist())
    assert set(unsampled["point_index"].to_pylist()) == left and left


@pytest.mark.usefixtures("small_rounds")
def test_points_are_taken_round_by_round(collection: Collection) -> None:
    points = Points(12)
    reader = collection.sample_batches(points.reader(), BANDS, **XY)
    assert points.taken == 0
    taken = []
    for batch in reader:
        last = pc.max(batch["point_index"]).as_py()
        assert last < points.taken * BATCH <= (last // (3 * BATCH) + 1) * 3 * BATCH
        taken.append(points.taken)
    assert sorted(set(taken)) == [3, 6, 9, 12]


def test_rounds_end_by_bytes_too(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    points = Points(4)
    monkeypatch.setattr(rounds, "ROUND_BYTES", 1)
    reader = collection.sample_batches(points.reader(), BANDS, **XY)
    reader.read_next_batch()
    assert points.taken == 1
    reader.close()


@pytest.mark.usefixtures("small_rounds")
def test_tiles_are_kept_from_round_to_round(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    whole = TileSource.of_budget
    monkeypatch.setattr(TileSource, "of_budget", lambda *given: made.append(whole(*given)) or made[-1])
    collection.sample_batches(Points(9).reader(), BANDS, **XY).read_all()
    assert len(made) == 1


@pytest.mark.usefixtures("small_rounds")
@pytest.mark.parametrize("how", ["close", "with", "drop"])
def test_an_early_end_leaves_no_thread_and_no_open_file(
    collection: Collection, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    closed: list[RasterPool] = []
    close = RasterPool.close
    monkeypatch.setattr(RasterPool, "close", lambda pool: (closed.append(pool), close(pool))[1])
    threads.begin()
    points = Points(12)
    reader = collection.sample_batches(points.reader(), BANDS, **XY)
    reader.read_next_batch()
    assert threads.own_threads() and points.taken == 3
    if how == "with":
        with reader:
            reader.read_next_batch()
    elif how == "close":
        reader.close()
    else:
        del reader
    assert not threads.own_threads() and len(closed) == 1
    if how != "drop":
        with pytest.raises(InputError, match=r"^the reader of samples is closed; call sample_batches again"):
            reader.read_all()
        reader.close()
    assert points.taken == 3


def test_a_reader_that_is_read_to_its_end_can_be_closed(collection: Collection) -> None:
    reader = collection.sample_batches(Points(1).reader(), BANDS, **XY)
    with reader:
        assert len(reader.read_all())
    assert len(reader.read_all()) == 0


class TestErrors:
    def test_wrong_arguments_are_said_at_once(self, collection: Collection) -> None:
        points = Points(1)
        with pytest.raises(InputError, match="lacks band"):
            collection.sample_batches(points.reader(), ["B9"], **XY)
        with pytest.raises(UnknownOptionError, match="sample_batches has no option 'return_unsampled'"):
            collection.sample_batches(points.reader(), BANDS, **XY, return_unsampled=True)
        assert points.taken == 0

    @pytest.mark.parametrize("pull", [pa.RecordBatchReader.read_all, list, pa.RecordBatchReader.read_next_batch])
    def test_a_tile_that_cannot_be_read(self, tmp_path: Path, pull: object) -> None:
        """The error that sample_points raises, and nothing runs after it."""
        path = RasterCase(name="a", dtype="int16", options={"COMPRESS": "DEFLATE"}).write(tmp_path)
        collection = build_from_cogs([path])
        damage_tile(path, 0)
        threads.begin()
        with pytest.raises(TileReadError, match=r"record 'a', band B1: .*, tile \(0, 0\)"):
            pull(collection.sample_batches(Points(5).table, ["B1"], **XY))  # type: ignore[operator]
        assert not threads.own_threads()

    def test_of_the_points_in_a_later_round(self, collection: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rounds, "ROUND_POINTS", BATCH)

        def batches() -> Iterator[pa.RecordBatch]:
            yield from Points(1).table.to_batches()
            raise KeyError("the database went away")

        stream = pa.RecordBatchReader.from_batches(Points(1).table.schema, batches())
        reader = collection.sample_batches(stream, BANDS, **XY)
        reader.read_next_batch()
        with pytest.raises(KeyError, match="the database went away"):
            reader.read_all()

    def test_in_another_language(self, tmp_path: Path) -> None:
        path = RasterCase(name="a", dtype="int16", options={"COMPRESS": "DEFLATE"}).write(tmp_path)
        collection = build_from_cogs([path])
        damage_tile(path, 0)
        reader = collection.sample_batches(Points(5).table, ["B1"], **XY)
        with pytest.raises(OSError, match=r"record 'a', band B1: .*, tile \(0, 0\)"):
            pa.RecordBatchReader.from_stream(reader).read_all()


@pytest.mark.usefixtures("small_rounds")
def test_what_takes_the_reader(collection: Collection, tmp_path: Path) -> None:
    """A consumer of the C stream, and a writer of Parquet."""
    wanted = collection.sample_points(Points(9).table, BANDS, **XY).sort_by(ORDER)
    through = pa.RecordBatchReader.from_stream(collection.sample_batches(Points(9).reader(), BANDS, **XY))
    assert through.read_all().sort_by(ORDER).equals(wanted)
    points = Points(9)
    with (
        collection.sample_batches(points.reader(), BANDS, **XY) as reader,
        pq.ParquetWriter(tmp_path / "samples.parquet", reader.schema) as writer,
    ):
        for batch in reader:
            writer.write_batch(batch)
    assert pq.read_table(tmp_path / "samples.parquet").sort_by(ORDER).equals(wanted)


def test_a_warning_if_no_point_is_sampled(collection: Collection, caplog: pytest.LogCaptureFixture) -> None:
    far = pa.table({"x": [0.0], "y": [0.0]})
    assert collection.sample_batches(far, BANDS, **XY).read_all().num_rows == 0
    assert [record.name for record in caplog.records] == ["rasteret_beam.collection.eager.rounds"]
