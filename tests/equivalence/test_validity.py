"""One meaning of valid for points, windows and chips: rasterio.read_masks, less NaN and nodata."""

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rasterio
import shapely
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import MaskFlags
from rasterio.transform import Affine

from pipelines.sample_points import main
from rasteret_beam import (
    Collection,
    ReadChips,
    ReadPoints,
    ReadPolygons,
    SampleDeadLetters,
    SamplePoints,
    WriteChipsToGeoTiff,
    WriteSamplesToParquet,
    build_from_cogs,
    load,
    metrics,
)
from rasteret_beam.errors import TileReadError
from rasteret_beam.kernels.sampling.validity import is_nodata
from rasteret_beam.schema import DEAD_LETTER_SCHEMA
from tests.support import rasters
from tests.support.commands import execute
from tests.support.paths import ROOT
from tests.support.pipelines import ORDER, XY, read, run, sample_to
from tests.support.properties import examples
from tests.support.server import Fault, RasterServer, Request

SIZE = 48
TILE = 16
GRID = Affine(8, 0, 0, 0, -2, 200)
NODATA_VALUES = {"NODATA_VALUES": "0 0 0"}


def write(
    path: Path,
    pixels: np.ndarray,
    mask: np.ndarray | None = None,
    *,
    internal: bool = True,
    tags: dict[str, str] | None = None,
    **options: Any,
) -> Path:
    """A TIFF of [bands, rows, columns], by default in tiles and compressed by deflate, with a mask of its own."""
    profile = {"driver": "GTiff", "crs": "EPSG:32631", "transform": GRID, "dtype": pixels.dtype, "compress": "deflate"}
    profile |= {"tiled": True, "blockxsize": TILE, "blockysize": TILE} | options
    count, height, width = pixels.shape
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal),
        rasterio.open(path, "w", count=count, height=height, width=width, **profile) as dataset,
    ):
        dataset.update_tags(**(tags or {}))
        dataset.write(pixels)
        if mask is not None:
            dataset.write_mask(mask)
    return path


def write_mask_of_each_band(path: Path, masks: np.ndarray) -> None:
    """A ``.msk`` with a mask for each band, as GDAL looks for it beside a file."""
    tags = {f"INTERNAL_MASK_FLAGS_{number + 1}": "0" for number in range(len(masks))}
    write(path.with_name(f"{path.name}.msk"), masks, tags=tags)


def numbers(seed: int, bands: int = 1, share: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Values of 1 to 200, which are 0 where a mask is 0; the mask is 0, 255, or between, as that of an alpha band."""
    rng = np.random.default_rng(seed)
    masks = np.where(rng.random((bands, SIZE, SIZE)) < share, rng.integers(1, 256, (bands, SIZE, SIZE)), 0)
    values = rng.integers(1, 201, (bands, SIZE, SIZE))
    return np.where(masks == 0, 0, values).astype("uint8"), masks.astype("uint8")


def internal(path: Path, seed: int) -> None:
    values, masks = numbers(seed, 2)
    write(path, values, masks[0])


def beside(path: Path, seed: int) -> None:
    values, masks = numbers(seed, 2)
    write(path, values, masks[0], internal=False)


def of_each_band(path: Path, seed: int) -> None:
    values, masks = numbers(seed, 2)
    write(path, values)
    write_mask_of_each_band(path, masks)


def striped(path: Path, seed: int) -> None:
    values, masks = numbers(seed)
    write(path, values, masks[0], tiled=False, blockysize=5)


def mask_and_nodata(path: Path, seed: int) -> None:
    values, masks = numbers(seed)
    write(path, values, masks[0], nodata=int(values[masks > 0][0]))


def mask_and_nan(path: Path, seed: int) -> None:
    values, masks = numbers(seed)
    floats = values.astype("float32")
    floats[np.random.default_rng(seed).random(values.shape) < 0.2] = np.nan
    write(path, floats, masks[0])


def alpha(path: Path, seed: int) -> None:
    values, masks = numbers(seed)
    write(path, np.concatenate([values] * 3 + [masks]), photometric="RGB", alpha="YES")


def alpha_of_16_bits(path: Path, seed: int) -> None:
    values, masks = numbers(seed)
    write(path, np.concatenate([values, masks]).astype("uint16"), photometric="MINISBLACK", alpha="YES")


def alpha_and_nodata(path: Path, seed: int) -> None:
    values, masks = numbers(seed)
    write(path, np.concatenate([values] * 3 + [masks]), photometric="RGB", alpha="YES", nodata=7)


def nodata_of_all_bands(path: Path, seed: int) -> None:
    values, _ = numbers(seed, 3, share=0.6)
    write(path, values, tags=NODATA_VALUES)


def nodata(path: Path, seed: int) -> None:
    values, _ = numbers(seed)
    write(path, values, nodata=0)


def nodata_out_of_range(path: Path, seed: int) -> None:
    values, _ = numbers(seed)
    write(path, values)
    beside_it = '<PAMDataset><PAMRasterBand band="1"><NoDataValue>-9999</NoDataValue></PAMRasterBand></PAMDataset>'
    path.with_name(f"{path.name}.aux.xml").write_text(beside_it)


def floats_about_nodata(path: Path, seed: int) -> None:
    """Floats of which most are nodata or within a few units of its last place."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(-9, 10, (1, SIZE, SIZE))
    close = (np.float32(0.1).view("int32") + steps).astype("int32").view("float32")
    write(path, np.where(rng.random(steps.shape) < 0.1, steps.astype("float32"), close), nodata=0.1)


def long_integers(path: Path, seed: int) -> None:
    """Integers that one float64 stands for, one of which is nodata."""
    rng = np.random.default_rng(seed)
    write(path, rng.choice([2**53, 2**53 + 1, 2**53 + 2], (1, SIZE, SIZE), p=[0.1, 0.8, 0.1]), nodata=1)
    set_nodata(path, 2**53 + 1)


def set_nodata(path: Path, value: object) -> None:
    """Put in GDAL's tag of the nodata value what GDAL itself writes but rasterio rounds."""
    with tifffile.TiffFile(path, mode="r+b") as tiff:
        tiff.pages[0].tags[42113].overwrite(str(value))  # type: ignore[union-attr]


KINDS: list[Callable[[Path, int], None]] = [
    internal,
    beside,
    of_each_band,
    striped,
    mask_and_nodata,
    mask_and_nan,
    alpha,
    alpha_of_16_bits,
    alpha_and_nodata,
    nodata_of_all_bands,
    nodata,
    nodata_out_of_range,
    floats_about_nodata,
    long_integers,
]


@cache
def truth(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Values and valid pixels, [bands, rows, columns] each, by rasterio."""
    with rasterio.open(path) as dataset:
        values = dataset.read()
        valid = (dataset.read_masks() != 0) & (values == values)
        if MaskFlags.per_dataset in dataset.mask_flag_enums[0] and dataset.nodata is not None:
            valid &= values != dataset.nodata
        return values, valid


def side(row: int, col: int, ring: int) -> int:
    return 0 if row == -ring else 1 if row == ring else 2 if col == -ring else 3


def around(row: float, col: float, radius: int) -> Iterator[tuple[int, int]]:
    steps = range(-radius, radius + 1)
    return product((math.floor(row) + step for step in steps), (math.floor(col) + step for step in steps))


def brute(values: np.ndarray, valid: np.ndarray, row: float, col: float, radius: int, fallback: str) -> float:
    """The value of one point, by looking at each pixel around it; eighths of a pixel of 8 by 2 metres are exact."""
    base = math.floor(row), math.floor(col)
    candidates = []
    for r, c in around(row, col, radius):
        if not (0 <= r < SIZE and 0 <= c < SIZE and valid[r, c]):
            continue
        across = max(0, c - col, col - c - 1) * GRID.a
        down = max(0, r - row, row - r - 1) * GRID.e
        dr, dc = r - base[0], c - base[1]
        ring = max(abs(dr), abs(dc))
        candidates.append(((across**2 + down**2, ring, side(dr, dc, ring), dr, dc), float(values[r, c])))
    if valid[base] or not candidates:
        return float(values[base])
    if fallback == "ring":
        first = min(key[1] for key, _ in candidates)
        candidates = [(key, value) for key, value in candidates if key[1] == first]
    return min(candidates)[1]


def window(values: np.ndarray, row: float, col: float, radius: int) -> list[float]:
    inside = ((r, c, 0 <= r < SIZE and 0 <= c < SIZE) for r, c in around(row, col, radius))
    return [float(values[r, c]) if there else math.nan for r, c, there in inside]


def some_points(seed: int, n: int = 40) -> tuple[np.ndarray, np.ndarray, pa.Table]:
    """Positions (row, col) in eighths of a pixel, many of them at the edges of tiles, and the points."""
    rng = np.random.default_rng(seed)
    row, col = rng.integers(0, 8 * SIZE, n) / 8, rng.integers(0, 8 * SIZE, n) / 8
    at_edge = rng.random(n) < 0.4
    row[at_edge] = np.round(row[at_edge] / TILE).clip(0, 2) * TILE + rng.choice([0, 0.5], at_edge.sum())
    return row, col, pa.table({"x": GRID.c + GRID.a * col, "y": GRID.f + GRID.e * row})


def check(samples: pa.Table, path: Path, seed: int, radius: int, fallback: str, returned: str) -> None:
    """Compare the samples of all bands of a file with rasterio's."""
    values, valid = truth(path)
    row, col, _ = some_points(seed)
    for number in range(len(values)):
        of_band = samples.filter(pa.compute.equal(samples["band"], f"B{number + 1}")).sort_by("point_index")
        assert of_band["point_index"].to_pylist() == list(range(len(row)))
        wanted = [brute(values[number], valid[number], r, c, radius, fallback) for r, c in zip(row, col, strict=True)]
        np.testing.assert_array_equal(of_band["value"].to_numpy(), wanted)
        if returned == "off":
            continue
        base = valid[number][np.floor(row).astype(int), np.floor(col).astype(int)]
        windows = of_band["neighbourhood_values"].to_pylist()
        assert [found is not None for found in windows] == [returned == "always" or not good for good in base]
        for found, r, c in zip(windows, row, col, strict=True):
            if found is not None:
                np.testing.assert_array_equal(found, window(values[number], r, c, radius))


def path_of(folder: Path, kind: Callable[[Path, int], None], seed: int) -> Path:
    path = folder / f"{kind.__name__}_{seed}.tif"
    if not path.exists():
        kind(path, seed)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("validity")


@settings(max_examples=examples(30), deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(KINDS),
    said=st.booleans(),
    radius=st.integers(1, 4),
    fallback=st.sampled_from(["closest", "ring"]),
    returned=st.sampled_from(["off", "always", "if_center_nodata"]),
    seed=st.integers(0, 3),
)
def test_the_closest_valid_pixel(
    folder: Path,
    kind: Callable[[Path, int], None],
    said: bool,
    radius: int,
    fallback: str,
    returned: str,
    seed: int,
) -> None:
    path = path_of(folder, kind, seed)
    collection = build_from_cogs([path])
    if not said:  # as a collection of another maker, which knows neither masks nor exact integers
        table = collection.to_table()
        collection = Collection.from_table(table.drop_columns([n for n in table.column_names if n.endswith("_extra")]))
    samples = collection.sample_points(
        some_points(seed)[2],
        collection.bands,
        **XY,
        max_distance_pixels=radius,
        fallback=fallback,
        return_neighbourhood=returned,
    )
    check(samples, path, seed, radius, fallback, returned)


@pytest.mark.parametrize("kind", KINDS)
def test_chips_and_points_have_one_meaning(folder: Path, kind: Callable[[Path, int], None]) -> None:
    path = path_of(folder, kind, 1)
    values, valid = truth(path)
    collection = build_from_cogs([path])
    box = shapely.box(GRID.c, GRID.f + SIZE * GRID.e, GRID.c + SIZE * GRID.a, GRID.f)
    assert valid.all() == (kind is nodata_out_of_range)
    for number, band in enumerate(collection.bands):
        found, usable = collection.get_numpy(box, [band], geometry_crs=32631, return_mask=True)
        np.testing.assert_array_equal(usable[0], valid[number])
        np.testing.assert_array_equal(found[0][valid[number]], values[number][valid[number]])


@pytest.mark.parametrize("kind", [internal, beside, of_each_band, alpha, mask_and_nan, long_integers])
def test_a_pipeline_over_an_exported_collection(folder: Path, tmp_path: Path, kind: Callable[..., None]) -> None:
    path = path_of(folder, kind, 2)
    build_from_cogs([path]).export(tmp_path / "collection")
    collection = load(tmp_path / "collection")
    options = {"max_distance_pixels": 3, "return_neighbourhood": "if_center_nodata"}
    found, _ = sample_to(tmp_path / "s", some_points(2)[2], collection, bands=collection.bands, **options)
    check(found, path, 2, 3, "closest", "if_center_nodata")


def test_without_fallback_the_raw_value_stays_and_no_mask_is_read(folder: Path, tmp_path: Path) -> None:
    path = path_of(folder, internal, 0)
    row, col, points = some_points(0)
    collection = build_from_cogs([path])
    found, counts = sample_to(tmp_path / "s", points, collection, bands=["B1"])
    raw = truth(path)[0][0][np.floor(row).astype(int), np.floor(col).astype(int)]
    np.testing.assert_array_equal(found["value"].to_numpy(), raw)
    assert metrics.MASK_TILES_READ not in counts and metrics.DATASETS_OPENED not in counts


def test_a_mask_is_read_once_for_each_tile_and_only_of_files_that_have_one(folder: Path, tmp_path: Path) -> None:
    points = pa.table({"x": [8.0 * 8] * 2, "y": [200 - 2.0 * 8, 200 - 2.0 * 9]})  # in the middle of a tile
    counts = {}
    for kind in (internal, nodata):
        collection = build_from_cogs([path_of(folder, kind, 0)])
        _, counts[kind] = sample_to(
            tmp_path / kind.__name__, points, collection, bands=collection.bands, max_distance_pixels=2
        )
    assert counts[internal][metrics.MASK_TILES_READ] == 2  # of two bands
    assert metrics.MASK_TILES_READ not in counts[nodata] and metrics.DATASETS_OPENED not in counts[nodata]


def test_a_file_without_a_mask_is_asked_only_once(folder: Path, tmp_path: Path) -> None:
    table = build_from_cogs([path_of(folder, nodata, 0)]).to_table().drop_columns(["B1_extra"])
    points = some_points(0)[2]
    _, counts = sample_to(tmp_path / "s", points, Collection.from_table(table), bands=["B1"], max_distance_pixels=2)
    assert metrics.MASK_TILES_READ not in counts
    assert 1 <= counts[metrics.DATASETS_OPENED] <= 8  # by threads that ask at the same time
    assert counts[metrics.TILES_DECODED] == counts[metrics.TILES_INDEXED]


class TestUnreadableMasks:
    """A mask that cannot be read is a failure like that of a value."""

    @pytest.fixture
    def damaged(self, tmp_path: Path) -> Path:
        """A file whose internal mask has lost one tile, (1, 1); beside it the whole one."""
        values, masks = numbers(1)
        path = write(tmp_path / "scene.tif", values, masks[0])
        (tmp_path / "good.tif").write_bytes(path.read_bytes())
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages[1]
            start, size = page.dataoffsets[4], page.databytecounts[4]  # type: ignore[union-attr]
        with open(path, "r+b") as file:
            file.seek(start)
            file.write(b"\xff" * size)
        return path

    def test_it_is_an_error_that_names_it(self, damaged: Path) -> None:
        collection = build_from_cogs([damaged])
        with pytest.raises(TileReadError) as caught:
            collection.sample_points(some_points(1)[2], ["B1"], **XY, max_distance_pixels=2)
        assert str(caught.value).startswith(f"record 'scene', band B1: {damaged}, mask of tile (1, 1): ")
        plain = collection.sample_points(some_points(1)[2], ["B1"], **XY)
        assert len(plain) == 40

    def test_chips_fail_too(self, damaged: Path) -> None:
        with pytest.raises(TileReadError, match=r"mask of tile \(1, 1\)"):
            build_from_cogs([damaged]).get_numpy(shapely.box(0, 104, 384, 200), ["B1"], geometry_crs=32631)

    def test_a_mask_that_is_gone_is_an_error(self, tmp_path: Path) -> None:
        values, masks = numbers(1)
        path = write(tmp_path / "scene.tif", values, masks[0], internal=False)
        collection = build_from_cogs([path])
        (tmp_path / "scene.tif.msk").unlink()
        message = "the mask of the file is all_valid, but the collection has it as per_dataset"
        with pytest.raises(TileReadError, match=message):
            collection.sample_points(some_points(1)[2], ["B1"], **XY, max_distance_pixels=2)
        with pytest.raises(TileReadError, match=message):
            collection.get_numpy(shapely.box(0, 104, 384, 200), ["B1"], geometry_crs=32631)

    def test_dead_letters_tried_again_give_the_missing_rows(self, damaged: Path, tmp_path: Path) -> None:
        collection = build_from_cogs([damaged], name="c")
        around = {"max_distance_pixels": 2, "return_neighbourhood": "if_center_nodata"}
        points = some_points(1)[2]

        def first(pipeline: Any) -> None:
            outputs = (
                pipeline | ReadPoints(points, **XY) | SamplePoints(collection, ["B1"], on_error="dead_letter", **around)
            )
            outputs.samples | "Samples" >> WriteSamplesToParquet(str(tmp_path / "first"))
            letters = WriteSamplesToParquet(str(tmp_path / "dead"), schema=DEAD_LETTER_SCHEMA)
            outputs.dead_letters | "Letters" >> letters

        counts = run(first)
        rows = read(tmp_path / "first")
        assert 0 < len(rows) < 40
        assert counts[metrics.VALUES_DEAD_LETTERED] == 40 - len(rows)
        letters = pa.concat_tables(pq.read_table(file) for file in tmp_path.glob("dead-*.parquet"))
        assert set(letters["tile_row"].to_pylist()) == set(letters["tile_col"].to_pylist()) == {1}
        damaged.write_bytes((tmp_path / "good.tif").read_bytes())

        def again(pipeline: Any) -> None:
            outputs = pipeline | SampleDeadLetters(collection, str(tmp_path / "dead-*.parquet"), **around)
            outputs.samples | WriteSamplesToParquet(str(tmp_path / "again"))

        run(again)
        check(
            pa.concat_tables([rows, read(tmp_path / "again")]).sort_by(ORDER),
            damaged,
            1,
            2,
            "closest",
            "if_center_nodata",
        )


class TestRemoteMasks:
    """A ``.msk`` beside a file on a server counts for points and chips alike."""

    @pytest.fixture
    def server(self, folder: Path) -> Iterator[RasterServer]:
        for kind in (internal, beside, of_each_band, alpha):
            path_of(folder, kind, 3)
        with RasterServer(folder) as server:
            yield server

    @pytest.mark.parametrize("kind", [internal, beside, of_each_band, alpha])
    def test_points_and_chips(self, server: RasterServer, folder: Path, kind: Callable[..., None]) -> None:
        path = path_of(folder, kind, 3)
        collection = build_from_cogs([f"{server.url}/{path.name}"])
        options = {"max_distance_pixels": 2, "return_neighbourhood": "always"}
        samples = collection.sample_points(some_points(3)[2], collection.bands, **XY, **options)
        check(samples, path, 3, 2, "closest", "always")
        _, usable = collection.get_numpy(shapely.box(0, 104, 384, 200), ["B1"], geometry_crs=32631, return_mask=True)
        np.testing.assert_array_equal(usable[0], truth(path)[1][0])

    def test_a_mask_that_the_server_refuses_is_an_error(self, server: RasterServer, folder: Path) -> None:
        path = path_of(folder, beside, 3)
        collection = build_from_cogs([f"{server.url}/{path.name}"])

        def forbidden(request: Request) -> Fault | None:
            return Fault(status=403) if request.name.endswith(".msk") else None

        server.plan = forbidden
        with pytest.raises(TileReadError, match="the mask of the file is all_valid"):
            collection.sample_points(some_points(3)[2], ["B1"], **XY, max_distance_pixels=2)


LIMITS = {dtype: np.iinfo(dtype) for dtype in rasters.INTEGERS}
INTEGERS = [
    *((dtype, limits.min) for dtype, limits in LIMITS.items()),
    *((dtype, limits.max) for dtype, limits in LIMITS.items()),
    *((dtype, limits.max + 1) for dtype, limits in LIMITS.items()),
    ("int64", 2**53 + 1),
    ("int64", -(2**53) - 1),
    ("int64", 2**62 - 1),
    ("uint64", 2**53 + 1),
    ("uint64", 2**63),
    ("uint8", -9999),
    ("uint8", "nan"),
    ("int16", 1.5),
    ("int16", -1.5),
    ("uint8", "inf"),
]
FLOATS = [
    (dtype, text)
    for dtype in ("float32", "float64")
    for text in ("0", "-0", "0.1", "-9999", "-3.4e38", "-3.40282346638529e+38", "1e-40", "nan", "inf", "-inf", "1e30")
]


def near(dtype: str, value: float | str) -> np.ndarray:
    """Pixels at and about a nodata value, as far as the dtype has them, and some others."""
    kind = np.dtype(dtype)
    if kind.kind in "iu":
        limits = np.iinfo(dtype)
        about = [int(value) + step for step in (-2, -1, 0, 1, 2)] if value not in ("nan", "inf") else []
        all_of_them = [*about, 0, 1, 2, limits.min, limits.max, limits.max - 1]
        found = [number for number in all_of_them if limits.min <= number <= limits.max]
        return np.array(found, dtype=dtype)
    with np.errstate(all="ignore"):
        base = kind.type(value)
        up, down = [base], [base]
        for _ in range(9):
            up.append(np.nextafter(up[-1], kind.type(np.inf)))
            down.append(np.nextafter(down[-1], kind.type(-np.inf)))
        close = [base * kind.type(1 + step) for step in (1e-8, 1e-7, 2e-7, 4e-7, 4.7e-7, 4.8e-7, 5e-7, 1e-6)]
        others = [0, 1, np.nan, np.inf, -np.inf, base / 2, base * 2, -base]
        return np.array([*up, *down, *close, *others], dtype=dtype)


@pytest.mark.parametrize(("dtype", "value"), [*INTEGERS, *FLOATS])
def test_a_nodata_value_is_compared_as_gdal_does(tmp_path: Path, dtype: str, value: float | str) -> None:
    pixels = near(dtype, value)
    path = write(tmp_path / "n.tif", np.resize(pixels, (1, SIZE, SIZE)), nodata=1)
    set_nodata(path, value)
    with rasterio.open(path) as dataset:
        masked = dataset.read_masks(1).ravel()[: len(pixels)] == 0
    collection = build_from_cogs([path])
    (asset,) = collection.index(["B1"]).assets("n", ["B1"])
    np.testing.assert_array_equal(is_nodata(pixels, asset.nodata), masked)
    _, usable = collection.get_numpy(shapely.box(0, 104, 384, 200), ["B1"], geometry_crs=32631, return_mask=True)
    np.testing.assert_array_equal(usable[0].ravel()[: len(pixels)], ~masked & (pixels == pixels))


def test_the_command_line(folder: Path, tmp_path: Path) -> None:
    path = path_of(folder, beside, 1)
    build_from_cogs([path]).export(tmp_path / "collection")
    pq.write_table(some_points(1)[2], tmp_path / "points.parquet")
    flags = [f"--points={tmp_path}/points.parquet", "--x_column=x", "--y_column=y", "--geometry_crs=32631"]
    flags += [f"--collection={tmp_path}/collection", "--bands=B1,B2", "--max_distance_pixels=2", "--fallback=ring"]
    done = execute(main, *flags, f"--output={tmp_path}/out")
    assert (done.code, done.err) == (0, "")
    check(read(tmp_path / "out"), path, 1, 2, "ring", "off")


class TestLongIntegers:
    """Values beyond 2^53 are rounded to float64, which every face says once."""

    MESSAGE = "band(s) B1 are int64: values beyond 2^53 are rounded, as value_type is 'float64'; value_type='raw'"

    @pytest.fixture
    def collection(self, folder: Path) -> Collection:
        return build_from_cogs([path_of(folder, long_integers, 1)])

    def test_eager(self, collection: Collection, caplog: pytest.LogCaptureFixture) -> None:
        found = collection.sample_points(some_points(1)[2], ["B1"], **XY)
        assert [record.getMessage().startswith(self.MESSAGE) for record in caplog.records] == [True]
        assert set(found["value"].to_pylist()) <= {2.0**53, 2.0**53 + 2}

    def test_a_pipeline_when_it_is_built(self, collection: Collection, caplog: pytest.LogCaptureFixture) -> None:
        pipeline = beam.Pipeline()
        pipeline | ReadPoints(some_points(1)[2], **XY) | SamplePoints(collection, ["B1"])
        messages = [record.getMessage() for record in caplog.records if "2^53" in record.getMessage()]
        assert len(messages) == 1 and messages[0].startswith(self.MESSAGE)

    @pytest.mark.slow
    def test_the_command_line(self, collection: Collection, tmp_path: Path) -> None:
        collection.export(tmp_path / "collection")
        pq.write_table(some_points(1)[2], tmp_path / "points.parquet")
        flags = [f"--points={tmp_path}/points.parquet", "--x_column=x", "--y_column=y", "--geometry_crs=32631"]
        words = [f"--collection={tmp_path}/collection", "--bands=B1", f"--output={tmp_path}/out"]
        command = [sys.executable, "-m", "pipelines.sample_points", *flags, *words]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 0, done.stderr
        assert len([line for line in done.stderr.splitlines() if self.MESSAGE in line]) == 1

    def test_others_say_nothing(self, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
        build_from_cogs([path_of(folder, nodata, 1)]).sample_points(some_points(1)[2], ["B1"], **XY)
        assert not caplog.records

    def test_chips_as_geotiff_keep_them_whole(self, folder: Path, collection: Collection, tmp_path: Path) -> None:
        box = shapely.box(0, 104, 384, 200)

        def build(pipeline: Any) -> None:
            chips = pipeline | ReadPolygons([box], geometry_crs=32631) | ReadChips(collection, ["B1"])
            chips | WriteChipsToGeoTiff(str(tmp_path / "tiffs"))

        run(build)
        values, valid = truth(path_of(folder, long_integers, 1))
        (path,) = (tmp_path / "tiffs").glob("*.tif")
        with rasterio.open(path) as dataset:
            np.testing.assert_array_equal(dataset.read(), values)
            np.testing.assert_array_equal(dataset.read_masks() != 0, valid)
