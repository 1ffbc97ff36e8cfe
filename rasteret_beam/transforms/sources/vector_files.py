"""Read vector files (GeoPackage, FlatGeobuf, shapefiles) as Arrow batches, with GDAL through pyogrio."""

import os
import struct
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from rasteret_beam.errors import (
    InputError,
    MissingInputError,
    RasteretBeamError,
    how_to_install,
    listed,
    one_line,
    without_secrets,
)
from rasteret_beam.kernels.tables.point_geometry import first_value
from rasteret_beam.kernels.tables.vector_columns import broken_text, curved, declared_crs, stream_column, stream_schema
from rasteret_beam.model import Access
from rasteret_beam.transforms.runtime.files import VECTOR_ENDINGS, name_of
from rasteret_beam.transforms.sources.local_copies import local_copy, side_file

ZIPPED = ".zip"
SIDE_FILES = (".shx", ".dbf", ".prj", ".cpg")
"""Files beside a .shp: index, attributes, CRS and encoding."""

PART_ROWS, MOST_PARTS = 1_000_000, 64
"""Rows of a part; there are few of them, as a GeoPackage passes over the rows before each."""

BATCH_BYTES, FEW_ROWS = 16 << 20, 4096
UNNAMED = "wkb_geometry"
"""What GDAL calls a geometry column without a name in a stream."""

WAY_OUT = "write the file again, or convert it to GeoParquet"


def is_vector(path: str) -> bool:
    """Whether a file is a vector file by its name."""
    return name_of(path).endswith((*VECTOR_ENDINGS, ZIPPED))


def side_files(path: str) -> list[str]:
    """The paths of the side files that a file may have."""
    return [side_file(path, ending) for ending in _side_endings(path)]


def _side_endings(path: str) -> Sequence[str]:
    return SIDE_FILES if name_of(path).endswith(".shp") else ()


class Layer(NamedTuple):
    """A layer of a vector file.

    Attributes
    ----------
    name : str
    schema : Schema
        Of the batches.
    geometry : str or None
        The geometry column.
    in_stream : str or None
        Its name in GDAL's stream.
    features : int
        Number of features by the file's own count, -1 if it has none.
    row_bytes : int
        Bytes of the file per feature; 0 if unknown.
    can_skip : bool
        Reading may begin at any feature without reading those before.
    """

    name: str
    schema: pa.Schema
    geometry: str | None
    in_stream: str | None
    features: int
    row_bytes: int
    can_skip: bool


class _Opened(NamedTuple):
    """pyogrio, GDAL's name of the file, and its size in bytes."""

    pyogrio: Any
    source: str
    size: int


@dataclass(frozen=True)
class VectorFile:
    """A vector file; each method opens it again, in limited memory.

    Attributes
    ----------
    path : str
        Local or remote; a remote file is copied to the local disk first.
    access : Access
    layer : str, optional
        By default the only layer with geometries, or the only layer.
    job : str
        Names the job that shares local copies.
    """

    path: str
    access: Access
    layer: str | None = None
    job: str = ""

    @property
    def name(self) -> str:
        """Name in errors."""
        return without_secrets(self.path)

    def schema(self) -> pa.Schema:
        """Columns of the layer, with the CRS in the metadata of its geometry column.

        Raises
        ------
        InputError, MissingInputError
            The file cannot be read, or has several layers.
        """
        return self._layer.schema

    def rows(self) -> int | None:
        """Number of rows by the file's own count; None if it has none."""
        return self._layer.features if self._layer.features >= 0 else None

    def parts(self) -> list[int]:
        """Rows of each part that can be read on its own."""
        layer = self._layer
        rows = layer.features
        if layer.can_skip or rows < 0:
            rows = self._count()
        # Deleted rows of a shapefile are not features, but are counted and passed over as such.
        most = max(PART_ROWS, -(-rows // MOST_PARTS)) if layer.can_skip and rows == layer.features else max(rows, 1)
        return [min(most, rows - start) for start in range(0, rows, most)]

    def first_value(self, column: str) -> bytes | str | None:
        """The first WKB or text of a column that is not null; None if there is none."""
        found = (first_value(batch.column(column)) for batch in self.batches([column], 1024))
        return next((value for value in found if value is not None), None)

    def batches(
        self, columns: Sequence[str], most_rows: int, start: int = 0, rows: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Rows in file order, with some columns of :meth:`schema`.

        Parameters
        ----------
        columns : sequence of str
        most_rows : int
            Of a batch.
        start : int
            Number of the first row.
        rows : int, optional
            Number of rows; by default all to the end.

        Raises
        ------
        InputError
            The file is damaged, ends before the last row, or has text that is not in its encoding.
        """
        layer = self._layer
        fields = [layer.schema.field(name) for name in columns]
        row = start
        for batch in self._stream(layer, columns, most_rows, start):
            batch = batch if rows is None else batch.slice(0, start + rows - row)
            arrays = [self._column(batch, layer, field, row) for field in fields]
            yield pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
            row += len(batch)
            if rows is not None and row == start + rows:
                return
        if rows is not None:
            raise InputError(
                f"{self.name} ends after {row} rows, but it has {start + rows} by its count; it is damaged or has "
                f"changed; {WAY_OUT}"
            )

    def _stream(self, layer: Layer, columns: Sequence[str], most_rows: int, start: int) -> Iterator[pa.RecordBatch]:
        """Batches of GDAL's stream.

        Geometries are always read: without them, SQLite may take rows from an index, in another order.
        """
        fields = [name for name in columns if name != layer.geometry]
        with self._reading() as (pyogrio, source, _):
            opened = pyogrio.raw.open_arrow(
                source,
                layer=layer.name,
                columns=fields,
                skip_features=start,
                batch_size=self._batch_rows(most_rows, layer),
                use_pyarrow=True,
                datetime_as_string=True,
            )
            with opened as (_, reader):
                yield from (batch for batch in reader if len(batch))

    def _batch_rows(self, most_rows: int, layer: Layer) -> int:
        """Rows of a batch of some megabytes, by the size of the file."""
        return max(1, min(most_rows, BATCH_BYTES // layer.row_bytes if layer.row_bytes else FEW_ROWS))

    def _column(self, batch: pa.RecordBatch, layer: Layer, field: pa.Field, first_row: int) -> pa.Array:
        if field.name == layer.geometry:
            return self._linear(stream_column(batch.column(layer.in_stream), field.type))
        column = batch.column(field.name)
        if pa.types.is_string(column.type):
            broken = broken_text(column)
            if broken is not None:
                shown = column.cast(pa.binary())[broken].as_py()[:40]
                stem = os.path.splitext(os.path.basename(name_of(self.path)))[0]
                raise InputError(
                    f"row {first_row + broken} of column {field.name!r} of {self.name} is not UTF-8: {shown!r}; write "
                    f"the name of its encoding, such as cp1252, into the side file {stem}.cpg"
                )
        return stream_column(column, field.type)

    def _linear(self, wkb: pa.Array) -> pa.Array:
        """WKB whose arcs are polylines, in steps of GDAL's default of 4 degrees."""
        arcs = np.flatnonzero(curved(wkb))
        if not len(arcs):
            return wkb
        pyogrio, buffer = _pyogrio(self.name), BytesIO()
        pyogrio.raw.write_arrow(
            pa.table({"geometry": wkb.take(pa.array(arcs))}),
            buffer,
            driver="FlatGeobuf",
            geometry_name="geometry",
            geometry_type="Unknown",
            crs="EPSG:4326",  # any: it is read for the coordinates alone
            SPATIAL_INDEX="NO",
        )
        values = np.array(wkb.to_pylist(), dtype=object)
        values[arcs] = pyogrio.raw.read(buffer.getvalue(), columns=[])[2]
        return pa.array(values, type=pa.binary())

    def _count(self) -> int:
        with self._reading() as (pyogrio, source, _):
            opened = pyogrio.raw.open_arrow(
                source, layer=self._layer.name, columns=[], read_geometry=False, return_fids=True, use_pyarrow=True
            )
            with opened as (_, reader):
                return sum(len(batch) for batch in reader)

    @cached_property
    def _layer(self) -> Layer:
        with self._reading() as (pyogrio, source, size):
            name = self._layer_name(pyogrio.list_layers(source).tolist())
            info = pyogrio.read_info(source, layer=name)
            opened = pyogrio.raw.open_arrow(source, layer=name, use_pyarrow=True, datetime_as_string=True)
            with opened as (meta, reader):
                stream = reader.schema
        own = meta["geometry_name"] or UNNAMED
        own = own if own in stream.names and info["geometry_type"] is not None else None
        geometry = "geometry" if own == UNNAMED and "geometry" not in stream.names else own
        crs = declared_crs(info["crs"], None if own is None else stream.field(own))
        times = {name for name, kind in zip(meta["fields"], meta["ogr_types"], strict=True) if kind == "OFTDateTime"}
        schema = stream_schema(stream, own, geometry, crs, times)
        features = int(info["features"])
        can_skip = info["capabilities"]["fast_set_next_by_index"] and not name_of(self.path).endswith(ZIPPED)
        return Layer(name, schema, geometry, own, features, size // features if features > 0 else 0, can_skip)

    def _layer_name(self, layers: Sequence[Sequence[str | None]]) -> str:
        """The chosen layer of (name, type of geometries or None)."""
        names = [str(name) for name, _ in layers]
        spatial = [str(name) for name, kind in layers if kind is not None] or names
        if self.layer in names:
            return str(self.layer)
        if not names:
            raise InputError(f"{self.name} has no layer: it is empty or damaged; {WAY_OUT}")
        if self.layer is not None:
            raise InputError(f"{self.name} has no layer {self.layer!r}; it has {listed(names)}")
        if len(spatial) > 1:
            raise InputError(
                f"{self.name} has {len(spatial)} layers: {listed(spatial)}; choose one with layer "
                f"(--layer {spatial[0]})"
            )
        return spatial[0]

    @contextmanager
    def _reading(self) -> Iterator[_Opened]:
        """Open the file; turns errors of pyogrio and GDAL into ours."""
        pyogrio = _pyogrio(self.name)
        with local_copy(self.path, self.access, _side_endings(self.path), self.job) as local:
            source = self._source(local)
            try:
                yield _Opened(pyogrio, source, os.path.getsize(local))
            except RasteretBeamError:
                raise
            except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, OSError, pa.ArrowException) as error:
                text = one_line(error).replace(local, os.path.basename(local)).partition("; It might help")[0]
                raise InputError(f"{self.name} cannot be read: {text}; {WAY_OUT}") from error

    def _source(self, local: str) -> str:
        if local.lower().endswith(ZIPPED):
            return f"/vsizip/{{{local}}}/{self._member(local)}"
        stem, ending = os.path.splitext(local)
        if ending.lower() == ".shp" and not any(os.path.exists(stem + each) for each in (".shx", ".SHX")):
            raise InputError(
                f"{self.name} has no side file {os.path.basename(stem)}.shx, the index of its geometries; put it "
                "beside it (a .shp is read with its .shx, .dbf, .prj and .cpg), or give all of them in one .zip"
            )
        if ending.lower() == ".shp":
            self._check_lengths(stem, ending)
        return local

    def _check_lengths(self, stem: str, ending: str) -> None:
        """Refuse a shapefile that is cut off, of which GDAL reads null geometries and fields.

        Sources: ESRI Shapefile Technical Description (July 1998), page 4; the header of dBASE III tables.
        """
        for path in (stem + ending, stem + (".DBF" if ending.isupper() else ".dbf")):
            if not os.path.exists(path):
                continue
            with open(path, "rb") as file:
                head = file.read(28).ljust(28, b"\0")
            size = os.path.getsize(path)
            if path.lower().endswith(".shp"):
                wanted = max(100, 2 * int.from_bytes(head[24:28], "big"))
            else:
                rows, header, width = struct.unpack("<IHH", head[4:12])
                wanted = max(33, header + rows * width)
            if size < wanted:
                raise InputError(
                    f"{self.name} is cut off: {os.path.basename(path)} has {size} bytes, and {wanted} by its header; "
                    f"{WAY_OUT}"
                )

    def _member(self, local: str) -> str:
        """The vector file in an archive."""
        try:
            with zipfile.ZipFile(local) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, OSError) as error:
            raise InputError(f"{self.name} cannot be read: {one_line(error)}; {WAY_OUT}") from error
        found = [name for name in names if name.lower().endswith(VECTOR_ENDINGS) and "/." not in f"/{name}"]
        found = [name for name in found if not name.startswith("__MACOSX/")]
        stems = [os.path.splitext(os.path.basename(name))[0] for name in found]
        if len(found) > 1 and self.layer in stems:
            found = [found[stems.index(self.layer)]]
        if len(found) == 1:
            return found[0]
        if not found:
            raise InputError(f"{self.name} has no {' or '.join(VECTOR_ENDINGS)} file in it; it has {listed(names)}")
        raise InputError(
            f"{self.name} has {len(found)} vector files in it: {listed(found)}; choose one with layer "
            f"(--layer {stems[0]})"
        )


def _pyogrio(name: str) -> Any:
    try:
        import_module("pyogrio.raw")
        return import_module("pyogrio")
    except ImportError as error:
        raise MissingInputError(
            f"{name} is read with pyogrio, which is not installed: {how_to_install('vector')}; or convert the file "
            "to GeoParquet"
        ) from error
