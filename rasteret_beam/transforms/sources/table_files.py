"""Read tables in files as batches of rows with stable row numbers.

The transforms that read points and polygons share this module.
"""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

import apache_beam as beam
import pyarrow as pa
import pyarrow.parquet as pq

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam.errors import InputError, RasteretBeamError, listed, one_line, without_secrets
from rasteret_beam.kernels.geo.crs import same_crs
from rasteret_beam.kernels.tables.native_geometry import with_native_geometries
from rasteret_beam.kernels.tables.partitions import check_partition_types, partition_keys, partition_schema
from rasteret_beam.kernels.tables.point_columns import kept_type
from rasteret_beam.kernels.tables.point_geometry import FirstValue, data_crs, first_value
from rasteret_beam.kernels.tables.text_columns import named_types
from rasteret_beam.model import DEFAULT_ACCESS, Access
from rasteret_beam.readers.storage.found_file import FoundFile
from rasteret_beam.readers.storage.local_files import in_memory
from rasteret_beam.transforms.runtime.files import VECTOR_ENDINGS, find_tables, is_parquet, open_parquet
from rasteret_beam.transforms.runtime.one_list import InOneList
from rasteret_beam.transforms.sources.csv_files import CsvFile, decided_types
from rasteret_beam.transforms.sources.csv_format import COMMAS, CsvFormat
from rasteret_beam.transforms.sources.held_readers import rows_of
from rasteret_beam.transforms.sources.row_makers import InPartition, RowMaker
from rasteret_beam.transforms.sources.vector_files import VectorFile, is_vector

BATCH_BYTES = 16 << 20
COLUMN_BYTES = 4 << 10
"""Bytes of a batch per column, as smaller arrays of a wide table would be mostly overhead."""
SMALLER = "write the file with smaller row groups, or give the machine more memory"


@dataclass(frozen=True)
class Files:
    """Files, folders and globs, with the access to their buckets, the format of CSV, and the layer of vector files.

    Attributes
    ----------
    first : FoundFile
        The first file by name.
    partitions : pyarrow.Schema
        Schema of the columns whose values are in folder names.
    layer : str, optional
    job : str
        Names the job that shares local copies of remote files.
    """

    paths: Sequence[str]
    access: Access
    csv: CsvFormat
    first: FoundFile
    partitions: pa.Schema
    layer: str | None = None
    job: str = field(default_factory=lambda: uuid4().hex)

    @classmethod
    def of(
        cls,
        paths: Sequence[str],
        access: Access = DEFAULT_ACCESS,
        csv: CsvFormat = COMMAS,
        layer: str | None = None,
    ) -> "Files":
        """Find them."""
        tables = find_tables(paths, access)
        return cls(paths, access, csv, tables[0], partition_schema(file.keys for file in tables), layer)

    def found(self) -> list[FoundFile]:
        """The path of each file, in name order; see :func:`.runtime.files.find_tables`."""
        return find_tables(self.paths, self.access)

    def csv_file(self, path: str) -> CsvFile:
        return CsvFile(path, self.access, self.csv)

    def vector_file(self, path: str) -> VectorFile:
        return VectorFile(path, self.access, self.layer, self.job)

    def is_csv(self, path: str) -> bool:
        """Whether a file is CSV; otherwise its columns have types.

        Raises
        ------
        InputError, MissingInputError
            It has an unknown format, or cannot be opened.
        """
        return not is_vector(path) and not is_parquet(path, self.access)


class _Counted(NamedTuple):
    """A file and the number of rows of its parts: row groups, a whole CSV file, or parts of a vector file."""

    path: str
    root: str | None
    csv: bool
    rows: list[int]


class Split(NamedTuple):
    """Rows that one worker reads: a row group or part of a vector file, a CSV file (row group -1), or some of these.

    Attributes
    ----------
    first_row : int
        Row number of the first row, over all files.
    rows : int or None
        Number of rows; None for all rows of the last CSV file, which are not counted.
    skip : int
        Rows of the part before these.
    is_cut : bool
        There are more rows in the part than these.
    before : int
        Rows of the file before the part.
    """

    path: str
    root: str | None
    row_group: int
    first_row: int
    rows: int | None = None
    skip: int = 0
    is_cut: bool = False
    before: int = 0


def read_files(pipeline: Any, files: Files, rows: RowMaker) -> beam.PCollection[pa.RecordBatch]:
    """Read all rows of files, folders and globs as batches: list row groups, distribute them, and read."""
    return (
        pipeline
        | "Source" >> beam.Create([list(files.paths)])
        | "FindFiles" >> beam.FlatMap(_find_files, files.access)
        | "SpreadFiles" >> beam.Reshuffle()
        | "CountRows" >> beam.Map(_count_rows, files)
        | "Collect" >> InOneList()
        | "NumberRows" >> beam.FlatMap(_number_rows)
        | "SpreadSplits" >> beam.Reshuffle()
        | "Read" >> reading(files, rows)
    )


def reading(files: Files, rows: RowMaker) -> beam.ParDo:
    """Read splits as batches."""
    return beam.ParDo(_ReadFn(rows, files)).with_output_types(pa.RecordBatch)


def splits_of(files: Files) -> list[Split]:
    """All splits of files, in the order of their rows; the last CSV file is not counted."""
    found = files.found()
    return list(_number_rows([_count_rows((file.path, file.root, file == found[-1]), files) for file in found]))


class _ReadFn(beam.DoFn):
    def __init__(self, rows: RowMaker, files: Files):
        self.rows = rows
        self.files = files

    def process(self, split: Split) -> Iterator[pa.RecordBatch]:
        yield from _read_split(split, self.rows, self.files)


def batches_of_files(files: Files, rows: RowMaker) -> Iterator[pa.RecordBatch]:
    """Read all batches of files in this process, one at a time."""
    found = files.found()
    first_row = 0
    for file in found:
        counted = _count_rows((file.path, file.root, file == found[-1]), files)
        for split in _number_rows([counted]):
            yield from _read_split(split._replace(first_row=first_row + split.first_row), rows, files)
        first_row += sum(counted.rows)


def files_of(
    source: Any,
    what: str,
    access: Access = DEFAULT_ACCESS,
    csv: CsvFormat = COMMAS,
    layer: str | None = None,
) -> Files | None:
    """The files of a source; None for a source in memory."""
    paths = _paths_of(source, what)
    return None if paths is None else Files.of(paths, access, csv, layer)


def _paths_of(source: Any, what: str) -> list[str] | None:
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        return None if path.lstrip().startswith("{") else [path]
    if isinstance(source, list | tuple) and all(isinstance(path, str | os.PathLike) for path in source):
        paths = [os.fspath(path) for path in source]
        if not paths:
            raise InputError(f"source is an empty list; give the files to read {what} from")
        return None if paths[0].lstrip().startswith("{") else paths
    return None


def shown(source: Any) -> str:
    """A source in a repr: paths without secrets of URLs, or the type."""
    given = [source] if isinstance(source, str | os.PathLike) else source
    if isinstance(given, list | tuple) and all(isinstance(path, str | os.PathLike) for path in given):
        return listed([without_secrets(os.fspath(path)) for path in given], 3)
    return type(source).__name__


def numbered(batches: Iterable[pa.RecordBatch], first_row: int, rows: RowMaker) -> Iterator[pa.RecordBatch]:
    """Batches of rows, numbered from ``first_row``, without empty batches."""
    for batch in batches:
        if len(batch):
            yield rows.batch(batch, first_row)
            first_row += len(batch)


def look_at_first(files: Files) -> tuple[pa.Schema, str, FirstValue, list[str]]:
    """Schema and name of the first file, a function for its first geometry, and columns that are not in the file.

    These come from folder names (hive partitions) and are at the end of the schema. Columns of CSV are text.
    """
    path = files.first.path
    if is_vector(path):
        first: FirstValue = files.vector_file(path).first_value
    elif is_parquet(path, files.access):
        first = partial(_first_value, path, files.access)
    else:
        first = files.csv_file(path).first_value
    own = _columns_of(path, files)
    known = set(own.names)
    added = [item for item in files.partitions if item.name not in known]
    return pa.schema([*own, *added], metadata=own.metadata), path, first, [item.name for item in added]


def _columns_of(path: str, files: Files) -> pa.Schema:
    """The columns of the file itself."""
    if is_vector(path):
        return files.vector_file(path).schema()
    if is_parquet(path, files.access):
        with open_parquet(path, files.access) as file:
            return _schema_of(file, path)
    return pa.schema([(name, pa.string()) for name in files.csv_file(path).header()])


def _schema_of(file: pq.ParquetFile, path: str) -> pa.Schema:
    return with_native_geometries(file.schema_arrow, file.metadata, without_secrets(path))


def _first_value(path: str, access: Access, column: str) -> bytes | str | None:
    with open_parquet(path, access) as file:
        for batch in file.iter_batches(batch_size=1024, columns=[column]):
            value = first_value(batch.column(0))
            if value is not None:
                return value
    return None


def csv_types(
    files: Files,
    header: Sequence[str],
    kept: Sequence[str],
    own: Mapping[str, pa.DataType],
    given: Mapping[str, Any] | None,
) -> dict[str, pa.DataType]:
    """Types of the kept columns of CSV files; reads all files unless each type is known.

    Parameters
    ----------
    header : sequence of str
        Columns of the first file.
    own : {column: type}
        The columns of coordinates or geometries.
    given : {column: Arrow type or its name}, optional
        The user's types.

    Raises
    ------
    InputError
        A type is invalid or given for a missing column or one of ``own``; or a file cannot be read.
    """
    named = named_types(given or {})
    missing = [name for name in named if name not in set(header)]
    if missing:
        raise InputError(f"column_types names column(s) {listed(missing)}; the first file has {listed(header)}")
    for name, kind in named.items():
        if own.get(name, kind) != kind:
            raise InputError(
                f"column_types gives column {name!r} the type {kind}, but it contains the point or polygon and is "
                f"read as {own[name]}; omit it"
            )
    known = {name: kind for name, kind in (named | dict(own)).items() if name in own or name in set(kept)}
    undecided = [name for name in kept if name not in known]
    if undecided:
        csv = [files.csv_file(file.path) for file in files.found() if files.is_csv(file.path)]
        known |= decided_types(csv, undecided, known)
    return {name: known[name] for name in kept}


def typed_partitions(
    files: Files, given: Mapping[str, Any] | None, folders: Sequence[str]
) -> tuple[Files, dict[str, pa.DataType]]:
    """Files whose partitions have the given types, and the given types of other columns.

    Parameters
    ----------
    given : {column: Arrow type or its name}, optional
    folders : sequence of str
        Columns that come only from folder names.

    Raises
    ------
    InputError
        A type is invalid, or a folder's value does not have it.
    """
    named = named_types(given or {})
    kinds = {name: named.pop(name) for name in folders if name in named}
    if kinds:
        check_partition_types(kinds, (file.keys for file in files.found()))
        files = replace(files, partitions=with_types(files.partitions, kinds))
    return files, named


def with_types(schema: pa.Schema, types: Mapping[str, pa.DataType]) -> pa.Schema:
    """A schema with the given types of columns."""
    fields = [item.with_type(types.get(item.name, item.type)) for item in schema]
    return pa.schema(fields, metadata=schema.metadata)


def refuse_settings(
    csv: CsvFormat, column_types: Mapping[str, Any] | None, layer: str | None, name: str, form: str = ""
) -> None:
    """Refuse settings for a format that a source does not have.

    Parameters
    ----------
    name : str
        Of the source.
    form : "CSV", "vector" or ""
        Its format.

    Raises
    ------
    InputError
    """
    given = [*csv.given(), *(["column_types"] if column_types else [])] if form != "CSV" else []
    if given:
        flags = listed(f"--{each}" for each in given)
        raise InputError(f"{listed(given)} ({flags}) given, which apply to CSV files, but {name} is not CSV; omit them")
    if layer is not None and form != "vector":
        raise InputError(
            f"layer is {layer!r} (--layer), which applies to vector files, but {name} is not one "
            f"({', '.join(VECTOR_ENDINGS)}); omit it"
        )


def _find_files(source: Sequence[str], access: Access) -> Iterator[tuple[str, str | None, bool]]:
    """Files in name order, their roots, and whether each is the last one, whose length is not needed."""
    files = find_tables(source, access)
    for file in files:
        yield file.path, file.root, file == files[-1]


def _count_rows(found: tuple[str, str | None, bool], files: Files) -> _Counted:
    """Numbers of rows of a file's parts; the last CSV file counts as empty, to avoid reading it."""
    path, root, last = found
    if is_vector(path):
        return _Counted(path, root, False, files.vector_file(path).parts())
    if is_parquet(path, files.access):
        with open_parquet(path, files.access) as file:
            groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
            return _Counted(path, root, False, [group.num_rows for group in groups])
    return _Counted(path, root, True, [0 if last else files.csv_file(path).rows()])


def _number_rows(counted: list[_Counted]) -> Iterator[Split]:
    """Add the row number of the first row to each split."""
    first_row = 0
    for path, root, csv, counts in sorted(counted, key=lambda file: file.path):
        before = 0
        for number, rows in enumerate(counts):
            if rows or csv:
                yield Split(path, root, -1 if csv else number, first_row + before, rows or None, before=before)
            before += rows
        first_row += before


def _read_split(split: Split, rows: RowMaker, files: Files) -> Iterator[pa.RecordBatch]:
    if len(files.partitions):
        own = frozenset(_columns_of(split.path, files).names)
        rows = InPartition(rows, split.path, partition_keys(split.path, split.root), files.partitions, own)
    batches = _batches_of(split, rows, files)
    if split.is_cut:
        key = split.path, split.row_group, files.access, files.csv, files.layer, tuple(rows.needed)
        most = split.rows if split.rows is not None else sys.maxsize
        batches = rows_of(key, partial(_batches_of, split, rows, files), split.skip, most)
    yield from numbered(batches, split.first_row, rows)


def _batches_of(split: Split, rows: RowMaker, files: Files) -> Iterator[pa.RecordBatch]:
    """All rows of the part of a split; of a vector file, a cut part may continue to the end of the file."""
    if split.row_group < 0:
        return files.csv_file(split.path).batches(rows.csv_types(), rows.most_rows)
    if is_vector(split.path):
        return _read_vector(split, rows, files.vector_file(split.path))
    return _read_row_group(split, rows, files.access)


def _read_vector(split: Split, rows: RowMaker, file: VectorFile) -> Iterator[pa.RecordBatch]:
    rows.check(file.schema(), file.name)
    return file.batches(rows.needed, rows.most_rows, split.before, None if split.is_cut else split.rows)


def _read_row_group(split: Split, rows: RowMaker, access: Access) -> Iterator[pa.RecordBatch]:
    with open_parquet(split.path, access) as file:
        rows.check(_schema_of(file, split.path), without_secrets(split.path))
        group = file.metadata.row_group(split.row_group)
        row_bytes = max(1, group.total_byte_size // max(1, group.num_rows))
        needed = rows.needed
        most = max(1, min(rows.most_rows, max(BATCH_BYTES, COLUMN_BYTES * len(needed)) // row_bytes))
        try:
            with in_memory(f"row group {split.row_group} of {split.path}", SMALLER):
                yield from file.iter_batches(batch_size=most, row_groups=[split.row_group], columns=needed)
                # glibc keeps freed memory, some hundred MB for a wide table, that the next steps need.
                pa.default_memory_pool().release_unused()
        except RasteretBeamError:
            raise
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
    """Refuse a file that lacks a column of the first file, or has another type of a kept column or another CRS.

    Parameters
    ----------
    output : pyarrow.Schema
        Schema of the batches, with the types of the kept columns.
    geometry : str or None
        The geometry column.
    crs : str
        Of the first file.
    what, reader : str
        Names of the rows and of the transform that reads them, for errors.
    """
    kinds = {item.name: item.type for item in schema}
    missing = [name for name in needed if name not in kinds]
    if missing:
        raise InputError(
            f"{path} lacks column(s) {listed(missing)}, which the first file has; it has {listed(schema.names)}"
        )
    outputs = {item.name: item.type for item in output}
    for name in kept:
        wanted = outputs[name]
        if kept_type(kinds[name]) != wanted:
            raise InputError(
                f"column {name!r} of {path} is {kinds[name]}, but {wanted} in the first file; "
                "use one type, or leave the column out with columns=[...]"
            )
    found = data_crs(schema, geometry) if geometry is not None else None
    if found is not None and not same_crs(found, crs):
        raise InputError(
            f"column {geometry!r} of {path} is in {found}, but the {what} of the first file are in {crs}; "
            f"read each CRS with a separate {reader}"
        )
