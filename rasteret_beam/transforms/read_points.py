"""Point tables to batches of points, with a row number that is the same on every run."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.csv as pv

import rasteret_beam.transforms.coders  # noqa: F401  (registers the coders)
from rasteret_beam.collection.inputs import BATCH_ROWS, point_stream
from rasteret_beam.errors import InputError, listed, one_line
from rasteret_beam.kernels.crs import same_crs
from rasteret_beam.kernels.geometry import data_crs, first_srid
from rasteret_beam.kernels.points import PointColumns, choose_columns, is_number, kept_type, point_batch
from rasteret_beam.transforms.files import find_files, is_parquet, open_file, open_parquet

BATCH_BYTES = 16 << 20
CSV_BLOCK_BYTES = 4 << 20


class _Counted(NamedTuple):
    """A file and the rows of its parts: row groups, or the whole of a CSV file."""

    path: str
    csv: bool
    rows: list[int]


class _Split(NamedTuple):
    """A part of a file that one worker reads: a row group, or a whole CSV file (-1)."""

    path: str
    row_group: int
    first_row: int


@dataclass(eq=False)
class ReadPoints(beam.PTransform):
    """Read a table of points into batches of points.

    Parameters
    ----------
    source : str, list of str, or points in memory
        Files, folders or globs of Parquet, GeoParquet or CSV on any of Beam's filesystems; or
        what :func:`rasteret_beam.collection.inputs.point_stream` takes (Arrow, Polars, DuckDB,
        pandas, GeoPandas, Shapely, ...). The latter is drawn once, when the pipeline is built,
        and travels inside it: write larger ones to Parquet.
    x_column, y_column : str, optional
        Coordinate columns: longitude or easting, latitude or northing.
    geometry_column : str, optional
        Points as WKB or GeoArrow, in place of coordinate columns. Without any of the three,
        the one column (pair) known as a point is taken; see
        :func:`rasteret_beam.kernels.points.choose_columns`.
    geometry_crs : optional
        CRS of the points, as pyproj reads it; needed unless the geometry column carries its own.
    columns : sequence of str, optional
        Columns to keep; by default all but the geometry. Only needed columns are read.

    Yields
    ------
    RecordBatch
        Columns ``point_index`` (int64, row number over all files in name order), ``point_x``,
        ``point_y`` (float64, in the points' CRS), then the kept columns; the CRS is in the
        schema's metadata. A Parquet file is split by row group; a CSV file is read by one worker.

    Raises
    ------
    MissingInputError, InputError
        When applied: no such file, column or CRS; see
        :func:`rasteret_beam.kernels.points.choose_columns`. While running: a file whose
        columns differ from those of the first.
    """

    source: Any
    _: KW_ONLY
    x_column: str | None = None
    y_column: str | None = None
    geometry_column: str | None = None
    geometry_crs: Any = None
    columns: Sequence[str] | None = None
    _found: tuple[PointColumns, list[pa.RecordBatch] | None] | None = field(default=None, init=False, repr=False)

    def point_columns(self) -> PointColumns:
        """The columns that are read, and the schema of the batches; looks at the first file only."""
        return self._read()[0]

    def batches(self) -> list[pa.RecordBatch] | None:
        """The points that are in memory; None where the source is files."""
        return self._read()[1]

    def _read(self) -> tuple[PointColumns, list[pa.RecordBatch] | None]:
        """The chosen columns, and the points in memory; those are drawn once, as some sources give them only once."""
        if self._found is None:
            paths = _paths(self.source)
            if paths is not None:
                self._found = self._choose(*_look_at_first(paths)), None
            else:
                stream = point_stream(self.source)
                chosen = self._choose(stream.schema, "the point table", stream.first_srid)
                self._found = chosen, list(_numbered(stream, 0, chosen))
        return self._found

    def _choose(self, schema: pa.Schema, name: str, first_srid_of: Callable[[str], int | None]) -> PointColumns:
        return choose_columns(
            schema,
            x_column=self.x_column,
            y_column=self.y_column,
            geometry_column=self.geometry_column,
            geometry_crs=self.geometry_crs,
            columns=self.columns,
            source=name,
            first_srid=first_srid_of,
        )

    def expand(self, pipeline: Any) -> beam.PCollection[pa.RecordBatch]:
        chosen, batches = self._read()
        if batches is not None:
            return pipeline | beam.Create(batches).with_output_types(pa.RecordBatch)
        return (
            pipeline
            | "Source" >> beam.Create([_paths(self.source)])
            | "FindFiles" >> beam.FlatMap(_find_files)
            | "SpreadFiles" >> beam.Reshuffle()
            | "CountRows" >> beam.MapTuple(_count_rows)
            | "Collect" >> beam.combiners.ToList()
            | "NumberRows" >> beam.FlatMap(_number_rows)
            | "SpreadSplits" >> beam.Reshuffle()
            | "Read" >> beam.FlatMap(_read_split, chosen).with_output_types(pa.RecordBatch)
        )


def first_batch(reading: ReadPoints) -> pa.RecordBatch | None:
    """The first batch that a ReadPoints gives, read here and now; None without any row."""
    batches = reading.batches()
    if batches is not None:
        return batches[0] if batches else None
    chosen = reading.point_columns()
    for path in find_files(_paths(reading.source) or []):
        for split in _number_rows([_count_rows(path, last=True)]):
            for batch in _read_split(split, chosen):
                return batch
    return None


def _paths(source: Any) -> list[str] | None:
    """The paths that a source consists of; None where it is points in memory."""
    if isinstance(source, str | os.PathLike):
        path = os.fspath(source)
        return None if path.lstrip().startswith("{") else [path]
    if isinstance(source, list | tuple) and all(isinstance(path, str | os.PathLike) for path in source):
        paths = [os.fspath(path) for path in source]
        if not paths:
            raise InputError("there is no file to read points from: source is an empty list")
        return None if paths[0].lstrip().startswith("{") else paths
    return None


def _numbered(batches: Iterable[pa.RecordBatch], first_row: int, chosen: PointColumns) -> Iterator[pa.RecordBatch]:
    """Batches of points of which the first starts at a row number; empty ones are left out."""
    for batch in batches:
        if len(batch):
            yield point_batch(batch, first_row, chosen)
            first_row += len(batch)


def _look_at_first(paths: list[str]) -> tuple[pa.Schema, str, Callable[[str], int | None]]:
    """Schema and name of the first file, and what looks up the SRID of its first geometry."""
    path = find_files(paths)[0]
    if is_parquet(path):
        with open_parquet(path) as file:
            return file.schema_arrow, path, partial(_first_srid, path)
    with _open_csv(path) as reader:
        return reader.schema, path, lambda column: None


def _first_srid(path: str, column: str) -> int | None:
    with open_parquet(path) as file:
        for batch in file.iter_batches(batch_size=1024, columns=[column]):
            srid = first_srid(batch.column(0))
            if srid is not None:
                return srid
    return None


def _find_files(source: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Files in name order, and whether one is the last: nobody needs to know the length of that one."""
    paths = find_files(source)
    for path in paths:
        yield path, path == paths[-1]


def _count_rows(path: str, last: bool) -> _Counted:
    """Rows of each part of a file; a CSV file has to be read for it, so the last one counts as empty."""
    if is_parquet(path):
        with open_parquet(path) as file:
            groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
            return _Counted(path, False, [group.num_rows for group in groups])
    if last:
        return _Counted(path, True, [0])
    with _open_csv(path) as reader:
        return _Counted(path, True, [sum(len(batch) for batch in reader)])


def _number_rows(counted: list[_Counted]) -> Iterator[_Split]:
    """Splits with the row number of their first row."""
    first_row = 0
    for path, csv, counts in sorted(counted):
        for number, rows in enumerate(counts):
            if rows or csv:
                yield _Split(path, -1 if csv else number, first_row)
            first_row += rows


def _read_split(split: _Split, chosen: PointColumns) -> Iterator[pa.RecordBatch]:
    batches = _read_csv(split.path, chosen) if split.row_group < 0 else _read_row_group(split, chosen)
    yield from _numbered(batches, split.first_row, chosen)


def _read_row_group(split: _Split, chosen: PointColumns) -> Iterator[pa.RecordBatch]:
    with open_parquet(split.path) as file:
        _check_columns(file.schema_arrow, split.path, chosen)
        group = file.metadata.row_group(split.row_group)
        row_bytes = max(1, group.total_byte_size // max(1, group.num_rows))
        rows = max(1, min(BATCH_ROWS, BATCH_BYTES // row_bytes))
        try:
            yield from file.iter_batches(batch_size=rows, row_groups=[split.row_group], columns=chosen.needed)
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(
                f"row group {split.row_group} of {split.path} cannot be read: {one_line(error)}"
            ) from error


def _check_columns(schema: pa.Schema, path: str, chosen: PointColumns) -> None:
    missing = [name for name in chosen.needed if name not in schema.names]
    if missing:
        raise InputError(
            f"{path} has no column(s) {listed(missing)}, which the first file has; it has {listed(schema.names)}"
        )
    for name in (chosen.x, chosen.y):
        if name is not None and not is_number(schema.field(name).type):
            raise InputError(f"column {name!r} of {path} is {schema.field(name).type}; coordinates must be numbers")
    for name in chosen.kept:
        wanted = chosen.schema.field(name).type
        if kept_type(schema.field(name).type) != wanted:
            raise InputError(
                f"column {name!r} of {path} is {schema.field(name).type}, but {wanted} in the first file; "
                "make them alike, or leave the column out with columns=[...]"
            )
    crs = data_crs(schema, chosen.geometry) if chosen.geometry is not None else None
    if crs is not None and not same_crs(crs, chosen.crs):
        raise InputError(
            f"column {chosen.geometry!r} of {path} is in {crs}, but the points of the first file are in {chosen.crs}; "
            "read files of each CRS by a ReadPoints of its own"
        )


def _open_csv(path: str, types: dict[str, pa.DataType] | None = None) -> pv.CSVStreamingReader:
    packing = {".gz": "gzip", ".bz2": "bz2"}.get(os.path.splitext(path.lower())[1])
    file = pa.input_stream(open_file(path), compression=packing)
    parsing = pv.ParseOptions(delimiter="\t" if ".tsv" in path.lower() else ",", newlines_in_values=True)
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
        raise InputError(f"{path} cannot be read as CSV: {error}") from error


def _read_csv(path: str, chosen: PointColumns) -> Iterator[pa.RecordBatch]:
    kept = {name: chosen.schema.field(name).type for name in chosen.kept}
    coordinates = {name: pa.float64() for name in (chosen.x, chosen.y) if name is not None}
    try:
        with _open_csv(path, kept | coordinates) as reader:
            yield from reader
    except pa.ArrowInvalid as error:
        raise InputError(
            f"{path} cannot be read as CSV: {error}. Column types are those of the first rows of the first file."
        ) from error
