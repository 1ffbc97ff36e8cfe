"""A transform of Beam YAML: made of a config, with batches wrapped as rows on both sides."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import apache_beam as beam
import pyarrow as pa

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam.errors import InputError, RasteretBeamError, listed
from rasteret_beam.transforms.rows.types import beam_schema
from rasteret_beam.transforms.yaml.keys import (
    Key,
    check_config,
    documentation,
    plain_config,
    signature_of,
)
from rasteret_beam.transforms.yaml.wrapping import holds_batches, unwrapped, wrapped

ERRORS = "error_handling"
ERROR_KEY = Key(ERRORS, Mapping[str, Any], None, "tiles that cannot be read go to this output: {output: NAME}")


@dataclass(eq=False)
class Step:
    """What a name in ``providers.yaml`` stands for: called with a config, it gives a PTransform.

    Attributes
    ----------
    name : str
        Type of the transform in YAML.
    make : callable
        From keys to a PTransform between batches.
    keys : sequence of Key
    takes : str
        What its input is: "batches", "rows", or "nothing".
    what : str
        Of what the batches are, and where they come from, for errors.
    outputs : sequence of str
        Names of its outputs, where a pipeline can have several.
    wraps : bool
        Its output is batches.
    about : str, optional
        Docstring, if it is not that of ``make``.
    """

    name: str
    make: Callable[..., Any]
    keys: Sequence[Key]
    takes: Literal["batches", "rows", "nothing"] = "batches"
    what: str = "batches"
    outputs: Sequence[str] = ()
    wraps: bool = True
    about: str | None = None

    def __post_init__(self) -> None:
        self.__signature__ = signature_of(self.keys)
        self.__doc__ = documentation(self._about, self.keys)
        self.__name__ = self.__qualname__ = self.name

    @property
    def _yaml_requires_inputs(self) -> bool:
        """Beam's YAML asks it; names with Read are taken for sources otherwise."""
        return self.takes != "nothing"

    @property
    def _about(self) -> str:
        source = self.about or getattr(self.make, "__doc__", None) or ""
        return source.partition("\n\n")[0] or f"{self.name} of rasteret_beam."

    def __call__(self, **config: Any) -> beam.PTransform:
        given = {name: plain_config(value) for name, value in config.items()}
        with _named(self):
            check_config(self.name, self.keys, given)
            errors = _error_output(self, given)
            if errors is not None:
                given = {name: value for name, value in given.items() if name != ERRORS} | {"on_error": "dead_letter"}
            return _InYaml(self, self.make(**given), errors)


def _error_output(step: Step, config: Mapping[str, Any]) -> str | None:
    """The output that dead letters go to, as Beam YAML names it."""
    transform, given = step.name, config.get(ERRORS)
    if given is None:
        return None
    if not isinstance(given, Mapping) or set(given) != {"output"} or not isinstance(given["output"], str):
        raise InputError(f"{ERRORS} of {transform} is {given!r}; give {{output: NAME}}")
    if config.get("on_error", "dead_letter") != "dead_letter":
        raise InputError(
            f"{ERRORS} of {transform} names an output, but on_error is {config['on_error']!r}; leave it out"
        )
    taken = [name for name in step.outputs if name != "dead_letters"]
    if given["output"] in taken:
        raise InputError(
            f"{ERRORS} of {transform} names the output {given['output']!r}, which {transform} has for other rows; "
            "choose another name, such as unreadable"
        )
    return given["output"]


class _named:
    """Errors name the transform."""

    def __init__(self, step: Step):
        self.step = step

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, RasteretBeamError):
            return
        text = str(error)
        if not text.startswith(self.step.name):
            text = f"{self.step.name}: {text}"
        raise InputError(text) from error


class _InYaml(beam.PTransform):
    """A transform between batches as one between rows."""

    def __init__(self, step: Step, inner: Any, errors: str | None):
        super().__init__()
        self.step = step
        self.inner = inner
        self.errors = errors

    def default_label(self) -> str:
        return self.step.name

    def expand(self, given: Any) -> Any:
        with _named(self.step):
            made = self._input(given) | self.step.name >> self.inner
            return self._output(made)

    def _input(self, given: Any) -> Any:
        takes = self.step.takes
        if takes == "nothing":
            return given
        if isinstance(given, dict):
            raise InputError(f"it has the inputs {listed(given)}; it takes one (several in a list: [A, B])")
        if not isinstance(given, beam.PCollection):
            raise InputError(f"it has no input; it takes {self.step.what}")
        if holds_batches(given):
            return unwrapped(given)
        if given.element_type is pa.RecordBatch or takes == "rows":
            return given
        found = beam_schema(given.element_type)
        columns = f"rows with {listed(field.name for field in found.fields)}" if found else str(given.element_type)
        raise InputError(f"its input is {columns}; it takes {self.step.what}")

    def _output(self, made: Any) -> Any:
        if not self.step.wraps:
            return made
        if isinstance(made, beam.PCollection):
            name = self.step.outputs[0] if self.step.outputs else "out"
            return {name: wrapped(made, "")}
        outputs = {name: rows for name, rows in made._asdict().items() if rows is not None}
        names = {"dead_letters": self.errors or "dead_letters"}
        return {names.get(name, name): wrapped(rows, name.title().replace("_", "")) for name, rows in outputs.items()}
