"""Markup in which no text is left unescaped: elements are made by :func:`tag`, which escapes all that is not markup."""

from collections.abc import Iterable
from html import escape
from typing import Any

EMPTY_ELEMENTS = frozenset({"meta", "br", "hr", "img", "input", "link"})


class Html(str):
    """A text that is markup; any other text is escaped where it is put into a page."""

    __slots__ = ()


Content = str | Iterable[str]
"""A text, markup, or several of them."""


def html(content: Content) -> Html:
    """Content as markup: :class:`Html` stays as it is, other text is escaped."""
    if isinstance(content, Html):
        return content
    if isinstance(content, str):
        return Html(escape(content, quote=False))
    return Html("".join(html(each) for each in content))


def tag(name: str, /, *content: Content, **attributes: Any) -> Html:
    """An element.

    Parameters
    ----------
    name : str
    content : texts, which are escaped, and markup
    attributes
        A trailing underscore is removed (``class_``), others become hyphens (``aria_label``). None leaves an attribute
        out, True gives it without a value.
    """
    given = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    if name in EMPTY_ELEMENTS:
        return Html(f"<{name}{given}>")
    return Html(f"<{name}{given}>{''.join(map(html, content))}</{name}>")


def _attribute(name: str, value: Any) -> str:
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
