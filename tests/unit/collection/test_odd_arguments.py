"""Odd arguments between ``load`` and ``sample_points``: a result that is right, or one error in the caller's words."""

import inspect
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import shapely

import rasteret_beam
from rasteret_beam import Access, Collection, build_from_cogs, build_from_table, load
from rasteret_beam.collection import catalogue
from rasteret_beam.collection.filters import empty_subset
from rasteret_beam.errors import CollectionError, InputError, MissingInputError, OutputError, UnknownOptionError

XY = {"x_column": "x", "y_column": "y", "geometry_crs": 32631}


@pytest.fixture(scope="module")
def folder(scenes: Collection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "scenes"
    scenes.export(path)
    return path


@pytest.fixture(scope="module", params=["in memory", "on disk"])
def collection(request: pytest.FixtureRequest, scenes: Collection, folder: Path) -> Collection:
    return scenes if request.param == "in memory" else load(folder)


@pytest.fixture(scope="module")
def two() -> pa.Table:
    return pa.table({"x": [500_100.0, 501_000.0], "y": [5_399_900.0, 5_399_000.0]})


def ids(collection: Collection) -> list[str]:
    return sorted(collection.to_table(["id"])["id"].to_pylist())


# Names of bands and records


@pytest.mark.parametrize(
    "bands",
    ["B10", ["B10"], ("B10",), np.array(["B10"]), pa.array(["B10"]), pd.Series(["B10"]), (band for band in ["B10"])],
    ids=lambda bands: type(bands).__name__,
)
def test_bands_as_any_sequence_of_texts(scenes: Collection, two: pa.Table, bands: Any) -> None:
    rows = scenes.sample_points(two, bands, **XY)
    assert set(rows["band"].to_pylist()) == {"B10"}
    assert rows.num_rows == 6


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        ([], "bands are empty; give at least one band"),
        (["B10", "B10"], "and each band once"),
        (["b10"], r"lacks band\(s\) b10 \(did you mean 'B10'\?\); it has B10, B20"),
        (["B10", "B21"], r"lacks band\(s\) B21 \(did you mean 'B20'\?\)"),
        ("B10,B20", r"lacks band\(s\) B10,B20"),
        (None, "bands are a NoneType"),
        (5, "bands are a int"),
        ([5], "bands have 5, a int"),
        ([None], "bands have None"),
        (b"B10", "bands are a bytes"),
        ({"B10"}, "bands is a set, which has no order"),
    ],
    ids=str,
)
def test_bands_that_cannot_be_used(collection: Collection, two: pa.Table, bands: Any, message: str) -> None:
    for face in (collection.sample_points, collection.plan):
        with pytest.raises(InputError, match=message):
            face(two, bands, **XY)
    with pytest.raises(InputError, match=message):
        collection.get_numpy((3.01, 48.74, 3.011, 48.741), bands)


@pytest.mark.parametrize(
    "wanted",
    ["P0_0", ["P0_0", "gone"], {"P0_0"}, np.array(["P0_0"]), pa.array(["P0_0"]), pa.chunked_array([["P0_0"]])],
    ids=lambda given: type(given).__name__,
)
def test_ids_as_any_iterable_of_texts(collection: Collection, wanted: Any) -> None:
    assert ids(collection.subset(ids=wanted)) == ["P0_0"]


@pytest.mark.parametrize(
    ("criteria", "message"),
    [
        ({"ids": 5}, "ids are a int"),
        ({"ids": [5]}, "ids have 5, a int"),
        ({"ids": [None]}, "ids have None"),
        ({"ids": b"P0_0"}, "ids are a bytes"),
        ({"ids": [["P0_0"]]}, r"ids have \['P0_0'\], a list"),
        ({"cloud_cover_lt": "10"}, "cloud_cover_lt is '10'; it has to be a number"),
        ({"cloud_cover_lt": float("nan")}, "cloud_cover_lt is nan"),
        ({"cloud_cover_lt": True}, "cloud_cover_lt is True"),
        ({"cloud_cover_lt": [1]}, r"cloud_cover_lt is \[1\]"),
        ({"bbox": "3,48,4,49"}, "bbox is '3,48,4,49'"),
        ({"bbox": (3, 48, 4, float("nan"))}, "bbox is"),
        ({"geometries": shapely.box(3, 200, 4, 201)}, "the box of a geometry is"),
        ({"geometries": 5}, "geometries are a int"),
    ],
    ids=str,
)
def test_criteria_that_cannot_be_used(collection: Collection, criteria: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        collection.subset(**criteria)


def test_criteria_whose_column_is_missing(scenes: Collection) -> None:
    other = Collection.from_table(scenes.to_table().drop_columns(["eo:cloud_cover", "bbox"]))
    for criterion, column in (({"cloud_cover_lt": 5}, "eo:cloud_cover"), ({"bbox": (3, 48, 4, 49)}, "bbox")):
        with pytest.raises(
            InputError, match=f"{next(iter(criterion))} needs column {column}, which the collection lacks"
        ):
            other.subset(**criterion)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        (pc.field("cloud") < 5, r"cannot be used: .*cloud.*; the collection has columns .*eo:cloud_cover"),
        (pc.field("id") == 1, "cannot be used"),
        (pc.field("bbox", "xmin") > "a", "cannot be used"),
        (pc.field("assets", "nope", "href") == "a", "cannot be used"),
        (pc.field("id"), "cannot be used"),
        ("id = 'a'", "where takes an Arrow expression, .* not a str"),
        (None, "not a NoneType"),
        (True, "not a bool"),
    ],
    ids=str,
)
def test_conditions_that_cannot_be_used(collection: Collection, expression: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        collection.where(expression)
    assert "\n" not in str(caught.value)


# Options


@pytest.mark.parametrize(
    ("method", "option", "near"),
    [
        ("sample_points", "max_distance_pixel", "max_distance_pixels"),
        ("sample_points", "Match", "match"),
        ("sample_points", "box", "bbox"),
        ("plan", "mtch", "match"),
        ("get_numpy", "all_touch", "all_touched"),
        ("subset", "date_rnge", "date_range"),
    ],
)
def test_an_unknown_option_is_answered_in_the_name_of_its_function(
    scenes: Collection, two: pa.Table, method: str, option: str, near: str
) -> None:
    arguments = [] if method == "subset" else [two, ["B10"]]
    message = rf"^{method} has no option '{option}' \(did you mean '{near}'\?\); it has .*{near}"
    with pytest.raises(UnknownOptionError, match=message):
        getattr(scenes, method)(*arguments, **{option: 1})
    with pytest.raises(TypeError):
        getattr(scenes, method)(*arguments, **{option: 1})


def test_the_module_function_has_the_same_answer(scenes: Collection, two: pa.Table) -> None:
    with pytest.raises(UnknownOptionError, match=r"^plan has no option 'bands_' \(did you mean 'bands'\?\)"):
        rasteret_beam.plan(scenes, two, ["B10"], bands_=1)


@pytest.mark.parametrize("method", ["sample_points", "plan", "get_numpy", "subset"])
def test_signatures_name_every_option(method: str) -> None:
    parameters = inspect.signature(getattr(Collection, method)).parameters.values()
    assert all(parameter.kind is not inspect.Parameter.VAR_KEYWORD for parameter in parameters)
    assert all(parameter.annotation is not inspect.Parameter.empty for parameter in list(parameters)[1:])


@pytest.mark.parametrize("option", ["prefix_reads", "return_unsampled"])
@pytest.mark.parametrize("value", ["no", 0, None])
def test_switches_take_true_or_false(scenes: Collection, two: pa.Table, option: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"{option} is {value!r}; it has to be True or False"):
        scenes.sample_points(two, ["B10"], **XY, **{option: value})


def test_filters_that_are_none_are_passed_over(scenes: Collection, two: pa.Table) -> None:
    rows = scenes.sample_points(two, ["B10"], **XY, bbox=None, date_range=None, ids=["P0_0"])
    assert set(rows["record_id"].to_pylist()) == {"P0_0"}
    assert scenes.plan(two, ["B10"], **XY, bbox=None).num_rows > 0


# Subsets without a record


EXCHANGED = "but some do with x and y exchanged: x has to be the longitude"


@pytest.mark.parametrize(
    ("criterion", "words"),
    [
        ({"bbox": (48, 3, 49, 4)}, r"\(48, 3, 49, 4\) .*" + EXCHANGED),
        ({"geometries": shapely.box(48, 3, 49, 4)}, EXCHANGED),
        ({"geometries": (48, 3, 49, 4)}, EXCHANGED),
        ({"bbox": (10, 50, 11, 51)}, r"\(10, 50, 11, 51\) .*; the records lie in \(3, 48.7"),
        ({"geometries": shapely.Point(10, 50)}, "the records lie in"),
    ],
    ids=str,
)
def test_a_box_without_a_record_is_warned_of(
    collection: Collection, criterion: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture, two: pa.Table
) -> None:
    with caplog.at_level(logging.WARNING):
        empty = collection.subset(**criterion)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert len(empty) == 0
    with pytest.raises(InputError, match=f"has no records after subset and where: no record intersects .*{words}"):
        empty.sample_points(two, ["B10"], **XY)


def test_a_box_with_records_is_not_warned_of(collection: Collection, caplog: pytest.LogCaptureFixture) -> None:
    assert len(collection.subset(bbox=(3, 48, 4, 49))) == 6
    assert len(collection.subset(bbox=(170, 48, 3.01, 49))) == 3  # across the antimeridian
    assert len(collection.subset(date_range="1990")) == 0
    assert not caplog.records


def test_a_large_collection_is_looked_into_when_it_is_used(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, two: pa.Table
) -> None:
    monkeypatch.setattr(empty_subset, "SMALL", 0)
    empty = load(folder).subset(bbox=(48, 3, 49, 4))
    assert not caplog.records
    with pytest.raises(InputError, match=EXCHANGED):
        empty.plan(two, ["B10"], **XY)


def test_a_polygon_with_exchanged_coordinates(scenes: Collection) -> None:
    with pytest.raises(InputError, match=r"overlaps no record.* It does with x and y exchanged"):
        scenes.get_numpy((48.74, 3.01, 48.741, 3.011), ["B10"])


# Empty collections


def test_an_empty_collection(collection: Collection, two: pa.Table, tmp_path: Path) -> None:
    empty = collection.subset(ids="none")
    assert (len(empty), empty.to_table().num_rows, empty.bounds, empty.crs) == (0, 0, None, [])
    assert empty.describe()["records"] == 0
    empty.check_files()
    for job in (
        lambda: empty.sample_points(two, ["B10"], **XY),
        lambda: empty.plan(two, ["B10"], **XY),
        lambda: empty.get_numpy((3, 48, 4, 49), ["B10"]),
        lambda: empty.export(tmp_path / "empty"),
    ):
        with pytest.raises(InputError, match="has no records"):
            job()
    assert not (tmp_path / "empty").exists()


# Options of points and chips


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x_column": []}, r"\[\] is given as a column; give its name"),
        ({"y_column": {"y": 1}}, r"\{'y': 1\} is given as a column"),
        ({"x_column": None, "y_column": None, "geometry_column": ["g"]}, r"\['g'\] is given as a column"),
        ({"columns": 5}, "columns is 5; give a list of names of columns"),
        ({"columns": 0}, "columns is 0; give a list of names of columns"),
        ({"columns": b"x"}, "columns is b'x'; give a list of names"),
        ({"columns": [None]}, "columns hold None"),
        ({"columns": "plot"}, "the point table has no column 'plot'"),
        ({"max_distance_pixels": 1 << 70}, "max_distance_pixels is 1180591620717411303424; the most are 4096"),
    ],
    ids=str,
)
def test_options_of_points_that_cannot_be_used(
    scenes: Collection, two: pa.Table, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        scenes.sample_points(two, ["B10"], **(XY | options))


def test_one_column_to_keep(scenes: Collection, two: pa.Table) -> None:
    table = two.append_column("plot", pa.array(["a", "b"]))
    names = scenes.sample_points(table, ["B10"], **XY, columns="plot").column_names
    assert "plot" in names and names == scenes.sample_points(table, ["B10"], **XY, columns=["plot"]).column_names


@pytest.mark.parametrize("fill", [1 << 70, -(1 << 70), 10**400], ids=["2^70", "-2^70", "10^400"])
def test_a_fill_that_no_band_holds(scenes: Collection, fill: int) -> None:
    with pytest.raises(InputError, match=r"fill is .*, which (uint16 cannot hold; give a fill that it can|no band)"):
        scenes.get_numpy((3.01, 48.74, 3.011, 48.741), ["B10"], fill=fill)


@pytest.mark.parametrize(("option", "value"), [("name", 5), ("name", b"x"), ("access", "x"), ("access", True)])
def test_options_of_load_that_cannot_be_used(scenes: Collection, tmp_path: Path, option: str, value: Any) -> None:
    scenes.export(tmp_path / "c.parquet")
    with pytest.raises(InputError, match=f"{option} is {value!r}; give"):
        load(tmp_path / "c.parquet", **{option: value})


# Builds


@pytest.mark.parametrize("hrefs", [None, 5, b"a.tif", [None], [5], [b"a.tif"], [""], ["a.tif", " "]], ids=repr)
def test_what_is_no_raster_file(hrefs: Any) -> None:
    with pytest.raises(InputError, match=r"hrefs is .*; give a path"):
        build_from_cogs(hrefs, on_error="skip")


@pytest.mark.parametrize("kind", [pa.array, np.array, pd.Series, lambda paths: pa.chunked_array([paths]), iter])
def test_raster_files_in_any_sequence(scenes: Collection, kind: Callable[[list[str]], Any]) -> None:
    href = scenes.to_table()["assets"][0].as_py()["B10"]["href"]
    assert len(build_from_cogs(kind([href]))) == 1


@pytest.mark.parametrize("on_error", ["Skip", "ignore", None, True, ""], ids=repr)
def test_what_to_do_about_files_that_fail(on_error: Any) -> None:
    for build in (build_from_cogs, build_from_table):
        with pytest.raises(InputError, match=r'on_error is .*; it has to be "raise" or "skip"'):
            build([], on_error=on_error)


# Where collections are loaded from and exported to


@pytest.mark.parametrize("place", [None, 5, "", " ", b"c", ["c"]], ids=repr)
def test_what_is_no_place(scenes: Collection, place: Any) -> None:
    with pytest.raises(InputError, match="path_or_dataset_id is"):
        load(place)
    with pytest.raises(InputError, match="path is"):
        scenes.export(place)


def test_places_without_a_collection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInputError, match=r"empty has no Parquet files\. Build .* build_from_cogs"):
        load(tmp_path / "empty")
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "a.csv").write_text("x,y\n")
    (tmp_path / "tables" / "b.tif").write_bytes(b"II*\0")
    with pytest.raises(MissingInputError, match=r"tables has no Parquet files; it has a\.csv, b\.tif\. Build"):
        load(tmp_path / "tables")
    with pytest.raises(CollectionError, match=r"b\.tif cannot be read as Parquet"):
        load(tmp_path / "tables" / "b.tif")
    with pytest.raises(MissingInputError, match=r"no file or folder .*/tabels \(did you mean '.*/tables'\?\)"):
        load(tmp_path / "tabels")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        MissingInputError, match=r"no file or folder 'tabels', .* \(did you mean 'tables'\?\); known ids"
    ):
        load("tabels")
    with pytest.raises(MissingInputError, match=r"no dataset with that id \(did you mean 'aef/v1-annual'\?\)"):
        load("aef/v1-anual")


def test_a_table_of_samples_is_no_collection(scenes: Collection, two: pa.Table, tmp_path: Path) -> None:
    pq.write_table(scenes.sample_points(two, ["B10"], **XY), tmp_path / "samples.parquet")
    with pytest.raises(CollectionError, match=r"samples\.parquet is not a collection: it lacks column\(s\) id, "):
        load(tmp_path / "samples.parquet")


@pytest.mark.parametrize("name", ["a-first.parquet", "year=2023/month=4/z.parquet", "zz-last.parquet"])
def test_a_stray_table_in_the_folder_is_named(scenes: Collection, two: pa.Table, tmp_path: Path, name: str) -> None:
    scenes.export(tmp_path / "c")
    pq.write_table(scenes.sample_points(two, ["B10"], **XY), tmp_path / "c" / name)
    for job in (
        lambda: len(load(tmp_path / "c")),
        lambda: load(tmp_path / "c").to_table(),
        lambda: load(tmp_path / "c").describe(),
        lambda: load(tmp_path / "c").sample_points(two, ["B10"], **XY),
        lambda: load(tmp_path / "c").plan(two, ["B10"], **XY),
    ):
        with pytest.raises(
            CollectionError, match=rf"{name} is not a file of a collection: it lacks .*id, assets; .* Move"
        ):
            job()


@pytest.mark.parametrize("name", ["notes.csv", "raster.tif", "year=2023/README.md"])
def test_other_files_in_the_folder_are_left_out_with_a_warning(
    scenes: Collection, two: pa.Table, tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    scenes.export(tmp_path / "c")
    (tmp_path / "c" / name).write_text("x")
    assert ids(load(tmp_path / "c")) == ids(scenes)
    assert f"ignoring 1 file(s) of the collection {tmp_path / 'c'}" in caplog.text
    assert name in caplog.text


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", "_temporary/0", "more.new-1a2b3c4d", ".part-0.parquet"])
def test_hidden_files_do_not_count(
    scenes: Collection, tmp_path: Path, hidden: str, caplog: pytest.LogCaptureFixture
) -> None:
    scenes.export(tmp_path / "c")
    copy = tmp_path / "c" / hidden
    copy = copy if hidden.endswith(".parquet") else copy / "part-0.parquet"
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(next((tmp_path / "c" / "year=2023" / "month=4").iterdir()).read_bytes())
    assert ids(load(tmp_path / "c")) == ids(scenes)
    assert not caplog.records


def test_export_leaves_other_files_alone(scenes: Collection, tmp_path: Path) -> None:
    def refused(place: Path, message: str) -> None:
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(OutputError, match=message):
            scenes.export(place)
        assert sorted(tmp_path.rglob("*")) == before

    scenes.export(tmp_path / "projects" / "one")
    refused(tmp_path / "projects", "has collections in its subfolders, so it is not replaced")
    (tmp_path / "projects" / "one" / "notes.txt").write_text("mine")
    refused(
        tmp_path / "projects" / "one",
        r"files that do not belong to a collection, such as notes\.txt, so it is not replaced",
    )
    (tmp_path / "projects" / "one" / "notes.txt").unlink()
    (tmp_path / "projects" / "one" / ".git").mkdir()
    (tmp_path / "projects" / "one" / ".git" / "config").write_text("mine")
    refused(tmp_path / "projects" / "one", r"such as \.git/config")
    (tmp_path / "raster.tif").write_text("mine")
    refused(tmp_path / "raster.tif", r"such as raster\.tif")


def test_export_onto_itself(scenes: Collection, tmp_path: Path) -> None:
    for place in (tmp_path / "c", tmp_path / "c.parquet"):
        scenes.export(place)
        load(place).subset(ids=["P0_0", "P0_1"]).export(place)
        load(place).export(place)
        assert ids(load(place)) == ["P0_0", "P0_1"]


def test_columns_of_a_table(scenes: Collection) -> None:
    assert scenes.to_table("id").column_names == ["id"]
    with pytest.raises(InputError, match="columns have 5"):
        scenes.to_table([5])
    for table in (None, {"id": ["a"]}, 5):
        with pytest.raises(InputError, match="table is a"):
            Collection.from_table(table)


# The catalogue


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own catalogue, which is still to be written."""
    monkeypatch.setattr(catalogue, "_registered", {})
    monkeypatch.setenv(catalogue.FILE_VARIABLE, str(tmp_path / "c.json"))
    return tmp_path / "c.json"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "is not JSON"),
        (b"null", "it has to map ids to entries"),
        (b"\xff\xfe", "cannot be read"),
        (b'{"a/b": null}', "has no text 'data'"),
        (b'{"a/b": {"data": 5}}', "has no text 'data'"),
        (b'{"a/b": {"data": " "}}', "has no text 'data'"),
        (b'{"a/b": {"data": "x", "region": 5}}', "entry 'a/b' of catalogue .*c.json: region is 5; it has to be a text"),
        (b'{"a/b": {"data": "x", "anonymous": "yes"}}', "anonymous is 'yes'; it has to be true or false"),
        (b'{"a/b": {"data": "x", "endpoint": "ftp"}}', "entry 'a/b' of catalogue .*c.json: endpoint is 'ftp'"),
        (b'{"a/b": {"data": "x", "requester_pays": 1}}', "requester_pays is 1"),
        (b'{"a/b": {"data": "x", "name": ["y"]}}', r"name is \['y'\]"),
        (b'{"": {"data": "x"}}', "dataset id '' looks like a path"),
        (b'{"./a": {"data": "x"}}', "dataset id './a' looks like a path"),
    ],
)
def test_a_catalogue_that_cannot_be_used(file: Path, text: bytes, message: str) -> None:
    file.write_bytes(text)
    with pytest.raises(InputError, match=message):
        load("some/id")


def test_a_misspelt_key_of_the_catalogue_is_warned_of(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.write_text('{"a/b": {"data": "/x", "anonymus": true, "bands": ["A"], "licence": "CC0"}}')
    assert catalogue.entries()["a/b"].access == Access()
    assert [record.getMessage() for record in caplog.records] == [
        f"key 'anonymus' of entry 'a/b' of catalogue {file} is not used (did you mean 'anonymous'?)"
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"id": 5}, "dataset id is 5, a int"),
        ({"id": " "}, "dataset id ' ' looks like a path"),
        ({"path": None}, "path is None"),
        ({"path": ""}, "path is ''"),
        ({"name": 5}, "name is 5"),
        ({"anonymous": "yes"}, "anonymous is 'yes'"),
        ({"region": 5}, "region is 5"),
        ({"endpoint": 5}, "endpoint is 5"),
        ({"requester_pays": 5}, "requester_pays is 5"),
    ],
    ids=str,
)
def test_what_cannot_be_registered(file: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        rasteret_beam.register(**({"id": "team/plots", "path": "/data"} | arguments))
    assert not catalogue._registered


@pytest.mark.parametrize("field", [{"anonymous": "x"}, {"region": 5}, {"endpoint": 5}, {"requester_pays": 5}], ids=str)
def test_access_of_odd_values(field: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(field))} is "):
        Access(**field)
