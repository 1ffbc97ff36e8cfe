"""Work on wide tables grows as their columns, not as the square: counted in look-ups, calls and arrays."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pv
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
from affine import Affine

import rasteret_beam
from rasteret_beam import Collection, ReadPoints, ReadPolygons
from rasteret_beam.kernels.bigquery.arrow import in_schema
from rasteret_beam.kernels.routing import chunks
from rasteret_beam.kernels.routing.chunks import compacted, pieces, without_same
from rasteret_beam.kernels.tables.point_columns import choose_columns
from rasteret_beam.kernels.tables.polygon_columns import choose_polygon_columns
from rasteret_beam.transforms.sources import csv_files, table_files

FEW, MANY = 200, 400


class CountingNames(list):
    """A list that counts what is looked at in it."""

    looks = 0

    def __iter__(self) -> Iterator[str]:
        CountingNames.looks += len(self)
        return super().__iter__()

    def __contains__(self, name: object) -> bool:
        CountingNames.looks += len(self)
        return super().__contains__(name)

    def count(self, name: Any) -> int:
        CountingNames.looks += len(self)
        return super().count(name)

    def index(self, *args: Any) -> int:
        CountingNames.looks += len(self)
        return super().index(*args)


class CountingSchema:
    """A schema whose names are made anew each time that they are asked for, as Arrow's are, and counted."""

    def __init__(self, schema: pa.Schema):
        self._schema = schema

    def __getattr__(self, name: str) -> Any:
        return getattr(self._schema, name)

    def __iter__(self) -> Iterator[pa.Field]:
        CountingNames.looks += len(self._schema)
        return iter(self._schema)

    @property
    def names(self) -> CountingNames:
        CountingNames.looks += len(self._schema)
        return CountingNames(self._schema.names)


def looks(job: Callable[[pa.Schema], Any], columns: int) -> int:
    CountingNames.looks = 0
    fields = [pa.field("x", pa.float64()), pa.field("y", pa.float64()), pa.field("geom", pa.binary())]
    job(CountingSchema(pa.schema([*fields, *(pa.field(f"c{n}", pa.float64()) for n in range(columns))])))  # type: ignore[arg-type]
    return CountingNames.looks


def choose(schema: pa.Schema) -> Any:
    return choose_columns(schema, x_column="x", y_column="y", geometry_crs=4326)


def check_alike(schema: pa.Schema) -> None:
    kept = list(schema.names)
    output = pa.schema(list(schema))
    table_files.check_alike(schema, "p", kept, kept, output, None, "EPSG:4326", "points", "ReadPoints")


@pytest.mark.parametrize(
    "job",
    [
        choose,
        lambda schema: choose_columns(schema, geometry_crs=4326, columns=list(schema.names)[3:]),
        lambda schema: choose_polygon_columns(schema, geometry_crs=4326),
        lambda schema: choose_polygon_columns(schema, geometry_crs=4326, columns=list(schema.names)[3:]),
        check_alike,
    ],
    ids=[
        "choose points",
        "choose kept points",
        "choose polygons",
        "choose kept polygons",
        "check alike",
    ],
)
def test_names_are_not_looked_for_in_lists(job: Callable[[pa.Schema], Any]) -> None:
    few, many = looks(job, FEW), looks(job, MANY)
    assert many <= 2.2 * few


def test_names_of_batches_of_bigquery_are_not_looked_for_in_lists() -> None:
    class Batch:
        def __init__(self, schema: pa.Schema):
            self.schema = schema

        def __getitem__(self, name: str) -> pa.Array:
            return pa.array([1.0])

    def job(schema: pa.Schema) -> None:
        plain = pa.schema([pa.field(name, pa.float64()) for name in schema.names])
        in_schema(Batch(schema), plain, "p")  # type: ignore[arg-type]

    assert looks(job, MANY) <= 2.2 * looks(job, FEW)


def wide(rows: int, columns: int) -> pa.Table:
    x, y = 500_005 + 10 * (np.arange(rows) % 30), 5_000_315 - 10 * (np.arange(rows) // 30 % 30)
    kept = {f"c{n}": np.arange(rows) + n + 0.5 for n in range(columns)}
    return pa.table({"x": x.astype(float), "y": y.astype(float)} | kept)


def test_chunks_of_wide_tables_have_as_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each array has its cost, so that rows are not cut the finer the more columns they have."""
    monkeypatch.setattr(chunks, "WIDE_COLUMNS", 50)
    tables = {columns: wide(512, columns).to_batches()[0] for columns in (FEW, MANY, 2 * MANY)}
    parts = {columns: list(pieces(table, max_bytes=4096)) for columns, table in tables.items()}
    assert len(parts[FEW]) == len(parts[MANY]) == len(parts[2 * MANY]) > 30
    assert all(pa.Table.from_batches(parts[columns]).equals(pa.table(tables[columns])) for columns in tables)
    assert max(part.nbytes for part in pieces(wide(512, 6).to_batches()[0], max_bytes=4096)) <= 4096


@pytest.mark.slow
def test_batches_of_wide_files_have_as_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files, "COLUMN_BYTES", 64)
    monkeypatch.setattr(table_files, "BATCH_BYTES", 4096)
    monkeypatch.setattr(csv_files, "COLUMN_BYTES", 64)
    monkeypatch.setattr(csv_files, "BLOCK_BYTES", 4096)
    batches = {}
    for columns in (FEW, MANY):
        table = wide(64, columns)
        pq.write_table(table, tmp_path / f"{columns}.parquet", use_dictionary=False, compression="none")
        pv.write_csv(table, tmp_path / f"{columns}.csv")
        for ending in ("parquet", "csv"):
            found = list(ReadPoints(f"{tmp_path}/{columns}.{ending}", geometry_crs=32631).batches())
            assert pa.Table.from_batches(found).select(table.column_names).equals(table)
            batches[columns, ending] = len(found)
    assert batches[MANY, "parquet"] <= batches[FEW, "parquet"] + 1
    assert batches[MANY, "csv"] <= batches[FEW, "csv"] + 1


def test_small_dictionaries_and_columns_that_equal_a_coordinate() -> None:
    """Many of them in one chunk: the values stay, and the work is done once for all columns."""
    entries = pa.array([f"entry {n}" for n in range(200)])
    names = [f"d{n}" for n in range(50)]
    kinds = {name: pa.DictionaryArray.from_arrays(pa.array([3, 199], pa.int32()), entries) for name in names}
    small = compacted(pa.RecordBatch.from_pydict(kinds))
    assert all(len(column.dictionary) == 2 for column in small.columns)
    assert small.to_pydict() == {name: ["entry 3", "entry 199"] for name in names}
    x, y = pa.array([1.0, 2.0]), pa.array([3.0, 4.0])
    index = pa.array([0, 1])
    same = pa.RecordBatch.from_pydict(
        {"point_index": index, "point_x": x, "point_y": y} | {f"e{n}": y for n in range(50)} | {"other": index}
    )
    assert without_same(same).schema.names == ["point_index", "point_x", "point_y", "other"]


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    path = str(tmp_path_factory.mktemp("width") / "a.tif")
    grid = {"width": 32, "height": 32, "transform": Affine(10, 0, 500_000, 0, -10, 5_000_320), "crs": "EPSG:32631"}
    tiles = {"tiled": True, "blockxsize": 16, "blockysize": 16}
    with rasterio.open(path, "w", driver="GTiff", count=1, dtype="uint8", **grid, **tiles) as file:
        file.write(np.arange(1024, dtype="uint8").reshape(1, 32, 32))
    return rasteret_beam.build_from_cogs([path])


def calls(job: Callable[[], Any]) -> int:
    """Calls of functions, of Python and of C, on this thread."""
    made = 0

    def count(frame: Any, event: str, argument: Any) -> None:
        nonlocal made
        made += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        job()
    finally:
        sys.setprofile(None)
    return made


@pytest.mark.parametrize("face", ["points", "polygons", "sampling"])
def test_calls_grow_as_the_columns(collection: Collection, tmp_path: Path, face: str) -> None:
    def job(columns: int) -> Callable[[], Any]:
        table = wide(20, columns)
        pq.write_table(table, tmp_path / f"{columns}.parquet")
        shapes = pa.table({"geometry": [shapely.box(0, 0, 1, 1).wkb] * 20}).to_pydict()
        polygons = pa.table(shapes | table.to_pydict())
        return {
            "points": lambda: list(ReadPoints(f"{tmp_path}/{columns}.parquet", geometry_crs=32631).batches()),
            "polygons": lambda: ReadPolygons(polygons, geometry_crs=4326).first_batch(),
            "sampling": lambda: collection.sample_points(table, collection.bands, geometry_crs=32631),
        }[face]

    job(10)()  # what is done once in a process
    made = [calls(job(columns)) for columns in (10, 10 + FEW, 10 + 2 * FEW)]
    assert made[2] - made[1] <= 1.3 * (made[1] - made[0])
