"""The transforms give the rows of the eager call, on every source and runner, and count what they do."""

import gzip
import json
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from apache_beam import coders
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that
from pyproj import CRS
from rasterio.transform import Affine

from rasteret_beam import (
    Collection,
    GroupByTile,
    KeyByRecordAndTile,
    ReadPoints,
    SamplePoints,
    SampleTiles,
    TileKey,
    WriteSamplesToParquet,
    build_from_cogs,
    metrics,
)
from rasteret_beam.errors import InputError, MissingInputError
from rasteret_beam.kernels.routing.chunks import ChunkRules
from rasteret_beam.kernels.tables.point_columns import choose_columns, point_batch
from rasteret_beam.schema import samples_schema, unsampled_schema
from rasteret_beam.transforms.runtime.coders import RecordBatchCoder
from tests.support.pipelines import EMBEDDED, LOCAL, ORDER, XY, Kept, read, run, sample_to
from tests.support.scenes import write_scene


class _Sizes(Kept):
    def note(self, element: tuple[TileKey, pa.RecordBatch]) -> tuple[TileKey, pa.RecordBatch]:
        self.append(element[1].nbytes)
        return element


class _Sums(Kept):
    def add(self, batch: pa.RecordBatch) -> None:
        self.append(pc.sum(batch["value"]).as_py())


@pytest.fixture(scope="session")
def eager(scenes: Collection, points: pa.Table) -> dict[str, pa.Table]:
    return {
        match: scenes.sample_points(points, ["B10", "B20"], **XY, match=match).sort_by(ORDER)
        for match in ("all", "latest")
    }


@pytest.fixture(scope="session")
def parquet(points: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The points in three files with row groups of 170 rows."""
    folder = tmp_path_factory.mktemp("points")
    for number, start in enumerate(range(0, 2000, 700)):
        pq.write_table(points.slice(start, 700), folder / f"part-{number}.parquet", row_group_size=170)
    return folder


@pytest.mark.parametrize("match", ["all", "latest"])
@pytest.mark.parametrize("source", ["folder", "glob", "list", "memory"])
def test_pipeline_equals_eager(
    scenes: Collection, points: pa.Table, parquet: Path, eager: dict, tmp_path: Path, source: str, match: str
) -> None:
    given = {
        "folder": str(parquet),
        "glob": str(parquet / "part-*.parquet"),
        "list": [str(path) for path in sorted(parquet.glob("*"))],
        "memory": points,
    }[source]
    found, _ = sample_to(tmp_path / "s", given, scenes, match=match)
    assert found.schema.equals(samples_schema(list(points.schema)))
    assert found.equals(eager[match])


@pytest.mark.parametrize("match", ["all", pytest.param("latest", marks=pytest.mark.slow)])
def test_pipeline_on_the_portable_runner(
    scenes: Collection, parquet: Path, eager: dict, tmp_path: Path, match: str
) -> None:
    found, _ = sample_to(tmp_path / "s", str(parquet), scenes, options=EMBEDDED, match=match)
    assert found.equals(eager[match])


@pytest.mark.slow
def test_pipeline_with_several_processes(scenes: Collection, parquet: Path, eager: dict, tmp_path: Path) -> None:
    options = [*LOCAL, "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    found, _ = sample_to(tmp_path / "s", str(parquet), scenes, options=options)
    assert found.equals(eager["all"])


@pytest.mark.parametrize(
    "rules",
    [
        pytest.param(ChunkRules(block=(1, 1)), marks=pytest.mark.slow),
        ChunkRules(block=(9, 9)),
        ChunkRules(max_bytes=600, group_bytes=3000),
    ],
)
def test_rows_do_not_depend_on_how_chunks_are_cut(
    scenes: Collection, parquet: Path, eager: dict, tmp_path: Path, rules: ChunkRules
) -> None:
    found, _ = sample_to(tmp_path / "s", str(parquet), scenes, rules=rules)
    assert found.equals(eager["all"])


def test_counts_add_up(scenes: Collection, points: pa.Table, parquet: Path, eager: dict, tmp_path: Path) -> None:
    found, counts = sample_to(tmp_path / "s", str(parquet), scenes)
    sampled = len(pc.unique(eager["all"]["point_index"]))
    assert counts[metrics.POINTS_IN] == len(points) == 2000
    assert counts[metrics.POINTS_SAMPLED] == sampled
    assert counts[metrics.POINTS_UNSAMPLED] == 2000 - sampled
    assert counts[metrics.unsampled("null")] == 1
    assert counts[metrics.unsampled("not_finite")] == 2
    assert counts[metrics.unsampled("no_record")] == 2000 - sampled - 3
    assert counts[metrics.SAMPLES_OUT] == counts[metrics.ROWS_WRITTEN] == len(found)
    # 300 pixels in tiles of 64 are 5 x 5 tiles, 150 are 3 x 3; B20 is lacking once.
    assert counts[metrics.TILES_DECODED] == 6 * 25 + 5 * 9
    assert counts[metrics.TILES_INDEXED] == counts[metrics.TILES_DECODED]
    assert metrics.DATASETS_OPENED not in counts  # no header is read
    assert 0 < counts[metrics.RANGE_REQUESTS] < counts[metrics.TILES_DECODED] / 4
    assert counts[metrics.TILE_BYTES_READ] > 0


def test_unsampled_points_come_with_their_reason(scenes: Collection, points: pa.Table, tmp_path: Path) -> None:
    def build(pipeline: beam.Pipeline) -> None:
        sampled = pipeline | ReadPoints(points, **XY) | SamplePoints(scenes, ["B10"], with_unsampled=True)
        sampled.unsampled | WriteSamplesToParquet(str(tmp_path / "u"))

    run(build)
    found = read(tmp_path / "u")
    _, eager = scenes.sample_points(points, ["B10"], **XY, return_unsampled=True)
    assert found.schema.equals(unsampled_schema(list(points.schema)))
    assert repr(found.to_pydict()) == repr(eager.sort_by("point_index").to_pydict())  # NaN is not equal to itself
    assert found["reason"].to_pylist()[-3:] == ["null", "not_finite", "not_finite"]
    assert found["plot"].to_pylist()[-1] == "plot-1999"


def test_the_parts_make_the_whole(scenes: Collection, points: pa.Table, eager: dict, tmp_path: Path) -> None:
    def build(pipeline: beam.Pipeline) -> None:
        (
            pipeline
            | ReadPoints(points, **XY)
            | KeyByRecordAndTile(scenes, ["B10", "B20"])
            | GroupByTile()
            | SampleTiles(scenes, ["B10", "B20"])
            | WriteSamplesToParquet(str(tmp_path / "s"))
        )

    run(build)
    assert read(tmp_path / "s").sort_by(ORDER).equals(eager["all"])


def test_csv_numbers_rows_over_files(scenes: Collection, points: pa.Table, eager: dict, tmp_path: Path) -> None:
    plain = points.drop_columns(["kind"])
    pv.write_csv(plain.slice(0, 1200), tmp_path / "a.csv")
    pv.write_csv(plain.slice(1200, 300), tmp_path / "b.csv")
    rest = tmp_path / "c.csv"
    pv.write_csv(plain.slice(1500), rest)
    (tmp_path / "c.csv.gz").write_bytes(gzip.compress(rest.read_bytes()))
    rest.unlink()
    found, counts = sample_to(tmp_path / "s", str(tmp_path / "*.csv*"), scenes)
    assert counts[metrics.POINTS_IN] == 2000
    assert found.equals(eager["all"].drop_columns(["kind"]))


def test_csv_coordinates_are_kept_as_floats(tmp_path: Path) -> None:
    """Whole numbers in the first file say nothing of the next."""
    (tmp_path / "a.csv").write_text("x,y,plot\n500005,5399995,1\n")
    (tmp_path / "b.csv").write_text("x,y,plot\n500015.5,5399985.25,2\n,5399985,3\n")
    table = pa.Table.from_batches(batches_of(str(tmp_path))).sort_by("point_index")
    assert [(field.name, field.type) for field in table.schema][3:] == [
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("plot", pa.int64()),
    ]
    assert table.select(["x", "y", "plot"]).to_pylist() == [
        {"x": 500005.0, "y": 5399995.0, "plot": 1},
        {"x": 500015.5, "y": 5399985.25, "plot": 2},
        {"x": None, "y": 5399985.0, "plot": 3},
    ]


def test_geoparquet_brings_its_crs(scenes: Collection, points: pa.Table, eager: dict, tmp_path: Path) -> None:
    x, y = (points[name].to_numpy() for name in ("x", "y"))
    wkb = shapely.to_wkb(np.where(np.isnan(x), None, shapely.points(x, y)))
    table = points.drop_columns(["x", "y"]).append_column("geometry", pa.array(wkb, type=pa.binary()))
    column = {"encoding": "WKB", "geometry_types": ["Point"], "crs": CRS.from_epsg(32631).to_json_dict()}
    geo = json.dumps({"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}})
    pq.write_table(table.replace_schema_metadata({"geo": geo}), tmp_path / "p.parquet")
    nothing = {"x_column": None, "y_column": None, "geometry_crs": None}
    found, _ = sample_to(tmp_path / "s", str(tmp_path / "p.parquet"), scenes, reading=nothing)
    assert found.equals(eager["all"].drop_columns(["x", "y"]))


def batches_of(source: object, **reading: object) -> list[pa.RecordBatch]:
    kept = Kept()
    with beam.Pipeline(options=PipelineOptions(LOCAL)) as pipeline:
        assert_that(pipeline | ReadPoints(source, **{**XY, **reading}), kept.keep)
    return kept


def test_parquet_is_split_by_row_group(parquet: Path, points: pa.Table) -> None:
    batches = batches_of(str(parquet))
    assert sorted(len(batch) for batch in batches) == sorted([170] * 4 + [20] + [170] * 4 + [20] + [170] * 3 + [90])
    whole = pa.Table.from_batches(batches).sort_by("point_index")
    assert whole["point_index"].to_pylist() == list(range(2000))
    assert whole["plot"].to_pylist() == points["plot"].to_pylist()
    assert whole["point_x"].to_pylist()[:10] == points["x"].to_pylist()[:10]


def test_only_needed_columns_are_read(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    iterate = pq.ParquetFile.iter_batches

    def spy(self: pq.ParquetFile, *args: object, **options: object) -> object:
        asked.append(list(options["columns"]))  # type: ignore[call-overload]
        return iterate(self, *args, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    batches = batches_of(str(parquet), columns=["plot"])
    assert asked == [["x", "y", "plot"]] * len(batches)
    assert batches[0].schema.names == ["point_index", "point_x", "point_y", "plot"]


def test_large_row_groups_come_in_bounded_batches(tmp_path: Path) -> None:
    rows = 300_000
    table = pa.table({"x": np.arange(rows, dtype=np.float64), "y": np.zeros(rows)})
    pq.write_table(table, tmp_path / "p.parquet", row_group_size=rows)
    batches = batches_of(str(tmp_path / "p.parquet"))
    assert max(len(batch) for batch in batches) <= 131_072
    assert sorted(i for batch in batches for i in batch["point_index"].to_pylist()) == list(range(rows))


def test_a_later_file_with_other_columns_is_named(parquet: Path, tmp_path: Path, points: pa.Table) -> None:
    pq.write_table(points, tmp_path / "a.parquet")
    pq.write_table(points.drop_columns(["plot"]), tmp_path / "b.parquet")
    with pytest.raises(Exception, match=r"b.parquet lacks column\(s\) plot, which the first file has"):
        batches_of(str(tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"x_column": "lon"}, "has no column 'lon'; it has plot, x, y, kind"),
        ({"y_column": None}, "x_column and y_column go together"),
        ({"geometry_column": "plot"}, "not both"),
        ({"geometry_crs": None}, "plain coordinate columns have no CRS"),
        ({"geometry_crs": "EPSG:0"}, "CRS 'EPSG:0' cannot be read"),
        ({"x_column": "plot"}, "column 'plot' of .* is string; coordinates must be numbers"),
    ],
)
def test_what_is_wrong_is_said_while_the_pipeline_is_built(parquet: Path, settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        beam.Pipeline(options=PipelineOptions(LOCAL)) | ReadPoints(str(parquet), **{**XY, **settings})


def test_missing_points_are_said_while_the_pipeline_is_built(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="there is no file, folder or match of"):
        beam.Pipeline() | ReadPoints(str(tmp_path / "none.parquet"), **XY)


def test_batches_without_crs_need_one(scenes: Collection, points: pa.Table) -> None:
    chosen = choose_columns(points.schema, **XY)
    batch = point_batch(points.to_batches()[0], 0, chosen).replace_schema_metadata(None)
    kept = Kept()
    with beam.Pipeline(options=PipelineOptions(LOCAL)) as pipeline:
        found = pipeline | beam.Create([batch]) | SamplePoints(scenes, ["B10"], geometry_crs=32631)
        assert_that(found, kept.keep)
    assert sum(len(batch) for batch in kept) == len(scenes.sample_points(points, ["B10"], **XY))
    with pytest.raises(Exception, match="the points have no CRS"), beam.Pipeline(options=PipelineOptions(LOCAL)) as p:
        p | beam.Create([batch]) | SamplePoints(scenes, ["B10"])


def test_an_empty_result_is_a_file_with_the_schema(scenes: Collection, tmp_path: Path) -> None:
    far = pa.table({"x": [0.0], "y": [0.0], "plot": ["p"]})
    schema = samples_schema([pa.field("plot", pa.string())])

    def build(pipeline: beam.Pipeline) -> None:
        samples = pipeline | ReadPoints(far, **XY) | SamplePoints(scenes, ["B10"])
        samples | WriteSamplesToParquet(str(tmp_path / "s"), schema=schema)

    run(build)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["_s.manifest.json", "s-00000-of-00001.parquet"]
    found = pq.read_table(tmp_path / "s-00000-of-00001.parquet")
    assert found.schema.equals(schema) and len(found) == 0


def test_a_rerun_replaces_the_output_whole(scenes: Collection, points: pa.Table, tmp_path: Path) -> None:
    for number in range(3):
        pq.write_table(pa.table({"stale": [1]}), tmp_path / f"s-{number:05d}-of-00003.parquet")
    (tmp_path / "s-notes.parquet").write_text("mine")
    (tmp_path / "s2-00000-of-00001.parquet").write_text("another output")
    _, counts = sample_to(tmp_path / "s", points.slice(0, 50), scenes)
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"_s.manifest.json", "s-00000-of-00001.parquet", "s-notes.parquet", "s2-00000-of-00001.parquet"}
    assert len(pq.read_table(tmp_path / "s-00000-of-00001.parquet")) == counts[metrics.SAMPLES_OUT]


def test_samples_are_zstd_in_large_row_groups(tmp_path: Path) -> None:
    batches = [
        pa.RecordBatch.from_pydict({"v": np.arange(start, start + 40_000)}) for start in range(0, 1_200_000, 40_000)
    ]

    def build(pipeline: beam.Pipeline) -> None:
        pipeline | beam.Create(batches, reshuffle=False) | WriteSamplesToParquet(str(tmp_path / "s.parquet"))

    counts = run(build)
    files = sorted(tmp_path.glob("s-*.parquet"))
    groups = [
        pq.read_metadata(file).row_group(n) for file in files for n in range(pq.read_metadata(file).num_row_groups)
    ]
    assert counts[metrics.ROWS_WRITTEN] == sum(group.num_rows for group in groups) == 1_200_000
    assert max(group.num_rows for group in groups) >= 1 << 19
    assert {group.column(0).compression for group in groups} == {"ZSTD"}


def test_a_failed_job_leaves_the_earlier_output(scenes: Collection, points: pa.Table, tmp_path: Path) -> None:
    earlier, _ = sample_to(tmp_path / "s", points.slice(0, 50), scenes)

    def fail(batch: pa.RecordBatch) -> pa.RecordBatch:
        raise RuntimeError("in the middle")

    def build(pipeline: beam.Pipeline) -> None:
        samples = pipeline | ReadPoints(points, **XY) | SamplePoints(scenes, ["B10"])
        samples | beam.Map(fail) | WriteSamplesToParquet(str(tmp_path / "s"))

    with pytest.raises(Exception, match="in the middle"):
        run(build)
    assert read(tmp_path / "s").sort_by(ORDER).equals(earlier)


def test_a_slice_is_encoded_without_its_parent() -> None:
    batch = pa.RecordBatch.from_pydict({"a": np.arange(1_000_000), "s": ["x" * 10] * 1_000_000})
    encoded = RecordBatchCoder().encode(batch.slice(500_000, 3))
    assert len(encoded) < 1500
    decoded = RecordBatchCoder().decode(encoded)
    assert decoded.to_pydict() == {"a": [500_000, 500_001, 500_002], "s": ["x" * 10] * 3}


def test_keys_have_a_deterministic_coder_that_is_no_pickle() -> None:
    coder = coders.registry.get_coder(TileKey)
    key = TileKey("scene-é", 3, 1, 10, -1, 2**40)
    assert isinstance(coder, coders.RowCoder)
    assert coder.is_deterministic()
    assert coder.decode(coder.encode(key)) == key
    assert len(coder.encode(key)) < 40


def test_the_shuffle_carries_row_keys_and_arrow_batches(scenes: Collection, points: pa.Table) -> None:
    pipeline = beam.Pipeline(options=PipelineOptions(LOCAL))
    keyed = pipeline | ReadPoints(points, **XY) | KeyByRecordAndTile(scenes, ["B10"])
    coder = coders.registry.get_coder(keyed.element_type)
    assert isinstance(coder.key_coder(), coders.RowCoder)
    assert isinstance(coder.value_coder(), RecordBatchCoder)


@pytest.mark.slow
def test_ten_million_points_in_one_tile(tmp_path: Path) -> None:
    path = write_scene(tmp_path / "one.tif", Affine(10, 0, 0, 0, -10, 640), 1, size=64)
    rng = np.random.default_rng(5)
    rows = 10_000_000
    table = pa.table({"x": rng.uniform(0, 640, rows), "y": rng.uniform(0, 640, rows)})
    pq.write_table(table, tmp_path / "p.parquet", row_group_size=1 << 20)
    collection = build_from_cogs([path], bands=["B10"])
    sizes, sums = _Sizes(), _Sums()

    def build(pipeline: beam.Pipeline) -> None:
        keyed = pipeline | ReadPoints(str(tmp_path / "p.parquet"), **XY) | KeyByRecordAndTile(collection, ["B10"])
        looked = keyed | beam.Map(sizes.note).with_output_types(beam.typehints.Tuple[TileKey, pa.RecordBatch])
        looked | GroupByTile() | SampleTiles(collection, ["B10"]) | beam.Map(sums.add)

    counts = run(build)
    with rasterio.open(path) as dataset:
        band = dataset.read(1).astype(np.float64)
    row = np.floor((640 - table["y"].to_numpy()) / 10).astype(int)
    col = np.floor(table["x"].to_numpy() / 10).astype(int)
    assert counts[metrics.SAMPLES_OUT] == rows
    assert counts[metrics.TILES_DECODED] == 1
    assert max(sizes) <= 1 << 20
    assert sum(sums) == band[row, col].sum()


def test_the_coordinate_columns_can_be_kept_by_name(scenes: Collection, points: pa.Table, tmp_path: Path) -> None:
    found, _ = sample_to(tmp_path / "s", points, scenes, reading={"columns": ["x", "plot"]})
    assert found.schema.names[-2:] == ["x", "plot"]
    assert found["x"].to_pylist() == found["point_x"].to_pylist()


def test_a_large_dictionary_does_not_travel_with_each_chunk(scenes: Collection, tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    names = pa.array([f"name-{number:06d}" for number in range(5_000)])
    table = pa.table(
        {
            "x": rng.uniform(500_000, 503_000, 5_000),
            "y": rng.uniform(5_397_000, 5_400_000, 5_000),
            "name": pa.DictionaryArray.from_arrays(pa.array(np.arange(5_000), type=pa.int32()), names),
        }
    )
    sizes = _Sizes()

    def build(pipeline: beam.Pipeline) -> None:
        keyed = pipeline | ReadPoints(table, **XY) | KeyByRecordAndTile(scenes, ["B10"], rules=ChunkRules(block=(1, 1)))
        keyed | beam.Map(sizes.note).with_output_types(beam.typehints.Tuple[TileKey, pa.RecordBatch])

    counts = run(build)
    assert len(sizes) == counts[metrics.CHUNKS_OUT] > 100
    assert max(sizes) < 40_000  # the whole dictionary has 75,000 bytes
    found, _ = sample_to(tmp_path / "s", table, scenes, bands=["B10"])
    assert found.schema.field("name").type == table.schema.field("name").type
    assert found["name"].to_pylist() == names.take(found["point_index"].combine_chunks()).to_pylist()
