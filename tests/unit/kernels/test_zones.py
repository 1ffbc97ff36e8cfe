"""States of zones: parts that are merged equal the whole, and the whole equals NumPy."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasteret_beam.kernels.statistics.zones import Needs, ZoneStates
from tests.support.properties import examples

NAMES = ("count", "valid_fraction", "mean", "median", "std", "min", "max", "sum", "majority", "variety")
NAMES = (*NAMES, "percentile_0", "percentile_12.5", "percentile_90", "percentile_100")
ALL = Needs.of(NAMES)

numbers = st.sampled_from([0.0, 1.0, 2.0, -3.0, 7.5]) | st.floats(-1e6, 1e6)


@st.composite
def zones(draw: st.DrawFn) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Values and shares of a few zones, some of them without a pixel."""
    values = [np.array(draw(st.lists(numbers, max_size=9))) for _ in range(draw(st.integers(1, 4)))]
    weights = [np.array([draw(st.floats(0.01, 1)) for _ in each]) for each in values]
    return values, weights


def state(values: list[np.ndarray], weights: list[np.ndarray] | None) -> ZoneStates:
    counts = np.array([len(each) for each in values])
    shares = None if weights is None else np.concatenate(weights)
    return ZoneStates.of_values(np.concatenate(values).astype(np.float64), counts, shares, ALL)


def cut(parts: list[np.ndarray], at: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return [part[: round(len(part) * at)] for part in parts], [part[round(len(part) * at) :] for part in parts]


def quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """Value k stands at k * w[k] + (n - 1) * sum(w[:k]), one after the other."""
    order = np.lexsort((weights, values))
    values, weights, n = values[order], weights[order], len(values)
    places, before = [], 0.0
    for k, weight in enumerate(weights):
        places.append(k * weight + (n - 1) * before)
        before += weight
    return float(np.interp(share * before * (n - 1), places, values))


def expected(values: np.ndarray, weights: np.ndarray | None) -> dict[str, Any]:
    ones = np.ones(len(values)) if weights is None else weights
    found: dict[str, Any] = {"count": ones.sum(), "variety": len(set(values.tolist()))}
    if not len(values):
        return found
    mean = float(np.average(values, weights=ones))
    found |= {"mean": mean, "std": float(np.sqrt(np.average((values - mean) ** 2, weights=ones)))}
    found |= {"sum": float((values * ones).sum()), "min": values.min(), "max": values.max()}
    of_value = {value: ones[values == value].sum() for value in sorted(set(values.tolist()))}
    most = max(of_value.values())
    found["majority"] = min(value for value, weight in of_value.items() if weight >= most * (1 - 1e-12))
    for name, share in (("median", 0.5), ("percentile_0", 0), ("percentile_12.5", 0.125), ("percentile_90", 0.9)):
        found[name] = np.quantile(values, share) if weights is None else quantile(values, weights, share)
    found["percentile_100"] = values.max()
    return found


@pytest.mark.parametrize("weighted", [False, True])
@settings(max_examples=examples(200))
@given(drawn=zones(), at=st.floats(0, 1))
def test_statistics_are_those_of_numpy(weighted: bool, drawn: Any, at: float) -> None:
    """Of zones whose pixels come in two parts, as of all together."""
    values, weights = drawn
    (first, second), of_weights = cut(values, at), cut(weights, at)
    parts = [
        state(part, shares if weighted else None) for part, shares in zip((first, second), of_weights, strict=True)
    ]
    for found in (state(values, weights if weighted else None), parts[0].merged(parts[1])):
        columns = found.columns(NAMES, np.ones(len(values)), whole=not weighted)
        for zone, own in enumerate(values):
            known = expected(own, weights[zone] if weighted else None)
            for name in NAMES:
                value, null = columns[name].values[zone], columns[name].null
                assert (null is not None and null[zone]) == (name not in known and name != "valid_fraction"), name
                if name in known:
                    scale = max(1.0, np.abs(own).max(initial=0.0) * len(own))
                    assert value == pytest.approx(
                        known[name], rel=1e-9, abs=1e-7 * scale if name == "std" else 1e-9 * scale
                    ), name


def test_variances_of_large_means_keep_their_digits() -> None:
    """Values near 1e9, in forty windows that are merged one after the other."""
    values = 1e9 + np.random.default_rng(1).integers(0, 3, 40_000)
    merged = state([values[:1000]], None)
    for first in range(1000, len(values), 1000):
        merged = merged.merged(state([values[first : first + 1000]], None))
    column = merged.columns(["std"], None, whole=True)["std"]
    assert column.values[0] == pytest.approx(np.std(values - 1e9), rel=1e-9)


def test_counts_of_whole_pixels_are_integers() -> None:
    column = state([np.array([1.0, 2.0])], None).columns(["count", "variety"], None, whole=True)
    assert column["count"].values.dtype == column["variety"].values.dtype == np.int64
