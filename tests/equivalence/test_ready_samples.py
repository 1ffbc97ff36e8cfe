"""Samples that are ready to use, against brute force: matched, clear, in physical units, and a row for every point."""

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasteret_beam import Collection, Quality, build_from_table
from tests.support import stack
from tests.support.oracle import Answer, Record, expected, points_of, read_records, wide
from tests.support.properties import examples
from tests.support.random_stacks import random_points, write_random_stack
from tests.support.ready import (
    EXTRA,
    LONG,
    RULES,
    as_keywords,
    oracle_rows,
    ready_options,
    table_rows,
    wide_columns,
)

QUICK = settings(deadline=None, derandomize=True, max_examples=examples(400, share=16))
UTM = {"x_column": "x", "y_column": "y", "geometry_crs": 32631}
SEEDS = st.integers(0, 9)


@dataclass(frozen=True, repr=False)
class Made:
    """A stack: its collection, and its records as the oracle reads them."""

    collection: Collection
    records: list[Record]

    @classmethod
    def of(cls, table: pa.Table) -> "Made":
        return cls(build_from_table(table, name="stack"), read_records(table))

    def answer(self, points: pa.Table, bands: list[str], options: Mapping[str, Any]) -> Answer:
        return expected(self.records, points_of(points, "x", "y", "EPSG:32631", "when"), bands, options)


@pytest.fixture(scope="module")
def stacks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[bool, list[Made]]]:
    """Random stacks: those whose records all have the quality bands, and others."""
    logging.disable(logging.WARNING)  # of scales that differ in the table and the file
    folder = tmp_path_factory.mktemp("stacks")
    yield {
        complete: [
            Made.of(write_random_stack(folder / f"{complete}_{seed}", seed, complete=complete)) for seed in range(5)
        ]
        for complete in (True, False)
    }
    logging.disable(logging.NOTSET)


bands_in_any_order = st.permutations("ABF").flatmap(lambda bands: st.integers(1, 3).map(lambda count: bands[:count]))


@QUICK
@given(st.data(), st.booleans(), SEEDS, bands_in_any_order)
def test_long_rows(
    stacks: dict[bool, list[Made]], data: st.DataObject, complete: bool, seed: int, bands: list[str]
) -> None:
    options = data.draw(ready_options(complete=complete, bands=bands))
    made, points = stacks[complete][seed % 5], random_points(seed)
    wanted = made.answer(points, bands, options)
    found, left = made.collection.sample_points(
        points, bands, **UTM, **as_keywords(options), extra_columns=EXTRA, return_unsampled=True
    )
    columns = [*LONG, *options.get("statistics", ())]
    assert table_rows(found, columns) == oracle_rows(wanted.rows, columns)
    assert reasons(left) == wanted.unsampled


@QUICK
@given(st.data(), st.booleans(), SEEDS, bands_in_any_order, st.sampled_from(["values", "columns"]))
def test_wide_rows(
    stacks: dict[bool, list[Made]], data: st.DataObject, complete: bool, seed: int, bands: list[str], layout: str
) -> None:
    """They are the long ones, pivoted."""
    options = data.draw(ready_options(complete=complete, bands=bands))
    made, points = stacks[complete][seed % 5], random_points(seed)
    wanted = made.answer(points, bands, options)
    found, left = made.collection.sample_points(
        points,
        bands,
        **UTM,
        **as_keywords(options),
        layout=layout,
        extra_columns=wide_columns(bands),
        return_unsampled=True,
    )
    names = options.get("statistics", [])
    values = (
        ["values", *names] if layout == "values" else [*bands, *(f"{band}_{name}" for band in bands for name in names)]
    )
    columns = ["point_index", "record_id", "datetime", *values, "raster_crs", *wide_columns(bands)]
    assert table_rows(found, columns) == oracle_rows(wide(wanted, bands, options), columns)
    assert reasons(left) == wanted.unsampled


def reasons(unsampled: pa.Table) -> dict[int, str]:
    return dict(zip(unsampled["point_index"].to_pylist(), unsampled["reason"].to_pylist(), strict=True))


def test_the_oracle_sees_every_kind_of_sample(stacks: dict[bool, list[Made]]) -> None:
    """So that the tests above compare all of them."""
    seen: dict[str, set[Any]] = {"status": set(), "candidate": set(), "reason": set()}
    for seed in range(5):
        for match in ("nearest", "before"):
            options = {"match": match, "skip_invalid": True, "max_distance_pixels": 1, "quality": [RULES["keep"]]}
            for invalid in ("keep", "drop"):
                answer = stacks[True][seed].answer(random_points(seed), ["A", "B"], options | {"invalid": invalid})
                seen["status"] |= {row["status"] for row in answer.rows}
                seen["candidate"] |= {row["candidate"] for row in answer.rows}
                seen["reason"] |= set(answer.unsampled.values())
    assert seen["status"] == {"valid", "nodata", "masked", "filled"} and seen["candidate"] >= {0, 1, 2}
    assert seen["reason"] == {"null", "no_time", "no_record", "out_of_tolerance", "invalid"}


@pytest.mark.parametrize("join", ["inner", "left"])
@pytest.mark.parametrize("match", ["latest", "nearest", "before", "after"])
def test_a_row_for_each_point_and_band(stacks: dict[bool, list[Made]], match: str, join: str) -> None:
    """With ``join="left"`` there are exactly points x bands rows, in a wide layout a row for each point."""
    points, made = random_points(3, 200), stacks[True][1]
    rule = Quality("Q", keep=[1, 2, 4])
    options = {"match": match, "time_column": "when", "quality": [rule], "invalid": "drop", "join": join}
    long, left = made.collection.sample_points(points, ["A", "B"], **UTM, **options, return_unsampled=True)
    wide_ = made.collection.sample_points(points, ["A", "B"], **UTM, **options, layout="columns")
    pairs = list(zip(long["point_index"].to_pylist(), long["band"].to_pylist(), strict=True))
    assert len(set(pairs)) == len(pairs) and 0 < len(left) < 200
    assert len(pairs) == 400 if join == "left" else len(pairs) < 400
    assert wide_.num_rows == (200 if join == "left" else 200 - len(left))
    assert {"invalid", "null"} < set(left["reason"].to_pylist())


# The stack like Sentinel-2's

RULE = {"band": "SCL", "exclude": [0, 1, 3, 8, 9, 10]}
CLEAR = {"match": "nearest", "time_column": "surveyed", "tolerance": "10D", "skip_invalid": True, "unscale": True}
LONLAT = {"x_column": "lon", "y_column": "lat", "geometry_crs": 4326}


@pytest.fixture(scope="module")
def sentinel(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made.of(stack.write_stack(tmp_path_factory.mktemp("sentinel")))


@pytest.fixture(scope="module")
def clear(sentinel: Made) -> pa.Table:
    """Clear reflectance of all plots, long."""
    return sentinel.collection.sample_points(
        stack.plots(), ["B04", "B08", "B11"], **LONLAT, **CLEAR, quality=["preset:sentinel-2-l2a"], extra_columns=EXTRA
    )


@pytest.mark.slow
def test_clear_reflectance_as_brute_force_has_it(sentinel: Made, clear: pa.Table) -> None:
    points = points_of(stack.plots(), "lon", "lat", "EPSG:4326", "surveyed")
    options = {"match": "nearest", "tolerance": timedelta(days=10), "skip_invalid": True, "unscale": True}
    wanted = expected(sentinel.records, points, ["B04", "B08", "B11"], options | {"quality": [RULE]})
    assert table_rows(clear, LONG) == oracle_rows(wanted.rows, LONG)
    assert set(clear["candidate"].to_pylist()) >= {0, 1, 2}


@pytest.mark.slow
def test_reflectance_is_that_of_the_ground(clear: pa.Table) -> None:
    """On both sides of the change of the offset, and in both zones: to half a step of what is stored."""
    checked: dict[float, int] = {}
    for row in clear.to_pylist():
        if row["status"] != "valid":
            assert row["value"] is None
            continue
        x, y = row["pixel_x"], row["pixel_y"]
        if row["raster_crs"] != 32631:
            x, y = stack.projector(f"EPSG:{row['raster_crs']}", stack.ZONE).transform(x, y)
        ground = stack.reflectance(row["band"], np.array(x), np.array(y), row["datetime"])
        assert abs(row["value"] - float(ground)) <= 0.50001 * stack.SCALE, row
        checked[row["offset"]] = checked.get(row["offset"], 0) + 1
    assert set(checked) == {0.0, stack.OFFSET} and min(checked.values()) > 300
