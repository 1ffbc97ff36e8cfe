"""Pictures of samples: what the artists of Matplotlib hold, against pandas and NumPy."""

import sys
from collections.abc import Iterator
from typing import Any

import matplotlib
import matplotlib.dates
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from rasteret_beam import plot
from rasteret_beam.errors import InputError, MissingInputError
from rasteret_beam.matplotlib_axes import NOTE

matplotlib.use("agg")
DATES = np.array(["2021-05-01T10:00:02", "2021-05-01T10:00:07", "2022-05-03T10:00:00", "2023-05-02T10:00:00"], "M8[us]")
FIELDS = ["east", "north", "west"]
BANDS = ["B04", "B08"]


@pytest.fixture(autouse=True)
def no_figures() -> Iterator[None]:
    yield
    matplotlib.pyplot.close("all")


def frame(points: int = 30) -> pd.DataFrame:
    """Samples in the long layout: two bands, four dates, some invalid ones."""
    rng = np.random.default_rng(5)
    index, when, band = (part.ravel() for part in np.meshgrid(np.arange(points), range(4), range(2), indexing="ij"))
    x, y = rng.uniform(500_000, 501_000, points), rng.uniform(5_000_000, 5_002_000, points)
    status = rng.choice(["valid", "nodata", "masked", "filled"], len(index), p=[0.6, 0.2, 0.1, 0.1])
    status[index == 7] = "masked"
    value = np.where(status == "nodata", -9999.0, rng.normal(100, 20, len(index)))
    return pd.DataFrame(
        {
            "point_index": index,
            "point_x": x[index],
            "point_y": y[index],
            "point_crs": pd.array([32631] * len(index), "Int32"),
            "record_id": [f"r{n}" for n in when],
            "datetime": DATES[when],
            "collection": "c",
            "band": np.array(BANDS)[band],
            "value": value,
            "raster_crs": pd.array([32631] * len(index), "Int32"),
            "status": status,
            "field": np.array(FIELDS)[index % 3],
        }
    )


def wide(long: pd.DataFrame, layout: str) -> pa.Table:
    """The same samples with a row for each point and record, each band valid if both are."""
    keys = ["point_index", "point_x", "point_y", "point_crs", "record_id", "datetime", "collection", "field"]
    values = long.pivot(index=keys, columns="band", values="value").reset_index()
    bad = ~long.assign(ok=long.status.isin(["valid", "filled"])).groupby(keys).ok.all().to_numpy()
    table = pa.Table.from_pandas(values[keys[:-1]], preserve_index=False)
    if layout == "columns":
        for band in BANDS:
            table = table.append_column(band, pa.array(values[band]))
    else:
        flat = pa.array(values[BANDS].to_numpy().ravel())
        table = table.append_column("values", pa.FixedSizeListArray.from_arrays(flat, 2))
    table = table.append_column("raster_crs", pa.array(np.full(len(table), 32631), pa.int32()))
    table = table.append_column("status", pa.array(np.where(bad, "masked", "valid")).dictionary_encode())
    return table.append_column("field", pa.array(values.field))


def newest(long: pd.DataFrame, band: str) -> pd.DataFrame:
    good = long[(long.band == band) & long.status.isin(["valid", "filled"])]
    return good.sort_values("datetime").groupby("point_index").last()


def drawn(ax: Any) -> set[tuple[float, float, float]]:
    (shown,) = ax.collections
    return {(x, y, v) for (x, y), v in zip(shown.get_offsets().tolist(), shown.get_array().tolist(), strict=True)}


def note(ax: Any) -> str:
    return "".join(text.get_text() for text in ax.texts if text.get_gid() == NOTE)


FORMS = {
    "table": pa.Table.from_pandas,
    "batch": pa.RecordBatch.from_pandas,
    "reader": lambda one: pa.Table.from_pandas(one).to_reader(max_chunksize=17),
    "pandas": lambda one: one,
    "polars": pl.from_pandas,
    "categories": lambda one: one.astype({"band": "category", "status": "category", "field": "category"}),
}


@pytest.mark.parametrize("form", FORMS)
def test_points_have_their_newest_valid_value(form: str) -> None:
    long = frame()
    ax = plot.points(FORMS[form](long), "B08", unit="%")
    want = newest(long, "B08")
    assert 7 not in want.index and len(want) > 20
    assert drawn(ax) == set(zip(want.point_x, want.point_y, want.value, strict=True))
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("easting (m, EPSG:32631)", "northing (m, EPSG:32631)")
    assert ax.get_aspect() == 1.0 and note(ax) == ""
    assert ax.collections[0].colorbar.ax.get_ylabel() == "B08 (%)"


@pytest.mark.parametrize(("layout", "given"), [("columns", {"band": "B04"}), ("values", {"band": 0})])
def test_wide_layouts_give_the_rows_whose_status_is_valid(layout: str, given: dict[str, Any]) -> None:
    table = wide(frame(), layout)
    rows = table.to_pandas()
    rows["v"] = rows.B04 if layout == "columns" else rows["values"].str[0]
    want = rows[rows.status == "valid"].sort_values("datetime").groupby("point_index").last()
    assert drawn(plot.points(table, **given)) == set(zip(want.point_x, want.point_y, want.v, strict=True))
    if layout == "values":
        named = plot.points(table, "B04", bands=BANDS)
        assert drawn(named) == drawn(plot.points(table, 0)) and named.collections[0].colorbar.ax.get_ylabel() == "B04"


def test_a_column_that_was_added_is_a_band_too() -> None:
    rows = wide(frame(), "columns").to_pandas()
    rows["ratio"] = rows.B08 / rows.B04
    want = rows[rows.status == "valid"].sort_values("datetime").groupby("point_index").last()
    assert drawn(plot.points(rows, "ratio")) == set(zip(want.point_x, want.point_y, want.ratio, strict=True))


@pytest.mark.parametrize("size", [1, 131_072])
def test_of_many_points_a_repeatable_choice_is_drawn(size: int) -> None:
    rng = np.random.default_rng(1)
    table = pa.table(
        {
            "point_index": np.arange(3_000),
            "point_x": rng.uniform(5, 6, 3_000),
            "point_y": rng.uniform(59.5, 60.5, 3_000),
            "point_crs": pa.array([4326] * 3_000, pa.int32()),
            "value": rng.normal(0, 1, 3_000),
            "band": ["B1"] * 3_000,
        }
    )
    ax = plot.points(table.to_reader(max_chunksize=max(size, 97)), max_points=400)
    mixed = plot.points(table.take(rng.permutation(3_000)), max_points=400)
    every = set(zip(*(table[name].to_pylist() for name in ("point_x", "point_y", "value")), strict=True))
    assert len(drawn(ax)) == 400 and drawn(ax) < every and drawn(ax) == drawn(mixed)
    assert note(ax).startswith("400 of about ")
    assert 2_500 < float(note(ax).split()[3].replace(",", "")) < 3_500
    assert ax.get_aspect() == pytest.approx(2, rel=0.01)  # a degree of longitude is half as long at 60 degrees


def series_of(long: pd.DataFrame, band: str) -> pd.DataFrame:
    good = long[(long.band == band)].assign(day=long.datetime.dt.normalize())
    good.loc[~good.status.isin(["valid", "filled"]), "value"] = np.nan
    return good


def dates_of(line: Any) -> list[pd.Timestamp]:
    return list(pd.to_datetime(np.asarray(line.get_xdata())))


@pytest.mark.parametrize("form", FORMS)
def test_a_line_for_each_group_by_day(form: str) -> None:
    long = frame()
    ax = plot.time_series(FORMS[form](long), "field", band="B04", unit="%")
    assert [line.get_label() for line in ax.lines] == FIELDS
    assert [text.get_text() for text in ax.get_legend().get_texts()] == FIELDS
    for line, of_field in zip(ax.lines, FIELDS, strict=True):
        want = series_of(long[long.field == of_field], "B04").groupby("day").value.agg(["mean", "std"])
        assert dates_of(line) == list(want.index)
        np.testing.assert_allclose(line.get_ydata(), want["mean"], rtol=1e-12)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("date (UTC)", "B04 (%), mean")
    assert isinstance(ax.xaxis.get_major_formatter(), matplotlib.dates.ConciseDateFormatter)


def test_the_mean_of_all_with_one_standard_deviation() -> None:
    long = frame()
    ax = plot.time_series(pa.Table.from_pandas(long).to_reader(max_chunksize=13), band="B08", every=None)
    want = series_of(long, "B08").groupby("datetime").value.agg(["mean", lambda one: one.std(ddof=0)])
    (line,), (spread,) = ax.lines, ax.collections
    assert dates_of(line) == list(want.index) and len(want) == 4
    np.testing.assert_allclose(line.get_ydata(), want["mean"], rtol=1e-12)
    corners = spread.get_paths()[0].vertices
    for at, row in zip(matplotlib.dates.date2num(want.index), want.itertuples(index=False), strict=True):
        there = corners[np.abs(corners[:, 0] - at) < 1e-9, 1]
        assert there.min() == pytest.approx(row[0] - row[1])
        assert there.max() == pytest.approx(row[0] + row[1])


def test_lines_have_gaps_where_no_sample_is_valid() -> None:
    long = frame()
    long.loc[(long.field == "north") & (long.record_id == "r2"), "status"] = "masked"
    north = plot.time_series(long, "field", band="B08").lines[1]
    assert np.isnan(north.get_ydata()).tolist() == [False, True, False]


def test_the_first_groups_are_drawn_and_the_picture_notes_it() -> None:
    long = frame(60).sample(frac=1, random_state=3)
    ax = plot.time_series(
        pa.Table.from_pandas(long).to_reader(max_chunksize=29), "point_index", band="B04", max_lines=5
    )
    assert [line.get_label() for line in ax.lines] == ["0", "1", "2", "3", "4"]
    for number, line in enumerate(ax.lines):
        want = series_of(long[long.point_index == number], "B04").groupby("day").value.mean()
        np.testing.assert_allclose(line.get_ydata(), want, rtol=1e-12)
    assert note(ax) == "5 of 60 values of point_index"


def test_more_moments_than_a_picture_shows_are_drawn_by_coarser_steps() -> None:
    hours = pd.date_range("2020-01-01", periods=5_000, freq="h")
    table = pd.DataFrame({"datetime": hours, "band": "t", "value": np.arange(5_000.0)})
    ax = plot.time_series(pa.Table.from_pandas(table).to_reader(max_chunksize=700), every=None)
    want = table.groupby(table.datetime.dt.normalize()).value.mean()
    assert dates_of(ax.lines[0]) == list(want.index) and note(ax) == "means by day"
    np.testing.assert_allclose(ax.lines[0].get_ydata(), want)


def test_zonal_statistics_have_series_too() -> None:
    zones = frame().rename(columns={"value": "mean", "point_index": "geometry_id"}).drop(columns="status")
    ax = plot.time_series(zones[zones.geometry_id < 2], "geometry_id", band="B04", column="mean", every=None)
    want = zones[(zones.geometry_id == 1) & (zones.band == "B04")].sort_values("datetime")["mean"]
    np.testing.assert_allclose(ax.lines[1].get_ydata(), want)


def test_axes_that_are_given_are_drawn_on() -> None:
    ax = matplotlib.pyplot.subplots()[1]
    assert plot.points(frame(), "B04", ax=ax, cmap="magma", vmin=0, vmax=50) is ax
    assert ax.collections[0].get_cmap().name == "magma" and ax.collections[0].get_clim() == (0, 50)
    assert plot.time_series(frame(), band="B04", ax=ax, color="red") is ax and ax.lines[0].get_color() == "red"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda s: plot.points(s), "several bands: B04, B08; give band="),
        (lambda s: plot.points(s, "B8"), r"lack band 'B8' \(did you mean 'B08'\?\); they have B04, B08"),
        (
            lambda s: plot.points(wide(s, "columns"), "B4"),
            r"lack band 'B4' \(did you mean 'B04'\?\); they have B04, B08",
        ),
        (lambda s: plot.points(wide(s, "columns")), "several bands: B04, B08"),
        (lambda s: plot.points(wide(s, "values")), "give one of numbers from 0 to 1"),
        (lambda s: plot.points(wide(s, "values"), 2), "lists of 2 values; give 0 to 1"),
        (lambda s: plot.points(wide(s, "values"), "B9", bands=BANDS), "band is 'B9', .* give one of B04, B08"),
        (lambda s: plot.points(s.iloc[:0], "B04"), "the samples have no rows"),
        (lambda s: plot.points(s[s.point_index == 7], "B04"), "no sample of band 'B04' is valid"),
        (lambda s: plot.points(s.drop(columns="point_x"), "B04"), "lack column 'point_x'"),
        (lambda s: plot.points(s, "B04", max_points=0), "max_points is 0"),
        (lambda s: plot.points(s, "B04", ax=3), "ax is a int; give Axes"),
        (lambda s: plot.points(s, "B04", crs="EPSG:4326"), "crs is EPSG:4326, but column point_crs has EPSG:32631"),
        (lambda s: plot.points(s.assign(point_crs=s.point_index % 2 + 32631), "B04"), "several CRSs: EPSG:32631"),
        (lambda s: plot.points([1, 2]), "samples are a list of int"),
        (lambda s: plot.time_series(s, "feild", band="B04"), r"column 'feild' \(did you mean 'field'\?\)"),
        (lambda s: plot.time_series(s, 3, band="B04"), "by is 3, a int"),
        (lambda s: plot.time_series(s, band="B04", every="week"), "every is 'week'; give one of None, hour"),
        (lambda s: plot.time_series(s.assign(datetime=pd.NaT), band="B04"), "is valid and has a datetime"),
        (lambda s: plot.time_series(s, band="B04", column="field"), "column 'B04' has .*; numbers can be drawn"),
        (lambda s: plot.time_series(s, band="B04", column="valeu"), r"'valeu' \(did you mean 'value'\?\)"),
        (lambda s: plot.time_series(s.drop(columns="value")), "lacks column 'value'; give column="),
    ],
)
def test_what_cannot_be_drawn_is_one_clear_error(call: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        call(frame())


def test_without_an_epsg_code_the_labels_come_from_crs() -> None:
    samples = frame().assign(point_crs=pd.array([None] * 240, "Int32"))
    assert plot.points(samples, "B04").get_xlabel() == "x (unknown CRS)"
    assert plot.points(samples, "B04", crs="IAU_2015:49910").get_xlabel() == "easting (m, IAU_2015:49910)"


def test_one_place_has_a_map_around_it() -> None:
    samples = frame().assign(point_x=500_000.0, point_y=5_400_000.0)
    ax = plot.points(samples, "B04")
    assert [np.ptp(ax.get_xlim()), np.ptp(ax.get_ylim())] == pytest.approx([1080.0, 1080.0])
    assert sum(ax.get_xlim()) == 1_000_000.0 and sum(ax.get_ylim()) == 10_800_000.0


def test_without_matplotlib_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingInputError, match=r"plots need matplotlib, .*\[plot\]"):
        plot.points(frame(), "B04")
