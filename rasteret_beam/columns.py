"""The columns of the sample table: one registry, which schemas, rows, reserved names and docs loop over.

A column has a field, says how it is made of the rows of one band (or, in a wide layout, of all bands) of a record, and
in which layouts it stands. Optional columns are there where ``extra_columns`` names them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from rasteret_beam.errors import InputError, listed

VALUE, VALUES = "value", "values"
"""Columns whose type follows from the options and the collection: see :func:`rasteret_beam.schema.samples_schema`."""

LAYOUTS = ("long", "values", "columns")
"""Of the sample table: a row for each band; or one for each point and record, with a list or with a column a band."""


class Rows(Protocol):
    """The rows that a column is made for: n points of one record and grid, and one band in the long layout.

    ``facts`` are what all rows have in common: record_id, datetime (microseconds, or None), collection, band, href, and
    raster_crs and point_crs (EPSG codes, or None).
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
    """

    field: pa.Field
    make: Callable[[Rows], pa.Array]
    help: str
    layouts: Sequence[str] = LAYOUTS
    optional: bool = False

    @property
    def name(self) -> str:
        return str(self.field.name)


def _column(name: str, kind: pa.DataType, make: Callable[[Rows], pa.Array], help: str, **settings: Any) -> Column:
    return Column(pa.field(name, kind), make, help, **settings)


def _constant(name: str, kind: pa.DataType, help: str, **settings: Any) -> Column:
    """A column with one value for all rows: the fact of that name."""
    return _column(name, kind, lambda rows: rows.constant(getattr(rows.facts, name), kind), help, **settings)


def _of_points(name: str, kind: pa.DataType, help: str) -> Column:
    return _column(name, kind, lambda rows: rows.of_points(name), help)


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
    _constant("point_crs", pa.int32(), "EPSG code of the points' CRS; null where it has none"),
    _constant("record_id", pa.string(), "id of the record"),
    _constant("datetime", pa.timestamp("us"), "datetime of the record, UTC"),
    _constant("collection", pa.string(), "name of the collection"),
    _constant("band", pa.string(), "name of the band", layouts=("long",)),
    _column(VALUE, pa.float64(), lambda rows: rows.values(), "stored value of the pixel", layouts=("long",)),
    _column(
        VALUES,
        pa.list_(pa.float64()),
        lambda rows: rows.value_lists(),
        "values in the order of the bands; null for a band that the record lacks",
        layouts=("values",),
    ),
    _constant("raster_crs", pa.int32(), "EPSG code of the raster's CRS; null where it has none"),
    NEIGHBOURHOOD,
    _column(
        "pixel_row",
        pa.int32(),
        lambda rows: rows.pixel_rows(),
        "row, on the record's grid, of the pixel that gave the value",
        layouts=("long",),
        optional=True,
    ),
    _column(
        "pixel_col",
        pa.int32(),
        lambda rows: rows.pixel_cols(),
        "column, on the record's grid, of the pixel that gave the value",
        layouts=("long",),
        optional=True,
    ),
    _constant("href", pa.string(), "the file that the value is read from", layouts=("long",), optional=True),
    _column(
        "time_difference",
        pa.float64(),
        lambda rows: rows.time_differences(),
        "datetime of the record minus the time of the point, in seconds; null where one has none; with time_column",
        optional=True,
    ),
)

BANDS_AFTER = "collection"
"""With ``layout="columns"``, the columns of the bands follow this one."""


def columns_of(layout: str, neighbourhood: bool = False, extra_columns: Sequence[str] = ()) -> Iterator[Column]:
    """The columns of a sample table, in order, without those that ``layout="columns"`` has for its bands."""
    for column in COLUMNS:
        wanted = column.name in extra_columns if column.optional else column is not NEIGHBOURHOOD or neighbourhood
        if wanted and layout in column.layouts:
            yield column


def optional_columns() -> dict[str, Column]:
    """The columns that ``extra_columns`` can name."""
    return {column.name: column for column in COLUMNS if column.optional}


def check_extra_columns(names: Any, layout: str) -> tuple[str, ...]:
    """Names of optional columns, checked.

    Raises
    ------
    InputError
        A name is unknown or given twice, or the layout has no place for its column.
    """
    known = optional_columns()
    if isinstance(names, str) or not isinstance(names, Iterable) or not all(isinstance(name, str) for name in names):
        raise InputError(f"extra_columns are {names!r}; give a list of names, of {listed(known)}")
    for name in names:
        if name not in known:
            raise InputError(f"extra_columns have {name!r}; there are {listed(known)}")
        if layout in LAYOUTS and layout not in known[name].layouts:
            raise InputError(
                f"layout is {layout!r}, but extra_columns have {name!r}, which differs from band to band; use "
                'layout="long"'
            )
    if len(set(names)) < len(tuple(names)):
        raise InputError(f"extra_columns are {listed(names)}; name each of them once")
    return tuple(names)
