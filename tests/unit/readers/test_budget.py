"""One number bounds what the caches of a process hold."""

from collections.abc import Iterator
from pathlib import Path

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.util import assert_that, equal_to

from pipelines import sample_points
from rasteret_beam import Collection, ReadChips, ReadPoints, ReadPolygons, SamplePoints
from rasteret_beam.errors import InputError
from rasteret_beam.job_options import DEFAULT_CACHE_BYTES, LEAST_CACHE_BYTES
from rasteret_beam.metrics import TILE_CACHE_HITS, Counters
from rasteret_beam.readers.gdal import rasters as datasets
from rasteret_beam.readers.tiles.budget import CacheBudget
from rasteret_beam.readers.tiles.protocol import TileRequest
from rasteret_beam.readers.tiles.source import TileSource
from tests.support import rasters, tiles
from tests.support.commands import execute
from tests.support.pipelines import LOCAL

XY = {"x_column": "x", "y_column": "y", "geometry_crs": 32631}
BOX = (500_100.0, 5_397_900.0, 501_500.0, 5_399_000.0)
UNUSABLE = [LEAST_CACHE_BYTES - 1, 1 << 20, 0, -1, True, False, 64e6, "64", None]


def message(value: object) -> str:
    return f"cache_bytes is {value!r}; it has to be a whole number of at least 4194304"


@pytest.fixture
def gdal_cache() -> Iterator[dict]:
    """GDAL's settings, of which a budget changes one for the whole process."""
    before = dict(datasets.GDAL_OPTIONS)
    yield datasets.GDAL_OPTIONS
    datasets.GDAL_OPTIONS.update(before)


def test_a_quarter_for_each_cache() -> None:
    assert CacheBudget().total == DEFAULT_CACHE_BYTES == 256 << 20
    assert CacheBudget().share == 64 << 20
    assert CacheBudget(LEAST_CACHE_BYTES).share == 1 << 20


@pytest.mark.parametrize("value", UNUSABLE)
def test_unusable_budgets(scenes: Collection, points: pa.Table, value: object) -> None:
    with pytest.raises(InputError) as error:
        CacheBudget(value)  # type: ignore[arg-type]
    assert str(error.value) == message(value)
    with pytest.raises(InputError) as error:
        scenes.sample_points(points, ["B10"], **XY, cache_bytes=value)
    assert str(error.value) == message(value)
    with pytest.raises(InputError) as error:
        beam.Pipeline() | ReadPoints(points, **XY) | SamplePoints(scenes, ["B10"], cache_bytes=value)
    assert str(error.value) == message(value)
    with pytest.raises(InputError) as error:
        scenes.get_numpy(BOX, ["B10"], geometry_crs=32631, cache_bytes=value)
    assert str(error.value) == message(value)
    with pytest.raises(InputError) as error:
        ReadChips(scenes, ["B10"], cache_bytes=value)
    assert str(error.value) == message(value)


@pytest.mark.usefixtures("same_signal_handlers")
@pytest.mark.parametrize("mb", [1, 0, -1])
def test_an_unusable_budget_on_the_command_line(scenes: Collection, points: pa.Table, tmp_path: Path, mb: int) -> None:
    scenes.export(tmp_path / "collection")
    pq.write_table(points, tmp_path / "points.parquet")
    outcome = execute(
        sample_points.main,
        *("--points", tmp_path / "points.parquet", "--geometry_crs=32631", "--bands=B10"),
        *("--collection", tmp_path / "collection", "--output", tmp_path / "out" / "samples", f"--cache_mb={mb}"),
    )
    expected = f"error: argument --cache_mb: '{mb}' is not a whole number of megabytes; give 4 or more\n"
    assert (outcome.code, outcome.out, outcome.err) == (2, "", expected)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("tile", [(256, 256), None], ids=["indexed", "rasterio"])
def test_a_sampler_keeps_its_caches_within_their_shares(
    tmp_path: Path, gdal_cache: dict, tile: tuple[int, int] | None
) -> None:
    budget = CacheBudget(LEAST_CACHE_BYTES)
    shape = {"dtype": "uint16", "count": 2, "width": 1024, "height": 1024, "tile": tile}
    path = rasters.RasterCase(name="large", options={"COMPRESS": "DEFLATE"}, **shape).write(tmp_path)
    wants = tiles.wants_of(path)
    size = 2 * 1024 * 1024 * 2
    assert size == 4 * budget.share
    source = TileSource.of_budget(budget)
    cache, pool = source._cache, source.engines.rasterio.pool  # type: ignore[attr-defined]
    assert gdal_cache["GDAL_CACHEMAX"] == cache.max_bytes == pool.max_bytes == budget.share
    given: list[int] = []
    most = 0

    def take(want: TileRequest, pixels: object) -> None:
        nonlocal most
        with cache._lock:  # another thread may just be making room
            most = max(most, cache.bytes)
            given.append(pixels.nbytes)  # type: ignore[attr-defined]

    counters = Counters()
    source.each(wants, take, counters)
    assert sum(given) == size
    assert budget.share - max(given) < most <= budget.share  # filled, and never beyond
    assert cache.bytes == sum(kept.nbytes for kept, _ in cache._entries.values()) <= budget.share
    for _ in range(2):
        source.each(wants[:1], take, counters)
    assert counters.snapshot().get(TILE_CACHE_HITS, 0) >= 1
    source.close()


def test_open_files_stay_within_their_share(tmp_path: Path, gdal_cache: dict) -> None:
    budget = CacheBudget(LEAST_CACHE_BYTES)
    fitting = budget.share // datasets.HEADER_BYTES
    source = TileSource.of_budget(budget)
    pool = source.engines.rasterio.pool  # type: ignore[attr-defined]
    held = []
    for number in range(fitting + 4):
        striped = rasters.RasterCase(name=f"striped_{number}", dtype="uint8", width=64, height=64, tile=None)
        source.each(tiles.wants_of(striped.write(tmp_path)), lambda want, pixels: None, Counters())
        held.append((len(pool), pool._bytes))
    assert [count for count, _ in held[:4]] == [1, 2, 3, 4]
    assert fitting - 2 < len(pool) < fitting  # a little beside the headers: 16 bytes a block
    assert all(size <= budget.share for _, size in held)
    source.close()
    assert (len(pool), pool._bytes) == (0, 0)


@pytest.fixture
def limits_of_sources(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The limits in bytes of the tile caches that are made."""
    made: list[int] = []
    whole = TileSource.__init__

    def note(source: TileSource, *given: object, cache_bytes: int, **more: object) -> None:
        made.append(cache_bytes)
        whole(source, *given, cache_bytes=cache_bytes, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(TileSource, "__init__", note)
    return made


@pytest.mark.parametrize("budget", [LEAST_CACHE_BYTES, 64 << 20])
def test_chips_keep_to_the_budget(
    scenes: Collection, gdal_cache: dict, limits_of_sources: list[int], budget: int
) -> None:
    usual = scenes.get_numpy(BOX, ["B10"], geometry_crs=32631)
    limits_of_sources.clear()
    found = scenes.get_numpy(BOX, ["B10"], geometry_crs=32631, cache_bytes=budget)
    np.testing.assert_array_equal(found, usual, strict=True)
    assert limits_of_sources == [budget // 4] and gdal_cache["GDAL_CACHEMAX"] == budget // 4

    with beam.Pipeline(options=PipelineOptions(LOCAL)) as pipeline:
        polygons = pipeline | ReadPolygons([shapely.box(*BOX)], geometry_crs=32631)
        chips = polygons | ReadChips(scenes, ["B10"], cache_bytes=budget)
        assert_that(chips | beam.Map(len) | beam.CombineGlobally(sum), equal_to([len(usual)]))
    assert set(limits_of_sources) == {budget // 4}
