"""Batches as the elements of Beam YAML, which are rows: a row with one field of Arrow IPC for each batch.

So the steps of a YAML pipeline stay columnar, and their elements can pass between steps that are expanded by different
processes, as they are on Dataflow. The Arrow schema of the batches is an option of the Beam schema, so that the next
step knows the columns.
"""

from typing import Any
from uuid import uuid5

import apache_beam as beam
import pyarrow as pa
from apache_beam.portability.api import schema_pb2 as pb

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam.kernels.tables.ipc import from_ipc, to_ipc
from rasteret_beam.transforms.rows.known import schema_of, with_schema
from rasteret_beam.transforms.rows.types import ARROW_SCHEMA, IDS, beam_schema, bytes_option, option_of, row_class

FIELD = "arrow_ipc"


def _batch_schema(schema: pa.Schema | None) -> pb.Schema:
    """The Beam schema of wrapped batches."""
    serialized = b"" if schema is None else schema.serialize().to_pybytes()
    made = pb.Schema(id=str(uuid5(IDS, f"{FIELD} {serialized.hex()}")))
    made.fields.append(pb.Field(name=FIELD, type=pb.FieldType(atomic_type=pb.BYTES)))
    if schema is not None:
        made.options.append(bytes_option(ARROW_SCHEMA, serialized))
    return made


def holds_batches(rows: Any) -> bool:
    """Whether the elements of a PCollection are wrapped batches."""
    found = beam_schema(rows.element_type)
    return found is not None and [field.name for field in found.fields] == [FIELD]


def wrapped(batches: beam.PCollection, label: str) -> beam.PCollection:
    """Batches as rows."""
    schema = schema_of(batches)
    made = row_class(_batch_schema(schema))
    rows = batches | f"Wrap{label}" >> beam.ParDo(_WrapFn(schema)).with_output_types(made)
    return rows if schema is None else with_schema(rows, schema)


class _WrapFn(beam.DoFn):
    """The class of the rows has no name that a pickle could find, so it is made on the worker."""

    def __init__(self, schema: pa.Schema | None):
        self.schema = schema

    def setup(self) -> None:
        self.row = row_class(_batch_schema(self.schema))

    def process(self, batch: pa.RecordBatch) -> list[Any]:
        return [self.row(to_ipc(batch).to_pybytes())]


def unwrapped(rows: beam.PCollection) -> beam.PCollection:
    """Batches of rows that hold them."""
    batches = rows | "Unwrap" >> beam.Map(_unwrap).with_output_types(pa.RecordBatch)
    found = option_of(beam_schema(rows.element_type) or pb.Schema(), ARROW_SCHEMA)
    schema = pa.ipc.read_schema(pa.py_buffer(found)) if found else schema_of(rows)
    return batches if schema is None else with_schema(batches, schema)


def _unwrap(row: Any) -> pa.RecordBatch:
    return from_ipc(getattr(row, FIELD))
