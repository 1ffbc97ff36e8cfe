"""Errors of the library, which name the arguments of Python, in the words of the command line."""

import argparse
import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field

LISTS = re.compile(r"(\b(?:it|they|table|file|dataset) (?:has|have|are) (?!to\b)[^;.]*)")
"""What an error lists of the user's own names, which may be those of arguments."""

VALUE = r"""(?P<value>"[^"]*"|'[^']*'|\[[^]]*\]|\{[^}]*\}|\.\.\.|[\w.:-]*\w|)"""


@dataclass(frozen=True)
class Spelling:
    """How a command says what the library's arguments are.

    Attributes
    ----------
    flags : {argument: flag}
    metavars : {argument: str}
        What stands for a value that an error leaves open; empty for switches.
    phrases : {text: text}
        What is not said of one flag and its value.
    """

    flags: Mapping[str, str] = field(default_factory=dict)
    metavars: Mapping[str, str] = field(default_factory=dict)
    phrases: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, parser: argparse.ArgumentParser, arguments: Mapping[str, str]) -> "Spelling":
        """Of the flags of a parser, and of arguments that its flags have other names for.

        ``arguments`` maps an argument to the name of a flag, or a phrase, which is no identifier, to a phrase.
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
        """A text of the library's in which arguments are named as flags."""
        text = re.sub(r"access=Access\(([^()]*)\)", r"\1", text)
        for phrase, instead in self.phrases.items():
            text = text.replace(phrase, instead)
        parts = LISTS.split(text)  # those that match stand at odd places
        return "".join(part if number % 2 else self._spell(part) for number, part in enumerate(parts))

    def _spell(self, text: str) -> str:
        if not self.flags:
            return text
        names = "|".join(sorted(self.flags, key=len, reverse=True))
        free = r"(?<![\w'\"/.-])"
        text = re.sub(rf"{free}(?P<name>{names})={VALUE}", self._with_value, text)
        text = re.sub(rf"{free}(?P<name>{names})(?= is (?:['\"\[({{]|-?\d|None\b|True\b|False\b))", self._bare, text)
        # One word may be plain English; two with an underscore are not.
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
    """Spell errors so from now on: the flags of a command are parsed."""
    _current.set(spelling)


def spelt(text: object) -> str:
    """A text for the terminal in the words of the command that runs."""
    spelling = _current.get()
    return str(text) if spelling is None else spelling.spell(str(text))
