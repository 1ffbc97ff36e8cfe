"""Patterns of object names, as shells have them of files."""

import re

MARKS = "*?["


def is_glob(text: str) -> bool:
    """Whether a text has a wildcard in it."""
    return any(mark in text for mark in MARKS)


def literal_start(pattern: str) -> str:
    """What every name that a pattern matches begins with."""
    return re.split(r"[*?\[]", pattern, maxsplit=1)[0]


def glob_regex(pattern: str) -> re.Pattern[str]:
    """A pattern as a regular expression for whole names.

    ``*`` and ``?`` stand for characters but ``/``, ``**`` for any, ``**/`` for folders or none, ``[ab]`` and ``[!ab]``
    for one of some.
    """
    parts, at = [], 0
    while at < len(pattern):
        closing = pattern.find("]", at + 2) if pattern[at] == "[" else -1
        if pattern.startswith("**/", at):
            parts.append("(?:.*/)?")
            at += 3
        elif pattern.startswith("**", at):
            parts.append(".*")
            at += 2
        elif closing > 0:
            inside = pattern[at + 1 : closing].replace("\\", "\\\\")
            parts.append(f"[^{inside[1:]}]" if inside[0] in "!^" else f"[{inside}]")
            at = closing + 1
        else:
            parts.append({"*": "[^/]*", "?": "[^/]"}.get(pattern[at]) or re.escape(pattern[at]))
            at += 1
    return re.compile("".join(parts), re.S)
