"""Turn rows of BigQuery into batches with stable row numbers.

A shuffle stores the streams of one session: a worker that reads a stream again gets the same rows in the same order.
The number of a row is its position in its stream plus the rows of the previous streams, which are known when all
streams have been read. So rows cross a shuffle before they are numbered. The shuffle also distributes them, and lets
all streams be read before the session expires, however long the rest of the job takes.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import apache_beam as beam
import pyarrow as pa

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam.transforms.runtime.one_list import InOneList
from rasteret_beam.transforms.sources.bigquery import (
    Extract,
    Stream,
    gathered,
    open_streams,
    read_stream,
    storage_client,
)
from rasteret_beam.transforms.sources.row_makers import RowMaker
from rasteret_beam.transforms.sources.table_files import numbered

COUNTS = "counts"
PIECE_BYTES = 1 << 20
"""Limit of a batch, as Flink's sort buffers do not accept records of 10 MB."""

Piece = tuple[int, int, pa.RecordBatch]
"""Number of a stream, number of its rows before these, and the rows."""


def read_extract(pipeline: Any, extract: Extract, rows: RowMaker) -> beam.PCollection[pa.RecordBatch]:
    """Read all rows of a table or a query as batches."""
    reading = beam.ParDo(_ReadStreamFn(extract, rows)).with_output_types(Piece, **{COUNTS: tuple[int, int]})
    read = (
        pipeline
        | "Source" >> beam.Create([extract])
        | "OpenSession" >> beam.FlatMap(open_streams, rows.needed).with_output_types(Stream)
        | "SpreadStreams" >> beam.Reshuffle()
        | "ReadStreams" >> reading.with_outputs(COUNTS, main="pieces")
    )
    first_rows = read[COUNTS] | "Collect" >> InOneList() | "FirstRows" >> beam.Map(_first_rows)
    numbering = beam.ParDo(_NumberRowsFn(rows), beam.pvalue.AsSingleton(first_rows))
    return (
        read["pieces"]
        | "SpreadPieces" >> beam.Reshuffle()
        | "NumberRows" >> numbering.with_output_types(pa.RecordBatch)
    )


class _ReadStreamFn(beam.DoFn):
    """Rows of streams and their counts; reading a stream again gives the same rows."""

    def __init__(self, extract: Extract, rows: RowMaker):
        self.extract = extract
        self.needed = rows.needed
        self.most_rows = rows.most_rows

    def process(self, stream: Stream) -> Iterator[Any]:
        count = 0
        with storage_client() as client:
            batches = read_stream(client, stream, self.extract, self.needed)
            for batch in gathered(batches, self.most_rows, PIECE_BYTES):
                yield stream.number, count, batch
                count += len(batch)
        yield beam.pvalue.TaggedOutput(COUNTS, (stream.number, count))


def _first_rows(counts: Sequence[tuple[int, int]]) -> dict[int, int]:
    """Row number of the first row of each stream, from the counts of all streams."""
    first_rows, total = {}, 0
    for number, rows in sorted(counts):
        first_rows[number] = total
        total += rows
    return first_rows


class _NumberRowsFn(beam.DoFn):
    def __init__(self, rows: RowMaker):
        self.rows = rows

    def process(self, piece: Piece, first_rows: dict[int, int]) -> Iterator[pa.RecordBatch]:
        number, before, batch = piece
        yield from numbered([batch], first_rows[number] + before, self.rows)


def batches_of_extract(extract: Extract, rows: RowMaker) -> Iterator[pa.RecordBatch]:
    """Read all batches of a table or a query in this process, one at a time."""
    first_row = 0
    for stream in open_streams(extract, rows.needed, most=1):
        with storage_client() as client:
            batches = read_stream(client, stream, extract, rows.needed)
            for batch in gathered(batches, rows.most_rows, PIECE_BYTES):
                yield from numbered([batch], first_row, rows)
                first_row += len(batch)
