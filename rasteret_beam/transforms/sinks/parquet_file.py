"""Single Parquet files on Beam's filesystems, which all Parquet sinks write."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pyarrow as pa
import pyarrow.parquet as pq
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from rasteret_beam.readers.storage.local_files import writing


class ParquetFile:
    """A Parquet file that is being written to one of Beam's filesystems."""

    def __init__(self, path: str, schema: pa.Schema, compression: str):
        self.path = path
        with writing(path):
            self._file = FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED)
            self._writer = pq.ParquetWriter(
                self._file, schema, compression=compression, use_dictionary=_repeating(schema)
            )

    def write(self, batches: list[pa.RecordBatch]) -> None:
        """Write batches as one row group."""
        with self._writing():
            table = pa.Table.from_batches(batches)
            self._writer.write_table(table, row_group_size=len(table))
        del table
        pa.default_memory_pool().release_unused()  # glibc keeps freed memory

    def close(self) -> None:
        with self._writing():
            self._writer.close()
            self._file.close()

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
        self._writer.is_open = False  # otherwise its destructor writes a footer to the closed file
        with suppress(OSError):  # buffered bytes may not fit on the disk
            self._file.close()


def _repeating(schema: pa.Schema) -> list[str]:
    """Columns with repeating values, such as record, band and the name of a plot.

    Dictionaries of positions and values would take a third of the writing time and save nothing.
    """
    return [
        field.name
        for field in schema
        if field.name != "point_index"
        and not (
            pa.types.is_floating(field.type) or pa.types.is_nested(field.type) or pa.types.is_large_binary(field.type)
        )
    ]


def write_empty(folder: str, schema: pa.Schema, compression: str) -> str:
    """Write a file without rows; returns its path."""
    path = f"{folder}/empty.parquet"
    with writing(path), FileSystems.create(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        pq.write_table(schema.empty_table(), file, compression=compression)
    return path
