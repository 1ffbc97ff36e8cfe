"""Read point tables as batches of points with stable row numbers."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import apache_beam as beam
import pyarrow as pa

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam.collection.eager.inputs import BATCH_ROWS, point_stream
from rasteret_beam.collection.eager.memory_estimate import TableSize
from rasteret_beam.errors import InputError, without_secrets
from rasteret_beam.kernels.tables.point_columns import (
    PointColumns,
    choose_columns,
    coordinate_names,
    is_number,
    point_batch,
)
from rasteret_beam.kernels.tables.point_geometry import FirstValue
from rasteret_beam.model import DEFAULT_ACCESS, Access
from rasteret_beam.transforms.rows.known import with_schema
from rasteret_beam.transforms.sources.bigquery import BigQueryQuery, BigQuerySource, BigQueryTable, Extract, look_at
from rasteret_beam.transforms.sources.bigquery_rows import batches_of_extract, read_extract
from rasteret_beam.transforms.sources.csv_format import CsvFormat
from rasteret_beam.transforms.sources.geojson_files import is_geojson, read_geojson
from rasteret_beam.transforms.sources.slices import BatchSlices, FileSlices, Slices
from rasteret_beam.transforms.sources.table_files import (
    BATCH_BYTES,
    Files,
    batches_of_files,
    check_alike,
    csv_types,
    files_of,
    look_at_first,
    numbered,
    read_files,
    refuse_settings,
    shown,
    typed_partitions,
    with_types,
)
from rasteret_beam.transforms.sources.table_sizes import size_of_batches, size_of_files
from rasteret_beam.transforms.sources.vector_files import is_vector


@dataclass(frozen=True)
class _PointRows:
    """Turns rows of a file into points; see :class:`rasteret_beam.transforms.sources.row_makers.RowMaker`."""

    chosen: PointColumns
    most_rows: int = BATCH_ROWS

    @property
    def needed(self) -> list[str]:
        return self.chosen.needed

    def check(self, schema: pa.Schema, path: str) -> None:
        chosen = self.chosen
        check_alike(
            schema, path, chosen.needed, chosen.kept, chosen.schema, chosen.geometry, chosen.crs, "points", "ReadPoints"
        )
        for name in (chosen.x, chosen.y):
            if name is not None and not is_number(schema.field(name).type):
                raise InputError(f"column {name!r} of {path} is {schema.field(name).type}; coordinates must be numbers")

    def csv_types(self) -> dict[str, pa.DataType]:
        kinds = {item.name: item.type for item in self.chosen.schema}
        return {name: kinds[name] for name in self.chosen.kept} | _point_types(self.chosen)

    def batch(self, batch: pa.RecordBatch, first_row: int) -> pa.RecordBatch:
        return point_batch(batch, first_row, self.chosen)


@dataclass(eq=False)
class ReadPoints(beam.PTransform):
    """Read a table of points into batches of points.

    Parameters
    ----------
    source : str, list of str, BigQueryTable, BigQueryQuery, or points in memory
        Files, folders or globs of Parquet, GeoParquet, CSV, GeoJSON (``.geojson``, ``.geojsonl`` with one feature per
        line; outside folders also ``.json``, ``.ndjson``), GeoPackage, FlatGeobuf or shapefiles (``.gpkg``, ``.fgb``,
        ``.shp``, also in a ``.zip``), local, in a bucket or by URL; a :class:`BigQueryTable` or
        :class:`BigQueryQuery`; or an input of :func:`rasteret_beam.collection.eager.inputs.point_stream` (Arrow,
        Polars, DuckDB, pandas, GeoPandas, Shapely, ...). Points in memory and GeoJSON files are read when the pipeline
        is built and become part of it; write large ones to Parquet.
    x_column, y_column : str, optional
        Coordinate columns: x is longitude or easting, y is latitude or northing.
    geometry_column : str, optional
        Column of points as WKB, WKT, GeoArrow or BigQuery GEOGRAPHY, instead of coordinate columns. If none of the
        three is given, the only column (or pair) that is recognized as points is used; see
        :func:`rasteret_beam.kernels.tables.point_columns.choose_columns`.
    geometry_crs : optional
        CRS of the points, in any form that pyproj accepts; required unless the geometry column has a CRS, as GEOGRAPHY
        has.
    columns : sequence of str, optional
        Columns to keep; by default all, including the coordinates, except the geometry and coordinates with the name of
        a sample column. Only needed columns are read.
    time_column : str, optional
        Column of the points' times, which ``SamplePoints(time_column=...)`` needs: it is kept too, and checked before
        anything is read. In CSV it is text, unless it has a type in ``column_types``.
    access : Access
        Access to the bucket of the files, for example without credentials.
    column_types : {column: Arrow type or its name}, optional
        Types of kept columns of CSV files, such as ``{"plot": "string", "count": "int64"}``. A column without a type is
        text unless all of its values in all files are unquoted numbers in plain form (``7``, but not ``007`` or
        ``1E5``). To infer this, the files are read once when the transform is applied or its columns are needed, unless
        each kept column has a type here.
    csv_delimiter, csv_decimal, csv_encoding : str
        Format of CSV files: by default commas (tabs in ``.tsv`` files), decimal points and UTF-8. An empty unquoted
        field is null.
    layer : str, optional
        Layer of GeoPackages and other vector files; by default the only one with geometries.

    Yields
    ------
    RecordBatch
        Columns ``point_index`` (int64, row number over all files in name order), ``point_x``, ``point_y`` (float64, in
        the points' CRS), then the kept columns; the CRS is in the schema's metadata. A Parquet file is split by row
        group, a GeoPackage or shapefile by ranges of rows. A CSV or FlatGeobuf file is read by one worker. BigQuery is
        split by the streams of one session, which is a snapshot; :class:`BigQueryTable` describes its ``point_index``.

    Raises
    ------
    MissingInputError, InputError
        When applied: a file, table, column or CRS does not exist; see
        :func:`rasteret_beam.kernels.tables.point_columns.choose_columns`. While running: a file has other columns than
        the first; BigQuery cannot be read.
    """

    source: Any
    _: KW_ONLY
    x_column: str | None = None
    y_column: str | None = None
    geometry_column: str | None = None
    geometry_crs: Any = None
    columns: Sequence[str] | None = None
    time_column: str | None = None
    access: Access = DEFAULT_ACCESS
    column_types: Mapping[str, Any] | None = None
    csv_delimiter: str | None = None
    csv_decimal: str = "."
    csv_encoding: str = "utf-8"
    layer: str | None = None
    _found: tuple[PointColumns, list[pa.RecordBatch] | Extract | Files] | None = field(
        default=None, init=False, repr=False
    )

    def __repr__(self) -> str:
        return f"ReadPoints({shown(self.source)})"

    def files(self) -> list[str]:
        """The files to read; empty for other sources."""
        found = self._read()[1]
        return [file.path for file in found.found()] if isinstance(found, Files) else []

    def point_columns(self) -> PointColumns:
        """The columns to read and the schema of the batches, from the first file."""
        return self._read()[0]

    def size(self) -> TableSize:
        """The size of the table as far as it is known before reading; unknown for BigQuery."""
        chosen, found = self._read()
        if isinstance(found, list):
            return size_of_batches(found)
        return size_of_files(found, chosen.needed) if isinstance(found, Files) else TableSize(None, 0, BATCH_BYTES)

    def slices(self) -> Slices | None:
        """The points by ranges of ``point_index``; None for BigQuery, whose rows have no order between two reads."""
        chosen, found = self._read()
        if isinstance(found, list):
            return BatchSlices(found)
        return FileSlices(found, _PointRows(chosen)) if isinstance(found, Files) else None

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Read all batches in this process, one at a time."""
        chosen, found = self._read()
        if isinstance(found, list):
            return iter(found)
        if isinstance(found, Extract):
            return batches_of_extract(found, _PointRows(chosen))
        assert isinstance(found, Files)
        return batches_of_files(found, _PointRows(chosen))

    def _read(self) -> tuple[PointColumns, list[pa.RecordBatch] | Extract | Files]:
        """The chosen columns, and the points in memory, the inspected table, or the files.

        Points are read once, as some sources cannot be read again; a query has one job name, so it runs once.
        """
        if self._found is None and isinstance(self.source, BigQueryTable | BigQueryQuery):
            self._found = self._look_at(self.source)
        if self._found is None:
            files = files_of(self.source, "points", self.access, self._csv, self.layer)
            if files is None:
                self._found = self._draw(self.source, "the point table")
            elif is_geojson(files):
                self._found = self._draw_geojson(files)
            else:
                self._found = self._look_at_files(files)
        return self._found

    def _draw_geojson(self, files: Files) -> tuple[PointColumns, list[pa.RecordBatch]]:
        name = without_secrets(files.first.path)
        texts = read_geojson(files)
        try:
            return self._draw(texts, name)
        except InputError as error:
            raise error if name in str(error) else InputError(f"{name}: {error}") from error

    @property
    def _csv(self) -> CsvFormat:
        return CsvFormat(self.csv_delimiter, self.csv_decimal, self.csv_encoding)

    def _draw(self, given: Any, name: str) -> tuple[PointColumns, list[pa.RecordBatch]]:
        refuse_settings(self._csv, self.column_types, self.layer, name)
        stream = point_stream(given)
        chosen = self._choose(stream.schema, name, stream.first_value)
        return chosen, list(numbered(stream, 0, _PointRows(chosen)))

    def _look_at_files(self, files: Files) -> tuple[PointColumns, Files]:
        schema, name, first_value, folders = look_at_first(files)
        if not files.is_csv(name):
            form = "vector" if is_vector(name) else ""
            refuse_settings(files.csv, self.column_types, self.layer, without_secrets(name), form)
            return self._choose(schema, name, first_value, folders=folders), files
        refuse_settings(files.csv, self.column_types, self.layer, without_secrets(name), "CSV")
        header = schema.names[: len(schema) - len(folders)]
        coordinates = coordinate_names(header) if self.x_column is None else {self.x_column, self.y_column}
        could_be = [item.with_type(pa.float64()) if item.name in coordinates else item for item in schema]
        chosen = self._choose(pa.schema(could_be), name, first_value, folders=folders)
        kept = [name for name in chosen.kept if name not in folders]
        files, given = typed_partitions(files, self.column_types, folders)
        if self.time_column in kept:
            given = {self.time_column: pa.string()} | given
        types = csv_types(files, header, kept, _point_types(chosen), given) | {
            name: files.partitions.field(name).type for name in folders
        }
        return replace(chosen, schema=with_types(chosen.schema, types)), files

    def _look_at(self, source: BigQuerySource) -> tuple[PointColumns, Extract]:
        refuse_settings(self._csv, self.column_types, self.layer, "BigQuery")
        extract = look_at(source)
        chosen = self._choose(extract.schema, extract.what, None, source.index_column)
        extract.check(chosen.needed)
        return chosen, extract

    def _choose(
        self,
        schema: pa.Schema,
        name: str,
        first_value: FirstValue | None,
        index_column: str | None = None,
        folders: Sequence[str] = (),
    ) -> PointColumns:
        return choose_columns(
            schema,
            x_column=self.x_column,
            y_column=self.y_column,
            geometry_column=self.geometry_column,
            geometry_crs=self.geometry_crs,
            columns=self.columns,
            time_column=self.time_column,
            index_column=index_column,
            source=name,
            first_value=first_value,
            folder_columns=folders,
        )

    def expand(self, pipeline: Any) -> beam.PCollection[pa.RecordBatch]:
        chosen, found = self._read()
        if isinstance(found, list):
            points = pipeline | beam.Create(found).with_output_types(pa.RecordBatch)
        elif isinstance(found, Extract):
            points = read_extract(pipeline, found, _PointRows(chosen))
        else:
            points = read_files(pipeline, found, _PointRows(chosen))
        return with_schema(points, chosen.schema)


def _point_types(chosen: PointColumns) -> dict[str, pa.DataType]:
    """Types of the columns of a CSV file that contain the point."""
    numbers = {name: pa.float64() for name in (chosen.x, chosen.y) if name is not None}
    return numbers | ({chosen.geometry: pa.string()} if chosen.geometry is not None else {})
