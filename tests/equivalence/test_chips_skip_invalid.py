"""``ReadChips`` with ``skip_invalid``: for each band, the first record with enough valid pixels, by brute force."""

from pathlib import Path
from typing import Any

import apache_beam as beam
import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import pytest
import shapely
from rasterio.transform import Affine

from rasteret_beam import (
    Collection,
    Quality,
    ReadChipDeadLetters,
    ReadChips,
    ReadPolygons,
    WriteChipsToParquet,
    build_from_table,
    decode_chips,
    join_windows,
    metrics,
)
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.routing.chip_chunks import ChipRules, route_polygons
from rasteret_beam.model import ALL_BANDS
from rasteret_beam.schema import CHIP_DEAD_LETTER_SCHEMA
from tests.support import chip_stack
from tests.support.chip_stack import LEFT, OTHER_ZONE, TOP, ZONE, Expected, Record, chip, ranked
from tests.support.pipelines import Kept, run
from tests.support.rasters import damage_tile

CLEAR = Quality("SCL", exclude=chip_stack.CLOUD, missing="fail")
TIMES = ("2022-01-22T06:00", "2022-01-30", "2021-12-01", "2022-02-20", "2022-04-01")
BANDS = ("B1", "B2")
DAMAGED = 5  # tile (1, 1) of 4 across


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Record], Collection]:
    return chip_stack.make(tmp_path_factory.mktemp("stack"))


def discs(count: int, seed: int = 3) -> gpd.GeoDataFrame:
    """Polygons of all sizes, some across the edges of records, with times."""
    random = np.random.default_rng(seed)
    at, size = random.uniform([150, 50], [1450, 1230], (count, 2)), random.uniform(3, 220, count)
    shapes = [
        shapely.Point(LEFT + east, TOP - south).buffer(radius, quad_segs=3)
        for (east, south), radius in zip(at, size, strict=True)
    ]
    days = random.choice(TIMES, count).tolist()
    return gpd.GeoDataFrame({"plot": [f"p{n}" for n in range(count)], "day": days}, geometry=shapes, crs=ZONE)


def read(collection: Collection, frame: gpd.GeoDataFrame, **how: Any) -> tuple[pa.Table, dict[str, int]]:
    kept = Kept()

    def build(pipeline: beam.Pipeline) -> None:
        chips = pipeline | ReadPolygons(frame) | ReadChips(collection, BANDS, skip_invalid=True, **how)
        chips | beam.Map(lambda batch: kept.keep([(batch,)]))

    counts = run(build)
    return pa.Table.from_batches([batch for (batch,) in kept]), counts


def expected_of(
    records: list[Record], shape: Any, band: str, in_order: list[Record], min_valid: float, most: int, **how: Any
) -> tuple[Record, Expected, int] | None:
    """The record that is taken, its chip, and how many records are looked at."""
    best, depth = None, 0
    for record in in_order:
        each = chip(record, band, shape, **how)
        if each is None:
            continue
        depth += 1
        if each.share >= min_valid:
            return record, each, depth
        best = best or (record, each)
        if depth == most:
            break
    return (*best, depth) if best else None


@pytest.mark.parametrize(
    ("match", "min_valid", "most", "how"),
    [
        pytest.param("latest", 0.8, 10, {}, marks=pytest.mark.slow),
        ("nearest", 0.8, 10, {"unscale": True}),
        pytest.param("nearest", 1.0, 2, {}, marks=pytest.mark.slow),
        ("after", 0.95, 3, {}),
    ],
)
def test_each_band_has_the_first_record_with_enough_valid_pixels(
    stack: tuple[list[Record], Collection], match: str, min_valid: float, most: int, how: dict[str, Any]
) -> None:
    records, collection = stack
    frame = discs(18)
    timed = {} if match == "latest" else {"time_column": "day"}
    rows, counts = read(
        collection,
        frame,
        match=match,
        min_valid=min_valid,
        max_candidates=most,
        quality=[CLEAR],
        **timed,
        **how,
    )
    got = {
        (row["geometry_id"], row["band"]): (row["record_id"], row["plot"], pixels, valid)
        for row, (pixels, valid) in zip(rows.to_pylist(), decode_chips(rows), strict=True)
    }
    assert len(got) == len(rows)
    further, taken = 0, set()
    for number, (shape, day) in enumerate(zip(frame.geometry, frame["day"], strict=True)):
        in_order = ranked(records, match, None if match == "latest" else day)
        for band in BANDS:
            expected = expected_of(records, shape, band, in_order, min_valid, most, rule="clouds", **how)
            if expected is None:
                assert (number, band) not in got
                continue
            record, pixels, looked_at = expected
            record_id, plot, found, valid = got.pop((number, band))
            assert (record_id, plot) == (record.id, f"p{number}")
            np.testing.assert_array_equal(found, pixels.pixels, strict=True)
            np.testing.assert_array_equal(valid, pixels.valid)
            further += looked_at - 1
            taken.add(record_id)
    assert not got and len(taken) > 2
    assert counts[metrics.CANDIDATES_WALKED] == further
    assert counts[metrics.CHIPS_ROUTED] == counts[metrics.CHIPS_OUT] == len(rows)
    assert counts[metrics.POLYGONS_IN] == counts[metrics.POLYGONS_MATCHED] + counts[metrics.POLYGONS_UNMATCHED]


def test_the_same_chips_as_arrays(stack: tuple[list[Record], Collection]) -> None:
    _, collection = stack
    frame = discs(12, seed=8)
    how = {"match": "nearest", "quality": [CLEAR], "unscale": True, "min_valid": 0.9}
    rows, _ = read(collection, frame, time_column="day", **how)
    assert len(rows) == 24
    for row, (pixels, valid) in zip(rows.to_pylist(), decode_chips(rows), strict=True):
        number = row["geometry_id"]
        arrays, masks = collection.get_numpy(
            frame.geometry[number],
            [row["band"]],
            geometry_crs=ZONE,
            times=frame["day"][number],
            skip_invalid=True,
            return_mask=True,
            **how,
        )
        np.testing.assert_array_equal(pixels, arrays[0], strict=True)
        np.testing.assert_array_equal(valid, masks[0])


def test_bands_are_decided_apart(tmp_path: Path) -> None:
    """The newest record lacks B1; the one before has all of it."""
    full = np.full((64, 64), 5, np.uint16)
    collection = made(tmp_path, {"old": (full, full), "new": (np.zeros_like(full), full)})
    box = shapely.box(LEFT + 10, TOP - 200, LEFT + 300, TOP - 10)
    frame = gpd.GeoDataFrame({"plot": ["p"]}, geometry=[box], crs=ZONE)
    rows, counts = read(collection, frame, match="latest")
    assert {(row["band"], row["record_id"]) for row in rows.to_pylist()} == {("B1", "old"), ("B2", "new")}
    assert counts[metrics.CANDIDATES_WALKED] == 1


def made(folder: Path, values: dict[str, Any], crs_of: dict[str, str] | None = None) -> Collection:
    """A record for each pair of arrays, in order of time, at the corner of the place."""
    rows = []
    for day, (name, bands) in enumerate(values.items()):
        crs = (crs_of or {}).get(name, ZONE)
        left, top = LEFT, TOP
        if crs != ZONE:
            left, top = pyproj.Transformer.from_crs(ZONE, crs, always_xy=True).transform(LEFT - 60, TOP + 60)
        paths = [folder / f"{name}_{band}.tif" for band in BANDS]
        for path, array in zip(paths, bands, strict=True):
            chip_stack.write(path, array, crs, Affine(10, 0, left, 0, -10, top), 0, (1.0, 0.0))
        assets = {band: {"href": str(path), "band_index": 0} for band, path in zip(BANDS, paths, strict=True)}
        rows.append({"id": name, "datetime": pd.Timestamp("2022-01-01") + pd.Timedelta(days=day), "assets": assets})
    return build_from_table(pa.Table.from_pylist(rows))


def test_records_in_two_zones(tmp_path: Path) -> None:
    """The newest record, in the other zone, has data in the north only."""
    random = np.random.default_rng(4)
    north = random.integers(1, 99, (90, 90)).astype(np.uint16)
    north[45:] = 0
    whole = random.integers(1, 99, (80, 80)).astype(np.uint16)
    collection = made(tmp_path, {"own": (whole, whole), "other": (north, north)}, {"other": OTHER_ZONE})
    boxes = [shapely.box(LEFT + 100, TOP - at - 60, LEFT + 160, TOP - at) for at in (100, 600)]
    frame = gpd.GeoDataFrame({"plot": ["n", "s"]}, geometry=boxes, crs=ZONE)
    rows, _ = read(collection, frame.to_crs(4326), match="latest")
    taken = {(row["plot"], row["record_id"], row["crs"]) for row in rows.to_pylist()}
    assert taken == {("n", "other", OTHER_ZONE), ("s", "own", ZONE)}
    for row, (pixels, _) in zip(rows.to_pylist(), decode_chips(rows), strict=True):
        one = collection.subset(ids=[row["record_id"]])
        shape = frame.to_crs(4326).geometry[row["geometry_id"]]
        np.testing.assert_array_equal(pixels, one.get_numpy(shape, [row["band"]], geometry_crs=4326)[0])


def test_divided_chips_are_of_one_record(stack: tuple[list[Record], Collection]) -> None:
    _, collection = stack
    frame = discs(10, seed=5)
    how = {"match": "latest", "quality": [CLEAR], "min_valid": 0.9}
    whole, _ = read(collection, frame, **how)
    cut, counts = read(collection, frame, max_chip_pixels=700, **how)
    assert counts[metrics.CHIPS_ROUTED] == counts[metrics.CHIPS_OUT] == len(cut) > len(whole)
    windows: dict[tuple[int, str, str], list[int]] = {}
    for at, row in enumerate(cut.to_pylist()):
        windows.setdefault((row["geometry_id"], row["band"], row["record_id"]), []).append(at)
    expected = {
        (row["geometry_id"], row["band"], row["record_id"]): chip_of_row
        for row, chip_of_row in zip(whole.to_pylist(), decode_chips(whole), strict=True)
    }
    assert windows.keys() == expected.keys()
    for key, (pixels, valid) in expected.items():
        found = join_windows(cut.take(windows[key]))
        np.testing.assert_array_equal(found[0], pixels)
        np.testing.assert_array_equal(found[1], valid)


def test_portions_do_not_change_the_chips(
    stack: tuple[list[Record], Collection], monkeypatch: pytest.MonkeyPatch
) -> None:
    from rasteret_beam.collection.eager import chip_places

    _, collection = stack
    frame, how = discs(20, seed=6), {"match": "latest", "quality": [CLEAR]}
    order = [(name, "ascending") for name in ("geometry_id", "band", "window_row", "window_col")]
    whole, _ = read(collection, frame, **how)
    for name, value in (("PORTION_PIXELS", 900), ("PORTION_PAIRS", 3), ("WINDOWS_TOGETHER", 2)):
        monkeypatch.setattr(chip_places, name, value)
    parts, counts = read(collection, frame, **how)
    assert parts.sort_by(order).equals(whole.sort_by(order))
    assert counts[metrics.CHIPS_ROUTED] == len(parts)


def test_routing_counts_the_chips_that_are_due(stack: tuple[list[Record], Collection]) -> None:
    """Each polygon travels once, as it came, and a group that is lost is missed."""
    _, collection = stack
    frame = discs(24)
    index = collection.index(list(BANDS), "latest").routing
    batch = ReadPolygons(frame).first_batch()
    assert batch is not None
    routed = route_polygons(index, batch, None, ChipRules(by_place=True))
    chunks = list(routed.chunks)
    sent = sorted(number for _, chunk in chunks for number in chunk["geometry_id"].to_pylist())
    due = [number for number, shape in enumerate(frame.geometry) if has_records(stack[0], shape)]
    assert sent == due and routed.chips == 2 * len(due) and routed.matched == len(due)
    assert {(key.record_id, key.bandset) for key, _ in chunks} == {("", ALL_BANDS)}
    assert all(chunk.schema.equals(batch.schema, check_metadata=True) for _, chunk in chunks)


def has_records(records: list[Record], shape: Any) -> bool:
    return any(chip(record, "B1", shape) is not None for record in records)


def test_no_file_of_a_further_record_is_read(tmp_path: Path) -> None:
    records, collection = chip_stack.make(tmp_path)
    frame = discs(1)
    frame.geometry = [shapely.Point(LEFT + 800, TOP - 600).buffer(60)]
    first = next(record for record in ranked(records, "latest") if record.id != "R7")
    for record in records:
        if record is not first:
            record.files["B1"].unlink()
            record.files["B2"].unlink()
    collection = collection.subset(ids=[record.id for record in records if record.id != "R7"])
    rows, counts = read(collection, frame, match="latest")
    assert rows["record_id"].to_pylist() == [first.id] * 2
    assert metrics.CANDIDATES_WALKED not in counts or counts[metrics.CANDIDATES_WALKED] == 0


# Tiles that cannot be read


@pytest.fixture
def damaged(tmp_path: Path) -> tuple[list[Record], Path, Collection, Collection]:
    """Two equal stacks; in the second, tile (1, 1) is damaged of SCL of R5 (the second newest) and of B1 of R4."""
    for name in ("good", "bad"):
        (tmp_path / name).mkdir()
    _, good = chip_stack.make(tmp_path / "good")
    records, bad = chip_stack.make(tmp_path / "bad")
    damage_tile(records[5].files["SCL"], 3)
    damage_tile(records[4].files["B1"], DAMAGED)
    return records, tmp_path, good, bad


def test_a_record_that_cannot_be_read_is_taken_and_tried_again(
    damaged: tuple[list[Record], Path, Collection, Collection],
) -> None:
    records, folder, good, bad = damaged
    frame = discs(24)
    how = {"match": "latest", "quality": [CLEAR], "max_chip_pixels": 700}

    def build(pipeline: beam.Pipeline) -> None:
        polygons = pipeline | ReadPolygons(frame)
        found = polygons | ReadChips(bad, BANDS, skip_invalid=True, on_error="dead_letter", **how)
        found.chips | "Chips" >> WriteChipsToParquet(str(folder / "chips"))
        letters = WriteChipsToParquet(str(folder / "letters"), schema=CHIP_DEAD_LETTER_SCHEMA)
        found.dead_letters | "Letters" >> letters

    counts = run(build)
    rows = pq.read_table(folder / "chips-00000-of-00001.parquet")
    letters = pq.read_table(folder / "letters-00000-of-00001.parquet")
    lost = sum(map(len, letters["geometry_ids"].to_pylist()))
    assert counts[metrics.CHIPS_ROUTED] == len(rows) + lost and lost == counts[metrics.CHIPS_DEAD_LETTERED]
    assert set(zip(letters["record_id"].to_pylist(), letters["band"].to_pylist(), strict=True)) == {
        ("R5", "B1"),
        ("R5", "B2"),
        ("R4", "B1"),
    }
    again = Kept()

    def retry(pipeline: beam.Pipeline) -> None:
        chips = pipeline | ReadChipDeadLetters(good, f"{folder}/letters-*.parquet")
        chips | beam.Map(lambda batch: again.keep([(batch,)]))

    counts = run(retry)
    others = pa.Table.from_batches([batch for (batch,) in again])
    assert counts[metrics.CHIPS_ROUTED] == len(others) == lost
    by_chip: dict[tuple[int, str], set[str]] = {}
    for row in [*rows.to_pylist(), *others.to_pylist()]:
        by_chip.setdefault((row["geometry_id"], row["band"]), set()).add(row["record_id"])
    assert {len(record_ids) for record_ids in by_chip.values()} == {1}
    overlapping = [number for number, shape in enumerate(frame.geometry) if has_records(records, shape)]
    assert by_chip.keys() == {(number, band) for number in overlapping for band in BANDS}
    every = Kept()

    def plain(pipeline: beam.Pipeline) -> None:
        options = {**how, "match": "all"}
        chips = pipeline | ReadPolygons(frame) | ReadChips(good.subset(ids=["R4", "R5"]), BANDS, **options)
        chips | beam.Map(lambda batch: every.keep([(batch,)]))

    run(plain)
    key = ("geometry_id", "record_id", "band", "window_row", "window_col")
    whole = {tuple(row[name] for name in key): row for (batch,) in every for row in batch.to_pylist()}
    for row in others.to_pylist():
        assert row == whole[tuple(row[name] for name in key)]


def test_without_dead_letters_the_job_fails(damaged: tuple[list[Record], Path, Collection, Collection]) -> None:
    with pytest.raises(Exception, match=r"record 'R5', band SCL: .*tile \(1, 1\)"):
        read(damaged[3], discs(40), match="latest", quality=[CLEAR])


def test_records_without_a_quality_band_are_refused_when_the_pipeline_is_built(
    stack: tuple[list[Record], Collection],
) -> None:
    polygons = beam.Pipeline() | ReadPolygons(discs(2))
    for rule, message in (
        ("SCL not in 8,9", r"quality band SCL is not in 1 of the 8 records to read, .* 'R7'; set missing="),
        ("CLD <= 40", r"lacks band\(s\) CLD"),
    ):
        with pytest.raises(InputError, match=message):
            polygons | rule >> ReadChips(stack[1], BANDS, match="latest", quality=rule)


def test_options_that_do_not_go_together(stack: tuple[list[Record], Collection]) -> None:
    for how, message in (
        ({}, "skip_invalid is True, but match is 'all'"),
        ({"match": "latest", "min_valid": 1.5}, "min_valid is 1.5"),
        ({"match": "latest", "max_candidates": 0}, "max_candidates is 0"),
        ({"match": "nearest", "time_column": "day", "limit": 2}, "limit is 2: one record is taken"),
    ):
        with pytest.raises(InputError, match=message):
            ReadChips(stack[1], BANDS, skip_invalid=True, **how)
