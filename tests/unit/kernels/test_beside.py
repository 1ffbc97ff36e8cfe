"""Records beside others, against brute force: every pixel around a grid looked for on the grid of every record."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from rasteret_beam.kernels.geo.grids import GridTable
from rasteret_beam.kernels.routing.beside import Beside, shares
from rasteret_beam.kernels.routing.index import FEW_GRIDS, build_index
from rasteret_beam.kernels.routing.layers import NO_DATETIME, Layers
from rasteret_beam.model import Grid, MatchRules
from tests.support.properties import examples

MINUTE = 60_000_000
TEN_METRES = Affine.scale(10, -10)
UTM, LONLAT, CRS84 = "EPSG:32631", "EPSG:4326", "OGC:CRS84"


class Record(NamedTuple):
    """A record with a band "A", "B", or both, on one grid."""

    grid: Grid
    moment: int | None = None
    bands: str = "A"


def grid_at(
    row: float, col: float, height: int = 6, width: int = 6, *, base: Affine = TEN_METRES, crs: str = UTM
) -> Grid:
    """A grid whose first pixel lies at a row and column of a lattice."""
    return Grid(crs, tuple(base * Affine.translation(col, row))[:6], width, height, 4, 4)  # type: ignore[arg-type]


def beside(records: Sequence[Record], tolerance: int = MINUTE) -> Beside:
    sets = list(dict.fromkeys(record.bands for record in records))
    numbers = np.arange(len(records))
    index = build_index(
        [f"r{number}" for number in numbers],
        np.array([NO_DATETIME if record.moment is None else record.moment for record in records], dtype=np.int64),
        GridTable.from_grids([record.grid for record in records]),
        [record.grid.crs for record in records],
        Layers(numbers, numbers, np.array([sets.index(record.bands) for record in records]), [tuple(s) for s in sets]),
        MatchRules(overlap_tolerance=tolerance),
    )
    return Beside(index)


def around(grid: Grid, reach: int) -> tuple[np.ndarray, np.ndarray]:
    """All pixels around a grid, so many on each side."""
    row, col = np.mgrid[-reach : grid.height + reach, -reach : grid.width + reach]
    outside = (row < 0) | (row >= grid.height) | (col < 0) | (col >= grid.width)
    return row[outside], col[outside]


def given_by(found: Beside, record: int, grid: Grid, reach: int, band: str = "A") -> dict[tuple[int, int], Any]:
    """What gives each pixel around a grid: the record, and the row and column on its grid."""
    row, col = around(grid, reach)
    given: dict[tuple[int, int], Any] = {}
    for of, at in shares(found.neighbours(record, band, reach), row, col):
        for r, c in zip(row[at].tolist(), col[at].tolist(), strict=True):
            assert (r, c) not in given
            given[r, c] = of.record, r - of.row, c - of.col
    return given


def expected(records: Sequence[Record], number: int, reach: int, tolerance: int = MINUTE) -> dict[tuple[int, int], Any]:
    """The same, pixel by pixel and record by record; pixels of no record are left out."""
    own = records[number]

    def apart(other: Record) -> float:
        if own.moment is None or other.moment is None:
            return 0 if own.moment == other.moment else math.inf
        return abs(other.moment - own.moment)

    def lattice(other: Grid) -> tuple[int, int] | None:
        """Row and column of its first pixel, if pixels are whole numbers of pixels apart."""
        step = ~Affine(*own.grid.transform) * Affine(*other.transform)
        row, col = round(step.f), round(step.c)
        exact = np.abs(np.array(step[:6]) - (1, 0, col, 0, 1, row)).max() < 1e-6
        return (row, col) if exact and other.crs == own.grid.crs else None

    suits = [n for n, each in enumerate(records) if apart(each) <= tolerance and "A" in each.bands and n != number]
    suits.sort(key=lambda n: (apart(records[n]), n))
    places = [(n, place, records[n].grid) for n in suits if (place := lattice(records[n].grid)) is not None]
    given = {}
    for row, col in zip(*(part.tolist() for part in around(own.grid, reach)), strict=True):
        for other, (top, left), grid in places:
            if 0 <= row - top < grid.height and 0 <= col - left < grid.width:
                given[row, col] = other, row - top, col - left
                break
    return given


@st.composite
def mosaics(draw: st.DrawFn) -> list[Record]:
    base = draw(st.sampled_from([Affine.scale(10, -10), Affine.scale(0.1, 0.1), Affine(16, 8, 4096, 8, -16, 4096)]))
    records = []
    for _ in range(draw(st.integers(2, 2 * FEW_GRIDS))):
        part = draw(st.sampled_from([0, 0, 0, 1e-9, 1e-3, 0.5]))
        size = draw(st.integers(1, 8)), draw(st.integers(1, 8))
        lattice = base * Affine.scale(2) if draw(st.integers(0, 9)) == 0 else base
        place = (draw(st.integers(-9, 9)) + part, draw(st.integers(-9, 9)) + part)
        grid = grid_at(*place, *size, base=lattice, crs=draw(st.sampled_from([UTM, UTM, UTM, "EPSG:32632"])))
        moment = draw(st.sampled_from([None, 0, 5 * 10**7, 9 * 10**7, MINUTE]))
        records.append(Record(grid, moment, draw(st.sampled_from(["A", "A", "AB", "B"]))))
    return records


@settings(max_examples=examples(120), deadline=None, derandomize=True)
@given(records=mosaics(), reach=st.integers(1, 5))
def test_each_pixel_around_a_grid_is_of_the_first_record_that_holds_it(records: list[Record], reach: int) -> None:
    found = beside(records)
    for number, record in enumerate(records):
        if "A" in record.bands:
            assert given_by(found, number, record.grid, reach) == expected(records, number, reach)


@pytest.mark.parametrize(
    ("shift", "mixed"), [(0.0, True), (1e-9, True), (9e-7, True), (2e-6, False), (1e-3, False), (0.5, False)]
)
def test_grids_are_aligned_to_a_millionth_of_a_pixel(shift: float, mixed: bool) -> None:
    base = Affine(1 / 3600, 0, 7.0, 0, -1 / 3600, 51.0)
    records = [Record(grid_at(0, 0, base=base, crs=LONLAT)), Record(grid_at(shift, 6, base=base, crs=LONLAT))]
    found = given_by(beside(records), 0, records[0].grid, 1)
    assert found == ({(row, 6): (1, row, 0) for row in range(6)} if mixed else {})


def test_pixel_sizes_agree_over_the_whole_of_the_grid_beside() -> None:
    def of_size(factor: float) -> list[Record]:
        large = Affine(10 * factor, 0, 60, 0, -10 * factor, 0)
        return [Record(grid_at(0, 0)), Record(Grid(UTM, tuple(large)[:6], 5000, 5000, 512, 512))]  # type: ignore[arg-type]

    for factor, count in ((1.0, 7), (1 + 1e-11, 7), (1 + 1e-9, 0), (2.0, 0)):
        records = of_size(factor)
        assert len(given_by(beside(records), 0, records[0].grid, 1)) == count


def test_records_of_one_moment_and_the_nearest_in_time_first() -> None:
    first, east = grid_at(0, 0), grid_at(0, 6)
    moments = [0, MINUTE + 1, None, -MINUTE, 20, 20]
    found = beside([Record(first, 0), *(Record(east, moment) for moment in moments[1:])])
    assert [each.record for each in found.neighbours(0, "A", 2)] == [4, 5, 3]
    at_once = beside([Record(first, 0), *(Record(east, moment) for moment in moments[1:])], tolerance=0)
    assert at_once.neighbours(0, "A", 2) == ()


def test_a_grid_that_goes_around_the_earth_is_beside_itself() -> None:
    turn = Affine(1, 0, 0, 0, -1, 90)
    for left in (0, -180, -179.5):
        grid = Grid(LONLAT, (1, 0, left, 0, -1, 90), 360, 180, 64, 64)
        found = given_by(beside([Record(grid)]), 0, grid, 2)
        assert found[5, -1] == (0, 5, 359) and found[179, 361] == (0, 179, 1)
        assert len(found) == 180 * 4
    almost = Grid(LONLAT, tuple(turn)[:6], 359, 180, 64, 64)  # type: ignore[arg-type]
    assert given_by(beside([Record(almost)]), 0, almost, 2) == {
        (r, c): (0, r, c % 360) for r in range(180) for c in (-2, 360)
    }
    odd = Grid(LONLAT, (0.7, 0, 0, 0, -0.7, 90), 515, 200, 64, 64)  # 360 degrees are no whole number of pixels
    assert given_by(beside([Record(odd)]), 0, odd, 2) == {}
    projected = Grid(UTM, (1, 0, 0, 0, -1, 90), 360, 180, 64, 64)
    assert given_by(beside([Record(projected)]), 0, projected, 2) == {}


def test_tiles_on_both_sides_of_the_antimeridian_and_crs84() -> None:
    base = Affine(0.25, 0, 0, 0, -0.25, 0)
    records = [
        Record(grid_at(0, 716, 4, 4, base=base, crs=LONLAT)),
        Record(grid_at(0, -720, 4, 4, base=base, crs=CRS84)),
    ]
    found = beside(records)
    assert given_by(found, 0, records[0].grid, 1) == {(row, 4): (1, row, 0) for row in range(4)}
    assert given_by(found, 1, records[1].grid, 1) == {(row, -1): (0, row, 3) for row in range(4)}


def test_a_band_decides_for_itself() -> None:
    records = [Record(grid_at(0, 0), None, "AB"), Record(grid_at(0, 6), None, "A"), Record(grid_at(6, 0), None, "AB")]
    found = beside(records)
    assert [each.record for each in found.neighbours(0, "A", 1)] == [1, 2]
    assert [each.record for each in found.neighbours(0, "B", 1)] == [2]
