"""Write the rows of a stream to separate Parquet files for each window and pane."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4
from zlib import crc32

import apache_beam as beam
import pyarrow as pa
from apache_beam import typehints
from apache_beam.io.filesystem import BeamIOError
from apache_beam.transforms.core import Windowing
from apache_beam.transforms.trigger import AfterProcessingTime, AfterWatermark, DefaultTrigger, Repeatedly
from apache_beam.transforms.window import GlobalWindows, IntervalWindow

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam import metrics
from rasteret_beam.kernels.routing.chunks import pieces
from rasteret_beam.kernels.tables.parquet_columns import column_storage
from rasteret_beam.readers.tiles.budget import ROW_GROUP_BYTES, ROW_GROUP_ROWS
from rasteret_beam.transforms.runtime.beam_metrics import count
from rasteret_beam.transforms.runtime.event_times import check_windows
from rasteret_beam.transforms.runtime.files import delete_files
from rasteret_beam.transforms.sinks.commit import move_files
from rasteret_beam.transforms.sinks.parquet_file import ParquetFile
from rasteret_beam.transforms.sinks.parquet_files import Prepare

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


PIECE_BYTES = 1 << 20
"""Size of the pieces of rows that are grouped, as in :class:`rasteret_beam.kernels.routing.chunks.ChunkRules`."""


@dataclass(eq=False)
class WriteWindows(beam.PTransform):
    """Write batches of rows to ``prefix-START-END-pane-N-SHARD-of-SHARDS-RUN.parquet``; returns the file names.

    The rows of a window are grouped by shard when it ends. Early rows (if the input's trigger has early panes) and late
    rows wait ``wait_seconds`` for others and become files of separate panes. A file is written under a unique hidden
    name beside the output and moved once it is complete, after a shuffle that fixes its name. So a retried step gives
    the same file once, and work that a runner repeats after a failure (Flink returns to its last checkpoint) replaces
    the same panes. RUN is new for each pipeline, so files of other runs are not changed. A killed worker leaves a
    hidden file.

    Parameters
    ----------
    prefix, run : str
    sink : str
        Name of the sink in errors.
    compression : str
    row_group_rows : int
    shards : int
        Files of a pane, at most: as many workers can write at the same time.
    wait_seconds : int
        In processing time.
    prepare : callable
        The batches of a row group as they are written.

    Raises
    ------
    InputError
        When applied: as :func:`rasteret_beam.transforms.runtime.event_times.check_windows`.
    """

    prefix: str
    run: str
    sink: str
    _: KW_ONLY
    compression: str = "zstd"
    row_group_rows: int = ROW_GROUP_ROWS
    shards: int = 1
    wait_seconds: int = 60
    prepare: Prepare = list

    def expand(self, rows: beam.PCollection) -> beam.PCollection[str]:
        check_windows(rows, self.sink)
        settings = self.compression, self.row_group_rows, self.shards, self.prepare
        writing = _WritePaneFn(self.prefix, self.run, *settings)
        return (
            rows
            | "Shard" >> _Shard(_ShardFn(self.shards), self.wait_seconds)
            | "Together" >> beam.GroupByKey()
            | "Write" >> beam.ParDo(writing).with_output_types(typehints.Tuple[str, str])
            # Fix the names of the files before moving: a retry of the previous step writes another file.
            | "Settle" >> beam.Reshuffle()
            | "PutInPlace" >> beam.MapTuple(_put_in_place).with_output_types(str)
        )


class _Shard(beam.ParDo):
    """Rows by shard, in the windows of the input, with a trigger that waits for rows to share a file."""

    def __init__(self, sharding: beam.DoFn, wait_seconds: int):
        super().__init__(sharding)
        self.wait_seconds = wait_seconds

    def infer_output_type(self, input_type: Any) -> Any:
        return typehints.Tuple[int, pa.RecordBatch]

    def get_windowing(self, inputs: Any) -> Windowing:
        given = inputs[0].windowing
        return Windowing(
            given.windowfn,
            waiting_trigger(given, self.wait_seconds),
            given.accumulation_mode,
            given.timestamp_combiner,
            given.allowed_lateness,
            given.environment_id,
        )


def waiting_trigger(windowing: Windowing, seconds: int) -> Any:
    """A trigger that fires at the end of a window, and after a delay for late or early rows."""
    wait = AfterProcessingTime(seconds)
    if isinstance(windowing.windowfn, GlobalWindows):
        return Repeatedly(wait)
    trigger = windowing.triggerfn
    whole = isinstance(trigger, DefaultTrigger) or (isinstance(trigger, AfterWatermark) and trigger.early is None)
    return AfterWatermark(early=None if whole else wait, late=wait)


class _ShardFn(beam.DoFn):
    def __init__(self, shards: int):
        self.shards = shards

    def process(self, batch: pa.RecordBatch) -> Iterator[tuple[int, pa.RecordBatch]]:
        if len(batch):
            # From the content of the batch, so that a retry gives the same shard.
            first = batch.slice(0, 1).to_pylist() if self.shards > 1 else ""
            shard = crc32(repr(first).encode()) % self.shards
            yield from ((shard, piece) for piece in pieces(batch, PIECE_BYTES))


class _WritePaneFn(beam.DoFn):
    """Write the rows of one window, pane and shard to one file; returns its final and hidden names."""

    def __init__(
        self, prefix: str, run: str, compression: str, row_group_rows: int, shards: int, prepare: Prepare = list
    ):
        self.prepare = prepare
        self.prefix = prefix
        self.run = run
        self.compression = compression
        self.row_group_rows = row_group_rows
        self.shards = shards

    def process(
        self,
        element: tuple[int, Iterable[pa.RecordBatch]],
        window: Any = beam.DoFn.WindowParam,
        pane: Any = beam.DoFn.PaneInfoParam,
    ) -> Iterator[tuple[str, str]]:
        shard, batches = element
        folder, slash, _ = self.prefix.rpartition("/")
        hidden = f"{folder}{slash}.{uuid4().hex}.parquet"
        self._write(hidden, batches)
        name = f"{self.prefix}-{window_name(window)}-pane-{pane.index}-{shard:05d}-of-{self.shards:05d}-{self.run}"
        yield f"{name}.parquet", hidden

    def _write(self, path: str, batches: Iterable[pa.RecordBatch]) -> None:
        file: ParquetFile | None = None
        try:
            for group in map(self.prepare, _row_groups(batches, self.row_group_rows)):
                if file is None:
                    file, storage = ParquetFile(path), column_storage(pa.Table.from_batches(group), self.compression)
                file.write(group, storage)
                count({metrics.ROWS_WRITTEN: sum(map(len, group))})
            assert file is not None, "a pane has rows"
            file.close()
        except BaseException:
            if file is not None:
                file.abandon()
                with suppress(OSError, BeamIOError):
                    delete_files([path])
            raise


def _row_groups(batches: Iterable[pa.RecordBatch], most_rows: int) -> Iterator[list[pa.RecordBatch]]:
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        held.append(batch)
        rows += len(batch)
        size += batch.nbytes
        if rows >= most_rows or size >= ROW_GROUP_BYTES:
            yield held
            held, rows, size = [], 0, 0
    if held:
        yield held


def window_name(window: Any) -> str:
    """Start and end of a window in UTC, as ``20230115T090000Z-20230115T091000Z``; ``global`` for the global window."""
    if not isinstance(window, IntervalWindow):
        return "global"
    return f"{_moment(window.start.micros)}-{_moment(window.end.micros)}"


def _moment(micros: int) -> str:
    moment = EPOCH + timedelta(microseconds=micros)
    part = f".{moment.microsecond:06d}" if moment.microsecond else ""
    return f"{moment:%Y%m%dT%H%M%S}{part}Z"


def _put_in_place(final: str, hidden: str) -> str:
    move_files({final: hidden})
    return final
