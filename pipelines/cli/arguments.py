"""Rewrite the library's errors, which name Python arguments, with the flags of a command."""

import argparse
import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace

from pipelines.cli.subcommands import as_typed

LISTS = re.compile(r"(\b(?:(?:it|they|table|file|dataset) (?:has|have|are) (?!to\b)|lacks? column\b)[^;.\n]*)")
"""Lists of the user's names in an error, which may equal names of arguments."""

VALUE = r"""(?P<value>"[^"]*"|'[^']*'|\[[^]]*\]|\{[^}]*\}|\.\.\.|[\w.:-]*\w|)"""


@dataclass(frozen=True)
class Spelling:
    """The flags of a command that stand for the library's arguments.

    Attributes
    ----------
    flags : {argument: flag}
    metavars : {argument: str}
        Placeholder of a value that an error does not give; empty for switches.
    phrases : {text: text}
        Replacements of texts other than a flag and its value.
    """

    flags: Mapping[str, str] = field(default_factory=dict)
    metavars: Mapping[str, str] = field(default_factory=dict)
    phrases: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, parser: argparse.ArgumentParser, arguments: Mapping[str, str]) -> "Spelling":
        """The spelling for a parser's flags and for arguments whose flags have other names.

        ``arguments`` maps an argument to the name of a flag, or a phrase (not an identifier) to a phrase.
        """
        actions = {action.dest: action for action in parser._actions if action.dest != "help"}
        named = {name: name for name in actions} | {a: to for a, to in arguments.items() if a.isidentifier()}
        metavars = {
            name: "" if to not in actions or actions[to].nargs == "?" else str(actions[to].metavar or to.upper())
            for name, to in named.items()
        }
        phrases = {a: to for a, to in arguments.items() if not a.isidentifier()}
        return cls({name: f"--{to}" for name, to in named.items()}, metavars, phrases)

    def spell(self, text: str) -> str:
        """A text of the library with its arguments replaced by flags."""
        text = re.sub(r"access=Access\(([^()]*)\)", r"\1", text)
        for phrase, instead in self.phrases.items():
            text = text.replace(phrase, instead)
        parts = LISTS.split(text)  # matches have odd positions
        return "".join(part if number % 2 else self._spell(part) for number, part in enumerate(parts))

    def _spell(self, text: str) -> str:
        if not self.flags:
            return text
        names = "|".join(sorted(self.flags, key=len, reverse=True))
        free = r"(?<![\w'\"/.-])"
        text = re.sub(rf"{free}(?P<name>{names})={VALUE}", self._with_value, text)
        value = r"['\"\[({]|-?\d|-?(?:nan|inf|None|True|False)\b"
        text = re.sub(rf"{free}(?P<name>{names})(?= is (?:{value}))", self._bare, text)
        # A single word may be plain English; a name with an underscore is an argument.
        compound = "|".join(sorted((name for name in self.flags if "_" in name), key=len, reverse=True))
        return re.sub(rf"{free}(?P<name>{compound})(?![\w'\"/(]|\.\w)", self._bare, text) if compound else text

    def _bare(self, found: re.Match[str]) -> str:
        return self.flags[found["name"]]

    def _with_value(self, found: re.Match[str]) -> str:
        name, value = found["name"], found["value"]
        if value == "True":
            return self.flags[name]
        if not value or value == "..." or value[0] in "[{":
            return f"{self.flags[name]} {self.metavars[name]}".rstrip()
        return f"{self.flags[name]} {value.strip(chr(34) + chr(39))}"


_current: ContextVar[Spelling | None] = ContextVar("spelling", default=None)


def use(spelling: Spelling) -> None:
    """Spell errors this way from now on."""
    _current.set(spelling)


def use_also(flags: Mapping[str, str]) -> None:
    """Spell these arguments, by name, as these flags from now on."""
    current = _current.get()
    if current is not None:
        metavars = {argument: current.metavars.get(flag, "") for argument, flag in flags.items()}
        named = {argument: f"--{flag}" for argument, flag in flags.items()}
        use(replace(current, flags={**current.flags, **named}, metavars={**current.metavars, **metavars}))


def spelt(text: object) -> str:
    """A text for the terminal with the flags of the running command, and with commands as the user types them."""
    spelling = _current.get()
    return as_typed(str(text) if spelling is None else spelling.spell(str(text)))
