"""Statistics of windows against NumPy's, window by window."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from rasteret_beam.kernels.statistics import windows
from rasteret_beam.kernels.statistics.windows import window_statistics
from rasteret_beam.statistics import NAMES, NEVER_NULL, percentile_of

PERCENTILES = ("percentile_0", "percentile_5", "percentile_33.3", "percentile_97.5", "percentile_100")
ALL = (*NAMES, *PERCENTILES)


def expected(name: str, valid: NDArray[Any], cells: int) -> float | None:
    """Of the valid numbers of one window."""
    if name == "count":
        return len(valid)
    if name == "variety":
        return len(set(valid.tolist()))
    if name == "valid_fraction":
        return len(valid) / cells if cells else 0
    if not len(valid):
        return None
    if name == "majority":
        return min(Counter(valid.tolist()).items(), key=lambda item: (-item[1], item[0]))[0]
    number = percentile_of(name)
    return float(getattr(np, name)(valid) if number is None else np.percentile(valid, number))


def compare(pixels: NDArray[Any], valid: NDArray[Any], cells: NDArray[Any] | None = None) -> None:
    found = window_statistics(ALL, pixels, valid, cells)
    assert list(found) == list(ALL)
    there = np.ones(pixels.shape, dtype=bool) if cells is None else cells
    for name, (values, null) in found.items():
        assert values.dtype == (np.int64 if name in ("count", "variety") else np.float64)
        given = values.tolist() if null is None else np.where(null, None, values.astype(object)).tolist()
        numbers = pixels.astype(np.float64)
        wanted = [expected(name, numbers[valid[:, at], at], there[:, at].sum().item()) for at in range(len(given))]
        if name in ("mean", "std", "sum", "median") or percentile_of(name) is not None:
            assert [one is None for one in given] == [one is None for one in wanted], name
            margin = 1e-13 * float(np.abs(numbers[valid]).max(initial=0)) * len(pixels)
            pairs = [(one, other) for one, other in zip(given, wanted, strict=True) if other is not None]
            assert all(abs(one - other) <= margin for one, other in pairs), name
        else:
            assert given == wanted, name


@st.composite
def blocks(draw: st.DrawFn) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]:
    dtype = np.dtype(draw(st.sampled_from(["uint8", "int8", "uint16", "int16", "int32", "float32", "float64"])))
    k, count = draw(st.integers(1, 30)), draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    few = draw(st.booleans())
    if dtype.kind == "f":
        pixels = rng.choice([-1.5, 0.0, 0.1, 2.25], (k, count)) if few else rng.normal(0, 100, (k, count))
        pixels = pixels.astype(dtype)
    else:
        limits = np.iinfo(dtype)
        pixels = rng.integers(0, 3, (k, count), dtype=dtype)
        if not few:
            pixels = rng.integers(limits.min, limits.max, (k, count), dtype=dtype, endpoint=True)
    cells = rng.random((k, count)) < 0.7 if draw(st.booleans()) else None
    valid = rng.random((k, count)) < draw(st.sampled_from([0.0, 0.5, 0.95, 1.0]))
    if cells is not None:
        valid &= cells
    if dtype.kind == "f":
        pixels[~valid] = np.nan
    return pixels, valid, cells


@given(blocks())
def test_each_statistic_is_numpys(block: tuple[NDArray[Any], NDArray[Any], NDArray[Any] | None]) -> None:
    compare(*block)


@pytest.mark.parametrize("portion", [1, 7, 64])
def test_portions_do_not_change_the_statistics(portion: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "PORTION_CELLS", portion)
    rng = np.random.default_rng(3)
    compare(rng.integers(0, 9, (9, 31)).astype(np.uint8), rng.random((9, 31)) < 0.6)


@pytest.mark.parametrize("k", [9, 25, 400])
@pytest.mark.parametrize("share", [0.9, 1.0])
def test_statistics_do_not_depend_on_the_windows_beside(k: int, share: float) -> None:
    """To the last bit: a retry may have other windows in a portion."""
    rng = np.random.default_rng(4)
    pixels, valid = rng.normal(0, 1, (k, 500)), rng.random((k, 500)) < share
    whole = window_statistics(ALL, pixels, valid)
    for start, stop in ((0, 1), (7, 8), (20, 23), (100, 499)):
        part = window_statistics(ALL, pixels[:, start:stop], valid[:, start:stop])
        assert all(np.array_equal(part[name].values, whole[name].values[start:stop]) for name in ALL)


def test_long_integers_are_compared_exactly() -> None:
    big = 2**53
    pixels = np.array([[big], [big + 1], [big + 1], [big + 2]])
    every = np.ones((4, 1), dtype=bool)
    found = window_statistics(["variety", "majority", "count", "max"], pixels, every)
    assert [each.values.tolist() for each in found.values()] == [[3], [float(big + 1)], [4], [float(big + 2)]]
    unsigned = np.array([[2**64 - 1], [0], [2**64 - 1]], dtype=np.uint64)
    some = np.array([[True], [True], [False]])
    found = window_statistics(["min", "max", "variety", "median"], unsigned, some)
    assert [each.values.tolist() for each in found.values()] == [[0.0], [2.0**64], [2], [2.0**63]]


def test_std_of_large_numbers_keeps_its_digits() -> None:
    """A sum of squares would lose them all."""
    pixels = np.full((9, 1), 1e9)
    pixels[:3] += 0.001
    found = window_statistics(["std"], pixels, np.ones((9, 1), dtype=bool))
    assert found["std"].values == pytest.approx(np.std(pixels), rel=1e-9)


def test_infinite_pixels_are_valid() -> None:
    pixels = np.array([[np.inf, 1.0], [np.inf, np.inf], [2.0, -np.inf]])
    found = window_statistics(ALL, pixels, np.ones((3, 2), dtype=bool))
    assert found["min"].values.tolist() == [2, -np.inf] and found["max"].values.tolist() == [np.inf, np.inf]
    assert found["median"].values.tolist() == [np.inf, 1.0]
    assert found["percentile_100"].values.tolist() == [np.inf, np.inf]
    assert found["majority"].values.tolist() == [np.inf, -np.inf] and found["variety"].values.tolist() == [2, 3]
    assert found["mean"].values[0] == np.inf and np.isnan(found["mean"].values[1])


def test_windows_without_a_valid_pixel_are_null() -> None:
    valid = np.array([[True, False], [False, False]])
    found = window_statistics(ALL, np.array([[7, 7], [7, 7]], dtype=np.int16), valid)
    for name, (values, null) in found.items():
        if name in NEVER_NULL:
            assert null is None and values[1] == 0
        else:
            assert null is not None and null.tolist() == [False, True]


def test_no_points_have_no_statistics() -> None:
    found = window_statistics(ALL, np.zeros((9, 0), dtype=np.uint8), np.zeros((9, 0), dtype=bool))
    assert all(len(values) == 0 and null is None for values, null in found.values())
