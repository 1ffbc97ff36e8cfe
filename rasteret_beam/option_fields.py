"""Options as dataclass fields: one definition, of which signatures, flags, templates and docs are made.

A field's type, default and metadata give the keyword argument of the eager call and of the transforms, the flag of the
command line, the parameter of the template and the row of the docs.
"""

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, replace
from functools import wraps
from types import NoneType, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from rasteret_beam.errors import InputError, UnknownOptionError, did_you_mean, listed

Given = ParamSpec("Given")
Result = TypeVar("Result")
Definition = TypeVar("Definition")
Class = TypeVar("Class")


@dataclass(frozen=True, kw_only=True)
class OptionFacts:
    """What the definition of an option holds beside its name, type and default.

    Attributes
    ----------
    help : str
        One line, for the reader of ``--help`` and of the docs.
    metavar : str, optional
        Placeholder of the flag's value.
    flag : str, optional
        Name of the flag where it is not that of the option; empty where another flag of the command sets it.
    unit : int
        What one of the flag's value is in the option's unit: ``1 << 20`` for a flag in megabytes.
    routing : bool
        It decides which tiles are read, so ``Collection.plan`` takes it too.
    eager : bool
        ``Collection.sample_points`` takes it.
    retry : bool
        The transforms that try dead letters again take it; the others are decided by the earlier run.
    tuning : bool
        It changes speed and memory, not the rows; such options come last.
    last : bool
        It comes after the options of the definitions that derive from its own.
    accepts : type, optional
        What callers may give, where that is more than the option's type.
    """

    help: str
    metavar: str | None = None
    flag: str | None = None
    unit: int = 1
    routing: bool = False
    eager: bool = True
    retry: bool = True
    tuning: bool = False
    last: bool = False
    accepts: Any = None


def option(default: Any, *, help: str, **facts: Any) -> Any:
    """A field that is an option; ``facts`` are those of :class:`OptionFacts`."""
    return field(default=default, metadata={"option": OptionFacts(help=help, **facts)})


@dataclass(frozen=True)
class Option:
    """An option as faces show it; ``choices`` are those of a ``Literal`` type."""

    name: str
    type: Any
    default: Any
    facts: OptionFacts

    @property
    def choices(self) -> tuple[Any, ...] | None:
        return get_args(self.type) if get_origin(self.type) is Literal else None


def options_of(definition: type) -> Iterator[Option]:
    """The options of a definition, in order; those that come last, and those for tuning, at the end."""
    types = get_type_hints(definition)
    for each in sorted(fields(definition), key=_place):
        yield Option(each.name, types[each.name], _default(each), each.metadata["option"])


def _place(each: Field) -> tuple[bool, bool]:
    facts = each.metadata["option"]
    return facts.tuning, facts.last


def _default(each: Field) -> Any:
    assert each.default is not MISSING, f"option {each.name} has no default"
    return each.default


def plain_scalars(options: Any) -> None:
    """Give options that are NumPy scalars, such as a column's maximum, the values of Python that they stand for."""
    for each in fields(options):
        value = getattr(options, each.name)
        if isinstance(value, np.generic) and not isinstance(value, np.timedelta64):
            object.__setattr__(options, each.name, value.item())


def check_options(options: Any) -> None:
    """Check each option's value by its type: choices, switches, whole numbers.

    Raises
    ------
    InputError
    """
    for each in options_of(type(options)):
        value = getattr(options, each.name)
        if each.choices is not None and not (isinstance(value, str) and value in each.choices):
            raise InputError(f"{each.name} is {value!r}; it can be one of {each.choices}")
        if each.type is bool and not isinstance(value, bool):
            raise InputError(f"{each.name} is {value!r}; it has to be True or False")
        if each.type is int and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise InputError(f"{each.name} is {value!r}; it has to be a whole number, 0 or more")


def takes_options(
    definition: type, keep: Callable[[Option], bool] = lambda _: True
) -> Callable[[Callable[Given, Result]], Callable[Given, Result]]:
    """Give a function the keyword arguments of a definition, in its signature and docstring too.

    The function has ``**keywords``: fields of the definition, and ``options`` with a value of it. They have a type of
    :mod:`rasteret_beam.keywords` for static checkers, and :func:`options_from` makes one value of them.

    Parameters
    ----------
    definition : type
        A dataclass of options.
    keep : callable
        Which of its options the function takes.
    """
    taken = [each for each in options_of(definition) if keep(each)]

    def decorate(function: Callable[Given, Result]) -> Callable[Given, Result]:
        signature = signature_with(inspect.signature(function), taken, definition)

        @wraps(function)
        def call(*args: Given.args, **given: Given.kwargs) -> Result:
            check_keywords(function, signature, given)
            return function(*args, **given)

        call.__signature__ = signature  # type: ignore[attr-defined]
        call.__doc__ = documented(function.__doc__ or "", taken)
        return call

    return decorate


def options_from(given: Mapping[str, Any], definition: type[Definition]) -> Definition:
    """The options of a call: its ``options`` or the defaults, with the fields that are given in their place.

    Raises
    ------
    InputError
        ``options`` are not of the definition, or a value cannot be used.
    """
    whole = given.get("options")
    if not isinstance(whole, definition | NoneType):
        raise InputError(f"options are a {type(whole).__name__}; give {definition.__name__}(...)")
    fields_given = {name: value for name, value in given.items() if name != "options"}
    chosen: Any = definition() if whole is None else whole
    made: Definition = replace(chosen, **fields_given)
    return made


def documents_options(
    definition: type, keep: Callable[[Option], bool] = lambda _: True
) -> Callable[[type[Class]], type[Class]]:
    """Replace the line ``<options>`` of a class's docstring by the options that its constructor takes."""

    def decorate(documented_class: type[Class]) -> type[Class]:
        taken = [each for each in options_of(definition) if keep(each)]
        documented_class.__doc__ = documented(documented_class.__doc__ or "", taken)
        return documented_class

    return decorate


def signature_with(signature: inspect.Signature, taken: Collection[Option], definition: type) -> inspect.Signature:
    """A signature with options as keyword-only parameters, then ``options``, in place of ``**keywords``."""
    own = [each for each in signature.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD]
    rest = [each for each in own if each.kind is not inspect.Parameter.KEYWORD_ONLY]
    keywords = [each for each in own if each.kind is inspect.Parameter.KEYWORD_ONLY]
    kind = inspect.Parameter.KEYWORD_ONLY
    made = [inspect.Parameter(each.name, kind, default=each.default, annotation=each.type) for each in taken]
    whole = inspect.Parameter("options", kind, default=None, annotation=definition | None)
    return signature.replace(parameters=[*rest, *keywords, *made, whole])


def check_keywords(function: Callable[..., Any], signature: inspect.Signature, given: Mapping[str, Any]) -> None:
    """Refuse a keyword argument that a function does not have, and anything but True or False where one is the default.

    Raises
    ------
    UnknownOptionError, InputError
    """
    known = [name for name in list(signature.parameters)[1:] if name != "options"]
    for name, value in given.items():
        if name not in signature.parameters:
            owner = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]
            raise UnknownOptionError(
                f"{owner} has no option {name!r}{did_you_mean(name, known)}; it has {listed(known, 40)}"
            )
        if isinstance(signature.parameters[name].default, bool) and not isinstance(value, bool | np.bool_):
            raise InputError(f"{name} is {value!r}; it has to be True or False")


def documented(text: str, taken: Collection[Option]) -> str:
    """A docstring whose line ``<options>`` is replaced by the options, in numpydoc's form."""
    lines = []
    for line in text.splitlines():
        if line.strip() != "<options>":
            lines.append(line)
            continue
        indent = line[: len(line) - len(line.lstrip())]
        for each in taken:
            lines.append(f"{indent}{each.name} : {type_text(each.type)}, default {each.default!r}")
            lines.append(f"{indent}    {each.facts.help[:1].upper()}{each.facts.help[1:]}.")
    return "\n".join(lines)


def type_text(kind: Any) -> str:
    """A type as docs show it: the choices of a ``Literal``, names otherwise."""
    if get_origin(kind) is Literal:
        return ", ".join(f'"{choice}"' for choice in get_args(kind))
    if get_origin(kind) in (UnionType, Union):
        return " or ".join(type_text(each) for each in get_args(kind))
    if get_origin(kind) is tuple:
        first, *others = get_args(kind)
        return (
            f"sequence of {type_text(first)}" if others == [...] else f"({', '.join(map(type_text, (first, *others)))})"
        )
    if get_origin(kind) is Mapping:
        name, value = get_args(kind)
        return f"mapping of {type_text(name)} to {type_text(value)}"
    return "None" if kind is NoneType else str(kind.__name__)
