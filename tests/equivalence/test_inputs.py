"""Every input of points, eager and as a source of ReadPoints: the same rows, with rasterio's values."""

import datetime
import decimal
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apache_beam as beam
import duckdb
import geopandas
import numpy as np
import pandas
import polars
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import sedonadb
import shapely
from apache_beam.options.pipeline_options import PipelineOptions
from hypothesis import given
from hypothesis import strategies as st
from pyproj import CRS, Transformer

from rasteret_beam import Collection, ReadPoints, SamplePoints, WriteSamplesToParquet
from rasteret_beam.collection.eager.inputs import point_stream
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.tables import point_geometry
from rasteret_beam.kernels.tables.point_columns import choose_columns, point_batch
from tests.support.lookalike import build_lookalike, check, in_order, same_points

LON, LAT = [11.36, 11.44, 11.31], [-0.001, -0.0005, 0.0007]
UTM = Transformer.from_crs("OGC:CRS84", "EPSG:32632", always_xy=True)
EAST, NORTH = (list(values) for values in UTM.transform(LON, LAT))
SHAPES = shapely.points(LON, LAT)
WKB = [bytes(value) for value in shapely.to_wkb(SHAPES)]
LOCAL = ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"]


@pytest.fixture(scope="module")
def aef(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    return build_lookalike(tmp_path_factory.mktemp("aef")).subset(date_range=("2023", "2023"))


@pytest.fixture
def table() -> pa.Table:
    return pa.table({"plot": ["a", "b", "c"], "lon": LON, "lat": LAT})


def wkb_field(crs: Any = None, name: str = "geoarrow.wkb", kind: pa.DataType | None = None) -> pa.Field:
    extension = {"ARROW:extension:name": name, "ARROW:extension:metadata": json.dumps({"crs": crs} if crs else {})}
    return pa.field("geometry", kind or pa.binary(), metadata=extension)


def with_geometry(values: pa.Array, crs: Any = None, name: str = "geoarrow.wkb") -> pa.Table:
    schema = pa.schema([pa.field("plot", pa.string()), wkb_field(crs, name, values.type)])
    return pa.Table.from_arrays([pa.array(["a", "b", "c"]), values], schema=schema)


def feature(x: float, y: float, **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": {"type": "Point", "coordinates": [x, y]}, "properties": properties}


def piped(points: Any, collection: Collection, folder: Path, **options: Any) -> pa.Table:
    """What the pipeline writes for points given as a source of ReadPoints."""
    with beam.Pipeline(options=PipelineOptions(LOCAL)) as pipeline:
        samples = pipeline | ReadPoints(points, **options) | SamplePoints(collection, ["A00", "A01"])
        samples | WriteSamplesToParquet(str(folder / "s"))
    return pa.concat_tables(pq.read_table(path) for path in sorted(folder.glob("s-*.parquet")))


def from_duckdb(table: pa.Table) -> Any:
    connection = duckdb.connect()
    connection.register("points", table)
    return connection.sql("SELECT * FROM points")


def sedona_frame(table: pa.Table, sql: str) -> Any:
    connection = sedonadb.connect()
    connection.create_data_frame(table).to_view("points")
    return connection.sql(sql)


def frame() -> geopandas.GeoDataFrame:
    return geopandas.GeoDataFrame({"plot": ["a", "b", "c"]}, geometry=list(SHAPES), crs="OGC:CRS84")


TABLES: dict[str, Callable[[pa.Table], Any]] = {
    "table": lambda table: table,
    "chunked table": lambda table: pa.concat_tables([table.slice(0, 1), table.slice(1, 0), table.slice(1)]),
    "record batch": lambda table: table.combine_chunks().to_batches()[0],
    "reader": lambda table: table.to_reader(),
    "dataset": lambda table: ds.dataset(table),
    "polars": lambda table: polars.from_arrow(table),
    "duckdb": from_duckdb,
    "duckdb arrow reader": lambda table: from_duckdb(table).to_arrow_reader(2),
    "sedonadb": lambda table: sedona_frame(table, "SELECT plot, lon, lat FROM points"),
    "pandas": lambda table: table.to_pandas(),
    "pandas filtered": lambda table: table.to_pandas().set_index(pandas.Index([9, 3, 5])),
}
GEOMETRY_TABLES: dict[str, Callable[[], Any]] = {
    "geopandas": frame,
    "geopandas wkb": lambda: frame().to_arrow(geometry_encoding="WKB"),
    "geopandas separated": lambda: frame().to_arrow(geometry_encoding="geoarrow", interleaved=False),
    "geopandas interleaved": lambda: frame().to_arrow(geometry_encoding="geoarrow", interleaved=True),
    "geopandas projected": lambda: frame().to_crs(32632),
    "geopandas with other geometries": lambda: frame().assign(area=shapely.box(0, 0, 1, 1)),
    "polars wkb": lambda: polars.DataFrame({"plot": ["a", "b", "c"], "geom": WKB}),
    "duckdb wkb": lambda: duckdb.sql(
        "SELECT plot, ST_AsWKB(g) AS geometry FROM (VALUES "
        + ", ".join(f"('{p}', 'POINT({x} {y})'::GEOMETRY)" for p, x, y in zip("abc", LON, LAT, strict=True))
        + ") v(plot, g)"
    ),
    "pandas with shapely": lambda: pandas.DataFrame({"plot": ["a", "b", "c"], "where": list(SHAPES)}),
    "pandas with wkb": lambda: pandas.DataFrame({"plot": ["a", "b", "c"], "geometry": WKB}),
}
LISTS: dict[str, Callable[[], Any]] = {
    "shapely": lambda: list(SHAPES),
    "shapely array": lambda: SHAPES,
    "wkb": lambda: WKB,
    "multipoints of one": lambda: [shapely.MultiPoint([xy]) for xy in zip(LON, LAT, strict=True)],
    "geoseries": lambda: geopandas.GeoSeries(list(SHAPES), crs=4326),
    "series": lambda: pandas.Series(list(SHAPES), dtype=object),
    "arrow array": lambda: pa.array(WKB),
    "geoarrow array": lambda: frame().geometry.to_arrow(geometry_encoding="geoarrow"),
    "geojson points": lambda: [json.loads(text) for text in shapely.to_geojson(SHAPES)],
    "geojson texts": lambda: list(shapely.to_geojson(SHAPES)),
    "features": lambda: [feature(*xy) for xy in zip(LON, LAT, strict=True)],
    "collection": lambda: {
        "type": "FeatureCollection",
        "features": [feature(*xy) for xy in zip(LON, LAT, strict=True)],
    },
}


@pytest.mark.parametrize("kind", TABLES)
def test_tables_with_coordinate_columns(aef: Collection, table: pa.Table, kind: str, tmp_path: Path) -> None:
    samples = aef.sample_points(TABLES[kind](table), ["A00", "A01"], geometry_crs=4326)
    check(samples, aef, 6)
    assert same_points(samples, LON, LAT)
    assert samples.schema.names[10:] == ["plot", "lon", "lat"]
    kept = in_order(samples).select(["plot", "lon", "lat"]).to_pylist()
    assert kept == [row for row in table.to_pylist() for _ in range(2)]
    written = piped(TABLES[kind](table), aef, tmp_path, geometry_crs=4326)
    assert in_order(written).equals(in_order(samples))


@pytest.mark.parametrize("kind", GEOMETRY_TABLES)
def test_tables_with_geometries(aef: Collection, kind: str, tmp_path: Path) -> None:
    crs = None if "geopandas" in kind else 4326
    samples = aef.sample_points(GEOMETRY_TABLES[kind](), ["A00", "A01"], geometry_crs=crs)
    projected = kind == "geopandas projected"
    check(samples, aef, 6, "EPSG:32632" if projected else "OGC:CRS84")
    assert set(samples["point_crs"].to_pylist()) == {32632 if projected else 4326}
    assert in_order(samples)["plot"].to_pylist() == ["a", "a", "b", "b", "c", "c"]
    written = piped(GEOMETRY_TABLES[kind](), aef, tmp_path, geometry_crs=crs)
    assert in_order(written).equals(in_order(samples))


@pytest.mark.parametrize("kind", LISTS)
def test_convenience_inputs(aef: Collection, kind: str, tmp_path: Path) -> None:
    needs_crs = kind in ("shapely", "shapely array", "wkb", "series", "arrow array", "multipoints of one")
    if needs_crs:
        with pytest.raises(InputError, match="has no CRS; give it with geometry_crs"):
            aef.sample_points(LISTS[kind](), ["A00"])
    crs = 4326 if needs_crs else None
    samples = aef.sample_points(LISTS[kind](), ["A00", "A01"], geometry_crs=crs)
    check(samples, aef, 6)
    assert same_points(samples, LON, LAT)
    assert in_order(piped(LISTS[kind](), aef, tmp_path, geometry_crs=crs)).equals(in_order(samples))


def test_single_geometries(aef: Collection) -> None:
    for point in (SHAPES[0], WKB[0], bytearray(WKB[0]), shapely.to_geojson(SHAPES[0]), feature(LON[0], LAT[0])):
        crs = None if isinstance(point, str | dict) else 4326
        check(aef.sample_points(point, ["A00"], geometry_crs=crs), aef, 1)


def test_empty_inputs_give_empty_tables(aef: Collection, table: pa.Table) -> None:
    collection = {"type": "FeatureCollection", "features": []}
    for points, crs in (([], 4326), (collection, None), (json.dumps(collection), None), (table.slice(0, 0), 4326)):
        assert len(aef.sample_points(points, ["A00"], geometry_crs=crs)) == 0


def test_missing_values_of_a_series_are_null(aef: Collection) -> None:
    points = pandas.Series([SHAPES[0], np.nan, None], dtype=object)
    samples, unsampled = aef.sample_points(points, ["A00"], geometry_crs=4326, return_unsampled=True)
    check(samples, aef, 1)
    assert unsampled["reason"].to_pylist() == ["null", "null"]


def test_sedonadb_geometries(aef: Collection, table: pa.Table) -> None:
    wkb = sedona_frame(table, "SELECT plot, ST_AsBinary(ST_Point(lon, lat)) AS geometry FROM points")
    check(aef.sample_points(wkb, ["A00"], geometry_column="geometry", geometry_crs=4326), aef, 3)
    declared = sedona_frame(table, "SELECT plot, ST_SetSRID(ST_Point(lon, lat), 4326) AS spot FROM points")
    check(aef.sample_points(declared, ["A00"]), aef, 3)
    silent = sedona_frame(table, "SELECT plot, ST_Point(lon, lat) AS spot FROM points")
    with pytest.raises(InputError, match="geometry column 'spot' of the point table has no CRS"):
        aef.sample_points(silent, ["A00"])


def test_duckdb_geometries_need_no_conversion_where_duckdb_declares_them(aef: Collection) -> None:
    points = duckdb.sql(f"SELECT 'a' AS plot, 'POINT({LON[0]} {LAT[0]})'::GEOMETRY AS spot")
    check(aef.sample_points(points, ["A00"], geometry_crs=4326), aef, 1)


def test_properties_of_features_are_kept(aef: Collection) -> None:
    first, second = feature(LON[0], LAT[0], plot="a", n=1), feature(LON[1], LAT[1], plot="b") | {"id": "f2"}
    none = {"type": "Feature", "geometry": None, "properties": {"plot": "c"}}
    given = {"type": "FeatureCollection", "features": [first, second, none]}
    samples, unsampled = aef.sample_points(given, ["A00"], return_unsampled=True)
    rows = in_order(samples).select(["plot", "n", "id"]).to_pylist()
    assert rows == [{"plot": "a", "n": 1, "id": None}, {"plot": "b", "n": None, "id": "f2"}]
    assert unsampled.select(["reason", "plot"]).to_pylist() == [{"reason": "null", "plot": "c"}]


def test_older_geojson_says_its_crs(aef: Collection) -> None:
    named = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32632"}}
    given = {"type": "FeatureCollection", "crs": named, "features": [feature(EAST[0], NORTH[0])]}
    check(aef.sample_points(given, ["A00"]), aef, 1, "EPSG:32632")


def test_geojson_in_another_crs_than_said_is_refused(aef: Collection) -> None:
    with pytest.raises(InputError, match=r"geometry_crs is EPSG:32632, but column 'geometry' .* says OGC:CRS84"):
        aef.sample_points(feature(1, 2), ["A00"], geometry_crs=32632)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ((11.36, -0.001), "points are a tuple of float; give an Arrow table or dataset"),
        ([(11.36, -0.001)], "points are a list of tuple"),
        (np.zeros((2, 2)), "points are a ndarray"),
        ({"lon": [1], "lat": [2]}, "points are a dict"),
        (7, "points are a int"),
        ("points.parquet", "points are a str"),
        (polars.LazyFrame({"lon": [1.0]}), "points are a LazyFrame.*collect a lazy frame first"),
        (polars.Series([b"1"]), "points are a Series whose Arrow stream is not a table"),
        ({"type": "Pint"}, "is a dict with type 'Pint'; GeoJSON has a Feature"),
        ([b"junk"], "number 0 of the points is not valid WKB: b'junk'"),
        (['{"type": "Point"}'], "number 0 of the points is not valid GeoJSON"),
        (['{"type": '], "number 0 of the points is not GeoJSON"),
        ({"type": "FeatureCollection", "features": [None]}, "number 0 of the points has a feature that is a NoneType"),
        ([SHAPES[0], feature(1, 2)], "some of the points are in OGC:CRS84, but number 0 says no CRS"),
        ([shapely.box(0, 0, 1, 1)], "row 0 of column 'geometry' is POLYGON"),
    ],
)
def test_what_is_no_input_is_named(aef: Collection, points: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        aef.sample_points(points, ["A00"], geometry_crs=4326)


def test_large_streams_are_drawn_batch_by_batch(aef: Collection) -> None:
    batch = pa.RecordBatch.from_pydict({"lon": [11.36] * 1000, "lat": [-0.001] * 1000})
    drawn = []

    def batches() -> Any:
        for number in range(50):
            drawn.append(number)
            yield batch

    stream = point_stream(pa.RecordBatchReader.from_batches(batch.schema, batches()))
    assert drawn == []
    next(iter(stream))
    assert len(drawn) <= 2


def test_a_dataset_on_disk_is_scanned_in_file_order(aef: Collection, tmp_path: Path) -> None:
    for number in range(3):
        pq.write_table(
            pa.table({"x": [LON[number]], "y": [LAT[number]], "n": [number]}), tmp_path / f"{number}.parquet"
        )
    samples = aef.sample_points(ds.dataset(tmp_path), ["A00"], geometry_crs=4326)
    assert in_order(samples)["n"].to_pylist() == [0, 1, 2]
    assert in_order(samples)["point_index"].to_pylist() == [0, 1, 2]


def chosen(names: dict[str, pa.DataType] | pa.Schema, **options: Any) -> tuple[str | None, str | None, str | None]:
    schema = names if isinstance(names, pa.Schema) else pa.schema(list(names.items()))
    found = choose_columns(schema, **{"geometry_crs": 4326, **options})
    return found.x, found.y, found.geometry


NUMBER, TEXT = pa.float64(), pa.string()


@pytest.mark.parametrize(
    "pair", [("x", "y"), ("lon", "lat"), ("longitude", "latitude"), ("lng", "lat"), ("LON", "Lat")]
)
def test_coordinate_columns_are_inferred(pair: tuple[str, str]) -> None:
    assert chosen({"id": TEXT, pair[1]: NUMBER, pair[0]: NUMBER}) == (*pair, None)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["x", "y", "lon", "lat"], "more than one column"),
        (["lon", "lng", "lat"], "more than one column"),
        (["lon", "Lon", "lat"], "more than one column"),
        (["lon", "latitude"], "no column known as a point"),
        (["easting", "northing"], "no column known as a point"),
    ],
)
def test_ambiguous_and_missing_columns_are_listed(names: list[str], problem: str) -> None:
    with pytest.raises(InputError, match=f"{problem}.*it has {', '.join(names)}. Give x_column and y_column"):
        chosen(dict.fromkeys(names, NUMBER))


def test_a_geometry_column_that_says_so_goes_before_coordinate_columns() -> None:
    plain = [pa.field("lon", NUMBER), pa.field("lat", NUMBER)]
    assert chosen(pa.schema([*plain, wkb_field()])) == (None, None, "geometry")
    assert chosen(pa.schema([*plain, pa.field("geometry", pa.binary())])) == ("lon", "lat", None)
    assert chosen(pa.schema([*plain, wkb_field()]), x_column="lon", y_column="lat") == ("lon", "lat", None)
    assert chosen({"id": TEXT, "geom": pa.binary()}) == (None, None, "geom")
    assert chosen(
        pa.schema([wkb_field(), wkb_field().with_name("old")]).with_metadata(
            {"geo": json.dumps({"primary_column": "old", "columns": {"old": {"crs": None}}})}
        )
    ) == (None, None, "old")
    with pytest.raises(InputError, match="more than one column"):
        chosen(pa.schema([wkb_field(), wkb_field().with_name("old")]))


def test_columns_of_one_name_are_refused() -> None:
    with pytest.raises(InputError, match="more than one column named plot"):
        chosen(pa.schema([("x", NUMBER), ("y", NUMBER), ("plot", TEXT), ("plot", TEXT)]))


@pytest.mark.parametrize("kind", ["binary", "large_binary", "binary_view"])
@pytest.mark.parametrize("form", ["plain", "big-endian", "z", "iso z", "mixed", "multipoint", "nulls"])
def test_wkb_of_every_form(aef: Collection, kind: str, form: str) -> None:
    shapes = SHAPES.copy()
    options: dict[str, Any] = {"byte_order": 0} if form == "big-endian" else {}
    if form in ("z", "iso z"):
        shapes = shapely.points(LON, LAT, [1.0, 2.0, 3.0])
        options = {"flavor": "iso" if form == "iso z" else "extended"}
    if form == "mixed":
        shapes[1] = shapely.Point(LON[1], LAT[1], 5)
    if form == "multipoint":
        shapes[2] = shapely.MultiPoint([(LON[2], LAT[2])])
    values = [*shapely.to_wkb(shapes, **options)]
    if form == "nulls":
        values[1] = None
    column = pa.array([b"junk", *values]).cast(getattr(pa, kind)()).slice(1)
    samples = aef.sample_points(with_geometry(column, "OGC:CRS84"), ["A00"])
    check(samples, aef, 2 if form == "nulls" else 3)


@given(
    st.lists(st.none() | st.tuples(st.floats(), st.floats()), max_size=30),
    st.sampled_from(["xy", "z", "srid"]),
    st.booleans(),
)
def test_wkb_read_at_once_equals_shapely(points: list, form: str, large: bool) -> None:
    shapes = np.array(
        [p and shapely.Point(*p, *([1.0] if form == "z" else [])) for p in points] or [None], dtype=object
    )
    if form == "srid":
        shapes = shapely.set_srid(shapes, 4326)
    values = shapely.to_wkb(shapes, include_srid=form == "srid")
    column = pa.array([b"?" * 21, *values], type=pa.large_binary() if large else pa.binary()).slice(1)
    fast, slow = point_geometry._alike_wkb_points(column), point_geometry._any_wkb_points(column, 0, "g")
    if fast is None:
        assert all(value is None for value in values)
        return
    for one, other in zip(fast, slow, strict=True):
        np.testing.assert_array_equal(one, other)


def test_null_and_empty_points_are_unsampled_with_a_reason(aef: Collection) -> None:
    empty = [shapely.Point(), shapely.MultiPoint(), shapely.Point(float("nan"), 1.0), None]
    columns = [
        with_geometry(pa.array([*shapely.to_wkb(empty[:2]), None]), 4326),
        geopandas.GeoDataFrame({"plot": list("abc")}, geometry=[empty[0], empty[2], None], crs=4326),
        geopandas.GeoDataFrame({"plot": list("abc")}, geometry=[empty[0], empty[2], None], crs=4326).to_arrow(
            geometry_encoding="geoarrow", interleaved=True
        ),
        [empty[0], empty[1], None],
        [json.loads('{"type": "Point", "coordinates": []}')] * 2 + [None],
    ]
    for points in columns:
        crs = 4326 if isinstance(points, list) and not isinstance(points[0], dict) else None
        samples, unsampled = aef.sample_points(points, ["A00"], geometry_crs=crs, return_unsampled=True)
        assert len(samples) == 0
        assert unsampled["reason"].to_pylist() == ["not_finite", "not_finite", "null"]


@pytest.mark.parametrize("axes", ["xy", "xyz", "xym", "xyzm"])
@pytest.mark.parametrize("separated", [True, False])
def test_native_geoarrow(aef: Collection, axes: str, separated: bool) -> None:
    ordinates = [LON, LAT, [7.0] * 3, [8.0] * 3][: len(axes)]
    if separated:
        column: pa.Array = pa.StructArray.from_arrays([pa.array(values) for values in ordinates], names=list(axes))
    else:
        flat = pa.array(np.array(ordinates).T.ravel())
        column = pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(pa.field(axes, pa.float64()), len(axes)))
    samples = aef.sample_points(with_geometry(column, "OGC:CRS84", "geoarrow.point"), ["A00"])
    check(samples, aef, 3)


def test_native_multipoints_of_one(aef: Collection) -> None:
    points = pa.StructArray.from_arrays([pa.array(LON), pa.array(LAT)], names=["x", "y"])
    column = pa.ListArray.from_arrays(pa.array([0, 1, 1, 2]), points)
    table = with_geometry(column, 4326, "geoarrow.multipoint")
    samples, unsampled = aef.sample_points(table, ["A00"], return_unsampled=True)
    check(samples, aef, 2)
    assert unsampled["reason"].to_pylist() == ["not_finite"]
    with pytest.raises(InputError, match="row 1 of column 'geometry' is a MultiPoint of 2 points"):
        two = pa.ListArray.from_arrays(pa.array([0, 1, 3, 3]), points)
        aef.sample_points(with_geometry(two, 4326, "geoarrow.multipoint"), ["A00"])


@pytest.mark.parametrize(
    "crs",
    [
        "EPSG:32632",
        CRS.from_epsg(32632).to_json_dict(),
        CRS.from_epsg(32632).to_wkt(),
        CRS.from_epsg(32632).to_wkt("WKT1_GDAL"),
        "32632",
    ],
    ids=["authority", "projjson", "wkt2", "wkt1", "srid"],
)
def test_crs_of_geoarrow(aef: Collection, crs: Any) -> None:
    table = with_geometry(pa.array(shapely.to_wkb(shapely.points(EAST, NORTH))), crs)
    samples = aef.sample_points(table, ["A00"])
    check(samples, aef, 3, "EPSG:32632")
    assert set(samples["point_crs"].to_pylist()) == {32632}
    assert aef.sample_points(table, ["A00"], geometry_crs=32632).equals(samples)
    with pytest.raises(InputError, match=r"geometry_crs is EPSG:4326, but column 'geometry' .* says EPSG:32632"):
        aef.sample_points(table, ["A00"], geometry_crs=4326)


def test_geoparquet_of_geopandas(aef: Collection, tmp_path: Path) -> None:
    for encoding in ("WKB", "geoarrow"):
        path = tmp_path / f"{encoding}.parquet"
        frame().to_crs(32632).to_parquet(path, geometry_encoding=encoding)
        check(aef.sample_points(pq.read_table(path), ["A00"]), aef, 3, "EPSG:32632")
        check(piped(str(path), aef, tmp_path), aef, 6, "EPSG:32632")
    geo = json.dumps({"primary_column": "geometry", "columns": {"geometry": {"encoding": "WKB"}}})
    silent = with_geometry(pa.array(WKB)).replace_schema_metadata({"geo": geo})
    check(aef.sample_points(silent, ["A00"]), aef, 3)  # a missing crs means longitude and latitude


def test_two_descriptions_that_contradict_each_other() -> None:
    schema = pa.schema([wkb_field("EPSG:4326")])
    geo = {"primary_column": "geometry", "columns": {"geometry": {"crs": CRS.from_epsg(32632).to_json_dict()}}}
    with pytest.raises(
        InputError, match="CRS EPSG:4326 in its Parquet type or GeoArrow metadata, but EPSG:32632 in the "
    ):
        choose_columns(schema.with_metadata({"geo": json.dumps(geo)}))


def ewkb(srids: list[int]) -> pa.Array:
    return pa.array(shapely.to_wkb(shapely.set_srid(shapely.points(EAST, NORTH), srids), include_srid=True))


def test_ewkb_brings_its_crs(aef: Collection, tmp_path: Path) -> None:
    table = with_geometry(ewkb([32632] * 3))
    check(aef.sample_points(table, ["A00"]), aef, 3, "EPSG:32632")
    pq.write_table(table, tmp_path / "p.parquet")
    check(piped(str(tmp_path / "p.parquet"), aef, tmp_path), aef, 6, "EPSG:32632")
    after_null = pa.Table.from_arrays([pa.array([None] * 3, pa.binary())], schema=table.select(["geometry"]).schema)
    check(aef.sample_points(pa.concat_tables([after_null, table.select(["geometry"])]), ["A00"]), aef, 3, "EPSG:32632")
    shapes = list(shapely.set_srid(shapely.points(EAST, NORTH), 32632))
    check(aef.sample_points(shapes, ["A00"]), aef, 3, "EPSG:32632")


@pytest.mark.parametrize(
    ("srids", "crs", "message"),
    [
        ([32632, 32632, 4326], None, "row 2 of column 'geometry' has SRID 4326, but the points' CRS is EPSG:32632"),
        ([32632, 0, 32632], None, "row 1 of column 'geometry' has no SRID"),
        ([32632] * 3, 4326, r"row 0 of column 'geometry' has SRID 32632, but the points' CRS is EPSG:4326"),
        ([999999] * 3, None, "has SRID 999999, which is not an EPSG code; give it with geometry_crs"),
    ],
)
def test_srids_that_do_not_fit(aef: Collection, srids: list[int], crs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        aef.sample_points(with_geometry(ewkb(srids)), ["A00"], geometry_crs=crs)


def test_rows_without_srid_are_in_the_crs_given(aef: Collection) -> None:
    check(aef.sample_points(with_geometry(ewkb([32632, 0, 0])), ["A00"], geometry_crs=32632), aef, 3, "EPSG:32632")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([WKB[0], shapely.to_wkb(shapely.LineString([(0, 0), (1, 1)])), None], "row 1 of column .* is LINESTRING"),
        ([*WKB[:2], shapely.to_wkb(shapely.MultiPoint([(0, 0), (1, 1)]))], "row 2 of column .* is MULTIPOINT"),
        ([*WKB[:2], b"\x01\x01"], r"row 2 of column 'geometry' is not WKB: b'\\x01\\x01'"),
    ],
)
def test_other_geometries_are_named_with_their_row(aef: Collection, values: list, message: str) -> None:
    with pytest.raises(InputError, match=message):
        aef.sample_points(with_geometry(pa.array(values), 4326), ["A00"])


@pytest.mark.parametrize(
    ("field", "message"),
    [
        (pa.field("geometry", pa.int64()), "column 'geometry' of the point table is int64; a geometry column holds"),
        (wkb_field(name="geoarrow.polygon"), "is geoarrow.polygon; only points can be sampled"),
        (pa.field("geometry", pa.list_(pa.float64(), 7)), "a geometry column holds WKB"),
    ],
)
def test_columns_that_hold_no_points_are_refused_before_anything_is_read(field: pa.Field, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_columns(pa.schema([field]), geometry_column="geometry", geometry_crs=4326)


def test_files_in_different_crss_are_refused(aef: Collection, tmp_path: Path) -> None:
    frame().to_parquet(tmp_path / "a.parquet")
    frame().to_crs(32632).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(
        Exception, match=r"b.parquet is in EPSG:32632, but the points of the first file are in OGC:CRS84"
    ):
        piped(str(tmp_path), aef, tmp_path / "out")


MOMENT = datetime.datetime(2023, 5, 1, 12, tzinfo=datetime.UTC)
KEPT = {
    "dictionary": pa.array(["u", None, "u"]).dictionary_encode(),
    "decimal": pa.array([decimal.Decimal("1.20"), None, decimal.Decimal("-3.00")], pa.decimal128(10, 2)),
    "zoned": pa.array([MOMENT, None, MOMENT], pa.timestamp("us", "Europe/Paris")),
    "list": pa.array([[1, 2], None, []]),
    "struct": pa.array([{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}]),
    "large_string": pa.array(["p", None, "q"], pa.large_string()),
    "date": pa.array([MOMENT.date(), None, MOMENT.date()]),
    "binary": pa.array([b"\x00\xff", None, b""]),
    "bool": pa.array([True, None, False]),
    "null": pa.nulls(3),
    "map": pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())),
    "time": pa.array([1, None, 3], pa.time64("us")),
    "small": pa.array([1, None, 3], pa.int8()),
    "uuid": pa.array([b"0" * 16, None, b"1" * 16], pa.uuid()),
}
VIEWS = {
    "string_view": (pa.array(["a", None, "b" * 40], pa.string_view()), pa.string()),
    "binary_view": (pa.array([b"a", None, b"b" * 40], pa.binary_view()), pa.binary()),
    "list of views": (pa.array([["a"], None, []], pa.large_list(pa.string_view())), pa.large_list(pa.string())),
    "struct of views": (pa.array([{"s": "a"}, None, {"s": "b"}], pa.struct([("s", pa.string_view())])), None),
    "run-end encoded": (pa.RunEndEncodedArray.from_arrays([2, 3], [1, 2]), pa.int64()),
}


def sampled_with(aef: Collection, columns: dict[str, pa.Array]) -> tuple[pa.Table, pa.Table]:
    points = pa.table({"lon": [*LON[:2], 50.0], "lat": LAT, **columns})
    samples, unsampled = aef.sample_points(points, ["A00"], geometry_crs=4326, return_unsampled=True)
    return in_order(samples), unsampled


def test_kept_columns_have_their_types_and_values(aef: Collection, tmp_path: Path) -> None:
    samples, unsampled = sampled_with(aef, KEPT)
    for name, column in KEPT.items():
        assert samples.schema.field(name).type == unsampled.schema.field(name).type == column.type
        assert samples[name].to_pylist() == column.slice(0, 2).to_pylist()
        assert unsampled[name].to_pylist() == column.slice(2).to_pylist()
    points = pa.table({"lon": LON, "lat": LAT, **KEPT})
    pq.write_table(points, tmp_path / "points.parquet")
    for source in (points, str(tmp_path / "points.parquet")):
        written = in_order(piped(source, aef, tmp_path, geometry_crs=4326))
        for name, column in KEPT.items():
            assert written.schema.field(name).type == column.type
            assert written[name].to_pylist() == [value for value in column.to_pylist() for _ in range(2)]


@pytest.mark.parametrize("name", VIEWS)
def test_types_that_arrow_cannot_take_rows_of_become_plain_ones(aef: Collection, name: str) -> None:
    column, kind = VIEWS[name]
    samples, unsampled = sampled_with(aef, {"kept": column})
    assert samples["kept"].to_pylist() + unsampled["kept"].to_pylist() == column.to_pylist()
    assert samples.schema.field("kept").type == (kind or pa.struct([("s", pa.string())]))


def test_polars_types_are_kept(aef: Collection, tmp_path: Path) -> None:
    points = polars.DataFrame(
        {
            "lon": LON,
            "lat": LAT,
            "category": polars.Series(["a", "b", "a"], dtype=polars.Categorical),
            "level": polars.Series(["lo", "hi", "lo"], dtype=polars.Enum(["lo", "hi"])),
            "tags": [["a"], [], ["b", "c"]],
            "where": [{"name": "p"}, {"name": "q"}, None],
        }
    )
    samples = in_order(aef.sample_points(points, ["A00"], geometry_crs=4326))
    assert samples.schema.field("level").type == pa.dictionary(pa.uint8(), pa.string(), ordered=True)
    kept = ["category", "level", "tags", "where"]
    assert samples.select(kept).to_pylist() == points.select(kept).to_dicts()
    written = in_order(piped(points, aef, tmp_path, geometry_crs=4326))
    assert written.select(kept).to_pylist() == [row for row in points.select(kept).to_dicts() for _ in range(2)]


@pytest.mark.parametrize("name", ["value", "band", "point_index", "record_id", "neighbourhood_values", "reason"])
def test_collisions_with_output_columns_are_named(aef: Collection, table: pa.Table, name: str) -> None:
    clash = table.append_column(name, pa.array([1, 2, 3]))
    with pytest.raises(InputError, match=rf"the point table has column\(s\) named {name}, .*rename them"):
        aef.sample_points(clash, ["A00"], geometry_crs=4326)
    with pytest.raises(InputError, match=rf"named {name}, which the sample table needs"):
        ReadPoints(clash, geometry_crs=4326).point_columns()
    assert ReadPoints(clash, geometry_crs=4326, columns=["plot"]).point_columns().kept == ("plot",)


def test_coordinate_columns_named_as_sample_columns_are_dropped(
    aef: Collection, table: pa.Table, tmp_path: Path
) -> None:
    """They say what the sample columns of their names say; any other column of such a name is still refused."""
    wanted = in_order(aef.sample_points(table, ["A00", "A01"], geometry_crs=4326, columns=["plot"]))
    named = table.rename_columns(["plot", "point_x", "point_y"])
    reading = {"x_column": "point_x", "y_column": "point_y", "geometry_crs": 4326}
    assert in_order(aef.sample_points(named, ["A00", "A01"], **reading)).equals(wanted)
    pq.write_table(named, tmp_path / "points.parquet")
    for source in (named, str(tmp_path / "points.parquet")):
        assert in_order(piped(source, aef, tmp_path, **reading)).equals(wanted)
    one = table.rename_columns(["plot", "point_x", "lat"])
    samples = in_order(aef.sample_points(one, ["A00", "A01"], **reading | {"y_column": "lat"}))
    assert samples.drop_columns(["lat"]).equals(wanted) and samples.schema.names[10:] == ["plot", "lat"]
    for clash, options in (
        (named.append_column("value", pa.array(LON)), reading),
        (table.append_column("point_x", pa.array(LON)), reading | {"x_column": "lon", "y_column": "lat"}),
        (named, reading | {"columns": ["point_x"]}),
    ):
        with pytest.raises(InputError, match=r"has column\(s\) named (value|point_x), which the sample table needs"):
            aef.sample_points(clash, ["A00"], **options)


def test_the_index_of_pandas_is_kept_where_it_has_a_name(aef: Collection) -> None:
    points = pandas.DataFrame({"lon": LON, "lat": LAT}, index=pandas.Index(["p", "q", "r"], name="plot"))
    assert in_order(aef.sample_points(points, ["A00"], geometry_crs=4326))["plot"].to_pylist() == ["p", "q", "r"]


def test_frames_that_cannot_be_used_are_refused(aef: Collection) -> None:
    mixed = pandas.DataFrame({"geometry": pandas.Series([SHAPES[0], "POINT (1 2)", None], dtype=object)})
    with pytest.raises(
        InputError, match="row 1 of column 'geometry' is 'POINT \\(1 2\\)', but other rows are geometries"
    ):
        aef.sample_points(mixed, ["A00"], geometry_crs=4326)
    with pytest.raises(InputError, match="several columns of one name"):
        aef.sample_points(pandas.DataFrame([[1, 2]], columns=["x", "x"]), ["A00"], geometry_crs=4326)
    objects = pandas.DataFrame({"x": [1.0], "y": [2.0], "junk": [object()]})
    with pytest.raises(InputError, match=r"cannot be turned into an Arrow table.*column junk"):
        aef.sample_points(objects, ["A00"], geometry_crs=4326)


def test_a_source_that_can_be_drawn_once_is_drawn_once(aef: Collection, table: pa.Table) -> None:
    reading = ReadPoints(table.to_reader(), geometry_crs=4326)
    assert reading.point_columns().kept == ("plot", "lon", "lat")
    with beam.Pipeline(options=PipelineOptions(LOCAL)) as pipeline:
        pipeline | reading
    assert sum(len(batch) for batch in reading.batches() or []) == 3


def test_row_numbers_go_on_over_batches(table: pa.Table) -> None:
    columns = choose_columns(table.schema, geometry_crs=4326)
    batch = point_batch(table.to_batches()[0], 40, columns)
    assert batch["point_index"].to_pylist() == [40, 41, 42]
