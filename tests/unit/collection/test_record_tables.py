"""Record tables as others write them: types of dates, ids, assets and geometries, and what they say of bands."""

import json
import logging
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely

from pipelines import build_collection
from rasteret_beam import Collection, build_from_cogs, build_from_table, load
from rasteret_beam.collection.filters.dates import to_datetime
from rasteret_beam.errors import InputError, OutputError
from rasteret_beam.kernels.tables.point_columns import kept_column, kept_type
from tests.support.commands import Outcome, execute
from tests.support.scenes import write_scene

MOMENT, DAY = datetime(2023, 6, 30, 10), datetime(2023, 6, 30)
TEXT = "2023-06-30T10:00:00Z"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    affine = rasterio.Affine(10, 0, 500_000, 0, -10, 5_400_000)
    return write_scene(tmp_path_factory.mktemp("records") / "s_2023181.tif", affine, 1)


def table_of(scene: Path, **columns: Any) -> pa.Table:
    """A record table of one row for each value of the columns given."""
    rows = len(next(iter(columns.values())))
    own = {"id": [f"r{number}" for number in range(rows)], "path": [str(scene)] * rows}
    return pa.table(own | {"datetime": pa.nulls(rows, pa.timestamp("us"))} | columns)


def built(table: Any, **options: Any) -> pa.Table:
    return build_from_table(table, href_column="path", **options).to_table()


@pytest.mark.parametrize(
    ("column", "want"),
    [
        (pa.array([TEXT]), MOMENT),
        (pa.array([TEXT], pa.large_string()), MOMENT),
        (pa.array([TEXT]).cast(pa.string_view()), MOMENT),
        (pa.array([TEXT]).dictionary_encode(), MOMENT),
        (pa.array(["2023-06-30 12:00:00+02:00"]), MOMENT),
        (pa.array(["2023-06-30T10:00:00.000000999Z"]), MOMENT),
        (pa.array(["2023-181"]), DAY),
        (pa.array(["20230630"]), DAY),
        (pa.array(["2023-06"]), datetime(2023, 6, 1)),
        (pa.array([20230630]), DAY),
        (pa.array([20230630.0]), DAY),
        (pa.array([2023181], pa.int32()), DAY),
        (pa.array([202306], pa.uint64()), datetime(2023, 6, 1)),
        (pa.array([2023], pa.int16()), datetime(2023, 1, 1)),
        (pa.array([Decimal("20230630")]), DAY),
        (pa.array([1688119200123456789], pa.timestamp("ns")), MOMENT.replace(microsecond=123456)),
        (pa.array([1688119200], pa.timestamp("s", "Europe/Paris")), MOMENT),
        (pa.array([date(2023, 6, 30)], pa.date32()), DAY),
        (pa.array([date(2023, 6, 30)], pa.date64()), DAY),
        (pa.array([MOMENT], pa.timestamp("ms")).dictionary_encode(), MOMENT),
        (pa.array([float("nan")]), None),
        (pa.nulls(1), None),
        (pa.array(["2023-06-30t10:00:00z"]), MOMENT),
    ],
)
def test_datetimes_of_any_type(scene: Path, column: pa.Array, want: datetime | None) -> None:
    assert built(table_of(scene, datetime=column))["datetime"].to_pylist() == [want]


@pytest.mark.parametrize("frame", [pl.DataFrame, pd.DataFrame])
@pytest.mark.parametrize("dates", [[TEXT, None], [MOMENT, None], [pd.Timestamp(TEXT), pd.NaT]])
def test_frames_of_polars_and_pandas(scene: Path, frame: Callable, dates: list) -> None:
    if frame is pl.DataFrame:
        dates = [None if value is pd.NaT else value for value in dates]
    records = frame({"id": ["a", "b"], "path": [str(scene)] * 2, "datetime": dates, "year_of": [1, 2]})
    table = built(records)
    assert table["datetime"].to_pylist() == [MOMENT, None]
    assert table["year_of"].to_pylist() == [1, 2]


@pytest.mark.parametrize("make", [dict, pd.DataFrame])
def test_paths_of_a_frame_or_a_dict_may_be_path_objects(scene: Path, make: Callable) -> None:
    table = built(make({"id": ["a", "b"], "path": [scene, scene], "datetime": ["2023-06-30", None]}))
    assert table["assets"].to_pylist() == [{"B1": {"href": str(scene), "band_index": 0}}] * 2


@pytest.mark.parametrize("bbox", [None, pa.array([[1.0, 2.0, 3.0, 4.0], None])])
def test_footprints_of_the_files_fill_what_the_table_lacks(scene: Path, bbox: pa.Array | None) -> None:
    more = {"bbox": bbox} if bbox is not None else {}
    table = built(table_of(scene, geometry=pa.array([SQUARE.wkb, None]), **more))
    own = build_from_cogs([scene]).to_table()
    assert table["geometry"].to_pylist() == [SQUARE.wkb, own["geometry"][0].as_py()]
    assert table["bbox"].to_pylist() == own["bbox"].to_pylist() * 2


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1688119200]), "column datetime of record 'r0': 1688119200 is not a valid date"),
        (pa.array([TEXT, "soon"]), "column datetime of record 'r1': 'soon' is not a valid ISO date"),
        (pa.array([20231330]), "column datetime of record 'r0': 20231330 .* month must be in 1..12"),
        (pa.array([2023366]), "record 'r0': 2023366 .* 2023 does not have a day 366"),
        (pa.array([2023.5]), "record 'r0': 2023.5 is not a valid date"),
        (pa.array([True]), "record 'r0': True is not a datetime"),
        (pa.array([641]), "record 'r0': 641 is not a valid date or datetime: a year has four digits"),
        (
            pa.Table.from_pandas(pd.DataFrame({"month": pd.period_range("2023-06", periods=1, freq="M")}))["month"],
            "column datetime of the record table is extension<pandas.period.*; give dates, datetimes or texts",
        ),
        (pa.array([{"year": 2023}]), "record 'r0': .* is a dict, not a date"),
        (
            pa.array([1 << 62], pa.timestamp("us")),
            "column datetime of the record table has a value that is not a datetime",
        ),
        (
            pa.array([1 << 62], pa.timestamp("s")),
            "column datetime of the record table has a value that is not a datetime",
        ),
    ],
)
def test_what_is_no_datetime_names_its_record(scene: Path, column: pa.Array, message: str) -> None:
    with pytest.raises(InputError, match=message):
        built(table_of(scene, datetime=column))


@pytest.mark.parametrize(
    "given",
    [np.int64(20230630), np.float32(2023181), np.datetime64("2023-06-30"), np.datetime64(DAY), date(2023, 6, 30)],
)
def test_datetimes_given_as_numpy_has_them(scene: Path, given: Any) -> None:
    assert build_from_cogs([scene], datetime=[given]).to_table()["datetime"].to_pylist() == [DAY]
    assert build_from_cogs([scene], datetime=lambda href: given).to_table()["datetime"].to_pylist() == [DAY]


@pytest.mark.parametrize("given", [2023, "2023", b"2023", date(2023, 6, 30)])
def test_one_datetime_is_not_taken_for_all_files(scene: Path, given: Any) -> None:
    with pytest.raises(InputError, match=r"datetime is .*; give a list with one value per href, or a function"):
        build_from_cogs([scene], datetime=given)


def test_datetimes_as_an_arrow_array(scene: Path) -> None:
    collection = build_from_cogs([scene], datetime=pa.array([20230630]))
    assert collection.to_table()["datetime"].to_pylist() == [DAY]


@pytest.mark.parametrize("given", [np.datetime64(1 << 62, "s"), np.datetime64("12023-01-01")])
def test_datetimes_of_numpy_beyond_those_of_python(given: np.datetime64) -> None:
    with pytest.raises(InputError, match=r"is outside the years 1 to 9999"):
        to_datetime(given)


def test_a_datetime_of_a_file_that_cannot_be_read_names_the_file(scene: Path) -> None:
    with pytest.raises(InputError, match=rf"datetime of {scene}: 1688119200 is not a valid date"):
        build_from_cogs([scene], datetime=lambda href: 1688119200)


def test_a_pandas_timestamp_becomes_a_plain_datetime() -> None:
    assert type(to_datetime(pd.Timestamp(TEXT))) is datetime
    assert to_datetime(pd.NaT) is None and to_datetime(np.datetime64("NaT")) is None


SPANS = {
    "start_datetime": ["2023-01-01", "2023-03-01", None, None, "2023-01-01"],
    "end_datetime": ["2023-02-28", "2023-03-31T12:00:00Z", "2023-01-15", None, "2023-12-31"],
    "datetime": [None, None, None, None, "2023-06-30"],
}


@pytest.fixture(scope="module")
def spans(scene: Path) -> Collection:
    return build_from_table(table_of(scene, **SPANS), href_column="path")


def test_checksums_of_a_record_table_are_not_kept(scene: Path) -> None:
    assert "checksums" not in built(table_of(scene, checksums=["of something else"])).column_names


@pytest.mark.parametrize(
    "column", [pa.array([pa.MonthDayNano([1, 2, 3])]), pa.array([{}], pa.struct([]))], ids=["interval", "no fields"]
)
def test_columns_that_parquet_cannot_hold(scene: Path, column: pa.Array, tmp_path: Path) -> None:
    collection = build_from_table(table_of(scene, kept=column), href_column="path")
    for place in ("c", "c.parquet"):
        with pytest.raises(OutputError, match=r"Parquet cannot hold column\(s\) kept \(.*\) of the collection"):
            collection.export(tmp_path / place)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("date_range", "want"),
    [
        (("2023-02-28", "2023-03-01"), ["r0", "r1"]),
        (("2022-01-01", "2022-12-31"), ["r2"]),
        (("2023-01-10", "2023-01-10"), ["r0", "r2"]),
        (("2023-03-31T12:00:00", "2023-06-29"), ["r1"]),
        (("2023-03-31T12:00:01", "2023-06-29"), []),
        (("2023", "2023"), ["r0", "r1", "r2", "r4"]),
    ],
)
def test_a_record_without_a_datetime_is_found_by_the_time_it_spans(
    spans: Collection, tmp_path: Path, date_range: tuple, want: list[str]
) -> None:
    assert spans.subset(date_range=date_range).to_table()["id"].to_pylist() == want
    spans.export(tmp_path / "c")
    loaded = load(tmp_path / "c")
    assert sorted(loaded.subset(date_range=date_range).to_table(["id"])["id"].to_pylist()) == want
    assert loaded.to_table()["start_datetime"].type == pa.timestamp("us")
    assert loaded.describe()["date_range"] == (datetime(2023, 1, 1), datetime(2023, 6, 30))
    assert loaded.dataset.schema.metadata[b"date_range"] == b"2023-01-01T00:00:00,2023-06-30T00:00:00"


def test_the_command_keeps_the_time_that_records_span(scene: Path, tmp_path: Path) -> None:
    pq.write_table(table_of(scene, **SPANS), tmp_path / "items.parquet")
    outcome = build_command(tmp_path, "--table", tmp_path / "items.parquet", "--href_column", "path")
    assert outcome.code == 0, outcome.err
    loaded = load(tmp_path / "built")
    assert loaded.dataset.schema.metadata[b"date_range"] == b"2023-01-01T00:00:00,2023-06-30T00:00:00"
    found = loaded.subset(date_range=("2023-02-28", "2023-03-01")).to_table(["id"])
    assert sorted(found["id"].to_pylist()) == ["r0", "r1"]


def test_spans_with_a_zone_in_a_collection_of_another_maker(spans: Collection) -> None:
    table = spans.to_table()
    for name in SPANS:
        column = table[name].cast(pa.timestamp("ms", "UTC")) if name != "datetime" else table[name]
        table = table.set_column(table.column_names.index(name), name, column)
    found = Collection.from_table(table).subset(date_range=(datetime(2023, 2, 28, tzinfo=UTC), "2023-03-01"))
    assert found.to_table()["id"].to_pylist() == ["r0", "r1"]


def test_a_record_that_ends_before_it_starts(scene: Path) -> None:
    table = table_of(scene, start_datetime=["2023-01-01", "2023-06-30"], end_datetime=["2023-01-01", "2023-06-01"])
    message = "record 'r1' ends before it starts: start_datetime 2023-06-30 00:00:00, end_datetime 2023-06-01 00:00:00"
    with pytest.raises(InputError, match=message):
        built(table)


def test_a_table_of_spans_needs_no_datetime(scene: Path) -> None:
    table = table_of(scene, **SPANS).drop_columns(["datetime"])
    found = build_from_table(table, href_column="path").subset(date_range=("2023-02-28", "2023-03-01"))
    assert found.to_table()["id"].to_pylist() == ["r0", "r1", "r4"]


def asset(scene: Path, **more: Any) -> dict[str, Any]:
    return {"href": str(scene), **more}


def struct_of(assets: list) -> pa.Array:
    return pa.array(assets)


def json_of(assets: list) -> pa.Array:
    return pa.array([json.dumps(row) if row is not None else None for row in assets]).cast(pa.string_view())


def map_of(assets: list) -> pa.Array:
    view = pa.struct([("href", pa.string_view()), ("band_index", pa.int8())])
    rows = [list(row.items()) if row is not None else None for row in assets]
    return pa.array(rows, pa.map_(pa.string_view(), view))


def map_of_json(assets: list) -> pa.Array:
    rows = [[(name, json.dumps(one)) for name, one in row.items()] if row is not None else None for row in assets]
    return pa.array(rows, pa.map_(pa.string(), pa.large_string()))


def map_of_hrefs(assets: list) -> pa.Array:
    rows = [[(name, one["href"]) for name, one in row.items()] if row is not None else None for row in assets]
    return pa.array(rows, pa.map_(pa.string(), pa.string()))


@pytest.mark.parametrize("shape", [struct_of, json_of, map_of, map_of_json, map_of_hrefs])
def test_assets_of_any_shape(scene: Path, shape: Callable[[list], pa.Array], tmp_path: Path) -> None:
    rows = [{"red": asset(scene, band_index=0), "nir": asset(scene, band_index=0)}, {"nir": asset(scene, band_index=0)}]
    table = table_of(scene, assets=shape(rows))
    for given in (table, tmp_path / "items.parquet"):
        if given is not table:
            plain = [kept_column(column.combine_chunks(), kept_type(column.type)) for column in table.columns]
            pq.write_table(pa.table(plain, table.column_names), given)
        collection = build_from_table(given)
        assert collection.bands == ["red", "nir"]
        assert collection.to_table()["assets"].to_pylist() == [
            {"red": {"href": str(scene), "band_index": 0}, "nir": {"href": str(scene), "band_index": 0}},
            {"red": None, "nir": {"href": str(scene), "band_index": 0}},
        ]


@pytest.mark.parametrize(
    ("assets", "message"),
    [
        (pa.array(['{"red": ']), "the assets of record 'r0' are a text that is not JSON"),
        (pa.array([17]), "the assets of record 'r0' are a int; give a struct, a map or JSON"),
        (pa.array(['{"red": 17}']), "asset 'red' of record 'r0' is '17'"),
        (pa.array(['{"red": {"href": 17}}']), "asset 'red' of record 'r0' is .* a text 'href'"),
        (
            pa.array(['{"red": {"href": "a.tif", "band_index": "x"}}']),
            "band_index of asset 'red' of record 'r0' is 'x'",
        ),
        (pa.array(['{"red": {"href": "a.tif", "band_index": 1.5}}']), "band_index of asset 'red' .* is 1.5"),
        (pa.array(['{"red": {"href": "a.tif", "nodata": "none"}}']), "nodata of asset 'red' of record 'r0' is 'none'"),
        (pa.array(['{"t": {"href": "a.png"}, "m": {"href": "a.xml"}}']), "no asset .* is a raster .* it has t, m"),
        (pa.array(["{}"]), "no asset of the record table is a raster"),
    ],
)
def test_assets_that_cannot_be_used(scene: Path, assets: pa.Array, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_from_table(table_of(scene, assets=assets))


def test_only_assets_that_are_rasters_are_opened(scene: Path) -> None:
    row = {
        "by_type": asset(scene, type="image/tiff; application=geotiff; profile=cloud-optimized"),
        "jpeg2000": {"href": "gone.jp2", "type": "image/jp2", "roles": ["thumbnail"]},
        "by_role": asset(scene, type="application/x-unheard-of", roles=["data"]),
        "xml": {"href": "gone.xml", "type": "application/xml", "roles": ["data"]},
        "overview": asset(scene, type="image/tiff", roles=["overview"]),
        "preview": {"href": "gone.jpg", "type": "image/jpeg"},
        "by_ending": asset(scene),
        "page": {"href": "gone.html"},
        "roles_alone": asset(scene, roles=["metadata"]),
    }
    table = table_of(scene, assets=pa.array([json.dumps(row)]))
    assert build_from_table(table).bands == ["by_type", "by_role", "by_ending"]
    assert build_from_table(table, band_codes=["overview"]).bands == ["overview"]


def ids_of(*values: Any, kind: pa.DataType | None = None) -> pa.Array:
    return pa.array(values, type=kind)


@pytest.mark.parametrize(
    ("ids", "want"),
    [
        (ids_of(7, 8), ["7", "8"]),
        (ids_of("a", "b", kind=pa.large_string()), ["a", "b"]),
        (ids_of("a", "b").cast(pa.string_view()), ["a", "b"]),
        (ids_of("a", "b").dictionary_encode(), ["a", "b"]),
    ],
)
def test_ids_of_any_type(scene: Path, ids: pa.Array, want: list[str]) -> None:
    table = build_from_table(table_of(scene, id=ids), href_column="path").to_table()
    assert (table["id"].to_pylist(), table["id"].type) == (want, pa.string())


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (ids_of("a", None), "row 1 of the record table has no id"),
        (ids_of("a", "a"), r"record id\(s\) a are given more than once"),
        (ids_of({"a": 1}, {"a": 2}), "column id of the record table is struct"),
        (pa.array([], pa.string()), "the record table has no rows"),
    ],
)
def test_ids_that_cannot_be_used(scene: Path, ids: pa.Array, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_from_table(table_of(scene, id=ids), href_column="path")


SQUARE = shapely.box(1, 2, 3, 4)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([SQUARE.wkb, None]),
        pa.array([SQUARE.wkb, None], pa.large_binary()),
        pa.array([SQUARE.wkt, None]),
        pa.array([SQUARE.wkt, None]).dictionary_encode(),
        pa.array([shapely.to_geojson(SQUARE), None], pa.large_string()),
    ],
)
def test_footprints_of_any_kind(scene: Path, column: pa.Array) -> None:
    table = built(table_of(scene, geometry=column))
    assert table["geometry"].type == pa.binary()
    shapes = shapely.from_wkb(table["geometry"].to_numpy())
    assert shapely.equals(shapes[0], SQUARE)


@pytest.mark.parametrize(
    ("column", "geo", "message"),
    [
        (pa.array([b"none"]), None, "column geometry of record 'r0' is b'none', which is not WKB"),
        (pa.array(["POLYGON(("]), None, "column geometry of record 'r0' is 'POLYGON"),
        (pa.array([{"x": 1.0}]), None, "column geometry of the record table is struct"),
        (pa.array([SQUARE.wkb]), b"{", "GeoParquet metadata .* cannot be read"),
        (pa.array([SQUARE.wkb]), b"[1]", "GeoParquet metadata .* not a JSON object"),
        (
            pa.array([SQUARE.wkb]),
            json.dumps({"columns": {"geometry": {"crs": "EPSG:3857"}}}).encode(),
            "column geometry of the record table is in EPSG:3857",
        ),
    ],
)
def test_footprints_that_cannot_be_used(scene: Path, column: pa.Array, geo: bytes | None, message: str) -> None:
    table = table_of(scene, geometry=column)
    with pytest.raises(InputError, match=message):
        built(table.replace_schema_metadata({b"geo": geo} if geo else None))


def test_views_inside_maps_are_kept(scene: Path, tmp_path: Path) -> None:
    kind = pa.map_(pa.string_view(), pa.list_(pa.string_view()))
    collection = build_from_table(table_of(scene, notes=pa.array([[("a", ["b"])], None], kind)), href_column="path")
    collection.export(tmp_path / "c.parquet")
    assert load(tmp_path / "c.parquet").to_table()["notes"].to_pylist() == [[("a", ["b"])], None]


@pytest.mark.parametrize("number", [2**63 + 1, 2**70, -(2**63) - 1])
def test_ids_of_geojson_beyond_64_bits(scene: Path, number: int) -> None:
    feature = {"type": "Feature", "id": number, "properties": {}, "geometry": {"type": "Point", "coordinates": [3, 48]}}
    with pytest.raises(InputError, match="property 'id' of the GeoJSON features has values beyond 64 bits"):
        build_from_cogs([scene]).sample_points(feature, bands=["B1"])


def stored(collection: Collection, band: str = "red") -> tuple[float | None, float, float]:
    row = collection.to_table()
    extra = row[f"{band}_extra"][0].as_py()
    return row[f"{band}_metadata"][0].as_py()["nodata"], extra["scale"], extra["offset"]


@pytest.mark.parametrize(
    ("of_asset", "of_item"),
    [
        ({"raster:bands": [{"nodata": 7, "scale": 0.5, "offset": -1}]}, {}),
        ({"bands": [{"nodata": 7, "raster:scale": 0.5, "raster:offset": -1}]}, {}),
        ({"bands": [{"name": "B4"}], "nodata": 7, "raster:scale": 0.5, "raster:offset": -1}, {}),
        ({"raster:bands": [{"nodata": "7", "scale": 0.5}], "raster:offset": -1, "nodata": 9}, {"nodata": [8]}),
        ({}, {"nodata": [7], "raster:scale": [0.5], "raster:offset": [-1.0]}),
        ({}, {"raster:bands": [[{"nodata": 7, "scale": 0.5, "offset": -1}]]}),
        ({"nodata": 7, "scale": 0.5, "offset": -1}, {"scale": [9.0], "offset": [9.0]}),
        ({"nodata": 7, "raster:scale": 0.5, "offset": -1, "scale": 9}, {"raster:offset": [9.0]}),
    ],
)
def test_the_table_says_what_the_file_does_not(scene: Path, of_asset: dict, of_item: dict) -> None:
    assets = pa.array([{"red": asset(scene, **of_asset)}])
    assert stored(build_from_table(table_of(scene, assets=assets, **of_item))) == (7.0, 0.5, -1.0)


def test_each_band_of_a_file_has_its_own_entry(tmp_path: Path) -> None:
    path = tmp_path / "two.tif"
    profile = {"driver": "GTiff", "width": 16, "height": 16, "count": 2, "dtype": "float32", "crs": "EPSG:32631"}
    with rasterio.open(path, "w", transform=rasterio.Affine(10, 0, 0, 0, -10, 0), **profile) as out:
        out.write(np.ones((2, 16, 16), "float32"))
    entries = [{"scale": 2.0, "nodata": "nan"}, {"scale": 3.0, "nodata": "-inf"}]
    row = {name: {"href": str(path), "band_index": n, "raster:bands": entries} for n, name in enumerate("ab")}
    collection = build_from_table(table_of(path, assets=pa.array([json.dumps(row)])))
    assert stored(collection, "b") == (-np.inf, 3.0, 0.0)
    nodata, scale, _ = stored(collection, "a")
    assert nodata is not None and np.isnan(nodata) and scale == 2.0


def test_what_file_and_table_say_differently(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Scale and offset are the table's, without a word; nodata is the file's, with a warning."""
    path = write_scene(tmp_path / "s.tif", rasterio.Affine(10, 0, 0, 0, -10, 0), 1)
    with rasterio.open(path, "r+") as raster:
        raster.nodata, raster.scales, raster.offsets = 5, (0.1,), (3.0,)
    said = {"nodata": 6, "raster:scale": 0.2}
    collection = build_from_table(table_of(path, assets=pa.array([{"red": asset(path, **said)}])))
    assert stored(collection) == (5.0, 0.2, 3.0)
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [f"band 'red' of {path} has nodata 5, but the record table has 6; the file's value is kept"]
    back_to_default = {"raster:scale": 1.0, "raster:offset": 0.0}
    collection = build_from_table(table_of(path, assets=pa.array([{"red": asset(path, **back_to_default)}])))
    assert stored(collection) == (5.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"scale": 0}, "scale 0 makes all values equal, as the record table has it for asset 'red' of record 'x'"),
        ({"raster:bands": [{"scale": "nan"}]}, "scale nan is not a finite number, as the record table has it for"),
        ({"bands": [{"raster:offset": "-inf"}]}, "offset -inf is not a finite number, as the record table has it for"),
        ({"offset": "none"}, "offset of asset 'red' of record 'x' is 'none'; it has to be a number"),
        ({"raster:scale": True}, "scale of asset 'red' of record 'x' is True; it has to be a number"),
    ],
)
def test_scales_of_a_table_that_cannot_be_used(scene: Path, said: dict, message: str) -> None:
    assets = pa.array([json.dumps({"red": {"href": str(scene), "band_index": 0} | said})])
    with pytest.raises(InputError, match=re.escape(message)):
        build_from_table(table_of(scene, assets=assets, id=["x"]))


def test_scales_of_assets_without_headers_are_kept(scene: Path, tmp_path: Path) -> None:
    """They are in the assets of the collection, which is a record table again; a column "scale" of records is not."""
    assets = pa.array([{"red": asset(scene, **{"raster:bands": [{"scale": 0.5, "offset": -1.0}]})}])
    shape = pa.array([shapely.to_wkb(shapely.box(3, 48, 3.1, 48.1))])
    table = table_of(scene, assets=assets, scale=[9.0], geometry=shape)
    build_from_table(table, enrich_cog=False).export(tmp_path / "c")
    assert stored(build_from_table(tmp_path / "c"))[1:] == (0.5, -1.0)


@pytest.mark.parametrize("nodata", [-9999.0, float("nan"), 0.5])
def test_a_nodata_value_that_the_dtype_cannot_hold(
    scene: Path, caplog: pytest.LogCaptureFixture, nodata: float
) -> None:
    collection = build_from_table(table_of(scene, assets=pa.array([{"red": asset(scene, nodata=nodata)}])))
    assert stored(collection)[0] is None
    assert f"nodata {nodata:g} of" in caplog.text and "uint16" in caplog.text


def test_a_sparse_tile_is_zero_whatever_nodata_the_table_says(tmp_path: Path) -> None:
    path = tmp_path / "sparse.tif"
    profile = {"driver": "GTiff", "width": 64, "height": 64, "count": 1, "dtype": "uint8", "crs": "EPSG:32631"}
    tiles = {"tiled": True, "blockxsize": 32, "blockysize": 32, "sparse_ok": True}
    with rasterio.open(path, "w", transform=rasterio.Affine(10, 0, 0, 0, -10, 0), **profile, **tiles) as out:
        out.write(np.full((1, 32, 32), 3, "uint8"), window=rasterio.windows.Window(0, 0, 32, 32))
    collection = build_from_table(table_of(path, assets=pa.array([{"red": asset(path, nodata=9)}])))
    points = pa.table({"x": [5.0, 505.0], "y": [-5.0, -505.0]})
    with rasterio.open(path) as raster:
        want = [float(value[0]) for value in raster.sample([(5, -5), (505, -505)])]
    values = collection.sample_points(points, bands=["red"], geometry_crs=32631).sort_by("point_index")["value"]
    assert values.to_pylist() == want == [3.0, 0.0]


def described(path: Path, *names: str | None) -> Path:
    profile = {"driver": "GTiff", "width": 16, "height": 16, "count": len(names), "dtype": "uint8"}
    transform = rasterio.Affine(10, 0, 0, 0, -10, 0)
    with rasterio.open(path, "w", crs="EPSG:32631", transform=transform, **profile) as out:
        out.write(np.zeros((len(names), 16, 16), "uint8"))
        out.descriptions = names
    return path


@pytest.mark.parametrize(
    ("names", "bands"),
    [(("red", "nir"), ["red", "nir"]), (("red", "red"), ["B1", "B2"]), (("red", None), ["B1", "B2"])],
)
def test_bands_are_named_by_the_file_where_asked_for(tmp_path: Path, names: tuple, bands: list[str]) -> None:
    path = described(tmp_path / "d.tif", *names)
    assert build_from_cogs([path], bands="descriptions").bands == bands
    assert build_from_cogs([path]).bands == ["B1", "B2"]
    assert build_from_cogs([path], bands="green").bands == ["green"]


def build_command(tmp_path: Path, *flags: Any) -> Outcome:
    return execute(build_collection.main, *flags, "--output", tmp_path / "built")


@pytest.mark.parametrize(
    ("name", "regex", "want"),
    [
        ("m_2023181_x", r"_(\d{7})", DAY),
        ("m_2023.06_x", r"_(\d{4}\.\d\d)", datetime(2023, 6, 1)),
        (
            "m_A2023181_1030",
            r"A(?P<year>\d{4})(?P<doy>\d{3})_(?P<hour>\d\d)(?P<minute>\d\d)",
            datetime(2023, 6, 30, 10, 30),
        ),
        ("30-06-2023", r"(?P<day>\d\d)-(?P<month>\d\d)-(?P<year>\d{4})", DAY),
        ("v2_2023_07", r"(?P<year>\d{4})_(?P<month>\d\d)", datetime(2023, 7, 1)),
        ("20230630T100000", r"(?P<stamp>\d{8}T\d{6})", MOMENT),
        ("20230630100000", r"(\d{14})", MOMENT),
    ],
)
def test_dates_in_names_of_files(tmp_path: Path, scene: Path, name: str, regex: str, want: datetime) -> None:
    (tmp_path / f"{name}.tif").write_bytes(scene.read_bytes())
    outcome = build_command(tmp_path, "--cogs", tmp_path / f"{name}.tif", "--datetime_regex", regex)
    assert outcome.code == 0, outcome.err
    assert load(tmp_path / "built").to_table()["datetime"].to_pylist() == [want]


@pytest.mark.parametrize(
    ("regex", "message"),
    [
        (
            r"(?P<month>\d\d)\.tif",
            "does not find a datetime in {path}: the pattern has groups month but no group named year",
        ),
        (r"_(?P<year>\d{4})(?P<month>\d\d)", "does not find a datetime in {path}: month must be in 1..12"),
        (r"_(?P<year>\d{4})(?P<doy>\d)(?P<day>\d\d)", "use either a day of the year (doy) or month and day"),
        (r"s_(a)?20", "but its first group is empty"),
        (r"_(\d{5})", "'20231' is not a valid ISO date"),
    ],
)
def test_dates_that_names_do_not_give(tmp_path: Path, scene: Path, regex: str, message: str) -> None:
    outcome = build_command(tmp_path, "--cogs", scene, "--datetime_regex", regex)
    assert outcome.code == 1
    assert "--datetime_regex" in outcome.err and message.format(path=scene) in outcome.err
