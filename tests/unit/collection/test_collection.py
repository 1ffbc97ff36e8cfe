"""Collections: building, the layout on disk, loading, narrowing."""

import copy
import json
import os
import pickle
import pickletools
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import rasterio
import tifffile
from rasterio.transform import Affine
from rasterio.warp import transform_bounds

import rasteret_beam
from rasteret_beam import Collection, build_from_cogs, build_from_table, load
from rasteret_beam.collection.parquet import writing
from rasteret_beam.errors import BuildError, CollectionError, InputError, MissingInputError, OutputError
from rasteret_beam.schema import BAND_METADATA_TYPE, BBOX_TYPE
from tests.support import rasters
from tests.support.scenes import scene_table, write_scene


def two_files(folder: Path) -> list[Path]:
    affine = Affine(10, 0, 500_000, 0, -10, 5_400_000)
    return [write_scene(folder / f"scene_{year}.tif", affine, year) for year in (2022, 2023)]


def test_each_file_is_a_record(tmp_path: Path) -> None:
    paths = two_files(tmp_path)
    collection = build_from_cogs(
        paths, bands={"B02": 0}, datetime=["2022-06-30", "2023-06-30T10:00:00+02:00"], name="n"
    )
    table = collection.to_table()
    assert table["id"].to_pylist() == ["scene_2022", "scene_2023"]
    assert table["datetime"].to_pylist() == [datetime(2022, 6, 30), datetime(2023, 6, 30, 8)]
    assert table["assets"].to_pylist()[0] == {"B02": {"href": str(paths[0]), "band_index": 0}}
    assert table["proj:epsg"].to_pylist() == [32631, 32631]
    assert (table["year"].to_pylist(), table["month"].to_pylist()) == ([2022, 2023], [6, 6])
    assert (collection.bands, collection.crs, len(collection), collection.name) == (["B02"], ["EPSG:32631"], 2, "n")


def test_ids_and_dates_can_be_functions_of_the_href(tmp_path: Path) -> None:
    paths = two_files(tmp_path)
    collection = build_from_cogs(paths, record_id=lambda href: href[-8:-4], datetime=lambda href: int(href[-8:-4]))
    table = collection.to_table()
    assert table["id"].to_pylist() == ["2022", "2023"]
    assert table["datetime"].to_pylist() == [datetime(2022, 1, 1), datetime(2023, 1, 1)]


def test_equal_stems_are_made_unique(tmp_path: Path) -> None:
    paths = []
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        paths.append(write_scene(tmp_path / name / "B02.tif", Affine(10, 0, 0, 0, -10, 0), 1))
    assert build_from_cogs(paths).to_table()["id"].to_pylist() == ["B02", "B02_2", "B02_3"]


def test_ids_given_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"record id\(s\) same are given more than once"):
        build_from_cogs(two_files(tmp_path), record_id=["same", "same"])


def test_lists_must_match_the_hrefs(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"record_id has 1 value\(s\) for 2 href\(s\)"):
        build_from_cogs(two_files(tmp_path), record_id=["one"])


def test_every_failing_file_is_listed(tmp_path: Path) -> None:
    good = two_files(tmp_path)
    (tmp_path / "junk.tif").write_bytes(b"no raster")
    bad = [tmp_path / "junk.tif", tmp_path / "gone.tif"]
    with pytest.raises(BuildError) as raised:
        build_from_cogs([good[0], *bad, good[1]])
    assert [href for href, _ in raised.value.failures] == [str(path) for path in bad]
    assert "junk.tif: " in str(raised.value) and "not recognized" in str(raised.value)
    assert f"{bad[1]}: no such file" in str(raised.value)
    assert pickle.loads(pickle.dumps(raised.value)).failures == raised.value.failures


def test_failing_files_can_be_skipped_and_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    good, gone = two_files(tmp_path), tmp_path / "gone.tif"
    collection = build_from_cogs([*good, gone], on_error="skip")
    assert len(collection) == 2
    assert collection.failures == ((str(gone), "no such file"),)
    assert f"skipped in the collection: {gone}: no such file" in caplog.text


def test_nothing_but_failures_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"gone.tif: no such file"):
        build_from_cogs([tmp_path / "gone.tif"], on_error="skip")


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"crs": None}, "the file has no CRS"), ({"transform": Affine.identity()}, "no usable georeferencing")],
)
def test_files_without_a_place_are_refused(tmp_path: Path, change: dict, reason: str) -> None:
    profile = {"driver": "GTiff", "width": 4, "height": 4, "count": 1, "dtype": "uint8"}
    profile |= {"crs": "EPSG:32631", "transform": Affine(1, 0, 5, 0, -1, 5)} | change
    with rasterio.open(tmp_path / "x.tif", "w", **profile) as dataset:
        dataset.write(np.zeros((1, 4, 4), dtype=np.uint8))
    with pytest.raises(BuildError, match=reason):
        build_from_cogs([tmp_path / "x.tif"])


def test_a_band_index_beyond_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"band index is 4 .* the file has 1 band"):
        build_from_cogs(two_files(tmp_path), bands={"A": 4})


@pytest.mark.parametrize("name", ["deflate_noise", "predictor2_band", "tiles_pixel", "bigtiff_big", "cog", "sparse"])
def test_metadata_is_what_the_tiff_says(tmp_path: Path, name: str) -> None:
    path = rasters.case(name).write(tmp_path)
    table = build_from_cogs([path]).to_table()
    with tifffile.TiffFile(path) as tiff, rasterio.open(path) as dataset:
        page = tiff.pages[0]
        for index in range(dataset.count):
            found = table[f"B{index + 1}_metadata"][0].as_py()
            tiles = -(-dataset.width // page.tilewidth) * -(-dataset.height // page.tilelength)
            start = index * tiles if page.planarconfig == 2 else 0
            assert found["tile_offsets"] == list(page.dataoffsets[start : start + tiles])
            assert found["tile_byte_counts"] == list(page.databytecounts[start : start + tiles])
            assert (found["image_width"], found["image_height"]) == (page.imagewidth, page.imagelength)
            assert (found["tile_width"], found["tile_height"]) == (page.tilewidth, page.tilelength)
            assert (found["predictor"], found["compression"]) == (page.predictor, page.compression)
            assert found["samples_per_pixel"] == page.samplesperpixel
            assert found["planar_configuration"] == page.planarconfig
            assert found["dtype"] == dataset.dtypes[index]
            assert found["nodata"] == dataset.nodatavals[index]
            a, _, c, _, e, f = dataset.transform[:6]
            assert found["transform"] == [a, c, e, f]


def test_the_layout_on_disk(scenes: Collection, tmp_path: Path) -> None:
    scenes.export(tmp_path / "out")
    folders = sorted(str(path.relative_to(tmp_path / "out").parent) for path in (tmp_path / "out").rglob("*.parquet"))
    assert folders == [f"year=2023/month={month}" for month in (1, 4, 7)]
    schema = pq.read_schema(next((tmp_path / "out").rglob("*.parquet")))
    assert schema.field("datetime").type == pa.timestamp("us")
    assert schema.field("bbox").type == BBOX_TYPE
    assert schema.field("B10_metadata").type == BAND_METADATA_TYPE
    assert schema.field("proj:epsg").type == pa.int32()
    assert schema.metadata[b"rasteret_collection_version"] == b"1"
    assert schema.metadata[b"name"] == b"scenes"
    assert schema.metadata[b"date_range"] == b"2023-01-05T00:00:00,2023-07-18T00:00:00"
    geo = json.loads(schema.metadata[b"geo"])
    assert geo["primary_column"] == "geometry"
    assert geo["columns"]["geometry"]["encoding"] == "WKB"
    assert geo["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]


def test_boxes_hold_the_rasters(scenes: Collection) -> None:
    for row in scenes.to_table(["bbox", "assets"]).to_pylist():
        with rasterio.open(row["assets"]["B10"]["href"]) as dataset:
            box = transform_bounds(dataset.crs, "OGC:CRS84", *dataset.bounds)
        assert row["bbox"]["xmin"] <= box[0] and row["bbox"]["ymin"] <= box[1]
        assert row["bbox"]["xmax"] >= box[2] and row["bbox"]["ymax"] >= box[3]
        assert row["bbox"]["xmax"] - row["bbox"]["xmin"] < 1.01 * (box[2] - box[0])


@pytest.mark.parametrize("place", ["folder", "file.parquet"])
def test_load_gives_back_what_was_exported(scenes: Collection, points: pa.Table, tmp_path: Path, place: str) -> None:
    scenes.export(tmp_path / place)
    loaded = load(tmp_path / place)
    assert loaded.name == "scenes"
    assert loaded.bands == scenes.bands
    order = [("point_index", "ascending"), ("record_id", "ascending"), ("band", "ascending")]
    options = {"x_column": "x", "y_column": "y", "geometry_crs": 32631}
    ours = scenes.sample_points(points, ["B10", "B20"], **options).sort_by(order)
    assert loaded.sample_points(points, ["B10", "B20"], **options).sort_by(order).equals(ours)


def test_export_replaces_a_collection_whole(scenes: Collection, tmp_path: Path) -> None:
    scenes.export(tmp_path / "out")
    scenes.where(pc.field("id") == "P0_1").export(tmp_path / "out")
    assert load(tmp_path / "out").to_table()["id"].to_pylist() == ["P0_1"]
    assert os.listdir(tmp_path) == ["out"]


def test_export_does_not_replace_what_is_no_collection(scenes: Collection, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    pq.write_table(pa.table({"a": [1]}), tmp_path / "mine" / "a.parquet")
    with pytest.raises(OutputError, match="is not a collection"):
        scenes.export(tmp_path / "mine")
    assert pq.read_table(tmp_path / "mine" / "a.parquet")["a"].to_pylist() == [1]


def test_records_without_datetime_go_to_disk_and_back(tmp_path: Path) -> None:
    build_from_cogs(two_files(tmp_path)).export(tmp_path / "out")
    assert load(tmp_path / "out").to_table(["id", "datetime"]).to_pylist() == [
        {"id": "scene_2022", "datetime": None},
        {"id": "scene_2023", "datetime": None},
    ]


def test_row_groups_are_small_enough_to_read_a_record_from(monkeypatch: pytest.MonkeyPatch, scenes: Collection) -> None:
    table = scenes.to_table()
    monkeypatch.setattr(writing, "ROW_GROUP_BYTES", 2 * table.nbytes // len(table))
    assert writing.row_group_rows(table) in (1, 2)


def test_assets_are_read_for_one_row_group_only(
    monkeypatch: pytest.MonkeyPatch, scenes: Collection, tmp_path: Path
) -> None:
    monkeypatch.setattr(writing, "row_group_rows", lambda table: 1)
    scenes.export(tmp_path / "c.parquet")
    loaded = load(tmp_path / "c.parquet")
    index = loaded.index(["B10", "B20"])
    first, last = index.routing.record_ids[0], index.routing.record_ids[-1]
    assert len(index._units) == 6
    for record in (first, last, first):
        hrefs = [asset.href for asset in index.assets(record, ["B10", "B20"])]
        row = scenes.where(pc.field("id") == record).to_table()["assets"].to_pylist()[0]
        assert hrefs == [row["B10"]["href"], row["B20"]["href"]]
    assert len(index._cache) == 2


def test_tables_can_be_mapped(tmp_path: Path) -> None:
    paths = [str(path) for path in two_files(tmp_path)]
    table = pa.table({"fid": [7, 8], "when": [2022, 2023], "path": paths, "owner": ["x", "y"]})
    collection = build_from_table(
        table, href_column="path", band_index_map={"V": 0}, column_map={"fid": "id", "when": "datetime"}
    )
    found = collection.to_table()
    assert found["id"].to_pylist() == ["7", "8"]
    assert found["datetime"].to_pylist() == [datetime(2022, 1, 1), datetime(2023, 1, 1)]
    assert found["owner"].to_pylist() == ["x", "y"]
    assert collection.bands == ["V"]


def test_a_table_on_disk_is_taken_too(tmp_path: Path) -> None:
    table = scene_table(tmp_path)
    pq.write_table(table, tmp_path / "records.parquet")
    assert build_from_table(tmp_path / "records.parquet").to_table().equals(build_from_table(table).to_table())


def test_a_table_that_lacks_columns_is_refused() -> None:
    with pytest.raises(InputError, match=r"lacks column\(s\) datetime, assets; it has id"):
        build_from_table(pa.table({"id": ["a"]}))


def test_without_headers_it_cannot_be_sampled(tmp_path: Path, points: pa.Table) -> None:
    table = scene_table(tmp_path).append_column("geometry", pa.nulls(6, pa.binary()))
    collection = build_from_table(table, enrich_cog=False)
    with pytest.raises(CollectionError, match="build it again with them, the default of build_from_table"):
        collection.sample_points(points, ["B10"], x_column="x", y_column="y", geometry_crs=32631)


def test_subset_by_box(scenes: Collection) -> None:
    west = {"P0_0", "P0_1", "P0_2"}
    assert set(scenes.subset(bbox=(2.9, 48, 3.02, 49)).to_table()["id"].to_pylist()) == west
    assert len(scenes.subset(bbox=(-10, 40, 10, 60))) == 6
    assert len(scenes.subset(bbox=(170, 40, -170, 60))) == 0
    assert len(scenes.subset(bbox=(170, 40, 5, 60))) == 6  # across the antimeridian, all the way around


def test_subset_by_date(scenes: Collection) -> None:
    def ids(*date_range: str) -> list[str]:
        return sorted(scenes.subset(date_range=date_range).to_table()["id"].to_pylist())

    assert ids("2023-04-09", "2023-04-09") == ["P0_1", "P1_1"]
    assert ids("2023", "2023") == sorted(scenes.to_table()["id"].to_pylist())
    assert ids("2023-04-09T00:00:01", "2023-07-18T00:00:00") == ["P0_2", "P1_2"]


def test_subset_by_clouds_and_expression(scenes: Collection) -> None:
    assert set(scenes.subset(cloud_cover_lt=10).to_table()["id"].to_pylist()) == {"P0_0", "P1_0"}
    narrowed = scenes.subset(cloud_cover_lt=15).where(pc.field("id") != "P0_0")
    assert sorted(narrowed.to_table()["id"].to_pylist()) == ["P0_1", "P1_0", "P1_1"]
    assert narrowed.describe()["records"] == 3


@pytest.mark.parametrize(
    ("criteria", "message"),
    [
        ({"bbox": (1, 2, 3)}, r"bbox is \(1, 2, 3\)"),
        ({"bbox": (0, 50, 10, 40)}, "south <= north"),
        ({"date_range": ("2023-02-01", "2023-01-01")}, "first date must not be after its last"),
        ({"date_range": ("then", "2023-01-01")}, "'then' is not a valid ISO date"),
        ({"geometries": []}, "geometries is an empty list"),
        ({}, "subset needs a criterion"),
    ],
)
def test_criteria_that_cannot_be_used(scenes: Collection, criteria: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        scenes.subset(**criteria)


def test_nothing_left_is_said_when_sampling(scenes: Collection, points: pa.Table) -> None:
    empty = scenes.subset(date_range=("1990", "1991"))
    with pytest.raises(InputError, match="has no records after subset and where"):
        empty.sample_points(points, ["B10"], x_column="x", y_column="y", geometry_crs=32631)


def test_missing_places(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match="there is no file or folder"):
        load(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInputError, match="has no Parquet files"):
        load(tmp_path / "empty")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(CollectionError, match=r"lacks column\(s\) id, datetime, geometry, assets; it has a"):
        load(tmp_path / "other.parquet")


def test_a_collection_pickles_by_its_path_and_filter(scenes: Collection, tmp_path: Path) -> None:
    scenes.export(tmp_path / "out")
    narrowed = load(tmp_path / "out").subset(date_range=("2023-04-01", "2023-04-30"))
    assert len(narrowed) == 2
    pickled = pickle.dumps(narrowed)
    assert len(pickled) < 2000
    assert pickle.loads(pickled).to_table().equals(narrowed.to_table())


def test_arrow_stream_and_repr(scenes: Collection) -> None:
    assert pa.table(scenes).equals(scenes.to_table())
    assert repr(scenes) == "Collection('scenes', 6 records, bands B10, B20)"
    assert rasteret_beam.Collection is Collection


def test_a_pickle_of_a_collection_in_memory_is_the_collection(scenes: Collection) -> None:
    for copied in (pickle.loads(pickle.dumps(scenes)), copy.copy(scenes), copy.deepcopy(scenes)):
        assert copied.table is not None and copied.table.equals(scenes.table, check_metadata=True)
        assert (copied.name, copied.bands, len(copied)) == (scenes.name, scenes.bands, len(scenes))


def test_a_pickle_of_many_bands_has_few_objects(tmp_path: Path) -> None:
    path = rasters.RasterCase(name="bands", dtype="uint8", count=50, width=16, height=16, tile=(16, 16)).write(tmp_path)
    assert sum(1 for _ in pickletools.genops(pickle.dumps(build_from_cogs([path])))) < 200
