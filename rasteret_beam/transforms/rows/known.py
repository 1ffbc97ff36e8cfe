"""What is known of the batches of a PCollection when the pipeline is built: their Arrow schema."""

from collections.abc import Callable
from typing import Any, TypeAlias

import apache_beam as beam
import pyarrow as pa

Schema: TypeAlias = pa.Schema | Callable[[], pa.Schema]
"""A schema, or what finds it if it is asked for."""

ATTRIBUTE = "_rasteret_beam_schema"

PASSING = ("WindowInto", "Reshuffle", "Flatten")
"""Steps of Beam that pass elements on as they are."""


def with_schema(rows: beam.PCollection, schema: Schema) -> beam.PCollection:
    """A PCollection, from now on with the schema of its batches."""
    setattr(rows, ATTRIBUTE, schema)
    return rows


def with_schemas(outputs: Any, *schemas: Schema) -> Any:
    """A PCollection, or a named tuple of PCollections and None, with the schemas of their batches in order."""
    each = (outputs,) if isinstance(outputs, beam.PCollection) else outputs
    for rows, schema in zip(each, schemas, strict=False):
        if rows is not None:
            with_schema(rows, schema)
    return outputs


def schema_of(rows: Any) -> pa.Schema | None:
    """The schema of the batches of a PCollection; None where nothing is known of it.

    Transforms of this package give it to what they make, and it passes through steps that keep elements as they are.
    """
    found = getattr(rows, ATTRIBUTE, None)
    if found is not None:
        return found() if callable(found) else found
    step = getattr(rows, "producer", None)
    while step is not None and type(step.transform).__name__ not in PASSING:
        step = step.parent
    if step is None or not type(step.transform).__module__.startswith("apache_beam."):
        return None
    schemas = [schema_of(each) for each in step.inputs]
    same = schemas and schemas[0] is not None and all(each == schemas[0] for each in schemas)
    return schemas[0] if same else None
