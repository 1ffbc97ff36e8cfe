"""Bands that lie interleaved in a tile come of one read and one decoding of it, on a disk as from a server."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import rasterio
import shapely

from rasteret_beam import Collection, ReadPoints, SamplePoints, build_from_cogs, metrics
from rasteret_beam.collection.eager.plan import plan_totals
from rasteret_beam.kernels.storage.coalescing import LOCAL
from rasteret_beam.readers.jobs import work_units
from rasteret_beam.readers.tiles import indexed
from tests.support import rasters
from tests.support.pipelines import XY, run
from tests.support.server import RasterServer

FIGURES = (metrics.TILES_DECODED, metrics.TILE_BYTES_READ, metrics.RANGE_REQUESTS)
BANDS = 24
TILES = 3
CASE = rasters.RasterCase(
    name="interleaved",
    dtype="uint8",
    count=BANDS,
    width=700,
    height=250,
    tile=(256, 256),
    options={"COMPRESS": "ZSTD", "INTERLEAVE": "PIXEL"},
)
"""Noise: a tile is stored in more bytes than one request for several tiles of a local file may have."""

Decoded = Callable[[], int]


class Files(NamedTuple):
    """The file on a disk, and the same from a server."""

    path: Path
    local: Collection
    remote: Collection


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Files]:
    path = CASE.write(tmp_path_factory.mktemp("interleaved"))
    with RasterServer(path.parent) as server:
        yield Files(path, build_from_cogs([path]), build_from_cogs([f"{server.url}/{path.name}"]))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Decoded:
    """How many times a tile was decoded."""
    calls = []
    decode_tile = indexed.decode_tile

    def count(*arguments: object) -> np.ndarray:
        calls.append(1)
        return decode_tile(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(indexed, "decode_tile", count)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return lambda: len(calls)


def points(n: int) -> pa.Table:
    rng = np.random.default_rng(3)
    return pa.table({"x": 500_000 + rng.uniform(0, 16 * 700, n), "y": 4_500_000 - rng.uniform(0, 16 * 250, n)})


def counted(collection: Collection, wanted: pa.Table, bands: list[str]) -> dict[str, int]:
    def build(pipeline: beam.Pipeline) -> None:
        pipeline | ReadPoints(wanted, **XY) | SamplePoints(collection, bands)

    counts = run(build)
    return {name: counts.get(name, 0) for name in FIGURES}


def test_a_tile_is_larger_than_a_request_for_several(files: Files) -> None:
    sizes = files.local.to_table()["B1_metadata"][0]["tile_byte_counts"].as_py()
    assert len(sizes) == TILES and min(sizes) > LOCAL.max_bytes


@pytest.mark.parametrize("where", ["local", "remote"])
@pytest.mark.parametrize("bands", [1, 3, BANDS])
def test_decoded_once_for_all_bands(files: Files, decoded: Decoded, where: str, bands: int) -> None:
    collection, names = getattr(files, where), [f"B{number + 1}" for number in range(bands)]
    stored = sum(collection.to_table()["B1_metadata"][0]["tile_byte_counts"].as_py())
    found = counted(collection, points(60), names)
    assert decoded() == TILES
    assert found == {
        metrics.TILES_DECODED: TILES * bands,
        metrics.TILE_BYTES_READ: stored,
        metrics.RANGE_REQUESTS: TILES if where == "local" else 1,
    }
    totals = plan_totals(collection.plan(points(60), names, **XY))
    assert {name: totals[name] for name in FIGURES} == found


@pytest.mark.parametrize("where", ["local", "remote"])
def test_values(files: Files, where: str) -> None:
    wanted = points(50)
    collection = getattr(files, where)
    samples = collection.sample_points(wanted, collection.bands, **XY)
    found = np.full((50, BANDS), np.nan)
    band = [collection.bands.index(name) for name in samples["band"].to_pylist()]
    found[samples["point_index"].to_numpy(), band] = samples["value"].to_numpy()
    with rasterio.open(files.path) as dataset:
        expected = np.array(list(dataset.sample(zip(*(wanted[name].to_pylist() for name in "xy"), strict=True))))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("where", ["local", "remote"])
def test_a_crowded_tile_in_several_units(
    files: Files, decoded: Decoded, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoded for the first of them; the others take it from the cache, or wait for it."""
    monkeypatch.setattr(work_units, "UNIT_ROWS", 500)
    rng = np.random.default_rng(4)
    # Each unit has a point in the last row of the tile, so that all need the whole of it.
    x, y = 500_000 + rng.uniform(0, 4096, 4000), 4_500_000 - rng.uniform(0, 4000, 4000)
    y[::100] = 4_500_000 - 249.5 * 16
    collection = getattr(files, where)
    samples = collection.sample_points(pa.table({"x": x, "y": y}), collection.bands, **XY)
    assert len(samples) == 4000 * BANDS
    assert decoded() == 1


def test_chips(files: Files, decoded: Decoded) -> None:
    box = shapely.box(500_000, 4_500_000 - 16 * 200, 500_000 + 16 * 600, 4_500_000)
    chips = files.local.get_numpy([box], files.local.bands, geometry_crs=32631)
    with rasterio.open(files.path) as dataset:
        expected = dataset.read(window=((0, 200), (0, 600)))
    np.testing.assert_array_equal(np.squeeze(chips), expected)
    assert decoded() == TILES
