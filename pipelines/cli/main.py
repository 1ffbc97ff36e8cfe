"""The command ``rasteret-beam``: it finds the subcommand, and imports its module alone.

Importing this module, ``--help``, ``--version`` and ``completion`` need the standard library only.
"""

import re
import signal
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from pipelines.cli.subcommands import COMMAND, NAMES, SUBCOMMANDS, called_by_name

HELP = f"""\
usage: {COMMAND} COMMAND [flags]

Pixel values under points and polygons, from collections of cloud-optimised GeoTIFFs.

commands:
{{commands}}
  completion  print the completion script for bash, zsh or fish
  help        show the help of a command, as COMMAND --help does

options:
  -h, --help  show this help
  --version   show the version

{COMMAND} COMMAND --help lists the flags of a command. Start with:
  {COMMAND} build --cogs 'scenes/*.tif' --output collection/
  {COMMAND} inspect collection/
"""
WRONG = 2


def help_text() -> str:
    """What ``rasteret-beam --help`` shows."""
    lines = [f"  {name:<12}{subcommand.summary}" for name, subcommand in SUBCOMMANDS.items()]
    return HELP.format(commands="\n".join(lines))


def version() -> str:
    """The version, from the text of the package: importing it takes a second."""
    found = find_spec("rasteret_beam")
    assert found is not None and found.origin is not None
    stated = re.search(r'^__version__ = "([^"]+)"', Path(found.origin).read_text(encoding="utf-8"), re.MULTILINE)
    assert stated is not None
    return stated[1]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; gives its exit code."""
    first, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    first, rest = ("help", []) if first in ("-h", "--help") else (first, rest)
    if first == "help" and rest:
        first, rest = rest[0], ["--help"]
    if first in SUBCOMMANDS:
        module = import_module(f"pipelines.{SUBCOMMANDS[first].module}")
        from pipelines.cli.process import exit_code

        with called_by_name(first):
            return exit_code(partial(module.main, rest))
    if first == "completion":
        from pipelines.cli import completion

        with called_by_name(first):
            return completion.main(rest)
    if first == "help":
        return _shown(help_text())
    if first == "--version":
        return _shown(f"{COMMAND} {version()}\n")
    sys.stderr.write(help_text() if not first else f"{COMMAND}: error: {_what_is_wrong(first)}\n")
    return WRONG


def _shown(text: str) -> int:
    sys.stdout.write(text)
    return 0


def _what_is_wrong(first: str) -> str:
    """Why the first word is not a command, with the nearest one."""
    commands = (*SUBCOMMANDS, "completion", "help")
    known = {name: name for name in commands} | NAMES | {"version": "--version"}
    if first.startswith("-"):
        known = {f"--{name}": name for name in SUBCOMMANDS} | {flag: flag for flag in ("--help", "--version")}
    near = get_close_matches(first.lower(), known, n=1, cutoff=0.6)
    if near:
        return f"unknown command {first!r}; did you mean {known[near[0]]}?"
    if first.startswith("-"):
        return f"the command comes before its flags: {COMMAND} COMMAND {first}; see {COMMAND} --help"
    return f"unknown command {first!r}; the commands are {', '.join(SUBCOMMANDS)}"


def run() -> NoReturn:
    """The console script."""
    words = sys.argv[1:]
    named = words[1:2] if words[:1] == ["help"] else words[:1]
    if named and named[0] in SUBCOMMANDS:
        from pipelines.startup import prepare_process

        prepare_process()
        from pipelines.cli.process import command

        command(partial(main, words))
    # Python tells of a reader (`head`) that has gone and of Ctrl-C in its own way, which here means nothing.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(main(words))


if __name__ == "__main__":
    run()
