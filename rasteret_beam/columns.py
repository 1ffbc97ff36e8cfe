"""The columns of the sample table: one registry, which schemas, rows, reserved names and docs loop over.

A column has a field, says how it is made of the rows of one band (or, in a wide layout, of all bands) of a record, and
in which layouts it stands. Optional columns are there where ``extra_columns`` names them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from rasteret_beam.errors import InputError, did_you_mean, listed
from rasteret_beam.statistics import HELP, statistic_type

VALUE, VALUES = "value", "values"
"""Columns whose type follows from the options and the collection: see :func:`rasteret_beam.schema.samples_schema`."""

RECORD = "record:"
"""How names of columns of the collection begin in ``extra_columns``."""

BAND_RECORD = "_record_id"
"""How the name of the column with the record of one band ends, in a wide layout; it begins with the band."""

STATUSES = ("valid", "nodata", "masked", "filled")
"""What samples are, in the order of :class:`rasteret_beam.kernels.sampling.validity.Status`."""

NEEDS_STATUS, NEEDS_SCALE, NEEDS_TIME = "status", "scale", "time"
"""What a column can need: whether samples are valid, how values are scaled, the times of points."""

LAYOUTS = ("long", "values", "columns")
"""Of the sample table: a row for each band; or one for each point and record, with a list or with a column a band."""


class Rows(Protocol):
    """The rows that a column is made for: n points of one record and grid, and one band in the long layout.

    ``facts`` are what all rows have in common: record_id, datetime (microseconds, or None), collection, raster_crs and
    point_crs (EPSG codes, or None), and of the band its name, href, nodata, scale and offset.
    """

    @property
    def facts(self) -> Any: ...

    def of_points(self, name: str) -> pa.Array:
        """A column of the points."""
        ...

    def constant(self, value: Any, kind: pa.DataType) -> pa.Array:
        """One value for all rows."""
        ...

    def values(self) -> pa.Array:
        """[n], of the band, in the type of the job's values."""
        ...

    def value_lists(self) -> pa.Array:
        """[n] lists of a fixed size, in the order of the bands."""
        ...

    def statistics(self, name: str) -> pa.Array:
        """[n] int64 or float64: a statistic of the windows, of the band."""
        ...

    def statistic_lists(self, name: str) -> pa.Array:
        """[n] lists of a fixed size: a statistic of the windows, in the order of the bands."""
        ...

    def windows(self) -> pa.Array:
        """[n] lists of float64, or null: the windows that were searched."""
        ...

    def pixel_rows(self) -> pa.Array:
        """[n] int32: row, on the record's grid, of the pixel that gave the value."""
        ...

    def pixel_cols(self) -> pa.Array:
        """[n] int32: column, likewise."""
        ...

    def time_differences(self) -> pa.Array:
        """[n] float64: seconds from the points' times to the datetime of the record; null where one has none."""
        ...

    def statuses(self) -> pa.Array:
        """[n] dictionary: what the samples are."""
        ...

    def distances(self) -> pa.Array:
        """[n] float64: from the points to the pixels that gave the values, in map units; 0 inside."""
        ...

    def pixel_centre(self, axis: int) -> pa.Array:
        """[n] float64: x (``axis`` 0) or y (1), in the raster's CRS, of the centre of the pixel that gave the value."""
        ...

    def pixel_lonlat(self, axis: int) -> pa.Array:
        """[n] float64: its longitude (``axis`` 0) or latitude (1); null where PROJ cannot reach them."""
        ...

    def candidates(self) -> pa.Array:
        """[n] int32: how many better records were left aside."""
        ...

    def record_values(self, name: str) -> pa.Array:
        """[n]: a column of the collection, of the record."""
        ...

    def record_of_band(self, band: str) -> pa.Array:
        """[n] string: the record that a band is from; null where there is none."""
        ...


@dataclass(frozen=True)
class Column:
    """A column of the sample table.

    Attributes
    ----------
    field : Field
    make : callable
        The column for some rows.
    help : str
        What it holds, for the docs.
    layouts : sequence of str
        Those in which it can stand.
    optional : bool
        It is there only where ``extra_columns`` names it.
    needs : sequence of str
        What it needs beside values: of :data:`NEEDS_STATUS`, :data:`NEEDS_SCALE`, :data:`NEEDS_TIME`.
    of_points : bool
        Points without a sample have it too; other columns are null in their rows.
    """

    field: pa.Field
    make: Callable[[Rows], pa.Array]
    help: str
    layouts: Sequence[str] = LAYOUTS
    optional: bool = False
    needs: Sequence[str] = ()
    of_points: bool = False

    @property
    def name(self) -> str:
        return str(self.field.name)


def _column(name: str, kind: pa.DataType, make: Callable[[Rows], pa.Array], help: str, **settings: Any) -> Column:
    return Column(pa.field(name, kind), make, help, **settings)


def _constant(name: str, kind: pa.DataType, help: str, **settings: Any) -> Column:
    """A column with one value for all rows: the fact of that name."""
    return _column(name, kind, lambda rows: rows.constant(getattr(rows.facts, name), kind), help, **settings)


def _of_points(name: str, kind: pa.DataType, help: str) -> Column:
    return _column(name, kind, lambda rows: rows.of_points(name), help, of_points=True)


def _of_pixel(name: str, kind: pa.DataType, make: Callable[[Rows], pa.Array], help: str) -> Column:
    """An optional column of the pixel of one band."""
    return _column(name, kind, make, help, layouts=("long",), optional=True)


def _of_band(name: str, kind: pa.DataType, help: str, **settings: Any) -> Column:
    """An optional column with a fact of one band of the record."""
    return _constant(name, kind, help, layouts=("long",), optional=True, **settings)


STATUS_TYPE = pa.dictionary(pa.int8(), pa.string())


NEIGHBOURHOOD = _column(
    "neighbourhood_values",
    pa.list_(pa.float64()),
    lambda rows: rows.windows(),
    "the window that was searched, row by row; with return_neighbourhood",
    layouts=("long",),
)

COLUMNS: tuple[Column, ...] = (
    _of_points("point_index", pa.int64(), "row number of the point in the whole input"),
    _of_points("point_x", pa.float64(), "longitude or easting of the point, as given"),
    _of_points("point_y", pa.float64(), "latitude or northing of the point, as given"),
    _constant("point_crs", pa.int32(), "EPSG code of the points' CRS; null where it has none", of_points=True),
    _constant("record_id", pa.string(), "id of the record"),
    _constant("datetime", pa.timestamp("us"), "datetime of the record, UTC"),
    _constant("collection", pa.string(), "name of the collection", of_points=True),
    _constant("band", pa.string(), "name of the band", layouts=("long",), of_points=True),
    _column(VALUE, pa.float64(), lambda rows: rows.values(), "stored value of the pixel", layouts=("long",)),
    _column(
        VALUES,
        pa.list_(pa.float64()),
        lambda rows: rows.value_lists(),
        "values in the order of the bands; null for a band that the record lacks",
        layouts=("values",),
        of_points=True,  # a list of nulls: pyarrow does not read null lists of a fixed size from Parquet
    ),
    _constant("raster_crs", pa.int32(), "EPSG code of the raster's CRS; null where it has none"),
    NEIGHBOURHOOD,
    _of_pixel(
        "pixel_row",
        pa.int32(),
        lambda rows: rows.pixel_rows(),
        "row, on the record's grid, of the pixel that gave the value",
    ),
    _of_pixel(
        "pixel_col",
        pa.int32(),
        lambda rows: rows.pixel_cols(),
        "column, on the record's grid, of the pixel that gave the value",
    ),
    _of_band("href", pa.string(), "the file that the value is read from"),
    _column(
        "time_difference",
        pa.float64(),
        lambda rows: rows.time_differences(),
        "datetime of the record minus the time of the point, in seconds; null where one has none; with time_column",
        optional=True,
        needs=(NEEDS_TIME,),
    ),
    _column(
        "status",
        STATUS_TYPE,
        lambda rows: rows.statuses(),
        "valid, nodata, masked or filled (by a neighbouring pixel), or why the point has no sample; in a wide layout "
        "that of the first band that is not valid",
        optional=True,
        needs=(NEEDS_STATUS,),
        of_points=True,
    ),
    _of_pixel(
        "distance",
        pa.float64(),
        lambda rows: rows.distances(),
        "from the point to the rectangle of the pixel that gave the value, in units of the raster's CRS; 0 inside it",
    ),
    _of_pixel(
        "pixel_x",
        pa.float64(),
        lambda rows: rows.pixel_centre(0),
        "x of the centre of the pixel that gave the value, in the raster's CRS",
    ),
    _of_pixel("pixel_y", pa.float64(), lambda rows: rows.pixel_centre(1), "y, likewise"),
    _of_pixel(
        "pixel_lon",
        pa.float64(),
        lambda rows: rows.pixel_lonlat(0),
        "longitude of the centre of the pixel that gave the value, on the body of the raster; null in local CRSs",
    ),
    _of_pixel("pixel_lat", pa.float64(), lambda rows: rows.pixel_lonlat(1), "latitude, likewise"),
    _of_band("nodata", pa.float64(), "nodata value of the band; null where it has none"),
    _of_band(
        "scale",
        pa.float64(),
        "scale of the band, from stored numbers to physical units; 1 where it has none",
        needs=(NEEDS_SCALE,),
    ),
    _of_band(
        "offset", pa.float64(), "offset of the band, added after scaling; 0 where it has none", needs=(NEEDS_SCALE,)
    ),
    _of_pixel(
        "candidate",
        pa.int32(),
        lambda rows: rows.candidates(),
        "how many better records of the point were left aside, with skip_invalid; 0 is the best",
    ),
)

BANDS_AFTER = "collection"
"""With ``layout="columns"``, the columns of the bands follow this one: see :func:`band_columns`."""


def band_columns(bands: Iterable[str], statistics: Sequence[str]) -> Iterator[tuple[str, str, str | None]]:
    """With ``layout="columns"``, the columns of bands: name, band, and statistic; first the value, of none."""
    for band in bands:
        yield band, band, None
        yield from ((f"{band}_{name}", band, name) for name in statistics)


def statistic_column(name: str, layout: str) -> Column:
    """The column of a statistic, which follows that of the values; of a wide layout with lists, a list of bands."""
    kind, help = statistic_type(name), f"{HELP.get(name, 'percentile')}, of the pixels around the point"
    if layout == "long":
        return _column(name, kind, lambda rows: rows.statistics(name), help, layouts=("long",))
    lists = lambda rows: rows.statistic_lists(name)  # noqa: E731
    return _column(name, pa.list_(kind), lists, help, layouts=("values",), of_points=True)


def record_column(name: str) -> Column:
    """The column of the samples for a column of the collection; its type is that of the collection."""
    return _column(
        RECORD + name,
        pa.null(),
        lambda rows: rows.record_values(name),
        f"column {name} of the collection",
        optional=True,
    )


def band_record_column(band: str) -> Column:
    """The column with the record of a band, in wide layouts."""
    return _column(
        band + BAND_RECORD,
        pa.string(),
        lambda rows: rows.record_of_band(band),
        f"id of the record that band {band} is from",
        layouts=("values", "columns"),
        optional=True,
    )


def columns_of(
    layout: str, neighbourhood: bool = False, extra_columns: Sequence[str] = (), statistics: Sequence[str] = ()
) -> Iterator[Column]:
    """The columns of a sample table, in order, without those that ``layout="columns"`` has for its bands."""
    known = optional_columns()
    named = [extra_column(name) for name in extra_columns if name not in known]
    for column in (*COLUMNS, *filter(None, named)):
        wanted = column.name in extra_columns if column.optional else column is not NEIGHBOURHOOD or neighbourhood
        if wanted and layout in column.layouts:
            yield column
            if column.name in (VALUE, VALUES):
                yield from (statistic_column(name, layout) for name in statistics)


def optional_columns() -> dict[str, Column]:
    """The columns that ``extra_columns`` can name, beside those of the collection and of bands."""
    return {column.name: column for column in COLUMNS if column.optional}


def extra_column(name: str) -> Column | None:
    """The column that a name of ``extra_columns`` stands for."""
    if name.startswith(RECORD) and name != RECORD:
        return record_column(name.removeprefix(RECORD))
    if name.endswith(BAND_RECORD) and name != BAND_RECORD:
        return band_record_column(name.removesuffix(BAND_RECORD))
    return optional_columns().get(name)


def record_names(extra_columns: Iterable[str]) -> tuple[str, ...]:
    """The columns of the collection that ``extra_columns`` name."""
    return tuple(name.removeprefix(RECORD) for name in extra_columns if name.startswith(RECORD))


def bands_with_records(extra_columns: Iterable[str]) -> tuple[str, ...]:
    """The bands whose records ``extra_columns`` name."""
    others = [name for name in extra_columns if not name.startswith(RECORD)]
    return tuple(name.removesuffix(BAND_RECORD) for name in others if name.endswith(BAND_RECORD))


def check_extra_columns(names: Any, layout: str) -> tuple[str, ...]:
    """Names of optional columns, checked.

    Raises
    ------
    InputError
        A name is unknown or given twice, or the layout has no place for its column.
    """
    there = f"{listed(optional_columns())}, {RECORD}NAME for a column of the collection, and BAND{BAND_RECORD}"
    if isinstance(names, str) or not isinstance(names, Iterable) or not all(isinstance(name, str) for name in names):
        raise InputError(f"extra_columns are {names!r}; give a list of names, of {there}")
    for name in names:
        column = extra_column(name)
        if column is None:
            near = did_you_mean(name, optional_columns())
            raise InputError(f"extra_columns have {name!r}{near}; there are {there}")
        if layout in LAYOUTS and layout not in column.layouts:
            _refuse_layout(name, layout)
    if len(set(names)) < len(tuple(names)):
        raise InputError(f"extra_columns are {listed(names)}; name each of them once")
    return tuple(names)


def _refuse_layout(name: str, layout: str) -> None:
    if layout == "long":
        raise InputError(
            f"layout is 'long', but extra_columns have {name!r}; each row of one band has its record in record_id"
        )
    raise InputError(
        f'layout is {layout!r}, but extra_columns have {name!r}, which differs from band to band; use layout="long"'
    )
