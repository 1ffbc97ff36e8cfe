"""The pipeline gives the rows of the eager call, and the unsampled points, for every option of ``sample_points``."""

import inspect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apache_beam as beam
import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from affine import Affine
from pyproj import Transformer

from rasteret_beam import Collection, Quality, ReadPoints, SamplePoints, WriteSamplesToParquet, build_from_table, load
from rasteret_beam.collection.eager.sample import sample_points
from rasteret_beam.job_options import LEAST_CACHE_BYTES
from rasteret_beam.options import SampleOptions
from tests.support.pipelines import ORDER, Kept, read, run
from tests.support.rasters import RasterCase

LEFT, TOP, PIXEL, SIZE = 500_000.0, 5_400_000.0, 16.0, 96
BOX = (3.0, 48.74, 3.012, 48.75)
XY = {"x_column": "lon", "y_column": "lat", "geometry_crs": 4326}
UTM = {"x_column": "east", "y_column": "north", "geometry_crs": 32631}
AROUND = {"max_distance_pixels": 2}
WHEN = {"time_column": "when"}
PLACES = ["distance", "pixel_x", "pixel_lat", "nodata", "scale", "candidate", "status"]
CLEAR = {"quality": [Quality("a", minimum=0)]}
NEAREST = WHEN | {"match": "nearest"}


@dataclass(frozen=True)
class Case:
    """Options by who takes them: ReadPoints, SamplePoints, or ``subset``; the eager call takes them all."""

    reading: dict[str, Any] = field(default_factory=lambda: dict(XY))
    sampling: dict[str, Any] = field(default_factory=dict)
    filters: dict[str, Any] = field(default_factory=dict)
    bands: tuple[str, ...] = ("a", "b")
    points: str = "coordinates"


CASES = {
    "as it is": Case(),
    "inferred coordinate columns": Case({"geometry_crs": 4326, "columns": ["plot", "kind"]}),
    "coordinates in the raster's CRS": Case(UTM),
    "coordinates in another CRS": Case(UTM | {"x_column": "x3857", "y_column": "y3857", "geometry_crs": "EPSG:3857"}),
    "geometry_column of WKB": Case({"geometry_column": "wkb", "geometry_crs": 4326}, points="wkb"),
    "geometry_column of GeoArrow": Case({"geometry_column": "geometry"}, points="geoarrow"),
    "geometry known by its type": Case({}, points="geoarrow"),
    "one band": Case(bands=("b",)),
    "bands in another order": Case(bands=("b", "a")),
    "columns": Case(XY | {"columns": ["kind", "lon"]}),
    "no columns": Case(XY | {"columns": []}),
    "match latest": Case(sampling={"match": "latest"}),
    "match nearest": Case(XY | WHEN, NEAREST),
    "match before": Case(XY | WHEN, WHEN | {"match": "before", "extra_columns": ["time_difference"]}),
    "match after, wide": Case(
        XY | WHEN, WHEN | {"match": "after", "layout": "values", "extra_columns": ["time_difference"]}, bands=("a",)
    ),
    "match nearest, time not among the columns": Case(XY | WHEN | {"columns": ["plot"]}, NEAREST),
    "tolerance, wide": Case(XY | WHEN, WHEN | {"tolerance": "P250D", "layout": "columns"}),
    "limit": Case(XY | WHEN, NEAREST | {"limit": 2, "extra_columns": ["time_difference"]}),
    "overlap": Case(sampling={"overlap": "first", "overlap_tolerance": "400D"}),
    "time difference of the latest": Case(
        XY | WHEN, WHEN | {"match": "latest", "extra_columns": ["time_difference"]}, bands=("a",)
    ),
    "max_distance_pixels": Case(sampling={"max_distance_pixels": 1}),
    "neighbourhood off": Case(sampling=AROUND | {"return_neighbourhood": "off"}),
    "neighbourhood always": Case(sampling=AROUND | {"return_neighbourhood": "always"}),
    "neighbourhood if nodata": Case(sampling=AROUND | {"return_neighbourhood": "if_center_nodata"}),
    "resampling": Case(sampling={"resampling": "bilinear"}),
    "skip_nodata": Case(sampling={"resampling": "cubic", "skip_nodata": True}),
    "statistics of squares": Case(sampling={"statistics": ["mean", "count"], "window_pixels": 1}),
    "statistics of circles": Case(sampling={"statistics": ["max", "percentile_90"], "radius": 40.0}),
    "fallback ring": Case(sampling=AROUND | {"fallback": "ring"}),
    "fallback closest, latest": Case(sampling=AROUND | {"fallback": "closest", "match": "latest"}),
    "layout long": Case(sampling={"layout": "long"}),
    "layout values": Case(sampling={"layout": "values"}),
    "layout columns": Case(sampling={"layout": "columns"}, bands=("b", "a")),
    "layout values, latest": Case(sampling=AROUND | {"layout": "values", "match": "latest"}, bands=("a",)),
    "value_type raw": Case(sampling={"value_type": "raw"}),
    "value_type float32, values": Case(sampling={"value_type": "float32", "layout": "values"}),
    "value_type raw, columns": Case(sampling=AROUND | {"value_type": "raw", "layout": "columns"}),
    "invalid null": Case(sampling={"invalid": "null"}),
    "invalid null, wide": Case(sampling={"invalid": "null", "layout": "columns"}),
    "invalid drop": Case(sampling={"invalid": "drop"}),
    "invalid drop, wide, left": Case(sampling={"invalid": "drop", "layout": "values", "join": "left"}),
    "quality": Case(sampling=CLEAR | {"invalid": "null", "extra_columns": ["status"]}),
    "quality, latest": Case(sampling=CLEAR | {"invalid": "drop", "match": "latest"}, bands=("b",)),
    "quality, windows": Case(sampling=CLEAR | AROUND | {"return_neighbourhood": "always"}, bands=("b",)),
    "skip_invalid": Case(sampling=CLEAR | {"skip_invalid": True, "match": "latest", "extra_columns": ["candidate"]}),
    "skip_invalid, nearest": Case(
        XY | WHEN, NEAREST | CLEAR | {"skip_invalid": True, "max_candidates": 1, "layout": "columns"}
    ),
    "unscale": Case(sampling={"unscale": True}),
    "unscale, windows": Case(sampling=AROUND | {"unscale": True, "return_neighbourhood": "always"}),
    "scales, columns": Case(
        sampling={"unscale": True, "scales": {"b": (0.1, 7)}, "layout": "columns", "value_type": "float32"}
    ),
    "cache_bytes": Case(sampling={"cache_bytes": LEAST_CACHE_BYTES}),
    "prefix_reads": Case(sampling={"prefix_reads": True}),
    "extra_columns": Case(sampling={"extra_columns": ["href", "pixel_row", "pixel_col"]}),
    "extra_columns of windows": Case(sampling=AROUND | {"extra_columns": ["pixel_col"]}),
    "places of pixels and status": Case(sampling=AROUND | {"extra_columns": PLACES}),
    "columns of the collection, wide": Case(
        sampling={"layout": "columns", "extra_columns": ["record:eo:cloud_cover", "record:year", "status"]}
    ),
    "geometry of points": Case(sampling={"geometry": "point", "join": "left"}),
    "geometry of pixels": Case(sampling=AROUND | {"geometry": "pixel", "match": "latest"}),
    "join left": Case(sampling={"join": "left"}),
    "join left, latest": Case(sampling={"join": "left", "match": "latest", "extra_columns": ["status"]}, bands=("a",)),
    "join left, wide": Case(sampling={"join": "left", "layout": "values", "extra_columns": ["status", "record:bbox"]}),
    "options": Case(sampling={"options": SampleOptions(match="latest", max_distance_pixels=1)}),
    "bbox": Case(filters={"bbox": BOX}),
    "date_range": Case(filters={"date_range": ("2023-01-01", "2023-12-31")}),
    "geometries": Case(filters={"geometries": [shapely.box(*BOX)]}),
    "cloud_cover_lt": Case(filters={"cloud_cover_lt": 15}),
    "ids": Case(filters={"ids": ["west_2022", "east_2023"]}),
    "many at once": Case(
        {"geometry_column": "geometry", "columns": ["plot"]},
        AROUND | {"return_neighbourhood": "always", "match": "latest", "fallback": "ring"},
        {"bbox": BOX, "date_range": ("2022", "2023"), "cloud_cover_lt": 25},
        ("b", "a"),
        "geoarrow",
    ),
}


CHANGE_NOTHING = ("as it is", "bands in another order", "layout long", "cache_bytes", "prefix_reads")
"""Their sorted rows are those without any option; all others have to show that the option did something."""


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """Two places side by side x two years, two bands with nodata; one record lacks a band."""
    folder = tmp_path_factory.mktemp("options")
    rows = []
    for place, left in {"west": LEFT, "east": LEFT + SIZE * PIXEL}.items():
        for year in (2022, 2023):
            name = f"{place}_{year}"
            affine = Affine(PIXEL, 0.0, left, 0.0, -PIXEL, TOP)
            shape = {"width": SIZE, "height": SIZE, "tile": (32, 32), "transform": affine}
            path = RasterCase(name=name, dtype="int16", count=2, nodata=-1, **shape).write(folder)
            assets = {band: {"href": str(path), "band_index": index} for index, band in enumerate("ab")}
            if name == "east_2023":
                del assets["b"]
            rows.append({"id": name, "datetime": str(year), "assets": assets, "eo:cloud_cover": 10.0 * (year - 2021)})
    build_from_table(pa.Table.from_pylist(rows), name="options").export(folder / "collection")
    return load(folder / "collection")


@pytest.fixture(scope="module")
def tables() -> dict[str, pa.Table]:
    """400 points over the places and beyond, one of them empty and one not finite, in several forms."""
    rng = np.random.default_rng(21)
    east = rng.uniform(LEFT - 100, LEFT + 2 * SIZE * PIXEL + 100, 400)
    north = rng.uniform(TOP - SIZE * PIXEL - 100, TOP + 100, 400)
    lon, lat = Transformer.from_crs(32631, 4326, always_xy=True).transform(east, north)
    x3857, y3857 = Transformer.from_crs(32631, 3857, always_xy=True).transform(east, north)
    for axis in (east, lon, x3857):
        axis[7] = np.nan
    kept = {"plot": [f"plot-{number}" for number in range(400)], "kind": rng.integers(0, 5, 400).astype(np.int16)}
    shapes = shapely.points(np.where(np.isnan(lon), 0.0, lon), lat)
    frame = gpd.GeoDataFrame(kept, geometry=shapes, crs=4326)
    wkb = pa.array([None if number == 9 else shapely.to_wkb(shape) for number, shape in enumerate(shapes)])
    when = pa.array(np.datetime64("2021-07-01") + rng.integers(0, 900, 400), mask=np.arange(400) % 37 == 0)
    axes = {"when": when, "east": east, "north": north, "lon": lon, "lat": lat, "x3857": x3857, "y3857": y3857}
    return {
        "coordinates": pa.table(axes | kept),
        "wkb": pa.table({"wkb": wkb} | kept),
        "geoarrow": pa.table(frame.to_arrow(geometry_encoding="geoarrow")),
    }


def sorted_rows(samples: pa.Table) -> pa.Table:
    """A wide table has no column ``band``."""
    return samples.sort_by([key for key in ORDER if key[0] in samples.schema.names])


def kept_by_pipeline(case: Case, source: Any, collection: Collection) -> tuple[pa.Table, pa.Table]:
    """Samples, and the points without one, as the transform gives them."""
    rows, left = Kept(), Kept()

    def build(pipeline: beam.Pipeline) -> None:
        outputs = sampled(pipeline, case, source, collection)
        outputs.samples | "Samples" >> beam.Map(rows.append)
        outputs.unsampled | "Unsampled" >> beam.Map(left.append)

    run(build)
    samples, unsampled = pa.Table.from_batches(rows), pa.Table.from_batches(left)
    return sorted_rows(samples), unsampled.sort_by("point_index")


def written_by_pipeline(case: Case, source: Any, collection: Collection, folder: Path) -> tuple[pa.Table, pa.Table]:
    """The same, as its files hold them."""

    def build(pipeline: beam.Pipeline) -> None:
        outputs = sampled(pipeline, case, source, collection)
        outputs.samples | "Samples" >> WriteSamplesToParquet(str(folder / "samples"))
        outputs.unsampled | "Unsampled" >> WriteSamplesToParquet(str(folder / "unsampled"))

    run(build)
    return sorted_rows(read(folder / "samples")), read(folder / "unsampled")


def sampled(pipeline: beam.Pipeline, case: Case, source: Any, collection: Collection) -> Any:
    chosen = collection.subset(**case.filters) if case.filters else collection
    points = pipeline | ReadPoints(source, **case.reading)
    return points | SamplePoints(chosen, case.bands, with_unsampled=True, **case.sampling)


def eagerly(case: Case, points: pa.Table, collection: Collection) -> tuple[pa.Table, pa.Table]:
    options = case.reading | case.sampling | case.filters
    samples, unsampled = collection.sample_points(points, case.bands, return_unsampled=True, **options)
    return sorted_rows(samples), unsampled.sort_by("point_index")


def same(found: pa.Table, wanted: pa.Table) -> bool:
    """Equal types and rows, NaN being equal to itself."""
    return found.schema.equals(wanted.schema) and repr(found.to_pydict()) == repr(wanted.to_pydict())


@pytest.fixture(scope="module")
def plain(collection: Collection, tables: dict[str, pa.Table]) -> pa.Table:
    """Rows without any option."""
    return eagerly(Case(), tables["coordinates"], collection)[0]


def file_of(points: pa.Table, folder: Path) -> str:
    """Those of files go the way of large jobs."""
    pq.write_table(points, folder / "points.parquet", row_group_size=150)
    return str(folder / "points.parquet")


@pytest.mark.parametrize("name", CASES)
def test_rows_are_equal(
    collection: Collection, tables: dict[str, pa.Table], plain: pa.Table, tmp_path: Path, name: str
) -> None:
    case = CASES[name]
    points = tables[case.points]
    samples, unsampled = eagerly(case, points, collection)
    reads = case.points == "coordinates" and case.reading != XY
    found, left = kept_by_pipeline(case, file_of(points, tmp_path) if reads else points, collection)
    assert len(samples) > 50 and 0 < len(unsampled) < 400
    assert same(found, samples)
    assert same(left, unsampled)
    assert same(samples, plain) == (name in CHANGE_NOTHING)


WRITTEN = ("as it is", "neighbourhood always", "invalid drop, wide, left", "layout columns")
"""One of each schema, from file to files in the fast run; all others so in the slow one."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in WRITTEN else pytest.mark.slow) for name in CASES]
)
def test_written_rows_are_equal(collection: Collection, tables: dict[str, pa.Table], tmp_path: Path, name: str) -> None:
    case = CASES[name]
    points = tables[case.points]
    samples, unsampled = eagerly(case, points, collection)
    source = file_of(points, tmp_path) if case.points == "coordinates" else points
    found, left = written_by_pipeline(case, source, collection, tmp_path)
    if "geometry" in samples.schema.names:  # files of rows with a geometry are GeoParquet, with their boxes
        assert found.schema.names == [*samples.schema.names, "bbox"]
        boxes = shapely.bounds(shapely.from_wkb(found["geometry"].to_numpy()))
        given = [tuple(box.values()) if box else (np.nan,) * 4 for box in found["bbox"].to_pylist()]
        np.testing.assert_array_equal(boxes, given)
        found = found.select(samples.schema.names).cast(samples.schema)
    assert same(found, samples)
    assert same(left, unsampled)


def test_every_option_has_a_case() -> None:
    """``return_unsampled`` is in all of them."""
    taken = {*inspect.signature(sample_points).parameters, *inspect.signature(Collection.subset).parameters}
    tried = {name for case in CASES.values() for name in (*case.reading, *case.sampling, *case.filters)}
    assert taken - tried == {"self", "collection", "points", "bands", "return_unsampled"}
