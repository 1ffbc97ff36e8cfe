"""Points as WKT, and points and polygons of GeoJSON files, through each face."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from affine import Affine

import rasteret_beam
from pipelines import read_chips, sample_points
from rasteret_beam import Collection, ReadPoints, ReadPolygons
from rasteret_beam.errors import InputError, MissingInputError

LINE = "LINESTRING (1 2, 3 4)"


def points_of(source: Any, **settings: Any) -> tuple[str, list[dict]]:
    reading = ReadPoints(source, **settings)
    table = pa.Table.from_batches(list(reading.batches()), reading.point_columns().schema)
    return reading.point_columns().crs, table.to_pylist()


def as_csv(table: pa.Table, folder: Path) -> str:
    rows = zip(*table.to_pydict().values(), strict=True)
    lines = [",".join(table.column_names), *(",".join("" if v is None else f'"{v}"' for v in row) for row in rows)]
    (folder / "points.csv").write_text("\n".join(lines) + "\n")
    return str(folder / "points.csv")


def as_parquet(table: pa.Table, folder: Path) -> str:
    pq.write_table(table, folder / "points.parquet")
    return str(folder / "points.parquet")


@pytest.fixture(params=["csv", "parquet", "memory"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[pa.Table], Any]:
    makers = {"csv": as_csv, "parquet": as_parquet, "memory": lambda table, _: table}
    return lambda table: makers[request.param](table, tmp_path)


class TestWkt:
    @pytest.mark.parametrize("name", ["wkt", "WKT", "geometry", "geom", "the_geom"])
    def test_is_found_by_its_name(self, source: Callable[[pa.Table], Any], name: str) -> None:
        values = ["POINT (3.25 45)", None, "point(-1e1 .5)", "POINT Z (1 2 3)", "POINT EMPTY", " MULTIPOINT ((5 6)) "]
        table = pa.table({"plot": ["a", "b", "c", "d", "e", "f"], name: values})
        crs, rows = points_of(source(table), geometry_crs=4326)
        assert crs == "EPSG:4326"
        assert str([(row["point_x"], row["point_y"]) for row in rows]) == (
            "[(3.25, 45.0), (None, None), (-10.0, 0.5), (1.0, 2.0), (nan, nan), (5.0, 6.0)]"
        )
        assert [row["plot"] for row in rows] == ["a", "b", "c", "d", "e", "f"]
        assert name not in rows[0]

    def test_of_another_name_is_given(self, source: Callable[[pa.Table], Any]) -> None:
        table = pa.table({"x": ["1"], "y": ["2"], "shape": ["POINT (3 4)"]})
        _, (row,) = points_of(source(table), geometry_column="shape", geometry_crs=4326)
        assert row == {"point_index": 0, "point_x": 3.0, "point_y": 4.0, "x": "1", "y": "2"}

    def test_the_srid_of_ewkt_counts(self, source: Callable[[pa.Table], Any]) -> None:
        values = [None, "SRID=32631;POINT(500000 10)", "srid = 32631; POINT (500010 20)"]
        table = pa.table({"geom": values, "plot": ["a", "b", "c"]})
        crs, rows = points_of(source(table))
        assert crs == "EPSG:32631"
        assert [row["point_x"] for row in rows] == [None, 500_000.0, 500_010.0]
        with pytest.raises(
            InputError, match=r"row 1 of column 'geom' has SRID 32631, but the points' CRS is EPSG:4326"
        ):
            points_of(source(table), geometry_crs=4326)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (["POINT (1 2)"], r"geometry column 'geom' of .* has no CRS; give it with geometry_crs"),
            (["SRID=32631;POINT (1 2)", "POINT (1 2)"], r"row 1 of column 'geom' has no SRID, .* EPSG:32631"),
            (["SRID=999999;POINT (1 2)"], r"has SRID 999999, which is not an EPSG code"),
        ],
    )
    def test_without_a_crs(self, source: Callable[[pa.Table], Any], values: list[str], message: str) -> None:
        with pytest.raises(InputError, match=message):
            points_of(source(pa.table({"geom": values})))

    @pytest.mark.parametrize(
        ("columns", "message"),
        [
            ({"geom": [LINE]}, r"no column known as a point; it has geom"),
            ({"geom": ["somewhere"]}, r"no column known as a point; it has geom"),
            ({"geom": ["POINT (1 2)", LINE]}, r"row 1 of column 'geom' is LINESTRING \(1 2, 3 4\); only points"),
            ({"geom": ["POINT (1 2)", "POINT (1 2"]}, r"row 1 of column 'geom' is not WKT: 'POINT \(1 2'"),
            (
                {"geom": ["POINT (1 2)"], "wkt": ["POINT (3 4)"]},
                r"more than one column \(pair\) that could be the point",
            ),
        ],
    )
    def test_that_is_no_point(
        self, source: Callable[[pa.Table], Any], columns: dict[str, list[str]], message: str
    ) -> None:
        with pytest.raises(InputError, match=message):
            points_of(source(pa.table(columns)), geometry_crs=4326)

    def test_coordinates_come_before_text(self, source: Callable[[pa.Table], Any]) -> None:
        _, (row,) = points_of(source(pa.table({"x": [1.5], "y": [2.5], "geom": ["POINT (3 4)"]})), geometry_crs=4326)
        assert (row["point_x"], row["geom"]) == (1.5, "POINT (3 4)")

    @pytest.mark.parametrize("name", ["geometry", "wkt", "WKT", "the_geom"])
    def test_of_polygons(self, source: Callable[[pa.Table], Any], name: str) -> None:
        table = pa.table({name: ["SRID=32631;POLYGON ((0 0, 1 0, 1 1, 0 0))"], "plot": ["a"]})
        reading = ReadPolygons(source(table))
        batch = reading.first_batch()
        assert batch is not None
        assert reading.polygon_columns().crs == "EPSG:32631"
        shape = shapely.from_wkb(batch["geometry"][0].as_py())
        assert shape.equals(shapely.Polygon([(0, 0), (1, 0), (1, 1)])) and shapely.get_srid(shape) == 0
        with pytest.raises(
            InputError, match=rf"row 0 of column '{name}' has SRID 32631, but the polygons' CRS is EPSG:4"
        ):
            ReadPolygons(source(table), geometry_crs=4326).first_batch()


def feature(shape: shapely.Geometry | None, **properties: Any) -> dict:
    geometry = json.loads(shapely.to_geojson(shape)) if shape is not None else None
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def collection_of(*features: dict, **more: Any) -> dict:
    return {"type": "FeatureCollection", "features": list(features), **more}


A, B = feature(shapely.Point(3, 45), plot="007", n=1), feature(None, plot="NA", n=None)
ROWS = [
    {"point_index": 0, "point_x": 3.0, "point_y": 45.0, "plot": "007", "n": 1},
    {"point_index": 1, "point_x": None, "point_y": None, "plot": "NA", "n": None},
]


class TestGeoJson:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("p.geojson", json.dumps(collection_of(A, B))),
            ("p.JSON", json.dumps(collection_of(A, B), indent=1)),
            ("p.geojson", "\ufeff" + json.dumps(collection_of(A, B))),
            ("p.geojsonl", f"{json.dumps(A)}\n{json.dumps(B)}\n"),
            ("p.ndjson", f"{json.dumps(A)}\r\n\r\n{json.dumps(B)}"),
            ("p.geojsons", f"\x1e{json.dumps(A)}\n\x1e{json.dumps(B)}\n"),
        ],
    )
    def test_of_points(self, tmp_path: Path, name: str, text: str) -> None:
        (tmp_path / name).write_text(text)
        assert points_of(f"{tmp_path}/{name}") == ("OGC:CRS84", ROWS)
        assert points_of(tmp_path / name, columns=["n"])[1][0] == {k: v for k, v in ROWS[0].items() if k != "plot"}

    def test_of_several_files(self, tmp_path: Path) -> None:
        (tmp_path / "b.geojson").write_text(json.dumps(collection_of(B)))
        (tmp_path / "a.geojson").write_text(json.dumps(collection_of(A)))
        for source in (f"{tmp_path}/*.geojson", [f"{tmp_path}/b.geojson", f"{tmp_path}/a.geojson"]):
            assert points_of(source) == ("OGC:CRS84", ROWS)

    def test_of_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "deep").mkdir()
        (tmp_path / "deep" / "b.geojson").write_text(json.dumps(collection_of(B)))
        (tmp_path / "a.geojsonl").write_text(json.dumps(A))
        (tmp_path / "_c.geojson").write_text(json.dumps(collection_of(B)))
        (tmp_path / "settings.json").write_text("[]")
        assert points_of(str(tmp_path)) == ("OGC:CRS84", ROWS)

    def test_of_the_older_edition_has_its_crs(self, tmp_path: Path) -> None:
        crs = {"type": "name", "properties": {"name": "urn:ogc:def:crs:EPSG::32631"}}
        (tmp_path / "p.geojson").write_text(json.dumps(collection_of(A, crs=crs)))
        assert points_of(f"{tmp_path}/p.geojson")[0] == "EPSG:32631"
        with pytest.raises(InputError, match=r"geometry_crs is EPSG:4326, but .* says EPSG:32631"):
            points_of(f"{tmp_path}/p.geojson", geometry_crs=4326)

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("p.geojson", "[1, 2]", r"p.geojson is not GeoJSON: it does not start with an object"),
            ("p.geojson", '{"type": "Feat', r"p.geojson: number 0 of the points is not GeoJSON"),
            ("p.geojson", '{"type": "Table"}', r"p.geojson: number 0 of the points is a dict with type 'Table'"),
            ("p.ndjson", f"{json.dumps(A)}\nx,y\n", r"line 2 of .*p.ndjson is not GeoJSON"),
            ("p.ndjson", f"{json.dumps(A)}\n{{broken\n", r"p.ndjson: number 1 of the points is not GeoJSON"),
            ("p.geojson", json.dumps(feature(shapely.box(0, 0, 1, 1))), r"p.geojson: row 0 .* is POLYGON"),
            (
                "p.geojson",
                json.dumps(feature(shapely.Point(1, 2), n=2**64)),
                r"property 'n' .* beyond 64 bits: .*as text",
            ),
            ("p.ndjson", f"{json.dumps(A)}\n{json.dumps(feature(None, n='a'))}", r"property 'n' .* of several types"),
        ],
    )
    def test_that_is_not_one(self, tmp_path: Path, name: str, text: str, message: str) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=message):
            points_of(f"{tmp_path}/{name}")

    def test_that_is_not_text(self, tmp_path: Path) -> None:
        (tmp_path / "p.geojson").write_bytes(b'{"type": "\xe9"}')
        with pytest.raises(InputError, match=r"p.geojson is not GeoJSON: .*utf-8"):
            points_of(f"{tmp_path}/p.geojson")

    def test_that_is_missing(self, tmp_path: Path) -> None:
        with pytest.raises(MissingInputError, match=r"no file, folder or match of .*none.geojson"):
            points_of(f"{tmp_path}/none.geojson")

    def test_beside_other_files(self, tmp_path: Path) -> None:
        (tmp_path / "a.csv").write_text("lon,lat\n1,2\n")
        (tmp_path / "b.geojson").write_text(json.dumps(A))
        with pytest.raises(InputError, match=r"a.csv is not named as GeoJSON, but other files are"):
            points_of([f"{tmp_path}/a.csv", f"{tmp_path}/b.geojson"])

    def test_takes_no_settings_of_csv(self, tmp_path: Path) -> None:
        (tmp_path / "p.geojson").write_text(json.dumps(A))
        with pytest.raises(InputError, match=r"column_types \(--column_types\) given, .* p.geojson is not CSV|not CSV"):
            points_of(f"{tmp_path}/p.geojson", column_types={"n": "int64"})

    @pytest.mark.parametrize("name", ["p.geojson", "p.ndjson"])
    def test_of_polygons(self, tmp_path: Path, name: str) -> None:
        fields = [feature(shapely.box(0, 0, 1, 1), plot="007"), feature(shapely.box(1, 1, 2, 2), plot="8")]
        text = json.dumps(collection_of(*fields)) if name == "p.geojson" else "\n".join(map(json.dumps, fields))
        (tmp_path / name).write_text(text)
        batch = ReadPolygons(f"{tmp_path}/{name}").first_batch()
        assert batch is not None
        assert batch.select(["geometry_id", "plot"]).to_pylist() == [
            {"geometry_id": 0, "plot": "007"},
            {"geometry_id": 1, "plot": "8"},
        ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection of one raster in longitude and latitude whose pixels count up."""
    place = tmp_path_factory.mktemp("one")
    grid = {"width": 32, "height": 32, "transform": Affine(0.1, 0, 2, 0, -0.1, 46), "crs": "EPSG:4326"}
    with rasterio.open(
        place / "a.tif", "w", driver="GTiff", count=1, dtype="uint16", tiled=True, blockxsize=16, blockysize=16, **grid
    ) as file:
        file.write(np.arange(1024, dtype="uint16").reshape(1, 32, 32))
    rasteret_beam.build_from_cogs([str(place / "a.tif")]).export(place / "collection")
    return place


@pytest.fixture
def collection(folder: Path) -> Collection:
    return rasteret_beam.load(str(folder / "collection"))


class TestCommandLine:
    """Values are those of rasterio."""

    AT = ((2.05, 45.95), (3.25, 44.85))

    @pytest.fixture(params=["geojson", "ndjson", "wkt", "semicolons"])
    def points(self, request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, list[str]]:
        features = [feature(shapely.Point(at), plot=f"00{n}", n=n) for n, at in enumerate(self.AT)]
        texts = {
            "geojson": ("p.geojson", json.dumps(collection_of(*features)), []),
            "ndjson": ("p.ndjson", "\n".join(map(json.dumps, features)), []),
            "wkt": (
                "p.csv",
                "plot,n,wkt\n000,0,POINT (2.05 45.95)\n001,1,POINT (3.25 44.85)\n",
                ["--geometry_crs", "4326"],
            ),
            "semicolons": (
                "p.csv",
                "plot;n;é;lon;lat\n000;0;ü;2,05;45,95\n001;1;;3,25;44,85\n",
                "--geometry_crs=4326 --csv_delimiter=; --csv_decimal=, --csv_encoding=latin-1 --columns=plot,n".split(),
            ),
        }
        name, text, flags = texts[request.param]
        (tmp_path / name).write_bytes(text.encode("latin-1"))
        return f"{tmp_path}/{name}", flags

    def test_samples(self, folder: Path, tmp_path: Path, points: tuple[str, list[str]]) -> None:
        path, flags = points
        code = sample_points.main(
            [
                "--points",
                path,
                *flags,
                "--collection",
                f"{folder}/collection",
                "--bands",
                "B1",
                "--output",
                f"{tmp_path}/s",
            ]
        )
        assert code == 0
        found = pq.read_table(f"{tmp_path}/s-00000-of-00001.parquet").sort_by("point_index")
        with rasterio.open(folder / "a.tif") as file:
            values = [float(value[0]) for value in file.sample(self.AT)]
        assert found.select(["plot", "n", "value"]).to_pylist() == [
            {"plot": "000", "n": 0, "value": values[0]},
            {"plot": "001", "n": 1, "value": values[1]},
        ]

    def test_column_types(self, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "p.csv").write_text("lon,lat,plot,n,seen\n2.05,45.95,7,7,2024-02-29T00:00:00Z\n")
        types = "--column_types=plot:decimal128(10, 2), n:int32, seen:timestamp[us, tz=UTC]"
        flags = ["--geometry_crs=4326", types, "--columns=plot,n,seen"]
        where = ["--collection", f"{folder}/collection", "--bands", "B1", "--output", f"{tmp_path}/s"]
        assert sample_points.main(["--points", f"{tmp_path}/p.csv", *flags, *where]) == 0
        found = pq.read_table(f"{tmp_path}/s-00000-of-00001.parquet")
        assert [str(found.schema.field(name).type) for name in found.column_names[-3:]] == [
            "decimal128(10, 2)",
            "int32",
            "timestamp[us, tz=UTC]",
        ]

    @pytest.mark.parametrize(
        ("content", "flags", "message"),
        [
            (b"lon,lat,a\n2,45,caf\xe9\n", [], "row 0 of column 'a' of {} has byte 0xe9, which is not utf-8"),
            (b"lon;lat\n2;45\n", [], "(--csv_delimiter ';')"),
            (b"lon,lat,a\n2,45,x\n", ["--column_types=a:int64"], "row 0 of column 'a' of {} is 'x', not int64"),
        ],
    )
    def test_errors_name_the_flag(
        self, folder: Path, tmp_path: Path, content: bytes, flags: list[str], message: str
    ) -> None:
        path = tmp_path / "p.csv"
        path.write_bytes(content)
        where = ["--collection", f"{folder}/collection", "--bands", "B1", "--output", f"{tmp_path}/s"]
        with pytest.raises(InputError) as caught:
            sample_points.main(["--points", str(path), "--geometry_crs=4326", *flags, *where])
        assert message.format(path) in str(caught.value)
        assert "--c" in str(caught.value)

    @pytest.mark.parametrize("text", ["plot", "plot:", ":string", "plot=string"])
    def test_column_types_that_are_none(self, text: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            sample_points.main(["--points", "p.csv", "--collection", "c", "--bands", "B1", "--column_types", text])
        assert caught.value.code == 2
        assert "is not COLUMN:TYPE, such as plot:string" in capsys.readouterr().err

    def test_chips(self, folder: Path, tmp_path: Path) -> None:
        path = tmp_path / "p.csv"
        path.write_text("fid;wkt;n\n007;POLYGON ((2 45, 2.5 45, 2.5 45.5, 2 45));1\n")
        flags = ["--geometry_crs=4326", "--csv_delimiter=;", "--column_types=n:string"]
        where = ["--collection", f"{folder}/collection", "--bands", "B1", "--output", f"{tmp_path}/c"]
        assert read_chips.main(["--polygons", str(path), *flags, *where]) == 0
        found = pq.read_table(f"{tmp_path}/c-00000-of-00001.parquet")
        assert found.select(["fid", "n"]).to_pylist() == [{"fid": "007", "n": "1"}]


def test_a_stream_of_wkt(collection: Collection) -> None:
    table = pa.table({"geom": ["POINT (2.05 45.95)"], "plot": ["a"]})
    found = collection.sample_points(table, ["B1"], geometry_crs=4326)
    assert found.select(["plot", "value"]).to_pylist() == [{"plot": "a", "value": 0.0}]
