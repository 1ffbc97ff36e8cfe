"""``rasteret-beam inspect``: facts against the records, the map against the footprints, and the page."""

import io
import json
import re
import sys
from datetime import datetime
from html import unescape
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import rasterio
import shapely
from affine import Affine

from pipelines import inspect_collection
from pipelines.cli.collection_text import band_rows, table_lines
from pipelines.cli.terminal_map import RAMP, Style, map_lines
from rasteret_beam import Collection, build_from_cogs, load
from tests.support.commands import Outcome, execute

UTM = Affine(100.0, 0.0, 500_000.0, 0.0, -100.0, 5_400_000.0)


def write(path: Path, crs: str = "EPSG:32631", affine: Affine = UTM, *, bands: int = 1, size: int = 96, **more) -> Path:
    profile = {"driver": "GTiff", "width": size, "height": size, "count": bands, "dtype": "int16", "nodata": -1} | more
    with rasterio.open(
        path, "w", crs=crs, transform=affine, tiled=True, blockxsize=32, blockysize=32, **profile
    ) as file:
        file.write(np.ones((bands, size, size), dtype=profile["dtype"]))
    return path


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three records: two of them alike, one with floats in another zone and without a date."""
    folder = tmp_path_factory.mktemp("mixed")
    files = [write(folder / f"{name}.tif", bands=2) for name in "ab"]
    files.append(write(folder / "c.tif", "EPSG:32632", bands=2, size=70, dtype="float32", nodata=float("nan")))
    dates = ["2022-06-30", "2023-06-30", None]
    built = build_from_cogs(files, bands={"red": 0, "nir": 1}, datetime=dates, name="mixed")
    table = built.to_table().append_column("eo:cloud_cover", pa.array([1.0, 2.0, None]))
    Collection.from_table(table, name="mixed").export(folder / "collection")
    return folder / "collection"


def inspect(*words: object) -> Outcome:
    return execute(inspect_collection.main, *words)


def sizes_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.tif"))


def test_facts_of_all_records(mixed: Path) -> None:
    facts = load(mixed).describe()
    nodata = facts["rasters"]["red"].pop("nodata")
    assert nodata[0] == -1 and np.isnan(nodata[1]) and len(nodata) == 2
    assert facts["rasters"]["red"] == {
        "records": 3,
        "dtype": ["int16", "float32"],
        "width": (70, 96),
        "height": (70, 96),
        "tile_size": [(32, 32)],
        "tiles": 27,
    }
    assert facts["tiles"] == 54
    assert (facts["files"], facts["bytes"], facts["files_of_unknown_size"]) == (3, sizes_of(mixed.parent), 0)
    assert facts["months"] == {"2022-06": 1, "2023-06": 1} and facts["undated"] == 1
    assert facts["records_by_crs"] == {"EPSG:32631": 2, "EPSG:32632": 1}
    assert facts["columns"] == {"eo:cloud_cover": "double"}
    assert facts["units"]["red"] == [{"scale": 1.0, "offset": 0.0, "records": 3}]


def test_facts_of_a_part(mixed: Path) -> None:
    facts = load(mixed).subset(date_range="2022").describe()
    assert facts["rasters"]["nir"]["records"] == 1 and facts["months"] == {"2022-06": 1}
    assert facts["files"] == 1 and facts["tiles"] == 18
    empty = load(mixed).where(pc.field("id") == "none").describe()
    assert empty["records"] == empty["tiles"] == empty["files"] == 0 and empty["months"] == {}


def test_files_of_bands_and_of_collections_without_sizes(scenes: Collection) -> None:
    """Each band of these scenes has its file."""
    files = {href for asset in scenes.to_table(["assets"])["assets"].to_pylist() for href in of(asset)}
    facts = scenes.describe()
    assert (facts["files"], facts["files_of_unknown_size"]) == (len(files), 0)
    assert facts["bytes"] == sum(Path(href).stat().st_size for href in files)
    table = scenes.to_table()
    without = Collection.from_table(table.drop_columns([name for name in table.column_names if "_extra" in name]))
    facts = without.describe()
    assert (facts["files"], facts["files_of_unknown_size"], facts["bytes"]) == (len(files), len(files), 0)


def of(asset: dict) -> list[str]:
    return [band["href"] for band in asset.values() if band is not None and band["href"] is not None]


def test_the_text(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    shown = inspect(mixed)
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert lines[0] == "Collection mixed"
    assert {line[:12].strip(): line[12:] for line in lines[1:9]} | {"extent": ""} == {
        "source": str(mixed),
        "records": "3",
        "bands": "2: red, nir",
        "dates": "2022-06-30 to 2023-06-30; 1 record without a datetime",
        "extent": "",
        "CRS": "EPSG:32631 (2), EPSG:32632 (1)",
        "size": f"54 tiles in 3 files of {sizes_of(mixed.parent) / 1000:.1f} kB",
        "columns": "eo:cloud_cover (double)",
    }
    assert re.split(r"  +", lines[10]) == ["band", "records", "type", "pixels", "tile", "nodata", "scale, offset"]
    assert re.split(r"  +", lines[11]) == [
        "red, nir",
        "3",
        "int16, float32",
        "70-96 x 70-96",
        "32 x 32",
        "-1, nan",
        "none",
    ]
    assert lines[13:16] == [
        "records by month",
        f"  2022-06          1  {'█' * 30}",
        f"  2023-06          1  {'█' * 30}",
    ]
    assert lines[17] == "2 different footprints"
    assert "\033" not in shown.out and re.search("[\u2801-\u28ff]", shown.out)


@pytest.mark.parametrize("columns", [20, 40, 60, 200])
def test_it_fits_into_the_terminal(mixed: Path, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = inspect(mixed).out.splitlines()
    assert max(len(line) for line in lines if str(mixed) not in line) <= max(columns, 40)


def test_like_bands_share_a_row() -> None:
    fact = {"records": 1, "dtype": ["int16"], "nodata": [], "width": (5, 5), "height": (5, 5), "tile_size": []}
    names = [f"band_{number:02d}" for number in range(12)]
    rasters = {name: fact | {"dtype": ["uint8"] if name == "band_05" else ["int16"]} for name in names}
    rows = band_rows({"bands": names, "rasters": rasters, "units": {}}, 24)
    assert [row[0] for row in rows] == ["band_00, band_01, band_02, ... (11)", "band_05"]
    rows = band_rows({"bands": names[6:], "rasters": rasters, "units": {}}, 24)
    assert rows == [("band_06 ... band_11 (6)", "1", "int16", "5 x 5", "none", "none", "")]
    assert band_rows({"bands": ["a", "b"], "rasters": {}, "units": {}}, 24)[0][:2] == ("a, b", "?")


def test_a_collection_without_headers(scenes: Collection, tmp_path: Path) -> None:
    table = scenes.to_table()
    facts = [name for name in table.column_names if name.endswith(("_metadata", "_extra")) or name in ("grids", "crs")]
    Collection.from_table(table.drop_columns(facts), name="bare").export(tmp_path / "c")
    shown = inspect(tmp_path / "c")
    assert shown.code == 0 and "size        unknown: the collection was built without headers\n" in shown.out
    assert "CRS         EPSG:" in shown.out and re.search(r"^B\d\d.*\?", shown.out, re.MULTILINE)


def test_json(mixed: Path) -> None:
    facts = json.loads(inspect(mixed, "--json").out, parse_constant=lambda name: pytest.fail(name))
    assert facts["records"] == 3 and facts["date_range"] == ["2022-06-30T00:00:00", "2023-06-30T00:00:00"]
    assert facts["rasters"]["red"]["nodata"] == [-1, "nan"]
    assert set(facts) == set(load(mixed).describe())


def test_a_subset(mixed: Path) -> None:
    assert "records     1\n" in inspect(mixed, "--date_range", "2022").out
    nothing = inspect(mixed, "--bbox=50,-10,51,-9")
    assert nothing.code == 0 and "records     0\n" in nothing.out and "footprint" not in nothing.out


def test_the_page(mixed: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    shown = inspect(mixed, "--html", page)
    assert shown.code == 0 and shown.out.endswith(f"page        {page}\n")
    text = page.read_text()
    assert text.startswith("<!doctype html>") and "<title>Collection mixed</title>" in text
    assert text.count("<svg") == 2 and "eo:cloud_cover (double)" in text and "2 different footprints" in text
    assert not re.search(r'(?:src|href)="(?!data:)', text), "it needs no network"
    wrong = inspect(mixed, "--html", tmp_path / "page.html" / "other.html")
    assert wrong.code == 1
    assert wrong.err == f"error: --html {tmp_path}/page.html/other.html cannot be written: File exists\n"
    elsewhere = inspect(mixed, "--html", "gs://bucket/page.html").err
    assert (
        elsewhere
        == "error: --html gs://bucket/page.html is not on this machine; give a local path, and copy the page\n"
    )


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (["/nowhere"], 1, "there is no file or folder /nowhere"),
        (["no/dataset"], 1, "no/dataset"),
        ([], 2, "the following arguments are required: COLLECTION"),
        (["a", "b"], 2, "unrecognized arguments: b"),
        (["a", "--jsn"], 2, "unknown flag --jsn; did you mean --json?"),
        (["a", "--html="], 2, "argument --html: it is empty"),
        ([""], 1, "error: COLLECTION is ''; give the path"),
    ],
    ids=str,
)
def test_mistakes(words: list[str], code: int, error: str) -> None:
    shown = inspect(*words)
    assert (shown.code, shown.out) == (code, "") and shown.err.startswith("error: ") and error in shown.err
    assert len(shown.err.splitlines()) == 1


def test_no_raster_is_opened(mixed: Path, tmp_path: Path) -> None:
    """The files of this collection are not there."""
    table = load(mixed).to_table()
    gone = tmp_path / "gone"
    text = [[{"href": f"{gone}/{at}.tif", "band_index": band} for band in (0, 1)] for at in range(3)]
    assets = pa.array([dict(zip(("red", "nir"), each, strict=True)) for each in text], table["assets"].type)
    moved = table.set_column(table.column_names.index("assets"), "assets", assets)
    Collection.from_table(moved).export(tmp_path / "c")
    assert "54 tiles in 3 files" in inspect(tmp_path / "c").out


def test_other_bodies_have_their_own_map(tmp_path: Path) -> None:
    table = load_one(tmp_path).to_table()
    moved = pa.array([dict(zip(("xmin", "ymin", "xmax", "ymax"), (137.0, -5, 138, -4), strict=True))])
    box = pa.concat_arrays([table["bbox"].combine_chunks(), moved.cast(table["bbox"].type)])
    shapes = pa.array([table["geometry"][0].as_py(), shapely.to_wkb(shapely.box(137, -5, 138, -4))], pa.binary())
    both = pa.concat_tables([table, table])
    columns = {"id": pa.array(["earth", "mars"]), "bbox": box, "geometry": shapes}
    for name, values in columns.items():
        both = both.set_column(both.column_names.index(name), name, values)
    both = both.append_column("footprint_crs", pa.array([None, "IAU_2015:49900"]))
    Collection.from_table(both, name="two").export(tmp_path / "c")
    shown = inspect(tmp_path / "c", "--html", tmp_path / "page.html")
    assert shown.code == 0 and shown.out.count("┌") == 2 and shown.out.count("1 different footprint") == 2
    assert "1 different footprint in IAU_2015:49900" in shown.out and "footprint_crs" not in shown.out
    assert (tmp_path / "page.html").read_text().count("<svg") == 3


SITE = 'LOCAL_CS["Site grid",UNIT["metre",1],AXIS["x",EAST],AXIS["y",NORTH]]'


@pytest.mark.parametrize(
    ("crs", "affine", "extent"),
    [
        (SITE, Affine(1, 0, 1000, 0, -1, 2000), "1,000 to 1,096, 1,904 to 2,000 in 'Site grid'"),
        ("IAU_2015:49900", Affine(1, 0, 10, 0, -0.25, 4), "10° E to 106° E, 20° S to 4° N in IAU_2015:49900"),
    ],
    ids=["site", "Mars"],
)
def test_the_extent_has_the_units_of_its_crs(crs: str, affine: Affine, extent: str, tmp_path: Path) -> None:
    build_from_cogs([write(tmp_path / "a.tif", crs, affine)]).export(tmp_path / "c")
    shown = inspect(tmp_path / "c", "--html", tmp_path / "page.html")
    assert re.search(r"^extent +(.*)$", shown.out, re.MULTILINE)[1] == extent  # type: ignore[index]
    assert extent in unescape((tmp_path / "page.html").read_text())


def test_the_page_makes_its_folder(mixed: Path, tmp_path: Path) -> None:
    assert inspect(mixed, "--html", tmp_path / "new" / "folder" / "page.html").code == 0
    assert (tmp_path / "new" / "folder" / "page.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize("box", ["-1,47,4,49", "-1.5,-.5,4e0,49", "-.5,47,+4,49"])
def test_a_box_may_begin_with_a_minus(mixed: Path, box: str) -> None:
    joined = inspect(mixed, f"--bbox={box}", "--json")
    assert inspect(mixed, "--bbox", box, "--json").out == joined.out
    assert json.loads(joined.out)["records"] == 2


def test_standard_output_of_few_characters(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert inspect_collection.main([str(mixed)]) == 0
    text = written.getvalue().decode("ascii")
    assert "#" in text and "+---" in text and "records by month" in text


def test_colours_are_for_terminals(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for files, nor where the user does not want them."""
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert not inspect_collection.style().colour
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    assert inspect_collection.style().colour
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        with monkeypatch.context() as changed:
            changed.setenv(name, value)
            assert not inspect_collection.style().colour


# The map


def dots(lines: list[str]) -> set[tuple[int, int]]:
    """The dots of the lines of a map, as (row, column)."""
    inside = [re.search("│(.*)│", line)[1] for line in lines if "│" in line]
    found = set()
    for row, line in enumerate(inside):
        for col, character in enumerate(line):
            bits = ord(character) - 0x2800 if character != " " else 0
            for bit, (down, across) in enumerate([(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (3, 0), (3, 1)]):
                if bits >> bit & 1:
                    found.add((4 * row + down, 2 * col + across))
    return found


def ones(shapes: list) -> np.ndarray:
    return np.ones(len(shapes), dtype=np.int64)


def test_dots_are_where_footprints_are() -> None:
    """40 triangles, each dot against Shapely."""
    rng = np.random.default_rng(4)
    corners = rng.uniform(0, 10, (40, 1, 2)) + rng.uniform(-1, 1, (40, 3, 2))
    shapes = list(shapely.polygons(corners))
    lines = map_lines(shapes, ones(shapes), Style(70))
    found = dots(lines)
    (west, east), (north, south) = sides(lines[-1]), (sides(line.split("│")[0])[0] for line in (lines[1], lines[-3]))
    columns, rows = 2 * lines[0].count("─"), 4 * (len(lines) - 3)
    union = shapely.union_all(shapes)
    x = west + (np.arange(columns) + 0.5) / columns * (east - west)
    y = north + (np.arange(rows) + 0.5) / rows * (south - north)
    inside = shapely.contains_xy(shapely.buffer(union, -0.1), *np.meshgrid(x, y))
    outside = ~shapely.contains_xy(shapely.buffer(union, 0.25), *np.meshgrid(x, y))
    drawn = np.zeros((rows, columns), dtype=bool)
    drawn[tuple(np.array([*found]).T)] = True
    assert inside.sum() > 100 and drawn[inside].all() and not drawn[outside].any()


def sides(text: str) -> list[float]:
    """Coordinates in a line of the map, west and south negative."""
    return [float(number) * (-1 if side in "WS" else 1) for number, side in re.findall(r"([\d.]+)° ?([EWNS]?)", text)]


def test_few_footprints_are_outlines() -> None:
    shapes = [shapely.box(0, 0, 10, 10)]
    one = dots(map_lines(shapes, ones(shapes), Style(60)))
    many = shapes + [shapely.box(0, 0, 10, 10 - at / 1000) for at in range(40)]
    filled = dots(map_lines(many, ones(many), Style(60)))
    beside = {(row + down, col + right) for row, col in filled for down in (-1, 0, 1) for right in (-1, 0, 1)}
    assert one < beside and len(one) < len(filled) / 4


def test_a_small_footprint_is_a_dot() -> None:
    far = [shapely.box(x, y, x + 1e-6, y + 1e-6) for x in (0.0, 50.0, 100.0) for y in range(0, 50, 5)]
    assert len(dots(map_lines(far, ones(far), Style(80)))) == 30
    tilted = [shapely.Polygon([(x, y), (x + 1e-6, y), (x, y + 1e-6)]) for x in (0, 50, 100) for y in range(0, 50, 5)]
    assert len(dots(map_lines(tilted, ones(tilted), Style(80)))) == 30


def test_the_antimeridian_is_in_the_middle() -> None:
    """A footprint in two parts is one on the map."""
    across = shapely.MultiPolygon([shapely.box(178, -2, 180, 2), shapely.box(-180, -2, -178, 2)])
    lines = map_lines([across], ones([1]), Style(70))
    west, east = sides(lines[-1])
    assert 170 < west < 178 and -178 < east < -170
    columns = [col for _, col in dots(lines)]
    width = 2 * lines[0].count("─")
    assert min(columns) > width / 10 and max(columns) < 9 * width / 10 and max(columns) - min(columns) > width / 3


def test_colours_show_how_many_records() -> None:
    shapes = [shapely.box(x, 0, x + 1, 1) for x in range(0, 60, 2)]
    records = np.arange(1, 31)
    lines = map_lines(shapes, records, Style(80, colour=True))
    codes = {int(code) for line in lines[:-1] for code in re.findall(r"\033\[38;5;(\d+)m", line)}
    assert codes == set(RAMP) and lines[-1].strip().startswith("1 ") and lines[-1].endswith(" 30 records")
    assert all(line.count("\033[38") == 0 or line.rfind("\033[0m") > line.rfind("\033[38") for line in lines)
    plain = map_lines(shapes, records, Style(80))
    assert [re.sub(r"\033\[[\d;]*m", "", line) for line in lines[:-1]] == plain


def test_a_plane_has_plain_numbers() -> None:
    lines = map_lines([shapely.box(1000, 2000, 1500, 2500)], ones([1]), Style(60), geographic=False)
    assert "°" not in "".join(lines) and dots(lines)


def test_a_table_without_room_is_stacked() -> None:
    rows = [("A", "12"), ("B", "3")]
    assert table_lines(("band", "n"), rows, (1,), Style(80)) == ["band   n", "A     12", "B      3"]
    stacked = table_lines(("band", "n"), rows, (1,), Style(5))
    assert stacked == ["band A", "  n             12", "band B", "  n             3"]


@pytest.mark.slow
def test_many_records(tmp_path: Path) -> None:
    """30,000 records of the shape of a large index; the map has a dot wherever there is a record."""
    n = 30_000
    rng = np.random.default_rng(1)
    west, south = rng.uniform(-180, 179.9, n), rng.uniform(-80, 80, n)
    table = load_one(tmp_path).to_table()
    many = table.take(pa.array(np.zeros(n, dtype=np.int64)))
    sides = [pa.array(each) for each in (west, south, west + 0.1, south + 0.1)]
    box = pa.StructArray.from_arrays(sides, fields=[*table["bbox"].type])
    columns = {"id": pa.array([f"r{at}" for at in range(n)]), "bbox": box}
    columns["datetime"] = pa.array([datetime(2015 + at % 9, 1, 1) for at in range(n)], table["datetime"].type)
    for name, values in columns.items():
        many = many.set_column(many.column_names.index(name), name, values)
    Collection.from_table(many.drop_columns(["year", "month"]), name="many").export(tmp_path / "c")
    shown = inspect(tmp_path / "c", "--html", tmp_path / "page.html")
    assert shown.code == 0 and "records     30,000\n" in shown.out and "30,000 different footprints" in shown.out
    assert (tmp_path / "page.html").stat().st_size < 2_000_000
    lines = shown.out.splitlines()
    start = next(at for at, line in enumerate(lines) if "┌" in line)
    drawn = dots(lines[start:])
    total = 2 * lines[start].count("─") * 4 * sum("│" in line for line in lines)
    assert 0.5 < len(drawn) / total <= 1


def load_one(folder: Path) -> Collection:
    return build_from_cogs([write(folder / "one.tif")], datetime=["2023-01-01"])
