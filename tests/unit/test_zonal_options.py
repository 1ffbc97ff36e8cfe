"""The options of zonal statistics: one definition, found in each face; and the schema of the rows."""

import inspect
from datetime import timedelta
from typing import Any

import pyarrow as pa
import pytest

from pipelines.zonal_statistics import parser
from rasteret_beam import ChipOptions, Collection, ZonalDeadLetters, ZonalOptions, ZonalStatistics
from rasteret_beam.errors import InputError
from rasteret_beam.option_fields import options_of
from rasteret_beam.polygon_options import PolygonOptions
from rasteret_beam.schema import zonal_schema
from templates.metadata import template


def test_each_option_is_in_each_face() -> None:
    transform = inspect.signature(ZonalStatistics.__init__).parameters
    eager = inspect.signature(Collection.zonal_statistics).parameters
    flags = {action.dest: action for action in parser()._actions}
    parameters = {each["name"]: each for each in template("zonal_statistics")["parameters"]}
    for each in options_of(ZonalOptions):
        assert transform[each.name].default == each.default
        assert (each.name in eager) == each.facts.eager
        if each.facts.flag == "":
            continue
        flag = each.facts.flag or each.name
        assert parameters[flag]["helpText"].casefold().startswith(each.facts.help[:20].casefold())
        if each.choices is not None:
            assert tuple(flags[flag].choices or ()) == each.choices
    assert "(default: count,mean)" in parser().format_help().replace("\n", " ").replace("  ", "")


def test_chips_and_zones_share_options() -> None:
    shared = {each.name: each for each in options_of(PolygonOptions)}
    assert {"quality", "skip_invalid", "min_valid", "scales", "on_invalid", "match"} <= set(shared)
    for definition in (ChipOptions, ZonalOptions):
        own = {each.name: each for each in options_of(definition)}
        assert all(own[name] == shared[name] for name in shared if name != "unscale")
        assert own["unscale"].type is bool
        assert list(own)[-2:] == ["on_invalid", "cache_bytes"]


def test_dead_letters_take_what_is_left_to_choose() -> None:
    taken = set(inspect.signature(ZonalDeadLetters).parameters)
    assert taken == {"collection", "path", "on_error", "cache_bytes", "options"}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"statistics": []}, "statistics are empty; give at least one, of count, valid_fraction, mean"),
        ({"statistics": "mean"}, "statistics are 'mean'; give a list of names"),
        ({"statistics": ["maen"]}, r"statistics have 'maen' \(did you mean 'mean'\?\)"),
        ({"statistics": ["mean", "mean"]}, "name each of them once"),
        ({"statistics": ["percentile_101"]}, "statistics have 'percentile_101'"),
        ({"coverage": "center"}, r"coverage is 'center'; it can be one of \('centre', 'all_touched', 'fraction'\)"),
        ({"merge": "date"}, "merge is 'date'; it can be one of"),
        ({"join": "outer"}, "join is 'outer'; it can be one of"),
        ({"overlap_tolerance": "soon"}, "overlap_tolerance is 'soon', which is not a length of time"),
        ({"extra_columns": ["href"]}, "for the column href of the collection give record:href"),
        ({"extra_columns": "record:a"}, "extra_columns are 'record:a'; give a list of names"),
        ({"extra_columns": 1}, "extra_columns are 1; give a list of names"),
        ({"extra_columns": ["record:a", "record:a"]}, "name each of them once"),
        ({"max_exact_values": 0}, "max_exact_values is 0; it has to be a whole number of pixels, 1 or more"),
        ({"max_exact_values": True}, "max_exact_values is True"),
        (
            {"merge": "datetime", "skip_invalid": True, "match": "latest"},
            "skip_invalid is True, but merge is 'datetime'",
        ),
        ({"merge": "datetime", "extra_columns": ["record:a"]}, "but merge is 'datetime': a row is of several records"),
        ({"scales": {"B1": (2, 0)}}, "unscale is False; scale the values with unscale=True"),
        ({"min_valid": 2}, "min_valid is 2; it has to be a share"),
    ],
)
def test_values_that_cannot_be_used(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ZonalOptions(**given)


def test_the_schema_follows_the_options() -> None:
    kept = [pa.field("crop", pa.string())]
    options = ZonalOptions(
        statistics=["count", "variety", "percentile_2.5"], coverage="fraction", extra_columns=["record:eo:cloud"]
    )
    schema = options.schema(kept, {"eo:cloud": pa.float32()})
    first = ["geometry_id", "record_id", "datetime", "collection", "band", "raster_crs"]
    assert schema.names == [*first, "count", "variety", "percentile_2.5", "record:eo:cloud", "crop"]
    assert [schema.field(name).type for name in ("geometry_id", "datetime", "raster_crs")] == [
        pa.int64(),
        pa.timestamp("us"),
        pa.int32(),
    ]
    assert [schema.field(name).type for name in schema.names[6:]] == [
        pa.float64(),  # a sum of shares
        pa.int64(),
        pa.float64(),
        pa.float32(),
        pa.string(),
    ]
    assert ZonalOptions().schema().field("count").type == pa.int64()
    assert ZonalOptions(merge="datetime").schema().names[6:] == ["records", "count", "mean"]


@pytest.mark.parametrize("name", ["mean", "raster_crs", "record:a"])
def test_a_kept_column_with_a_name_of_the_table_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=f"has column\\(s\\) {name}, but the polygon table has .*columns="):
        zonal_schema(["mean"], [pa.field(name, pa.string())], ["record:a"], {"a": pa.int8()})


def test_the_type_of_a_column_of_records_has_to_be_given() -> None:
    with pytest.raises(InputError, match=r"Collection.zonal_schema\(kept, options\) gives the schema"):
        ZonalOptions(extra_columns=["record:a"]).schema()


def test_dead_letters_carry_what_decides_about_rows() -> None:
    given = ZonalOptions(
        match="latest",
        statistics=["median"],
        coverage="fraction",
        quality=["SCL not in 8-10", "CLD <= 40"],
        unscale=True,
        scales={"B1": (2, 1)},
        overlap_tolerance="90s",
        skip_invalid=True,
        join="left",
    )
    again = ZonalOptions(cache_bytes=8 << 20, on_error="dead_letter").with_settings(given.settings())
    for name in ("statistics", "coverage", "quality", "unscale", "scales"):
        assert getattr(again, name) == getattr(given, name), name
    assert again.overlap_tolerance == timedelta(seconds=90)
    assert (again.cache_bytes, again.on_error, again.skip_invalid, again.join) == (
        8 << 20,
        "dead_letter",
        False,
        "inner",
    )
