"""What the documentation names exists: tests, files, links, flags, public names; and the hooks of its site."""

import inspect
import re
from argparse import ArgumentParser
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Literal

import griffe
import pytest

import rasteret_beam
from docs import hooks
from pipelines.cli.flags import _beam_parser
from pipelines.cli.runner_options import FLINK
from pipelines.cli.subcommands import SUBCOMMANDS
from rasteret_beam import errors, option_fields
from tests.support.documents import PAGES, anchors_of, links_of, without_code
from tests.support.paths import ROOT

COMMANDS = tuple(subcommand.module for subcommand in SUBCOMMANDS.values())
DOCS = sorted(ROOT.glob("docs/*.md"))


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", DOCS, ids=name)
def test_tests_that_a_page_names(page: Path) -> None:
    for file, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page.read_text()):
        assert re.search(rf"def {test}\(", (ROOT / file).read_text()), f"{page} names {file}::{test}"


def test_the_page_of_promises_names_a_test_for_each() -> None:
    rows = [line for line in (ROOT / "docs" / "reliability.md").read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 10
    assert all("`tests/" in row.rsplit("|", 2)[1] for row in rows)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links(page: Path) -> None:
    """Relative ones lead to a file of the repository, and to a heading where they have an anchor."""
    for target, anchor in links_of(page):
        assert target.is_file() and target.is_relative_to(ROOT), f"{name(page)} links to {target}"
        if anchor:
            assert anchor in anchors_of(target), f"{name(page)} links to {name(target)}#{anchor}"


def test_links_out_of_docs_lead_to_pages_that_the_site_has() -> None:
    targets = {name(target) for page in DOCS for target, _ in links_of(page)}
    assert {target for target in targets if not target.startswith("docs/")} <= set(hooks.INCLUDED)


def test_the_site_has_each_page() -> None:
    listed = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert {page.removeprefix("repository/") for page in listed if page.startswith("repository/")} == set(
        hooks.INCLUDED
    ) - {"README.md"}
    assert {page for page in listed if not page.startswith("repository/")} == {page.name for page in DOCS}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_a_page_names(page: Path) -> None:
    """Paths of code: from the root of the repository, or from rasteret_beam/."""
    for path in re.findall(r"`((?:\w+/)+(?:\w+\.py)?)`", without_code(page)):
        if path.split("/")[0] in ("rasteret_beam", "pipelines", "tests", "templates", "examples", "docs", *FLOORS):
            assert (ROOT / path).exists() or (ROOT / "rasteret_beam" / path).exists(), f"{name(page)} names {path}"


FLOORS = ("kernels", "readers", "collection", "transforms")


def flags_of(parser: ArgumentParser) -> set[str]:
    return {flag for action in parser._actions for flag in action.option_strings}


@pytest.mark.parametrize("page", [*DOCS, ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=name)
def test_flags_that_a_page_names(page: Path) -> None:
    ours = set().union(*(flags_of(import_module(f"pipelines.{command}").parser()) for command in COMMANDS))
    known = (
        ours
        | flags_of(_beam_parser())
        | {f"--{option.name}" for option in FLINK}
        | {"--folder", "--min_year", "--version"}
    )
    named = set(re.findall(r"`(--[a-z]\w+)", without_code(page)))
    assert named - known == set()


def test_the_api_page_has_the_public_names() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    assert set(re.findall(r"^::: rasteret_beam\.(\w+)$", text, re.MULTILINE)) == set(rasteret_beam.__all__) | {"errors"}
    listed = set(re.findall(r"^        - (\w+)$", text, re.MULTILINE))
    assert listed == {
        each for each, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__
    }


# The hooks of the site


@dataclass(frozen=True, kw_only=True)
class Throwaway:
    shape: Literal["round", "square"] = option_fields.option("round", help="a | b")
    tolerance: int | None = option_fields.option(None, help="how far", flag="reach")
    names: tuple[str, ...] = option_fields.option((), help="which", flag="")
    budget: int = option_fields.option(3 << 20, help="how much", flag="budget_mb", unit=1 << 20)


def test_the_table_of_options_is_made_of_their_definition() -> None:
    assert hooks.options_table(Throwaway).splitlines() == [
        "| option | flag | values | default | meaning |",
        "| --- | --- | --- | --- | --- |",
        "| `shape` | `--shape` | `round`, `square` | `'round'` | a \\| b |",
        "| `tolerance` | `--reach` | `int` or `None` | `None` | how far |",
        "| `names` |  | list of `str` | `()` | which |",
        "| `budget` | `--budget_mb` | `int` | `3145728` (`--budget_mb 3`) | how much |",
    ]


@pytest.mark.parametrize(
    ("page", "definition"),
    [
        ("sampling", rasteret_beam.SampleOptions),
        ("chips", rasteret_beam.ChipOptions),
        ("zonal", rasteret_beam.ZonalOptions),
    ],
)
def test_a_page_has_all_options(page: str, definition: type) -> None:
    text = hooks.with_tables((ROOT / "docs" / f"{page}.md").read_text())
    for option in option_fields.options_of(definition):
        assert f"| `{option.name}` |" in text and option.facts.help in text
    assert "<!-- table" not in text
    assert page != "sampling" or "| `pixel_row` | `int32` |" in text


def test_the_sample_tables_of_the_pages_are_that_of_the_code() -> None:
    rows = re.findall(
        r"^\| (`\w+`(?:, `\w+`)?) \| ([\w\[\]]+) \|", (ROOT / "docs/sampling.md").read_text(), re.MULTILINE
    )
    written = {column: kind for columns, kind in rows for column in re.findall(r"\w+", columns)}
    schema = rasteret_beam.SampleOptions().schema()
    assert {field.name: str(field.type).replace("double", "float64") for field in schema} == written
    readme = (ROOT / "README.md").read_text()
    assert all(f"`{field.name}`" in readme for field in schema)


def test_the_table_of_counters() -> None:
    from rasteret_beam import metrics

    lines = hooks.counters().splitlines()
    assert lines[0].startswith("| name | unit | count")
    assert [line for line in lines if line.startswith("| `dead_letters` | tiles | ")]
    assert len(lines) == 2 + len(re.findall(r"^[a-z_<>]+  +", metrics.__doc__ or "", re.MULTILINE)) - 1


@pytest.mark.parametrize(
    ("page", "link", "expected"),
    [
        ("sampling.md", "chips.md#options", "chips.md#options"),
        ("sampling.md", "../SECURITY.md", "repository/SECURITY.md"),
        ("index.md", "images/demo.png", "images/demo.png"),
        ("repository/SECURITY.md", "docs/storage.md", "../storage.md"),
        ("repository/benchmarks/README.md", "../docs/performance.md#a", "../../performance.md#a"),
        ("repository/templates/README.md", "../README.md", "../README.md"),
        ("sampling.md", "https://example.org/a.md", "https://example.org/a.md"),
        ("sampling.md", "#nodata", "#nodata"),
    ],
)
def test_links_as_the_site_has_them(page: str, link: str, expected: str) -> None:
    assert hooks.with_site_links(f"see [it]({link})", page) == f"see [it]({expected})"
    code = f"```python\nhref = [it]({link})\n```"
    assert hooks.with_site_links(code, page) == code


def test_docstrings_as_markdown() -> None:
    text = "As :class:`~rasteret_beam.ReadPoints`, :func:`rasteret_beam.schema.kept_fields` and :data:`ENDINGS`."
    assert hooks.as_markdown(text) == (
        'As <autoref identifier="rasteret_beam.ReadPoints" optional><code>ReadPoints</code></autoref>, '
        '<autoref identifier="rasteret_beam.kept_fields" optional><code>kept_fields</code></autoref> and '
        '<autoref identifier="rasteret_beam.ENDINGS" optional><code>ENDINGS</code></autoref>.'
    )


def test_signatures_of_the_site_have_the_options() -> None:
    package = griffe.load(
        "rasteret_beam.collection.eager.sample",
        search_paths=[str(ROOT)],
        extensions=griffe.Extensions(hooks.MarkdownDocstrings()),
    )
    function = package["sample_points"]
    read = [each.name for each in function.parameters]
    assert read == list(inspect.signature(rasteret_beam.Collection.sample_points).parameters)
    assert (
        not hooks.OPTIONS.search(function.docstring.value) and "max_distance_pixels : int" in function.docstring.value
    )
