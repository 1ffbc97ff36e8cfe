"""Quality rules against loops over bits and exact numbers, their text, and what is refused."""

import math
import pickle
import re
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rasteret_beam import Quality, SampleOptions
from rasteret_beam.errors import InputError
from rasteret_beam.quality import PRESETS, check_quality, parse_qualities, parse_quality
from rasteret_beam.quality_text import GRAMMAR
from tests.support.paths import ROOT
from tests.support.properties import examples

INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
FLOATS = ["float16", "float32", "float64"]
EDGES = [0, 1, 3, 7, 40, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1]


def bit_of(value: int, bit: int, width: int) -> int:
    """A bit of a whole number in two's complement, by division."""
    return (value % 2**width) // 2**bit % 2


def in_type(number: float, dtype: np.dtype) -> Fraction | None:
    """A number as a float type has it; None where it is too large."""
    with np.errstate(over="ignore"):
        held = float(dtype.type(float(number)))
    return Fraction(held) if math.isfinite(held) else None


def passes(rule: Quality, value: Any, dtype: np.dtype) -> bool:
    """One pixel by exact arithmetic, from the arguments of the rule."""
    if dtype.kind == "f":
        if np.isnan(value):
            return False
        own = Fraction(float(value)) if np.isfinite(value) else float(value)
        listed = [in_type(each, dtype) for each in rule.exclude]
        kept = None if rule.keep is None else [in_type(each, dtype) for each in rule.keep]
        bounds = [None if each is None else in_type(each, dtype) for each in (rule.minimum, rule.maximum)]
        least, most = (
            given if bound is None else bound for given, bound in zip((rule.minimum, rule.maximum), bounds, strict=True)
        )
    else:
        own, listed, kept = int(value), [Fraction(each) for each in rule.exclude], rule.keep
        least, most = rule.minimum, rule.maximum
        kept = None if kept is None else [Fraction(each) for each in kept]
    width = 8 * dtype.itemsize
    if own in listed or (kept is not None and own not in kept):
        return False
    if (least is not None and own < least) or (most is not None and own > most):
        return False
    if any(bit_of(own, bit, width) for bit in rule.exclude_bits):
        return False
    for (first, last), excluded in rule.fields:
        if sum(bit_of(own, bit, width) * 2 ** (bit - first) for bit in range(first, last + 1)) in excluded:
            return False
    return True


numbers = st.one_of(
    st.integers(-12, 12),
    st.sampled_from([*EDGES, *(-each for each in EDGES)]),
    st.floats(-20, 20).map(lambda number: round(number, 1)),
    st.floats(allow_nan=False, allow_infinity=False),
)


@st.composite
def rules(draw: st.DrawFn, highest: int = 63) -> Quality:
    """Rules of one or several kinds of conditions, with bits up to the highest."""
    exclude = draw(st.lists(numbers, max_size=12))
    keep = draw(st.none() | st.lists(numbers, min_size=1, max_size=20)) if not exclude else None
    least, most = draw(st.none() | numbers), draw(st.none() | numbers)
    if least is not None and most is not None and most < least:
        least, most = most, least
    starts = sorted(draw(st.sets(st.integers(0, highest), max_size=4)))
    fields = {}
    for first, following in pairwise([*starts, highest + 1]):
        last = draw(st.integers(first, min(following - 1, first + 3)))
        fields[first, last] = draw(st.sets(st.integers(0, 2 ** (last - first + 1) - 1), min_size=1))
    bits = draw(st.sets(st.integers(0, highest), max_size=3))
    if not (exclude or keep or bits or fields) and least is None and most is None:
        exclude = [draw(numbers)]
    return Quality(
        draw(st.text(min_size=1).filter(str.strip)),
        exclude=exclude,
        keep=keep,
        exclude_bits=draw(st.permutations(sorted(bits))),
        fields=fields,
        minimum=least,
        maximum=most,
        missing=draw(st.sampled_from(["error", "pass", "fail"])),
    )


def near(rule: Quality, dtype: np.dtype) -> list[Any]:
    """Values of a type at which the rule may change its mind."""
    given = [0, *rule.exclude, *(rule.keep or ()), *(each for each in (rule.minimum, rule.maximum) if each is not None)]
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            own = np.array(given, np.float64).astype(dtype)
            sides = [np.nextafter(own, dtype.type(side)) for side in (-np.inf, np.inf)]
        return [*own, *np.concatenate(sides), np.inf, -np.inf, np.nan]
    limits = np.iinfo(dtype)
    around = {math.floor(each) + step for each in given for step in (-1, 0, 1, 2)}
    return [limits.min, limits.max, *(each for each in around if limits.min <= each <= limits.max)]


@pytest.mark.parametrize("name", INTEGERS)
@settings(derandomize=True, max_examples=examples(150))
@given(data=st.data())
def test_integers(name: str, data: st.DataObject) -> None:
    """Exact beyond 2**53 too; bits are those of the two's complement."""
    dtype = np.dtype(name)
    rule = data.draw(rules(8 * dtype.itemsize - 1))
    limits = np.iinfo(dtype)
    drawn = data.draw(st.lists(st.integers(limits.min, limits.max), max_size=20))
    values = np.array([*near(rule, dtype), *drawn], dtype)
    valid = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))))
    before = values.copy(), valid.copy()
    found = rule.passes(values, valid)
    assert found.dtype == bool
    assert [*found] == [bool(each) and passes(rule, value, dtype) for value, each in zip(values, valid, strict=True)]
    swapped = values.astype(dtype.newbyteorder(">"))
    assert np.array_equal(rule.passes(swapped[::-1], valid[::-1]), found[::-1])
    assert np.array_equal(before[0], values) and np.array_equal(before[1], valid)


@pytest.mark.parametrize("name", FLOATS)
@settings(derandomize=True, max_examples=examples(150))
@given(data=st.data())
def test_floats(name: str, data: st.DataObject) -> None:
    """Numbers of a rule are taken in the band's type; NaN never passes."""
    dtype = np.dtype(name)
    rule = data.draw(rules().filter(lambda rule: rule.exclude or rule.keep or rule.minimum or rule.maximum))
    rule = replace(rule, exclude_bits=(), fields={})
    values = np.array(near(rule, dtype), dtype)
    assert [*rule.passes(values, np.ones(len(values), bool))] == [passes(rule, value, dtype) for value in values]


def test_nodata_never_passes_and_shapes_stay() -> None:
    rule = Quality("SCL", keep=[4])
    assert rule.passes(np.full((2, 3), 4, np.uint8), np.eye(2, 3, dtype=bool)).tolist() == [
        [True, False, False],
        [False, True, False],
    ]
    assert rule.passes(np.empty(0, np.uint8), np.empty(0, bool)).shape == (0,)
    assert Quality("M", exclude=[0]).passes(np.array([True, False]), np.ones(2, bool)).tolist() == [True, False]


@pytest.mark.parametrize(
    ("rule", "dtype", "values", "expected"),
    [
        (Quality("A", exclude=[3.5, -1, 300]), "uint8", [3, 4, 255, 44], [True] * 4),
        (Quality("A", keep=[3.5, 300]), "int8", [3, 4, 44], [False] * 3),
        (Quality("A", keep=[2**63]), "uint64", [2**63 - 1, 2**63, 2**63 + 1], [False, True, False]),
        (Quality("A", exclude=[2**53 + 1]), "int64", [2**53, 2**53 + 1], [True, False]),
        (Quality("A", maximum=2**63 - 2), "int64", [2**63 - 2, 2**63 - 1], [True, False]),
        (Quality("A", minimum=-0.5, maximum=39.5), "int16", [-1, 0, 39, 40], [False, True, True, False]),
        (Quality("A", maximum=-1), "uint8", [0, 255], [False, False]),
        (Quality("A", minimum=256), "uint8", [0, 255], [False, False]),
        (Quality("A", maximum=0.1), "float32", [np.float32(0.1), 0.11], [True, False]),
        (Quality("A", exclude=[0.1]), "float32", [np.float32(0.1), 0.11], [False, True]),
        (Quality("A", maximum=1e6), "float16", [65504, np.inf], [True, False]),
        (Quality("A", exclude_bits=[7]), "int8", [127, -1, -128], [True, False, False]),
        (Quality("A", fields={(62, 63): [3]}), "int64", [-1, 2**62, -(2**63)], [False, True, True]),
    ],
    ids=str,
)
def test_types_that_cannot_hold_a_number(rule: Quality, dtype: str, values: list[Any], expected: list[bool]) -> None:
    assert rule.passes(np.array(values, dtype), np.ones(len(values), bool)).tolist() == expected


@pytest.mark.parametrize("dtype", FLOATS)
def test_bits_of_floats(dtype: str) -> None:
    rule = Quality("QA_PIXEL", exclude_bits=[1])
    with pytest.raises(InputError) as raised:
        rule.passes(np.zeros(1, dtype), np.ones(1, bool))
    assert str(raised.value) == (
        f"quality of band 'QA_PIXEL': bits are those of whole numbers, but the band has {dtype}; use exclude, keep, "
        "minimum or maximum"
    )


def test_types_that_a_rule_cannot_look_at() -> None:
    with pytest.raises(InputError) as raised:
        Quality("QA", fields={(7, 8): [3]}).check_dtype("int8")
    assert str(raised.value) == "quality of band 'QA': bit 8 is beyond the band's int8, which has bits 0 to 7"
    with pytest.raises(InputError, match=r"^quality of band 'Q': values of complex64 cannot be compared$"):
        Quality("Q", exclude=[1]).check_dtype(np.complex64)
    Quality("QA", exclude_bits=[63]).check_dtype(">i8")
    Quality("CLD", maximum=40).check_dtype("float32")


# Text


@settings(derandomize=True, max_examples=examples(400))
@given(rule=rules())
def test_text_gives_the_same_rule(rule: Quality) -> None:
    """And so do the representation and a pickle, and equal rules have one hash."""
    again = parse_quality(str(rule))
    assert again == rule and hash(again) == hash(rule) and str(again) == str(rule)
    assert eval(repr(rule), {"Quality": Quality}) == rule
    assert pickle.loads(pickle.dumps(rule)) == rule
    assert parse_qualities(f"{rule}; {rule};") == (rule, rule)


NAMES = ["preset:hls", 'a"b', '"', "it's", "a;b", "a b", "a,b", "CLD<=4", "a\nb", "\u00a0x", "Çlã", "not", "#1", "-3"]


@pytest.mark.parametrize("band", NAMES)
def test_text_of_bands_with_any_name(band: str) -> None:
    rule = Quality(band, keep=[1])
    assert parse_qualities(f"{rule};{rule}") == (rule, rule)


def test_text_of_long_runs() -> None:
    """They are cut, as no range of a text is longer."""
    rule = Quality("B", exclude=range(-3, 200_000))
    assert str(rule) == "B not in -3-65532,65533-131068,131069-196604,196605-199999"
    assert parse_quality(str(rule)) == rule


@settings(derandomize=True, max_examples=examples(400))
@given(
    text=st.one_of(
        st.text(),
        st.lists(
            st.sampled_from(
                ["B", "not", "in", "no", "bits", "3", "8-9", "-1", ",", "and", "<=", "missing", "pass", '"']
            ),
            max_size=9,
        ).map(" ".join),
    )
)
def test_any_text_is_a_rule_or_an_error(text: str) -> None:
    try:
        found = parse_qualities(text)
    except InputError as error:
        assert str(error).startswith("quality rule ")
    else:
        assert found and parse_qualities(";".join(map(str, found))) == found


TEXTS = {
    "SCL not in 0,1,3,8-10": Quality("SCL", exclude=[0, 1, 3, 8, 9, 10]),
    "  scl NOT  In 10 , 8 - 9,0 ": Quality("scl", exclude=[0, 8, 9, 10]),
    "SCL in 4-7": Quality("SCL", keep=[4, 5, 6, 7]),
    "QA_PIXEL no bits 0-4": Quality("QA_PIXEL", exclude_bits=range(5)),
    "QA_PIXEL no bit 3": Quality("QA_PIXEL", exclude_bits=[3]),
    "QA_PIXEL bits 8-9 not in 3": Quality("QA_PIXEL", fields={(8, 9): [3]}),
    "Fmask bits 6-7 not in 2-3 and bit 5 not in 1 and no bits 1": Quality(
        "Fmask", exclude_bits=[1], fields={(5, 5): [1], (6, 7): [2, 3]}
    ),
    "CLD <= 40": Quality("CLD", maximum=40),
    "CLD<=40": Quality("CLD", maximum=40),
    "CLD >= -0.5 and <= 1e2": Quality("CLD", minimum=-0.5, maximum=100),
    "T not in -5--3,-1": Quality("T", exclude=[-5, -4, -3, -1]),
    "T not in .5,+2": Quality("T", exclude=[0.5, 2]),
    "eo:cloud-mask in 0": Quality("eo:cloud-mask", keep=[0]),
    "in in 0": Quality("in", keep=[0]),
    "'cloud mask' in 0": Quality("cloud mask", keep=[0]),
    '"it\'s ""new""; yes" in 0': Quality('it\'s "new"; yes', keep=[0]),
    "'preset:hls' in 0": Quality("preset:hls", keep=[0]),
    "CLD <= 40 missing pass": Quality("CLD", maximum=40, missing="pass"),
    "CLD <= 40 MISSING fail": Quality("CLD", maximum=40, missing="fail"),
    "CLD <= 40 missing error": Quality("CLD", maximum=40),
    "preset:sentinel-2-l2a": Quality("SCL", exclude=[0, 1, 3, 8, 9, 10]),
    "preset: HLS": Quality("Fmask", exclude_bits=[0, 1, 2, 3]),
    "preset:landsat-c2-l2 band qa_pixel missing pass": Quality("qa_pixel", exclude_bits=range(5), missing="pass"),
}


@pytest.mark.parametrize("text", TEXTS)
def test_texts(text: str) -> None:
    assert parse_qualities(text) == (TEXTS[text],)


STARTS = "'not', 'in', 'no', 'bits', '<=' or '>='"
MISTYPED = {
    "SCL nott in 0": f"expected {STARTS}, but found 'nott' at character 5 (did you mean 'not'?)",
    "SCL": f"expected {STARTS}, but the rule ends",
    "SCL not 0,1": "expected 'in', but found '0' at character 9",
    "SCL not in": "expected a number, but the rule ends",
    "SCL not in 0,,1": "expected a number, but found ',' at character 14",
    "SCL not in 0,x": "expected a number, but found 'x' at character 14",
    "SCL not in 0 1": "expected 'and', 'missing' or the end of the rule, but found '1' at character 14",
    "SCL not in 0x10": "expected a number, but found '0x10' at character 12",
    "SCL in nan": "expected a number, but found 'nan' at character 8",
    "SCL in 0.5-2": "expected 'and', 'missing' or the end of the rule, but found '-2' at character 11",
    "SCL in 10-8": "expected a range from the smaller to the larger number, of at most 65536 values, but found '10-8' "
    "at character 8",
    "SCL in 1-999999999999": "expected a range from the smaller to the larger number, of at most 65536 values, but "
    "found '1-999999999999' at character 8",
    "SCL in 3 and in 4": "expected each kind of condition once, but found 'in' at character 14",
    "QA no 3": "expected 'bits', but found '3' at character 7",
    "QA bits x not in 3": "expected the bits of a field, such as 8-9, but found 'x' at character 9",
    "QA bits 8-9 in 3": "expected 'not', but found 'in' at character 13",
    "CLD < 40": f"expected {STARTS}, but found '<' at character 5 (did you mean '<='?) (whole numbers < 40 are <= 39)",
    "CLD = 40": f"expected {STARTS}, but found '=' at character 5 (did you mean '>='?)",
    "CLD <= 40 mising pass": "expected 'and', 'missing' or the end of the rule, but found 'mising' at character 11 "
    "(did you mean 'missing'?)",
    "CLD <= 40 missing maybe": "expected 'error', 'pass' or 'fail', but found 'maybe' at character 19",
    "preset:hls extra": "expected 'missing' or the end of the rule, but found 'extra' at character 12",
    "'SCL in 3": 'expected the name of a band, or preset:NAME, but found "\'" at character 1',
    "": "expected the name of a band, or preset:NAME, but the rule ends",
    " ; ": "expected the name of a band, or preset:NAME, but found ';' at character 2",
}


@pytest.mark.parametrize("text", MISTYPED)
def test_a_mistyped_rule(text: str) -> None:
    """One error, with the word that does not fit, its place, and the grammar."""
    with pytest.raises(InputError) as raised:
        parse_qualities(text)
    assert str(raised.value) == f"quality rule {text!r}: {MISTYPED[text]}; {GRAMMAR}"
    assert "\n" not in str(raised.value)


def test_a_rule_that_can_be_read_but_not_used() -> None:
    with pytest.raises(InputError) as raised:
        parse_quality("CLD >= 50 and <= 40")
    assert str(raised.value) == (
        "quality rule 'CLD >= 50 and <= 40': quality of band 'CLD': maximum is 40, less than the minimum, 50"
    )


# What is refused, and forms of arguments

BITS = "bits are whole numbers from 0 to 63"
FORM = "it has to be of the form {(8, 9): [3]}: first and last bit, and the values to exclude"
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, "no condition is given; give exclude, keep, exclude_bits, fields, minimum or maximum"),
    "empty": (
        {"exclude": [], "exclude_bits": (), "fields": {}},
        "no condition is given; give exclude, keep, exclude_bits, fields, minimum or maximum",
    ),
    "both": (
        {"exclude": [1], "keep": [2]},
        "both exclude and keep are given; all values but those of keep are excluded anyway",
    ),
    "keep nothing": ({"keep": []}, "keep is empty, so no pixel would pass; list the values that pass"),
    "a number": ({"exclude": 3}, "exclude is 3; it has to be a list of numbers"),
    "text": ({"keep": "4-7"}, "keep is '4-7'; it has to be a list of numbers"),
    "words": ({"exclude": ["3"]}, "exclude has '3', which is not a number"),
    "bool": ({"exclude": [True]}, "exclude has True, which is not a number"),
    "NumPy's bool": ({"exclude": [np.True_]}, "exclude has np.True_, which is not a number"),
    "NaN": ({"exclude": [np.nan]}, "exclude has nan, which is not a finite number"),
    "NaN as a limit": ({"maximum": float("nan")}, "maximum has nan, which is not a finite number"),
    "infinite": ({"minimum": -np.inf}, "minimum has -inf, which is not a finite number"),
    "text as a limit": ({"maximum": "40"}, "maximum has '40', which is not a number"),
    "too large": ({"maximum": 10**400}, f"maximum has a number that no band can hold, {10**400}"),
    "limits": ({"minimum": 5, "maximum": 4.5}, "maximum is 4.5, less than the minimum, 5"),
    "bit": ({"exclude_bits": [64]}, f"exclude_bits has bit 64; {BITS}"),
    "negative bit": ({"exclude_bits": [-1]}, f"exclude_bits has bit -1; {BITS}"),
    "half a bit": ({"exclude_bits": [1.5]}, f"exclude_bits has bit 1.5; {BITS}"),
    "bool as a bit": ({"exclude_bits": [True]}, f"exclude_bits has bit True; {BITS}"),
    "bits in a number": ({"exclude_bits": 3}, "exclude_bits is 3; it has to be a list of numbers"),
    "field beyond": ({"fields": {(62, 64): [1]}}, f"fields has bit 64; {BITS}"),
    "field backwards": ({"fields": {(9, 8): [1]}}, "fields has bits 9 to 8; give the lower bit first"),
    "fields overlap": (
        {"fields": {(10, 12): [1], (8, 10): [3]}},
        "fields has bits 10 to 12, which overlap with another field up to bit 10",
    ),
    "field too small": (
        {"fields": {(8, 9): [4]}},
        "fields of bits 8 to 9 has 4; it can hold whole numbers from 0 to 3",
    ),
    "fraction in a field": (
        {"fields": {(8, 9): [0.5]}},
        "fields of bits 8 to 9 has 0.5; it can hold whole numbers from 0 to 3",
    ),
    "empty field": ({"fields": {(8, 9): []}}, "fields of bits 8 to 9 has no values; list those to exclude"),
    "number in a field": ({"fields": {(8, 9): 3}}, "fields of bits 8 to 9 is 3; it has to be a list of numbers"),
    "no pair": ({"fields": {8: [1]}}, f"fields is {{8: [1]}}; {FORM}"),
    "a list": ({"fields": [8, 9]}, f"fields is [8, 9]; {FORM}"),
    "fields of none": ({"fields": 3}, f"fields is 3; {FORM}"),
    "missing": ({"exclude": [1], "missing": "skip"}, "missing is 'skip'; it can be 'error', 'pass' or 'fail'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_arguments_that_cannot_be_used(case: str) -> None:
    given, message = REFUSED[case]
    with pytest.raises(InputError) as raised:
        Quality("QA", **given)
    assert str(raised.value) == f"quality of band 'QA': {message}"


@pytest.mark.parametrize("band", ["", "  ", None, 3, ["SCL"]])
def test_a_band_without_a_name(band: Any) -> None:
    with pytest.raises(InputError) as raised:
        Quality(band, exclude=[1])
    assert str(raised.value) == f"the band of a quality rule is {band!r}; it has to be the name of a band"


@pytest.mark.parametrize(
    "given",
    [
        {"exclude": [9, 8, 3, 3, 1, 0, 10]},
        {"exclude": (0, 1, 3.0, 8, 9, 10)},
        {"exclude": {0, 1, 3, 8, 9, 10}},
        {"exclude": np.array([0, 1, 3, 8, 9, 10], np.uint8)},
        {"exclude": np.array([0, 1, 3, 8, 9, 10.0], np.float32)},
        {"exclude": iter([0, 1, 3, 8, 9, 10])},
    ],
)
def test_lists_in_any_form(given: dict[str, Any]) -> None:
    rule = Quality("SCL", **given)
    assert rule == Quality("SCL", exclude=[0, 1, 3, 8, 9, 10])
    assert rule.exclude == (0, 1, 3, 8, 9, 10) and {type(each) for each in rule.exclude} == {int}
    assert len({rule, Quality("SCL", exclude=[0, 1, 3, 8, 9, 10])}) == 1


def test_a_rule_is_short_to_read() -> None:
    rule = Quality("QA", keep=[1], fields={(8, 9): [3, 2]}, minimum=0, missing="pass")
    assert repr(rule) == "Quality('QA', keep=[1], fields={(8, 9): [2, 3]}, minimum=0, missing='pass')"
    assert rule.fields == (((8, 9), (2, 3)),) and Quality("QA", keep=[1], fields=rule.fields, minimum=0) == replace(
        rule, missing="error"
    )
    assert repr(Quality("QA", maximum=0)) == "Quality('QA', maximum=0)"


# Presets


def test_presets() -> None:
    """Codes of the products: classes of SCL, bits of QA_PIXEL and of Fmask."""
    classes = Quality.preset("sentinel-2-l2a").passes(np.arange(12, dtype=np.uint8), np.ones(12, bool))
    assert np.flatnonzero(classes).tolist() == [2, 4, 5, 6, 7, 11]  # dark, vegetation, bare, water, unclassified, snow
    # Landsat 8: clear land, clear water, cirrus, cloud, cloud shadow, dilated cloud, fill
    pixels = np.array([21824, 21952, 54596, 22280, 23888, 21826, 1], np.uint16)
    assert Quality.preset("landsat-c2-l2").passes(pixels, np.ones(7, bool)).tolist() == [True, True, *[False] * 5]
    # HLS: clear, water, snow, high aerosol, shadow, adjacent, cloud, fill
    pixels = np.array([64, 96, 80, 192, 72, 68, 66, 255], np.uint8)
    assert Quality.preset("hls").passes(pixels, np.ones(8, bool)).tolist() == [*[True] * 4, *[False] * 4]
    assert set(PRESETS) == {"sentinel-2-l2a", "landsat-c2-l2", "hls"}


def test_a_preset_on_another_band() -> None:
    rule = Quality.preset("sentinel-2-l2a", band="scl", missing="pass")
    assert rule == Quality("scl", exclude=[0, 1, 3, 8, 9, 10], missing="pass")
    with pytest.raises(InputError) as raised:
        Quality.preset("sentinel2-l2a")
    assert str(raised.value) == (
        "quality has no preset 'sentinel2-l2a' (did you mean 'sentinel-2-l2a'?); it has sentinel-2-l2a, "
        "landsat-c2-l2, hls"
    )
    with pytest.raises(InputError, match=r"^quality has no preset 3; it has "):
        Quality.preset(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"^the band of a quality rule is ''"):
        Quality.preset("hls", band="")


def test_the_rules_of_the_docs() -> None:
    """Each text of the tables gives the rule beside it, and presets are as their table has them."""
    text = (ROOT / "docs/sampling.md").read_text()
    pairs = re.findall(r"^\| `([^`]+)` \| `(Quality[^`]+)` \|$", text, re.MULTILINE)
    assert len(pairs) == 9
    assert all(parse_quality(written) == eval(rule, {"Quality": Quality}) for written, rule in pairs)
    presets = re.findall(r"^\| `([\w-]+)` \| `([^`]+)` \| [\w ,.()-]+ \| [A-Z]+, ", text, re.MULTILINE)
    assert presets == [(name, str(rule)) for name, rule in PRESETS.items()]
    assert len(re.findall(r"`(?:SCL|QA_PIXEL|Fmask) [^`]+`", text.partition("Snow, water")[2].partition("##")[0])) == 3


# The option

SCL, CLD = Quality("SCL", keep=[4, 5]), Quality("CLD", maximum=40)


@pytest.mark.parametrize(
    "given",
    [
        [SCL, CLD],
        (SCL, CLD),
        ["SCL in 4-5", CLD],
        "SCL in 4-5; CLD <= 40",
        ["SCL in 4,5;CLD <= 40"],
        np.array(["SCL in 4,5", "CLD <= 40"], object),
    ],
)
def test_rules_in_any_form(given: Any) -> None:
    options = SampleOptions(quality=given)
    assert options.quality == (SCL, CLD)
    assert pickle.loads(pickle.dumps(options)) == options and hash(options) == hash(SampleOptions(quality=[SCL, CLD]))


def test_one_rule() -> None:
    assert SampleOptions(quality=SCL).quality == SampleOptions(quality="SCL in 4-5").quality == (SCL,)
    assert check_quality([SCL, SCL]) == (SCL, SCL) and check_quality([]) == ()


WANTED = "it has to be a list of Quality(...), or of rules as text such as 'SCL not in 0,1,3,8-10'"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, f"quality is None; {WANTED}"),
        (3, f"quality is 3; {WANTED}"),
        ({"SCL": [1]}, f"quality is {{'SCL': [1]}}; {WANTED}"),
        ([SCL, 3], f"quality has 3; {WANTED}"),
        ([[SCL]], f"quality has [{SCL!r}]; {WANTED}"),
    ],
)
def test_options_that_are_no_rules(given: Any, message: str) -> None:
    with pytest.raises(InputError) as raised:
        SampleOptions(quality=given)
    assert str(raised.value) == message
