"""The report in headless Chromium: drawn, without errors and requests, readable in dark mode and at 400 pixels."""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import rasteret_beam
from rasteret_beam import Collection

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --force-device-scale-factor=1 "
    "--enable-logging=stderr --v=0"
).split()
DARK = "--blink-settings=preferredColorScheme=0"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]

PROBE = """<script>
const luminance = (rgb) => rgb.map((part) => part / 255)
  .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
  .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
const ground = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const found = parts(getComputedStyle(at).backgroundColor);
    if (found.length < 4 || found[3] > 0) return found.slice(0, 3);
  }
  return [255, 255, 255];
};
let worst = 21, least = "";
for (const element of document.querySelectorAll("h1,h2,h3,p,th,td,dt,dd,li,label,summary,figcaption,code,svg text")) {
  const box = element.getBoundingClientRect();
  if (!element.textContent.trim() || !box.width) continue;
  const look = getComputedStyle(element);
  const ink = luminance(parts(element.tagName === "text" ? look.fill : look.color).slice(0, 3));
  const below = luminance(ground(element));
  const ratio = (Math.max(ink, below) + 0.05) / (Math.min(ink, below) + 0.05);
  if (ratio < worst) { worst = ratio; least = element.tagName + ": " + element.textContent.slice(0, 40); }
}
const small = [...document.querySelectorAll("svg text")].filter((each) => each.getBoundingClientRect().height > 0)
  .map((each) => each.getBoundingClientRect().height);
const outside = [...document.querySelectorAll(".card, .figures, svg, h1, p")]
  .filter((each) => each.getBoundingClientRect().right > innerWidth + 0.5).length;
const tell = (found) => parent === window ? document.title = found : parent.postMessage(found, "*");
tell(JSON.stringify({
  width: innerWidth, scroll: document.documentElement.scrollWidth, height: document.documentElement.scrollHeight,
  contrast: worst, least, text: Math.min(...small), outside, dark: matchMedia("(prefers-color-scheme: dark)").matches,
  svgs: [...document.querySelectorAll("svg")].filter((each) => each.getBoundingClientRect().height > 20).length,
}));
</script>"""

FRAMED = """<!doctype html><title></title><style>body { margin: 0 } iframe { border: 0 }</style>
<script>addEventListener("message", (event) => { document.title = event.data; });</script>
<iframe src="probed.html" width="WIDTH" height="900"></iframe>"""
"""Windows of Chromium are at least 500 pixels wide, frames in them are not."""


@pytest.fixture(scope="module")
def page(scenes: Collection, points: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with everything that one can have, among it a long name with markup."""
    samples, left = scenes.sample_points(
        points,
        scenes.bands[:2],
        x_column="x",
        y_column="y",
        geometry_crs=32631,
        return_unsampled=True,
        extra_columns=["status"],
    )
    band = samples["band"].to_pylist()
    long = "<b>reflectance_of_the_shortwave_infrared_at_2190_nanometres</b>"
    named = samples.set_column(
        samples.schema.get_field_index("band"), "band", pa.array([long if each == band[0] else each for each in band])
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    rasteret_beam.report(named, left, scenes, title="Samples & more").save(path)
    return path


def browse(path: Path, folder: Path, *words: str, width: int = 1200, height: int = 3600) -> tuple[Path, str]:
    """A screenshot of a page, and what Chromium logs."""
    assert CHROMIUM is not None
    shot = folder / f"{path.stem}-{width}.png"
    given = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},{height}", *words]
    ended = subprocess.run([*given, f"--screenshot={shot}", path.as_uri()], capture_output=True, text=True, timeout=60)
    assert shot.exists(), ended.stderr
    return shot, ended.stderr


def probed(path: Path, folder: Path, *words: str, width: int = 1200) -> dict:
    """Sizes and contrasts of a page, measured by a script that is added to a copy of it."""
    assert CHROMIUM is not None
    copy = folder / "probed.html"
    copy.write_text(path.read_text().replace("</body>", f"{PROBE}</body>"))
    framed = folder / "framed.html"
    framed.write_text(FRAMED.replace("WIDTH", str(width)))
    given = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'probe'}", "--window-size=1300,1000", *words]
    given += ["--virtual-time-budget=3000", "--dump-dom", framed.as_uri()]
    ended = subprocess.run(given, capture_output=True, text=True, timeout=60)
    return json.loads(re.search(r"<title>(.*?)</title>", ended.stdout)[1].replace("&quot;", '"').replace("&amp;", "&"))


@cache
def colours_of(path: Path) -> Sequence[tuple[int, ...]]:
    pixels = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    return [tuple(each) for each in np.unique(pixels[::7], axis=0).tolist()]


def requests_of(log: Path) -> set[str]:
    """Who has made requests over the network; Chromium itself, which looks for updates, is "not an origin"."""
    return {*re.findall(r'"initiator":"([^"]*)"', log.read_text())} - {"not an origin"}


def test_screenshots_are_not_blank(page: Path, tmp_path: Path) -> None:
    light, messages = browse(page, tmp_path)
    assert "CONSOLE" not in messages
    assert len(colours_of(light)) > 300
    dark, _ = browse(page, tmp_path, DARK, width=1201)
    corners = [Image.open(shot).convert("L").getpixel((3, 3)) for shot in (light, dark)]
    assert corners[0] > 230 and corners[1] < 40


def test_the_page_makes_no_request(page: Path, tmp_path: Path) -> None:
    """A page with a picture from a server makes one, and an error is logged, so both can be seen."""
    browse(page, tmp_path, f"--log-net-log={tmp_path / 'ours.json'}")
    assert requests_of(tmp_path / "ours.json") == set()
    other = tmp_path / "other.html"
    other.write_text('<img src="http://127.0.0.1:9/x.png"><script>console.error("seen"); missing()</script>')
    _, messages = browse(other, tmp_path, f"--log-net-log={tmp_path / 'other.json'}")
    assert requests_of(tmp_path / "other.json") != set()
    assert "CONSOLE" in messages and "seen" in messages


@pytest.mark.parametrize("words", [(), (DARK,)], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 700, 1200])
def test_readable_at_any_width(page: Path, tmp_path: Path, words: tuple[str, ...], width: int) -> None:
    """The body does not scroll sideways, no card is cut, and texts have a contrast of 4.5 and 8 pixels."""
    found = probed(page, tmp_path, *words, width=width)
    assert found["dark"] == bool(words)
    assert found["width"] == width
    assert found["scroll"] <= width
    assert found["outside"] == 0
    assert found["contrast"] >= 4.5, found["least"]
    assert found["text"] >= 8
    assert found["svgs"] >= 5
