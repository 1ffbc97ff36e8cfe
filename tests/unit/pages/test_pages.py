"""Pages and charts: all texts are escaped, colours can be told apart, ticks are round, maps cross the antimeridian."""

import re
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from rasteret_beam.pages import Html, Section, card, choice, footprint_map, page, table, tag, time_bars
from rasteret_beam.pages.charts import histogram, stacked_shares
from rasteret_beam.pages.colours import DARK_RAMP, KINDS, LIGHT_RAMP, STEPS, contrast, luminance, ramp, steps_of
from rasteret_beam.pages.frames import frame_of
from rasteret_beam.pages.maps import MOST_SHAPES
from rasteret_beam.pages.numbers import NONE, angle_ticks, longitude, number, share, short, size, ticks
from rasteret_beam.pages.style import DARK, LIGHT

BAD = '<script>alert("x")</script>&\'"'


class Tags(HTMLParser):
    """Collects elements, checks that they are closed, and the texts between."""

    def __init__(self, document: str):
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(document)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(max_size=30))
def test_texts_are_escaped(text: str) -> None:
    found = tag("p", text, title=text)
    assert found.count("<") == 2
    assert ElementTree.fromstring(f"<p>{'' if re.search(r'[^ -~]', text) else found}</p>") is not None


def test_a_page_is_whole_and_escaped() -> None:
    charts = [
        histogram(np.array([0.0, 1.0, 2.0]), np.array([1, 2]), {BAD: 1.5}, title=BAD, caption=BAD),
        stacked_shares([(BAD, {BAD: 3, "b": 0}), ("none", {})], title=BAD),
        time_bars(np.arange("2020-01", "2020-04", dtype="M8[M]"), np.array([1, 0]), title=BAD),
        footprint_map([shapely.box(0, 0, 1, 1)], [3], title=BAD, value_label=BAD, caption=BAD),
        table((BAD, "n"), [(BAD, BAD)], (1,)),
        choice("c", [(BAD, BAD), ("b", "b")]),
    ]
    document = page(BAD, [Section(BAD, card(*charts, heading=BAD), BAD), (BAD, BAD)], BAD, BAD)
    tags = Tags(document)
    assert not [name for name, _ in tags.seen if name in ("script", "iframe", "img", "object")]
    assert not re.search(r"(src|href)=\"(?!data:,)|url\(|@import|https?://(?!www\.w3\.org/2000/svg)", document)
    assert tags.text.count(BAD) > 12
    for _, attributes in tags.seen:
        assert not [name for name in attributes if name.startswith("on")]
    for svg in re.findall(r"<svg.*?</svg>", document, re.S):
        root = ElementTree.fromstring(svg)
        names = root.attrib["aria-labelledby"].split()
        assert [root[0].attrib["id"], root[1].attrib["id"]] == names
        assert root[0].text and root[1].text and root.attrib["role"] == "img"


def test_markup_stays_markup() -> None:
    assert tag("b", Html("<i>x</i>"), "<") == "<b><i>x</i>&lt;</b>"
    assert tag("input", checked=True, for_="a", aria_label=None) == '<input checked for="a">'


# Colours


@pytest.mark.parametrize("ends", [LIGHT_RAMP, DARK_RAMP])
def test_the_ramp_gets_lighter_step_by_step(ends: tuple[float, float]) -> None:
    light = [luminance(colour) for colour in ramp(ends)]
    assert len(light) == STEPS
    assert all(after > before for before, after in pairwise(light))


@pytest.mark.parametrize(("colours", "ends"), [(LIGHT, LIGHT_RAMP), (DARK, DARK_RAMP)], ids=["light", "dark"])
def test_texts_can_be_read(colours: dict[str, str], ends: tuple[float, float]) -> None:
    """Contrast of at least 4.5, and 3 for graphics, as WCAG 2.1 AA wants it."""
    for ground in ("ground", "card"):
        for ink in ("ink", "muted", "accent", "warn"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
    assert contrast(colours["muted"], colours["map"]) >= 4.5
    assert contrast(colours["card"], colours["accent"]) >= 4.5  # the label that is chosen
    assert contrast(colours["outline"], colours["land"]) >= 3
    colour_ramp = ramp(ends)
    assert max(contrast(colour_ramp[0], colours["map"]), contrast(colour_ramp[-1], colours["map"])) >= 4.5
    assert contrast(colours["accent"], colours["card"]) >= 3


def test_kinds_are_apart() -> None:
    """Also for people who see no green or no red: the matrices of Viénot, Brettel and Mollon (1999), about."""
    rgb = np.array([[int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)] for colour in KINDS]) ** 2.2
    deuteranopia = np.array([[0.29, 0.71, 0.0], [0.29, 0.71, 0.0], [-0.02, 0.02, 1.0]])
    protanopia = np.array([[0.11, 0.89, 0.0], [0.11, 0.89, 0.0], [0.0, 0.0, 1.0]])
    assert len({*KINDS}) == 8
    for matrix in (np.eye(3), deuteranopia, protanopia):
        seen = np.clip(rgb @ matrix.T, 0, 1) ** (1 / 2.2)
        apart = np.abs(seen[:, None] - seen[None]).sum(axis=2)
        assert apart[~np.eye(8, dtype=bool)].min() > 0.1


def test_steps_of_values() -> None:
    values = np.array([0.0, 0.5, 1.0, np.nan, -5.0, 7.0, np.inf])
    assert steps_of(values, 0.0, 1.0).tolist() == [0, 16, 31, -1, 0, 31, 31]
    assert steps_of(np.array([3.0, np.nan]), 3.0, 3.0).tolist() == [16, -1]
    assert steps_of(np.array([-1.7e308, 1.7e308]), -1.7e308, 1.7e308).tolist() == [0, 31]


# Numbers


@given(st.floats(-1e12, 1e12), st.floats(1e-9, 1e12))
def test_ticks_are_few_and_inside(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert len(found) <= 6
    if len(found) > 1:
        assert all(low - span * 1e-6 <= each <= low + span * (1 + 1e-6) for each in found)


def test_numbers_as_texts() -> None:
    assert [number(each) for each in (1234567.0, -3.0, 0.1234567, 1e-9, float("nan"), None, float("-inf"))] == [
        "1,234,567",
        "\N{MINUS SIGN}3",
        "0.12346",
        "1.0000e-09",
        NONE,
        NONE,
        "\N{MINUS SIGN}∞",
    ]
    assert [short(each) for each in (950, 1500, -2e6)] == ["950", "1.5 k", "\N{MINUS SIGN}2 M"]
    assert [size(each) for each in (12, 1536, 5 << 30)] == ["12 B", "1.5 kB", "5 GB"]
    assert [share(*each) for each in ((0, 9), (1, 10**6), (10**6 - 1, 10**6), (9, 9), (1, 0))] == [
        "0 %",
        "< 0.1 %",
        "> 99.9 %",
        "100 %",
        NONE,
    ]
    assert [longitude(each) for each in (190.0, -190.0, 360.0, 12.5)] == ["170° W", "170° E", "0°", "12.5° E"]
    assert angle_ticks(-180, 180, 6) == [-180, -120, -60, 0, 60, 120, 180]


# Maps


def test_frames_cross_the_antimeridian() -> None:
    frame = frame_of(
        np.array([[178.0, -20.0, 180.0, -15.0], [-180.0, -20.0, -177.0, -15.0], [175.0, -16, 176, -15]]), 760
    )
    assert 174 < frame.west < 175 < 183 < frame.east < 184.5
    assert frame.lon(np.array([-177.0, 178.0])).tolist() == [183.0, 178.0]
    crossing = frame_of(np.array([[179.0, 0.0, -179.0, 1.0]]), 760)
    assert crossing.west < 179 < 181 < crossing.east < 190
    whole = frame_of(np.array([[-180.0, -90.0, 180.0, 90.0]]), 760)
    assert (whole.west, whole.east, whole.south, whole.north) == (-180, 180, -90, 90)
    assert (frame_of(np.empty((0, 4)), 760).west, frame_of(np.full((1, 4), np.nan), 760).east) == (-180, 180)


@given(st.floats(-180, 180), st.floats(-90, 90), st.floats(0, 40), st.floats(0, 40))
def test_frames_hold_their_boxes(west: float, south: float, wide: float, tall: float) -> None:
    north = min(south + tall, 90.0)
    frame = frame_of(np.array([[west, south, west + wide, north]]), 760)
    x = frame.x(frame.lon(np.array([west + wide / 2])))
    y = frame.y(np.array([south, north]))
    assert -1 <= x[0] <= frame.width + 1
    assert -1 <= y[1] <= y[0] <= frame.height + 1
    assert frame.east - frame.west <= 360 + 1e-9
    assert 200 < frame.height < 700


def test_footprints_across_the_antimeridian_are_one_piece() -> None:
    parts = shapely.MultiPolygon([shapely.box(178, -20, 180, -15), shapely.box(-180, -20, -177, -15)])
    drawn = footprint_map([parts, None, shapely.to_wkb(shapely.box(-176, -18, -170, -12))])
    (data,) = re.findall(r'<path d="([^"]+)" class="foot">', drawn)
    assert data.count("M") == 2
    assert "2 footprints" in drawn
    assert "180°" in drawn and "175° W" in drawn


def test_each_part_of_a_footprint_is_drawn() -> None:
    parts = shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(3, 3, 4, 4)])
    (drawn,) = re.findall(r'<path d="([^"]*)" class="foot"', footprint_map([parts]))
    assert drawn.count("M") == drawn.count("z") == 2


def test_maps_of_values_and_of_many() -> None:
    rng = np.random.default_rng(1)
    feet = [shapely.box(x, y, x + 2, y + 2) for x, y in rng.uniform(-60, 60, (40, 2))]
    dates = np.array(["2020-01-01", "NaT", *["2021-06-30"] * 38], dtype="M8[D]")
    drawn = footprint_map(feet, dates, value_label="newest")
    assert re.findall(r"<b>([^<]+)</b>", drawn) == ["2020-01-01", "2021-06-30"]
    assert {"foot", "tint r0", "tint r31"} <= {*re.findall(r'class="([^"]+)"', drawn)}
    many = [shapely.box(x, y, x + 2, y + 2) for x, y in rng.uniform(-60, 60, (MOST_SHAPES + 1, 2))]
    drawn = footprint_map(many)
    assert "footprints that cover a cell" in drawn
    assert len(drawn) < 400_000
    same = footprint_map([feet[0]] * 5000)
    assert same.count("M") - same.count("<p>M") < 20  # equal ones are drawn once
    assert "<svg" in footprint_map([])
    assert "N" not in re.sub(r"[^°NSEW]", "", footprint_map(feet, geographic=False))


@pytest.mark.parametrize("values", [[None] * 3, [np.nan, np.inf, -np.inf], ["NaT"] * 3])
def test_maps_without_values(values: list) -> None:
    array = np.array(values, dtype="M8[s]") if values[0] == "NaT" else values
    assert 'class="foot"' in footprint_map([shapely.box(0, 0, 1, each) for each in (1, 2, 3)], array)


def test_charts_of_little() -> None:
    edges = np.array([1.0, 1.0])
    assert "<svg" in histogram(edges, np.array([0]), {"median": float("nan")}, title="t")
    assert "2020-02-29" in time_bars(np.array(["2020-02-29", "2020-03-01"], "M8[D]"), np.array([1]), title="t")
    assert "<svg" in stacked_shares([], title="t")
