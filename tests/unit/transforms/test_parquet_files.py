"""Parquet files of the sinks: several at the same time, encodings by measurement, the schema that readers see."""

import errno
import re
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from rasteret_beam import WriteSamplesToParquet
from rasteret_beam.errors import InputError, OutputError
from rasteret_beam.schema import samples_schema
from rasteret_beam.transforms.sinks import parquet_file
from rasteret_beam.transforms.sinks.parquet import _WriteFn
from rasteret_beam.transforms.sinks.parquet_file import ParquetFile
from rasteret_beam.transforms.sinks.parquet_files import FILE_BYTES, Measured, ParquetFiles, WriterThreads
from tests.support.threads import own_threads

RUNNER = "apache_beam.runners.portability.fn_api_runner.FnApiRunner"
KEPT = [
    pa.field("plot", pa.string()),
    pa.field("class", pa.string(), metadata={"unit": "none"}),
    pa.field("long", pa.large_string()),
    pa.field("code", pa.dictionary(pa.int8(), pa.string())),
    pa.field("when", pa.timestamp("ms", "Europe/Paris")),
    pa.field("tags", pa.list_(pa.string())),
    pa.field("of", pa.struct([("a", pa.int16()), ("b.c", pa.string())])),
]
SCHEMA = samples_schema(KEPT)


def samples(rows: int, start: int = 0, record: str = "r", band: str = "B1") -> pa.RecordBatch:
    """Rows of one record and band, with integer values and a class for each thousand rows."""
    random = np.random.default_rng(start)
    names = [f"plot {start + number}" for number in range(rows)]
    classes = pa.array([["forest", "field", None][(start + number) // 1000 % 3] for number in range(rows)])
    columns = {
        "point_index": np.arange(start, start + rows),
        "point_x": random.uniform(0, 90, rows),
        "point_y": random.uniform(0, 90, rows),
        "point_crs": np.full(rows, 4326, dtype=np.int32),
        "record_id": pa.repeat(record, rows),
        "datetime": pa.nulls(rows, pa.timestamp("us")),
        "collection": pa.repeat("c", rows),
        "band": pa.repeat(band, rows),
        "value": random.integers(-128, 128, rows).astype(float),
        "raster_crs": np.full(rows, 32631, dtype=np.int32),
        "plot": names,
        "class": classes,
        "long": pa.repeat("x", rows).cast(pa.large_string()),
        "code": pa.repeat(record, rows).dictionary_encode().cast(pa.dictionary(pa.int8(), pa.string())),
        "when": pa.array(np.arange(rows)).cast(pa.timestamp("ms", "Europe/Paris")),
        "tags": pa.repeat(pa.scalar(["a", "b"]), rows),
        "of": pa.repeat(pa.scalar({"a": 1, "b.c": "y"}, type=KEPT[-1].type), rows),
    }
    return pa.RecordBatch.from_arrays([pa.array(columns[name]) for name in SCHEMA.names], schema=SCHEMA)


def batches(rows: int, each: int = 2000) -> list[pa.RecordBatch]:
    """Rows of three records and two bands in turn."""
    starts = range(0, rows, each)
    return [samples(each, start, f"r{start // each % 3}", f"B{start // each % 2}") for start in starts]


def write(given: Sequence[pa.RecordBatch], prefix: Path, **settings: Any) -> list[str]:
    """The files of a job."""
    with beam.Pipeline(runner=RUNNER) as pipeline:
        rows = pipeline | beam.Create(list(given), reshuffle=False).with_output_types(pa.RecordBatch)
        rows | WriteSamplesToParquet(str(prefix), schema=SCHEMA, **settings)
    return sorted(map(str, prefix.parent.glob(f"{prefix.name}-*.parquet")))


def in_order(table: pa.Table) -> pa.Table:
    """Rows by point, with the text of dictionaries, whose order may differ."""
    place = table.schema.get_field_index("code")
    text = table.set_column(place, "code", table["code"].cast(pa.string()))
    return text.sort_by("point_index").combine_chunks()


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rasteret_beam.transforms.sinks.parquet_files.writers", lambda: 2)


@pytest.fixture
def threads() -> Iterator[WriterThreads]:
    made = WriterThreads(2)
    yield made
    made.close()


def encodings(path: str) -> dict[str, tuple[str, bool]]:
    """Codec of each column, and whether all of its values are in a dictionary."""
    found: dict[str, tuple[str, bool]] = {}
    group = pq.read_metadata(path).row_group(0)
    for number in range(group.num_columns):
        column = group.column(number)
        found[column.path_in_schema] = column.compression, "RLE_DICTIONARY" in column.encodings
    return found


def test_rows_and_schema_are_those_of_pyarrows_writer(tmp_path: Path, two_threads: None) -> None:
    given = batches(24_000)
    files = write(given, tmp_path / "s", row_group_rows=4000, file_bytes=120_000)
    pq.write_table(pa.Table.from_batches(given), tmp_path / "expected.parquet")
    expected = pq.ParquetFile(tmp_path / "expected.parquet")
    assert len(files) > 2
    for path in files:
        assert pq.read_schema(path).equals(expected.schema_arrow, check_metadata=True)
        assert pq.ParquetFile(path).schema.equals(expected.schema)
    found = ds.dataset(files).to_table()
    assert found.schema.field("record_id").type == found.schema.field("class").type == pa.string()
    assert in_order(found).equals(in_order(expected.read()))


def test_other_readers_give_the_same_rows(tmp_path: Path, two_threads: None) -> None:
    given = batches(12_000)
    files = write(given, tmp_path / "s", row_group_rows=4000)
    plain = ["point_index", "point_x", "record_id", "band", "value", "plot", "class"]
    expected = pa.Table.from_batches(given).select(plain)
    chosen = ", ".join(f'"{name}"' for name in plain)
    by_duckdb = duckdb.sql(f"select {chosen} from read_parquet({files!r}) order by point_index").to_arrow_table()
    assert by_duckdb.cast(expected.schema).equals(expected)
    by_polars = pl.read_parquet(files).select(plain).sort("point_index").to_arrow()
    assert by_polars.cast(expected.schema).equals(expected)


def test_the_bound_of_a_file(tmp_path: Path, two_threads: None) -> None:
    given = batches(40_000)
    files = write(given, tmp_path / "s", row_group_rows=4000, file_bytes=240_000)
    names = [f"s-{number:05d}-of-{len(files):05d}.parquet" for number in range(len(files))]
    assert [Path(path).name for path in files] == names
    sizes = [Path(path).stat().st_size for path in files]
    group = sum(sizes) / 10
    assert max(sizes) < 240_000 + 1.5 * group
    assert len(files) <= sum(sizes) / 240_000 + 2  # as many as are under way at the end may be small


@pytest.mark.parametrize("rows", [1, 1000, 15_000])
def test_few_rows_are_one_file(rows: int, tmp_path: Path, two_threads: None) -> None:
    files = write([samples(min(rows, 5000), start) for start in range(0, rows, 5000)], tmp_path / "s")
    assert [Path(path).name for path in files] == ["s-00000-of-00001.parquet"]
    assert pq.read_metadata(files[0]).num_rows == rows


def test_rest_of_the_rows_opens_no_file(tmp_path: Path, threads: WriterThreads) -> None:
    files = ParquetFiles(str(tmp_path), Measured("zstd"), threads)
    files.write([samples(5000)])
    files.write([samples(10, 5000)], last=True)
    (path,) = files.close()
    metadata = pq.read_metadata(path)
    assert [metadata.row_group(number).num_rows for number in range(2)] == [5000, 10]


def test_files_are_written_at_the_same_time(
    tmp_path: Path, threads: WriterThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = threading.Barrier(2)
    original = ParquetFile.write

    def together(self: ParquetFile, *given: Any) -> None:
        both.wait(20)  # it breaks unless two threads are here
        original(self, *given)

    monkeypatch.setattr(ParquetFile, "write", together)
    files = ParquetFiles(str(tmp_path), Measured("zstd"), threads)
    for start in range(0, 8000, 2000):
        files.write([samples(2000, start)])
    assert sorted(pq.read_metadata(path).num_rows for path in files.close()) == [4000, 4000]


def test_row_groups_under_way_are_limited(
    tmp_path: Path, threads: WriterThreads, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, entered = threading.Event(), threading.Semaphore(0)
    original = ParquetFile.write

    def slow(self: ParquetFile, *given: Any) -> None:
        entered.release()
        assert go_on.wait(20)
        original(self, *given)

    monkeypatch.setattr(ParquetFile, "write", slow)
    files, others = (ParquetFiles(str(tmp_path), Measured("zstd"), threads) for _ in range(2))
    files.write([samples(100)])
    others.write([samples(100, 100)])
    assert entered.acquire(timeout=20)
    assert entered.acquire(timeout=20)
    third = threading.Thread(target=files.write, args=([samples(100, 200)],))
    third.start()
    assert not entered.acquire(timeout=0.1)
    go_on.set()
    third.join(20)
    rows = [pq.read_metadata(path).num_rows for path in files.close() + others.close()]
    assert sum(rows) == 300


def test_columns_are_stored_as_measured(tmp_path: Path) -> None:
    (path,) = write(batches(12_000), tmp_path / "s")
    found = encodings(path)
    assert [found[name] for name in ("point_x", "point_y")] == [("UNCOMPRESSED", False)] * 2
    assert [found[name] for name in ("point_index", "plot")] == [("ZSTD", False)] * 2
    repeating = "point_crs record_id datetime collection band value raster_crs class long code of.b.c".split()
    assert {name for name, (_, dictionary) in found.items() if dictionary} >= set(repeating)


def test_without_a_codec_nothing_is_compressed(tmp_path: Path) -> None:
    (path,) = write(batches(10_000), tmp_path / "n", compression="none")
    assert {codec for codec, _ in encodings(path).values()} == {"UNCOMPRESSED"}


def test_constants_are_one_value_in_a_dictionary(tmp_path: Path, threads: WriterThreads) -> None:
    files = ParquetFiles(str(tmp_path), Measured("zstd"), threads)
    files.write([samples(20_000)])
    (path,) = files.close()
    group = pq.read_metadata(path).row_group(0)
    sizes = {group.column(number).path_in_schema: group.column(number) for number in range(group.num_columns)}
    for name in ("record_id", "collection", "band", "point_crs", "raster_crs"):
        column = sizes[name]
        assert column.has_dictionary_page
        assert column.total_uncompressed_size < 200
        assert column.statistics.min == column.statistics.max == samples(1)[name][0].as_py()


def test_a_batch_of_other_columns_is_refused(tmp_path: Path, threads: WriterThreads) -> None:
    files = ParquetFiles(str(tmp_path), Measured("zstd"), threads)
    files.write([pa.RecordBatch.from_pydict({"v": [1.0]})])
    files.write([pa.RecordBatch.from_pydict({"v": ["2"]})], last=True)
    with pytest.raises(ValueError, match="schema"):
        files.close()
    files.abandon()


def test_a_dictionary_that_grows_too_large(tmp_path: Path, threads: WriterThreads) -> None:
    """The first rows have one class; then each row has another."""
    later = samples(100_000, 5000)
    names = pa.array([f"class {number}" for number in range(100_000)])
    place = SCHEMA.get_field_index("class")
    later = later.set_column(place, SCHEMA.field("class"), names)
    files = ParquetFiles(str(tmp_path), Measured("zstd"), threads)
    given = [samples(900), later, samples(900, 105_000)]
    for number, batch in enumerate(given):
        files.write([batch], last=number > 0)
    (path,) = files.close()
    found = pq.read_table(path)
    assert found.schema.field("class").type == pa.string()
    assert in_order(found).equals(in_order(pa.Table.from_batches(given)))


class FailingFile:
    """A disk with room for the first writes only."""

    def __init__(self, file: Any, room: int):
        self.file = file
        self.room = room

    def write(self, data: bytes) -> int:
        self.room -= len(data)
        if self.room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return int(self.file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


def test_a_failing_writer_leaves_the_output_as_it_was(
    tmp_path: Path, two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = write([samples(100)], tmp_path / "s")
    content = Path(before[0]).read_bytes()
    create = parquet_file.FileSystems.create
    opened: list[str] = []

    def second_fails(path: str, **settings: Any) -> Any:
        file = create(path, **settings)
        if ".temporary-" not in path:
            return file
        opened.append(path)
        return FailingFile(file, 1000) if len(opened) == 2 else file

    monkeypatch.setattr(parquet_file.FileSystems, "create", second_fails)
    monkeypatch.setattr(parquet_file, "BUFFER_BYTES", 1000)
    with pytest.raises(Exception, match=r"No space left on device.*; free space on its disk") as caught:
        write(batches(40_000), tmp_path / "s", row_group_rows=4000, file_bytes=120_000)
    assert OutputError.__name__ in repr(caught.value) or isinstance(caught.value, OutputError)
    assert re.search(rf"{re.escape(opened[1])}", str(caught.value))
    assert Path(before[0]).read_bytes() == content
    assert not own_threads()


def test_a_retried_bundle_writes_no_row_twice(tmp_path: Path, two_threads: None) -> None:
    given = batches(12_000)
    writing = _WriteFn(str(tmp_path), "zstd", 2000, FILE_BYTES)
    writing.setup()
    for _ in ("fails after its rows", "succeeds"):
        writing.start_bundle()
        for batch in given:
            writing.process(batch)
        left = len(list(tmp_path.iterdir()))
    listed = [value.value for value in writing.finish_bundle()]
    writing.teardown()
    assert left > len(listed)
    assert in_order(ds.dataset(listed).to_table()).equals(in_order(pa.Table.from_batches(given)))
    assert not own_threads()


def test_file_bytes_is_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="file_bytes is 0; give the size of a file in bytes"):
        WriteSamplesToParquet(str(tmp_path / "s"), file_bytes=0)
