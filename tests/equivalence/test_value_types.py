"""Types of values: those of the files (``raw``), float32 and float64, in each layout and face, against rasterio."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.transform import Affine

from pipelines.sample_points import main
from rasteret_beam import (
    Collection,
    ReadPoints,
    SampleDeadLetters,
    SampleOptions,
    SamplePoints,
    WriteSamplesToParquet,
    build_from_cogs,
    build_from_table,
)
from rasteret_beam.errors import CollectionError, InputError
from rasteret_beam.kernels.bigquery.schema import bigquery_fields, loadable
from rasteret_beam.kernels.routing.chunks import ChunkRules, route
from rasteret_beam.kernels.sampling.value_types import is_exact_for, raw_types
from rasteret_beam.kernels.tables.point_columns import choose_columns, point_batch
from rasteret_beam.metrics import Counters
from rasteret_beam.readers.jobs.sample_job import SampleJob
from rasteret_beam.readers.jobs.sampler import Sampler
from rasteret_beam.readers.tiles.source import TileSource
from rasteret_beam.schema import DEAD_LETTER_SCHEMA
from tests.support.commands import execute
from tests.support.pipelines import ORDER, XY, read, run
from tests.support.rasters import damage_tile

SIZE, TILE = 64, 16
DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")


def write(path: Path, dtype: str, bands: int = 1, **profile: Any) -> str:
    """A raster that has the least and the largest value of its type, and others between."""
    rng = np.random.default_rng(len(path.name))
    if np.dtype(dtype).kind == "f":
        pixels = rng.standard_normal((bands, SIZE, SIZE)).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        pixels = rng.integers(limits.min, limits.max, (bands, SIZE, SIZE), dtype=dtype, endpoint=True)
        pixels[:, ::3, ::2], pixels[:, 1::3, 1::2] = limits.min, limits.max
    if "nodata" in profile:
        pixels[:, ::4, ::3] = profile["nodata"]
    options = {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "compress": "deflate", "interleave": "band"}
    place = {"crs": "EPSG:32631", "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000)}
    shape = {"width": SIZE, "height": SIZE, "count": bands, "dtype": dtype}
    with rasterio.open(path, "w", driver="GTiff", **shape, **place, **options, **profile) as dataset:
        dataset.write(pixels)
    return str(path)


def some_points(count: int = 200) -> pa.Table:
    rng = np.random.default_rng(5)
    x, y = 500_000 + rng.uniform(0, 10 * SIZE, count), 5_000_000 - rng.uniform(0, 10 * SIZE, count)
    return pa.table({"x": x, "y": y, "plot": [f"plot {number}" for number in range(count)]})


def truth(path: str, points: pa.Table) -> np.ndarray:
    """[points, bands] in the file's dtype, by rasterio."""
    with rasterio.open(path) as dataset:
        return np.array(list(dataset.sample(zip(points["x"].to_pylist(), points["y"].to_pylist(), strict=True))))


def numbers(column: pa.ChunkedArray) -> np.ndarray:
    return column.combine_chunks().to_numpy(zero_copy_only=False)


def records(folder: Path, dtypes: dict[str, list[str | None]]) -> Collection:
    """A collection with a record for each place in the lists, and a file of one band for each band and record."""
    assets = []
    for number in range(len(next(iter(dtypes.values())))):
        stored = {band: each[number] for band, each in dtypes.items()}
        files = {band: dtype and write(folder / f"{band}_{number}.tif", dtype) for band, dtype in stored.items()}
        assets.append({band: path and {"href": path, "band_index": 0} for band, path in files.items()})
    ids = [f"r{number}" for number in range(len(assets))]
    times = pa.array(range(len(assets)), pa.timestamp("us"))
    return build_from_table(pa.table({"id": ids, "datetime": times, "assets": assets}))


@pytest.mark.parametrize("layout", ["long", "values", "columns"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_raw_values_are_those_of_the_file(tmp_path: Path, dtype: str, layout: str) -> None:
    """Bit for bit, 64-bit integers too."""
    path, points = write(tmp_path / "a.tif", dtype, bands=3), some_points()
    collection = build_from_cogs([path])
    bands = ["B2", "B1", "B3"]
    rows = collection.sample_points(points, bands, **XY, layout=layout, value_type="raw").sort_by("point_index")
    wanted = truth(path, points)[:, [1, 0, 2]]
    kind = pa.from_numpy_dtype(np.dtype(dtype))
    if layout == "long":
        assert rows.schema.field("value").type == kind
        for number, band in enumerate(bands):
            found = rows.filter(pa.compute.equal(rows["band"], band))["value"]
            np.testing.assert_array_equal(numbers(found), wanted[:, number], strict=True)
    elif layout == "values":
        assert rows.schema.field("values").type == pa.list_(kind, 3)
        found = rows["values"].combine_chunks().flatten().to_numpy().reshape(-1, 3)
        np.testing.assert_array_equal(found, wanted, strict=True)
    else:
        assert [rows.schema.field(band).type for band in bands] == [kind] * 3
        for number, band in enumerate(bands):
            np.testing.assert_array_equal(numbers(rows[band]), wanted[:, number], strict=True)


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float64", "int8"])
def test_float32_values_are_rounded_as_numpy_does(tmp_path: Path, dtype: str) -> None:
    path, points = write(tmp_path / "a.tif", dtype), some_points()
    rows = build_from_cogs([path]).sample_points(points, ["B1"], **XY, value_type="float32").sort_by("point_index")
    np.testing.assert_array_equal(numbers(rows["value"]), truth(path, points)[:, 0].astype("float32"), strict=True)


def test_values_beyond_float32_become_infinite(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", "float64")
    with rasterio.open(path, "r+") as dataset:
        dataset.write(np.full((SIZE, SIZE), -1e300), 1)
    rows = build_from_cogs([path]).sample_points(some_points(5), ["B1"], **XY, value_type="float32")
    assert set(rows["value"].to_pylist()) == {float("-inf")}


@pytest.mark.parametrize(("value_type", "dtype", "limit"), [("float64", "int64", 53), ("float32", "uint32", 24)])
def test_rounding_is_logged_with_the_way_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, value_type: str, dtype: str, limit: int
) -> None:
    collection = build_from_cogs([write(tmp_path / "a.tif", dtype)])
    collection.sample_points(some_points(5), ["B1"], **XY, value_type=value_type)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"band(s) B1 are {dtype}: values beyond 2^{limit} are rounded, as value_type is {value_type!r}; "
        "value_type='raw' keeps them exact"
    )
    caplog.clear()
    collection.sample_points(some_points(5), ["B1"], **XY, value_type="raw")
    assert not caplog.records


class TestTypesThatDiffer:
    def test_columns_have_each_its_type(self, tmp_path: Path) -> None:
        collection = records(tmp_path, {"A": ["uint8"], "B": ["uint64"], "C": ["float32"]})
        rows = collection.sample_points(some_points(), ["A", "B", "C"], **XY, layout="columns", value_type="raw")
        assert [rows.schema.field(band).type for band in "ABC"] == [pa.uint8(), pa.uint64(), pa.float32()]

    @pytest.mark.parametrize("layout", ["long", "values"])
    def test_a_common_column_has_the_wider_integer(self, tmp_path: Path, layout: str) -> None:
        collection = records(tmp_path, {"A": ["uint8"], "B": ["int8"]})
        rows = collection.sample_points(some_points(), ["A", "B"], **XY, layout=layout, value_type="raw")
        name = "value" if layout == "long" else "values"
        assert rows.schema.field(name).type == (pa.int16() if layout == "long" else pa.list_(pa.int16(), 2))
        by_band = {band: truth(str(tmp_path / f"{band}_0.tif"), some_points())[:, 0].tolist() for band in "AB"}
        if layout == "long":
            rows = rows.sort_by([("band", "ascending"), ("point_index", "ascending")])
            assert rows[name].to_pylist() == by_band["A"] + by_band["B"]
        else:
            assert rows.sort_by("point_index")[name].to_pylist() == [
                list(pair) for pair in zip(*by_band.values(), strict=True)
            ]

    def test_a_band_whose_records_differ(self, tmp_path: Path) -> None:
        collection = records(tmp_path, {"A": ["uint8", "int64"]})
        rows = collection.sample_points(some_points(), ["A"], **XY, layout="columns", value_type="raw")
        assert rows.schema.field("A").type == pa.int64() and len(rows) == 400
        of_last = rows.filter(pa.compute.equal(rows["record_id"], "r1")).sort_by("point_index")["A"]
        assert of_last.to_pylist() == truth(str(tmp_path / "A_1.tif"), some_points())[:, 0].tolist()

    def test_a_band_that_a_record_lacks_is_null(self, tmp_path: Path) -> None:
        collection = records(tmp_path, {"A": ["uint8", "uint8"], "B": ["uint8", None]})
        for layout in ("values", "columns"):
            rows = collection.sample_points(some_points(9), ["A", "B"], **XY, layout=layout, value_type="raw")
            for row in rows.to_pylist():
                second = row["values"][1] if layout == "values" else row["B"]
                assert (second is None) == (row["record_id"] == "r1")
                assert (row["values"][0] if layout == "values" else row["A"]) is not None
        only = collection.subset(ids=["r1"])
        assert (
            only.sample_schema(["A", "B"], options=SampleOptions(value_type="raw", layout="columns")).field("B").type
            == pa.float64()
        )

    @pytest.mark.parametrize(
        ("dtypes", "layout", "message"),
        [
            (
                {"A": ["uint64"], "B": ["int64"]},
                "long",
                "value_type is 'raw', but band A of record 'r0' is uint64 and band B of record 'r0' is int64, and no "
                'type holds the values of both exactly; sample such bands one at a time, use layout="columns", or use '
                'value_type="float64"',
            ),
            (
                {"A": ["float32", "int64"]},
                "columns",
                "value_type is 'raw', but band A of record 'r1' is int64 and band A of record 'r0' is float32, and no "
                "type holds the values of both exactly; choose records of one type with subset, or use "
                'value_type="float64"',
            ),
        ],
    )
    def test_types_without_a_common_one_are_refused_before_pixels_are_read(
        self, tmp_path: Path, dtypes: dict[str, list[str]], layout: str, message: str
    ) -> None:
        collection = records(tmp_path, dtypes)
        for path in tmp_path.glob("*.tif"):
            path.unlink()
        with pytest.raises(InputError) as raised:
            collection.sample_points(some_points(), list(dtypes), **XY, layout=layout, value_type="raw")
        assert str(raised.value) == message
        with pytest.raises(InputError) as raised:
            run(
                lambda pipeline: (
                    pipeline
                    | ReadPoints(some_points(), **XY)
                    | SamplePoints(collection, list(dtypes), layout=layout, value_type="raw")
                )
            )
        assert str(raised.value) == message

    @given(st.lists(st.sampled_from(DTYPES), min_size=1, max_size=4))
    def test_a_common_type_holds_the_extremes_of_all(self, dtypes: list[str]) -> None:
        stored = {f"b{number}": {dtype: "r"} for number, dtype in enumerate(dtypes)}
        try:
            (found,) = set(raw_types("long", stored).values())
        except InputError:
            assert {"int64", "uint64"} & set(dtypes)
            assert (
                {"float32", "float64"} & set(dtypes)
                or {"int64", "uint64"} <= set(dtypes)
                or ("uint64" in dtypes and any(name.startswith("int") for name in dtypes))
            )
            return
        kind = found.to_pandas_dtype()
        for dtype in dtypes:
            limits = np.finfo(dtype) if dtype.startswith("float") else np.iinfo(dtype)
            for extreme in (limits.min, limits.max):
                value = np.array([extreme], dtype=dtype)
                assert value.astype(kind).astype(object)[0] == value.astype(object)[0]

    def test_exactness_is_not_that_of_numpy_for_64_bit_integers(self) -> None:
        assert np.can_cast("int64", "float64") and not is_exact_for(np.dtype("int64"), np.dtype("float64"))


def test_a_record_of_another_type_that_comes_later_is_an_error(tmp_path: Path) -> None:
    """As in a stream whose collection grows: the types are those of when the job began."""
    collection = records(tmp_path, {"A": ["uint8", "int16", "uint8"]})
    options = SampleOptions(value_type="raw")
    types = {"A": collection.subset(ids=["r0"]).sample_schema(["A"], options=options).field("value").type}
    assert types == {"A": pa.uint8()}
    points = some_points()
    chosen = choose_columns(points.schema, **XY)
    for ids, fails in ((["r0", "r2"], False), (["r1"], True)):
        index = collection.subset(ids=ids).index(["A"])
        job = SampleJob(index.routing, index.assets, "", ["A"], options, types)
        source = TileSource()
        stream = Sampler(source, job, Counters())
        routed = route(index.routing, point_batch(points.to_batches()[0], 0, chosen), None, ChunkRules())
        try:
            if fails:
                with pytest.raises(
                    CollectionError, match=r"values of band A are uint8, .* record 'r1' stores int16 in"
                ):
                    [
                        *(rows for key, chunk in routed.chunks for rows in stream.push(None, key, [chunk])),
                        *stream.drain(),
                    ]
            else:
                found = [rows for key, chunk in routed.chunks for rows in stream.push(None, key, [chunk])]
                assert sum(len(each.rows) for each in [*found, *stream.drain()]) == 400
        finally:
            stream.cancel()
            source.close()


@pytest.mark.parametrize("dtype", ["int64", "int8"])
def test_the_closest_valid_pixel_keeps_all_digits(tmp_path: Path, dtype: str) -> None:
    nodata = 7
    path, points = write(tmp_path / "a.tif", dtype, nodata=nodata), some_points()
    collection = build_from_cogs([path])
    around = {"max_distance_pixels": 2, "extra_columns": ["pixel_row", "pixel_col"]}
    rows = collection.sample_points(points, ["B1"], **XY, value_type="raw", **around).sort_by("point_index")
    with rasterio.open(path) as dataset:
        pixels = dataset.read(1)
    wanted = pixels[numbers(rows["pixel_row"]), numbers(rows["pixel_col"])]
    np.testing.assert_array_equal(numbers(rows["value"]), wanted, strict=True)
    assert nodata in truth(path, points) and nodata not in wanted
    windows = {"return_neighbourhood": "always", **around}
    shown = collection.sample_points(points, ["B1"], **XY, value_type="raw", **windows).sort_by("point_index")
    assert shown["value"].equals(rows["value"])
    assert shown.schema.field("neighbourhood_values").type == pa.list_(pa.float64())
    plain = collection.sample_points(points, ["B1"], **XY, **windows).sort_by("point_index")
    np.testing.assert_array_equal(*(np.array(each["neighbourhood_values"].to_pylist()) for each in (shown, plain)))


@pytest.mark.parametrize("layout", ["long", "values", "columns"])
def test_pipelines_and_the_command_line_give_the_rows_of_the_eager_call(tmp_path: Path, layout: str) -> None:
    collection = records(tmp_path, {"A": ["uint8", "uint8"], "B": ["int16", None]})
    collection.export(tmp_path / "collection")
    points = some_points()
    order = ORDER if layout == "long" else ORDER[:2]
    options = {"layout": layout, "value_type": "raw"}
    eager = collection.sample_points(points, ["A", "B"], **XY, **options).sort_by(order)

    def build(pipeline: Any) -> None:
        sampled = pipeline | ReadPoints(points, **XY) | SamplePoints(collection, ["A", "B"], **options)
        sampled | WriteSamplesToParquet(str(tmp_path / "out"))

    run(build)
    assert read(tmp_path / "out").sort_by(order).equals(eager)
    pq.write_table(points, tmp_path / "points.parquet")
    pq.write_table(points.slice(0, 1).set_column(0, "x", [[0.0]]), tmp_path / "beside.parquet")
    for name, wanted in (("points", eager), ("beside", eager.slice(0, 0))):
        flags = [f"--points={tmp_path}/{name}.parquet", "--x_column=x", "--y_column=y", "--geometry_crs=32631"]
        flags += [f"--collection={tmp_path}/collection", "--bands=A,B", f"--layout={layout}", "--value_type=raw"]
        done = execute(main, *flags, f"--output={tmp_path}/by_{name}")
        assert done.code == 0, done.err
        found = read(tmp_path / f"by_{name}").sort_by(order)
        assert found.schema.equals(eager.schema)
        assert found.drop_columns("collection").equals(wanted.drop_columns("collection"))


def test_a_retry_gives_the_type_of_its_run(tmp_path: Path) -> None:
    """The letters are of the band of 8 bits alone; the rows of the run have 16."""
    collection, points = records(tmp_path, {"A": ["uint8"], "B": ["int16"]}), some_points()
    before = collection.sample_points(points, ["A", "B"], **XY, value_type="raw").sort_by(ORDER)
    shutil.copy(tmp_path / "A_0.tif", tmp_path / "good.tif")
    damage_tile(tmp_path / "A_0.tif", 5)

    def build(pipeline: Any) -> None:
        sampling = SamplePoints(collection, ["A", "B"], value_type="raw", on_error="dead_letter")
        outputs = pipeline | ReadPoints(points, **XY) | sampling
        outputs.samples | "Samples" >> WriteSamplesToParquet(str(tmp_path / "first"))
        outputs.dead_letters | "Letters" >> WriteSamplesToParquet(str(tmp_path / "dead"), schema=DEAD_LETTER_SCHEMA)

    run(build)
    shutil.copy(tmp_path / "good.tif", tmp_path / "A_0.tif")
    again = SampleDeadLetters(collection, tmp_path / "dead-*.parquet", value_type="raw", on_error="dead_letter")
    assert again.bands == ["A"] and again.value_types() == {"A": pa.int16()}
    run(lambda pipeline: (pipeline | again).samples | WriteSamplesToParquet(str(tmp_path / "second")))
    second = read(tmp_path / "second")
    assert 0 < len(second) < 200
    assert pa.concat_tables([read(tmp_path / "first"), second]).sort_by(ORDER).equals(before)
    plain = SampleDeadLetters(collection, tmp_path / "dead-*.parquet")
    assert plain.value_types() == {"A": pa.float64()}


class TestSchemas:
    def test_of_a_collection(self, tmp_path: Path) -> None:
        collection = records(tmp_path, {"A": ["uint8"]})
        plot = pa.field("plot", pa.string())
        for value_type, kind in (("raw", pa.uint8()), ("float32", pa.float32()), ("float64", pa.float64())):
            options = SampleOptions(value_type=value_type)
            schema = collection.sample_schema(["A"], [plot], options)
            rows = collection.sample_points(some_points(), ["A"], **XY, columns=["plot"], options=options)
            assert schema.equals(rows.schema) and schema.field("value").type == kind

    def test_of_options_alone(self) -> None:
        assert SampleOptions(value_type="float32").schema().field("value").type == pa.float32()
        with pytest.raises(InputError, match=r"Collection\.sample_schema\(bands, kept, options=\.\.\.\) gives"):
            SampleOptions(value_type="raw").schema()

    def test_in_bigquery(self) -> None:
        def fields(kind: pa.DataType) -> list[tuple[str, str]]:
            return [(each["type"], each["mode"]) for each in bigquery_fields(pa.schema([("values", kind)]))]

        assert fields(pa.list_(pa.int8(), 64)) == [("INTEGER", "REPEATED")]
        assert fields(pa.list_(pa.float32(), 64)) == [("FLOAT", "REPEATED")]
        with pytest.raises(
            InputError, match=r"column 'value' is uint64, .* \(sampled values: use value_type='float64'\)"
        ):
            bigquery_fields(pa.schema([("value", pa.uint64())]))

    def test_vectors_that_bigquery_loads(self) -> None:
        def batch(values: list[Any], kind: pa.DataType) -> pa.RecordBatch:
            lists = pa.FixedSizeListArray.from_arrays(pa.array(values, kind), 2)
            return pa.record_batch({"values": lists})

        whole = loadable(batch([1, 2, 3, 4], pa.int8()))
        assert whole.schema.field("values").type == pa.list_(pa.int8())
        assert whole["values"].to_pylist() == [[1, 2], [3, 4]]
        (first, second) = loadable(batch([1.0, None, 3.0, 4.0], pa.float64()))["values"].to_pylist()
        assert first[0] == 1 and np.isnan(first[1]) and second == [3, 4]
        with pytest.raises(InputError, match='arrays of integers cannot hold; use value_type="float64"'):
            loadable(batch([1, None, 3, 4], pa.int8()))
