"""A page in one file that needs no network: sections of cards, in light and dark, on small screens and on paper."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from rasteret_beam.pages.markup import Content, Html, html, tag
from rasteret_beam.pages.style import style


class Section(NamedTuple):
    """A part of a page: a heading, what follows it, and a sentence about it."""

    heading: str
    content: Content
    about: Content = ""


def page(title: str, sections: Iterable[Section | tuple[str, Content]], lead: Content = "", foot: Content = "") -> str:
    """A whole HTML document.

    Parameters
    ----------
    title : str
    sections : iterable of Section
        Or of (heading, content). Content that is not :class:`.markup.Html` is text and is escaped.
    lead, foot : text or markup
        Below the title, and at the end.
    """
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("link", rel="icon", href="data:,"),
        tag("style", Html(style())),
    )
    header = tag("header", tag("h1", title), tag("p", lead, class_="lead") if lead else "")
    parts = [_part(Section(*section)) for section in sections]
    body = tag("body", header, tag("main", parts), tag("footer", foot) if foot else "", class_="rb")
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _part(section: Section) -> Html:
    about = tag("p", section.about) if section.about else ""
    return tag("section", tag("header", tag("h2", section.heading), about), section.content, class_="part")


def fragment(*content: Content) -> Html:
    """Content with the style sheet, to put into the page of another program, such as a notebook."""
    return tag("div", tag("style", Html(style())), *content, class_="rb")


def cards(*content: Content, small: bool = False) -> Html:
    """Cards beside each other where there is room: two, or three ``small`` ones."""
    return tag("div", *(each for each in content if each), class_="cards small" if small else "cards")


def card(*content: Content, heading: str = "", wide: bool = False) -> Html:
    """A framed part with an optional heading; ``wide`` takes the whole width."""
    return tag("div", tag("h3", heading) if heading else "", *content, class_="card wide" if wide else "card")


def figures(given: Mapping[str, str | tuple[str, Content]]) -> Html:
    """Important numbers in a row: {label: number}, or {label: (number, note)}."""
    shown = []
    for label, value in given.items():
        number, note = (value, "") if isinstance(value, str) else value
        shown.append(tag("div", tag("dt", label), tag("dd", number), tag("dd", note) if note else ""))
    return tag("dl", shown, class_="figures")


def table(head: Sequence[Content], rows: Iterable[Sequence[Content]], numbers: Iterable[int] = ()) -> Html:
    """A table; the first cell of a row is its heading, and the columns of ``numbers`` are aligned on the right."""
    right = {*numbers}

    def cell(name: str, at: int, content: Content, scope: str | None = None) -> Html:
        return tag(name, html(content), scope=scope, class_="number" if at in right else None)

    top = tag("thead", tag("tr", [cell("th", at, each, "col") for at, each in enumerate(head)])) if any(head) else ""
    lines = [
        tag("tr", [cell("th" if at == 0 else "td", at, each, None if at else "row") for at, each in enumerate(row)])
        for row in rows
    ]
    return tag("div", tag("table", top, tag("tbody", lines)), class_="scroll", tabindex="0" if len(head) > 3 else None)


def more(summary: str, *content: Content) -> Html:
    """Content that is shown on demand."""
    return tag("details", tag("summary", summary), *content)


def choice(name: str, panels: Sequence[tuple[str, Content]]) -> Html:
    """Panels of which one is shown at a time, by a row of labels; ``name`` is unique in the page."""
    if len(panels) < 2:
        return html([html(content) for _, content in panels])
    ids = [f"{name}-{at}" for at in range(len(panels))]
    inputs = [tag("input", type="radio", name=name, id=each, checked=True if each == ids[0] else None) for each in ids]
    labels = [tag("label", label, for_=each) for each, (label, _) in zip(ids, panels, strict=True)]
    rules = [
        f"#{each}:checked~.p{at}{{display:block}}#{each}:checked~.tabs label:nth-child({at + 1})"
        "{color:var(--card);background:var(--accent);border-color:var(--accent)}"
        f"#{each}:focus-visible~.tabs label:nth-child({at + 1}){{outline:2px solid var(--ink);outline-offset:2px}}"
        for at, each in enumerate(ids)
    ]
    shown = [tag("div", content, class_=f"panel p{at}") for at, (_, content) in enumerate(panels)]
    styled = tag("style", Html("".join(f".rb {rule.replace('}#', '}.rb #')}" for rule in rules)))
    return tag("div", styled, inputs, tag("div", labels, class_="tabs"), shown, class_="choice")
