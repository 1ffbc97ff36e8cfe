"""The options of chips: one definition, found in each face."""

import inspect
from typing import Any

import numpy as np
import pytest

from pipelines.read_chips import parser
from rasteret_beam import ChipOptions, Collection, ReadChipDeadLetters, ReadChips, SampleOptions
from rasteret_beam.errors import InputError
from rasteret_beam.job_options import JobOptions
from rasteret_beam.option_fields import options_of
from templates.metadata import template


def test_each_option_is_in_each_face() -> None:
    transform = inspect.signature(ReadChips.__init__).parameters
    eager = inspect.signature(Collection.get_numpy).parameters
    flags = {action.dest: action for action in parser()._actions}
    parameters = {each["name"]: each for each in template("read_chips")["parameters"]}
    for each in options_of(ChipOptions):
        assert transform[each.name].default == each.default
        assert (each.name in eager) == each.facts.eager
        if each.facts.flag == "":
            continue
        flag = each.facts.flag or each.name
        expected = each.default // each.facts.unit if each.facts.unit > 1 else each.default
        assert (flags[flag].default or None) == (expected or None)
        assert parameters[flag]["helpText"].casefold().startswith(each.facts.help[:20].casefold())
        if each.choices is not None:
            assert tuple(flags[flag].choices or ()) == each.choices


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"fill": "a"}, "fill is 'a'; it has to be a number"),
        ({"fill": True}, "fill is True; it has to be a number"),
        ({"fill": 10**400}, "which no band can hold"),
        ({"max_chip_pixels": 0}, "max_chip_pixels is 0; it has to be a whole number of pixels, 1 or more"),
        ({"max_chip_pixels": True}, "max_chip_pixels is True"),
        ({"max_chip_pixels": 1.5}, "max_chip_pixels is 1.5"),
        ({"all_touched": "yes"}, "all_touched is 'yes'; it has to be True or False"),
        ({"on_invalid": "mend"}, r"on_invalid is 'mend'; it can be one of \('raise', 'skip'\)"),
        ({"match": "first"}, "match is 'first'"),
        ({"match": "before"}, "time_column is None; name the column of the polygons that has their times"),
        ({"tolerance": "1D"}, "tolerance is '1D', but time_column is None"),
        ({"match": "latest", "time_column": "t", "limit": 2}, 'whatever the time of the polygon; use match="before"'),
        ({"match": "nearest", "time_column": "t", "tolerance": "soon"}, "tolerance is 'soon'"),
        ({"match": "nearest", "time_column": "t", "limit": 0}, "limit is 0; it has to be a whole number"),
        ({"min_valid": 0}, "min_valid is 0; it has to be a share of the pixels, more than 0 and at most 1"),
        ({"min_valid": 80}, "min_valid is 80; it has to be a share"),
        ({"min_valid": "half"}, "min_valid is 'half'"),
        ({"max_candidates": 0}, "max_candidates is 0; it has to be 1 or more"),
        (
            {"match": "latest", "max_candidates": 3},
            "max_candidates is 3, but skip_invalid is False, so the best record is taken; use skip_invalid=True, or "
            "leave max_candidates out",
        ),
        ({"skip_invalid": True}, "match is 'all', which takes every record; use match=\"latest\""),
        (
            {"skip_invalid": True, "match": "nearest", "time_column": "t", "limit": 2},
            "skip_invalid is True, but limit is 2",
        ),
        ({"scales": {"B1": (2, 0)}}, "unscale is False; scale the values with unscale=True"),
        ({"quality": ["SCL is cloudy"]}, "quality rule 'SCL is cloudy'"),
        ({"cache_bytes": 1 << 20}, "cache_bytes is 1048576; it has to be a whole number of at least 4194304"),
    ],
)
def test_values_that_cannot_be_used(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ChipOptions(**given)


def test_sampling_and_chips_share_options() -> None:
    shared = {each.name: each for each in options_of(JobOptions)}
    assert set(shared) == {"match", "time_column", "tolerance", "limit", "on_error", "cache_bytes"}
    for definition in (SampleOptions, ChipOptions):
        own = {each.name: each for each in options_of(definition) if each.name in shared}
        assert all(own[name] == shared[name] for name in shared if name != "time_column")
        assert own["time_column"].type == shared["time_column"].type


def test_dead_letters_take_what_is_left_to_choose() -> None:
    assert set(inspect.signature(ReadChipDeadLetters).parameters) == {
        "collection",
        "path",
        "on_error",
        "cache_bytes",
        "options",
    }


def test_numbers_of_numpy_are_taken() -> None:
    assert ChipOptions(fill=np.float32(1.5)).fill == 1.5
