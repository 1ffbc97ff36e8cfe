"""Check arguments of public functions: unknown keywords, switches, names and paths."""

import inspect
import os
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import wraps
from typing import Any, TypeVar

import pyarrow as pa

from rasteret_beam.errors import InputError
from rasteret_beam.option_fields import check_keywords

Function = TypeVar("Function", bound=Callable[..., Any])


def checked_options(function: Function) -> Function:
    """Wrap a function to refuse unknown keywords, and values other than True and False for switches."""
    signature = inspect.signature(function)

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        check_keywords(function, signature, options)
        return function(*args, **options)

    return call  # type: ignore[return-value]


def like_path(path: str) -> str:
    """The suggestion of :func:`rasteret_beam.errors.did_you_mean`, from the names in the folder of a local path."""
    folder, name = os.path.split(path.rstrip("/"))
    try:
        near = get_close_matches(name, os.listdir(folder or "."), n=1, cutoff=0.7)
    except (OSError, ValueError):
        return ""
    return f" (did you mean {os.path.join(folder, near[0])!r}?)" if near else ""


def names_of(given: Any, what: str) -> list[str]:
    """One name, or an iterable of names (a list, a NumPy or Arrow array, a Series), as a list.

    Raises
    ------
    InputError
        The value is neither.
    """
    if isinstance(given, str):
        return [given]
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise InputError(f"{what} are a {type(given).__name__}; give a text or a list of texts")
    to_list = getattr(given, "to_pylist", None) or getattr(given, "tolist", None)
    names = to_list() if to_list is not None else list(given)
    wrong = [name for name in names if not isinstance(name, str)] if isinstance(names, list) else [names]
    if wrong:
        raise InputError(f"{what} have {wrong[0]!r}, a {type(wrong[0]).__name__}; give a text or a list of texts")
    return [str(name) for name in names]


def paths_of(given: Any, name: str) -> list[str]:
    """One path, or an iterable of paths (a list, a NumPy or Arrow array, a Series), as a list of texts.

    Raises
    ------
    InputError
        The value is neither, or has elements other than texts and ``pathlib`` paths.
    """
    if isinstance(given, str | os.PathLike):
        given = [given]
    if isinstance(given, bytes) or not isinstance(given, Iterable):
        raise InputError(f"{name} is {given!r}; give a path or a list of paths")
    paths = given.to_pylist() if isinstance(given, pa.Array | pa.ChunkedArray) else list(given)
    return [path_of(path, f"number {number} of {name}", "a path") for number, path in enumerate(paths)]


def path_of(given: Any, name: str, what: str) -> str:
    """A path as text.

    Raises
    ------
    InputError
        The value is not a path, or is empty.
    """
    path = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(path, str) or not path.strip():
        raise InputError(f"{name} is {given!r}; give {what}")
    return path
