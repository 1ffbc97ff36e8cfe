"""Hooks of MkDocs and griffe: tables made from the code, pages that lie outside docs/, and docstrings as Markdown."""

import inspect
import posixpath
import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import griffe

ROOT = Path(__file__).parent.parent
INCLUDED = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "benchmarks/README.md",
    "examples/README.md",
    "templates/README.md",
)
"""Pages outside docs/ that the site has too, under ``repository/``."""

LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s]+)(?=\))")
"""The target of a relative Markdown link or picture."""

FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
TABLE = re.compile(r"^<!-- table: (\w+) -->$", re.MULTILINE)

ROLE = re.compile(r":(?:class|func|meth|mod|data|attr):`(~?)([\w.]+)`")
RST_TABLE = re.compile(r"^=+(?:[ ]+=+)+\n.*?^=+(?:[ ]+=+)+\n.*?^=+(?:[ ]+=+)+$", re.MULTILINE | re.DOTALL)


OPTIONS = re.compile(r"^\s*<options>$", re.MULTILINE)
"""The line that a docstring has in place of the options that ``takes_options`` adds."""


class MarkdownDocstrings(griffe.Extension):
    """Rewrites each docstring before griffe parses it, and adds the options that a decorator gives a function."""

    def on_instance(self, *, obj: Any, **kwargs: Any) -> None:
        """Called by griffe for each object that it has read."""
        if obj.is_function and any("takes_options" in str(each.value) for each in obj.decorators):
            obj.parameters = with_options(obj.parameters, inspect.signature(running(obj)))
        if obj.docstring is not None:
            text = obj.docstring.value
            obj.docstring.value = as_markdown(with_options_text(text, running(obj)) if OPTIONS.search(text) else text)


def running(obj: Any) -> Any:
    """The object of the running program that griffe has read from the source."""
    found = import_module(obj.module.path)
    for name in obj.path.removeprefix(f"{obj.module.path}.").split("."):
        found = getattr(found, name)
    return found


def with_options(parameters: Any, signature: inspect.Signature) -> griffe.Parameters:
    """Parameters that griffe has read, and those that only the signature has, in its order."""
    kinds = {kind.name.lower(): kind for kind in griffe.ParameterKind}
    read = {each.name: each for each in parameters}
    return griffe.Parameters(
        *(
            read[name]
            if name in read and name != "options"
            else griffe.Parameter(
                name,
                annotation=inspect.formatannotation(each.annotation).replace("typing.", ""),
                kind=kinds[each.kind.name.lower()],
                default=repr(each.default),
            )
            for name, each in signature.parameters.items()
        )
    )


def with_options_text(text: str, documented_object: Any) -> str:
    """A docstring with the options that a function, or the constructor of a class, takes."""
    from rasteret_beam.option_fields import documented, options_of

    parameters = inspect.signature(documented_object).parameters
    definition = get_args(parameters["options"].annotation)[0]
    return documented(text, [each for each in options_of(definition) if each.name in parameters])


def as_markdown(text: str) -> str:
    """Roles of reStructuredText become links where the site has the target, else code; its tables become Markdown."""
    text = RST_TABLE.sub(lambda table: docstring_table(table[0]), text)
    return ROLE.sub(lambda role: _link(role[2], short=bool(role[1])), text)


def _link(name: str, short: bool) -> str:
    last = name.rpartition(".")[2]
    shown = last if short or name.startswith("rasteret_beam.") else name
    return f'<autoref identifier="rasteret_beam.{last}" optional><code>{shown}</code></autoref>'


def on_files(files: Any, config: Any) -> Any:
    """Add the included pages, and the examples with their pictures."""
    from mkdocs.structure.files import File

    examples = [path.relative_to(ROOT).as_posix() for path in ROOT.glob("examples/*.p*")]
    for name in (*INCLUDED, *examples):
        if (ROOT / name).exists():
            files.append(File.generated(config, f"repository/{name}", abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Insert tables, and point links at the place where the site has their targets."""
    return with_site_links(with_tables(markdown), page.file.src_uri)


def with_tables(markdown: str) -> str:
    """Put a table in place of each ``<!-- table: NAME -->``."""
    return TABLE.sub(lambda found: TABLES[found[1]](), markdown)


def with_site_links(markdown: str, page: str) -> str:
    """Relative links of a page, which hold in the repository, as the site needs them; code is left alone.

    Parameters
    ----------
    markdown : str
    page : str
        Path of the page in the site, such as ``sampling.md`` or ``repository/SECURITY.md``.
    """
    in_repository = page.removeprefix("repository/") if page.startswith("repository/") else f"docs/{page}"

    def moved(link: re.Match[str]) -> str:
        target, mark, anchor = link[1].partition("#")
        place = posixpath.normpath(posixpath.join(posixpath.dirname(in_repository), target))
        there = place.removeprefix("docs/") if place.startswith("docs/") else f"repository/{place}"
        return posixpath.relpath(there, posixpath.dirname(page) or ".") + mark + anchor

    parts = FENCED.split(markdown)
    return "".join(part if part.startswith("```") else LINK.sub(moved, part) for part in parts)


def options_table(definition: type) -> str:
    """Markdown table of a definition of options: name, flag, values, default, and the one line of help."""
    from rasteret_beam.option_fields import options_of

    rows = [
        (f"`{each.name}`", flag_text(each), values_text(each.type), default_text(each), each.facts.help)
        for each in options_of(definition)
    ]
    return markdown_table(("option", "flag", "values", "default", "meaning"), rows)


def flag_text(option: Any) -> str:
    """The flag of an option; empty where it has none of its own."""
    flag = option.name if option.facts.flag is None else option.facts.flag
    return f"`--{flag}`" if flag else ""


def default_text(option: Any) -> str:
    """The default in Python, and in the flag's unit where that is another one."""
    in_flag = f" (`--{option.facts.flag} {option.default // option.facts.unit}`)" if option.facts.unit != 1 else ""
    return f"`{option.default!r}`{in_flag}"


def values_text(hint: Any) -> str:
    """An annotation as a reader of the table wants it: the choices of a ``Literal``, else the type."""
    if get_origin(hint) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(values_text(part) for part in get_args(hint))
    if get_origin(hint) is tuple and Ellipsis not in get_args(hint):
        return f"({', '.join(values_text(part) for part in get_args(hint))})"
    if get_origin(hint) in (tuple, list):
        return f"list of {values_text(get_args(hint)[0])}"
    if get_origin(hint) is Mapping:
        return f"mapping of {' to '.join(values_text(part) for part in get_args(hint))}"
    return "`None`" if hint is NoneType else f"`{hint.__name__}`"


def columns_table(columns: Any) -> str:
    """Markdown table of columns of an output: name, Arrow type, content."""
    rows = [(f"`{column.name}`", f"`{column.field.type}`", column.help) for column in columns]
    return markdown_table(("column", "type", "content"), rows)


def docstring_table(text: str) -> str:
    """The simple table of reStructuredText in a docstring, as Markdown."""
    lines = text.splitlines()
    rules = [number for number, line in enumerate(lines) if re.fullmatch(r"\s*=+(\s+=+)+", line)]
    starts = [found.start() for found in re.finditer("=+", lines[rules[0]])]
    ends = [*starts[1:], None]

    def cells(line: str) -> list[str]:
        return [line[start:end].strip() for start, end in zip(starts, ends, strict=True)]

    rows = [cells(line) for line in lines[rules[1] + 1 : rules[2]]]
    return markdown_table(cells(lines[rules[0] + 1]), [(f"`{name}`", *rest) for name, *rest in rows])


def markdown_table(header: Any, rows: Any) -> str:
    """Lines of a Markdown table; bars inside cells are escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in lines)


def sample_options() -> str:
    from rasteret_beam import SampleOptions

    return options_table(SampleOptions)


def chip_options() -> str:
    from rasteret_beam import ChipOptions

    return options_table(ChipOptions)


def zonal_options() -> str:
    from rasteret_beam import ZonalOptions

    return options_table(ZonalOptions)


def extra_columns() -> str:
    from rasteret_beam.columns import COLUMNS

    return columns_table(column for column in COLUMNS if column.optional)


def statistics() -> str:
    from rasteret_beam.statistics import HELP, PERCENTILE

    rows = [*HELP.items(), (f"{PERCENTILE}NN", "percentile, NN from 0 to 100")]
    return markdown_table(["statistic", "of the valid pixels"], [(f"`{name}`", text) for name, text in rows])


def counters() -> str:
    from rasteret_beam import metrics

    return docstring_table(metrics.__doc__ or "")


OF_PAGES = (sample_options, chip_options, zonal_options, extra_columns, statistics, counters)
TABLES = {each.__name__: each for each in OF_PAGES}
