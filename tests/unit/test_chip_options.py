"""The options of chips: one definition, found in each face."""

import inspect
from typing import Any

import numpy as np
import pytest

from pipelines.read_chips import parser
from rasteret_beam import ChipOptions, Collection, ReadChips
from rasteret_beam.errors import InputError
from rasteret_beam.options import options_of
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
        assert flags[each.name].default == each.default
        assert parameters[each.name]["helpText"].casefold().startswith(each.facts.help[:20].casefold())
        if each.choices is not None:
            assert tuple(flags[each.name].choices or ()) == each.choices


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
    ],
)
def test_values_that_cannot_be_used(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ChipOptions(**given)


def test_numbers_of_numpy_are_taken() -> None:
    assert ChipOptions(fill=np.float32(1.5)).fill == 1.5
