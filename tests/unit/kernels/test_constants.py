"""Columns of one value are made once and shared."""

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from rasteret_beam.kernels.sampling.rows import Constants


@given(st.lists(st.tuples(st.sampled_from(["B02", "", None]), st.integers(0, 40)), max_size=12))
def test_each_array_holds_its_value(wanted: list[tuple[str | None, int]]) -> None:
    constants = Constants(most_bytes=100)
    for value, rows in wanted:
        array = constants.array(value, pa.string(), rows)
        assert array.to_pylist() == [value] * rows
        assert array.type == pa.string()


def test_batches_share_one_array() -> None:
    constants = Constants()
    large = constants.array(32631, pa.int32(), 1000)
    small = constants.array(32631, pa.int32(), 10)
    assert small.buffers()[1].address == large.buffers()[1].address
    assert small.nbytes == 40
    assert constants.array(32631, pa.int64(), 10).type == pa.int64()


def test_what_is_kept_is_bounded() -> None:
    constants = Constants(most_bytes=1 << 20)
    before = pa.total_allocated_bytes()
    for value in range(100):
        constants.array(value, pa.int64(), 100_000)
    assert pa.total_allocated_bytes() - before < 3 << 20
