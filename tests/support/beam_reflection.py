"""Beam looks at code once: what it finds in signatures and flags depends on the code alone.

For each pipeline Beam inspects the signatures of the methods of its steps some nine thousand times, builds some five
hundred parsers of options, compresses some 150 pickles, and formats the stack for each type hint: half the time of a
small job. The fast tests keep what it found; the slow ones, which run on Prism, Flink and for Dataflow, run Beam as it
is.
"""

import bz2
import sys
from argparse import Namespace
from collections.abc import Callable
from copy import deepcopy
from functools import lru_cache
from types import FunctionType, MethodType, NoneType
from typing import Any
from weakref import WeakKeyDictionary

from apache_beam.internal import cloudpickle_pickler
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.worker import statecache
from apache_beam.transforms import core, userstate
from apache_beam.typehints import decorators

from pipelines.cli.runner_options import RunnerOptions

_arguments: WeakKeyDictionary[FunctionType, tuple[list[str], list[Any]]] = WeakKeyDictionary()
_specs: WeakKeyDictionary[type, tuple[set[Any], set[Any]]] = WeakKeyDictionary()
_options: dict[tuple[Any, ...], Any] = {}
_arguments_of = core.get_function_args_defaults
_specs_of = userstate.get_dofn_specs
_make_options = PipelineOptions.__init__


def keep() -> None:
    """Let Beam find its own earlier answers in this process."""
    core.get_function_args_defaults = _arguments_once
    core._check_fn_use_yield_and_return = _once(core._check_fn_use_yield_and_return)
    decorators.get_signature = _once(decorators.get_signature)
    userstate.get_dofn_specs = _specs_once
    PipelineOptions.__init__ = _options_once  # type: ignore[method-assign]
    PipelineOptions._visible_option_list = _names_of_options  # type: ignore[method-assign]
    decorators.IOTypeHints._make_origin = staticmethod(_no_origin)
    cloudpickle_pickler.bz2 = _Pickles
    statecache.get_deep_size = _size


def _once(look: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A look at code of Python, free functions apart from methods; anything else is looked at each time."""
    free: WeakKeyDictionary[FunctionType, Any] = WeakKeyDictionary()
    bound: WeakKeyDictionary[FunctionType, Any] = WeakKeyDictionary()

    def looked(function: Any) -> Any:
        is_method = isinstance(function, MethodType)
        code = function.__func__ if is_method else function
        if not isinstance(code, FunctionType):
            return look(function)
        known = bound if is_method else free
        if code not in known:
            known[code] = look(function)
        return known[code]

    return looked


def _arguments_once(function: Any) -> tuple[list[str], list[Any]]:
    if not (isinstance(function, MethodType) and isinstance(function.__func__, FunctionType)):
        return _arguments_of(function)
    if function.__func__ not in _arguments:
        _arguments[function.__func__] = _arguments_of(function)
    names, defaults = _arguments[function.__func__]
    return list(names), list(defaults)


def _specs_once(dofn: core.DoFn) -> tuple[set[Any], set[Any]]:
    """What a DoFn declares of state and timers: by the methods of its class, where the object itself has none."""
    if any(isinstance(value, MethodType) for value in vars(dofn).values()):
        return _specs_of(dofn)
    if type(dofn) not in _specs:
        _specs[type(dofn)] = _specs_of(dofn)
    states, timers = _specs[type(dofn)]
    return set(states), set(timers)


def _options_once(self: PipelineOptions, flags: list[str] | None = None, **kwargs: Any) -> None:
    if not (isinstance(flags, list) and all(isinstance(flag, str) for flag in flags)):
        _make_options(self, flags, **kwargs)
        return
    # What a parser knows depends on the classes that there are, and on the options of the runner at hand.
    key = (type(self), tuple(flags), tuple(PipelineOptions.__subclasses__()), tuple(RunnerOptions.given))
    if key not in _options:
        _make_options(self, flags)
        _options[key] = _copied(self._visible_options)
    self._flags, self._visible_options = flags, _copied(_options[key])
    self._all_options = {name: getattr(self._visible_options, name) for name in self._visible_option_list()} | kwargs


def _copied(options: Namespace) -> Namespace:
    """A copy that shares nothing that can change."""
    plain = (str, int, float, NoneType)
    return Namespace(
        **{name: value if isinstance(value, plain) else deepcopy(value) for name, value in vars(options).items()}
    )


def _names_of_options(self: PipelineOptions) -> list[str]:
    """Beam asks ``dir``, which looks at the class too; there is no option."""
    return sorted(name for name in vars(self._visible_options) if name[0] != "_")


def _no_origin(bases: object, tb: bool = True, msg: object = ()) -> list[str]:
    """Where a type hint comes from, for errors of Beam's: the stack as text, built for every hint of every step."""
    return []


def _size(*values: object) -> int:
    """Of what a worker keeps of side inputs, roughly: Beam first lists all that all modules hold, to leave it out."""
    return sum(map(sys.getsizeof, values))


class _Pickles:
    """As the module ``bz2``: pickles of the same bytes, most of a pipeline's, are compressed once, others never.

    Those hold tables, which take a second for each two megabytes, and no other process reads them.
    """

    @staticmethod
    def compress(pickled: bytes, compresslevel: int) -> bytes:
        return _compressed(pickled, compresslevel) if len(pickled) < _LARGE else _PLAIN + pickled

    @staticmethod
    def decompress(compressed: bytes) -> bytes:
        if compressed.startswith(_PLAIN):
            return compressed.removeprefix(_PLAIN)
        return _decompressed(compressed) if len(compressed) < _LARGE else bz2.decompress(compressed)


_PLAIN = b"not compressed"
_LARGE = 1 << 17
_compressed = lru_cache(maxsize=500)(bz2.compress)
_decompressed = lru_cache(maxsize=500)(bz2.decompress)
