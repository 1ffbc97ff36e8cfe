"""Check windows before grouping, and keep the timestamps of points in a group."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
from apache_beam import typehints
from apache_beam.transforms.trigger import AccumulationMode, DefaultTrigger
from apache_beam.transforms.window import GlobalWindows
from apache_beam.utils.timestamp import Timestamp

from rasteret_beam.errors import InputError
from rasteret_beam.kernels.routing.chunks import ChunkRules
from rasteret_beam.model import TileKey
from rasteret_beam.schema import TIME_KEY, VERSION_KEY
from rasteret_beam.transforms.runtime.spill import spilled

Chunk = tuple[TileKey, pa.RecordBatch]

GROUP_BYTES = 8 << 20
"""Bytes of a group in memory, before encoding."""


def in_windows(rows: beam.PCollection) -> bool:
    """Whether a PCollection is unbounded or has windows other than the global window."""
    return not rows.is_bounded or not isinstance(rows.windowing.windowfn, GlobalWindows)


def chunk_rules(points: beam.PCollection) -> ChunkRules:
    """The rules for chunks on the runner of a pipeline.

    Runners behind Beam's job API (Flink, Spark) hold each group of a batch job in memory several times, and send it to
    a worker in one message.
    """
    from apache_beam.runners.portability.portable_runner import PortableRunner  # it imports much of gRPC

    held = isinstance(points.pipeline.runner, PortableRunner) and not in_windows(points)
    return ChunkRules(group_bytes=GROUP_BYTES) if held else ChunkRules()


def check_windows(rows: beam.PCollection, step: str) -> None:
    """Refuse windows in which grouping emits nothing or emits rows more than once.

    Parameters
    ----------
    rows : PCollection
        The PCollection to group.
    step : str
        Name of the grouping step in errors.

    Raises
    ------
    InputError
    """
    windowing = rows.windowing
    if (
        not rows.is_bounded
        and isinstance(windowing.windowfn, GlobalWindows)
        and isinstance(windowing.triggerfn, DefaultTrigger)
    ):
        raise InputError(
            f"the input of {step} is unbounded and in the global window, which never ends, so nothing would come out; "
            "window it first, for example with beam.WindowInto(beam.window.FixedWindows(60)), or set a repeated trigger"
        )
    if in_windows(rows) and windowing.accumulation_mode == AccumulationMode.ACCUMULATING:
        raise InputError(
            f"the windows of the input of {step} have accumulation_mode=ACCUMULATING, so each later pane would repeat "
            "the rows of earlier ones; give beam.WindowInto accumulation_mode=AccumulationMode.DISCARDING"
        )


class GroupByTile(beam.PTransform):
    """Group chunks by key: the only shuffle between points and samples.

    Chunks of a stream are grouped by window and pane. Beam drops chunks that exceed the allowed lateness; they are the
    difference between the metrics ``values_routed`` and ``values_sampled`` (plus ``values_dead_lettered`` and
    ``values_left_out``).

    Parameters
    ----------
    spill : bool
        Spill chunks of a bounded input to disk if the runner would hold all of them in memory: see
        :mod:`rasteret_beam.transforms.runtime.spill`. Groups then have references to the spilled batches, which
        SampleTiles reads.

    Raises
    ------
    InputError
        When applied: the input is unbounded and in the global window without a trigger, so there would be no output; or
        its panes accumulate, so rows would be repeated.
    """

    def __init__(self, spill: bool = False):
        super().__init__()
        self.spill = spill

    def expand(self, chunks: beam.PCollection) -> beam.PCollection[tuple[TileKey, Iterable[pa.RecordBatch]]]:
        check_windows(chunks, "GroupByTile")
        if in_windows(chunks):
            stamped = beam.ParDo(StampTimeFn()).with_output_types(typehints.Tuple[TileKey, pa.RecordBatch])
            chunks = chunks | "StampTime" >> stamped
        elif self.spill:
            chunks = spilled(chunks)
        return chunks | beam.GroupByKey()


class StampTimeFn(beam.DoFn):
    """Write the timestamp of each chunk into its metadata, as a group has a different timestamp."""

    def start_bundle(self) -> None:
        self._last: tuple[Any, Any, pa.RecordBatch | None] = None, None, None

    def process(self, element: Chunk, time: Any = beam.DoFn.TimestampParam) -> Iterator[Chunk]:
        key, chunk = element
        # The chunk of one grid arrives for each of its records in turn; as the same object it is encoded once.
        before, when, stamped = self._last
        if chunk is not before or time != when:
            metadata = (chunk.schema.metadata or {}) | {TIME_KEY: str(time.micros).encode()}
            stamped = chunk.replace_schema_metadata(metadata)
            self._last = chunk, time, stamped
        assert stamped is not None
        yield key, stamped


class Stamp(NamedTuple):
    """Metadata of a chunk: the timestamp of its points, and the digest of the version that routed them."""

    time: Any
    version: str | None


def by_stamp(chunks: Iterable[pa.RecordBatch], time: Any) -> Iterator[tuple[Stamp, Iterator[pa.RecordBatch]]]:
    """The chunks of a group without stamps, as (stamp, consecutive chunks with this stamp).

    ``time`` is the default timestamp.
    """
    for (when, version), same in groupby(chunks, key=_stamps):
        moment = time if when is None else Timestamp(micros=int(when))
        yield Stamp(moment, None if version is None else version.decode()), map(_unstamped, same)


def _stamps(chunk: pa.RecordBatch) -> tuple[bytes | None, bytes | None]:
    metadata = chunk.schema.metadata or {}
    return metadata.get(TIME_KEY), metadata.get(VERSION_KEY)


def _unstamped(chunk: pa.RecordBatch) -> pa.RecordBatch:
    metadata = {
        name: value for name, value in (chunk.schema.metadata or {}).items() if name not in (TIME_KEY, VERSION_KEY)
    }
    return chunk.replace_schema_metadata(metadata or None)
