"""How large the group of a crowded block becomes: what an engine holds, and what a worker holds of it at a time."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners import DirectRunner
from apache_beam.runners.dataflow.dataflow_runner import DataflowRunner
from apache_beam.runners.portability.flink_runner import FlinkRunner
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.portable_runner import PortableRunner
from apache_beam.runners.portability.spark_runner import SparkRunner
from apache_beam.transforms.window import FixedWindows
from hypothesis import given, settings
from hypothesis import strategies as st

import rasteret_beam
from rasteret_beam import Collection, GroupByTile, KeyByRecordAndTile, ReadPoints, SamplePoints, SampleTiles
from rasteret_beam.kernels.routing.chunks import ChunkRules, route
from rasteret_beam.kernels.tables.point_columns import choose_columns, point_batch
from rasteret_beam.metrics import Counters
from rasteret_beam.model import TileKey
from rasteret_beam.readers.jobs import sampler, work_units
from rasteret_beam.readers.jobs.sample_job import SampleJob
from rasteret_beam.readers.jobs.sampler import Sampler
from rasteret_beam.readers.tiles.source import TileSource
from rasteret_beam.transforms.runtime import event_times
from rasteret_beam.transforms.runtime.event_times import chunk_rules
from tests.support.pipelines import EMBEDDED, LOCAL, XY, Kept, run
from tests.support.properties import examples
from tests.support.scenes import write_scene

LEFT, TOP, WIDTH = 500_000.0, 5_400_000.0, 640.0
"""The first tile of a raster of 300 x 300 pixels of 10 m, in tiles of 64."""

BATCH = 1024


@pytest.fixture(scope="module")
def raster(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    path = tmp_path_factory.mktemp("raster") / "a.tif"
    write_scene(path, Affine(10, 0, LEFT, 0, -10, TOP), 1)
    return rasteret_beam.build_from_cogs([path])


def crowd(rows: int, share: float = 1.0, columns: int = 0, seed: int = 1) -> pa.Table:
    """Points, so many of which lie in the first tile, with kept columns that take up space."""
    rng = np.random.default_rng(seed)
    wide = np.where(rng.random(rows) < share, 1.0, 4.0)
    places = {"x": LEFT + WIDTH * wide * rng.random(rows), "y": TOP - WIDTH * wide * rng.random(rows)}
    return pa.table(places | {f"kept{number}": rng.random(rows) for number in range(columns)})


def batches(points: pa.Table) -> Iterator[pa.RecordBatch]:
    chosen = choose_columns(points.schema, **XY)
    for start in range(0, len(points), BATCH):
        yield point_batch(points.slice(start, BATCH).combine_chunks().to_batches()[0], start, chosen)


def group_bytes(raster: Collection, points: pa.Table, rules: ChunkRules) -> Counter[TileKey]:
    """What each group comes to."""
    routing, found = raster.index(["B1"]).routing, Counter[TileKey]()
    for batch in batches(points):
        for key, chunk in route(routing, batch, None, rules).chunks:
            found[key] += chunk.nbytes
    return found


@settings(max_examples=examples(12), deadline=None)
@given(share=st.floats(0.05, 1.0), columns=st.integers(0, 12), limit=st.sampled_from([30_000, 70_000, 200_000]))
def test_groups_are_bounded_and_parts_are_few(raster: Collection, share: float, columns: int, limit: int) -> None:
    points, least = crowd(20 * BATCH, share, columns), ChunkRules(max_bytes=10_000)
    whole = group_bytes(raster, points, ChunkRules(block=(1, 1), max_bytes=10_000))
    found = group_bytes(raster, points, ChunkRules(block=(1, 1), max_bytes=10_000, group_bytes=limit))
    assert sum(found.values()) == pytest.approx(sum(whole.values()), rel=0.02)  # pieces end in other bits of a byte
    for block, size in whole.items():
        parts = {key.part: of_part for key, of_part in found.items() if key._replace(part=0) == block}
        assert max(parts.values()) <= 2 * limit + least.max_bytes
        assert len(parts) <= 4 * size / limit + 2


def test_the_text_of_a_crowd_counts(raster: Collection) -> None:
    points = crowd(20 * BATCH, columns=4)
    assert len(group_bytes(raster, points, ChunkRules())) == 1
    found = group_bytes(raster, points, ChunkRules(group_bytes=1 << 18))
    assert max(found.values()) <= 1 << 18
    assert len(found) < 2 * sum(found.values()) / (1 << 18) + 2


def test_a_block_of_few_points_stays_one_group(raster: Collection) -> None:
    points = crowd(20 * BATCH, share=0)
    whole = group_bytes(raster, points, ChunkRules(block=(1, 1)))
    assert group_bytes(raster, points, ChunkRules(block=(1, 1), group_bytes=8 << 20)) == whole
    assert {key.part for key in whole} == {0} and len(whole) == 16


def test_tiles_of_many_dense_batches_are_decoded_once(tmp_path: Path) -> None:
    """Two batches of 40,000 points touch each of 16 tiles; the cache has room for a few."""
    profile = {"driver": "GTiff", "width": 2048, "height": 2048, "count": 1, "dtype": "uint16", "crs": "EPSG:32631"}
    transform = Affine(10, 0, LEFT, 0, -10, TOP)
    with rasterio.open(
        tmp_path / "a.tif", "w", **profile, transform=transform, tiled=True, blockxsize=512, blockysize=512
    ) as dataset:
        dataset.write(np.arange(2048 * 2048, dtype=np.uint32).astype(np.uint16).reshape(2048, 2048), 1)
    collection = rasteret_beam.build_from_cogs([tmp_path / "a.tif"])
    rng = np.random.default_rng(2)
    points = pa.table({"x": LEFT + 20_480 * rng.random(80_000), "y": TOP - 20_480 * rng.random(80_000)})
    pq.write_table(points, tmp_path / "points.parquet", row_group_size=40_000)

    def sample(pipeline: beam.Pipeline) -> None:
        read = pipeline | ReadPoints(str(tmp_path / "points.parquet"), **XY)
        read | SamplePoints(collection, ["B1"], cache_bytes=4 << 20)

    counts = run(sample)
    assert counts["values_sampled"] == 80_000
    assert counts["tiles_decoded"] == 16


@pytest.mark.parametrize(
    ("runner", "bounded"),
    [
        (FlinkRunner(), True),
        (SparkRunner(), True),
        (PortableRunner(), True),
        (DataflowRunner(), False),
        (DirectRunner(), False),
        (FnApiRunner(), False),
    ],
)
def test_engines_that_hold_groups_in_memory(runner: beam.runners.PipelineRunner, bounded: bool) -> None:
    pipeline = beam.Pipeline(options=PipelineOptions(LOCAL))
    pipeline.runner = runner
    points = pipeline | beam.Create([]).with_output_types(Any)
    assert chunk_rules(points) == (ChunkRules(group_bytes=event_times.GROUP_BYTES) if bounded else ChunkRules())
    assert chunk_rules(points | beam.WindowInto(FixedWindows(10))) == ChunkRules()


class _NoteGroup(beam.DoFn):
    def __init__(self, sizes: Kept):
        self.sizes = sizes

    def process(self, group: Any) -> Iterator[Any]:
        key, chunks = group
        kept = list(chunks)
        self.sizes.append(sum(chunk.nbytes for chunk in kept))
        yield key, kept


class _Note(beam.DoFn):
    def __init__(self, rows: Kept):
        self.rows = rows

    def process(self, rows: pa.RecordBatch) -> None:
        self.rows.append(rows)


@pytest.mark.slow
def test_a_crowd_on_an_engine_that_holds_groups_in_memory(
    raster: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    points, limit = crowd(60_000, columns=6), 2 << 20
    monkeypatch.setattr(event_times, "GROUP_BYTES", limit)
    raster.export(tmp_path / "collection")
    collection = rasteret_beam.load(tmp_path / "collection")
    pipeline = beam.Pipeline(options=PipelineOptions(EMBEDDED))
    sizes, rows = Kept(), Kept()
    groups = pipeline | ReadPoints(points, **XY) | KeyByRecordAndTile(collection, ["B1"]) | GroupByTile()
    noted = groups | beam.ParDo(_NoteGroup(sizes)).with_output_types(groups.element_type)
    noted | SampleTiles(collection, ["B1"]) | beam.ParDo(_Note(rows))
    pipeline.run().wait_until_finish()
    assert 2 < len(sizes) < 8 and max(sizes) <= limit
    found = pa.Table.from_batches(rows)
    expected = collection.sample_points(points, ["B1"], **XY)
    assert found.sort_by("point_index").equals(expected.sort_by("point_index"))


def test_a_group_is_sampled_as_it_comes(raster: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker holds what is under way of a group that an engine hands over chunk by chunk, once, and no more."""
    monkeypatch.setattr(work_units, "UNIT_ROWS", 2 * BATCH)
    monkeypatch.setattr(sampler, "VALUES_AHEAD", 4 * BATCH)
    index, count = raster.index(["B1"]), 100
    given, held, base = [], [], pa.total_allocated_bytes()

    def chunks() -> Iterator[pa.RecordBatch]:
        for number in range(count):
            (batch,) = batches(crowd(BATCH, columns=4, seed=number))
            ((key, chunk),) = route(index.routing, batch, None, ChunkRules()).chunks
            given.append((key, len(chunk), chunk.nbytes))
            held.append(pa.total_allocated_bytes() - base)
            yield chunk

    source = TileSource()
    stream = Sampler(source, SampleJob(index.routing, index.assets, "raster"), Counters())
    sampled = chain(stream.push(None, TileKey("a", 0, 0, 0, 0), chunks()), stream.drain())
    rows = sum(len(out.rows) for out in sampled)
    source.close()
    assert {key for key, _, _ in given} == {TileKey("a", 0, 0, 0, 0)}
    assert rows == sum(number for _, number, _ in given) == count * BATCH
    assert max(held) < 30 * given[0][2] < sum(size for _, _, size in given) / 3
