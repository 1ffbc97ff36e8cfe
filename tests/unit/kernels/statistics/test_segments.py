"""Cumulative sums of segments equal, to the last bit, those of each segment alone."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rasteret_beam.kernels.statistics.segments import running_sums
from tests.support.properties import examples


@settings(max_examples=examples(100))
@given(sizes=st.lists(st.integers(0, 30), max_size=20), seed=st.integers(0, 1000))
def test_segments_are_summed_alone(sizes: list[int], seed: int) -> None:
    numbers = np.random.default_rng(seed).normal(size=sum(sizes)) * 10.0 ** np.arange(sum(sizes)).clip(0, 12)
    parts = np.split(numbers, np.cumsum(sizes)[:-1]) if sizes else []
    want = np.concatenate([np.empty(0), *map(np.cumsum, parts)])
    np.testing.assert_array_equal(running_sums(numbers, np.array(sizes, dtype=np.int64)), want)
