"""Select the files of a folder or a glob, with the same rules for local paths, buckets and other filesystems.

Paths are texts with ``/``. Below the given folder, names that begin with ``.`` or ``_`` are hidden (copies in
``.ipynb_checkpoints``, unfinished files in ``_temporary``, ``._x.tif`` of macOS), except for hive partitions
``_key=value``. A part of a pattern that begins with one of these characters matches hidden names.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

MARKS = "*?["

HIDDEN = r"(?:\.|_(?![^/=]*=[^/]*/))"
OPEN = rf"(?!{HIDDEN})"
"""The beginning of a part that is not hidden."""

FOLDERS = rf"(?:{OPEN}[^/]*/)*"
CROSSING = rf"(?:[^/]|/{OPEN})*"
"""The meaning of ``**`` as a whole part, and beside other characters."""


@dataclass(frozen=True)
class Selection:
    """A selection of files below a folder.

    Attributes
    ----------
    root : str
        The folder, which ends in ``/``; empty for the working directory.
    start : str
        Common prefix of the paths.
    files : re.Pattern
        Matches whole paths of files.
    folders : re.Pattern
        Matches whole paths of folders, which end in ``/``, that may contain selected files at any depth.
    is_deep : bool
        Files may be in subfolders of the root.
    is_whole : bool
        All files in all folders that are not hidden are selected.
    """

    root: str
    start: str
    files: re.Pattern[str]
    folders: re.Pattern[str]
    is_deep: bool = True
    is_whole: bool = False


def is_glob(text: str) -> bool:
    """Whether a text has a wildcard."""
    return any(mark in text for mark in MARKS)


def literal_start(pattern: str) -> str:
    """Common prefix of all names that a pattern matches."""
    return re.split(r"[*?\[]", pattern, maxsplit=1)[0]


def literal_folder(pattern: str) -> str:
    """The folder, ending in ``/``, above the first part of a pattern with a wildcard."""
    start = literal_start(pattern)
    return start[: start.rfind("/") + 1]


def in_folder(folder: str) -> Selection:
    """All files in a folder, at any depth."""
    root = as_folder(folder)
    below, above = re.compile(f"{re.escape(root)}{FOLDERS}{OPEN}[^/]+", re.S), f"{re.escape(root)}{FOLDERS}"
    return Selection(root, root, below, re.compile(above, re.S), is_whole=True)


def matched(pattern: str) -> Selection:
    """The files that a pattern matches."""
    root, rest = literal_folder(pattern), pattern[len(literal_folder(pattern)) :]
    return Selection(
        root,
        literal_start(pattern),
        glob_regex(pattern),
        re.compile(_above(pattern), re.S),
        "/" in rest or "**" in rest,
    )


def in_matched(pattern: str) -> Selection:
    """All files, at any depth, in the folders that a pattern matches."""
    pattern = pattern.rstrip("/")
    folder = _whole(pattern) + "/"
    files = re.compile(f"{folder}{FOLDERS}{OPEN}[^/]+", re.S)
    folders = re.compile(f"(?:{_above(pattern)}|{folder}{FOLDERS})", re.S)
    return Selection(literal_folder(pattern), literal_start(pattern), files, folders)


def as_folder(path: str) -> str:
    """A path with one ``/`` at its end; empty for the working directory."""
    return (path.rstrip("/") + "/") if path else ""


def glob_regex(pattern: str) -> re.Pattern[str]:
    """The regular expression of a pattern, for whole paths.

    ``*`` and ``?`` match characters other than ``/``; ``[ab]`` and ``[!ab]`` match one of a set; ``**`` as a whole part
    matches zero or more folders (at the end: files at any depth), and beside other characters any characters. A
    wildcard at the beginning of a part does not match hidden names.
    """
    return re.compile(_whole(pattern), re.S)


def _whole(pattern: str) -> str:
    *folders, last = pattern.split("/")
    text = "".join(FOLDERS if part == "**" else _part(part) + "/" for part in folders)
    return text + (f"{FOLDERS}{OPEN}[^/]+" if last == "**" else _part(last))


def _above(pattern: str) -> str:
    """The regular expression of the parent folders of names that a pattern matches."""
    opened, text = 0, ""
    for part in pattern.split("/")[:-1]:
        if part == "**":
            text += FOLDERS
        elif "**" in part:  # it continues through any folders
            text += f"(?:{_part(part.partition('**')[0] + '**')}/)?"
            break
        else:
            text += f"(?:{_part(part)}/"
            opened += 1
    else:
        last = pattern.rpartition("/")[2]
        if last == "**":
            text += FOLDERS
        elif "**" in last:
            text += f"(?:{_part(last.partition('**')[0] + '**')}/)?"
    return text + ")?" * opened


def _part(part: str) -> str:
    """The regular expression of one part of a pattern other than ``**``."""
    found = "".join(_tokens(part))
    return OPEN + found if part[:1] in ("*", "?") or part[:2] in ("[!", "[^") else found


def _tokens(part: str) -> Iterator[str]:
    at = 0
    while at < len(part):
        closing = part.find("]", at + (3 if part[at + 1 : at + 2] in ("!", "^") else 2)) if part[at] == "[" else -1
        if closing > 0:
            yield _one_of(part[at + 1 : closing])
            at = closing + 1
        elif part.startswith("**", at):
            yield CROSSING
            at += 2
        else:
            yield {"*": "[^/]*", "?": "[^/]"}.get(part[at]) or re.escape(part[at])
            at += 1


def _one_of(inside: str) -> str:
    """The characters in brackets as a character class; reversed ranges match nothing."""
    negated = inside[0] in "!^"
    text = re.sub(r"([\\\[&~|^])", r"\\\1", inside[1:] if negated else inside)
    text = re.sub(r"\\?(.)-\\?(.)", lambda found: found[0] if found[1] <= found[2] else "", text, flags=re.S)
    if not text:
        return "[^/]" if negated else "(?!)"
    return f"[^{text}/]" if negated else f"[{text}]"
