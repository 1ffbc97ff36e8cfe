"""Parts that charts have in common: the drawing with its title and description, axes, legends."""

from collections.abc import Mapping, Sequence
from zlib import crc32

import numpy as np

from rasteret_beam.pages.colours import Floats
from rasteret_beam.pages.markup import Content, Html, tag


def drawing(width: float, height: float, title: str, description: str, *content: Content, kind: str = "") -> Html:
    """An SVG that scales with its place, with a title and a description for screen readers."""
    of = f"d{crc32(f'{title}|{description}|{content}'.encode()):08x}"
    return tag(
        "svg",
        tag("title", title, id=f"{of}t"),
        tag("desc", description, id=f"{of}d"),
        *content,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_labelledby=f"{of}t {of}d",
        xmlns="http://www.w3.org/2000/svg",
        class_=kind or None,
    )


def text(x: float, y: float, content: str, anchor: str = "middle", kind: str = "") -> Html:
    return tag("text", content, x=f"{x:.1f}", y=f"{y:.1f}", text_anchor=anchor, class_=kind or None)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    return tag("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=kind)


def boxes(x: Floats, y: Floats, width: Floats, height: Floats) -> str:
    """Rectangles as the data of one path; all arguments are arrays of one length."""
    parts = np.round(np.stack([x, y, width, height, -width], axis=1), 2).tolist()
    return "".join(f"M{x:g} {y:g}h{w:g}v{h:g}h{back:g}z" for x, y, w, h, back in parts)


def path(data: str, kind: str, title: str = "") -> Html:
    """A path; ``title`` is shown by browsers where the pointer is on it."""
    return tag("path", tag("title", title) if title else "", d=data, class_=kind)


def legend(entries: Mapping[str, tuple[str, str]]) -> Html:
    """Names with their colours: {name: (class, text after it)}."""
    return tag(
        "ul",
        [
            tag("li", tag("span", class_=f"swatch {kind}", aria_hidden="true"), tag("span", name, " ", tag("b", after)))
            for name, (kind, after) in entries.items()
        ],
        class_="legend",
    )


def colour_bar(low: str, high: str, what: str) -> Html:
    """The ramp of colours with the values of its ends, and what it shows."""
    ends = tag("b", low), tag("i", aria_hidden="true"), tag("b", high)
    return tag("div", *ends, tag("span", what) if what else "", class_="colours")


def figure(chart: Content, *below: Content, caption: Content = "") -> Html:
    """A chart with its legend and caption."""
    return tag("figure", chart, *below, tag("figcaption", caption) if caption else "")


def every_other(number: int) -> Sequence[str]:
    """Classes of ticks: those at odd places are left out on small screens."""
    return ["odd" if at % 2 else "" for at in range(number)]
