"""Summaries of tables: counts, moments, quantiles, histograms and cells against NumPy, in any order and division."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasteret_beam.errors import InputError
from rasteret_beam.kernels.summary import point_sets, stored
from rasteret_beam.kernels.summary.cells import Cells, morton, places_of
from rasteret_beam.kernels.summary.dates import Dates
from rasteret_beam.kernels.summary.feeding import SMALL_ROWS, SampleFeed
from rasteret_beam.kernels.summary.point_sets import PAGE, PointSet
from rasteret_beam.kernels.summary.rows import Series, constant_text, shape_of
from rasteret_beam.kernels.summary.stored import from_bytes, to_bytes
from rasteret_beam.kernels.summary.summary import KEYS_OF_ALL, Summary
from rasteret_beam.kernels.summary.tally import Tally, level_of
from rasteret_beam.kernels.summary.values import Values, keys_of, values_of

PARTS = [0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0]
KINDS = {
    "bytes": lambda rng, n: rng.integers(-128, 127, n).astype(np.int8),
    "whole numbers as floats": lambda rng, n: np.round(rng.normal(1000, 300, n)),
    "many whole numbers": lambda rng, n: rng.integers(0, 60_000, n).astype(np.uint16),
    "around zero": lambda rng, n: rng.normal(0.1, 0.2, n),
    "many magnitudes": lambda rng, n: rng.lognormal(0, 8, n) * rng.choice([-1, 1], n),
    "float32": lambda rng, n: rng.normal(0, 1, n).astype(np.float32),
    "one value": lambda rng, n: np.full(n, 7.25),
    "extremes": lambda rng, n: rng.choice([-1.7e308, 1.7e308, 5e-324, 0.0, -0.0], n),
    "wide integers": lambda rng, n: rng.integers(-(2**62), 2**62, n),
}


def summed_up(values: np.ndarray, pieces: int) -> Values:
    found = Values()
    for part in np.array_split(values, pieces):
        found.add(part)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_values_against_numpy(kind: str) -> None:
    values = KINDS[kind](np.random.default_rng(1), 30_000)
    found, numbers = summed_up(values, 7), values.astype(np.float64)
    exact = np.quantile(numbers, PARTS, method="inverted_cdf")
    np.testing.assert_allclose(found.quantiles(PARTS), exact, rtol=found.relative_error, atol=0)
    assert found.count == len(values)
    assert (found.low, found.high) == (numbers.min(), numbers.max())
    if kind != "extremes":  # whose squares are beyond float64
        assert found.mean == pytest.approx(numbers.mean(), rel=1e-9, abs=1e-12 * np.abs(numbers).max())
        assert found.std == pytest.approx(numbers.std(), rel=1e-9, abs=1e-12)
    assert found.is_exact == (len(np.unique(numbers)) <= 4096)
    assert len(found.tally.keys) <= 4096
    assert found.tally.sums.sum() == len(values)


@pytest.mark.parametrize("kind", KINDS)
def test_order_and_division_make_no_difference(kind: str) -> None:
    """Also where parts are merged in another order, and as bytes: merging is associative and commutative."""
    rng = np.random.default_rng(2)
    values = KINDS[kind](rng, 20_000)
    one = summed_up(values, 1)
    parts = [summed_up(part, 2) for part in np.array_split(rng.permutation(values), 5)]
    left, right = Values(), Values()
    for part in parts:
        left.merge(part)
    inner = Values()
    for part in parts[2:]:
        inner.merge(part)
    for part in (inner, parts[1], parts[0]):
        right.merge(part)
    for other in (left, right):
        assert other.tally.level == one.tally.level
        np.testing.assert_array_equal(other.tally.keys, one.tally.keys)
        np.testing.assert_array_equal(other.tally.sums, one.tally.sums)
        assert (other.count, other.low, other.high) == (one.count, one.low, one.high)


def test_histogram_against_numpy() -> None:
    rng = np.random.default_rng(3)
    whole, real = rng.integers(0, 200, 9_000), rng.normal(5, 2, 50_000)
    edges = np.arange(-0.5, 200.5, 4)
    np.testing.assert_array_equal(summed_up(whole, 3).histogram(edges), np.histogram(whole, edges)[0])
    edges = np.linspace(real.min(), real.max(), 41)
    found = summed_up(real, 3).histogram(edges)
    assert found.sum() == pytest.approx(len(real))
    assert np.abs(found - np.histogram(real, edges)[0]).max() < 0.002 * len(real)
    assert Values().histogram(edges).tolist() == [0.0] * 40
    assert np.isnan(Values().quantiles([0.5])).all()


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=50))
def test_keys_keep_the_order(values: list[float]) -> None:
    array = np.array(values)
    keys = keys_of(array)
    np.testing.assert_array_equal(np.argsort(keys, kind="stable"), np.argsort(array, kind="stable"))
    np.testing.assert_array_equal(values_of(keys), array)


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=60, unique=True), st.integers(1, 60))
def test_level_is_the_finest_within_the_limit(keys: list[int], limit: int) -> None:
    ordered = np.array(sorted(keys), dtype=np.int64)
    level = level_of(ordered, limit)
    if level < 63:
        assert len(np.unique(ordered >> level)) <= limit
    assert level == 0 or len(np.unique(ordered >> (level - 1))) > limit


def test_tally_adds_up_repeated_keys() -> None:
    tally = Tally(1, limit=4)
    for keys in ([1, 1, 5], [2, 5], [100]):
        tally.add(np.array(keys), np.ones((len(keys), 1)), 0)
    assert dict(zip(tally.keys.tolist(), tally.sums[:, 0].tolist(), strict=True)) == {1: 2, 2: 1, 5: 2, 100: 1}
    tally.add(np.array([101]), np.ones((1, 1)), 0)
    assert (tally.level, tally.keys.tolist(), tally.sums.sum()) == (1, [0, 1, 2, 50], 7)


# Cells


@given(st.lists(st.tuples(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1)), min_size=1, max_size=40))
def test_morton_codes_and_back(places: list[tuple[int, int]]) -> None:
    col, row = np.array(places).T
    back = places_of(morton(col, row))
    np.testing.assert_array_equal(np.stack(back), np.stack([col, row]))


@pytest.mark.parametrize("scale", [1e-4, 0.1, 1.0, 60.0, 1e4, 1e7, 1e14])
def test_cells_against_points(scale: float) -> None:
    """Each point is in a cell of the grid, and has the sums of its cell."""
    rng = np.random.default_rng(4)
    x, y = rng.normal(0.3, 1, (2, 20_000)) * scale
    weight = rng.normal(0, 1, len(x))
    found, merged = Cells(1), Cells(1)
    found.add(x, y, [weight])
    for part in np.array_split(rng.permutation(len(x)), 6):
        other = Cells(1)
        other.add(x[part], y[part], [weight[part]])
        merged.merge(other)
    np.testing.assert_array_equal(merged.tally.keys, found.tally.keys)
    np.testing.assert_allclose(merged.tally.sums, found.tally.sums, atol=1e-9)
    assert found.counts.sum() == len(x)
    assert len(found.counts) <= found.limit
    if scale < 1e12:  # beyond 2**40, everything is in the outermost cells
        (wide, tall), (lon, lat) = found.size, found.centres()
        assert tall in (wide, 2 * wide)
        assert len(found.counts) > 600
        cell = dict(
            zip(zip((lon // wide).tolist(), (lat // tall).tolist(), strict=True), found.sums[:, 0], strict=True)
        )
        expected: Counter[tuple[float, float]] = Counter()
        for place, each in zip(zip((x // wide).tolist(), (y // tall).tolist(), strict=True), weight, strict=True):
            expected[place] += each
        assert expected.keys() == cell.keys()
        np.testing.assert_allclose([cell[place] for place in expected], list(expected.values()), atol=1e-9)


def test_few_points_have_cells_of_their_size() -> None:
    cells = Cells()
    cells.add(np.array([179.99999, -179.99999, 12.5]), np.array([0.0, -89.9, 45.25]))
    np.testing.assert_allclose(np.sort(cells.centres()[0]), [-179.99999, 12.5, 179.99999], atol=2e-6)


# Dates and points


def test_dates_by_day_month_and_year() -> None:
    days = np.arange("1990-01-01", "2002-12-31", dtype="M8[D]")
    few, many = Dates(), Dates()
    few.add(days[:4000].astype("M8[us]").astype(np.int64))
    assert (few.unit, few.sorted()[1].sum()) == ("D", 4000)
    for part in np.array_split(days, 9):
        other = Dates()
        other.add(np.repeat(part, 2).astype("M8[us]").astype(np.int64))
        many.merge(other)
    dates, counts = many.sorted()
    expected, times = np.unique(days.astype("M8[M]"), return_counts=True)
    np.testing.assert_array_equal(dates, expected)
    np.testing.assert_array_equal(counts, 2 * times)
    before = Dates()
    before.add(np.array([-1]))  # a microsecond before 1970
    assert before.sorted()[0].astype(str).tolist() == ["1969-12-31"]


@given(st.lists(st.integers(-(2**40), 2**40), max_size=60), st.lists(st.integers(0, 100), max_size=60))
def test_point_sets(some: list[int], others: list[int]) -> None:
    one, other = PointSet(), PointSet()
    one.add(np.array(some, dtype=np.int64))
    one.add(np.array(others[:10], dtype=np.int64))
    other.add(np.array(others, dtype=np.int64))
    have, lack = {*some, *others[:10]}, {*others}
    assert (len(one), len(other)) == (len(have), len(lack))
    assert one.only_here(other) == len(have - lack)


def test_sparse_numbers_take_no_page_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(point_sets, "MOST_PAGES", 40)
    numbers = np.random.default_rng(5).integers(0, 2**62, 300)
    found = PointSet()
    found.add(numbers[:200])
    found.add(numbers)
    assert len(found) == 300
    assert len(found.pages) == 40
    assert sum(page.nbytes for page in found.pages.values()) == 40 * PAGE // 8


# Tables


def long_rows(n: int = 5000, bands: tuple[str, ...] = ("B1", "B2"), seed: int = 6) -> pa.Table:
    """Rows of the sample table, some null, NaN or nodata (0)."""
    rng = np.random.default_rng(seed)
    value = np.round(rng.normal(50, 20, n))
    value[rng.random(n) < 0.1] = 0
    value[rng.random(n) < 0.05] = np.nan
    value[rng.random(n) < 0.01] = np.inf
    return pa.table(
        {
            "point_index": rng.integers(0, n, n),
            "point_x": rng.uniform(5, 6, n),
            "point_y": rng.uniform(45, 46, n),
            "point_crs": pa.array(np.where(rng.random(n) < 0.5, 4326, 4258), pa.int32()),
            "record_id": rng.choice(["r1", "r2"], n),
            "datetime": pa.array(rng.choice([None, *range(20)], n).tolist(), pa.int64())
            .cast(pa.timestamp("s"))
            .cast(pa.timestamp("us")),
            "collection": ["c"] * n,
            "band": rng.choice(bands, n),
            "value": pa.array(value, mask=rng.random(n) < 0.03),
            "raster_crs": pa.array([32631] * n, pa.int32()),
        }
    )


def summary_of(table: pa.Table, rows: int, **settings: object) -> Summary:
    found = Summary(sampled=PointSet(), others=PointSet(), **settings)  # type: ignore[arg-type]
    feed = SampleFeed(found)
    for batch in table.to_batches(max_chunksize=rows):
        feed.add(batch)
    feed.close()
    return found


@pytest.mark.parametrize("rows", [7, SMALL_ROWS, 5000])
@pytest.mark.parametrize("encoded", [False, True])
def test_long_tables(rows: int, encoded: bool) -> None:
    """Against pandas, in batches of any size."""
    table = long_rows()
    frame = table.to_pandas()
    if encoded:
        table = table.set_column(7, "band", table["band"].dictionary_encode())
    found = summary_of(table, rows, nodata={"B1": [0.0]})
    assert (found.rows, len(found.sampled or ())) == (5000, frame["point_index"].nunique())
    assert found.dates.without == frame["datetime"].isna().sum()
    for band, of_band in frame.groupby("band"):
        is_null = np.array(
            [each is None for each in table.filter(pa.array(frame["band"] == band))["value"].to_pylist()]
        )
        finite = np.isfinite(of_band["value"].to_numpy()) & ~is_null
        nodata = finite & (of_band["value"].to_numpy() == 0) & (band == "B1")
        good = of_band["value"][finite & ~nodata]
        values, kinds = found.values[Series(str(band))], found.kinds[str(band)]
        assert kinds["value"] == values.count == len(good)
        assert (kinds["nodata"], kinds["null"]) == (nodata.sum(), is_null.sum())
        assert sum(kinds.values()) == len(of_band)
        assert (values.mean, values.std) == pytest.approx((good.mean(), good.std(ddof=0)))
        assert sum(cells.sums[:, 0].sum() for (_, of), cells in found.cells.items() if of == band) == len(good)
    assert {crs for crs, _ in found.cells} == {4326, 4258}


def test_stored_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    table = long_rows()
    one, other = summary_of(table.slice(0, 2000), 500), summary_of(table.slice(2000), 700)
    for each in (one, other):
        each.reasons.update({"no_record": 3})
        each.points_in = 9
    data = to_bytes(one)
    again = from_bytes(data)
    again.merge(from_bytes(to_bytes(other)))
    whole = summary_of(table, 5000)
    assert (again.rows, again.points_in, again.reasons) == (5000, 18, {"no_record": 6})
    assert again.kinds == whole.kinds
    assert again.dates == whole.dates
    for name, tally in whole.tallies().items():
        np.testing.assert_array_equal(again.tallies()[name].keys, tally.keys)
    monkeypatch.setattr(stored, "VERSION", 99)
    with pytest.raises(InputError, match="version 1, but this release reads version 99"):
        from_bytes(data)


def test_many_bands_share_the_sketches() -> None:
    rng = np.random.default_rng(8)
    found = Summary()
    names = [f"e{number}" for number in range(300)]
    columns = {name: rng.normal(0, 1, 3000) for name in names}
    table = long_rows(3000).select(range(7)).to_pydict() | columns | {"raster_crs": [1] * 3000}
    feed = SampleFeed(found)
    for batch in pa.table(table).to_batches():
        feed.add(batch)
    feed.close()
    assert len(found.values) == 300
    assert sum(len(each.tally.keys) for each in found.values.values()) <= KEYS_OF_ALL
    assert len(to_bytes(found)) < 6 << 20
    for name in names[:3]:
        of_band = found.values[Series(name)]
        exact = np.quantile(columns[name], [0.25, 0.75], method="inverted_cdf")
        np.testing.assert_allclose(of_band.quantiles([0.25, 0.75]), exact, rtol=of_band.relative_error)


def test_shapes_of_tables() -> None:
    common = {name: pa.nulls(0, pa.string()) for name in ("point_index", "point_x", "point_y", "point_crs")}
    common |= {name: pa.nulls(0, pa.string()) for name in ("record_id", "datetime", "collection")}
    number, text = pa.nulls(0, pa.float64()), pa.nulls(0, pa.string())
    wide = pa.table(common | {"B1": number, "B1_mean": number, "B1_std": number, "B2": number, "raster_crs": number})
    assert [series.label for series, _ in shape_of(wide.schema).columns] == ["B1", "B1 mean", "B1 std", "B2"]
    assert shape_of(wide.schema).bands == ("B1", "B2")
    lists = pa.nulls(0, pa.list_(pa.float64(), 2))
    assert shape_of(pa.table(common | {"values": lists, "raster_crs": number}).schema).bands == ("1", "2")
    long = pa.table(common | {"band": text, "value": number, "median": number, "percentile_90": number, "kept": number})
    assert [name for _, name in shape_of(long.schema).columns] == ["value", "median", "percentile_90"]
    with pytest.raises(InputError, match=r"lack column\(s\) record_id"):
        shape_of(long.drop_columns(["record_id"]).schema)
    with pytest.raises(InputError, match="neither column value nor values"):
        shape_of(pa.table(common).schema)


def test_constant_text() -> None:
    assert constant_text(pa.array(["ab"] * 5).slice(1, 3)) == "ab"
    for column in (["ab", "ba"], ["a", "aa"], ["aa", None], ["", ""], ["äö", "öä"], []):
        assert constant_text(pa.array(column, pa.string())) is None
