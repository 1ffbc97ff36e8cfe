"""Collections and plans in notebooks: maps of footprints with each library, and their HTML."""

import importlib
import importlib.util
import sys
import xml.dom.minidom
from typing import Any

import folium
import lonboard
import matplotlib
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import shapely

import rasteret_beam
from rasteret_beam import Collection, Plan
from rasteret_beam.collection.eager.plan import crowded_tiles, plan_totals
from rasteret_beam.collection.explore import maps
from rasteret_beam.collection.explore.footprints import footprints_of
from rasteret_beam.errors import InputError, MissingInputError
from rasteret_beam.matplotlib_axes import NOTE

matplotlib.use("agg")


def collection(places: int, years: int = 2, undated: int = 0, without: int = 0) -> Collection:
    """Records of some years at each place; of the last places, some have no datetime, and some no footprint."""
    n = places * years
    place, year = np.divmod(np.arange(n), years)
    west, south = (place % 50) * 2.0 - 60, (place // 50) * 0.5 - 40
    boxes = shapely.box(west, south, west + 1.5, south + 0.4)
    when = np.array([f"{2000 + y}-06-0{1 + p % 3}" for p, y in zip(place, year, strict=True)], "M8[us]")
    hidden = place >= places - without
    sides = dict(zip(("xmin", "ymin", "xmax", "ymax"), shapely.bounds(boxes).T, strict=True))
    box = pa.StructArray.from_arrays([pa.array(v) for v in sides.values()], names=list(sides), mask=pa.array(hidden))
    table = pa.table(
        {
            "id": [f"r{number}" for number in range(n)],
            "datetime": pa.array(when, mask=place >= places - undated),
            "geometry": pa.array(np.where(hidden, None, shapely.to_wkb(boxes)), pa.binary()),
            "bbox": box,
            "assets": pa.array([{"B1": {"href": f"/r{number}.tif", "band_index": 0}} for number in range(n)]),
            "proj:epsg": pa.array([32631] * n, pa.int32()),
            "crs": ["EPSG:32631"] * n,
        }
    )
    return Collection.from_table(table, name="tiles & <more>")


def polygons(ax: Any) -> list[list[float]]:
    return sorted(
        [float(side) for side in shapely.bounds(shapely.Polygon(path.vertices))]
        for shown in ax.collections
        for path in shown.get_paths()
    )


def test_matplotlib_draws_each_footprint_once_by_its_newest_date() -> None:
    ax = collection(4, undated=1).explore("matplotlib")
    want = [[-60.0 + 2 * place, -40.0, -58.5 + 2 * place, -39.6] for place in range(4)]
    assert np.allclose(polygons(ax), want)
    grey, dated = ax.collections
    assert len(grey.get_paths()) == 1
    days = matplotlib.dates.num2date(dated.get_array())
    assert [f"{day:%Y-%m-%d}" for day in days] == ["2001-06-01", "2001-06-02", "2001-06-03"]
    assert ax.get_xlabel() == "longitude (°, OGC:CRS84)" and ax.get_title() == "tiles & <more>"
    assert ax.get_aspect() == pytest.approx(1 / np.cos(np.radians(39.8)), rel=1e-3)
    own = matplotlib.pyplot.subplots()[1]
    assert collection(4).explore(ax=own) is own
    matplotlib.pyplot.close("all")


def test_large_collections_are_sampled_and_the_map_notes_it() -> None:
    many = collection(300, without=20)
    ax = many.explore("matplotlib", max_footprints=100)
    found = {tuple(box) for box in np.round(polygons(ax), 6).tolist()}
    every = {
        tuple(row)
        for row in np.round(
            shapely.bounds(shapely.from_wkb(many.to_table()["geometry"].drop_null().to_numpy())), 6
        ).tolist()
    }
    assert len(found) == 100 and found < every
    texts = [text.get_text() for text in ax.texts if text.get_gid() == NOTE]
    assert texts == ["100 of 280 footprints; 40 records without a footprint"]
    again = footprints_of(many, 100)
    assert {tuple(box) for box in np.round(shapely.bounds(again.shapes), 6).tolist()} == found
    assert set(again.records) == {2}
    matplotlib.pyplot.close("all")


def test_folium_gives_its_map_with_the_footprints_and_dates() -> None:
    drawn = collection(300).explore("folium", max_footprints=50)
    assert isinstance(drawn, folium.Map)
    (layer,) = [child for child in drawn._children.values() if isinstance(child, folium.GeoJson)]
    features = layer.data["features"]
    assert len(features) == 50
    facts = features[0]["properties"]
    assert facts["records"] == 2 and facts["first"][:4] == "2000" and facts["last"][:4] == "2001"
    page = drawn.get_root().render()
    assert "tiles &amp; &lt;more&gt;" in page and "50 of 300 footprints" in page and "2001-06-01 to 2001-06-03" in page
    assert "tile.openstreetmap.org" in page
    assert "tile.openstreetmap.org" not in collection(3).explore("folium", tiles=None).get_root().render()


def test_lonboard_gives_its_map() -> None:
    drawn = collection(300, undated=10).explore("lonboard", max_footprints=50, tiles=None)
    assert isinstance(drawn, lonboard.Map) and drawn.basemap is None
    (layer,) = drawn.layers
    assert layer.table.num_rows == 50 and "50 of 300 footprints" in drawn.custom_attribution
    assert collection(2).explore("lonboard").basemap is not None


def test_the_first_library_that_is_installed_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    assert isinstance(collection(2).explore(), folium.Map)
    hidden = {"folium"}
    monkeypatch.setattr(maps, "find_spec", lambda name: None if name in hidden else found(name))
    assert isinstance(collection(2).explore(), lonboard.Map)
    hidden.add("lonboard")
    assert isinstance(collection(2).explore(), matplotlib.axes.Axes)
    hidden.add("matplotlib")
    with pytest.raises(MissingInputError, match=r"one of folium, lonboard, matplotlib, none .*\[explore\]"):
        collection(2).explore()
    matplotlib.pyplot.close("all")


@pytest.mark.parametrize(("library", "extra"), [("folium", "explore"), ("lonboard", "explore"), ("matplotlib", "plot")])
def test_a_library_that_is_missing_names_its_extra(monkeypatch: pytest.MonkeyPatch, library: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingInputError, match=rf"{library}, which is not installed: .*\[{extra}\]"):
        collection(2).explore(library)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"library": "foliun"},
            r"library is 'foliun' \(did you mean 'folium'\?\); give one of folium, lonboard, matpl",
        ),
        ({"library": "folium", "ax": 1}, "library is 'folium', but ax is given"),
        ({"max_footprints": 0}, "max_footprints is 0"),
        ({"tiles": 5}, "tiles is 5"),
        ({"library": "folium", "tiles": "no such tiles"}, "folium cannot use tiles 'no such tiles': "),
        ({"ax": 5}, "ax is a int"),
    ],
)
def test_wrong_arguments_of_explore(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        collection(2).explore(**given)


def test_without_footprints_the_error_says_why() -> None:
    with pytest.raises(InputError, match="no footprints to draw: none of its 4 records has a footprint"):
        collection(2, without=2).explore()
    with pytest.raises(InputError, match="no footprints to draw: it has no records"):
        collection(2).where(pc.field("id") == "x").explore()


def parsed(page: str) -> xml.dom.minidom.Document:
    return xml.dom.minidom.parseString(page)


def test_a_notebook_shows_the_facts_and_a_map() -> None:
    shown = parsed(collection(4)._repr_html_())
    assert len(shown.getElementsByTagName("svg")) == 1
    cells = [cell.firstChild.data for cell in shown.getElementsByTagName("td") if cell.firstChild]
    assert {"8", "2000-06-01 to 2001-06-03", "-60.0000, -40.0000, -52.5000, -39.6000", "EPSG:32631", "B1"} <= set(cells)
    assert "2001-06-01" in shown.toxml() and "newest date" in shown.toxml()


def test_the_html_of_a_large_collection_is_bounded() -> None:
    page = collection(20_000, years=1)._repr_html_()
    assert len(page) < 200_000 and "10,000 of 20,000 footprints" in page


def test_the_html_says_where_no_map_can_be_drawn() -> None:
    assert "none of its 4 records has a footprint" in collection(2, without=2)._repr_html_()
    assert "<svg" not in collection(2).where(pc.field("id") == "x")._repr_html_()


def test_the_html_of_records_without_boxes() -> None:
    """As of a table that was built without headers."""
    bare = Collection.from_table(collection(2).to_table(["id", "datetime", "geometry", "assets"]), name="bare")
    assert bare.bounds is None and bare.crs == []
    assert "no footprints to draw: it lacks column bbox" in bare._repr_html_()


def test_records_with_a_time_range_are_drawn_by_its_end() -> None:
    table = collection(2, undated=1).to_table()
    last = pa.array([None, None, None, np.datetime64("2019-07-08", "us")], pa.timestamp("us"))
    ranged = table.append_column("start_datetime", table["datetime"]).append_column("end_datetime", last)
    assert footprints_of(Collection.from_table(ranged), 9).last.astype(str).tolist() == ["2001-06-01", "2019-07-08"]


def test_a_plan_is_a_table_that_notebooks_show(scenes: Collection) -> None:
    bounds = scenes.bounds
    assert bounds is not None
    rng = np.random.default_rng(3)
    points = pa.table({"x": rng.uniform(bounds[0], bounds[2], 200), "y": rng.uniform(bounds[1], bounds[3], 200)})
    plan = rasteret_beam.plan(scenes, points, ["B10", "B20"], x_column="x", y_column="y", geometry_crs=4326)
    assert isinstance(plan, Plan) and isinstance(plan.table, pa.Table)
    assert plan.num_rows == len(plan) == len(plan.table) > 0 and plan["points"].equals(plan.table["points"])
    assert pa.table(plan).equals(plan.table) and plan == plan.table and plan.to_pandas().equals(plan.table.to_pandas())
    assert plan.totals == plan_totals(plan.table) and plan.crowded_tiles(3) == crowded_tiles(plan.table, 3)
    shown = parsed(plan._repr_html_())
    rows = [
        [cell.firstChild.data if cell.firstChild else "" for cell in row.childNodes]
        for row in shown.getElementsByTagName("tr")
    ]
    figures = dict(row for row in rows if len(row) == 2)
    assert figures["points read"] == "200" and figures["tiles to decode"] == f"{plan.totals['tiles_decoded']:,}"
    most = plan.crowded_tiles(1)[0]
    assert [most["record_id"], f"({most['tile_row']}, {most['tile_col']})"] in [row[:2] for row in rows]
    with pytest.raises(AttributeError, match="no_such"):
        plan.no_such  # noqa: B018
