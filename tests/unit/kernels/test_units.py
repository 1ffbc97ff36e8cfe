"""Stored numbers in physical units, and the pairs of scale and offset that bands have."""

import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasteret_beam.errors import CollectionError, InputError
from rasteret_beam.kernels.sampling.units import in_units, needs_file, units_of, windows_in_units
from rasteret_beam.model import Asset
from rasteret_beam.scales import Scales, check_scaled_bands, parse_scales, to_scales
from tests.support.properties import examples

FORM = 'give {"B04": (0.0001, -0.1)}, band to (scale, offset)'
GRAMMAR = "is not BAND=SCALE,OFFSET[;BAND=SCALE,OFFSET...], such as B04=0.0001,-0.1"
FINITE = st.floats(-1e6, 1e6)


@settings(max_examples=examples(80))
@given(st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.booleans()), max_size=20), FINITE.filter(bool), FINITE)
def test_numbers_in_units(pixels: list[tuple[int, bool]], scale: float, offset: float) -> None:
    """As Python computes it in double precision, number by number."""
    values = np.array([value for value, _ in pixels], dtype=np.int64)
    valid = np.array([valid for _, valid in pixels], dtype=bool)
    found = in_units(values, valid, (scale, offset))
    assert found.dtype == np.float64
    expected = [float(value) * scale + offset if valid else np.nan for value, valid in pixels]
    np.testing.assert_array_equal(found, np.array(expected, dtype=np.float64))


def test_infinite_numbers_and_shapes() -> None:
    pixels = np.array([[1, np.inf], [np.nan, -9999]], dtype=np.float32)
    found = in_units(pixels, np.array([[True, True], [False, False]]), (0.5, -1.0))
    np.testing.assert_array_equal(found, [[-0.5, np.inf], [np.nan, np.nan]])
    assert np.signbit(in_units(np.array([-0.0]), np.array([True]), (1.0, 0.0)))[0]  # the number itself


def test_windows_in_units() -> None:
    windows = pa.array([[1.0, np.nan], None, [3.0, 4.0], []], pa.list_(pa.float64()))
    for cut in (windows, windows.slice(1), windows.slice(2, 1), windows.take(pa.array([2, 1]))):
        found = windows_in_units(cut, (10.0, 1.0))
        found.validate(full=True)
        lists = cut.to_pylist()
        expected = [None if each is None else [value * 10 + 1 for value in each] for each in lists]
        assert str(found.to_pylist()) == str(expected)  # NaN is not equal to itself


def asset(scale: float | None = None, offset: float | None = None) -> Asset:
    return Asset("scene", "B04", "https://host/a.tif?sig=SECRET", 0, scale=scale, offset=offset)


def test_the_pair_of_a_band() -> None:
    assert units_of(asset(), {}) == (1.0, 0.0)
    assert units_of(asset(0.5), {}) == (0.5, 0.0)
    assert units_of(asset(None, -1.0), {}) == (1.0, -1.0)
    assert units_of(asset(0.0, np.nan), to_scales({"B04": (2, 3)})) == (2.0, 3.0)
    assert [needs_file(each, {}) for each in (asset(), asset(0.5), asset(0.5, 0.0))] == [True, True, False]
    assert not needs_file(asset(), {"B04": (1.0, 0.0)})


@pytest.mark.parametrize(
    ("scale", "offset", "wrong"),
    [
        (0.0, 1.0, "scale 0 makes all values equal"),
        (np.nan, 1.0, "scale nan is not a finite number"),
        (1.0, -np.inf, "offset -inf is not a finite number"),
    ],
)
def test_a_pair_of_a_record_that_cannot_be_used(scale: float, offset: float, wrong: str) -> None:
    with pytest.raises(CollectionError) as raised:
        units_of(asset(scale, offset), {})
    assert str(raised.value) == (
        f"record 'scene', band B04, https://host/a.tif?...: {wrong}; give scale and offset of the band with "
        "scales={'B04': (SCALE, OFFSET)}"
    )


def test_scales_are_frozen_and_hashable() -> None:
    given = {"B08": [0.0001, -0.1], "B04": (np.float32(0.5), np.int16(2))}
    made = to_scales(given)
    assert dict(made) == {"B04": (0.5, 2.0), "B08": (0.0001, -0.1)} and to_scales(made) is made
    assert made == Scales({"B08": (0.0001, -0.1), "B04": (0.5, 2.0)}) and len({made, to_scales(dict(made))}) == 1
    assert pickle.loads(pickle.dumps(made)) == made and made != Scales()
    assert repr(made) == "{'B04': (0.5, 2.0), 'B08': (0.0001, -0.1)}"
    with pytest.raises(TypeError):
        made["B04"] = (1.0, 0.0)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([("B04", 1, 0)], f"scales is [('B04', 1, 0)]; {FORM}"),
        ("B04=1,0", f"scales is 'B04=1,0'; {FORM}"),
        ({4: (1, 0)}, f"scales has 4 for a band; {FORM}"),
        ({"B04": 0.0001}, f"scales has 0.0001 for band 'B04'; {FORM}"),
        ({"B04": (1,)}, f"scales has (1,) for band 'B04'; {FORM}"),
        ({"B04": "10"}, f"scales has '10' for band 'B04'; {FORM}"),
        ({"B04": (1, "0")}, f"scales has (1, '0') for band 'B04'; {FORM}"),
        ({"B04": (True, 0)}, f"scales has (True, 0) for band 'B04'; {FORM}"),
        ({"B04": (0, 0)}, "scales has (0, 0) for band 'B04': scale 0 makes all values equal"),
        ({"B04": (1, np.nan)}, "scales has (1, nan) for band 'B04': offset nan is not a finite number"),
    ],
)
def test_scales_that_cannot_be_used(value: object, message: str) -> None:
    with pytest.raises(InputError) as raised:
        to_scales(value)
    assert str(raised.value) == message


def test_scales_as_text() -> None:
    assert parse_scales("B04=0.0001,-0.1") == {"B04": (0.0001, -0.1)}
    assert parse_scales(" B04 = 1e-4 , -.1 ; a=b=2,+3; ") == {"B04": (0.0001, -0.1), "a=b": (2.0, 3.0)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("B04", f"'B04' {GRAMMAR}"),
        ("B04=1", f"'B04=1' {GRAMMAR}"),
        ("B04:1,2", f"'B04:1,2' {GRAMMAR}"),
        ("B04=1,2,3", f"'B04=1,2,3' {GRAMMAR}"),
        ("=1,2", f"'=1,2' {GRAMMAR}"),
        ("1,2", f"'1,2' {GRAMMAR}"),
        ("B04=1,2;B08=x,1", f"'B08=x,1' {GRAMMAR}"),
        (";", f"';' {GRAMMAR}"),
        ("", f"'' {GRAMMAR}"),
        ("B04=1,2;B04=1,2", "band 'B04' is given twice; give each band once"),
        ("B04=0,2", "'B04=0,2' cannot be used: scale 0 makes all values equal"),
        ("B04=inf,2", "'B04=inf,2' cannot be used: scale inf is not a finite number"),
    ],
)
def test_text_that_cannot_be_used(text: str, message: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_scales(text)
    assert str(raised.value) == message


def test_bands_that_are_not_read() -> None:
    check_scaled_bands({"B04": (1.0, 0.0)}, ["B04", "B08"])
    with pytest.raises(InputError) as raised:
        check_scaled_bands({"B04": (1.0, 0.0), "b8": (1.0, 0.0)}, ["B04", "B08"])
    assert str(raised.value) == (
        "scales is {'B04': (1.0, 0.0), 'b8': (1.0, 0.0)}, but band 'b8' (did you mean 'B08'?) is not among the bands "
        "that are read: B04, B08; leave it out, or read it too"
    )
