"""Checksums of rows: equal for equal values in any Arrow type, order or chunk; different for any change."""

import copy
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rasteret_beam.kernels.storage.checksums import row_checksums

LISTS = [[1, 2, 3], [3, 2, 1], [], None, [1, 2, 3, 0], [0, 1, 2, 3], [1, 2], [7]]


def of(values: list[Any], kind: pa.DataType) -> list[int]:
    return row_checksums({"x": pa.array(values, type=kind)}).tolist()


def test_different_lists_have_different_checksums() -> None:
    assert len(set(of(LISTS, pa.list_(pa.int64())))) == len(LISTS)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (pa.list_(pa.int64()), pa.large_list(pa.int32())),
        (pa.list_(pa.int64()), pa.list_(pa.uint16())),
    ],
    ids=str,
)
def test_lists_of_any_width_agree(one: pa.DataType, other: pa.DataType) -> None:
    assert of(LISTS, one) == of(LISTS, other)


def test_texts_of_any_type_agree() -> None:
    texts = ["a", "b", "", None, "ä", "a", "x" * 5000]
    plain = of(texts, pa.string())
    assert len(set(plain)) == len(texts) - 1
    assert plain == of(texts, pa.large_string()) == of(texts, pa.dictionary(pa.int8(), pa.string()))


def test_null_zero_and_missing() -> None:
    null, zero = of([None, 0], pa.int64())
    assert null != zero
    column = {"x": pa.array([1, 2])}
    assert (row_checksums(column) == row_checksums(column | {"y": pa.nulls(2, pa.int64())})).all()
    assert (row_checksums(column | {"y": pa.nulls(2)}) == row_checksums({"y": pa.nulls(2)} | column)).all()


def test_floats() -> None:
    found = of([0.0, -0.0, float("nan"), -float("nan"), 1.0, np.nextafter(1.0, 2.0), float("inf"), None], pa.float64())
    assert found[0] == found[1] and found[2] == found[3]
    assert len(set(found)) == 6
    assert of([0.5, None], pa.float32()) == of([0.5, None], pa.float64())


def test_timestamps_of_any_unit_agree() -> None:
    seconds = [0, 1_700_000_000, None]
    assert of(seconds, pa.timestamp("s")) == of([v and v * 1_000_000 for v in seconds], pa.timestamp("us"))


def test_slices_and_chunks_do_not_count() -> None:
    kind = pa.list_(pa.struct([("a", pa.string()), ("b", pa.list_(pa.float64()))]))
    rows = [[{"a": "x", "b": [1.0, 2.0]}], [], None, [{"a": None, "b": None}, {"a": "y", "b": []}], [None]]
    whole = pa.array(rows, type=kind)
    found = row_checksums({"x": whole}).tolist()
    assert found == [row_checksums({"x": whole.slice(row, 1)})[0] for row in range(len(rows))]
    assert len(set(found)) == len(rows)


VALUES = st.fixed_dictionaries(
    {
        "n": st.none() | st.integers(-(2**31), 2**31 - 1),
        "t": st.none() | st.text(max_size=12),
        "f": st.none() | st.floats(allow_nan=False).filter(bool),
        "l": st.none() | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=12),
    }
)
KINDS = {"n": pa.int32(), "t": pa.string(), "f": pa.float64(), "l": pa.list_(pa.int64())}


@given(VALUES, VALUES)
def test_rows_that_differ_have_different_checksums(one: dict[str, Any], other: dict[str, Any]) -> None:
    columns = {
        name: pa.array([one[name], other[name], copy.copy(one[name])], type=kind) for name, kind in KINDS.items()
    }
    first, second, again = row_checksums(columns)
    assert first == again
    assert (first == second) == (one == other)


def test_checksums_stay_as_they_are() -> None:
    """Files hold them: another release has to find the same."""
    rows = {"id": pa.array(["a", None]), "n": pa.array([1, 2]), "l": pa.array([[1, 2], []]), "f": pa.array([0.5, -1.0])}
    assert row_checksums(rows).tolist() == [2129009628, 1581530619]
