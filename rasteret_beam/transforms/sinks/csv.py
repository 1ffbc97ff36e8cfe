"""Write samples and zonal statistics to one CSV file, for spreadsheets."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field

import apache_beam as beam
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.tables.csv_text import OUTPUT_ENDINGS, csv_batches, csv_schema, is_csv
from rasteret_beam.readers.storage.local_files import writing
from rasteret_beam.readers.storage.stores import absolute
from rasteret_beam.transforms.runtime.event_times import in_windows
from rasteret_beam.transforms.runtime.files import check_file_writable, check_output
from rasteret_beam.transforms.sinks.commit import Output, Staged
from rasteret_beam.transforms.sinks.parquet import WriteFiles, documented_for
from rasteret_beam.transforms.sinks.parquet_file import write_empty
from rasteret_beam.transforms.sinks.protocol import RowFileSink
from rasteret_beam.zonal_options import ZonalOptions

log = logging.getLogger(__name__)

MANY_ROWS = 1_000_000
"""Spreadsheets show some more rows (1,048,576) at most."""

BATCH_ROWS = 1 << 16


@dataclass(eq=False)
class _WriteToCsv(RowFileSink, beam.PTransform):
    """Write batches of rows to one CSV file; returns its name.

    The file has a header, quotes as RFC 4180 has them, times in ISO 8601 (with ``Z`` if the column has a zone; column
    ``datetime`` is in UTC), lists and structs as JSON, geometries as WKT, other binary values in hexadecimal digits.
    Null is empty. Rows come in any order.

    Rows are first written to Parquet files, with the columns of the CSV file, in a temporary folder beside the output;
    one worker makes the CSV file of these, batch by batch, and puts it in place of that of an earlier run. A warning is
    logged above a million rows: spreadsheets show no more, and Parquet files are smaller and faster to write and read.

    Parameters
    ----------
    path : str or pathlib.Path
        Ends in ``.csv``, or in ``.csv.gz`` for a compressed file; on any Beam filesystem.
    schema : pyarrow.Schema, optional
        Header of the file if there are no rows; by default that of the step that makes the rows.

    Raises
    ------
    InputError
        The path has another ending. When applied: the rows are a stream or outside the global window.
    """

    path: str
    _: KW_ONLY
    schema: pa.Schema | None = field(default=None, repr=False)
    target: Output = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.path = os.fspath(self.path)
        name = self.path.rsplit("/", 1)[-1].lower()
        if not is_csv(self.path) or name in OUTPUT_ENDINGS:
            raise InputError(f"output is {self.path!r}; give the path of a CSV file, such as out/samples.csv")
        check_output(self.path, "output")
        self.path = absolute(self.path)
        self.target = Output(self.path)

    def expand(self, rows: beam.PCollection) -> beam.PCollection[str]:
        if in_windows(rows):
            raise InputError(
                f"{type(self).__name__} writes one file when all rows are there, but the rows are a stream or in "
                f"windows; write them with {type(self).__name__.replace('Csv', 'Parquet')}, which gives each window "
                "its files"
            )
        return self.put(rows, self.staged())

    @property
    def place(self) -> str:
        return self.path

    @property
    def prefixes(self) -> list[str]:
        return [self.path]

    def check(self, options: PipelineOptions) -> None:
        """Find out whether the file can be written.

        Raises
        ------
        OutputError
        """
        check_file_writable(self.path)

    def staged(self) -> "StageCsv":
        """Write the file without putting it in place; :class:`.commit.PutInPlace` does so for several sinks."""
        return StageCsv(self.target, self.schema_without_rows())

    def in_round(self) -> WriteFiles:
        return WriteFiles(self.target.temporary, prepare=csv_batches)

    def after_rounds(self, files: Sequence[str], options: PipelineOptions) -> Staged:
        return _whole(files, self.target, self.schema_without_rows())


@dataclass(eq=False)
class WriteSamplesToCsv(_WriteToCsv):
    __doc__ = documented_for(_WriteToCsv, "samples")


@dataclass(eq=False)
class WriteZonalStatisticsToCsv(_WriteToCsv):
    __doc__ = documented_for(_WriteToCsv, "zonal statistics")

    def usual_schema(self) -> pa.Schema:
        return ZonalOptions().schema()


@dataclass(eq=False)
class StageCsv(beam.PTransform):
    """Write batches of rows to a CSV file in the temporary folder of an output."""

    target: Output
    schema: pa.Schema

    def expand(self, rows: beam.PCollection) -> beam.PCollection[bytes]:
        naming = beam.Map(_staged, self.target, self.schema).with_output_types(bytes)
        return rows | WriteFiles(self.target.temporary, prepare=csv_batches) | "ToCsv" >> naming


def _staged(written: list[str], target: Output, schema: pa.Schema) -> bytes:
    return _whole(sorted(written), target, schema).to_bytes()


def _whole(written: Sequence[str], target: Output, schema: pa.Schema) -> Staged:
    """The rows of Parquet files as one CSV file, which replaces that of an earlier run."""
    files = written or [write_empty(target.temporary, csv_schema(schema), "NONE")]
    path = f"{target.temporary}/{target.path.rsplit('/', 1)[-1]}"
    rows = 0
    with _created(path) as file:
        for number, source in enumerate(files):
            rows += _append(source, file, with_header=number == 0)
    if rows > MANY_ROWS:
        log.warning("%s has %s rows; %s", target.path, f"{rows:,}", _WAY_OUT)
    return Staged(target, {target.path: path}, _earlier)


_WAY_OUT = (
    "spreadsheets show at most 1,048,576. Write Parquet, which is smaller and faster to read, by giving an output "
    "without .csv"
)


@contextmanager
def _created(path: str) -> Iterator[pa.NativeFile]:
    """A new file, compressed if its name ends in ``.gz``."""
    with (
        writing(path),
        FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as raw,
        pa.output_stream(pa.PythonFile(raw, "w"), compression="gzip" if path.lower().endswith(".gz") else None) as file,
    ):
        yield file


def _append(source: str, file: pa.NativeFile, with_header: bool) -> int:
    """Append the rows of a Parquet file, in columns of :func:`csv_batch`, as CSV; returns how many."""
    rows = 0
    options = pyarrow.csv.WriteOptions(include_header=with_header)
    with (
        FileSystems.open(source, compression_type=CompressionTypes.UNCOMPRESSED) as raw,
        pq.ParquetFile(raw) as stored,
        pyarrow.csv.CSVWriter(file, stored.schema_arrow, write_options=options) as writer,
    ):
        for batch in stored.iter_batches(BATCH_ROWS):
            writer.write_batch(batch)
            rows += len(batch)
    return rows


def _earlier(path: str) -> list[str]:
    """The file of an earlier run."""
    return [path] if FileSystems.exists(path) else []
