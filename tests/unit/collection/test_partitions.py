"""Columns of hive partitions; the oracle is pyarrow.dataset."""

from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import sample_points
from rasteret_beam import ReadPoints, ReadPolygons, build_from_cogs
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.tables.partitions import NULL, partition_column, partition_keys, partition_schema
from tests.support.commands import execute
from tests.support.properties import examples


def write(folder: Path, *names: str, **columns: list) -> Path:
    """Point files of one row, numbered in the order given."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        own = {column: values[number : number + 1] for column, values in columns.items()}
        table = pa.table({"lon": [2.0 + number], "lat": [45.0], "n": [number], **own})
        if name.endswith(".csv"):
            table.to_pandas().to_csv(folder / name, index=False)
        else:
            pq.write_table(table, folder / name)
    return folder


def read(place: object, **options: object) -> pa.Table:
    reading = ReadPoints(place, geometry_crs=4326, **options)
    return pa.Table.from_batches(reading.batches(), schema=reading.point_columns().schema)


def check_like_arrow(folder: Path, place: object = None) -> pa.Table:
    """The points of a folder hold what Arrow's dataset does, with the same types."""
    oracle = ds.dataset(folder, format="parquet", partitioning="hive").to_table().sort_by("n")
    found = read(place or folder).sort_by("n")
    assert set(found.schema.names) - {"point_index", "point_x", "point_y"} == set(oracle.schema.names)
    for name in oracle.schema.names:
        assert found[name].equals(oracle[name]), name
    return found


@pytest.mark.parametrize(
    "names",
    [
        ["country=FR/a.parquet", "country=IT/b.parquet"],
        ["year=2023/month=06/a.parquet", "year=2024/month=7/b.parquet"],
        ["k=1/a.parquet", "k=x/b.parquet"],
        ["k=007/a.parquet", "k=-2/b.parquet"],
        ["k=2147483647/a.parquet", "k=-2147483648/b.parquet"],
        ["k=2147483648/a.parquet"],
        ["k=0x1F/a.parquet", "k=+2/b.parquet"],
        ["k=1.5/a.parquet", "k=true/b.parquet"],
        ["k=/a.parquet", "k=2/b.parquet"],
        ["k= 1/a.parquet", "k=2 /b.parquet"],
        ["k=1=2/a.parquet"],
        ["a%20b=c%2Fd%20%C3%BC%25/a.parquet"],
        ["k=ü/a.parquet"],
        [f"k={NULL}/a.parquet", "k=1/b.parquet"],
        ["a=1/x.parquet", "b=2/y.parquet", "z.parquet"],
        ["a=1/plain/x.parquet", "plain/a=2/y.parquet"],
        ["K=1/x.parquet", "k=2/y.parquet"],
        ["a=1/a=1/x.parquet"],
        ["k=2023-01-05/a.parquet"],
    ],
)
def test_partitions_are_those_of_arrow(tmp_path: Path, names: list[str]) -> None:
    check_like_arrow(write(tmp_path, *names))
    check_like_arrow(tmp_path, f"{tmp_path}/**/*.parquet")


VALUES = st.one_of(
    st.integers(-(2**33), 2**33).map(str),
    st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), min_size=1, max_size=5),
    st.sampled_from([NULL, "00", "-0", "-", "1e3", "nan"]),
)


@settings(max_examples=examples(100), deadline=None)
@given(rows=st.lists(st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3), min_size=1, max_size=5))
def test_types_and_values_are_those_of_arrow(rows: list[dict[str, str]]) -> None:
    paths = ["r/" + "".join(f"{k}={quote(v, safe='')}/" for k, v in row.items()) + "f.parquet" for row in rows]
    keys = [partition_keys(path, "r/") for path in paths]
    schema = partition_schema(keys)
    known = [name for name in schema.names if any(found.get(name) is not None for found in keys)]
    if set(known) != set(schema.names):  # of which Arrow infers no type
        assert all(schema.field(name).type == pa.string() for name in set(schema.names) - set(known))
        return
    oracle = ds.partitioning(schema, flavor="hive")
    for path, found in zip(paths, keys, strict=True):
        parsed = ds.get_partition_keys(oracle.parse(path.removeprefix("r/")))
        for field in schema:
            assert partition_column(field, found, 1, path)[0].as_py() == parsed.get(field.name)


def test_inferred_types_are_those_of_arrow_for_whole_numbers(tmp_path: Path) -> None:
    for number, text in enumerate(
        ["0", "-0", "-", "00000000000000000007", "2147483648", "-2147483649", "1_0", "\u0661"]
    ):
        folder = write(tmp_path / str(number), f"k={text}/a.parquet")
        schema = ds.dataset(folder, format="parquet", partitioning="hive").schema
        assert partition_schema([partition_keys(f"k={text}/a.parquet", "")]).field("k").type == schema.field("k").type


def test_only_keys_below_the_given_folder_count(tmp_path: Path) -> None:
    folder = write(tmp_path / "above=1", "k=2/a.parquet", "k=3/b.parquet")
    assert read(folder)["k"].to_pylist() == [2, 3]
    for place in (folder, f"{folder}/*/*.parquet", f"{folder}/k=*/a*", f"{tmp_path}/above=1/k=[2]/*"):
        assert "k" in read(place).schema.names
        assert "above" not in read(place).schema.names
    assert "above" in read(f"{tmp_path}/*/k=2/*").schema.names
    for place in (folder / "k=2", folder / "k=2" / "a.parquet", f"{folder}/k=2/*.parquet"):
        assert {"k", "above"}.isdisjoint(read(place).schema.names)
    both = read([folder, f"{tmp_path}/above=1/k=2/a.parquet"])
    assert both["k"].to_pylist() == [2, 3]


def test_columns_choose_partitions(tmp_path: Path) -> None:
    folder = write(tmp_path, "k=1/m=x/a.parquet", "k=2/m=y/b.parquet")
    assert read(folder, columns=["m"]).schema.names == ["point_index", "point_x", "point_y", "m"]
    assert read(folder, columns=["m"])["m"].to_pylist() == ["x", "y"]
    assert read(folder, columns=["n", "k"])["k"].to_pylist() == [1, 2]
    assert read(folder, columns=[]).schema.names == ["point_index", "point_x", "point_y"]
    with pytest.raises(InputError, match="has no column 'q'; it has lon, lat, n, k, m"):
        read(folder, columns=["q"])


def test_csv_has_partitions_too(tmp_path: Path) -> None:
    folder = write(tmp_path, "country=FR/year=2023/a.csv", "country=IT/year=2024/b.csv", f"country={NULL}/c.csv")
    found = read(folder)
    assert found.schema.field("year").type == pa.int32()
    assert found.select(["country", "year", "n"]).sort_by("n").to_pydict() == {
        "country": ["FR", "IT", None],
        "year": [2023, 2024, None],
        "n": [0, 1, 2],
    }
    assert read(folder, columns=["year"])["year"].to_pylist() == [2023, 2024, None]


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_column_of_the_file_that_says_otherwise_is_an_error(tmp_path: Path, ending: str) -> None:
    folder = write(tmp_path, f"k=FR/a.{ending}", f"k=IT/b.{ending}", k=["FR", "XX"])
    message = rf"column 'k' of .*b\.{ending} is 'XX' in row 1, but the file is in folder k=IT, which gives a column of"
    with pytest.raises(InputError, match=message):
        read(folder)
    assert read(folder, columns=["n"])["n"].to_pylist() == [0, 1]
    numbers = write(tmp_path / "m", f"k=FR/a.{ending}", k=[7])
    with pytest.raises(InputError, match=r"column 'k' of .* is 7 in row 0, but the file is in folder k=FR"):
        read(numbers)


@pytest.mark.parametrize("ending", ["parquet", "csv"])
def test_a_column_of_the_file_that_says_the_same_is_kept(tmp_path: Path, ending: str) -> None:
    folder = write(tmp_path, f"k=1/m=a/a.{ending}", f"k=2/m=b/b.{ending}", k=[1, 2], m=["a", "b"])
    found = read(folder)
    assert found["k"].to_pylist() == [1, 2]
    assert found.schema.field("k").type == pa.int64()
    assert found["m"].to_pylist() == ["a", "b"]


def test_two_values_of_one_key_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has two values of 'k' in the names of its folders: 1 and 2"):
        read(write(tmp_path, "k=1/k=2/a.parquet"))
    with pytest.raises(InputError, match="is not UTF-8 once its % signs are decoded"):
        read(write(tmp_path / "b", "k=%FF/a.parquet"))


def test_a_folder_that_comes_later_has_to_fit(tmp_path: Path) -> None:
    folder = write(tmp_path, "k=1/a.parquet")
    reading = ReadPoints(folder, geometry_crs=4326)
    assert reading.point_columns().schema.field("k").type == pa.int32()
    write(folder, "k=x/b.parquet")
    with pytest.raises(InputError, match=r"b\.parquet has k=x in the names of its folders, and others whole numbers"):
        list(reading.batches())


def test_partitions_are_coordinates_only_if_named(tmp_path: Path) -> None:
    folder = write(tmp_path, "x=3/y=4/a.parquet")
    assert read(folder)["point_x"].to_pylist() == [2.0]
    assert read(folder)["x"].to_pylist() == [3]
    named = read(folder, x_column="x", y_column="y", columns=[])
    assert (named["point_x"].to_pylist(), named["point_y"].to_pylist()) == ([3.0], [4.0])
    with pytest.raises(InputError, match=r"column 'z' of .* is string; coordinates must be numbers"):
        read(write(tmp_path / "t", "z=a/a.parquet"), x_column="z", y_column="lat")


def test_polygons_have_partitions_too(tmp_path: Path) -> None:
    for number, name in enumerate(["geom=1/k=a/a.csv", "geom=1/k=b/b.csv"]):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f'geometry,n\n"POLYGON ((0 0, 1 0, 1 1, 0 0))",{number}\n')
    reading = ReadPolygons(tmp_path, geometry_crs=4326)
    schema = reading.polygon_columns().schema
    assert schema.names == ["geometry_id", "geometry", "n", "geom", "k"]
    assert (schema.field("k").type, schema.field("geom").type) == (pa.string(), pa.int32())
    first = reading.first_batch()
    assert first is not None
    assert (first["k"].to_pylist(), first["geom"].to_pylist()) == (["a"], [1])


def test_a_bucket_has_partitions_by_the_same_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from rasteret_beam.readers.storage import listing as finding
    from rasteret_beam.readers.storage.objects import Found

    names = ["s3://b/p/k=1/a.parquet", "s3://b/p/k=2/b.parquet"]
    monkeypatch.setattr(finding, "list_folder", lambda url, access, start="", deep=True: [Found(n, 1) for n in names])
    for place in ("s3://b/p", "s3://b/p/", "s3://b/p/*/*.parquet", "s3://b/p/k=*"):
        found = finding.find(place, (".parquet",), "file")
        assert [file.keys for file in found] == [{"k": "1"}, {"k": "2"}]


def test_the_command_keeps_partitions(tmp_path: Path) -> None:
    raster = tmp_path / "s.tif"
    place = Affine(10, 0, 500000, 0, -10, 5000160)
    with rasterio.open(
        raster, "w", driver="GTiff", width=16, height=16, count=1, dtype="uint8", crs="EPSG:32631", transform=place
    ) as out:
        out.write(np.arange(256, dtype="uint8").reshape(1, 16, 16))
    build_from_cogs(raster).export(tmp_path / "c")
    for number, country in enumerate(["FR", "IT"]):
        folder = tmp_path / f"points/country={country}/year={2023 + number}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"x": [500005.0 + 10 * number], "y": [5000155.0]}), folder / "p.parquet")
    common = ["--geometry_crs=32631", f"--collection={tmp_path}/c", "--bands=B1", f"--output={tmp_path}/out/s"]
    for points in (f"{tmp_path}/points", f"{tmp_path}/points/*/*/*.parquet"):
        assert execute(sample_points.main, f"--points={points}", *common).code == 0
        rows = ds.dataset(tmp_path / "out").to_table().sort_by("year")
        assert rows.schema.field("year").type == pa.int32()
        assert rows.select(["country", "year", "value"]).to_pydict() == {
            "country": ["FR", "IT"],
            "year": [2023, 2024],
            "value": [0.0, 1.0],
        }
