"""Read polygon tables as batches of polygons with stable row numbers."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import apache_beam as beam
import pyarrow as pa

import rasteret_beam.transforms.runtime.coders  # noqa: F401  (registers the coders)
from rasteret_beam.collection.eager.inputs import default_polygon_crs, polygon_stream
from rasteret_beam.errors import InputError, without_secrets
from rasteret_beam.kernels.tables.point_geometry import FirstValue, edges
from rasteret_beam.kernels.tables.polygon_columns import (
    PolygonColumns,
    check_polygon_type,
    choose_polygon_columns,
    polygon_batch,
)
from rasteret_beam.model import DEFAULT_ACCESS, Access
from rasteret_beam.transforms.rows.known import with_schema
from rasteret_beam.transforms.sources.csv_format import CsvFormat
from rasteret_beam.transforms.sources.geojson_files import is_geojson, read_geojson
from rasteret_beam.transforms.sources.table_files import (
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
from rasteret_beam.transforms.sources.vector_files import is_vector

log = logging.getLogger(__name__)

BATCH_ROWS = 4096
"""Small, as a polygon costs about a thousand times as much as a point."""


@dataclass(frozen=True)
class _PolygonRows:
    """Turns rows of a file into polygons; see :class:`rasteret_beam.transforms.sources.row_makers.RowMaker`."""

    chosen: PolygonColumns
    most_rows: int = BATCH_ROWS

    @property
    def needed(self) -> list[str]:
        return self.chosen.needed

    def check(self, schema: pa.Schema, path: str) -> None:
        chosen = self.chosen
        check_alike(
            schema,
            path,
            chosen.needed,
            chosen.kept,
            chosen.schema,
            chosen.geometry,
            chosen.crs,
            "polygons",
            "ReadPolygons",
        )
        check_polygon_type(schema.field(chosen.geometry), path)

    def csv_types(self) -> dict[str, pa.DataType]:
        kinds = {item.name: item.type for item in self.chosen.schema}
        return {name: kinds[name] for name in self.chosen.kept} | {self.chosen.geometry: pa.string()}

    def batch(self, batch: pa.RecordBatch, first_row: int) -> pa.RecordBatch:
        return polygon_batch(batch, first_row, self.chosen)


@dataclass(eq=False)
class ReadPolygons(beam.PTransform):
    """Read a table of polygons into batches of polygons.

    Parameters
    ----------
    source : str, list of str, or polygons in memory
        Files, folders or globs of Parquet, GeoParquet, CSV with WKT, GeoJSON or vector files as in
        :class:`rasteret_beam.ReadPoints`, local, in a bucket or by URL; or an input of
        :func:`rasteret_beam.collection.eager.inputs.polygon_stream` (Arrow, Polars, DuckDB, pandas, GeoPandas, Shapely,
        boxes, ...). Polygons in memory and GeoJSON files are read when the pipeline is built and become part of it;
        write large ones to Parquet.
    geometry_column : str, optional
        Column of polygons and multipolygons as WKB, GeoArrow or WKT; by default the only column that is declared as a
        geometry or named geometry, geom or wkb_geometry.
    geometry_crs : optional
        CRS of the polygons, in any form that pyproj accepts. Tables need it unless they have a CRS; other geometries
        are in longitude and latitude (CRS84) by default.
    columns : sequence of str, optional
        Columns to keep; by default all but the geometry. Only needed columns are read.
    time_column : str, optional
        Column of the polygons' times, which ``time_column`` of :class:`ReadChips` and :class:`ZonalStatistics` needs:
        it is kept too, and checked before anything is read. In CSV files it is read as text.
    access : Access
        Access to the bucket of the files, for example without credentials.
    column_types, csv_delimiter, csv_decimal, csv_encoding
        For CSV files, as in :class:`rasteret_beam.ReadPoints`.
    layer : str, optional
        Layer of vector files, as in :class:`rasteret_beam.ReadPoints`.

    Yields
    ------
    RecordBatch
        Columns ``geometry_id`` (int64, row number over all files in name order), ``geometry`` (WKB in the polygons'
        CRS, or null), then the kept columns; the CRS is in the schema's metadata. A Parquet file is split by row
        group, a GeoPackage or shapefile by ranges of rows. :class:`ReadChips` and :class:`ZonalStatistics` check that
        geometries are valid polygons.

    Raises
    ------
    MissingInputError, InputError
        When applied: a file, column or CRS does not exist; see
        :func:`rasteret_beam.kernels.tables.polygon_columns.choose_polygon_columns`. While running: a file has other
        columns than the first.
    """

    source: Any
    _: KW_ONLY
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
    _found: tuple[PolygonColumns, list[pa.RecordBatch] | Files] | None = field(default=None, init=False, repr=False)

    def __repr__(self) -> str:
        return f"ReadPolygons({shown(self.source)})"

    def files(self) -> list[str]:
        """The files to read; empty for other sources."""
        found = self._read()[1]
        return [file.path for file in found.found()] if isinstance(found, Files) else []

    def polygon_columns(self) -> PolygonColumns:
        """The columns to read and the schema of the batches, from the first file."""
        return self._read()[0]

    def first_batch(self) -> pa.RecordBatch | None:
        """Read the first batch in this process; None if there are no rows."""
        chosen, found = self._read()
        if isinstance(found, Files):
            return next(batches_of_files(found, _PolygonRows(chosen)), None)
        return found[0] if found else None

    def _read(self) -> tuple[PolygonColumns, list[pa.RecordBatch] | Files]:
        """The chosen columns, and the files or the polygons in memory, which some sources give only once."""
        if self._found is None:
            files = files_of(self.source, "polygons", self.access, self._csv, self.layer)
            if files is None:
                self._found = self._draw(self.source, "the polygon table")
            elif is_geojson(files):
                self._found = self._draw_geojson(files)
            else:
                self._found = self._look_at_files(files)
        return self._found

    def _draw_geojson(self, files: Files) -> tuple[PolygonColumns, list[pa.RecordBatch]]:
        name = without_secrets(files.first.path)
        texts = read_geojson(files)
        try:
            return self._draw(texts, name)
        except InputError as error:
            raise error if name in str(error) else InputError(f"{name}: {error}") from error

    @property
    def _csv(self) -> CsvFormat:
        return CsvFormat(self.csv_delimiter, self.csv_decimal, self.csv_encoding)

    def _look_at_files(self, files: Files) -> tuple[PolygonColumns, Files]:
        schema, name, first_value, folders = look_at_first(files)
        chosen = self._choose(schema, name, first_value, folders=folders)
        if not files.is_csv(name):
            form = "vector" if is_vector(name) else ""
            refuse_settings(files.csv, self.column_types, self.layer, without_secrets(name), form)
            return chosen, files
        refuse_settings(files.csv, self.column_types, self.layer, without_secrets(name), "CSV")
        header = schema.names[: len(schema) - len(folders)]
        kept = [name for name in chosen.kept if name not in folders]
        files, given = typed_partitions(files, self.column_types, folders)
        if self.time_column in kept:
            given = {self.time_column: pa.string()} | given
        types = csv_types(files, header, kept, {chosen.geometry: pa.string()}, given) | {
            name: files.partitions.field(name).type for name in folders
        }
        return replace(chosen, schema=with_types(chosen.schema, types)), files

    def _draw(self, given: Any, name: str) -> tuple[PolygonColumns, list[pa.RecordBatch]]:
        refuse_settings(self._csv, self.column_types, self.layer, name)
        stream, is_table = polygon_stream(given, self.geometry_crs)
        crs = default_polygon_crs(stream, is_table, self.geometry_crs)
        chosen = self._choose(stream.schema, name, stream.first_value, crs)
        small = (batch.slice(at, BATCH_ROWS) for batch in stream for at in range(0, len(batch), BATCH_ROWS))
        return chosen, list(numbered(small, 0, _PolygonRows(chosen)))

    def _choose(
        self, schema: pa.Schema, name: str, first_value: FirstValue, crs: Any = None, folders: Sequence[str] = ()
    ) -> PolygonColumns:
        chosen = choose_polygon_columns(
            schema,
            geometry_column=self.geometry_column,
            geometry_crs=self.geometry_crs if crs is None else crs,
            columns=self.columns,
            time_column=self.time_column,
            source=name,
            first_value=first_value,
            folder_columns=folders,
        )
        how = edges(schema, chosen.geometry)
        if how != "planar":
            log.warning(
                "column %r of %s has %s edges, which follow the Earth; they are treated as straight lines in %s",
                chosen.geometry,
                name,
                how,
                chosen.crs,
            )
        return chosen

    def expand(self, pipeline: Any) -> beam.PCollection[pa.RecordBatch]:
        chosen, found = self._read()
        if isinstance(found, Files):
            polygons = read_files(pipeline, found, _PolygonRows(chosen))
        else:
            polygons = pipeline | beam.Create(found).with_output_types(pa.RecordBatch)
        return with_schema(polygons, chosen.schema)
