"""Single Parquet files on Beam's filesystems, which all Parquet sinks write."""

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from rasteret_beam.kernels.tables.dictionaries import as_dictionaries, with_dictionaries
from rasteret_beam.kernels.tables.geoparquet import GeoSummary
from rasteret_beam.kernels.tables.parquet_columns import ColumnStorage
from rasteret_beam.readers.storage.local_files import writing

BUFFER_BYTES = 8 << 20
"""Bytes that are collected before Python writes them: each write waits for the interpreter's lock."""


class ParquetFile:
    """A Parquet file that is being written to one of Beam's filesystems."""

    def __init__(self, path: str):
        self.path = path
        self.bytes = 0
        self._writer: pq.ParquetWriter | None = None
        self._dictionary: list[str] = []
        self._geo: GeoSummary | None = None
        with writing(path):
            self._raw = FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)
            self._file = pa.BufferedOutputStream(pa.PythonFile(self._raw, "w"), BUFFER_BYTES)

    def write(self, batches: Sequence[pa.RecordBatch], storage: ColumnStorage) -> None:
        """Write batches as one row group; those of the first row group define schema and storage of the file."""
        with self._writing():
            if self._writer is None:
                self._dictionary = storage.dictionary
                self._writer = _writer(self._file, batches[0].schema, storage)
                self._geo = GeoSummary.of(batches[0].schema)
            if self._geo is not None:
                self._geo.add(batches)
            table = as_dictionaries(batches, self._dictionary)
            self._writer.write_table(table, row_group_size=len(table))
            self.bytes = self._file.tell()
        del table
        pa.default_memory_pool().release_unused()  # glibc keeps freed memory

    def close(self) -> None:
        with self._writing():
            assert self._writer is not None, "a file has rows"
            if self._geo is not None:
                self._writer.add_key_value_metadata(self._geo.metadata())
            self._writer.close()
            self._file.close()
            self._raw.close()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with writing(self.path):
                yield
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Close the file without a footer; it stays in the temporary folder."""
        if self._writer is not None:
            self._writer.is_open = False  # otherwise its destructor writes a footer to the closed file
        for file in (self._file, self._raw):
            with suppress(OSError, ValueError):  # buffered bytes may not fit on the disk
                file.close()


def _writer(file: pa.NativeFile, schema: pa.Schema, storage: ColumnStorage) -> pq.ParquetWriter:
    """A writer that takes text columns with a dictionary as Arrow dictionaries, and stores the schema without them.

    Source for the key of the schema: Apache Arrow, Parquet format, "Serializing the Arrow schema".
    """
    written = with_dictionaries(schema, storage.dictionary)
    settings = {"compression": storage.compression, "use_dictionary": storage.dictionary}
    writer = pq.ParquetWriter(file, written, store_schema=False, **settings)
    writer.add_key_value_metadata({**(schema.metadata or {}), b"ARROW:schema": base64.b64encode(schema.serialize())})
    return writer


def write_empty(folder: str, schema: pa.Schema, compression: str) -> str:
    """Write a file without rows; returns its path."""
    path = f"{folder}/empty.parquet"
    geo = GeoSummary.of(schema)
    if geo is not None:
        schema = schema.with_metadata((schema.metadata or {}) | geo.metadata())
    with writing(path), FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        pq.write_table(schema.empty_table(), file, compression=compression)
    return path
