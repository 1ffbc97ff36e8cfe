"""Parquet's own types GEOMETRY and GEOGRAPHY: their CRS counts, for points and for polygons."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import shapely
from pyproj import CRS

from rasteret_beam import ReadPoints, ReadPolygons
from rasteret_beam.collection.eager.inputs import point_stream
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.tables.native_geometry import native_types
from rasteret_beam.kernels.tables.point_geometry import data_crs

UTM32 = CRS.from_epsg(32632)
POINT, TRIANGLE = shapely.Point(500_005, 5_000_635), shapely.Polygon([(0, 0), (1, 0), (1, 1)])

Write = Callable[..., str]


class Wkb(pa.ExtensionType):
    """WKB that Arrow writes with Parquet's type while it is registered."""

    def __init__(self, says: str):
        self.says = says
        super().__init__(pa.binary(), "geoarrow.wkb")

    def __arrow_ext_serialize__(self) -> bytes:
        return self.says.encode()

    @classmethod
    def __arrow_ext_deserialize__(cls, storage: pa.DataType, says: bytes) -> "Wkb":
        return cls(says.decode())


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def of(
        says: dict[str, Any],
        shape: shapely.Geometry = POINT,
        name: str = "p.parquet",
        keys: dict[str, Any] | None = None,
        store_schema: bool = False,
    ) -> str:
        shapes = pa.ExtensionArray.from_storage(Wkb(json.dumps(says)), pa.array([shapely.to_wkb(shape)]))
        table = pa.table({"geometry": shapes, "plot": ["a"]})
        pa.register_extension_type(Wkb("{}"))
        try:
            with pq.ParquetWriter(tmp_path / name, table.schema, store_schema=store_schema) as writer:
                writer.add_key_value_metadata({key: json.dumps(value) for key, value in (keys or {}).items()})
                writer.write_table(table)
        finally:
            pa.unregister_extension_type("geoarrow.wkb")
        assert native_types(pq.read_metadata(tmp_path / name)).keys() == {"geometry"}
        return str(tmp_path / name)

    return of


def crs_of(path: str, **settings: Any) -> str:
    reading = ReadPoints(path, **settings)
    (batch,) = reading.batches()
    assert (batch["point_x"][0].as_py(), batch["point_y"][0].as_py()) == (POINT.x, POINT.y)
    return reading.point_columns().crs


def geo(**column: Any) -> dict[str, Any]:
    described = {"encoding": "WKB", "geometry_types": []} | column
    return {"geo": {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": described}}}


@pytest.mark.parametrize("store_schema", [False, True])
@pytest.mark.parametrize(
    ("says", "expected"),
    [
        ({}, "OGC:CRS84"),
        ({"crs": "OGC:CRS84"}, "OGC:CRS84"),
        ({"crs": "EPSG:32632"}, "EPSG:32632"),
        ({"crs": "srid:32632"}, "EPSG:32632"),
        ({"crs": "projjson:my_crs"}, "EPSG:32632"),
        ({"crs": UTM32.to_json_dict()}, "EPSG:32632"),
        ({"edges": "spherical"}, "OGC:CRS84"),
        ({"edges": "spherical", "crs": "EPSG:4267"}, "EPSG:4267"),
    ],
)
def test_the_crs_of_the_type_counts(write: Write, says: dict, expected: str, store_schema: bool) -> None:
    path = write(says, keys={"my_crs": UTM32.to_json_dict()}, store_schema=store_schema)
    assert crs_of(path) == expected
    assert crs_of(path, geometry_crs=expected) == expected
    with pytest.raises(InputError, match=f"geometry_crs is EPSG:32631, but column 'geometry' of .* says {expected}"):
        ReadPoints(path, geometry_crs=32631).point_columns()


@pytest.mark.parametrize("says", [{"crs": "EPSG:32632"}, {"crs": "srid:32632"}])
def test_of_polygons(write: Write, says: dict) -> None:
    path = write(says, TRIANGLE)
    assert ReadPolygons(path).polygon_columns().crs == "EPSG:32632"
    batch = ReadPolygons(path).first_batch()
    assert batch is not None
    assert shapely.from_wkb(batch["geometry"][0].as_py()).equals(TRIANGLE)
    with pytest.raises(InputError, match=r"geometry_crs is EPSG:4326, but column 'geometry' of .* says EPSG:32632"):
        ReadPolygons(path, geometry_crs=4326).polygon_columns()


def test_edges_along_the_earth_are_warned_about(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ReadPolygons(write({"edges": "spherical"}, TRIANGLE)).polygon_columns()
        ReadPolygons(write({}, TRIANGLE, "planar.parquet")).polygon_columns()
    (message,) = caplog.messages
    assert (
        "p.parquet has spherical edges, which follow the Earth; they are treated as straight lines in OGC:CRS84"
        in message
    )


def test_srid_0_is_no_crs(write: Write) -> None:
    path = write({"crs": "srid:0"})
    with pytest.raises(InputError, match=r"geometry column 'geometry' of .* has no CRS; give it with geometry_crs"):
        ReadPoints(path).point_columns()
    assert crs_of(path, geometry_crs=32632) == "EPSG:32632"


@pytest.mark.parametrize(
    ("crs", "message"),
    [
        ("srid:999999", "SRID 999999 is not an EPSG code"),
        ("projjson:none", "the file's metadata has no key 'none', but other"),
        ("projjson:other", "CRS 5 cannot be read|column 'geometry' of .* has CRS 'projjson:other'"),
        ("nowhere", "CRS 'nowhere' cannot be read"),
    ],
)
def test_a_crs_that_cannot_be_read(write: Write, crs: str, message: str) -> None:
    path = write({"crs": crs}, keys={"other": 5})
    with pytest.raises(InputError, match=message) as caught:
        ReadPoints(path).point_columns()
    assert f"column 'geometry' of {path} has CRS {crs!r} in its Parquet type, which cannot be read" in str(caught.value)


@pytest.mark.parametrize(
    ("says", "column", "expected"),
    [
        ({"crs": "EPSG:32632"}, {"crs": UTM32.to_json_dict()}, "EPSG:32632"),
        ({"crs": "EPSG:32632"}, {"crs": None}, "EPSG:32632"),
        ({}, {}, "OGC:CRS84"),
        ({"crs": "EPSG:32632"}, {"crs": CRS.from_epsg(32631).to_json_dict()}, None),
        ({"crs": "EPSG:32632"}, {}, None),
        ({}, {"crs": UTM32.to_json_dict()}, None),
    ],
)
def test_beside_geoparquet(write: Write, says: dict, column: dict, expected: str | None) -> None:
    path = write(says, keys=geo(**column))
    if expected is not None:
        assert crs_of(path) == expected
        return
    with pytest.raises(InputError, match=r"CRS .* in its Parquet type or GeoArrow metadata, but .* in the GeoParquet"):
        ReadPoints(path).point_columns()


def test_files_of_several_crs(write: Write, tmp_path: Path) -> None:
    write({"crs": "EPSG:32632"}, name="a.parquet")
    write({"crs": "srid:32632"}, name="b.parquet")
    assert sum(len(batch) for batch in ReadPoints(str(tmp_path)).batches()) == 2
    write({}, name="c.parquet")
    with pytest.raises(
        InputError, match=r"c.parquet is in OGC:CRS84, but the points of the first file are in EPSG:326"
    ):
        list(ReadPoints(str(tmp_path)).batches())
    with pytest.raises(InputError, match=r"c.parquet are in .*CRS84.*a.parquet in .*32632"):
        point_stream(ds.dataset(tmp_path))


def test_a_dataset_of_such_files(write: Write) -> None:
    assert data_crs(point_stream(ds.dataset(write({"crs": "EPSG:32632"}))).schema, "geometry") == "EPSG:32632"


def test_beside_a_registered_extension_type(write: Write) -> None:
    path = write({"crs": "projjson:my_crs"}, keys={"my_crs": UTM32.to_json_dict()})
    pa.register_extension_type(Wkb("{}"))
    try:
        assert crs_of(path) == "EPSG:32632"
    finally:
        pa.unregister_extension_type("geoarrow.wkb")


@pytest.mark.parametrize("version", ["V1", "V2", "BOTH", "NONE"])
def test_files_of_duckdb(tmp_path: Path, version: str) -> None:
    path = f"{tmp_path}/p.parquet"
    select = f"SELECT {POINT.wkt!r}::GEOMETRY AS shape, 'a' AS plot"
    duckdb.execute(f"COPY ({select}) TO '{path}' (FORMAT parquet, GEOPARQUET_VERSION '{version}')")
    assert crs_of(path) == "OGC:CRS84"
    with pytest.raises(InputError, match=r"geometry_crs is EPSG:32631, but column 'shape' of .* says OGC:CRS84"):
        ReadPoints(path, geometry_crs=32631).point_columns()


@pytest.mark.parametrize("value", [b"{", b"[]"])
def test_broken_geoparquet_metadata(tmp_path: Path, value: bytes) -> None:
    table = pa.table({"geometry": [shapely.to_wkb(POINT)]}).replace_schema_metadata({b"geo": value})
    pq.write_table(table, tmp_path / "p.parquet")
    for read in (
        lambda: ReadPoints(f"{tmp_path}/p.parquet").point_columns(),
        lambda: ReadPolygons(table).first_batch(),
    ):
        with pytest.raises(InputError, match=r"the GeoParquet metadata \(key geo\) of the table"):
            read()
