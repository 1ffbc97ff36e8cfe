"""Texts of the package, the commands and the docs avoid phrases that native technical English does not have."""

import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PHRASES = {
    "say what a thing is not: 'is not a date'": r"(?<!there )\b(?:is|are) no (?!longer\b|more\b)",
    "name the thing": r"\bsuch an? ",
    "say 'separate' or 'its'": r"\bof (?:its|their|your|our) own\b",
    "files contain, describe or list": r"\bvouch",
    "servers send, answer or support": r"\bservers? says?\b",
    "say 'requested' or 'required'": r"\basked of\b",
    "say what it does": r"\ba word (?:to|on)\b|\bwithout a word\b",
    "say 'untrusted'": r"\bstranger",
    "say who or what": r"\bnobody\b",
    "say 'release' or 'delete'": r"\blets? go of\b",
    "say 'nevertheless', or leave it out": r"\ball the same\b",
}

TEXTS = [
    *ROOT.glob("rasteret_beam/**/*.py"),
    *ROOT.glob("pipelines/**/*.py"),
    *ROOT.glob("templates/*.json"),
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("examples/*.[mp][dy]"),
    ROOT / "templates" / "README.md",
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
]


def one_line(path: Path) -> str:
    """A file's text without line breaks and the signs of comments."""
    return " ".join(re.sub(r"^\s*#\s", "", line).strip() for line in path.read_text().splitlines())


@pytest.mark.parametrize("instead", PHRASES)
def test_phrases_to_avoid(instead: str) -> None:
    """Each hit is shown with its surroundings."""
    hits = [
        f"{path.relative_to(ROOT)}: ...{text[max(0, found.start() - 40) : found.end() + 40]}..."
        for path in TEXTS
        for text in [one_line(path)]
        for found in re.finditer(PHRASES[instead], text, re.IGNORECASE)
    ]
    assert not hits, f"{instead}:\n" + "\n".join(hits)


def test_the_phrases_are_found() -> None:
    """The test itself sees what it forbids, also across lines, and leaves ordinary English alone."""
    bad = "it is no date; such a name; a port of its own; servers say so; a word to it; nobody; let go of; all the same"
    good = "there is no file; it is no longer valid; names such as a.tif; its own port; the same for all"
    assert sum(bool(re.search(phrase, bad)) for phrase in PHRASES.values()) == 8
    assert not any(re.search(phrase, good) for phrase in PHRASES.values())
