"""Point tables to batches of points, with a row number that is the same on every run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any

import apache_beam as beam
import pyarrow as pa

import rasteret_beam.transforms.coders  # noqa: F401  (registers the coders)
from rasteret_beam.collection.inputs import BATCH_ROWS, point_stream
from rasteret_beam.errors import InputError
from rasteret_beam.kernels.points import PointColumns, choose_columns, is_number, point_batch
from rasteret_beam.model import AS_GIVEN, Access
from rasteret_beam.transforms.bigquery_source import BigQueryQuery, BigQuerySource, BigQueryTable, Extract, look_at
from rasteret_beam.transforms.files import is_parquet
from rasteret_beam.transforms.read_bigquery import batches_of_extract, read_extract
from rasteret_beam.transforms.read_tables import (
    Files,
    batches_of_files,
    check_alike,
    files_of,
    look_at_first,
    numbered,
    read_files,
)


@dataclass(frozen=True)
class _PointRows:
    """How rows of a file become points; see :class:`rasteret_beam.transforms.row_makers.RowMaker`."""

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
        kept = {name: self.chosen.schema.field(name).type for name in self.chosen.kept}
        return kept | {name: pa.float64() for name in (self.chosen.x, self.chosen.y) if name is not None}

    def batch(self, batch: pa.RecordBatch, first_row: int) -> pa.RecordBatch:
        return point_batch(batch, first_row, self.chosen)


@dataclass(eq=False)
class ReadPoints(beam.PTransform):
    """Read a table of points into batches of points.

    Parameters
    ----------
    source : str, list of str, BigQueryTable, BigQueryQuery, or points in memory
        Files, folders or globs of Parquet, GeoParquet or CSV, local, in a bucket or of URLs; a
        :class:`BigQueryTable` or :class:`BigQueryQuery`; or
        what :func:`rasteret_beam.collection.inputs.point_stream` takes (Arrow, Polars, DuckDB,
        pandas, GeoPandas, Shapely, ...). The latter is drawn once, when the pipeline is built,
        and travels inside it: write larger ones to Parquet.
    x_column, y_column : str, optional
        Coordinate columns: longitude or easting, latitude or northing.
    geometry_column : str, optional
        Points as WKB, GeoArrow or BigQuery's GEOGRAPHY, in place of coordinate columns. Without
        any of the three, the one column (pair) known as a point is taken; see
        :func:`rasteret_beam.kernels.points.choose_columns`.
    geometry_crs : optional
        CRS of the points, as pyproj reads it; needed unless the geometry column carries its own,
        as a GEOGRAPHY does.
    columns : sequence of str, optional
        Columns to keep; by default all, those of the coordinates too, but for the geometry and
        coordinates named as a sample column. Only needed columns are read.
    access : Access
        How the bucket of files is read: without credentials, say.

    Yields
    ------
    RecordBatch
        Columns ``point_index`` (int64, row number over all files in name order), ``point_x``,
        ``point_y`` (float64, in the points' CRS), then the kept columns; the CRS is in the
        schema's metadata. A Parquet file is split by row group; a CSV file is read by one worker;
        BigQuery by the streams of one session, which is a snapshot. What ``point_index`` is
        there, :class:`BigQueryTable` says.

    Raises
    ------
    MissingInputError, InputError
        When applied: no such file, table, column or CRS; see
        :func:`rasteret_beam.kernels.points.choose_columns`. While running: a file whose
        columns differ from those of the first; BigQuery does not give its rows.
    """

    source: Any
    _: KW_ONLY
    x_column: str | None = None
    y_column: str | None = None
    geometry_column: str | None = None
    geometry_crs: Any = None
    columns: Sequence[str] | None = None
    access: Access = AS_GIVEN
    _found: tuple[PointColumns, list[pa.RecordBatch] | Extract | Files] | None = field(
        default=None, init=False, repr=False
    )

    def files(self) -> list[str]:
        """The files that are read; none where the rows come from elsewhere."""
        found = self._read()[1]
        return [file.path for file in found.found()] if isinstance(found, Files) else []

    def point_columns(self) -> PointColumns:
        """The columns that are read, and the schema of the batches; looks at the first file only."""
        return self._read()[0]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """All batches, read here and now, one at a time."""
        chosen, found = self._read()
        if isinstance(found, list):
            return iter(found)
        if isinstance(found, Extract):
            return batches_of_extract(found, _PointRows(chosen))
        assert isinstance(found, Files)
        return batches_of_files(found, _PointRows(chosen))

    def _read(self) -> tuple[PointColumns, list[pa.RecordBatch] | Extract | Files]:
        """The chosen columns, and the points in memory, the table that was looked at, or the files.

        Points are drawn once, as some sources give them only once; a query has one name, and so runs once.
        """
        if self._found is None and isinstance(self.source, BigQueryTable | BigQueryQuery):
            self._found = self._look_at(self.source)
        if self._found is None:
            files = files_of(self.source, "points", self.access)
            if files is not None:
                schema, name, first_srid_of, folders = look_at_first(files)
                chosen = self._choose(schema, name, first_srid_of, folders=folders)
                self._found = chosen if is_parquet(name, self.access) else _of_csv(chosen), files
            else:
                stream = point_stream(self.source)
                chosen = self._choose(stream.schema, "the point table", stream.first_srid)
                self._found = chosen, list(numbered(stream, 0, _PointRows(chosen)))
        return self._found

    def _look_at(self, source: BigQuerySource) -> tuple[PointColumns, Extract]:
        extract = look_at(source)
        chosen = self._choose(extract.schema, extract.what, None, source.index_column)
        extract.check(chosen.needed)
        return chosen, extract

    def _choose(
        self,
        schema: pa.Schema,
        name: str,
        first_srid_of: Callable[[str], int | None] | None,
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
            index_column=index_column,
            source=name,
            first_srid=first_srid_of,
            folder_columns=folders,
        )

    def expand(self, pipeline: Any) -> beam.PCollection[pa.RecordBatch]:
        chosen, found = self._read()
        if isinstance(found, list):
            return pipeline | beam.Create(found).with_output_types(pa.RecordBatch)
        if isinstance(found, Extract):
            return read_extract(pipeline, found, _PointRows(chosen))
        assert isinstance(found, Files)
        return read_files(pipeline, found, _PointRows(chosen))


def _of_csv(chosen: PointColumns) -> PointColumns:
    """With coordinates that are float64 where they are kept too: the first rows may hold whole numbers only."""
    fields = [item.with_type(pa.float64()) if item.name in (chosen.x, chosen.y) else item for item in chosen.schema]
    return replace(chosen, schema=pa.schema(fields, metadata=chosen.schema.metadata))
