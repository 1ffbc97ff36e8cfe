"""What the steps of sampling give."""

from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa

from rasteret_beam.model import TileKey


class KeyedOutputs(NamedTuple):
    """What :class:`KeyByRecordAndTile` gives when asked for unsampled points too."""

    chunks: beam.PCollection[tuple[TileKey, pa.RecordBatch]]
    unsampled: beam.PCollection[pa.RecordBatch]


class SamplingOutputs(NamedTuple):
    """What :class:`SamplePoints` gives when asked for more than samples.

    ``unsampled`` are points without a row, in ``unsampled_schema`` of :mod:`rasteret_beam.schema`. ``dead_letters`` are
    tiles that could not be read, with their points, in ``schema.DEAD_LETTER_SCHEMA``; they are there with
    ``on_error="dead_letter"``.
    """

    samples: beam.PCollection[pa.RecordBatch]
    unsampled: beam.PCollection[pa.RecordBatch] | None = None
    dead_letters: beam.PCollection[pa.RecordBatch] | None = None


def together(one: Any, other: Any) -> Any:
    """Outputs of one step, applied twice, as one: of a PCollection, or of each in a named tuple."""
    if isinstance(one, beam.PCollection):
        return flat("rows", one, other)
    pairs = zip(one._fields, one, other, strict=True)
    return type(one)(*(None if first is None else flat(name, first, second) for name, first, second in pairs))


def flat(name: str, one: beam.PCollection, other: beam.PCollection) -> beam.PCollection:
    """Two outputs of one type as one."""
    rows = (one, other) | f"Together {name}" >> beam.Flatten()
    rows.element_type = one.element_type
    return rows
