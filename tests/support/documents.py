"""The pages of the documentation: their code blocks and how these run, their headings and links."""

import ast
import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from pipelines.cli import main
from tests.support.paths import ROOT

PAGES = [
    *sorted(ROOT.glob("*.md")),
    *sorted(ROOT.glob("docs/*.md")),
    *(ROOT / folder / "README.md" for folder in ("benchmarks", "examples", "templates")),
]
BLOCK = re.compile(r"^(?:<!-- (not run|built, not run): [^\n]* -->\n)?```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?![a-z]+:)([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A code block of a page.

    Attributes
    ----------
    language : str
    code : str
    runs : bool
        False where a comment before it says ``not run`` or ``built, not run``.
    place : str
        Page and line, for errors.
    """

    language: str
    code: str
    runs: bool
    place: str


def blocks_of(page: Path) -> list[Block]:
    """The code blocks of a page, in order."""
    text = page.read_text()
    return [
        Block(
            found[2], found[3], found[1] is None, f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, found.start(3))}"
        )
        for found in BLOCK.finditer(text)
    ]


def without_code(page: Path) -> str:
    return BLOCK.sub("", page.read_text())


def commands_of(block: Block) -> list[list[str]]:
    """The commands of a shell block, as words."""
    lines = [line for line in block.code.replace("\\\n", " ").splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


def run_page(page: Path) -> dict[str, Any]:
    """Run the blocks of a page in turn, those of Python in one namespace, in this process and folder."""
    namespace: dict[str, Any] = {"__name__": page.stem}
    for block in blocks_of(page):
        if block.runs and block.language == "python":
            exec(compile(block.code, block.place, "exec"), namespace)
        elif block.runs and block.language == "sh":
            for command in commands_of(block):
                code = run_command(command)
                assert code == 0, f"{block.place}: exit code {code}"
    return namespace


def run_command(words: list[str]) -> int:
    """Run ``rasteret-beam ...`` or ``python -m MODULE ...`` in this process and folder; gives its exit code."""
    if words[0] == "rasteret-beam":
        return main.main(words[1:])
    assert words[:2] == ["python", "-m"], words
    return import_module(words[2]).main(words[3:])


def check_calls(block: Block, names: dict[str, Any]) -> int:
    """Check that what a block imports exists, and that each call of it has arguments that it takes.

    Parameters
    ----------
    names : dict
        What earlier blocks of the page have imported; those of this block are added.

    Returns
    -------
    int
        Calls that were checked: those of imported names, as far as they can be told without running the block.
    """
    tree = ast.parse(block.code, block.place)
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            exec(compile(ast.Module([node], []), block.place, "exec"), names)
    checked = 0
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        called = _resolved(call.func, names)
        if called is not None:
            given = {keyword.arg: None for keyword in call.keywords if keyword.arg}
            _signature(called).bind(*[None] * len(call.args), **given)
            checked += 1
    return checked


def _signature(called: Any) -> inspect.Signature:
    """Of a callable; of an object whose attributes stand for columns, as those of Polars' ``col`` do, of its class."""
    try:
        return inspect.signature(called)
    except TypeError:
        return inspect.signature(partial(type(called).__call__, called))


def _resolved(node: ast.expr, names: dict[str, Any]) -> Any:
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _resolved(node.value, names)
        return None if owner is None else getattr(owner, node.attr)
    return None


def links_of(page: Path) -> Iterator[tuple[Path, str]]:
    """Targets of the relative links and pictures of a page: file and anchor."""
    for target in LINK.findall(without_code(page)):
        path, _, anchor = target.partition("#")
        yield (page.parent / path).resolve() if path else page, anchor


def anchors_of(page: Path) -> set[str]:
    """Anchors of the headings of a page, as both GitHub and Python-Markdown make them: elsewhere they differ."""
    headings = [re.sub(r"[`*]|\]\([^)]*\)|\[", "", heading).lower() for heading in HEADING.findall(without_code(page))]
    kept = [re.sub(r"[^\w\s-]", "", heading).strip() for heading in headings]
    return {text.replace(" ", "-") for text in kept} & {re.sub(r"[-\s]+", "-", text) for text in kept}
