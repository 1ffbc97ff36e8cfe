"""Chunks of the local runner wait on disk: kept columns travel once, in bounds, and rows stay what they are."""

import errno
import logging
import os
from collections import Counter
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.execution import GroupingBuffer

from rasteret_beam import (
    Collection,
    GroupByTile,
    KeyByRecordAndTile,
    ReadChips,
    ReadPoints,
    ReadPolygons,
    SamplePoints,
    WriteChipsToParquet,
    metrics,
)
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.routing.chunks import ChunkRules, route, split_kept, with_kept
from rasteret_beam.kernels.tables.point_columns import choose_columns, point_batch
from rasteret_beam.model import TileKey
from rasteret_beam.readers.jobs import work_units as work_units_module
from rasteret_beam.readers.jobs.sample_job import SampleJob
from rasteret_beam.readers.jobs.spill import Spilled, SpillFile, unspilled
from rasteret_beam.readers.jobs.work_units import work_units
from tests.support.pipelines import EMBEDDED, LOCAL, ORDER, XY, Kept, run, sample_to

TEXT_BYTES = 1000


@pytest.fixture(scope="module")
def texts(points: pa.Table) -> pa.Table:
    """The points, each with a text that cannot be packed."""
    letters = np.random.default_rng(3).integers(33, 127, (len(points), TEXT_BYTES), dtype=np.uint8)
    return points.append_column("note", pa.array([bytes(row).decode() for row in letters]))


@pytest.fixture
def all_spilled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rasteret_beam.transforms.runtime.spill.IN_MEMORY_BYTES", 0)


@pytest.fixture
def shuffled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes of what goes into the shuffles of the local runner."""
    found: list[int] = []
    append = GroupingBuffer.append

    def counting(self: GroupingBuffer, data: bytes) -> None:
        found.append(len(data))
        append(self, data)

    monkeypatch.setattr(GroupingBuffer, "append", counting)
    return found


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Folder of the file of each chunk that is spilled."""
    found: list[str] = []
    write = SpillFile.write

    def noting(self: SpillFile, chunk: pa.RecordBatch) -> pa.RecordBatch:
        found.append(os.path.dirname(self.path))
        return write(self, chunk)

    monkeypatch.setattr(SpillFile, "write", noting)
    return found


@pytest.mark.usefixtures("all_spilled")
def test_kept_columns_stay_out_of_the_memory_of_the_local_shuffle(
    scenes: Collection,
    texts: pa.Table,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shuffled: list[int],
    written: list[str],
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    found, counts = sample_to(tmp_path / "s", texts, scenes)
    assert sum(shuffled) < 600 * counts[metrics.CHUNKS_OUT] < len(texts) * TEXT_BYTES / 10
    assert found.equals(scenes.sample_points(texts, ["B10", "B20"], **XY).sort_by(ORDER))
    assert 2 * len(written) < counts[metrics.CHUNKS_OUT] <= 3 * len(written)  # a grid has up to three records
    (folder,) = set(written)
    assert os.path.dirname(folder) == str(tmp_path / "temporary")
    assert list((tmp_path / "temporary").iterdir()) == []


def test_what_a_small_job_shuffles_stays_in_memory(
    scenes: Collection, texts: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shuffled: list[int]
) -> None:
    monkeypatch.setattr(SpillFile, "write", None)
    sample_to(tmp_path / "s", texts, scenes)
    assert sum(shuffled) > len(texts) * TEXT_BYTES


def test_beyond_its_share_chunks_go_to_disk(
    scenes: Collection, texts: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shuffled: list[int]
) -> None:
    monkeypatch.setattr("rasteret_beam.transforms.runtime.spill.IN_MEMORY_BYTES", 1 << 20)
    found, _ = sample_to(tmp_path / "s", texts, scenes)
    assert 1 << 20 < sum(shuffled) < 3 << 20  # the text of a grid's three records is 2 MB each
    assert found.equals(scenes.sample_points(texts, ["B10", "B20"], **XY).sort_by(ORDER))


@pytest.mark.usefixtures("all_spilled")
@pytest.mark.parametrize(
    "options",
    [
        {"match": "latest"},
        {"max_distance_pixels": 2, "return_neighbourhood": "always"},
        {"layout": "values"},
        {"layout": "columns"},
    ],
    ids=str,
)
def test_rows_are_those_of_the_eager_call(
    scenes: Collection, texts: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict
) -> None:
    monkeypatch.setattr(work_units_module, "ROWS_BYTES", 10_000)
    bands = ["B10"] if "layout" in options else ["B10", "B20"]
    kept = Kept()

    def build(pipeline: beam.Pipeline) -> None:
        rows = pipeline | ReadPoints(texts, **XY) | SamplePoints(scenes, bands, **options)
        rows | beam.combiners.ToList() | beam.Map(kept.keep)

    run(build)
    found, expected = pa.Table.from_batches(kept), scenes.sample_points(texts, bands, **XY, **options)
    assert found.schema.equals(expected.schema)
    order = [column for column in ORDER if column[0] in found.column_names]
    found, expected = found.sort_by(order), expected.sort_by(order)
    if "neighbourhood_values" in found.column_names:  # which hold NaN
        of_found, of_expected = (of["neighbourhood_values"].combine_chunks() for of in (found, expected))
        assert of_found.value_lengths().equals(of_expected.value_lengths())
        np.testing.assert_array_equal(of_found.flatten(), of_expected.flatten())
        found, expected = (of.drop_columns(["neighbourhood_values"]) for of in (found, expected))
    assert found.equals(expected)
    assert len(found) > 1000


@pytest.mark.usefixtures("all_spilled")
def test_plain_points_are_spilled_too(scenes: Collection, points: pa.Table, tmp_path: Path) -> None:
    found, _ = sample_to(tmp_path / "s", points, scenes, reading={"columns": []})
    assert found.equals(scenes.sample_points(points, ["B10", "B20"], **XY, columns=[]).sort_by(ORDER))


def test_batches_of_rows_are_bounded_by_bytes(
    scenes: Collection, texts: pa.Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_units_module, "ROWS_BYTES", 50_000)
    kept = Kept()

    def build(pipeline: beam.Pipeline) -> None:
        sampling = SamplePoints(scenes, ["B10"], rules=ChunkRules(max_bytes=20_000))
        pipeline | ReadPoints(texts, **XY) | sampling | beam.combiners.ToList() | beam.Map(kept.keep)

    counts = run(build)
    assert sum(map(len, kept)) == counts[metrics.SAMPLES_OUT]
    sizes = [batch.select(["note"]).nbytes for batch in kept]
    assert 30_000 < max(sizes) <= 50_000


def keyed(scenes: Collection, texts: pa.Table, **rules: int) -> tuple[SampleJob, dict[TileKey, list[pa.RecordBatch]]]:
    """What sampling needs to know, and the chunks of the points, by key."""
    index = scenes.index(["B10"])
    columns = choose_columns(texts.schema, **XY)
    (batch,) = texts.combine_chunks().to_batches()
    groups: dict[TileKey, list[pa.RecordBatch]] = {}
    for key, chunk in route(index.routing, point_batch(batch, 0, columns), None, ChunkRules(**rules)).chunks:
        groups.setdefault(key, []).append(chunk)
    return SampleJob(index.routing, index.assets, "scenes"), groups


def test_units_hold_bounded_kept_columns_unless_these_lie_on_disk(
    scenes: Collection, texts: pa.Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(work_units_module, "KEPT_BYTES", 100_000)
    job, groups = keyed(scenes, texts, max_bytes=20_000)
    key, chunks = max(groups.items(), key=lambda group: len(group[1]))
    total = sum(chunk.nbytes for chunk in chunks)
    assert total > 500_000
    held = list(work_units(job, key, chunks))
    assert total // 120_000 <= len(held) <= total // 80_000 + 1
    assert max(unit.held_bytes for unit in held) <= 120_000
    file = SpillFile(str(tmp_path))
    (unit,) = work_units(job, key, [file.write(chunk) for chunk in chunks])
    file.close()
    assert unit.held_bytes == 0
    assert unit.whole().equals(pa.concat_batches(chunks))
    pieces = list(unit.chunks(100_000))
    assert pa.concat_batches(pieces).equals(pa.concat_batches(chunks))
    assert max(piece.nbytes for piece in pieces) <= 110_000


def test_kept_columns_are_not_copied_before_rows_are_made(scenes: Collection, texts: pa.Table) -> None:
    job, groups = keyed(scenes, texts)
    key, chunks = max(groups.items(), key=lambda group: sum(map(len, group[1])))
    (unit,) = work_units(job, key, chunks)
    assert unit.chunk.schema.get_field_index("note") == -1
    addresses = [[batch.column("note").buffers()[2].address for batch in of] for of in (unit.kept, chunks)]
    assert addresses[0] == addresses[1]


@pytest.mark.parametrize("kept", [{}, {"note": ["a", None]}, {"n": [1, 2], "s": [{"a": 1}, None]}], ids=str)
def test_a_chunk_comes_back_from_disk_as_it_was(tmp_path: Path, kept: dict[str, list]) -> None:
    columns = {"__pixel_row": [1, 2], "point_index": [5, 6], "point_x": [0.5, 1.5], "point_y": [1.0, 2.0], **kept}
    chunk = pa.record_batch(columns).replace_schema_metadata({"rasteret_beam.point_epsg": "4326"})
    file = SpillFile(str(tmp_path / "a folder é"))
    references = [file.write(part) for part in (chunk, chunk.slice(1, 1))]
    file.close()
    for reference, expected in zip(references, (chunk, chunk.slice(1, 1)), strict=True):
        found = unspilled(reference)
        assert found.equals(expected) and found.schema.equals(expected.schema, check_metadata=True)
    points, rest = split_kept(chunk)
    assert points.schema.names == list(columns)[:4]
    assert rest is None if not kept else with_kept(points, rest).equals(chunk)
    assert unspilled(chunk) is chunk


def test_a_disk_that_takes_no_more_leaves_chunks_in_memory(
    scenes: Collection,
    texts: pa.Table,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    all_spilled: None,
) -> None:
    room = 2_000_000
    pwrite = os.pwrite

    def limited(file: int, data: memoryview, offset: int) -> int:
        if offset >= room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(file, data[: room - offset], offset)

    monkeypatch.setattr("rasteret_beam.readers.jobs.spill.os.pwrite", limited)
    with caplog.at_level(logging.WARNING):
        found, _ = sample_to(tmp_path / "s", texts, scenes)
    (message,) = [record.getMessage() for record in caplog.records if "stay in memory" in record.getMessage()]
    assert "No space left on device; they stay in memory. Free space there, or set TMPDIR" in message
    assert found.equals(scenes.sample_points(texts, ["B10", "B20"], **XY).sort_by(ORDER))


def test_a_temporary_file_that_is_gone_or_cut_is_named(tmp_path: Path) -> None:
    file = SpillFile(str(tmp_path))
    spilled = Spilled.of(file.write(pa.record_batch({"point_index": [1], "x": [1.0], "y": [1.0]})))
    file.close()
    assert spilled is not None
    os.truncate(file.path, 10)
    with pytest.raises(InputError, match=rf"temporary file {file.path}, .* it ends at byte 10, not \d+; do not change"):
        spilled.points()
    os.remove(file.path)
    with pytest.raises(InputError, match=r"cannot be read: .*No such file.*or set TMPDIR to another folder"):
        spilled.points()


def steps_of(options: list[str], scenes: Collection, points: pa.Table) -> list[str]:
    pipeline = beam.Pipeline(options=PipelineOptions(options))
    pipeline | ReadPoints(points, **XY) | SamplePoints(scenes, ["B10"])
    pipeline | "Parts" >> (ReadPoints(points, **XY)) | KeyByRecordAndTile(scenes, ["B10"]) | GroupByTile()
    return [step.unique_name for step in pipeline.to_runner_api().components.transforms.values()]


def test_only_the_local_runner_spills_and_only_in_the_whole(scenes: Collection, points: pa.Table) -> None:
    assert [name for name in steps_of(LOCAL, scenes, points) if name.endswith("/Spill")] == [
        "SamplePoints/GroupByTile/Spill"
    ]
    assert not [name for name in steps_of(EMBEDDED, scenes, points) if "Spill" in name]


@pytest.mark.parametrize("spills", [False, True])
def test_chips_are_the_same(
    scenes: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shuffled: list[int], spills: bool
) -> None:
    if spills:
        monkeypatch.setattr("rasteret_beam.transforms.runtime.spill.IN_MEMORY_BYTES", 0)
    letters = np.random.default_rng(3).integers(33, 127, (20, 100_000), dtype=np.uint8)
    boxes = [shapely.box(500_000 + 100 * n, 5_399_000, 500_080 + 100 * n, 5_399_080) for n in range(20)]
    table = pa.table({"geometry": shapely.to_wkb(boxes), "note": [bytes(row).decode() for row in letters]})
    settings = {"geometry_column": "geometry", "geometry_crs": 32631}

    def build(pipeline: beam.Pipeline) -> None:
        chips = pipeline | ReadPolygons(table, **settings) | ReadChips(scenes, ["B10"])
        chips | WriteChipsToParquet(str(tmp_path / "c"))

    counts = run(build)
    chips = pa.concat_tables(pq.read_table(file) for file in sorted(tmp_path.glob("c-*.parquet")))
    assert counts[metrics.CHIPS_OUT] == len(chips) == 60
    assert Counter(chips["note"].to_pylist()) == dict.fromkeys(table["note"].to_pylist(), 3)
    assert (sum(shuffled) < 100_000) == spills
