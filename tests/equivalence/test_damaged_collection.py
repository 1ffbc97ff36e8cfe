"""Damage to a collection's Parquet: each edit gives the rows of the whole collection, or one error in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas
import polars
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import rasterio
from affine import Affine

import rasteret_beam
from pipelines import build_collection, sample_points
from rasteret_beam import Collection, SamplePoints, load
from rasteret_beam.collection.parquet import checksums
from rasteret_beam.errors import CollectionError, RasteretBeamError
from rasteret_beam.schema import CHECKSUMS
from tests.support.commands import as_flags, execute

pytestmark = pytest.mark.usefixtures("same_signal_handlers")

PIXEL, TILE, SIZE, LEFT, TOP = 16.0, 16, 48, 500_000.0, 4_500_000.0
BANDS = ["B1", "B2"]
OPTIONS = {"x_column": "x", "y_column": "y", "geometry_crs": 32631}
ORDER = [("point_index", "ascending"), ("record_id", "ascending"), ("band", "ascending")]

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection of three records of two bands, in one file; deflate with predictor 2, nine tiles each."""
    folder = tmp_path_factory.mktemp("whole")
    paths = [write_raster(folder / f"{name}.tif", number) for number, name in enumerate("abc")]
    collection = rasteret_beam.build_from_cogs(paths, datetime=[2021, 2022, 2023], name="whole")
    collection.export(folder / "c.parquet")
    return folder / "c.parquet"


def write_raster(path: Path, number: int) -> Path:
    """Values of which no two tiles compress to one size."""
    profile = {
        "driver": "GTiff",
        "dtype": "int16",
        "count": 2,
        "width": SIZE,
        "height": SIZE,
        "crs": "EPSG:32631",
        "transform": Affine(PIXEL, 0, LEFT + number * SIZE * PIXEL / 2, 0, -PIXEL, TOP),
        "nodata": -9999,
        "tiled": True,
        "blockxsize": TILE,
        "blockysize": TILE,
        "compress": "deflate",
        "predictor": 2,
        "interleave": "band",
    }
    rng = np.random.default_rng(number)
    band, row, col = np.ogrid[:2, :SIZE, :SIZE]
    limits = 2 + 7 ** (row // TILE + 0 * band) * (1 + 3 * (col // TILE) + band + number)
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(rng.integers(0, limits, (2, SIZE, SIZE)).astype("int16"))
    return path


@pytest.fixture(scope="module")
def points() -> pa.Table:
    rng = np.random.default_rng(3)
    x, y = rng.uniform(LEFT, LEFT + 2 * SIZE * PIXEL, 200), rng.uniform(TOP - SIZE * PIXEL, TOP, 200)
    return pa.table({"x": x, "y": y})


@pytest.fixture(scope="module")
def expected(whole: Path, points: pa.Table) -> pa.Table:
    return sampled(whole, points)


def sampled(path: Path, points: pa.Table) -> pa.Table:
    rows = load(path, name="whole").sample_points(points, BANDS, **OPTIONS)
    return rows.sort_by(ORDER)


def write(table: pa.Table, path: Path, **options: Any) -> Path:
    pq.write_table(table, path, **options)
    return path


def edited(edit: Callable[[Rows], None]) -> Callable[[pa.Table], pa.Table]:
    """An edit of the rows as an edit of the table, whose types and metadata stay."""

    def apply(table: pa.Table) -> pa.Table:
        rows = table.to_pylist()
        edit(rows)
        return pa.Table.from_pylist(rows, schema=table.schema)

    return apply


def put(path: str, value: Any) -> Callable[[pa.Table], pa.Table]:
    """Set a value of the second record; ``value`` may be a function of the one there."""

    def edit(rows: Rows) -> None:
        *above, last = path.split("/")
        place: Any = rows[1]
        for name in above:
            place = place[int(name) if isinstance(place, list) else name]
        last = int(last) if isinstance(place, list) else last  # type: ignore[assignment]
        place[last] = value(place[last]) if callable(value) else value

    return edited(edit)


def recast(column: str, kind: pa.DataType, values: list[Any] | None = None) -> Callable[[pa.Table], pa.Table]:
    def edit(table: pa.Table) -> pa.Table:
        array = pa.array(values, type=kind) if values is not None else table[column].cast(kind)
        return table.set_column(table.column_names.index(column), column, array)

    return edit


def drop(column: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.drop_columns([column])


def drop_field(column: str, field: str) -> Callable[[pa.Table], pa.Table]:
    def edit(table: pa.Table) -> pa.Table:
        array = table[column].combine_chunks()
        names = [name for name in array.type.names if name != field]
        rest = pa.StructArray.from_arrays([pc.struct_field(array, name) for name in names], names=names)
        return table.set_column(table.column_names.index(column), column, rest)

    return edit


def metadata(key: bytes, value: bytes) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.replace_schema_metadata({**table.schema.metadata, key: value})


def swapped(values: list[Any]) -> list[Any]:
    return [values[1], values[0], *values[2:]]


def first(value: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda values: [value, *values[1:]]


SAME = ""
"""The edit changes nothing that matters: the rows have to be the same."""

EDITS: dict[str, tuple[Callable[[pa.Table], pa.Table], str]] = {
    # Where tiles are, and how they are stored.
    "offsets swapped": (put("B1_metadata/tile_offsets", swapped), "band B1"),
    "offsets reversed": (put("B1_metadata/tile_offsets", lambda values: values[::-1]), "band B1"),
    "offsets of another band": (
        edited(lambda rows: rows[1]["B1_metadata"].update(tile_offsets=rows[1]["B2_metadata"]["tile_offsets"])),
        "band B1",
    ),
    "offsets of another record": (
        edited(lambda rows: rows[1]["B1_metadata"].update(tile_offsets=rows[0]["B1_metadata"]["tile_offsets"])),
        "band B1",
    ),
    "offsets all alike": (put("B1_metadata/tile_offsets", lambda values: values[:1] * 9), "band B1"),
    "offset off by one": (put("B1_metadata/tile_offsets", lambda values: [values[0] + 1, *values[1:]]), "band B1"),
    "offset negative": (put("B1_metadata/tile_offsets", first(-1)), "band B1"),
    "offset huge": (put("B1_metadata/tile_offsets", first(1 << 62)), "band B1"),
    "offset null": (put("B1_metadata/tile_offsets", first(None)), "B1_metadata.tile_offsets holds a null"),
    "offsets cut short": (put("B1_metadata/tile_offsets", lambda values: values[:-1]), "band B1"),
    "offsets empty": (put("B1_metadata/tile_offsets", []), "band B1"),
    "offsets null": (put("B1_metadata/tile_offsets", None), "band B1"),
    "counts zero": (put("B1_metadata/tile_byte_counts", lambda values: [0] * len(values)), "band B1"),
    "counts and offsets zero": (
        edited(lambda rows: rows[1]["B1_metadata"].update(tile_offsets=[0] * 9, tile_byte_counts=[0] * 9)),
        "band B1",
    ),
    "counts negative": (put("B1_metadata/tile_byte_counts", first(-5)), "band B1"),
    "counts huge": (put("B1_metadata/tile_byte_counts", first(1 << 40)), "band B1"),
    "counts swapped": (put("B1_metadata/tile_byte_counts", lambda values: values[::-1]), "band B1"),
    "predictor 1": (put("B1_metadata/predictor", 1), "band B1"),
    "predictor 3": (put("B1_metadata/predictor", 3), "band B1"),
    "predictor null": (put("B1_metadata/predictor", None), "band B1"),
    "compression of another": (put("B1_metadata/compression", 50000), "band B1"),
    "byte order": (put("B1_extra/byte_order", "big"), "band B1"),
    "samples": (put("B1_metadata/samples_per_pixel", 1), "band B1"),
    "planar": (put("B1_metadata/planar_configuration", 1), "band B1"),
    "dtype of another": (put("B1_metadata/dtype", "uint16"), "band B1"),
    "dtype unknown": (put("B1_metadata/dtype", "int17"), "B1_metadata.dtype is 'int17'"),
    "dtype complex": (put("B1_metadata/dtype", "complex64"), "B1_metadata.dtype is 'complex64'"),
    "dtype null": (put("B1_metadata/dtype", None), "B1_metadata.dtype is None"),
    "nodata": (put("B1_metadata/nodata", 5.0), "band B1"),
    "nodata null": (put("B1_metadata/nodata", None), "band B1"),
    "file size": (put("B1_extra/file_size", 100), "band B1"),
    "metadata null": (put("B1_metadata", None), "B1_metadata.dtype is None"),
    "extra null": (put("B1_extra", None), "band B1"),
    # Grids.
    "grids null": (put("grids", None), "grids is None"),
    "grids empty": (put("grids", []), r"grids is \[\]"),
    "grids twice": (put("grids", lambda grids: grids * 2), "another grid of the record has one of these bands too"),
    "grids of another record": (edited(lambda rows: rows[1].update(grids=rows[0]["grids"])), "id, datetime, grids"),
    "grid null": (put("grids/0", None), "grids is None"),
    "grid NaN": (put("grids/0/transform/2", float("nan")), "grids.transform is"),
    "grid infinite": (put("grids/0/transform/2", float("inf")), "not 6 finite numbers"),
    "grid null number": (put("grids/0/transform/2", None), "not 6 finite numbers"),
    "grid of no pixel size": (put("grids/0/transform/0", 0.0), "whose pixels have no size"),
    "grid of four numbers": (put("grids/0/transform", [1.0, 2.0, 3.0, 4.0]), "not 6 numbers"),
    "grid without a transform": (put("grids/0/transform", None), "grids.transform is None"),
    "grid moved": (put("grids/0/transform/2", lambda x: x + PIXEL), "id, datetime, grids"),
    "grid mirrored": (put("grids/0/transform/4", PIXEL), "id, datetime, grids"),
    "grid width": (put("grids/0/width", SIZE - 1), "id, datetime, grids"),
    "grid width zero": (put("grids/0/width", 0), "grids.width is 0"),
    "grid height negative": (put("grids/0/height", -3), "grids.height is -3"),
    "grid tile width zero": (put("grids/0/tile_width", 0), "grids.tile_width is 0"),
    "grid tile height null": (put("grids/0/tile_height", None), "grids.tile_height is None"),
    "grid CRS of another": (put("grids/0/crs", "EPSG:32632"), "id, datetime, grids"),
    "grid CRS unknown": (put("grids/0/crs", "EPSG:99999999"), "grids.crs is 'EPSG:99999999', which PROJ cannot parse"),
    "grid CRS null": (put("grids/0/crs", None), "grids.crs is None"),
    "grid bands null": (put("grids/0/bands", None), "grids.bands is None"),
    "grid bands not JSON": (put("grids/0/bands", "B1,B2"), "grids.bands is 'B1,B2', not a JSON list"),
    "grid bands a number": (put("grids/0/bands", "[1]"), "not a JSON list of band names"),
    "grid bands lack one": (put("grids/0/bands", '["B1"]'), "id, datetime, grids"),
    "grids dropped": (drop("grids"), "id, datetime, crs, proj:epsg"),
    "grids text": (recast("grids", pa.string(), ["x"] * 3), "column grids is string, not a list"),
    # Assets.
    "href null": (put("assets/B1/href", None), "assets.B1.href is None"),
    "href empty": (put("assets/B1/href", ""), "assets.B1.href is ''"),
    "href blank": (put("assets/B1/href", "  "), "assets.B1.href is '  '"),
    "href of another record": (
        edited(lambda rows: rows[1]["assets"]["B1"].update(href=rows[0]["assets"]["B1"]["href"])),
        "band B1",
    ),
    "band index of another": (put("assets/B1/band_index", 1), "band B1"),
    "band index negative": (put("assets/B1/band_index", -1), "assets.B1.band_index is -1"),
    "band index null": (put("assets/B2/band_index", None), "band B2"),
    "assets null": (put("assets", None), "assets.B1.href is None"),
    "assets dropped": (drop("assets"), r"lacks column\(s\) assets"),
    "assets text": (recast("assets", pa.string(), ["x"] * 3), "column assets of .* is string"),
    "assets lack band_index": (
        recast("assets", pa.struct([("B1", pa.struct([("href", pa.string())]))]), [{"B1": {"href": "x"}}] * 3),
        "assets.B1 of .* is struct",
    ),
    # Ids and dates.
    "id null": (put("id", None), "record number 1 .* has no id"),
    "id of another": (put("id", "a"), "id, datetime, grids"),
    "id changed": (put("id", "z"), "id, datetime, grids"),
    "id a number": (recast("id", pa.int64(), [1, 2, 3]), "column id of .* is int64, not a string"),
    "id a view of text": (recast("id", pa.string_view()), "column id of .* is string_view, not a string"),
    "id dropped": (drop("id"), r"lacks column\(s\) id"),
    "records twice": (lambda table: pa.concat_tables([table, table]), "a, b, c stand more than once"),
    "datetime changed": (put("datetime", None), "id, datetime, grids"),
    "datetime text": (recast("datetime", pa.string()), "column datetime of .* is string, not a timestamp"),
    "datetime a number": (recast("datetime", pa.int64()), "column datetime of .* is int64, not a timestamp"),
    "datetime dropped": (drop("datetime"), r"lacks column\(s\) datetime"),
    # Other columns.
    "geometry dropped": (drop("geometry"), r"lacks column\(s\) geometry"),
    "geometry null": (put("geometry", None), SAME),
    "geometry broken": (put("geometry", b"\x01\x02"), SAME),
    "bbox null": (put("bbox", None), SAME),
    "bbox dropped": (drop("bbox"), SAME),
    "crs unknown": (put("crs", "nowhere"), SAME),
    "proj:epsg dropped": (drop("proj:epsg"), SAME),
    "year wrong": (put("year", 1), SAME),
    "metadata column dropped": (drop("B1_metadata"), r"lacks band\(s\) B1"),
    "metadata text": (recast("B1_metadata", pa.string(), ["x"] * 3), "column B1_metadata is string, not a struct"),
    "metadata without dtype": (drop_field("B1_metadata", "dtype"), "column B1_metadata lacks dtype"),
    "metadata without offsets": (drop_field("B1_metadata", "tile_offsets"), "band B1"),
    "extra dropped": (drop("B1_extra"), "band B1"),
    "extra text": (recast("B1_extra", pa.string(), ["x"] * 3), "column B1_extra is string, not a struct"),
    "href with a null byte": (put("assets/B1/href", "/a\0b.tif"), "assets.B1.href is .* which a path cannot contain"),
    "checksums null": (put(CHECKSUMS, None), SAME),
    "checksums dropped": (drop(CHECKSUMS), SAME),
    "checksums text": (recast(CHECKSUMS, pa.string(), ["x"] * 3), "column checksums of .* is string, not a struct"),
    "checksum changed": (put(f"{CHECKSUMS}/bands/B2", 5), "band B2"),
    # Metadata of the schema.
    "version 2": (metadata(b"rasteret_collection_version", b"2"), "layout version '2'"),
    "version of bytes": (metadata(b"rasteret_collection_version", b"\xff"), "layout version"),
    "geo not JSON": (metadata(b"geo", b"{"), SAME),
    "geo of another column": (metadata(b"geo", json.dumps({"primary_column": "x", "columns": {}}).encode()), SAME),
    "name not text": (metadata(b"name", b"\xff\xfe"), SAME),
    "metadata none": (lambda table: table.replace_schema_metadata(None), SAME),
    # Rewrites that change nothing.
    "columns in another order": (lambda table: table.select(table.column_names[::-1]), SAME),
    "a further column": (lambda table: table.append_column("note", pa.array(["x"] * 3)), SAME),
    "64-bit numbers": (recast("proj:epsg", pa.int64()), SAME),
    "large text": (recast("id", pa.large_string()), SAME),
    "dates in nanoseconds": (recast("datetime", pa.timestamp("ns")), SAME),
    "dates in milliseconds": (recast("datetime", pa.timestamp("ms")), SAME),
    "no records": (lambda table: table.slice(0, 0), "has no records"),
}


def setup_of_a_pipeline(path: Path, points: pa.Table) -> None:
    """What a worker does before and while it samples, without a runner."""
    transform = SamplePoints(load(path), BANDS)
    index = transform.collection.index(BANDS)
    for record in index.routing.record_ids:
        index.assets(record, BANDS)


def planned(path: Path, points: pa.Table) -> pa.Table:
    return load(path).plan(points, BANDS, **OPTIONS)


def cropped(path: Path, points: pa.Table) -> np.ndarray:
    return load(path).get_numpy((LEFT + 400.0, TOP - 500.0, LEFT + 700.0, TOP - 300.0), BANDS, geometry_crs=32631)


FACES = {"sample": sampled, "plan": planned, "get_numpy": cropped, "setup": setup_of_a_pipeline}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_harmless_or_an_error(
    name: str, whole: Path, points: pa.Table, expected: pa.Table, tmp_path: Path
) -> None:
    edit, message = EDITS[name]
    path = write(edit(pq.read_table(whole, partitioning=None)), tmp_path / "c.parquet")
    if message == SAME:
        assert sampled(path, points).equals(expected)
        assert np.array_equal(cropped(path, points), cropped(whole, points))
        return
    with pytest.raises(RasteretBeamError, match=message) as caught:
        sampled(path, points)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("face", ["plan", "get_numpy", "setup"])
@pytest.mark.parametrize(
    "name", ["offsets swapped", "dtype unknown", "grids null", "grid NaN", "href null", "id null", "assets dropped"]
)
def test_other_faces_have_the_same_errors(name: str, face: str, whole: Path, points: pa.Table, tmp_path: Path) -> None:
    edit, message = EDITS[name]
    path = write(edit(pq.read_table(whole, partitioning=None)), tmp_path / "c.parquet")
    with pytest.raises(CollectionError, match=message):
        FACES[face](path, points)


@pytest.mark.parametrize("name", [name for name, (_, message) in EDITS.items() if message])
def test_an_edit_of_a_collection_without_checksums_is_no_bare_error(
    name: str, whole: Path, points: pa.Table, tmp_path: Path
) -> None:
    """As Rasteret and older releases wrote them: what cannot be is refused, what can be gives rows."""
    table = EDITS[name][0](pq.read_table(whole, partitioning=None))
    table = table.drop_columns([CHECKSUMS]) if CHECKSUMS in table.column_names else table
    path = write(table, tmp_path / "c.parquet")
    try:
        sampled(path, points)
    except RasteretBeamError as error:
        assert "\n" not in str(error)


IMPOSSIBLE = (
    "offsets swapped",
    "offsets reversed",
    "offsets of another record",
    "offsets all alike",
    "offset off by one",
    "offset negative",
    "offset huge",
    "offsets cut short",
    "offsets empty",
    "offsets null",
    "counts zero",
    "counts negative",
    "counts huge",
    "counts swapped",
    "predictor 3",
)
"""Edits of facts that cannot all hold: rasterio reads what such facts are of."""


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_impossible_facts_are_not_used_without_checksums(
    name: str, whole: Path, points: pa.Table, expected: pa.Table, tmp_path: Path
) -> None:
    table = EDITS[name][0](pq.read_table(whole, partitioning=None)).drop_columns([CHECKSUMS])
    path = write(table, tmp_path / "c.parquet")
    assert sampled(path, points).equals(expected)
    assert np.array_equal(cropped(path, points), cropped(whole, points))
    plan = planned(path, points)
    engines = plan.filter((pc.field("record_id") == "b") & (pc.field("band") == "B1"))["engine"]
    assert set(engines.to_pylist()) == {"rasterio"}


@pytest.mark.parametrize("name", ["grid width", "grid moved"])
def test_grids_have_to_agree_with_the_metadata_of_bands(
    name: str, whole: Path, points: pa.Table, tmp_path: Path
) -> None:
    table = EDITS[name][0](pq.read_table(whole, partitioning=None)).drop_columns([CHECKSUMS])
    path = write(table, tmp_path / "c.parquet")
    with pytest.raises(CollectionError, match=r"record 'b' of .*c.parquet: B1_metadata.* but in column grids it is"):
        planned(path, points)


def test_a_damaged_file_ends_a_pipeline(whole: Path, points: pa.Table, tmp_path: Path) -> None:
    edit, _ = EDITS["offsets swapped"]
    path = write(edit(pq.read_table(whole, partitioning=None)), tmp_path / "c.parquet")
    write(points, tmp_path / "points.parquet")
    flags = as_flags(
        points=tmp_path / "points.parquet", geometry_crs=32631, collection=path, bands="B1", output=tmp_path / "out/s"
    )
    outcome = execute(sample_points.main, *flags)
    assert outcome.code == 1
    assert f"record 'b' of {path}: band B1 was changed after the collection was written" in outcome.err


@pytest.mark.parametrize("cut", [-1, -8, -200, 1000, 4, 0])
def test_a_file_that_was_cut_off(whole: Path, points: pa.Table, tmp_path: Path, cut: int) -> None:
    (tmp_path / "c.parquet").write_bytes(whole.read_bytes()[:cut])
    for face in FACES.values():
        with pytest.raises(CollectionError, match=r"c\.parquet cannot be read as Parquet"):
            face(tmp_path / "c.parquet", points)


def test_bytes_overwritten_anywhere(whole: Path, points: pa.Table, expected: pa.Table, tmp_path: Path) -> None:
    content = whole.read_bytes()
    path = tmp_path / "c.parquet"
    for start in np.linspace(4, len(content) - 60, 25).astype(int):
        path.write_bytes(content[:start] + b"\xa5" * 16 + content[start + 16 :])
        try:
            found = sampled(path, points)
        except RasteretBeamError:
            continue
        assert found.equals(expected), start


def test_row_groups_without_rows(whole: Path, points: pa.Table, expected: pa.Table, tmp_path: Path) -> None:
    table = pq.read_table(whole, partitioning=None)
    with pq.ParquetWriter(tmp_path / "c.parquet", table.schema) as writer:
        for part in (table.slice(0, 0), table.slice(0, 1), table.slice(0, 0), table.slice(1), table.slice(0, 0)):
            writer.write_table(part)
    assert sampled(tmp_path / "c.parquet", points).equals(expected)


REWRITES: dict[str, Callable[[Path, Path], object]] = {
    "arrow": lambda old, new: pq.write_table(pq.read_table(old), new, compression="snappy", row_group_size=1),
    "arrow 2.6 data pages": lambda old, new: pq.write_table(pq.read_table(old), new, data_page_version="2.0"),
    "polars": lambda old, new: polars.read_parquet(old).write_parquet(new),
    "pandas": lambda old, new: pandas.read_parquet(old).to_parquet(new),
    "pandas, Arrow types": lambda old, new: pandas.read_parquet(old, dtype_backend="pyarrow").to_parquet(new),
    "duckdb, sorted": lambda old, new: duckdb.sql(f"COPY (FROM '{old}' ORDER BY id DESC) TO '{new}' (FORMAT parquet)"),
}


@pytest.mark.parametrize("tool", REWRITES)
def test_a_rewrite_by_another_tool_passes(
    tool: str, whole: Path, points: pa.Table, expected: pa.Table, tmp_path: Path
) -> None:
    REWRITES[tool](whole, tmp_path / "c.parquet")
    assert sampled(tmp_path / "c.parquet", points).equals(expected)
    index = load(tmp_path / "c.parquet").index(BANDS)
    assert CHECKSUMS in load(tmp_path / "c.parquet").schema.names
    assert index.assets("b", BANDS)[0].stored is not None


def test_a_rewrite_of_some_records_passes_and_damage_in_it_is_found(
    whole: Path, points: pa.Table, tmp_path: Path
) -> None:
    table = pq.read_table(whole, partitioning=None)
    write(table.filter(pc.field("id") != "a"), tmp_path / "c.parquet")
    assert set(sampled(tmp_path / "c.parquet", points)["record_id"].to_pylist()) == {"b", "c"}
    write(EDITS["offsets swapped"][0](table).filter(pc.field("id") != "a"), tmp_path / "c.parquet")
    with pytest.raises(CollectionError, match=r"record 'b' .*: band B1 was changed"):
        sampled(tmp_path / "c.parquet", points)


def test_damage_is_not_exported(whole: Path, tmp_path: Path) -> None:
    edit, _ = EDITS["offsets swapped"]
    path = write(edit(pq.read_table(whole, partitioning=None)), tmp_path / "c.parquet")
    with pytest.raises(CollectionError, match=f"record 'b' of {path}: band B1 was changed"):
        load(path).export(tmp_path / "again")
    without = write(pq.read_table(path, partitioning=None).drop_columns([CHECKSUMS]), tmp_path / "d.parquet")
    load(without).export(tmp_path / "again")  # what its error says to do
    assert CHECKSUMS in load(tmp_path / "again").schema.names


def test_a_collection_that_was_built_by_beam_has_checksums(whole: Path, tmp_path: Path) -> None:
    flags = as_flags(cogs=whole.parent, datetime_regex=r"()", output=tmp_path / "built")
    flags = [flag for flag in flags if "datetime_regex" not in flag]
    assert execute(build_collection.main, *flags).code == 0
    built = load(tmp_path / "built").to_table()
    assert built[CHECKSUMS].null_count == 0
    checksums.check_table(built, "built")


def test_a_table_in_memory_may_be_changed(whole: Path, points: pa.Table, expected: pa.Table) -> None:
    table = put("assets/B1/band_index", 1)(load(whole).to_table())
    rows = Collection.from_table(table, name="whole").sample_points(points, BANDS, **OPTIONS).sort_by(ORDER)
    assert rows.num_rows == expected.num_rows
    assert not rows.equals(expected)
