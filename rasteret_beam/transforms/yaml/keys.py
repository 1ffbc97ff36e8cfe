"""The keys of a transform in YAML: their names, types and defaults, from the definitions that Python has too."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from datetime import date
from inspect import Parameter, Signature
from types import NoneType, UnionType
from typing import Any, Literal, Optional, Union, get_args, get_origin, get_type_hints

from rasteret_beam.errors import InputError, UnknownOptionError, did_you_mean, listed
from rasteret_beam.option_fields import options_of

REQUIRED = Parameter.empty


@dataclass(frozen=True)
class Key:
    """A key of a transform's ``config``; ``help`` is one line."""

    name: str
    type: Any
    default: Any = REQUIRED
    help: str = ""


def keys_of_options(definition: type) -> tuple[Key, ...]:
    """A key for each option of a definition, such as :class:`rasteret_beam.SampleOptions`, under the option's name."""
    return tuple(Key(each.name, each.type, each.default, each.facts.help) for each in options_of(definition))


def keys_of_fields(transform: Any, without: Sequence[str] = ()) -> tuple[Key, ...]:
    """A key for each argument of a transform that is a dataclass."""
    types = get_type_hints(transform)
    made = []
    for each in fields(transform):
        if each.init and each.name not in without:
            factory = each.default_factory
            default = each.default if factory is MISSING else factory()
            made.append(Key(each.name, types[each.name], REQUIRED if default is MISSING else default))
    return tuple(made)


def check_config(transform: str, keys: Sequence[Key], config: Mapping[str, Any]) -> None:
    """Refuse keys that a transform does not have, lacks, or whose values YAML took for dates.

    Raises
    ------
    InputError
    """
    known = [key.name for key in keys]
    for name, value in config.items():
        if name not in known:
            raise UnknownOptionError(
                f"{transform} has no key {name!r}{did_you_mean(name, known)}; it has {listed(known, 60)}"
            )
        found = next(_dates(value), None)
        if found is not None:
            raise InputError(f'{name} of {transform} has the date {found}, without quotes; write "{found}"')
    missing = [key.name for key in keys if key.default is REQUIRED and key.name not in config]
    if missing:
        raise InputError(f"{transform} needs the key(s) {listed(missing)}")


def _dates(value: Any) -> Iterator[date]:
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    if isinstance(value, date):
        yield value
    for each in inner:
        yield from _dates(each)


def plain_config(value: Any) -> Any:
    """A config as dicts, lists and scalars; a transform that is expanded in another process gets rows for dicts."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {name: plain_config(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_config(each) for each in value]
    return value


def signature_of(keys: Iterable[Key]) -> Signature:
    """What Beam makes the schema of a config of."""
    kind = Parameter.KEYWORD_ONLY
    return Signature(
        [Parameter(key.name, kind, default=key.default, annotation=_in_yaml(key.type, key.default)) for key in keys]
    )


def _in_yaml(kind: Any, default: Any) -> Any:
    """The type of a key's values in YAML."""
    named = get_args(kind) if get_origin(kind) in (UnionType, Union) else (kind,)
    first = next((each for each in named if each is not NoneType), Any)
    made = _one(first)
    return Optional[made] if default is None and made is not Any else made  # noqa: UP045  (what Beam reads)


def _one(kind: Any) -> Any:
    if get_origin(kind) is Literal:
        return str
    if get_origin(kind) in (tuple, list, Sequence):
        return list[str]
    if kind in (str, int, float, bool):
        return kind
    return Any


def documentation(text: str, keys: Iterable[Key]) -> str:
    """A docstring in the form that Beam's tools read, with what is known of the keys."""
    lines = [f"    {key.name}: {key.help}" for key in keys if key.help]
    return "\n".join([text.strip(), "", "Args:", *lines]) if lines else text.strip()
