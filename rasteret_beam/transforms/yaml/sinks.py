"""Sinks in YAML: what they write is known from the batches that they get."""

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import partial
from typing import Any

import apache_beam as beam

from rasteret_beam.errors import InputError
from rasteret_beam.transforms.rows.known import schema_of
from rasteret_beam.transforms.yaml.keys import keys_of_fields
from rasteret_beam.transforms.yaml.steps import Step

INTERNAL = ("schema", "token")
"""Arguments of sinks without a key: the columns are those of the input, and each pipeline has its run's token."""


def sink(kind: Any, **spelling: str) -> Step:
    """A sink of batches, a dataclass; ``spelling`` has the keys of arguments that are named otherwise in YAML."""
    found = keys_of_fields(kind, INTERNAL)
    keys = tuple(replace(key, name=spelling.get(key.name, key.name)) for key in found)
    arguments = {key: argument for argument, key in spelling.items()}
    return Step(kind.__name__, partial(_sink, kind, arguments), keys, what="batches", wraps=False, about=kind.__doc__)


def _sink(kind: Any, arguments: Mapping[str, str], **config: Any) -> "_Write":
    return _Write(kind, {arguments.get(key, key): value for key, value in config.items()})


class _Write(beam.PTransform):
    """Write batches, whose schema is that of the step which made them."""

    def __init__(self, kind: Any, settings: Mapping[str, Any]):
        super().__init__()
        self.kind = kind
        self.settings = settings

    def expand(self, batches: beam.PCollection) -> Any:
        settings = dict(self.settings)
        if "schema" in {each.name for each in fields(self.kind)}:
            schema = schema_of(batches)
            if schema is None:
                raise InputError("the columns of its input are not known; put ToBatches, after ToRows, before it")
            settings["schema"] = schema
        batches | self.kind(**settings)
        return {}
