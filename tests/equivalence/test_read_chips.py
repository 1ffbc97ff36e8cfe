"""Chips of ReadChips equal those of rasterio.mask on the record's file, and every polygon is accounted for."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import apache_beam as beam
import geopandas as gpd
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pv
import pyarrow.parquet as pq
import pytest
import rasterio
import rasterio.features
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from pipelines import read_chips
from rasteret_beam import (
    ChipOptions,
    Collection,
    ReadChips,
    ReadPolygons,
    WriteChipsToGeoTiff,
    WriteChipsToParquet,
    build_from_cogs,
    decode_chip,
    decode_chips,
    join_windows,
    metrics,
)
from rasteret_beam.collection.eager.chip_groups import ChipJob, read_chip_group
from rasteret_beam.collection.index.band_facts import read_facts
from rasteret_beam.errors import InputError, MissingInputError, TileReadError
from rasteret_beam.kernels.routing.chip_chunks import ChipRules, cut_window, route_polygons
from rasteret_beam.kernels.routing.chip_windows import PixelWindow
from rasteret_beam.readers.jobs.chip_reader import ChipReader
from rasteret_beam.schema import chips_schema, unmatched_schema
from rasteret_beam.transforms.sinks.geotiff import chip_name
from tests.support import rasters
from tests.support.commands import Outcome, execute
from tests.support.pipelines import EMBEDDED, run
from tests.support.polygons import Rasters, crs_of, on_raster, oracle, oracle_mask, polygons, star
from tests.support.properties import examples

KEY = ["geometry_id", "record_id", "band", "window_row", "window_col"]
BOWTIE = shapely.Polygon([(500_000, 5_399_000), (501_000, 5_399_500), (501_000, 5_399_000), (500_000, 5_399_500)])
LEFT, TOP = 500_000.0, 5_400_000.0


@dataclass(frozen=True)
class Read:
    """What a run gave: the chips in order of their keys, the polygons left over, and the counters."""

    chips: pa.Table
    unmatched: pa.Table
    counts: dict[str, int]

    def keyed(self) -> dict[tuple[int, str, str], tuple[np.ndarray, np.ndarray]]:
        """(geometry_id, record_id, band) to pixels and valid pixels."""
        keys = zip(*(self.chips[name].to_pylist() for name in KEY[:3]), strict=True)
        found = dict(zip(keys, decode_chips(self.chips), strict=True))
        assert len(found) == len(self.chips)
        return found


def table(prefix: Path, order: list[str]) -> pa.Table:
    files = sorted(prefix.parent.glob(f"{prefix.name}-*-of-*.parquet"))
    return pa.concat_tables(pq.read_table(file) for file in files).sort_by([(name, "ascending") for name in order])


def read(
    folder: Path, source: Any, collection: Collection, bands: list[str], options: list[str] | None = None, **how: Any
) -> Read:
    """Run ReadPolygons and ReadChips into Parquet."""
    reading = {name: how.pop(name) for name in ("geometry_crs", "geometry_column", "columns") if name in how}

    def build(pipeline: beam.Pipeline) -> None:
        given = pipeline | ReadPolygons(source, **reading)
        found = given | ReadChips(collection, bands, with_unmatched=True, **how)
        found.chips | "WriteChips" >> WriteChipsToParquet(str(folder / "chips"))
        found.unmatched | "WriteUnmatched" >> WriteChipsToParquet(str(folder / "left"), schema=unmatched_schema())

    counts = run(build, options)
    found = Read(table(folder / "chips", KEY), table(folder / "left", ["geometry_id"]), counts)
    assert counts[metrics.POLYGONS_IN] == counts[metrics.POLYGONS_MATCHED] + counts[metrics.POLYGONS_UNMATCHED]
    assert counts[metrics.POLYGONS_UNMATCHED] == len(found.unmatched)
    assert counts[metrics.POLYGONS_MATCHED] == len(pc.unique(found.chips["geometry_id"]))
    assert counts[metrics.CHIPS_ROUTED] == counts.get(metrics.CHIPS_OUT, 0) == len(found.chips)
    return found


def read_without_beam(
    collection: Collection, shapes: Iterable[Any], crs: Any, rules: ChipRules | None = None, **how: Any
) -> pa.Table:
    """The same rows, by the functions that the transform calls."""
    bands, options = collection.bands, ChipOptions(**how)
    job = ChipJob(collection.index(bands, options.match), read_facts(collection, bands), "c", options)
    reader = ChipReader()
    batch = ReadPolygons(list(shapes), geometry_crs=crs).first_batch()
    groups: dict[Any, list[pa.RecordBatch]] = {}
    for key, chunk in route_polygons(job.index.routing, batch, None, rules or ChipRules()).chunks:
        groups.setdefault(key, []).append(chunk)
    try:
        rows = [row.rows for key, chunks in groups.items() for row in read_chip_group(reader, job, key, chunks)]
    finally:
        reader.close()
    return pa.Table.from_batches(rows, schema=chips_schema()).sort_by([(name, "ascending") for name in KEY])


def frame(shapes: Iterable[shapely.Geometry | None], crs: Any = 32631) -> gpd.GeoDataFrame:
    shapes = list(shapes)
    return gpd.GeoDataFrame({"plot": [f"p{number}" for number in range(len(shapes))]}, geometry=shapes, crs=crs)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Rasters:
    return Rasters(tmp_path_factory.mktemp("chips"))


def overlapping(path: Path, shape: Any, **options: Any) -> np.ndarray | None:
    """rasterio's chip, or None where there is no overlap."""
    try:
        return oracle(path, shape, **options)
    except ValueError:
        return None


# Values


def kinds() -> dict[str, shapely.Geometry]:
    """In pixels of a raster of 203 x 150 in tiles of 64."""
    ring = shapely.Point(100, 70).buffer(40).difference(shapely.Point(100, 70).buffer(20))
    return {
        "hole": ring,
        "multipolygon": shapely.MultiPolygon([shapely.Point(30, 30).buffer(9), shapely.Point(120, 90).buffer(15)]),
        "sliver between centres": shapely.box(10.1, 10.1, 40.9, 10.2),
        "sliver on centres": shapely.box(10.1, 10.45, 40.9, 10.55),
        "dot in a pixel": shapely.box(70.1, 70.1, 70.3, 70.3),
        "over the upper left corner": shapely.box(-9, -9, 20, 20),
        "over the lower right edges": shapely.Polygon(star(195, 140, [40.0] * 9)),
        "around the raster": shapely.box(-50, -50, 400, 400),
        "one pixel": shapely.box(63, 63, 64, 64),
        "four tiles": shapely.box(60, 60, 70, 70),
    }


@pytest.mark.parametrize("all_touched", [False, True])
def test_every_kind_of_polygon(files: Rasters, tmp_path: Path, all_touched: bool) -> None:
    path, collection = files("type_uint16")
    shapes = [on_raster(path, shape) for shape in kinds().values()]
    found = read(tmp_path, frame(shapes), collection, ["B1"], all_touched=all_touched)
    assert found.chips["geometry_id"].to_pylist() == list(range(len(shapes)))
    assert found.chips["plot"].to_pylist() == [f"p{number}" for number in range(len(shapes))]
    for shape, row in zip(shapes, found.chips.to_pylist(), strict=True):
        with rasterio.open(path) as dataset:
            expected, transform = rasterio.mask.mask(dataset, [shape], crop=True, all_touched=all_touched)
        pixels, valid = decode_chip(row)
        np.testing.assert_array_equal(pixels, expected[0], strict=True)
        np.testing.assert_array_equal(valid, oracle_mask(path, shape, all_touched=all_touched)[0], strict=True)
        assert row["transform"] == list(transform[:6])
        assert (row["crs"], row["dtype"], row["windows"], row["fill"]) == ("EPSG:32631", "uint16", 1, 0.0)
    touched = [decode_chip(row)[1].any() for row in found.chips.to_pylist()]
    centreless = [name for name, any_valid in zip(kinds(), touched, strict=True) if not any_valid]
    assert centreless == ([] if all_touched else ["sliver between centres", "dot in a pixel"])


def scattered(n: int, seed: int = 3) -> list[shapely.Geometry]:
    """Polygons over the scenes and beyond, in EPSG:32631."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(LEFT - 500, LEFT + 5500, n), rng.uniform(TOP - 3500, TOP + 500, n)
    return [
        shapely.Polygon(star(*at, (rng.uniform(0.3, 1, 9) * size).tolist()))
        for at, size in zip(zip(x, y, strict=True), rng.uniform(20, 900, n), strict=True)
    ]


def scene_hrefs(scenes: Collection) -> dict[tuple[str, str], Path]:
    rows = scenes.to_table(["id", "assets"]).to_pylist()
    return {(r["id"], band): Path(a["href"]) for r in rows for band, a in r["assets"].items() if a and a["href"]}


@pytest.fixture(scope="module")
def expected(scenes: Collection) -> dict[tuple[int, str, str], np.ndarray]:
    found = {
        (number, record, band): overlapping(path, shape)
        for number, shape in enumerate(scattered(40))
        for (record, band), path in scene_hrefs(scenes).items()
    }
    return {key: chip[0] for key, chip in found.items() if chip is not None}


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scattered polygons in two GeoParquet files with row groups of 11 rows."""
    folder = tmp_path_factory.mktemp("polygons")
    whole = frame(scattered(40))
    whole.iloc[:25].to_parquet(folder / "a.parquet", row_group_size=11)
    whole.iloc[25:].to_parquet(folder / "b.parquet", row_group_size=11)
    return folder


def check_values(found: Read, expected: dict[tuple[int, str, str], np.ndarray]) -> None:
    chips = found.keyed()
    assert set(chips) == set(expected)
    for key, pixels in expected.items():
        np.testing.assert_array_equal(chips[key][0], pixels, strict=True)


@pytest.mark.parametrize(
    "options", [pytest.param(None, id="local"), pytest.param(EMBEDDED, id="portable", marks=pytest.mark.slow)]
)
def test_polygons_across_tiles_and_records(
    scenes: Collection, parquet: Path, expected: dict, tmp_path: Path, options: list[str] | None
) -> None:
    found = read(tmp_path, str(parquet), scenes, ["B10", "B20"], options)
    check_values(found, expected)
    assert {len({record for number, record, _ in expected if number == at}) for at in range(40)} == {0, 3, 6}
    rows = found.chips.to_pylist()
    assert all(row["plot"] == f"p{row['geometry_id']}" for row in rows)
    moments = dict(zip(*scenes.to_table(["id", "datetime"]).to_pydict().values(), strict=True))
    assert all(row["datetime"] == moments[row["record_id"]] and row["collection"] == "scenes" for row in rows)
    assert found.chips.schema.equals(chips_schema([found.chips.schema.field("plot")]))
    outside = set(range(40)) - {number for number, _, _ in expected}
    assert set(found.unmatched["geometry_id"].to_pylist()) == outside
    assert found.unmatched["plot"].to_pylist() == [f"p{number}" for number in sorted(outside)]
    assert set(found.unmatched["reason"].to_pylist()) == {"no_record"}
    assert found.counts[metrics.unmatched("no_record")] == len(outside) == 40 - found.counts[metrics.POLYGONS_MATCHED]
    # 300 pixels in tiles of 64 are 5 x 5 tiles, 150 are 3 x 3; B20 is lacking once.
    assert found.counts[metrics.TILES_DECODED] <= 6 * 25 + 5 * 9
    assert found.counts[metrics.CHIP_PIXELS] == sum(pixels.size for pixels in expected.values())


def test_rows_do_not_depend_on_how_chips_are_put_together(scenes: Collection, expected: dict) -> None:
    whole = read_without_beam(scenes, scattered(40), 32631)
    for rules in (ChipRules(block=1), ChipRules(max_bytes=400), ChipRules(group_bytes=1000)):
        assert read_without_beam(scenes, scattered(40), 32631, rules).equals(whole)
    assert len(whole) == len(expected)


def test_the_newest_record_of_each_band(scenes: Collection, expected: dict, tmp_path: Path) -> None:
    found = read(tmp_path, frame(scattered(40)), scenes, ["B10", "B20"], match="latest")
    moments = dict(zip(*scenes.to_table(["id", "datetime"]).to_pydict().values(), strict=True))
    newest: dict[tuple[int, str], str] = {}
    for number, record, band in expected:  # in collection order, so the first of equals stays
        best = newest.get((number, band))
        if best is None or moments[record] > moments[best]:
            newest[number, band] = record
    wanted = {key: chip for key, chip in expected.items() if newest[key[0], key[2]] == key[1]}
    check_values(found, wanted)


@pytest.mark.parametrize(
    "how",
    [{}, {"all_touched": True}, {"fill": 77}, {"match": "latest"}, {"all_touched": True, "fill": 9, "match": "latest"}],
    ids=str,
)
def test_rows_are_those_of_get_numpy(scenes: Collection, tmp_path: Path, how: dict[str, Any]) -> None:
    lonlat = Transformer.from_crs(32631, 4326, always_xy=True).transform
    shapes = [shapely.transform(shape, lonlat, interleaved=False) for shape in scattered(6, seed=11)]
    found = read(tmp_path, frame(shapes, 4326), scenes, ["B10"], **how)
    for number in set(found.chips["geometry_id"].to_pylist()):
        eager, valid = scenes.get_numpy(shapes[number], ["B10"], return_mask=True, **how)
        pairs = decode_chips(found.chips.filter(pc.equal(found.chips["geometry_id"], number)))
        np.testing.assert_array_equal(np.stack([pixels for pixels, _ in pairs]), eager, strict=True)
        np.testing.assert_array_equal(np.stack([usable for _, usable in pairs]), valid, strict=True)


@pytest.mark.parametrize(
    "name",
    "rotated_30 south_up strips_7 nodata_integer nodata_nan nan_without_nodata mask mask_rgb alpha type_int8 type_int64"
    " type_float64 big_int16 cog_bands sparse_nodata".split(),
)
@pytest.mark.parametrize("max_pixels", [1 << 22, 700])
def test_values_on_many_rasters(files: Rasters, name: str, max_pixels: int) -> None:
    path, collection = files(name)
    shapes = [on_raster(path, shapely.Polygon(star(col, 60, [50.0, 30, 45, 20, 48]))) for col in (40, 160)]
    found = read_without_beam(collection, shapes, crs_of(collection), ChipRules(max_pixels=max_pixels), fill=5)
    for number, shape in enumerate(shapes):
        values, valid = oracle(path, shape, nodata=5), oracle_mask(path, shape, nodata=5)
        for at, band in enumerate(collection.bands):
            chosen = pc.and_(pc.equal(found["geometry_id"], number), pc.equal(found["band"], band))
            pixels, usable, transform = join_windows(found.filter(chosen))
            np.testing.assert_array_equal(pixels, values[at], strict=True)
            np.testing.assert_array_equal(usable, valid[at], strict=True)
            with rasterio.open(path) as dataset:
                assert transform == tuple(rasterio.mask.mask(dataset, [shape], crop=True)[1][:6])


# Other CRSs


@settings(max_examples=examples(25), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_polygons_in_another_crs_follow_their_edges(files: Rasters, data: st.DataObject) -> None:
    """Compared with edges divided far more finely, pixels differ only where their centre lies on an edge."""
    name, crs = data.draw(st.sampled_from([("type_uint16", 4326), ("geographic", 32631), ("web_mercator", 3035)]))
    path, collection = files(name)
    raster = rasters.case(name)
    there = Transformer.from_crs(crs_of(collection), crs, always_xy=True).transform
    back = Transformer.from_crs(crs, crs_of(collection), always_xy=True).transform
    drawn = on_raster(path, data.draw(polygons(raster.width, raster.height)))
    given_shape = shapely.transform(drawn, there, interleaved=False)
    if not shapely.is_valid(given_shape) or given_shape.is_empty:
        return
    length = max(given_shape.bounds[2] - given_shape.bounds[0], given_shape.bounds[3] - given_shape.bounds[1])
    dense = shapely.transform(shapely.segmentize(given_shape, length / 2000), back, interleaved=False)
    with rasterio.open(path) as dataset:
        covered = rasterio.features.geometry_mask([dense], dataset.shape, dataset.transform, invert=True)
        inverse, stored = ~dataset.transform, dataset.read(1)
    a, b, c, d, e, f = inverse[:6]
    on_pixels = shapely.transform(dense, lambda x, y: (a * x + b * y + c, d * x + e * y + f), interleaved=False)
    rows = read_without_beam(collection, [given_shape], crs).to_pylist()
    mine = np.zeros_like(covered)
    for row in rows:
        pixels, valid = decode_chip(row)
        at = tuple(
            slice(row[f"window_{side}"], row[f"window_{side}"] + size)
            for side, size in zip(("row", "col"), row["shape"], strict=True)
        )
        mine[at] = valid
        np.testing.assert_array_equal(pixels, np.where(valid, stored[at], 0))
    row, col = np.nonzero(mine != covered)
    centres = shapely.points(col + 0.5, row + 0.5)
    assert (shapely.distance(centres, on_pixels.boundary) < 0.02).all()


# Windows


@given(
    row=st.integers(0, 900),
    col=st.integers(0, 900),
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    tile=st.sampled_from([(64, 64), (16, 256), (1, 1600), (7, 500), (512, 512)]),
    most=st.integers(1, 200_000),
)
@settings(max_examples=examples(150), deadline=None)
def test_cut_windows_cover_the_whole_once(
    row: int, col: int, height: int, width: int, tile: tuple[int, int], most: int
) -> None:
    most = max(most, height * width // 500)
    windows = cut_window(PixelWindow(row, col, height, width), *tile, most)
    times = np.zeros((height, width), dtype=np.int64)
    for top, left, high, wide in windows:
        assert 0 < high * wide <= most
        times[top - row : top - row + high, left - col : left - col + wide] += 1
        if len(windows) > 1 and tile[0] * tile[1] <= most:
            assert top == row or top % tile[0] == 0
            assert left == col or left % tile[1] == 0
    assert (times == 1).all()


@pytest.mark.parametrize(("most", "all_touched"), [(64 * 64, False), (64 * 64 * 3, False), (100, False), (100, True)])
def test_a_large_polygon_is_cut_into_windows(files: Rasters, tmp_path: Path, most: int, all_touched: bool) -> None:
    path, collection = files("type_uint16")
    ring = shapely.Point(100, 70).buffer(95).difference(shapely.Point(90, 60).buffer(30))
    shape = on_raster(path, ring)
    found = read(tmp_path, frame([shape]), collection, ["B1"], max_chip_pixels=most, all_touched=all_touched)
    sizes = [int(np.prod(size)) for size in found.chips["shape"].to_pylist()]
    assert max(sizes) <= most and len(sizes) > 1
    assert set(found.chips["windows"].to_pylist()) == {len(sizes)}
    pixels, valid, _ = join_windows(found.chips)
    np.testing.assert_array_equal(pixels, oracle(path, shape, all_touched=all_touched)[0], strict=True)
    np.testing.assert_array_equal(valid, oracle_mask(path, shape, all_touched=all_touched)[0], strict=True)
    with rasterio.open(path) as dataset:
        for row in found.chips.to_pylist():
            window = rasterio.windows.Window(row["window_col"], row["window_row"], *row["shape"][::-1])
            assert row["transform"] == list(dataset.window_transform(window)[:6])
    if most >= 64 * 64:  # along tiles, so each is decoded once at most
        assert found.counts[metrics.TILES_DECODED] <= 4 * 3
    with pytest.raises(InputError, match=r"row\(s\) of the .* windows of geometry 0, record 'type_uint16', band B1"):
        join_windows(found.chips.slice(1))


def test_windows_that_the_polygon_does_not_touch_are_not_read(files: Rasters, tmp_path: Path) -> None:
    path, collection = files("type_uint16")
    corners = [shapely.box(1, 1, 9, 9), shapely.box(193, 1, 199, 9)]
    shape = on_raster(path, shapely.MultiPolygon(corners))
    found = read(tmp_path, frame([shape]), collection, ["B1"], max_chip_pixels=600)
    assert len(found.chips) > 4 and found.counts[metrics.TILES_DECODED] == 2
    np.testing.assert_array_equal(join_windows(found.chips)[0], oracle(path, shape)[0])


def test_each_tile_is_decoded_once_for_all_polygons(files: Rasters, tmp_path: Path) -> None:
    path, collection = files("type_uint16")
    shapes = [on_raster(path, shapely.box(col, row, col + 9, row + 9)) for col in range(0, 190, 6) for row in (3, 70)]
    found = read(tmp_path, frame(shapes), collection, ["B1"])
    assert found.counts[metrics.TILES_DECODED] == 4 * 2
    assert found.counts[metrics.CHIPS_OUT] == len(shapes)


def parts_of(files: Rasters, **rules: int) -> list[tuple[int, int]]:
    """(first geometry, part) of each chunk of polygons that lie in one tile, in four batches of 600."""
    path, collection = files("type_uint16")
    index = collection.index(["B1"], "all").routing
    shapes = [on_raster(path, shapely.box(3, 3, 12, 12))] * 600
    batch = ReadPolygons(shapes, geometry_crs=crs_of(collection)).first_batch()
    found = []
    for first in range(0, 2400, 600):
        numbered = batch.set_column(0, batch.schema.field(0), pa.array(np.arange(first, first + 600)))
        routed = route_polygons(index, numbered, None, ChipRules(**rules))
        found += [(chunk["geometry_id"][0].as_py(), key.part) for key, chunk in routed.chunks]
    return found


def test_a_crowd_of_polygons_is_one_group_up_to_its_bound(files: Rasters) -> None:
    assert parts_of(files) == [(0, 0), (600, 0), (1200, 0), (1800, 0)]


def test_a_larger_crowd_of_polygons_has_a_part_for_each_range_of_them(files: Rasters) -> None:
    pixels = 600 * 81 * 8  # 600 windows of 9 x 9 pixels, beside the bytes of the polygons
    found = parts_of(files, group_bytes=4 * pixels)
    assert 1 < len({part for _, part in found}) < 4 and found == sorted(found)
    assert len({part for _, part in parts_of(files, group_bytes=pixels)}) == 4
    assert len({part for _, part in parts_of(files, group_bytes=100 * pixels)}) == 1


# Polygons that cannot be used


USELESS = [
    shapely.box(LEFT + 10, TOP - 500, LEFT + 300, TOP - 100),
    BOWTIE,
    None,
    shapely.Polygon(),
    shapely.Point(LEFT, TOP),
    shapely.box(0, 0, 1, 1),
]


@settings(max_examples=examples(25), deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_cut_chips_equal_whole_ones(files: Rasters, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(["type_uint16", "rotated_30", "strips_7", "metres_10"]))
    path, collection = files(name)
    raster = rasters.case(name)
    shape = on_raster(path, data.draw(polygons(raster.width, raster.height)))
    all_touched, most = data.draw(st.booleans()), data.draw(st.integers(30, 2000))
    whole = overlapping(path, shape, all_touched=all_touched)
    if not shapely.is_valid(shape) or whole is None:
        return
    rows = read_without_beam(
        collection, [shape], crs_of(collection), ChipRules(max_pixels=most), all_touched=all_touched
    )
    if len(rows):  # rasterio also crops polygons whose box alone overlaps
        np.testing.assert_array_equal(join_windows(rows)[0], whole[0], strict=True)
    else:
        assert (whole == 0).all()


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_polygon_that_cannot_be_used_is_named(scenes: Collection, tmp_path: Path, number: int) -> None:
    messages = [
        "",
        r"row 1 of column 'geometry' is not a valid polygon: Self-intersection.*make_valid",
        "row 1 of column 'geometry' is null",
        "row 1 of column 'geometry' is empty",
        "row 1 of column 'geometry' is POINT.*only polygons and multipolygons",
    ]
    with pytest.raises(Exception, match=messages[number]):
        read(tmp_path, frame([USELESS[0], USELESS[number]]), scenes, ["B10"])
    assert not list(tmp_path.glob("chips-*"))


def test_polygons_that_cannot_be_used_are_left_out_when_asked(scenes: Collection, tmp_path: Path) -> None:
    given_table = pa.table(frame(USELESS).to_arrow(geometry_encoding="WKB"))
    broken = pa.table(
        {"plot": pa.array(["junk"], given_table["plot"].type), "geometry": pa.array([b"junk"], pa.binary())}
    )
    source = pa.concat_tables([given_table, broken.cast(given_table.schema)])
    found = read(tmp_path, source, scenes, ["B10"], on_invalid="skip")
    assert set(found.chips["geometry_id"].to_pylist()) == {0}
    left = found.unmatched.to_pylist()
    reasons = {1: "invalid", 2: "null", 3: "empty", 4: "not_polygon", 5: "no_record", 6: "broken"}
    assert {row["geometry_id"]: row["reason"] for row in left} == reasons
    assert left[0]["message"].startswith("row 1 of column 'geometry' is not a valid polygon: Self-intersection")
    assert left[0]["geometry"] == shapely.to_wkb(BOWTIE) and left[5]["plot"] == "junk"
    assert {reason: found.counts[metrics.unmatched(reason)] for reason in reasons.values()} == dict.fromkeys(
        reasons.values(), 1
    )


def test_a_polygon_around_a_pole(files: Rasters, tmp_path: Path) -> None:
    _, collection = files("longitude_0_360")
    source = frame([shapely.box(-1e6, -1e6, 1e6, 1e6), shapely.box(2e6, 2e6, 2.5e6, 2.5e6)], 3413)
    with pytest.raises(Exception, match="row 0 of column 'geometry' holds a pole"):
        read(tmp_path, source, collection, ["B1"])
    found = read(tmp_path, source, collection, ["B1"], on_invalid="skip")
    assert found.unmatched.select(["geometry_id", "reason"]).to_pylist() == [
        {"geometry_id": 0, "reason": "no_projection"}
    ]
    assert found.chips["geometry_id"].to_pylist() == [1]


def test_nothing_overlaps(scenes: Collection, tmp_path: Path) -> None:
    found = read(tmp_path, frame([USELESS[5]]), scenes, ["B10"])
    kept = [pa.field("plot", pa.large_string())]
    assert len(found.chips) == 0 and found.chips.schema.equals(chips_schema(kept))
    assert found.unmatched["message"].to_pylist() == [
        "row 0 of column 'geometry' overlaps no record that has a requested band"
    ]


# Sources


def sources(folder: Path) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Ways to give two polygons in degrees, with the column ``plot`` where there are columns."""
    shapes = [shapely.box(3.01, 48.7, 3.02, 48.71), shapely.MultiPolygon([shapely.Point(3.03, 48.72).buffer(0.01)])]
    known, plain = frame(shapes, 4326), pa.table({"plot": ["p0", "p1"], "outline": shapely.to_wkb(shapes)})
    wkt = pa.table({"plot": ["p0", "p1"], "outline": shapely.to_wkt(shapes, rounding_precision=-1)})
    known.to_parquet(folder / "known.parquet")
    pq.write_table(plain, folder / "plain.parquet")
    pv.write_csv(wkt, folder / "plain.csv")
    (folder / "known.geojson").write_text(known.to_json())
    named = {"geometry_column": "outline", "geometry_crs": 4326}
    ewkb = shapely.to_wkb(shapely.set_srid(shapes, 4326), include_srid=True)
    return {
        "geoparquet": (str(folder / "known.parquet"), {}),
        "plain parquet": (str(folder / "plain.parquet"), named),
        "csv": (str(folder / "plain.csv"), named),
        "geojson file": (str(folder / "known.geojson"), {}),
        "geojson": (json.loads(known.to_json()), {}),
        "frame": (known, {}),
        "geoarrow": (pa.table(known.to_arrow(geometry_encoding="geoarrow")), {}),
        "table": (plain, named),
        "wkt": (wkt, named),
        "ewkb": (pa.table({"plot": ["p0", "p1"], "geometry": ewkb}), {}),
        "shapely": (shapes, {}),
        "wkb": (plain["outline"].to_pylist(), {}),
        "array": (plain["outline"], {}),
        "series": (known.geometry, {}),
        "boxes": ([shapes[0].bounds, shapes[1].bounds], {}),
    }


@pytest.mark.parametrize(
    "kind",
    [
        "geoparquet",
        "plain parquet",
        "csv",
        "geojson file",
        "geojson",
        "frame",
        "geoarrow",
        "table",
        "wkt",
        "ewkb",
        "shapely",
        "wkb",
        "array",
        "series",
        "boxes",
    ],
)
def test_sources(tmp_path: Path, kind: str) -> None:
    source, how = sources(tmp_path)[kind]
    batch = ReadPolygons(source, **how).first_batch()
    assert batch["geometry_id"].to_pylist() == [0, 1]
    found, (first, second) = shapely.from_wkb(batch["geometry"].to_pylist()), sources(tmp_path)["shapely"][0]
    assert found[0].equals(first) and found[1].equals(shapely.box(*second.bounds) if kind == "boxes" else second)
    if kind not in ("shapely", "wkb", "array", "series", "boxes"):
        assert batch["plot"].to_pylist() == ["p0", "p1"]
    assert batch.schema.metadata[b"rasteret_beam.polygon_crs"] in (b"EPSG:4326", b"OGC:CRS84")


def test_a_csv_of_wkt_through_the_pipeline(scenes: Collection, parquet: Path, expected: dict, tmp_path: Path) -> None:
    shapes = scattered(40)
    for number, part in enumerate((shapes[:25], shapes[25:])):
        pv.write_csv(pa.table({"outline": shapely.to_wkt(part, rounding_precision=-1)}), tmp_path / f"{number}.csv")
    how = {"geometry_column": "outline", "geometry_crs": 32631}
    check_values(read(tmp_path, str(tmp_path / "*.csv"), scenes, ["B10", "B20"], **how), expected)


def test_kept_columns_have_their_types(scenes: Collection, tmp_path: Path) -> None:
    shapes = scattered(40)
    columns = {
        "outline": shapely.to_wkb(shapes),
        "kind": pa.array([f"k{number}" for number in range(40)]).dictionary_encode(),
        "tags": pa.array([[number, None] for number in range(40)]),
        "left": pa.nulls(40, pa.string()),
    }
    how = {"geometry_column": "outline", "geometry_crs": 32631, "columns": ["kind", "tags"]}
    found = read(tmp_path, pa.table(columns), scenes, ["B10"], **how)
    assert found.chips.schema.names[-2:] == ["kind", "tags"]
    for row in found.chips.select(["geometry_id", "kind", "tags"]).to_pylist():
        assert (row["kind"], row["tags"][0]) == (f"k{row['geometry_id']}", row["geometry_id"])


REFUSED: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no crs": (pa.table({"geometry": [b""]}), {}, "has no CRS; give it with geometry_crs"),
    "no such column": (pa.table({"a": [b""]}), {"geometry_column": "b"}, "has no column 'b'; it has a"),
    "no geometry": (pa.table({"a": [1]}), {}, "no column known as a geometry"),
    "numbers": (
        pa.table({"a": [1]}),
        {"geometry_column": "a"},
        "column 'a' of the polygon table is int64; polygons are",
    ),
    "kept column": (pa.table({"geometry": [b""]}), {"columns": ["x"], "geometry_crs": 1}, "has no column 'x'"),
    "taken name": (
        pa.table({"geometry": [b""], "band": ["a"]}),
        {"geometry_crs": 4326},
        r"the polygon table has column\(s\) named band, which the output table needs",
    ),
    "crs in conflict": (frame([BOWTIE]), {"geometry_crs": 4326}, "geometry_crs is EPSG:4326, but column 'geometry'"),
    "not wkt": (
        pa.table({"geometry": ["POLY"]}),
        {"geometry_crs": 4326},
        "row 0 of column 'geometry' is not WKT: 'POLY'",
    ),
    "a number": (7, {}, "polygons are a int; give an Arrow table"),
    "no file": ([], {}, "source is an empty list; give the files to read polygons from"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_sources(kind: str) -> None:
    source, how, message = REFUSED[kind]
    with pytest.raises(InputError, match=message):
        ReadPolygons(source, **how).first_batch()


def test_refused_options(scenes: Collection) -> None:
    for how, message in (
        ({"fill": "a"}, "fill is 'a'; it has to be a number"),
        ({"max_chip_pixels": 0}, "max_chip_pixels is 0"),
        ({"on_invalid": "mend"}, "on_invalid is 'mend'"),
        ({"fill": -1}, "fill is -1, which uint16 cannot hold"),
        ({"match": "first"}, "match is 'first'"),
    ):
        with pytest.raises(InputError, match=message):
            ReadChips(scenes, ["B10"], **how).check()
    with pytest.raises(InputError, match=r"lacks band\(s\) B99"):
        ReadChips(scenes, ["B99"]).check()


def test_files_of_several_crs(tmp_path: Path, scenes: Collection) -> None:
    frame(scattered(3)).to_parquet(tmp_path / "a.parquet")
    frame(scattered(3)).to_crs(4326).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(Exception, match=r"b.parquet is in .*, but the polygons of the first file are in EPSG:32631"):
        read(tmp_path, str(tmp_path / "*.parquet"), scenes, ["B10"])


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    path = rasters.RasterCase(name="gone", dtype="uint16").write(tmp_path)
    collection = build_from_cogs([str(path)])
    shape = on_raster(path, shapely.box(3, 3, 20, 20))
    path.unlink()
    with pytest.raises(TileReadError, match=r"record 'gone', band B1: .*gone\.tif, tile \(0, 0\)"):
        read_without_beam(collection, [shape], 32631)


def test_rows_that_are_no_chips(files: Rasters) -> None:
    path, collection = files("type_uint16")
    found = read_without_beam(collection, [on_raster(path, shapely.box(3, 3, 20, 20))] * 2, 32631)
    with pytest.raises(InputError, match="the row has no array, mask"):
        decode_chip({"shape": [1, 1], "dtype": "uint8"})
    with pytest.raises(InputError, match="the table has no mask"):
        decode_chips(found.drop_columns(["mask"]))
    with pytest.raises(InputError, match="a chip of 17 x 18 pixels of uint16 has 578 bytes of pixels"):
        decode_chip(found.to_pylist()[0] | {"shape": [17, 18]})
    with pytest.raises(InputError, match=r"2 row\(s\) of 2 chips"):
        join_windows(found)


# GeoTIFFs


def test_names_of_files_are_safe_and_differ() -> None:
    def name(record: str, band: str, **other: Any) -> str:
        return chip_name({"geometry_id": 7, "record_id": record, "band": band, "windows": 1} | other)

    assert name("S2A_2023-01", "B04") == "7@S2A_2023-01@B04.tif"
    assert name("a", "b", windows=2, window_row=64, window_col=0) == "7@a@b@r64c0.tif"
    odd = [
        ("a/b", "c"),
        ("a", "b/c"),
        ("a@b", "c"),
        ("a", "b@c"),
        ("..", "x"),
        ("é [1]*", "?"),
        ("x" * 300, "y"),
        ("x" * 299, "y"),
    ]
    names = [name(*ids) for ids in odd]
    assert len(set(names)) == len(odd) and not any("/" in one or len(one) > 220 for one in names)


def test_geotiffs(scenes: Collection, tmp_path: Path) -> None:
    shapes, folder = scattered(12), tmp_path / "tiffs"
    folder.mkdir()
    (folder / "note.txt").write_text("stays")

    def write(of: list[Any], **how: Any) -> dict[str, int]:
        def build(pipeline: beam.Pipeline) -> None:
            chips = pipeline | ReadPolygons(frame(of)) | ReadChips(scenes, ["B10", "B20"], **how)
            chips | WriteChipsToGeoTiff(str(folder))

        return run(build)

    counts = write(shapes, fill=11)
    found = {path.name for path in folder.glob("*.tif")}
    hrefs = scene_hrefs(scenes)
    wanted = {
        f"{number}@{record}@{band}.tif": (shape, path)
        for number, shape in enumerate(shapes)
        for (record, band), path in hrefs.items()
        if overlapping(path, shape) is not None
    }
    assert found == set(wanted) and counts[metrics.GEOTIFFS_WRITTEN] == len(found)
    for name, (shape, path) in wanted.items():
        with rasterio.open(folder / name) as written, rasterio.open(path) as dataset:
            values, transform = rasterio.mask.mask(dataset, [shape], crop=True, nodata=11)
            np.testing.assert_array_equal(written.read(), values, strict=True)
            assert (written.transform, written.crs, written.nodata) == (transform, dataset.crs, 11)
            assert written.compression.name == "deflate" and written.tags()["record_id"] == name.split("@")[1]
            assert written.descriptions == (name.split("@")[2].removesuffix(".tif"),)
    write(shapes[:4])  # replaces all of the first run, and nothing else
    assert {path.name for path in folder.glob("*")} == {"note.txt"} | {n for n in wanted if int(n.split("@")[0]) < 4}
    assert not list(tmp_path.glob("*temporary*"))


# The command


@pytest.fixture
def command(scenes: Collection, parquet: Path, tmp_path: Path) -> Any:
    scenes.export(tmp_path / "collection")

    def call(*more: str, **flags: Any) -> Outcome:
        usual = {
            "polygons": parquet,
            "collection": tmp_path / "collection",
            "bands": "B10,B20",
            "output": tmp_path / "out" / "chips",
        }
        words = [f"--{name}={value}" for name, value in (usual | flags).items() if value is not None]
        return execute(read_chips.main, *words, *more)

    return call


def test_command(command: Any, expected: dict, tmp_path: Path) -> None:
    outcome = command(unmatched=tmp_path / "out" / "left", geotiff=tmp_path / "tiffs")
    assert (outcome.code, outcome.err) == (0, "")
    matched = len({number for number, _, _ in expected})
    figures = outcome.figures
    assert (figures["polygons read"], figures["with chips"], figures["unmatched"]) == (40, matched, 40 - matched)
    assert figures["rows"] == figures["geotiff files"] == len(expected) == len(list((tmp_path / "tiffs").glob("*.tif")))
    found = Read(table(tmp_path / "out" / "chips", KEY), table(tmp_path / "out" / "left", ["geometry_id"]), {})
    check_values(found, expected)
    assert len(found.unmatched) == 40 - matched
    again = command("--all_touched", match="latest", bands="B10", fill=7, date_range="2023-01-01,2023-05-01")
    assert again.code == 0
    second = table(tmp_path / "out" / "chips", KEY)
    assert set(second["band"].to_pylist()) == {"B10"} and set(second["fill"].to_pylist()) == {7.0}
    assert set(second["record_id"].to_pylist()) == {"P0_1", "P1_1"}
    assert not list(tmp_path.glob("**/*temporary*")) and not list(tmp_path.glob("**/*probe*"))


BAD_FLAGS: dict[str, tuple[dict[str, Any], list[str], int, str]] = {
    "typo": ({}, ["--polygon=x"], 2, "unknown flag --polygon; did you mean --polygons?"),
    "no output": ({"output": None}, [], 2, "required: --output"),
    "no file": ({"polygons": "/nowhere/x.parquet"}, [], 1, "there is no file, folder or match of /nowhere/x.parquet"),
    "no column": ({"geometry_column": "shape"}, [], 1, "has no column 'shape'; it has plot, geometry"),
    "no kept column": ({"columns": "shape"}, [], 1, "has no column 'shape'; it has plot, geometry"),
    "band": ({"bands": "B99"}, [], 1, "lacks band(s) B99; it has B10, B20"),
    "fill": ({"fill": 0.5}, [], 1, "fill is 0.5, which uint16 cannot hold"),
    "crs": ({"geometry_crs": 4326}, [], 1, "leave --geometry_crs out to use the column's own"),
    "pixels": ({"max_chip_pixels": 0}, [], 1, "max_chip_pixels is 0"),
    "collection": ({"collection": "/nowhere"}, [], 1, "/nowhere"),
    "match": ({"match": "first"}, [], 2, "--match: invalid choice: 'first'"),
    "no records": ({"date_range": "1990-01-01,1990-01-02"}, [], 1, "has no records after subset and where"),
    "one prefix": ({"unmatched": "out/x", "output": "out/x"}, [], 1, "--output and --unmatched are both out/x"),
    "geotiff": ({"geotiff": "/dev/null/x"}, [], 1, "/dev/null/x"),
    "geotiff is a file": ({"geotiff": "taken.tif"}, [], 1, "taken.tif/chip cannot be written: [Errno"),
}


@pytest.mark.parametrize("kind", BAD_FLAGS)
def test_bad_flags_give_one_line(command: Any, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.tif").write_text("a file of the user's own")
    flags, more, code, message = BAD_FLAGS[kind]
    outcome = command(*more, **flags)
    assert outcome.code == code and outcome.err.startswith("error: ") and outcome.err.count("\n") == 1
    assert message in outcome.err and "in step" not in outcome.err
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_an_invalid_polygon_is_refused_before_the_job(command: Any, tmp_path: Path) -> None:
    frame([USELESS[0], BOWTIE]).to_parquet(tmp_path / "bad.parquet")
    outcome = command(polygons=tmp_path / "bad.parquet")
    assert (outcome.code, outcome.out) == (1, "")
    assert outcome.err.startswith("error: row 1 of column 'geometry' is not a valid polygon: Self-intersection")
    left = command(polygons=tmp_path / "bad.parquet", on_invalid="skip", unmatched=tmp_path / "out" / "left")
    assert left.code == 0 and left.figures["invalid"] == 1


def test_exchanged_coordinates_are_explained(command: Any, tmp_path: Path) -> None:
    flipped = [shapely.transform(shape, lambda xy: xy[:, ::-1]) for shape in scattered(5)]
    frame(flipped).to_parquet(tmp_path / "flipped.parquet")
    outcome = command(polygons=tmp_path / "flipped.parquet")
    assert outcome.code == 0
    assert outcome.err.startswith("warning: none of the polygons lies in the collection, but they do with x and y exch")


def test_help() -> None:
    with pytest.raises(SystemExit) as ended:
        read_chips.main(["--help"])
    assert ended.value.code == 0


def test_missing_polygons() -> None:
    with pytest.raises(MissingInputError, match=r"there is no file, folder or match of /nowhere/x\.geojson"):
        ReadPolygons("/nowhere/x.geojson").first_batch()
