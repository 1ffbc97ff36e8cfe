"""The pipeline gives the rows of the eager call for all options of ready samples together, and reads as few tiles."""

import logging
from collections.abc import Iterator, Mapping
from itertools import combinations, product
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pytest
import rasterio
from affine import Affine

from rasteret_beam import (
    Collection,
    Quality,
    ReadPoints,
    SamplePoints,
    build_from_cogs,
    build_from_table,
    load,
    metrics,
)
from rasteret_beam.kernels.routing.chunks import ChunkRules
from rasteret_beam.readers.tiles.indexed import IndexedEngine
from tests.support.oracle import needed_tiles, points_of, read_records
from tests.support.pipelines import LOCAL, Kept, run, sample_to
from tests.support.random_stacks import random_points, write_random_stack
from tests.support.ready import FACTORS, RULES, covering, name_of, pipeline_options

UTM = {"x_column": "x", "y_column": "y", "geometry_crs": 32631}
POINTS = random_points(11, 120)
PAIRS = covering(FACTORS, 2, draws=500)


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collection]:
    """A random stack on disk."""
    logging.disable(logging.WARNING)  # of scales that differ in the table and the file
    folder = tmp_path_factory.mktemp("stack")
    build_from_table(write_random_stack(folder, 4, complete=True), name="stack").export(folder / "collection")
    yield load(folder / "collection")
    logging.disable(logging.NOTSET)


Outputs = tuple[pa.Table, pa.Table, dict[str, int]]


def by_pipeline(collection: Collection, bands: tuple[str, ...], options: Mapping[str, Any]) -> Outputs:
    """Samples, points without one, and counters."""
    rows, left = Kept(), Kept()

    def build(pipeline: beam.Pipeline) -> None:
        points = pipeline | ReadPoints(POINTS, **UTM, time_column="when")
        outputs = points | SamplePoints(collection, bands, **options, with_unsampled=True)
        outputs.samples | "Samples" >> beam.Map(rows.append)
        outputs.unsampled | "Unsampled" >> beam.Map(left.append)

    counts = run(build)
    return pa.Table.from_batches(rows), pa.Table.from_batches(left), counts


def eagerly(collection: Collection, bands: tuple[str, ...], options: Mapping[str, Any]) -> tuple[pa.Table, pa.Table]:
    return collection.sample_points(POINTS, bands, **UTM, **options, return_unsampled=True)


def same(found: pa.Table, wanted: pa.Table) -> bool:
    """Equal types, and equal rows in any order, NaN being equal to itself."""
    return found.schema.equals(wanted.schema) and exact(found) == exact(wanted)


def exact(table: pa.Table) -> list[str]:
    return sorted(map(repr, table.to_pylist()))


def check_accounts(counts: Mapping[str, int], samples: pa.Table, left: pa.Table, chosen: Mapping[str, Any]) -> None:
    """Each point is sampled or listed; each pair that was routed is sampled or left out; rows add up."""
    named = {name: counts.get(name, 0) for name in (*metrics.__dict__.values(),) if isinstance(name, str)}
    sampled, unsampled = named[metrics.POINTS_SAMPLED], named[metrics.POINTS_UNSAMPLED]
    assert named[metrics.POINTS_IN] == sampled + unsampled == len(POINTS)
    assert unsampled == len(left) and not set(left["point_index"].to_pylist()) & sampled_points(samples)
    assert sampled == len(sampled_points(samples))
    ends = named[metrics.VALUES_SAMPLED] + named[metrics.VALUES_DEAD_LETTERED] + named[metrics.VALUES_LEFT_OUT]
    assert named[metrics.VALUES_ROUTED] == ends
    assert named[metrics.SAMPLES_OUT] == len(samples)
    one_record = chosen["match"] != "all" and chosen["limit"] is None
    if chosen["join"] == "left" and one_record:
        assert len(samples) == len(POINTS) * (len(chosen["bands"]) if chosen["layout"] == "long" else 1)
    elif chosen["join"] == "left":
        assert set(samples["point_index"].to_pylist()) == set(range(len(POINTS)))


def sampled_points(samples: pa.Table) -> set[int]:
    """Those that have a row with a record."""
    pairs = zip(samples["point_index"].to_pylist(), samples["record_id"].to_pylist(), strict=True)
    return {point for point, record in pairs if record is not None}


def check(collection: Collection, chosen: Mapping[str, Any]) -> None:
    options = pipeline_options(chosen)
    wanted, left = eagerly(collection, chosen["bands"], options)
    found, reasons, counts = by_pipeline(collection, chosen["bands"], options)
    assert same(found, wanted)
    assert same(reasons, left)
    check_accounts(counts, wanted, left, chosen)


@pytest.mark.slow
@pytest.mark.parametrize("chosen", PAIRS, ids=name_of)
def test_options_in_pairs(collection: Collection, chosen: dict[str, Any]) -> None:
    check(collection, chosen)


@pytest.fixture(scope="module")
def triples() -> list[dict[str, Any]]:
    return covering(FACTORS, 3, draws=4000)


@pytest.mark.slow
@pytest.mark.parametrize("match", FACTORS["match"])
def test_options_in_threes(collection: Collection, triples: list[dict[str, Any]], match: str) -> None:
    for chosen in triples:
        if chosen["match"] == match:
            check(collection, chosen)


FREE = ("match", "quality", "invalid", "unscale", "join", "layout", "overlap", "max_distance_pixels", "extra_columns")
"""The factors whose values go with any value of each other."""


def are_met(chosen: list[dict[str, Any]], factors: tuple[str, ...], strength: int) -> None:
    """Each value of a factor with each of any other, as far as they go together."""
    for names in combinations(factors, strength):
        met = {tuple(each[name] for name in names) for each in chosen}
        assert met == {*product(*(FACTORS[name] for name in names))}, names


def test_pairs_are_met() -> None:
    assert len(PAIRS) < 40
    are_met(PAIRS, FREE, 2)


@pytest.mark.slow
def test_triples_are_met(triples: list[dict[str, Any]]) -> None:
    assert len(triples) < 120
    are_met(triples, FREE, 3)


CLEAR = {
    "match": "nearest",
    "time_column": "when",
    "quality": [Quality("Q", keep=[1, 2, 4])],
    "skip_invalid": True,
    "join": "left",
}


@pytest.mark.slow
def test_two_workers(collection: Collection, tmp_path: Path) -> None:
    options = [*LOCAL, "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    found, _ = sample_to(
        tmp_path / "s",
        POINTS,
        collection,
        options,
        reading=UTM | {"time_column": "when"},
        bands=["A", "B"],
        extra_columns=["status", "candidate"],
        **CLEAR,
    )
    wanted, _ = eagerly(collection, ("A", "B"), CLEAR | {"extra_columns": ["status", "candidate"]})
    assert same(found, wanted)


@pytest.mark.parametrize("rules", [(1, 1), (9, 9)])
def test_rows_do_not_depend_on_blocks(collection: Collection, rules: tuple[int, int]) -> None:
    """Points are keyed by a block of tiles of one of their grids, of any size."""
    found, _, _ = by_pipeline(collection, ("A", "B"), CLEAR | {"rules": ChunkRules(block=rules)})
    assert same(found, eagerly(collection, ("A", "B"), CLEAR)[0])


# Which tiles are read


@pytest.fixture
def tiles_read(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """File, row and column of each tile that is decoded."""
    seen: list[tuple[str, int, int]] = []
    original = IndexedEngine.read

    def read(engine: IndexedEngine, requests: Any, *others: Any) -> Iterator[Any]:
        seen.extend((each.asset.href, each.tile_row, each.tile_col) for each in requests)
        yield from original(engine, requests, *others)

    monkeypatch.setattr(IndexedEngine, "read", read)
    return seen


@pytest.mark.parametrize("match", ["latest", "nearest"])
@pytest.mark.parametrize("invalid", ["keep", "drop"])
def test_tiles_that_are_read(tiles_read: list[tuple[str, int, int]], tmp_path: Path, match: str, invalid: str) -> None:
    """Those that brute force needs, each once: of a second candidate only where the first is not valid."""
    table = write_random_stack(tmp_path, 21, complete=True, masks=False)
    options = {"match": match, "skip_invalid": True, "invalid": invalid, "quality": [RULES["keep"]]}
    records, points = read_records(table), points_of(POINTS, "x", "y", "EPSG:32631", "when")
    needed = needed_tiles(records, points, ["A", "B"], options)
    keywords = options | {"quality": [Quality(**RULES["keep"])], "time_column": "when"}
    build_from_table(table, name="stack").sample_points(POINTS, ["A", "B"], **UTM, **keywords)
    assert set(tiles_read) == needed
    assert len(tiles_read) <= 1.1 * len(needed)
    assert len(needed) < len(needed_tiles(records, points, ["A", "B"], {"match": "all", "quality": options["quality"]}))


def test_no_tile_of_a_second_candidate(tiles_read: list[tuple[str, int, int]], tmp_path: Path) -> None:
    """Where the first one is valid; it is not in the western half of the scene."""
    paths = {}
    for date, nodata_to in (("2023-01-01", 0), ("2023-02-01", 64), ("2023-03-01", 64)):
        paths[date] = tmp_path / f"{date}.tif"
        values = np.ones((128, 128), np.uint8)
        values[:, :nodata_to] = 0
        where = {"crs": "EPSG:32631", "transform": Affine(10, 0, 500_000, 0, -10, 5_000_000), "nodata": 0}
        size = {"width": 128, "height": 128, "blockxsize": 64, "blockysize": 64, "tiled": True}
        with rasterio.open(paths[date], "w", driver="GTiff", count=1, dtype="uint8", **where, **size) as dataset:
            dataset.write(values, 1)
    collection = build_from_cogs(list(paths.values()), datetime=list(paths), bands={"A": 0})
    steps = np.arange(5, 1280, 10.0)
    points = pa.table({"x": 500_000 + steps, "y": 5_000_000 - steps})
    rows = collection.sample_points(
        points, ["A"], **UTM, match="latest", skip_invalid=True, extra_columns=["candidate"]
    )
    assert rows.sort_by("point_index")["candidate"].to_pylist() == [2] * 64 + [0] * 64
    newest, middle, oldest = (str(paths[date]) for date in sorted(paths, reverse=True))
    assert sorted(tiles_read) == sorted([(newest, 0, 0), (newest, 1, 1), (middle, 0, 0), (oldest, 0, 0)])
