"""Write samples, chips and zonal statistics to Parquet files, which replace those of an earlier run atomically."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Literal

import apache_beam as beam
import pyarrow as pa
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam import metrics
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.tables.geoparquet import check_geometry, geo_batches
from rasteret_beam.options import SampleOptions
from rasteret_beam.readers.storage.stores import absolute
from rasteret_beam.readers.tiles.budget import ROW_GROUP_BYTES, ROW_GROUP_ROWS
from rasteret_beam.schema import chips_schema
from rasteret_beam.transforms.runtime.beam_metrics import count
from rasteret_beam.transforms.runtime.event_times import in_windows
from rasteret_beam.transforms.runtime.files import check_output, check_writable, matching
from rasteret_beam.transforms.runtime.one_list import InOneList
from rasteret_beam.transforms.runtime.shared_resources import acquire, release
from rasteret_beam.transforms.sinks.commit import Output, Staged
from rasteret_beam.transforms.sinks.parquet_file import write_empty
from rasteret_beam.transforms.sinks.parquet_files import FILE_BYTES, Measured, ParquetFiles, Prepare, WriterThreads
from rasteret_beam.transforms.sinks.protocol import RowFileSink
from rasteret_beam.transforms.sinks.windowed_parquet import WriteWindows
from rasteret_beam.zonal_options import ZonalOptions


@dataclass(eq=False)
class _WriteToParquet(RowFileSink, beam.PTransform):
    """Write batches of rows to ``prefix-00000-of-00004.parquet`` and so on; returns the file names.

    Files are written to a temporary folder beside the output. At the end all of them replace those of an earlier run
    with the same prefix; see :mod:`rasteret_beam.transforms.sinks.commit`. If there are no rows, one file with the
    schema is written.

    The rows of a stream, or of any input outside the global window, become files per window and pane,
    ``prefix-START-END-pane-N-00000-of-00004-RUN.parquet``, beside those of other panes and runs; see
    :class:`rasteret_beam.transforms.sinks.windowed_parquet.WriteWindows`. A window without rows has no files.

    Parameters
    ----------
    prefix : str or pathlib.Path
        Path without extension on any Beam filesystem; ``.parquet`` at its end is removed.
    schema : pyarrow.Schema, optional
        Schema of the file that is written if there are no rows; by default that of the step that makes the rows.
    compression : str
    row_group_rows : int
        Rows of a row group; fewer if they would exceed 64 MB in memory.
    file_bytes : int
        Size of a file, after which rows go to another. A process writes several files at the same time.
    window_shards : int
        Maximum number of files per window and pane.
    wait_seconds : int
        How long late (or early) rows of a window wait for others to share a file.
    """

    prefix: str
    _: KW_ONLY
    schema: pa.Schema | None = field(default=None, repr=False)
    compression: str = "zstd"
    row_group_rows: int = ROW_GROUP_ROWS
    file_bytes: int = FILE_BYTES
    window_shards: int = 1
    wait_seconds: int = 60
    target: Output = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.prefix = os.fspath(self.prefix)
        if not self.prefix.removesuffix(".parquet").strip() or self.prefix.endswith("/"):
            raise InputError(f"output prefix is {self.prefix!r}; give a path prefix of files, such as out/samples")
        check_output(self.prefix, "output")
        if self.file_bytes < 1:
            raise InputError(f"file_bytes is {self.file_bytes}; give the size of a file in bytes, such as {FILE_BYTES}")
        if self.window_shards < 1:
            raise InputError(f"window_shards is {self.window_shards}; a window needs at least 1 file")
        self.prefix = absolute(self.prefix.removesuffix(".parquet"))
        self.target = Output(self.prefix)
        self._prepare([_no_rows(self.schema_without_rows())])  # refuses names that it needs

    @property
    def _prepare(self) -> Prepare:
        """What makes GeoParquet of rows with geometries."""
        return geo_batches

    def expand(self, rows: beam.PCollection) -> beam.PCollection[str]:
        if in_windows(rows):
            return rows | WriteWindows(
                self.prefix,
                self.target.run,
                type(self).__name__,
                compression=self.compression,
                row_group_rows=self.row_group_rows,
                shards=self.window_shards,
                wait_seconds=self.wait_seconds,
                prepare=self._prepare,
            )
        return self.put(rows, self.staged())

    @property
    def place(self) -> str:
        return f"{self.prefix}-*.parquet"

    @property
    def prefixes(self) -> list[str]:
        return [self.prefix]

    def check(self, options: PipelineOptions) -> None:
        """Find out whether files can be written.

        Raises
        ------
        OutputError
        """
        check_writable(self.prefix)

    def staged(self) -> "StageFiles":
        """Write the files without putting them in place; :class:`.commit.PutInPlace` does so for several sinks."""
        settings = self.compression, self.row_group_rows, self.file_bytes, self._prepare
        return StageFiles(self.target, self.schema_without_rows(), *settings)

    def in_round(self) -> "WriteFiles":
        settings = self.compression, self.row_group_rows, self.file_bytes, self._prepare
        return WriteFiles(self.target.temporary, *settings)

    def after_rounds(self, files: Sequence[str], options: PipelineOptions) -> Staged:
        return _whole(files, self.target, self.schema_without_rows(), self.compression, self._prepare)


def documented_for(sink: type, rows: str) -> str:
    """The docstring of a sink of rows, for rows of a kind."""
    return (sink.__doc__ or "").replace("batches of rows", f"batches of {rows}", 1)


GEOMETRY_OF_SAMPLES = """
    geometry : "point" or "pixel", optional
        Write GeoParquet, with the point or the outline of the pixel that gave the value in column ``geometry``, and
        its box in ``bbox``. Samples have a geometry already with the option ``geometry`` of
        :class:`rasteret_beam.SamplePoints`, and are then written as GeoParquet without this argument; outlines of
        pixels need the option, and points get theirs here too.
    """


@dataclass(eq=False)
class WriteSamplesToParquet(_WriteToParquet):
    __doc__ = documented_for(_WriteToParquet, "samples").rstrip() + GEOMETRY_OF_SAMPLES

    geometry: Literal["point", "pixel"] | None = None

    def __post_init__(self) -> None:
        check_geometry(self.geometry)
        super().__post_init__()

    @property
    def _prepare(self) -> Prepare:
        return partial(geo_batches, geometry=self.geometry)

    def expand(self, rows: beam.PCollection) -> beam.PCollection[str]:
        if self.geometry is not None:
            check_geometry(self.geometry, _sampled_geometry(rows))
        return super().expand(rows)


@dataclass(eq=False)
class WriteChipsToParquet(_WriteToParquet):
    __doc__ = documented_for(_WriteToParquet, "chips")

    def usual_schema(self) -> pa.Schema:
        return chips_schema()


@dataclass(eq=False)
class WriteZonalStatisticsToParquet(_WriteToParquet):
    __doc__ = documented_for(_WriteToParquet, "zonal statistics")

    def usual_schema(self) -> pa.Schema:
        return ZonalOptions().schema()


@dataclass(eq=False)
class StageFiles(beam.PTransform):
    """Write batches of rows to Parquet files in the temporary folder of an output."""

    target: Output
    schema: pa.Schema
    compression: str
    row_group_rows: int
    file_bytes: int = FILE_BYTES
    prepare: Prepare = list

    def expand(self, rows: beam.PCollection) -> beam.PCollection[bytes]:
        settings = self.compression, self.row_group_rows, self.file_bytes, self.prepare
        naming = beam.Map(_staged, self.target, self.schema, self.compression, self.prepare)
        return rows | WriteFiles(self.target.temporary, *settings) | "Name" >> naming.with_output_types(bytes)


@dataclass(eq=False)
class WriteFiles(beam.PTransform):
    """Write batches of rows to Parquet files; returns one list of the files of successful bundles.

    Each bundle writes its own files. A retried bundle leaves files that are not in the list.
    """

    folder: str
    compression: str = "zstd"
    row_group_rows: int = ROW_GROUP_ROWS
    file_bytes: int = FILE_BYTES
    prepare: Prepare = list

    def expand(self, rows: beam.PCollection) -> beam.PCollection[list[str]]:
        writing = _WriteFn(self.folder, self.compression, self.row_group_rows, self.file_bytes, self.prepare)
        return rows | "Write" >> beam.ParDo(writing).with_output_types(str) | "Collect" >> InOneList()


class _WriteFn(beam.DoFn):
    """Collects batches to row groups, which threads of the process write to the files of a bundle."""

    def __init__(self, folder: str, compression: str, row_group_rows: int, file_bytes: int, prepare: Prepare = list):
        self.prepare = prepare
        self.folder = folder
        self.compression = compression
        self.row_group_rows = row_group_rows
        self.file_bytes = file_bytes
        self._files: ParquetFiles | None = None

    def setup(self) -> None:
        self._threads: WriterThreads = acquire(WriterThreads, WriterThreads)

    def teardown(self) -> None:
        self._abandon()
        release(WriterThreads)

    def _abandon(self) -> None:
        if self._files is not None:
            self._files.abandon()
            self._files = None

    def start_bundle(self) -> None:
        self._abandon()  # what a failed bundle left
        measured = Measured(self.compression)
        self._files = ParquetFiles(self.folder, measured, self._threads, self.file_bytes, self.prepare)
        self._held: list[pa.RecordBatch] = []
        self._rows = self._bytes = 0

    def process(self, batch: pa.RecordBatch) -> None:
        if not len(batch):
            return
        self._held.append(batch)
        self._rows += len(batch)
        self._bytes += batch.nbytes
        if self._rows >= self.row_group_rows or self._bytes >= ROW_GROUP_BYTES:
            self._flush()

    def _flush(self, last: bool = False) -> None:
        assert self._files is not None
        self._files.write(self._held, last)
        count({metrics.ROWS_WRITTEN: self._rows})
        self._held, self._rows, self._bytes = [], 0, 0

    def finish_bundle(self) -> Iterator[WindowedValue]:
        assert self._files is not None
        if self._held:
            self._flush(last=True)
        written = self._files.close()
        self._files = None
        for path in written:
            yield WindowedValue(path, GlobalWindow().max_timestamp(), (GlobalWindow(),))


def shards(prefix: str) -> list[str]:
    """Files of an earlier output with this prefix."""
    numbered = re.compile(re.escape(prefix.rsplit("/", 1)[-1]) + r"-\d{5,}-of-\d{5,}\.parquet")
    found = matching(prefix, "-*-of-*.parquet")
    return [path for path in found if numbered.fullmatch(path.rsplit("/", 1)[-1])]


def _no_rows(schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist([], schema=schema)


def _sampled_geometry(rows: beam.PCollection) -> str | None:
    """The option ``geometry`` of the transform that gives samples; None if these come another way."""
    step = rows.producer
    while step is not None:
        options = getattr(step.transform, "options", None)
        if isinstance(options, SampleOptions):
            return options.geometry
        step = step.parent
    return None


def _staged(written: list[str], target: Output, schema: pa.Schema, compression: str, prepare: Prepare) -> bytes:
    return _whole(sorted(written), target, schema, compression, prepare).to_bytes()


def _whole(written: Sequence[str], target: Output, schema: pa.Schema, compression: str, prepare: Prepare) -> Staged:
    """The files of a run as its output, numbered in their order; one without rows if there is none."""
    if not written:
        written = [write_empty(target.temporary, prepare([_no_rows(schema)])[0].schema, compression)]
    finals = [f"{target.path}-{number:05d}-of-{len(written):05d}.parquet" for number in range(len(written))]
    return Staged(target, dict(zip(finals, written, strict=True)), shards)
