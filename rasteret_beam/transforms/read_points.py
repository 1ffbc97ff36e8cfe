"""Point tables to batches of points, with a row number that is the same on every run."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import apache_beam as beam
import pyarrow as pa
import pyarrow.csv as pv

import rasteret_beam.transforms.coders  # noqa: F401  (registers the coders)
from rasteret_beam.errors import InputError, listed, one_line
from rasteret_beam.kernels.points import PointColumns, choose_columns, is_number, point_batch
from rasteret_beam.transforms.files import find_files, is_parquet, open_file, open_parquet

BATCH_ROWS = 131_072
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
    source : str, list of str, or Arrow Table
        Files, folders or globs of Parquet, GeoParquet or CSV on any of Beam's filesystems, or a
        table in memory (which travels inside the pipeline, so a small one).
    x_column, y_column : str, optional
        Coordinate columns: longitude or easting, latitude or northing.
    geometry_column : str, optional
        Points as WKB or GeoArrow, in place of coordinate columns. Without any of the three,
        the one column (pair) known as a point is taken.
    geometry_crs : optional
        CRS of the points, as pyproj reads it; needed unless the geometry column carries its own.
    columns : sequence of str, optional
        Columns to keep; by default all but the point's own. Only needed columns are read.

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

    def point_columns(self) -> PointColumns:
        """The columns that are read, and the schema of the batches; looks at the first file only."""
        return self._choose(*_first_schema(self.source))

    def _choose(self, schema: pa.Schema, name: str) -> PointColumns:
        return choose_columns(
            schema,
            x_column=self.x_column,
            y_column=self.y_column,
            geometry_column=self.geometry_column,
            geometry_crs=self.geometry_crs,
            columns=self.columns,
            source=name,
        )

    def expand(self, pipeline: Any) -> beam.PCollection[pa.RecordBatch]:
        chosen = self.point_columns()
        if isinstance(self.source, pa.Table):
            batches = list(_batches_of_table(self.source, chosen))
            return pipeline | beam.Create(batches).with_output_types(pa.RecordBatch)
        return (
            pipeline
            | "Source" >> beam.Create([self.source])
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
    chosen = reading.point_columns()
    if isinstance(reading.source, pa.Table):
        return next(_batches_of_table(reading.source, chosen), None)
    for path in find_files(reading.source):
        for split in _number_rows([_count_rows(path, last=True)]):
            for batch in _read_split(split, chosen):
                return batch
    return None


def _batches_of_table(table: pa.Table, chosen: PointColumns) -> Iterator[pa.RecordBatch]:
    first_row = 0
    for batch in table.select(chosen.needed).to_batches(max_chunksize=BATCH_ROWS):
        if len(batch):
            yield point_batch(batch, first_row, chosen)
            first_row += len(batch)


def _first_schema(source: Any) -> tuple[pa.Schema, str]:
    if isinstance(source, pa.Table):
        return source.schema, "the point table"
    path = find_files(source)[0]
    if is_parquet(path):
        with open_parquet(path) as file:
            return file.schema_arrow, path
    with _open_csv(path) as reader:
        return reader.schema, path


def _find_files(source: str | Sequence[str]) -> Iterator[tuple[str, bool]]:
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
    first_row = split.first_row
    for batch in batches:
        if len(batch):
            yield point_batch(batch, first_row, chosen)
            first_row += len(batch)


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
        if schema.field(name).type != wanted:
            raise InputError(
                f"column {name!r} of {path} is {schema.field(name).type}, but {wanted} in the first file; "
                "make them alike, or leave the column out with columns=[...]"
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
    geometry = {chosen.geometry: pa.binary()} if chosen.geometry is not None else {}
    try:
        with _open_csv(path, kept | coordinates | geometry) as reader:
            yield from reader
    except pa.ArrowInvalid as error:
        raise InputError(
            f"{path} cannot be read as CSV: {error}. Column types are those of the first rows of the first file."
        ) from error
