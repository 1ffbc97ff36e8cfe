"""Tables in files to batches of rows, with a row number that is the same on every run.

Shared by the transforms that read points and polygons.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.csv as pv

import rasteret_beam.transforms.coders  # noqa: F401  (registers the coders)
from rasteret_beam.errors import InputError, listed, one_line, without_secrets
from rasteret_beam.kernels.crs import same_crs
from rasteret_beam.kernels.geometry import data_crs, first_srid
from rasteret_beam.kernels.partitions import partition_keys, partition_schema
from rasteret_beam.kernels.points import kept_type
from rasteret_beam.model import AS_GIVEN, Access
from rasteret_beam.readers.finding import FoundFile
from rasteret_beam.transforms.files import find_tables, is_parquet, name_of, open_file, open_parquet
from rasteret_beam.transforms.row_makers import InPartition, RowMaker

BATCH_BYTES = 16 << 20
CSV_BLOCK_BYTES = 4 << 20


@dataclass(frozen=True)
class Files:
    """Files, folders and globs, and how their buckets are read.

    Attributes
    ----------
    first : FoundFile
        The first of the files, by name.
    partitions : pyarrow.Schema
        Of the columns whose values stand in the names of folders.
    """

    paths: Sequence[str]
    access: Access
    first: FoundFile
    partitions: pa.Schema

    @classmethod
    def of(cls, paths: Sequence[str], access: Access = AS_GIVEN) -> "Files":
        """Find them."""
        tables = find_tables(paths, access)
        return cls(paths, access, tables[0], partition_schema(file.keys for file in tables))

    def found(self) -> list[FoundFile]:
        """Each of them by its own path, in name order; see :func:`rasteret_beam.transforms.files.find_tables`."""
        return find_tables(self.paths, self.access)


class _Counted(NamedTuple):
    """A file and the rows of its parts: row groups, or the whole of a CSV file."""

    path: str
    root: str | None
    csv: bool
    rows: list[int]


class _Split(NamedTuple):
    """A part of a file that one worker reads: a row group, or a whole CSV file (-1)."""

    path: str
    root: str | None
    row_group: int
    first_row: int


def read_files(pipeline: Any, files: Files, rows: RowMaker) -> beam.PCollection[pa.RecordBatch]:
    """Batches of all rows of files, folders and globs: planned by row group, spread, read."""
    return (
        pipeline
        | "Source" >> beam.Create([list(files.paths)])
        | "FindFiles" >> beam.FlatMap(_find_files, files.access)
        | "SpreadFiles" >> beam.Reshuffle()
        | "CountRows" >> beam.MapTuple(_count_rows, access=files.access)
        | "Collect" >> beam.combiners.ToList()
        | "NumberRows" >> beam.FlatMap(_number_rows)
        | "SpreadSplits" >> beam.Reshuffle()
        | "Read" >> beam.ParDo(_ReadFn(rows, files.access, files.partitions)).with_output_types(pa.RecordBatch)
    )


class _ReadFn(beam.DoFn):
    def __init__(self, rows: RowMaker, access: Access, partitions: pa.Schema):
        self.rows = rows
        self.access = access
        self.partitions = partitions

    def process(self, split: _Split) -> Iterator[pa.RecordBatch]:
        yield from _read_split(split, self.rows, self.access, self.partitions)


def batches_of_files(files: Files, rows: RowMaker) -> Iterator[pa.RecordBatch]:
    """All batches of files, read here and now, one at a time."""
    found = files.found()
    first_row = 0
    for file in found:
        counted = _count_rows(file.path, file.root, file == found[-1], files.access)
        for split in _number_rows([counted]):
            placed = split._replace(first_row=first_row + split.first_row)
            yield from _read_split(placed, rows, files.access, files.partitions)
        first_row += sum(counted.rows)


def files_of(source: Any, what: str, access: Access = AS_GIVEN) -> Files | None:
    """The files that a source consists of; None where it is in memory."""
    paths = _paths_of(source, what)
    return None if paths is None else Files.of(paths, access)


def _paths_of(source: Any, what: str) -> list[str] | None:
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        return None if path.lstrip().startswith("{") else [path]
    if isinstance(source, list | tuple) and all(isinstance(path, str | os.PathLike) for path in source):
        paths = [os.fspath(path) for path in source]
        if not paths:
            raise InputError(f"there is no file to read {what} from: source is an empty list")
        return None if paths[0].lstrip().startswith("{") else paths
    return None


def numbered(batches: Iterable[pa.RecordBatch], first_row: int, rows: RowMaker) -> Iterator[pa.RecordBatch]:
    """Batches of rows of which the first has a row number; empty ones are left out."""
    for batch in batches:
        if len(batch):
            yield rows.batch(batch, first_row)
            first_row += len(batch)


def look_at_first(files: Files) -> tuple[pa.Schema, str, Callable[[str], int | None], list[str]]:
    """Schema and name of the first file, what looks up the SRID of its first geometry, and columns it does not have.

    These come from the names of folders (hive partitions), and stand at the end of the schema.
    """
    path = files.first.path
    schema = _schema_of(path, files.access)
    added = [item for item in files.partitions if item.name not in schema.names]
    first_srid_of = partial(_first_srid, path, files.access) if is_parquet(path, files.access) else lambda column: None
    for item in added:
        schema = schema.append(item)
    return schema, path, first_srid_of, [item.name for item in added]


def _schema_of(path: str, access: Access) -> pa.Schema:
    if is_parquet(path, access):
        with open_parquet(path, access) as file:
            return file.schema_arrow
    with _open_csv(path, access) as reader:
        return reader.schema


def _first_srid(path: str, access: Access, column: str) -> int | None:
    with open_parquet(path, access) as file:
        for batch in file.iter_batches(batch_size=1024, columns=[column]):
            srid = first_srid(batch.column(0))
            if srid is not None:
                return srid
    return None


def _find_files(source: Sequence[str], access: Access) -> Iterator[tuple[str, str | None, bool]]:
    """Files in name order, their roots, and whether one is the last: nobody needs to know the length of that one."""
    files = find_tables(source, access)
    for file in files:
        yield file.path, file.root, file == files[-1]


def _count_rows(path: str, root: str | None, last: bool, access: Access = AS_GIVEN) -> _Counted:
    """Rows of each part of a file; a CSV file has to be read for it, so the last one counts as empty."""
    if is_parquet(path, access):
        with open_parquet(path, access) as file:
            groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
            return _Counted(path, root, False, [group.num_rows for group in groups])
    if last:
        return _Counted(path, root, True, [0])
    with _open_csv(path, access) as reader:
        return _Counted(path, root, True, [sum(len(batch) for batch in reader)])


def _number_rows(counted: list[_Counted]) -> Iterator[_Split]:
    """Splits with the row number of their first row."""
    first_row = 0
    for path, root, csv, counts in sorted(counted, key=lambda file: file.path):
        for number, rows in enumerate(counts):
            if rows or csv:
                yield _Split(path, root, -1 if csv else number, first_row)
            first_row += rows


def _read_split(split: _Split, rows: RowMaker, access: Access, partitions: pa.Schema) -> Iterator[pa.RecordBatch]:
    if len(partitions):
        own = _schema_of(split.path, access).names
        rows = InPartition(rows, split.path, partition_keys(split.path, split.root), partitions, own)
    batches = _read_csv(split.path, rows, access) if split.row_group < 0 else _read_row_group(split, rows, access)
    yield from numbered(batches, split.first_row, rows)


def _read_row_group(split: _Split, rows: RowMaker, access: Access) -> Iterator[pa.RecordBatch]:
    with open_parquet(split.path, access) as file:
        rows.check(file.schema_arrow, without_secrets(split.path))
        group = file.metadata.row_group(split.row_group)
        row_bytes = max(1, group.total_byte_size // max(1, group.num_rows))
        most = max(1, min(rows.most_rows, BATCH_BYTES // row_bytes))
        try:
            yield from file.iter_batches(batch_size=most, row_groups=[split.row_group], columns=rows.needed)
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(
                f"row group {split.row_group} of {without_secrets(split.path)} cannot be read: {one_line(error)}"
            ) from error


def check_alike(
    schema: pa.Schema,
    path: str,
    needed: Sequence[str],
    kept: Sequence[str],
    output: pa.Schema,
    geometry: str | None,
    crs: str,
    what: str,
    reader: str,
) -> None:
    """Refuse a file that lacks a column of the first, has a kept one of another type, or geometries in another CRS.

    Parameters
    ----------
    output : pyarrow.Schema
        Of the batches, with the kept columns' types.
    geometry : str or None
        The geometry column.
    crs : str
        Of the first file.
    what, reader : str
        What an error calls the rows, and the transform that reads them.
    """
    missing = [name for name in needed if name not in schema.names]
    if missing:
        raise InputError(
            f"{path} has no column(s) {listed(missing)}, which the first file has; it has {listed(schema.names)}"
        )
    for name in kept:
        wanted = output.field(name).type
        if kept_type(schema.field(name).type) != wanted:
            raise InputError(
                f"column {name!r} of {path} is {schema.field(name).type}, but {wanted} in the first file; "
                "make them alike, or leave the column out with columns=[...]"
            )
    found = data_crs(schema, geometry) if geometry is not None else None
    if found is not None and not same_crs(found, crs):
        raise InputError(
            f"column {geometry!r} of {path} is in {found}, but the {what} of the first file are in {crs}; "
            f"read files of each CRS by a {reader} of its own"
        )


def _open_csv(path: str, access: Access, types: dict[str, pa.DataType] | None = None) -> pv.CSVStreamingReader:
    name = name_of(path)
    packing = {".gz": "gzip", ".bz2": "bz2"}.get(os.path.splitext(name)[1])
    file = pa.input_stream(open_file(path, access, to_the_end=True), compression=packing)
    parsing = pv.ParseOptions(delimiter="\t" if ".tsv" in name else ",", newlines_in_values=True)
    try:
        return pv.open_csv(
            file,
            read_options=pv.ReadOptions(block_size=CSV_BLOCK_BYTES),
            parse_options=parsing,
            convert_options=pv.ConvertOptions(
                column_types=types, include_columns=list(types) if types else None, strings_can_be_null=True
            ),
        )
    except (pa.ArrowInvalid, KeyError) as error:
        raise InputError(f"{without_secrets(path)} cannot be read as CSV: {error}") from error


def _read_csv(path: str, rows: RowMaker, access: Access) -> Iterator[pa.RecordBatch]:
    try:
        with _open_csv(path, access, rows.csv_types()) as reader:
            for batch in reader:
                yield from (batch.slice(at, rows.most_rows) for at in range(0, len(batch), rows.most_rows))
    except pa.ArrowInvalid as error:
        raise InputError(
            f"{without_secrets(path)} cannot be read as CSV: {error}. Column types are those of the first rows of the "
            "first file."
        ) from error
