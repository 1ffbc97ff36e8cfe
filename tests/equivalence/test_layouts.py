"""Wide sample tables: one row for each point and record, pivoted from the long table as the oracle."""

from pathlib import Path

import pyarrow as pa
import pytest

from rasteret_beam import Collection, ReadPoints, SamplePoints, WriteSamplesToParquet, build_from_cogs, build_from_table
from rasteret_beam.errors import InputError
from tests.support.pipelines import XY, read, run
from tests.support.rasters import RasterCase

POINT_AND_RECORD = ("point_index", "record_id")


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Two records of 64 bands that lie apart in one file, as AlphaEarth's do."""
    folder = tmp_path_factory.mktemp("embeddings")
    paths = []
    for year in (2022, 2023):
        case = RasterCase(
            name=f"tile_{year}",
            dtype="int8",
            count=64,
            nodata=-128,
            tile=(32, 32),
            options={"COMPRESS": "ZSTD", "INTERLEAVE": "BAND"},
        )
        paths.append(case.write(folder))
    names = [f"A{number:02d}" for number in range(64)]
    return build_from_cogs(paths, bands=names, datetime=["2022-01-01", "2023-01-01"], name="embeddings")


@pytest.fixture(scope="module")
def plots() -> pa.Table:
    x = [500_000.0 + 16 * column for column in (3, 40, 90, 202, 500)]
    y = [4_500_000.0 - 16 * row - 5 for row in (3, 60, 90, 150, 1)]
    return pa.table({"x": x, "y": y, "plot": ["a", "b", "c", "d", "outside"]})


def pivoted(long: pa.Table, bands: list[str]) -> dict[tuple, list[float | None]]:
    found: dict[tuple, dict[str, float]] = {}
    for row in long.to_pylist():
        found.setdefault(tuple(row[name] for name in POINT_AND_RECORD), {})[row["band"]] = row["value"]
    return {key: [values.get(band) for band in bands] for key, values in found.items()}


def wide_values(table: pa.Table, bands: list[str]) -> dict[tuple, list[float | None]]:
    rows = table.to_pylist()
    keys = [tuple(row[name] for name in POINT_AND_RECORD) for row in rows]
    assert len(set(keys)) == len(keys)  # one row each
    return {
        key: row["values"] if "values" in row else [row[band] for band in bands]
        for key, row in zip(keys, rows, strict=True)
    }


@pytest.mark.parametrize("match", ["all", pytest.param("latest", marks=pytest.mark.slow)])
@pytest.mark.parametrize("layout", ["values", "columns"])
def test_64_bands(embeddings: Collection, plots: pa.Table, tmp_path: Path, layout: str, match: str) -> None:
    bands = [*embeddings.bands[10:], *embeddings.bands[:10]]  # the order asked for, not the file's
    long = embeddings.sample_points(plots, bands, **XY, match=match)
    expected = pivoted(long, bands)
    wide = embeddings.sample_points(plots, bands, **XY, match=match, layout=layout)
    assert wide_values(wide, bands) == expected and len(wide) == (8 if match == "all" else 4)

    def build(pipeline: object) -> None:
        points = pipeline | ReadPoints(plots, **XY)  # type: ignore[operator]
        sampled = points | SamplePoints(embeddings, bands, match=match, layout=layout)
        sampled | WriteSamplesToParquet(str(tmp_path / "wide"))

    run(build)
    written = read(tmp_path / "wide")
    assert written.schema == wide.schema
    assert wide_values(written, bands) == expected


def test_columns_and_types(embeddings: Collection, plots: pa.Table) -> None:
    first = ["point_index", "point_x", "point_y", "point_crs", "record_id", "datetime", "collection"]
    listed = embeddings.sample_points(plots, ["A00", "A01"], **XY, layout="values")
    assert listed.schema.names == [*first, "values", "raster_crs", "x", "y", "plot"]
    assert listed.schema.field("values").type == pa.list_(pa.float64(), 2)
    columns = embeddings.sample_points(plots, ["A01", "A00"], **XY, layout="columns")
    assert columns.schema.names == [*first, "A01", "A00", "raster_crs", "x", "y", "plot"]
    assert columns.schema.field("A01").type == pa.float64()


def test_a_record_that_lacks_a_band_has_null_there(tmp_path: Path, plots: pa.Table) -> None:
    paths = [str(RasterCase(name=name, dtype="uint8").write(tmp_path)) for name in ("both_a", "both_b", "one_a")]
    assets = [
        {"A": {"href": paths[0], "band_index": 0}, "B": {"href": paths[1], "band_index": 0}},
        {"A": {"href": paths[2], "band_index": 0}, "B": None},
    ]
    records = pa.table({"id": ["both", "one"], "datetime": pa.array([0, 1], pa.timestamp("us")), "assets": assets})
    collection = build_from_table(records)
    for layout in ("values", "columns"):
        wide = wide_values(collection.sample_points(plots, ["A", "B"], **XY, layout=layout), ["A", "B"])
        assert wide == pivoted(collection.sample_points(plots, ["A", "B"], **XY), ["A", "B"])
        assert all(values[1] is None for (_, record), values in wide.items() if record == "one")
    long = collection.sample_points(plots, ["A", "B"], **XY, match="latest").to_pylist()
    newest = {(row["point_index"], row["band"]): row["value"] for row in long}
    wide_rows = collection.sample_points(plots, ["A", "B"], **XY, layout="values", match="latest").to_pylist()
    assert {row["record_id"] for row in wide_rows} == {"one"}  # that of the first band
    assert {(row["point_index"], *row["values"]) for row in wide_rows} == {
        (point, newest[point, "A"], newest[point, "B"]) for point, _ in newest
    }


def test_bands_on_several_grids_stand_in_one_row(scenes: Collection, points: pa.Table, tmp_path: Path) -> None:
    bands = ["B10", "B20"]
    long = pivoted(scenes.sample_points(points, bands, **XY), bands)
    assert wide_values(scenes.sample_points(points, bands, **XY, layout="values"), bands) == long

    def build(pipeline: object) -> None:
        rows = pipeline | ReadPoints(points, **XY) | SamplePoints(scenes, bands, layout="columns")  # type: ignore[operator]
        rows | WriteSamplesToParquet(str(tmp_path / "wide"))

    counts = run(build)
    assert wide_values(read(tmp_path / "wide"), bands) == long
    assert counts["values_sampled"] == sum(value is not None for values in long.values() for value in values)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layout": "tall"}, "layout is 'tall'; it can be one of"),
        (
            {"layout": "values", "max_distance_pixels": 1, "return_neighbourhood": "always"},
            "layout is 'values', but return_neighbourhood is 'always'",
        ),
    ],
)
def test_unusable_layouts(embeddings: Collection, plots: pa.Table, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        embeddings.sample_points(plots, ["A00"], **XY, **options)


@pytest.mark.parametrize(("layout", "name"), [("values", "values"), ("columns", "A00")])
def test_a_kept_column_in_the_way_is_named(embeddings: Collection, plots: pa.Table, layout: str, name: str) -> None:
    renamed = plots.rename_columns(["x", "y", name])
    with pytest.raises(InputError, match=rf"layout='{layout}' adds column\(s\) {name}, but the sample table has"):
        embeddings.sample_points(renamed, ["A00"], **XY, layout=layout)
    assert len(embeddings.sample_points(renamed, ["A00"], **XY, layout=layout, columns=[])) == 8


def test_the_closest_valid_pixel_in_wide_rows(embeddings: Collection, plots: pa.Table) -> None:
    bands = embeddings.bands[:5]
    long = embeddings.sample_points(plots, bands, **XY, max_distance_pixels=2)
    wide = embeddings.sample_points(plots, bands, **XY, max_distance_pixels=2, layout="values")
    assert wide_values(wide, bands) == pivoted(long, bands)
