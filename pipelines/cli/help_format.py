"""How the help of the commands is laid out: at most 100 columns, prose wrapped, examples as written."""

import argparse
import re
import shutil
import textwrap

COLUMNS = 100

TIED = "\u00a0"
"""A blank that no line ends at: between a flag and its value."""


def columns() -> int:
    """Columns of the terminal, at most :data:`COLUMNS`."""
    return min(shutil.get_terminal_size().columns, COLUMNS)


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """A formatter for terminals of any width, which wraps paragraphs and keeps those with indented lines."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=26, width=columns() - 2)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = [_paragraph(part, width) for part in text.strip("\n").split("\n\n")]
        return textwrap.indent("\n\n".join(parts), indent)


def _paragraph(text: str, width: int) -> str:
    is_example = any(line.startswith(" ") for line in text.splitlines())
    return text if is_example else textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)


def usage(program: str, needed: str) -> str:
    """The usage of a command: its name, what it needs, and ``[flags]``, on several lines if it is long."""
    whole = re.sub(r"(--\w+) (?=\w)", rf"\1{TIED}", " ".join(f"{program} {needed} [flags]".split()))
    lines = textwrap.fill(whole, max(40, columns() - 9), subsequent_indent="    ", break_on_hyphens=False)
    return lines.replace(TIED, " ")
