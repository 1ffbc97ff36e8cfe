"""Zonal statistics equal those of rasterio's masks and NumPy, rasterstats, and exactextract, over whole rasters."""

from datetime import datetime
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyproj
import pytest
import rasterio
import rasterio.features
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine
from shapely.geometry import mapping

from rasteret_beam import Collection, Quality, build_from_cogs, build_from_table
from rasteret_beam.collection.eager import zonal_statistics, zone_portions
from rasteret_beam.errors import InputError, TileReadError
from rasteret_beam.metrics import TILES_DECODED, Counters
from rasteret_beam.readers.jobs import zone_coverage
from tests.support.polygons import Rasters, crs_of, on_raster, oracle, oracle_mask, polygons
from tests.support.properties import examples
from tests.support.zone_rasters import CORNER, numbers, write

STATISTICS = ("count", "valid_fraction", "mean", "median", "std", "min", "max", "sum", "majority", "variety")
STATISTICS = (*STATISTICS, "percentile_10", "percentile_97.5")
UTM = {"geometry_crs": 32631}

CASES = (
    "type_uint16",
    "south_up",
    "east_left",
    "rotated_30",
    "geographic",
    "strips_7",
    "nodata_and_nan",
    "mask",
    "alpha_gray",
)


@pytest.fixture(scope="module")
def rasters(tmp_path_factory: pytest.TempPathFactory) -> Rasters:
    return Rasters(tmp_path_factory.mktemp("zones"))


def valid_pixels(path: Path) -> tuple[np.ndarray, np.ndarray, Affine]:
    """Pixels, which of them are valid, and the affine, of the first band."""
    with rasterio.open(path) as dataset:
        pixels = dataset.read(1)
        valid = dataset.read_masks(1) != 0
        if dataset.nodata is not None and not np.isnan(dataset.nodata):
            valid &= pixels != dataset.nodata
        return pixels, valid & ~np.isnan(pixels), dataset.transform


def covered(shape: Any, size: tuple[int, int], affine: Affine, touched: bool) -> np.ndarray:
    return rasterio.features.geometry_mask([mapping(shape)], size, affine, all_touched=touched, invert=True)


def own_pixels(shape: Any, size: tuple[int, int], affine: Affine, touched: bool) -> int:
    """The pixels of a polygon, were the raster larger by 120 on each side."""
    around = affine @ Affine.translation(-120, -120)
    return int(covered(shape, (size[0] + 240, size[1] + 240), around, touched).sum())


def expected(values: np.ndarray, own: int) -> dict[str, Any]:
    values = values.astype(np.float64)
    found: dict[str, Any] = dict.fromkeys(STATISTICS)
    found |= {"count": len(values), "variety": 0, "valid_fraction": len(values) / own if own else 0.0}
    if len(values):
        distinct, counts = np.unique(values, return_counts=True)
        found |= {"variety": len(distinct), "majority": distinct[np.argmax(counts)], "std": values.std()}
        found |= {"mean": values.mean(), "median": np.median(values), "sum": values.sum()}
        found |= {"min": values.min(), "max": values.max()}
        found |= {"percentile_10": np.percentile(values, 10), "percentile_97.5": np.percentile(values, 97.5)}
    return found


def assert_statistics(row: dict[str, Any], known: dict[str, Any], rel: float = 1e-9) -> None:
    for name, value in known.items():
        if value is None:
            assert row[name] is None, name
        else:
            assert row[name] == pytest.approx(value, rel=rel, abs=rel, nan_ok=True), name


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=examples(24), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_statistics_equal_brute_force(rasters: Rasters, name: str, data: st.DataObject) -> None:
    """By centre and by touch: polygons with holes, of several parts, slivers, and across the raster's edges."""
    path, collection = rasters(name)
    pixels, _, affine = valid_pixels(path)
    height, width = pixels.shape
    shapes = [on_raster(path, shape) for shape in data.draw(st.lists(polygons(width, height), min_size=1, max_size=4))]
    touched = data.draw(st.booleans())
    table = collection.zonal_statistics(
        shapes,
        collection.bands[:1],
        geometry_crs=crs_of(collection),
        statistics=STATISTICS,
        coverage="all_touched" if touched else "centre",
    )
    rows = {row["geometry_id"]: row for row in table.to_pylist()}
    for number, shape in enumerate(shapes):
        values = masked(path, shape, touched)
        if number not in rows:
            assert not len(values)
            continue
        own = own_pixels(shape, pixels.shape, affine, touched)
        known = expected(values, own)
        share = known.pop("valid_fraction")
        assert_statistics(rows[number], known)
        # Vertices on pixel corners may touch other pixels of a larger raster.
        assert rows[number]["valid_fraction"] == pytest.approx(share, abs=4 / max(own, 1) if touched else 1e-9)


def masked(path: Path, shape: Any, touched: bool) -> np.ndarray:
    """The valid pixels of the first band under a polygon, as rasterio.mask has them."""
    try:
        valid = oracle_mask(path, shape, indexes=[1], all_touched=touched)
        return oracle(path, shape, indexes=[1], all_touched=touched)[valid]
    except ValueError:  # no overlap
        return np.empty(0)


def fields(count: int, side: float, seed: int = 5) -> list[shapely.Geometry]:
    """Polygons in metres from the corner, some across the edges of a raster of that side."""
    rng = np.random.default_rng(seed)
    found = []
    for x, y, size in zip(*rng.uniform(-0.05, 1.05, (2, count)) * side, rng.uniform(3, 200, count), strict=True):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 9))
        radius = size * rng.uniform(0.5, 1, 9)
        ring = shapely.Polygon(np.stack([x + radius * np.cos(angle), -y + radius * np.sin(angle)], axis=1))
        found.append(shapely.affinity.translate(shapely.convex_hull(ring), *CORNER))
    return found


def test_shares_equal_exactextract(tmp_path: Path) -> None:
    """Every statistic, weighted by the share of each pixel; the library keeps shares as float32."""
    exactextract = pytest.importorskip("exactextract")
    rng = np.random.default_rng(11)
    values = rng.uniform(0, 100, (120, 150))
    values[rng.uniform(size=values.shape) < 0.1] = -1
    path = write(tmp_path / "a.tif", values, *CORNER, nodata=-1)
    shapes = [*fields(60, 1200), shapely.box(CORNER[0] + 50, CORNER[1] - 90, CORNER[0] + 80, CORNER[1] - 60)]
    frame = gpd.GeoDataFrame({"number": range(len(shapes))}, geometry=shapes, crs=32631)
    names = {"count": "count", "mean": "mean", "median": "median", "stdev": "std", "min": "min", "max": "max"}
    names |= {"sum": "sum", "variety": "variety", "quantile(q=0.1)": "percentile_10"}
    theirs = exactextract.exact_extract(path, frame, list(names), include_cols=["number"], output="pandas")
    theirs = theirs.rename(columns=names | {"quantile_10": "percentile_10"}).set_index("number")
    table = build_from_cogs([path]).zonal_statistics(
        frame, ["B1"], statistics=list(names.values()), coverage="fraction"
    )
    rows = table.to_pylist()
    assert len(rows) > 50
    for row in rows:
        known = theirs.loc[row["number"]]
        for name in names.values():
            value = known[name]
            if row["count"] == 0:
                assert row[name] == (0 if name in ("count", "variety") else None)
            else:
                assert row[name] == pytest.approx(value, rel=2e-5), (row["number"], name)


def test_majority_equals_exactextract(tmp_path: Path) -> None:
    """Of few values, so that each has a large weight."""
    exactextract = pytest.importorskip("exactextract")
    path = write(tmp_path / "a.tif", numbers((120, 150), most=5), *CORNER)
    frame = gpd.GeoDataFrame(geometry=fields(40, 1100), crs=32631)
    theirs = exactextract.exact_extract(path, frame, ["majority", "variety", "count"], output="pandas")
    table = build_from_cogs([path]).zonal_statistics(
        frame, ["B1"], statistics=["majority", "variety", "count"], coverage="fraction"
    )
    rows = {row["geometry_id"]: row for row in table.to_pylist() if row["count"]}
    assert len(rows) > 30
    for number, row in rows.items():
        assert row["variety"] == theirs["variety"][number]
        assert row["majority"] == theirs["majority"][number]


@pytest.mark.parametrize("coverage", ["centre", "all_touched"])
def test_statistics_equal_rasterstats(tmp_path: Path, coverage: str) -> None:
    rasterstats = pytest.importorskip("rasterstats")
    path = write(tmp_path / "a.tif", numbers((120, 150)), *CORNER)
    shapes = [shape for shape in fields(40, 1100, seed=8) if shape.within(shapely.box(*raster_bounds(path)))]
    names = ["count", "mean", "median", "std", "min", "max", "sum", "percentile_10"]
    theirs = rasterstats.zonal_stats(
        shapes, path, stats=[*names, "unique"], all_touched=coverage == "all_touched", nodata=0
    )
    table = build_from_cogs([path]).zonal_statistics(
        shapes, ["B1"], **UTM, statistics=[*names, "variety"], coverage=coverage
    )
    assert table.num_rows == len(shapes) > 20
    for row, known in zip(table.to_pylist(), theirs, strict=True):
        assert_statistics(row, {name: known[name] for name in names})
        assert row["variety"] == known["unique"]


def raster_bounds(path: str) -> tuple[float, ...]:
    with rasterio.open(path) as dataset:
        return tuple(dataset.bounds)


def test_polygons_in_degrees_on_records_of_several_zones(tmp_path: Path) -> None:
    """Each record has its rows; edges are divided where they bend."""
    to_utm = {code: pyproj.Transformer.from_crs(4326, code, always_xy=True) for code in (32631, 32632)}
    middle = {code: each.transform(6.0, 45.0) for code, each in to_utm.items()}
    paths = [
        write(
            tmp_path / f"{code}.tif", numbers((100, 100), seed=code), round(x) - 500, round(y) + 500, crs=f"EPSG:{code}"
        )
        for code, (x, y) in middle.items()
    ]
    shapes = [shapely.Point(6 + dx, 45 + dy).buffer(0.002, quad_segs=4) for dx, dy in ((0, 0), (0.003, 0.002))]
    table = build_from_cogs(paths).zonal_statistics(shapes, ["B1"], statistics=["count", "sum", "valid_fraction"])
    assert [row["raster_crs"] for row in table.to_pylist()] == [32631, 32632] * 2
    for row in table.to_pylist():
        pixels, valid, affine = valid_pixels(tmp_path / f"{row['raster_crs']}.tif")
        bent = shapely.transform(
            shapely.segmentize(shapes[row["geometry_id"]], 1e-5), to_utm[row["raster_crs"]].transform, interleaved=False
        )
        chosen = pixels[covered(bent, pixels.shape, affine, False) & valid]
        assert (row["count"], row["sum"]) == (len(chosen), chosen.sum())


# What is read


@pytest.fixture
def season(tmp_path: Path) -> Collection:
    """Three dates of two bands, a mask band of 20 m, and a column of the collection."""
    rows = []
    for number in range(3):
        files = {
            band: write(tmp_path / f"{band}_{number}.tif", numbers((160, 160), seed=10 * number + at), *CORNER)
            for at, band in enumerate(("B04", "B08"))
        }
        classes = np.random.default_rng(number).integers(1, 4, (80, 80)).astype(np.uint8)
        files["SCL"] = write(
            tmp_path / f"SCL_{number}.tif", classes, *CORNER, transform=Affine(20, 0, CORNER[0], 0, -20, CORNER[1])
        )
        assets = {band: {"href": href, "band_index": 0} for band, href in files.items()}
        rows.append(
            {"id": f"R{number}", "datetime": datetime(2024, 5, 1 + number), "cloud": 10.0 * number, "assets": assets}
        )
    return build_from_table(pa.Table.from_pylist(rows), name="season")


def counted(monkeypatch: pytest.MonkeyPatch, *args: Any, **keywords: Any) -> tuple[pa.Table, dict[str, int]]:
    """The table of a call, and what it counts."""
    counters = Counters()
    job = zonal_statistics.ZonalJob
    monkeypatch.setattr(zonal_statistics, "ZonalJob", lambda *given: job(*given, counters=counters))
    return zonal_statistics.zonal_statistics(*args, **keywords), counters.take()


def test_polygons_on_a_tile_share_it(season: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tile under a polygon is decoded once for each record and band, whatever the number of polygons."""
    shapes = fields(200, 1600)
    table, counts = counted(monkeypatch, season, shapes, ["B04", "B08"], **UTM, coverage="fraction")
    touched = set()
    for shape in shapes:
        for row in range(5):
            for col in range(5):
                left, top = CORNER[0] + 320 * col, CORNER[1] - 320 * row
                if shapely.intersection(shape, shapely.box(left, top - 320, left + 320, top)).area > 1e-6:
                    touched.add((row, col))
    assert counts[TILES_DECODED] == len(touched) * 6
    assert counts["zones_out"] == counts["zones_routed"] == table.num_rows


def test_rows_are_in_order_of_polygons_records_and_bands(season: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zone_portions, "PORTION_PIXELS", 500)
    table = season.zonal_statistics(fields(60, 1600), ["B08", "B04"], **UTM)
    keys = list(zip(*(table[name].to_pylist() for name in ("geometry_id", "record_id")), strict=True))
    assert keys == sorted(keys) and len(set(keys)) * 2 == len(keys)
    assert table["band"].to_pylist() == ["B08", "B04"] * (len(keys) // 2)
    assert table.schema.names[:8] == [
        "geometry_id", "record_id", "datetime", "collection", "band", "raster_crs", "count", "mean"
    ]  # fmt: skip


@pytest.mark.parametrize("coverage", ["centre", "all_touched", "fraction"])
def test_large_polygons_are_read_window_by_window(
    season: Collection, monkeypatch: pytest.MonkeyPatch, coverage: str
) -> None:
    """Windows of a few tiles and a small cache give what the whole polygon gives."""
    ring = (
        shapely.Point(CORNER[0] + 800, CORNER[1] - 800)
        .buffer(900)
        .difference(shapely.Point(CORNER[0] + 700, CORNER[1] - 900).buffer(300))
    )
    asked = {"statistics": STATISTICS, "coverage": coverage, **UTM}
    whole = season.zonal_statistics([ring], ["B04", "B08"], **asked)
    monkeypatch.setattr(zone_portions, "WINDOW_PIXELS", 1500)
    monkeypatch.setattr(zone_portions, "PORTION_CELLS", 3000)
    parts = season.zonal_statistics([ring], ["B04", "B08"], **asked, cache_bytes=4 << 20)
    assert parts.num_rows == whole.num_rows == 6
    for row, known in zip(parts.to_pylist(), whole.to_pylist(), strict=True):
        for name in STATISTICS:
            assert row[name] == pytest.approx(known[name], rel=1e-12), name


def test_polygons_far_beyond_the_raster_cost_what_is_on_it(season: Collection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels beyond the raster are counted only for the share of the valid ones."""

    def counted(*_: Any) -> int:
        raise AssertionError("pixels beyond the raster were counted")

    monkeypatch.setattr(zone_coverage, "pixels_beyond", counted)
    world = shapely.box(CORNER[0] - 1e5, CORNER[1] - 1e5, CORNER[0] + 1e5, CORNER[1] + 1e5)
    table = season.zonal_statistics([world], ["B04"], statistics=["count", "min", "max"], **UTM)
    assert table["count"].to_pylist() == [np.count_nonzero(numbers((160, 160), seed=10 * at)) for at in range(3)]


def test_more_values_than_may_be_held_are_an_error(season: Collection) -> None:
    shape = shapely.box(CORNER[0], CORNER[1] - 400, CORNER[0] + 400, CORNER[1])
    asked: dict[str, Any] = {"max_exact_values": 500, **UTM}
    with pytest.raises(
        InputError, match=r"geometry 0 has more than 500 valid pixels of record 'R0', band B04.*raise it"
    ):
        season.zonal_statistics([shape], ["B04"], statistics=["median"], **asked)
    others = season.zonal_statistics([shape], ["B04"], statistics=["majority", "variety", "std"], **asked)
    assert others["variety"].to_pylist() == [59, 59, 59]


# Matching, quality and units


def test_quality_and_units(season: Collection, tmp_path: Path) -> None:
    """Pixels whose class fails count as not valid, and statistics are in physical units."""
    shapes = fields(25, 1500)
    table = season.zonal_statistics(
        shapes,
        ["B04"],
        **UTM,
        statistics=["count", "mean", "valid_fraction"],
        quality=[Quality("SCL", exclude=[2])],
        unscale=True,
        scales={"B04": (0.5, -3.0)},
    )
    assert table.num_rows > 60
    for row in table.to_pylist():
        number = row["record_id"][1:]
        pixels, valid, affine = valid_pixels(tmp_path / f"B04_{number}.tif")
        classes, _, _ = valid_pixels(tmp_path / f"SCL_{number}.tif")
        shape = shapes[row["geometry_id"]]
        chosen = covered(shape, pixels.shape, affine, False) & valid & (np.kron(classes, np.ones((2, 2))) != 2)
        known = expected(pixels[chosen] * 0.5 - 3.0, own_pixels(shape, pixels.shape, affine, False))
        assert_statistics(row, {name: known[name] for name in ("count", "mean", "valid_fraction")})


def test_match_in_time_and_columns(season: Collection) -> None:
    """The polygon's own time chooses the record; columns of both tables pass through."""
    shapes = fields(6, 1000, seed=2)
    when = [datetime(2024, 5, day) for day in (1, 3, 2, 3, 1, 2)]
    frame = gpd.GeoDataFrame({"plot": list("abcdef"), "when": when}, geometry=shapes, crs=32631)
    table = season.zonal_statistics(
        frame, ["B04"], match="nearest", time_column="when", extra_columns=["record:cloud"], columns=["plot"]
    )
    assert table["record_id"].to_pylist() == ["R0", "R2", "R1", "R2", "R0", "R1"]
    assert table["plot"].to_pylist() == list("abcdef")
    assert table["record:cloud"].to_pylist() == [0.0, 20.0, 10.0, 20.0, 0.0, 10.0]


def test_polygons_without_a_record(season: Collection, caplog: pytest.LogCaptureFixture) -> None:
    """With join="left" they have a row of nulls for each band; otherwise none, and a call without any row says why."""
    inside = shapely.box(CORNER[0] + 20, CORNER[1] - 60, CORNER[0] + 60, CORNER[1] - 20)
    away = shapely.affinity.translate(inside, 50_000)
    frame = gpd.GeoDataFrame({"plot": ["a", "b"]}, geometry=[away, inside], crs=32631)
    table = season.zonal_statistics(frame, ["B04", "B08"], join="left", statistics=["count", "mean"])
    assert table["geometry_id"].to_pylist() == [0] * 2 + [1] * 6
    for row, band in zip(table.slice(0, 2).to_pylist(), ("B04", "B08"), strict=True):
        nothing = {"record_id": None, "datetime": None, "raster_crs": None, "count": None, "mean": None}
        assert row == {"geometry_id": 0, "collection": "season", "band": band, "plot": "a"} | nothing
    assert season.zonal_statistics(frame, ["B04"])["geometry_id"].to_pylist() == [1] * 3
    assert not caplog.messages
    assert season.zonal_statistics(frame.head(1), ["B04"]).num_rows == 0
    assert "none of the polygons overlaps a record" in caplog.messages[0]


def test_polygons_that_cannot_be_used(season: Collection) -> None:
    bow = shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])
    with pytest.raises(InputError, match=r"^geometry 1 is not a valid polygon: Self-intersection"):
        season.zonal_statistics([shapely.box(0, 0, 1, 1), bow], ["B04"])
    frame = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1), None], crs=4326)
    with pytest.raises(InputError, match=r"^row 1 of column 'geometry' is null"):
        season.zonal_statistics(frame, ["B04"])
    with pytest.raises(InputError, match="no CRS"):
        season.zonal_statistics(pa.table({"geometry": [shapely.box(0, 0, 1, 1).wkb]}), ["B04"])
    with pytest.raises(InputError, match="median"):
        season.zonal_statistics([shapely.box(0, 0, 1, 1)], ["B04"], statistics=["medain"])
    frame = gpd.GeoDataFrame({"band": ["B04"]}, geometry=[shapely.box(0, 0, 1, 1)], crs=4326)
    with pytest.raises(InputError, match=r"column\(s\) named band, which the output table needs for itself"):
        season.zonal_statistics(frame, ["B04"])


def test_a_file_that_cannot_be_read(season: Collection, tmp_path: Path) -> None:
    (tmp_path / "B08_1.tif").write_bytes(b"II*\0" + bytes(5000))
    with pytest.raises(TileReadError, match="record 'R1', band B08"):
        season.zonal_statistics(fields(5, 1000), ["B08"], **UTM)
