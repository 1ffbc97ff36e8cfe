"""An option is defined once: signatures, flags, templates and docs follow from its field."""

import argparse
import inspect
import pickle
import re
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest

import rasteret_beam
from pipelines.cli.flags import Parser, option_flags, option_values
from rasteret_beam import (
    ChipOptions,
    Collection,
    KeyByRecordAndTile,
    Quality,
    SampleDeadLetters,
    SampleOptions,
    SamplePoints,
    SampleTiles,
    ZonalOptions,
)
from rasteret_beam.errors import InputError, UnknownOptionError
from rasteret_beam.kernels.routing.match import WAYS
from rasteret_beam.model import MatchRules
from rasteret_beam.option_fields import option, options_from, options_of, takes_options
from templates.metadata import parameter


@dataclass(frozen=True, kw_only=True)
class MoreOptions(SampleOptions):
    season: Literal["any", "summer"] = option("any", help="sample records of this season")
    buffer: int = option(0, help="pixels to leave out at edges", metavar="N", flag="buffer_pixels")
    labels: tuple[str, ...] = option((), help="labels of records", metavar="A,B")
    strict: bool = option(False, help="refuse doubtful records")


@takes_options(MoreOptions)
def sample(points: object, *, columns: object = None, **keywords: object) -> MoreOptions:
    """Sample.

    Parameters
    ----------
    <options>
    """
    return options_from(keywords, MoreOptions)


def test_a_new_field_is_a_keyword_argument() -> None:
    parameters = inspect.signature(sample).parameters
    assert list(parameters)[:2] == ["points", "columns"] and list(parameters)[-1] == "options"
    assert parameters["season"].default == "any" and parameters["season"].annotation == Literal["any", "summer"]
    assert all(each.kind is each.KEYWORD_ONLY for name, each in parameters.items() if name != "points")
    assert sample(1, season="summer", match="latest") == MoreOptions(season="summer", match="latest")
    assert sample(1, options=MoreOptions(buffer=2), strict=True) == MoreOptions(buffer=2, strict=True)
    assert '    season : "any", "summer", default \'any\'\n        Sample records of this season.\n' in sample.__doc__


def test_a_new_field_is_a_flag_and_a_parameter_of_the_template() -> None:
    parser = Parser("test", "Test.")
    option_flags(parser, MoreOptions)
    flags = parser.parse_args(["--season=summer", "--buffer_pixels", "3", "--labels=a,b", "--strict", "--cache_mb=8"])
    given = option_values(flags, MoreOptions)
    wanted = MoreOptions(season="summer", buffer=3, labels=["a", "b"], strict=True, cache_bytes=8 << 20)
    assert replace(MoreOptions(**given), labels=("a", "b")) == replace(wanted, labels=("a", "b"))
    assert option_values(parser.parse_args([]), MoreOptions)["season"] == "any"
    (action,) = [each for each in parser._actions if each.dest == "season"]
    assert parameter(parser, "sample_points", action) == {
        "name": "season",
        "label": "Season",
        "helpText": "Sample records of this season (default: any)",
        "isOptional": True,
        "regexes": ["^(any|summer)$"],
        "paramType": "ENUM",
        "enumOptions": [{"value": "any", "label": "any"}, {"value": "summer", "label": "summer"}],
        "defaultValue": "any",
    }


def test_rules_of_quality_in_flags() -> None:
    """The flag may be given several times, with several rules each; the template's parameter once."""
    parser = argparse.ArgumentParser()
    option_flags(parser, SampleOptions)
    words = ["--quality", "SCL not in 0,1,3,8-10;CLD <= 40", "--quality=preset:hls"]
    given = option_values(parser.parse_args(words), SampleOptions)
    wanted = (Quality("SCL", exclude=[0, 1, 3, 8, 9, 10]), Quality("CLD", maximum=40), Quality.preset("hls"))
    assert SampleOptions(**given).quality == wanted
    assert parser.parse_args(words[:2]).quality == [*wanted[:2]]
    assert parser.parse_args([]).quality is None
    (action,) = [each for each in parser._actions if each.dest == "quality"]
    parameter_of_template = parameter(parser, "sample_points", action)
    (pattern,) = parameter_of_template["regexes"]
    assert "defaultValue" not in parameter_of_template and parameter_of_template["paramType"] == "TEXT"
    assert re.match(pattern, words[1]) and not re.match(pattern, " ; ")


@pytest.mark.parametrize("definition", [SampleOptions, ChipOptions])
def test_each_matcher_can_be_chosen(definition: type) -> None:
    (match,) = [each for each in options_of(definition) if each.name == "match"]
    assert match.choices == WAYS


def test_flags_without_values_give_the_defaults() -> None:
    parser = argparse.ArgumentParser()
    option_flags(parser, SampleOptions)
    assert SampleOptions(**option_values(parser.parse_args([]), SampleOptions)) == SampleOptions()


@pytest.mark.parametrize("face", [SamplePoints, SampleTiles, KeyByRecordAndTile, Collection.sample_points])
def test_faces_take_all_options(face: object) -> None:
    parameters = inspect.signature(face).parameters
    for each in options_of(SampleOptions):
        if each.facts.eager or face is not Collection.sample_points:
            assert parameters[each.name].default == each.default and parameters[each.name].annotation == each.type


def test_dead_letters_take_what_is_left_to_choose() -> None:
    names = {each.name for each in options_of(SampleOptions)}
    assert set(inspect.signature(SampleDeadLetters).parameters) == {"collection", "path", "options"} | names - {
        "match",
        "tolerance",
        "limit",
        "overlap",
        "skip_invalid",
        "max_candidates",
        "layout",
    }


OPTIONAL = (
    "pixel_row, pixel_col, href, time_difference, status, distance, pixel_x, pixel_y, pixel_lon, pixel_lat, nodata, "
    "scale, offset, candidate"
)
THERE = f"{OPTIONAL}, record:NAME for a column of the collection, and BAND_record_id"

REFUSED = {
    "match": (
        {"match": "newest"},
        "match is 'newest'; it can be one of ('all', 'latest', 'nearest', 'before', 'after')",
    ),
    "a list": (
        {"match": ["all"]},
        "match is ['all']; it can be one of ('all', 'latest', 'nearest', 'before', 'after')",
    ),
    "switch": ({"prefix_reads": "no"}, "prefix_reads is 'no'; it has to be True or False"),
    "radius": ({"max_distance_pixels": -1}, "max_distance_pixels is -1; it has to be a whole number, 0 or more"),
    "radius too large": ({"max_distance_pixels": 5000}, "max_distance_pixels is 5000; the most are 4096"),
    "cache": ({"cache_bytes": 10}, "cache_bytes is 10; it has to be a whole number of at least 4194304"),
    "window": (
        {"return_neighbourhood": "always"},
        "return_neighbourhood is 'always', but max_distance_pixels is 0; give the radius of the window with "
        "max_distance_pixels",
    ),
    "column": (
        {"extra_columns": ["pixel"]},
        f"extra_columns have 'pixel' (did you mean 'pixel_y'?); there are {THERE}",
    ),
    "column as text": (
        {"extra_columns": "href"},
        f"extra_columns are 'href'; give a list of names, of {THERE}",
    ),
    "columns of nothing": (
        {"extra_columns": None},
        f"extra_columns are None; give a list of names, of {THERE}",
    ),
    "column of no record": ({"extra_columns": ["record:"]}, f"extra_columns have 'record:'; there are {THERE}"),
    "record of a band in its row": (
        {"extra_columns": ["B04_record_id"]},
        "layout is 'long', but extra_columns have 'B04_record_id'; each row of one band has its record in record_id",
    ),
    "column twice": ({"extra_columns": ["href", "href"]}, "extra_columns are href, href; name each of them once"),
    "column of a band": (
        {"extra_columns": ["href"], "layout": "values"},
        "layout is 'values', but extra_columns have 'href', which differs from band to band; use layout=\"long\"",
    ),
}


NAME_IT = "name the column of the points that has their times with time_column"
FORMS = (
    'which is not a length of time; give text such as "10D", "36h", "90min" or "30s", an ISO 8601 duration such as '
    '"P10D" or "PT36H", or a timedelta'
)
NEWEST = (
    "but match is 'latest', which takes the newest record whatever the time of the point; use match=\"before\", or "
    "leave "
)
WHEN = {"time_column": "when"}

REFUSED |= {
    "no time": ({"match": "nearest"}, f"match is 'nearest', but time_column is None; {NAME_IT}"),
    "no time before": ({"match": "before"}, f"match is 'before', but time_column is None; {NAME_IT}"),
    "time column": ({"time_column": 3}, "time_column is 3; it has to be the name of a column of the points"),
    "tolerance of no time": ({"tolerance": "10D"}, f"tolerance is '10D', but time_column is None; {NAME_IT}"),
    "tolerance of latest": (WHEN | {"match": "latest", "tolerance": "1h"}, f"tolerance is '1h', {NEWEST}tolerance out"),
    "limit of latest": (WHEN | {"match": "latest", "limit": 2}, f"limit is 2, {NEWEST}limit out"),
    "limit of no time": ({"limit": 2}, f"limit is 2, but time_column is None; {NAME_IT}"),
    "limit": (WHEN | {"limit": 0}, "limit is 0; it has to be a whole number of records, 1 or more"),
    "limit in words": (WHEN | {"limit": "two"}, "limit is 'two'; it has to be a whole number of records, 1 or more"),
    "no unit": (WHEN | {"tolerance": "10"}, f"tolerance is '10', {FORMS}"),
    "a number": (WHEN | {"tolerance": 10}, f"tolerance is 10, {FORMS}"),
    "months": (WHEN | {"tolerance": "P1M"}, f"tolerance is 'P1M', {FORMS}"),
    "NaT": (WHEN | {"tolerance": np.timedelta64("NaT", "s")}, f"tolerance is np.timedelta64('NaT','s'), {FORMS}"),
    "NumPy's months": (WHEN | {"tolerance": np.timedelta64(1, "M")}, f"tolerance is np.timedelta64(1,'M'), {FORMS}"),
    "negative": (
        WHEN | {"tolerance": "-36h"},
        "tolerance is '-36h', which is negative; it limits the distance to both sides: give 1 day, 12:00:00",
    ),
    "overlap": ({"overlap": "last"}, "overlap is 'last'; it can be one of ('all', 'first')"),
    "overlap_tolerance": ({"overlap_tolerance": None}, f"overlap_tolerance is None, {FORMS}"),
    "difference of no time": (
        {"extra_columns": ["time_difference"]},
        f"extra_columns have 'time_difference', but time_column is None; {NAME_IT}",
    ),
}


REFUSED |= {
    "scales of nothing": (
        {"scales": {"B04": (1, 0)}},
        "scales is {'B04': (1.0, 0.0)}, but unscale is False; scale the values with unscale=True, or leave scales out",
    ),
    "candidates without skip_invalid": (
        {"match": "latest", "max_candidates": 3},
        "max_candidates is 3, but skip_invalid is False, so the best record is taken; use skip_invalid=True, or leave "
        "max_candidates out",
    ),
    "limit above max_candidates": (
        {"match": "nearest", "time_column": "t", "skip_invalid": True, "max_candidates": 2, "limit": 3},
        "limit is 3, but max_candidates is 2: skip_invalid looks at no more records of a point; use "
        "max_candidates=3, or limit=2",
    ),
    "scales": (
        {"unscale": True, "scales": ["B04"]},
        "scales is ['B04']; give {\"B04\": (0.0001, -0.1)}, band to (scale, offset)",
    ),
    "unscale as text": ({"unscale": "yes"}, "unscale is 'yes'; it has to be True or False"),
    "unscale raw": (
        {"unscale": True, "value_type": "raw"},
        "unscale is True, but value_type is 'raw', the type of the stored numbers; use value_type=\"float64\" or "
        'value_type="float32"',
    ),
}


WINDOW = "give the pixels around the point with window_pixels=R, or the distance with radius=METRES"
MEAN = {"statistics": ["mean"]}

REFUSED |= {
    "statistics of no window": (
        {"statistics": ["mean", "std"]},
        f"statistics are mean, std, but neither window_pixels nor radius is given; {WINDOW}",
    ),
    "window of nothing": (
        {"window_pixels": 0},
        "window_pixels is 0, but statistics are not given; name them with statistics=[...]",
    ),
    "radius of nothing": (
        {"radius": 30},
        "radius is 30, but statistics are not given; name them with statistics=[...]",
    ),
    "two windows": (
        MEAN | {"window_pixels": 2, "radius": 30.5},
        "window_pixels is 2 and radius is 30.5; statistics have one window: give one",
    ),
    "negative window": (MEAN | {"window_pixels": -1}, "window_pixels is -1; it has to be a whole number, 0 or more"),
    "window in metres": (
        MEAN | {"window_pixels": 2.5},
        "window_pixels is 2.5; it has to be a whole number, 0 or more",
    ),
    "window too large": (MEAN | {"window_pixels": 4097}, "window_pixels is 4097; the most are 4096"),
    "no radius": (MEAN | {"radius": 0}, "radius is 0; it has to be a number of metres above 0"),
    "endless radius": (MEAN | {"radius": float("inf")}, "radius is inf; it has to be a number of metres above 0"),
    "radius as text": (MEAN | {"radius": "50m"}, "radius is '50m'; it has to be a number of metres above 0"),
    "radius is NaN": (MEAN | {"radius": float("nan")}, "radius is nan; it has to be a number of metres above 0"),
    "statistic twice": (
        {"statistics": ["mean", "mean"], "radius": 3},
        "statistics are mean, mean; name each of them once",
    ),
}


def test_windows_of_statistics() -> None:
    assert SampleOptions(statistics=["mean"], window_pixels=0).window_pixels == 0
    made = SampleOptions(statistics=("mean", "std"), radius=np.float32(30))
    assert made == SampleOptions(statistics=["mean", "std"], radius=30) and type(made.radius) is float
    assert made.uses_validity and not made.needs_status
    assert pickle.loads(pickle.dumps(made)) == made and len({made, replace(made, radius=30.0)}) == 1


def test_statistics_in_flags() -> None:
    parser = argparse.ArgumentParser()
    option_flags(parser, SampleOptions)
    words = ["--statistics=mean,percentile_97.5", "--radius", "30.5"]
    made = SampleOptions(**option_values(parser.parse_args(words), SampleOptions))
    assert made == SampleOptions(statistics=["mean", "percentile_97.5"], radius=30.5)
    forms = {
        action.dest: parameter(parser, "sample_points", action)["regexes"][0]
        for action in parser._actions
        if action.dest in ("statistics", "window_pixels", "radius")
    }
    for name, good, bad in (
        ("statistics", ["mean", "mean,percentile_97.5"], ["", "mean,", "mean std"]),
        ("window_pixels", ["0", "12"], ["-1", "1.5"]),
        ("radius", ["30", "30.5", ".5"], ["-3", "30m", "."]),
    ):
        assert all(re.match(forms[name], each) for each in good) and not any(
            re.match(forms[name], each) for each in bad
        )


@pytest.mark.parametrize("case", REFUSED)
def test_values_that_cannot_be_used(case: str) -> None:
    given, message = REFUSED[case]
    with pytest.raises(InputError) as raised:
        SampleOptions(**given)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    "given",
    [
        "36h",
        "36 H",
        "1.5D",
        "1D12h",
        "1 day 12 hours",
        "2160min",
        "129600s",
        "PT36H",
        "P1DT12H",
        "p1,5d",
        timedelta(hours=36),
        np.timedelta64(36, "h"),
        np.timedelta64(36 * 3_600_000_000_000, "ns"),
        pd.Timedelta("36h"),
    ],
)
def test_lengths_of_time(given: object) -> None:
    """Options with one length in several forms are equal, and can be pickled and hashed."""
    made = SampleOptions(match="nearest", time_column="when", tolerance=given)
    assert made == SampleOptions(match="nearest", time_column="when", tolerance=timedelta(hours=36))
    assert type(made.tolerance) is timedelta and made.match_rules.tolerance == 36 * 3_600_000_000
    assert pickle.loads(pickle.dumps(made)) == made and len({made, replace(made, tolerance="36h")}) == 1


def test_options_with_scales_are_values() -> None:
    """They can be hashed and pickled; the mapping that is given may change afterwards."""
    given = {"B08": (1e-4, -0.1), "B04": (1, 2)}
    made = SampleOptions(unscale=True, scales=given)
    given["B08"] = (0, 0)
    assert dict(made.scales) == {"B04": (1.0, 2.0), "B08": (0.0001, -0.1)} and made.needs_status
    assert pickle.loads(pickle.dumps(made)) == made and len({made, replace(made, unscale=True)}) == 1
    assert SampleOptions().scales == {} and not SampleOptions().needs_status


def test_options_that_do_not_go_by_time() -> None:
    """With the name of the column alone, time decides nothing."""
    assert SampleOptions(time_column="when").match_rules == MatchRules()
    assert SampleOptions(match="latest", time_column="when").match_rules == MatchRules("latest")
    assert SampleOptions(time_column="when", tolerance="0s").match_rules == MatchRules("all", "when", 0)
    assert SampleOptions(overlap="first", overlap_tolerance="2s").match_rules == MatchRules(
        overlap="first", overlap_tolerance=2_000_000
    )


QUALITY = [Quality("SCL", keep=[4], missing="pass"), Quality("CLD", maximum=40)]


@pytest.mark.parametrize(
    ("given", "places", "with_quality"),
    [
        ({}, "", "record"),
        ({"invalid": "null"}, "", "record"),
        ({"invalid": "drop"}, "point", "point"),
        ({"join": "left"}, "point", "point"),
        ({"match": "latest"}, "", "point"),
        ({"match": "latest", "skip_invalid": True}, "point", "point"),
        ({"time_column": "when", "tolerance": "1D"}, "", "record"),
        ({"time_column": "when", "limit": 2}, "", "point"),
        ({"match": "nearest", "time_column": "when"}, "", "point"),
        ({"overlap": "first"}, "", "point"),
        ({"layout": "columns"}, "", "record"),
    ],
)
def test_options_that_key_points_by_place(given: dict[str, Any], places: str, with_quality: str) -> None:
    rules = SampleOptions(**given).match_rules
    others = SampleOptions(**given, quality=QUALITY, extra_columns=["status"]).match_rules
    if "invalid" not in given and "skip_invalid" not in given:  # the rules alone change no row
        assert SampleOptions(**given, quality=QUALITY).match_rules.places == places
    assert (rules.places, others.places) == (places, with_quality)
    assert (rules.quality_bands, others.quality_bands) == ([], ["SCL", "CLD"])
    assert rules.wide == (given.get("layout") == "columns")
    assert rules.candidates == (10 if given.get("skip_invalid") else None)


def test_unknown_and_wrong_arguments() -> None:
    with pytest.raises(UnknownOptionError, match=r"^sample has no option 'seson' \(did you mean 'season'\?\); it has "):
        sample(1, seson="any")
    with pytest.raises(UnknownOptionError, match=r"^SamplePoints has no option 'mach' \(did you mean 'match'\?\)"):
        SamplePoints(None, ["a"], mach="all")
    with pytest.raises(InputError, match=r"^options are a dict; give MoreOptions\(\.\.\.\)$"):
        sample(1, options={"match": "all"})


def test_help_names_each_optional_column() -> None:
    (each,) = [each for each in options_of(SampleOptions) if each.name == "extra_columns"]
    assert each.facts.help.startswith(f"add columns to the sample table, of {OPTIONAL}, record:NAME")


@pytest.mark.parametrize("name", ["SamplePoints", "SampleDeadLetters", "ReadChips"])
def test_docstrings_of_transforms_list_their_options(name: str) -> None:
    text = inspect.getdoc(getattr(rasteret_beam, name))
    assert "<options>" not in text
    assert (
        "max_chip_pixels : int, default " if name == "ReadChips" else "max_distance_pixels : int, default 0"
    ) in text
    assert ("match : " in text) == (name != "SampleDeadLetters")


@pytest.mark.parametrize(
    "definition, given",
    [
        (SampleOptions, {"match": "latest", "skip_invalid": True, "max_candidates": 4, "cache_bytes": 8 << 20}),
        (SampleOptions, {"time_column": "t", "match": "nearest", "limit": 2, "max_distance_pixels": 3}),
        (SampleOptions, {"statistics": ("mean",), "radius": 20.5, "resampling": "nearest"}),
        (SampleOptions, {"statistics": ("mean",), "window_pixels": 2, "layout": "long"}),
        (ChipOptions, {"max_chip_pixels": 100, "fill": 7, "all_touched": True, "min_valid": 0.5}),
        (ZonalOptions, {"max_exact_values": 100, "min_valid": 0.5, "skip_invalid": False}),
    ],
)
def test_scalars_of_numpy_are_those_of_python(definition: type, given: dict[str, Any]) -> None:
    """As ``table.column.max()`` gives them."""
    kinds = {bool: np.bool_, int: np.int32, float: np.float64, str: np.str_}
    made = definition(**{k: kinds[type(v)](v) if type(v) in kinds else v for k, v in given.items()})
    assert made == definition(**given)
    assert {name: type(getattr(made, name)) for name in given} == {name: type(value) for name, value in given.items()}
