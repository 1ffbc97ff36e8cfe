"""Values in physical units against NumPy on what rasterio reads, with scale and offset from every source."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine

from rasteret_beam import (
    Collection,
    ReadPoints,
    SampleDeadLetters,
    SamplePoints,
    WriteSamplesToParquet,
    build_from_table,
    load,
    metrics,
)
from rasteret_beam.errors import CollectionError, InputError, TileReadError
from rasteret_beam.metrics import Counters
from rasteret_beam.model import Asset
from rasteret_beam.readers.tiles.gdal import RasterioEngine
from rasteret_beam.schema import DEAD_LETTER_SCHEMA
from tests.support.pipelines import ORDER, XY, read, run, sample_to
from tests.support.properties import examples

SIZE, TILE, LEFT, TOP = 48, 16, 500_000.0, 5_000_000.0
NODATA = 0
DATES = ["2021-12-01", "2022-01-10", "2022-01-30", "2022-03-01"]
SAID = {"2021-12-01": (0.0001, 0.0), "2022-01-10": (0.0001, 0.0), "2022-01-30": (0.0001, -0.1), "2022-03-01": (1, -0.1)}
"""What STAC says of band ``red`` at each date: the offset changes in the middle of the stack."""
TAGS = (0.5, 3.0)
"""What the TIFF says of band ``tagged``, and STAC does not."""


def write(path: Path, seed: int, tags: tuple[float, float] | None = None, dtype: str = "uint16") -> None:
    """Two bands of numbers, a fifth of which are nodata, the second masked in part by the file's own mask."""
    rng = np.random.default_rng(seed)
    shape = (SIZE, SIZE)
    values = np.where(rng.random(shape) < 0.2, NODATA, rng.integers(1, 12_000, shape))
    affine = Affine(10, 0, LEFT, 0, -10, TOP)
    profile = {"driver": "GTiff", "crs": "EPSG:32631", "transform": affine, "width": SIZE, "height": SIZE, "count": 1}
    tiled = {"tiled": True, "blockxsize": TILE, "blockysize": TILE, "compress": "deflate", "nodata": NODATA}
    with rasterio.open(path, "w", dtype=dtype, **profile, **tiled) as dataset:
        dataset.write(values.astype(dtype), 1)
        if tags is not None:
            dataset.scales, dataset.offsets = (tags[0],), (tags[1],)


@cache
def numbers(path: str | Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return dataset.read(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four dates of three bands: one that STAC scales, one that its tags scale, one that nothing scales."""
    folder = tmp_path_factory.mktemp("units")
    for number, date in enumerate(DATES):
        write(folder / f"{date}_red.tif", number)
        write(folder / f"{date}_tagged.tif", 10 + number, TAGS)
        write(folder / f"{date}_plain.tif", 20 + number)
    return folder


def items(folder: Path) -> pa.Table:
    """STAC items, with facts of bands in the two forms of its raster extension."""
    rows = []
    for number, date in enumerate(DATES):
        scale, offset = SAID[date]
        old, new = {"raster:bands": [{"scale": scale, "offset": offset}]}, [{"raster:scale": scale}]
        red = old if number % 2 else {"bands": new, "raster:offset": offset}
        assets = {band: {"href": f"{folder}/{date}_{band}.tif"} for band in ("red", "tagged", "plain")}
        assets["red"] |= red
        rows.append({"id": date, "datetime": date, "assets": json.dumps(assets)})
    return pa.Table.from_pylist(rows)


@pytest.fixture(scope="module")
def collection(folder: Path) -> Collection:
    build_from_table(items(folder), name="units").export(folder / "collection")
    return load(folder / "collection")


BANDS = ["red", "tagged", "plain"]


def units(date: str, band: str) -> tuple[float, float]:
    return {"red": SAID[date], "tagged": TAGS, "plain": (1.0, 0.0)}[band]


@pytest.fixture(scope="module")
def points() -> pa.Table:
    rng = np.random.default_rng(3)
    return pa.table(
        {"x": LEFT + rng.uniform(0, SIZE * 10, 120), "y": TOP - rng.uniform(0, SIZE * 10, 120), "plot": np.arange(120)}
    )


def pixels_of(points: pa.Table) -> tuple[np.ndarray, np.ndarray]:
    col, row = (points["x"].to_numpy() - LEFT) / 10, (TOP - points["y"].to_numpy()) / 10
    return np.floor(row).astype(int), np.floor(col).astype(int)


def wanted(folder: Path, points: pa.Table, **given: tuple[float, float]) -> dict[tuple[int, str, str], float | None]:
    """Values by point, record and band; None where the pixel is nodata."""
    row, col = pixels_of(points)
    found = {}
    for date in DATES:
        for band in BANDS:
            scale, offset = given.get(band, units(date, band))
            raw = numbers(f"{folder}/{date}_{band}.tif")[row, col].astype(np.float64)
            values = raw * scale + offset
            for point, number in enumerate(raw):
                found[point, date, band] = None if number == NODATA else float(values[point])
    return found


def by_key(samples: pa.Table) -> dict[tuple[int, str, str], Any]:
    columns = (samples[name].to_pylist() for name in ("point_index", "record_id", "band", "value"))
    return {(point, record, band): value for point, record, band, value in zip(*columns, strict=True)}


class TestValues:
    def test_each_record_has_its_pair(self, folder: Path, collection: Collection, points: pa.Table) -> None:
        """The offset is right on both sides of its change, exactly."""
        expected = wanted(folder, points)
        found = by_key(collection.sample_points(points, BANDS, **XY, unscale=True))
        assert found == expected and sum(value is None for value in expected.values()) > 200

    def test_scales_that_are_given_come_first(self, folder: Path, collection: Collection, points: pa.Table) -> None:
        scales = {"red": (2.0, 1.0), "plain": (-0.25, 0.5)}
        found = by_key(collection.sample_points(points, BANDS, **XY, unscale=True, scales=scales))
        assert found == wanted(folder, points, **scales)

    def test_off_by_default(self, folder: Path, collection: Collection, points: pa.Table) -> None:
        row, col = pixels_of(points)
        for (point, date, band), value in by_key(collection.sample_points(points, BANDS, **XY)).items():
            assert value == numbers(f"{folder}/{date}_{band}.tif")[row[point], col[point]]

    @pytest.mark.parametrize(
        ("layout", "value_type"), [("long", "float32"), ("values", "float64"), ("columns", "float64")]
    )
    def test_layouts_types_and_pipeline(
        self, folder: Path, collection: Collection, points: pa.Table, tmp_path: Path, layout: str, value_type: str
    ) -> None:
        """float32 rounds what was scaled in float64."""
        options = {"unscale": True, "layout": layout, "value_type": value_type, "scales": {"plain": (0.1, 7.0)}}
        dtype = np.dtype(value_type)
        expected = {
            key: None if value is None else float(dtype.type(value))
            for key, value in wanted(folder, points, plain=(0.1, 7.0)).items()
        }
        eager = collection.sample_points(points, BANDS, **XY, **options)
        order = ORDER[:3] if layout == "long" else ORDER[:2]

        def build(pipeline: Any) -> None:
            sampled = pipeline | ReadPoints(points, **XY) | SamplePoints(collection, BANDS, **options)
            sampled | WriteSamplesToParquet(str(tmp_path / "s"))

        run(build)
        assert read(tmp_path / "s").sort_by(order).equals(eager.sort_by(order))
        if layout == "long":
            assert by_key(eager) == expected
            return
        for row in eager.to_pylist():
            values = row["values"] if layout == "values" else [row[band] for band in BANDS]
            assert values == [expected[row["point_index"], row["record_id"], band] for band in BANDS]

    def test_latest_takes_the_pair_of_the_newest(self, folder: Path, collection: Collection, points: pa.Table) -> None:
        found = by_key(collection.sample_points(points, ["red"], **XY, unscale=True, match="latest"))
        expected = {key: value for key, value in wanted(folder, points).items() if key[1:] == (DATES[-1], "red")}
        assert found == expected


class TestWindows:
    @pytest.mark.parametrize("returned", ["always", "if_center_nodata"])
    def test_windows_are_scaled_once(
        self, folder: Path, collection: Collection, points: pa.Table, returned: str
    ) -> None:
        """Cells outside the raster and cells of nodata are NaN; the value is that of a pixel of the window."""
        options = {"max_distance_pixels": 1, "return_neighbourhood": returned}
        found = collection.sample_points(points, ["red"], **XY, unscale=True, **options)
        stored = collection.sample_points(points, ["red"], **XY, **options).sort_by(ORDER)
        row, col = pixels_of(points)
        windows = 0
        for sample, plain in zip(found.sort_by(ORDER).to_pylist(), stored.to_pylist(), strict=True):
            scale, offset = SAID[sample["record_id"]]
            point = sample["point_index"]
            raw = numbers(f"{folder}/{sample['record_id']}_red.tif")
            around = np.pad(raw, 1, constant_values=NODATA)[row[point] : row[point] + 3, col[point] : col[point] + 3]
            cells = np.where(around == NODATA, np.nan, around.astype(np.float64) * scale + offset)
            center = raw[row[point], col[point]]
            assert (sample["neighbourhood_values"] is None) == (returned != "always" and center != NODATA)
            if sample["neighbourhood_values"] is not None:
                np.testing.assert_array_equal(sample["neighbourhood_values"], cells.ravel())
                windows += 1
            if np.isnan(cells).all():
                assert sample["value"] is None
            else:
                assert sample["value"] == plain["value"] * scale + offset
        assert windows > 60


class TestSources:
    def test_tags_of_files_that_the_collection_does_not_know(
        self, folder: Path, collection: Collection, points: pa.Table, tmp_path: Path
    ) -> None:
        """As of a collection by another tool: each file is asked once, and what the assets say comes first."""
        table = collection.to_table()
        bare = Collection.from_table(table.drop_columns([name for name in table.column_names if "_extra" in name]))
        found = by_key(bare.sample_points(points, ["tagged", "plain"], **XY, unscale=True))
        assert found == {key: value for key, value in wanted(folder, points).items() if key[2] != "red"}
        assert by_key(bare.sample_points(points, ["red"], **XY, unscale=True)) == {
            key: value for key, value in wanted(folder, points, red=(1.0, 0.0)).items() if key[2] == "red"
        }
        place = table.column_names.index("assets")
        said = table.set_column(place, "assets", with_raster_bands(table["assets"]))
        extra = [name for name in table.column_names if "_extra" in name]
        foreign = Collection.from_table(said.drop_columns(extra))
        assert by_key(foreign.sample_points(points, BANDS, **XY, unscale=True)) == wanted(folder, points)
        assert foreign.describe()["units"] == {
            "red": [
                {"scale": 0.0001, "offset": 0.0, "records": 2},
                {"scale": 0.0001, "offset": -0.1, "records": 1},
                {"scale": 1.0, "offset": -0.1, "records": 1},
            ],
            "tagged": [{"scale": None, "offset": None, "records": 4}],
            "plain": [{"scale": None, "offset": None, "records": 4}],
        }

    def test_a_file_is_opened_for_its_tags_only_where_they_matter(
        self, folder: Path, collection: Collection, points: pa.Table, tmp_path: Path
    ) -> None:
        _, counts = sample_to(tmp_path / "known", points, collection, bands=BANDS, unscale=True)
        assert metrics.DATASETS_OPENED not in counts
        bare = without_units(collection, "tagged")
        _, counts = sample_to(
            tmp_path / "given", points, bare, bands=["tagged"], unscale=True, scales={"tagged": (1.0, 0.0)}
        )
        assert metrics.DATASETS_OPENED not in counts
        found, counts = sample_to(tmp_path / "asked", points, bare, bands=["tagged"], unscale=True)
        assert by_key(found) == {key: value for key, value in wanted(folder, points).items() if key[2] == "tagged"}
        assert counts[metrics.DATASETS_OPENED] == len(DATES)

    def test_a_file_is_asked_once_by_all_threads(self, folder: Path) -> None:
        engine, counters = RasterioEngine(), Counters()
        asset = Asset("r", "tagged", f"{folder}/{DATES[0]}_tagged.tif", 0)
        assert (asset.scale, asset.offset) == (None, None)
        for one, expected in ((asset, TAGS), (replace(asset, scale=2.0), (2.0, 3.0)), (asset, TAGS)):
            known = engine.with_units(one, counters)
            assert (known.scale, known.offset) == expected
        counts = counters.take()
        assert counts[metrics.DATASETS_OPENED] == 1 and metrics.DATASET_CACHE_HITS not in counts
        with pytest.raises(TileReadError, match=r"band B: .*, its scale and offset: the file has 1 band\(s\), but the"):
            engine.with_units(replace(asset, band="B", band_index=1), counters)
        engine.close()

    def test_what_describe_shows(self, collection: Collection) -> None:
        assert collection.describe()["units"] == {
            "red": [
                {"scale": 0.0001, "offset": 0.0, "records": 2},
                {"scale": 0.0001, "offset": -0.1, "records": 1},
                {"scale": 1.0, "offset": -0.1, "records": 1},
            ],
            "tagged": [{"scale": 0.5, "offset": 3.0, "records": 4}],
            "plain": [{"scale": 1.0, "offset": 0.0, "records": 4}],
        }
        assert collection.subset(ids=DATES[2]).describe()["units"]["red"] == [
            {"scale": 0.0001, "offset": -0.1, "records": 1}
        ]
        shown = collection._repr_html_()
        assert "red: 0.0001, 0 (2 records); 0.0001, -0.1 (1 records); 1, -0.1 (1 records) | tagged: 0.5, 3" in shown


def without_units(collection: Collection, band: str) -> Collection:
    """A collection that does not say scale and offset of a band."""
    table = collection.to_table()
    extra = [
        {**row, "scale": None, "offset": None, "header_digest": None} for row in table[f"{band}_extra"].to_pylist()
    ]
    column = pa.array(extra, type=table.schema.field(f"{band}_extra").type)
    place = table.column_names.index(f"{band}_extra")
    return Collection.from_table(table.set_column(place, f"{band}_extra", column))


def with_raster_bands(assets: pa.ChunkedArray) -> pa.Array:
    """Assets as Rasteret keeps those of a record table, with ``raster:bands`` of STAC."""
    rows = assets.to_pylist()
    for date, row in zip(DATES, rows, strict=True):
        scale, offset = SAID[date]
        row["red"] |= {"raster:bands": [{"scale": scale, "offset": offset, "nodata": 0}]}
    return pa.array(rows)


@pytest.fixture(scope="module")
def long_integers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Collection]:
    path = tmp_path_factory.mktemp("int64") / "long.tif"
    values = np.array([[2**53 + 1, -(2**53) - 3], [2**63 - 1, 5]], dtype=np.int64)
    affine = Affine(10, 0, LEFT, 0, -10, TOP)
    profile = {"driver": "GTiff", "crs": "EPSG:32631", "transform": affine, "width": 2, "height": 2, "count": 1}
    with rasterio.open(path, "w", dtype="int64", **profile) as dataset:
        dataset.write(values, 1)
    table = pa.Table.from_pylist([{"id": "a", "datetime": None, "assets": {"B": {"href": str(path)}}}])
    return path, build_from_table(table.set_column(1, "datetime", pa.nulls(1, pa.timestamp("us"))))


@given(
    st.floats(-1e9, 1e9).filter(lambda scale: scale != 0),
    st.floats(-1e9, 1e9),
    st.sampled_from(["float64", "float32"]),
)
@settings(max_examples=examples(60))
def test_long_integers_are_rounded_before_they_are_scaled(
    long_integers: tuple[Path, Collection], scale: float, offset: float, value_type: str
) -> None:
    path, collection = long_integers
    points = pa.table({"x": LEFT + np.array([5.0, 15, 5, 15]), "y": TOP - np.array([5.0, 5, 15, 15])})
    options = {"unscale": True, "scales": {"B": (scale, offset)}, "value_type": value_type}
    found = collection.sample_points(points, ["B"], **XY, **options).sort_by(ORDER)["value"].to_pylist()
    with np.errstate(over="ignore"):
        expected = [float(np.dtype(value_type).type(float(number) * scale + offset)) for number in numbers(path).flat]
    assert found == expected


def test_no_warning_of_stored_numbers_where_values_are_scaled(
    long_integers: tuple[Path, Collection], caplog: pytest.LogCaptureFixture
) -> None:
    points = pa.table({"x": [LEFT + 5], "y": [TOP - 5]})
    long_integers[1].sample_points(points, ["B"], **XY, unscale=True)
    assert caplog.messages == []
    long_integers[1].sample_points(points, ["B"], **XY)
    assert "value_type='raw' keeps them exact" in caplog.text


class TestFailures:
    @pytest.fixture
    def gone(self, tmp_path: Path) -> tuple[Collection, Path]:
        """A collection without facts of units, whose tiles can be read, and whose header cannot."""
        path = tmp_path / "scene.tif"
        write(path, 1, TAGS)
        record = {"id": "scene", "datetime": "2022", "assets": {"red": {"href": str(path)}}}
        return without_units(build_from_table(pa.Table.from_pylist([record])), "red"), path

    def test_a_header_that_cannot_be_read(self, gone: tuple[Collection, Path], points: pa.Table) -> None:
        collection, path = gone
        damage_directory(path)
        assert len(collection.sample_points(points, ["red"], **XY)) == 120
        assert len(collection.sample_points(points, ["red"], **XY, unscale=True, scales={"red": (1, 0)})) == 120
        with pytest.raises(TileReadError) as raised:
            collection.sample_points(points, ["red"], **XY, unscale=True)
        assert str(raised.value).startswith(f"record 'scene', band red: {path}, its scale and offset: ")

    def test_dead_letters_are_tried_again(
        self, gone: tuple[Collection, Path], points: pa.Table, tmp_path: Path
    ) -> None:
        collection, path = gone
        expected = by_key(collection.sample_points(points, ["red"], **XY, unscale=True))
        whole = path.read_bytes()
        damage_directory(path)

        def first(pipeline: Any) -> None:
            given = {"on_error": "dead_letter", "unscale": True}
            outputs = pipeline | ReadPoints(points, **XY) | SamplePoints(collection, ["red"], **given)
            outputs.samples | "Samples" >> WriteSamplesToParquet(str(tmp_path / "first"))
            letters = WriteSamplesToParquet(str(tmp_path / "dead"), schema=DEAD_LETTER_SCHEMA)
            outputs.dead_letters | "Letters" >> letters

        counts = run(first)
        assert counts[metrics.DEAD_LETTERS] == 9 and counts[metrics.VALUES_DEAD_LETTERED] == 120
        path.write_bytes(whole)

        def again(pipeline: Any) -> None:
            outputs = pipeline | SampleDeadLetters(collection, str(tmp_path / "dead-*.parquet"), unscale=True)
            outputs.samples | WriteSamplesToParquet(str(tmp_path / "again"))

        run(again)
        assert by_key(read(tmp_path / "again")) == expected

    @pytest.mark.parametrize(("tags", "wrong"), [((0.0, 1.0), "scale 0 makes"), ((1.0, np.inf), "offset inf is not")])
    def test_tags_that_cannot_be_used(
        self, points: pa.Table, tmp_path: Path, tags: tuple[float, float], wrong: str
    ) -> None:
        """They hinder neither the build nor a job that does not scale."""
        write(tmp_path / "s.tif", 1, tags)
        record = {"id": "s", "datetime": "2022", "assets": {"red": {"href": f"{tmp_path}/s.tif"}}}
        collection = build_from_table(pa.Table.from_pylist([record]))
        assert len(collection.sample_points(points, ["red"], **XY)) == 120
        with pytest.raises(CollectionError, match=f"record 's', band red, .*s.tif: {wrong}"):
            collection.sample_points(points, ["red"], **XY, unscale=True)
        given = {"unscale": True, "scales": {"red": (2.0, 0.0)}}
        assert len(collection.sample_points(points, ["red"], **XY, **given)) == 120

    def test_scales_of_a_band_that_is_not_read(self, collection: Collection, points: pa.Table) -> None:
        given = {"unscale": True, "scales": {"rad": (1.0, 0.0)}}
        message = r"^scales is {'rad': \(1.0, 0.0\)}, but band 'rad' \(did you mean 'red'\?\) is not among the bands"
        with pytest.raises(InputError, match=message):
            collection.sample_points(points, ["red", "plain"], **XY, **given)
        with pytest.raises(InputError, match=message):
            run(lambda pipeline: pipeline | ReadPoints(points, **XY) | SamplePoints(collection, ["red"], **given))


def damage_directory(path: Path) -> None:
    """Point the header of a TIFF beyond its end; the tiles stay where they are."""
    content = bytearray(path.read_bytes())
    content[4:8] = b"\xff\xff\xff\x7f"
    path.write_bytes(content)
