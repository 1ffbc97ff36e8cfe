"""Read the columns of a sample table that a picture needs, batch by batch, whatever its layout."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasteret_beam.collection.eager.inputs import table_stream
from rasteret_beam.columns import STATUSES, VALUE, VALUES, optional_columns
from rasteret_beam.errors import InputError, did_you_mean, listed
from rasteret_beam.schema import POINT_EXACT_CRS_KEY, RESERVED

INPUTS = (
    "the table that sample_points returns: an Arrow table, record batch, reader or dataset, a pandas frame, or "
    "anything with an Arrow C stream (Polars, DuckDB)"
)
INVALID = tuple(status for status in STATUSES if status in ("nodata", "masked"))
DRAWN_STATUSES = tuple(status for status in STATUSES if status not in INVALID)


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of one band.

    Attributes
    ----------
    value : [n] float64
        NaN where a sample is not valid.
    columns : mapping of name to Array
        The other columns that the picture needs.
    """

    value: NDArray[np.float64]
    columns: Mapping[str, pa.Array]

    def __len__(self) -> int:
        return len(self.value)

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column as float64, NaN where it is null."""
        return _numbers(self.columns[name], name)

    def moments(self, name: str) -> NDArray[np.datetime64]:
        """A column of datetimes as datetime64[us], NaT where it is null."""
        return _moments(self.columns[name], name)


@dataclass(frozen=True)
class Selection:
    """Which samples of a table are drawn.

    Attributes
    ----------
    band : str, int or None
        None for the only one.
    column : str
        With ``layout="long"``, the column of the values.
    bands : sequence of str
        With ``layout="values"``, the bands of the lists.
    nodata : float, optional
        A value that is left out.
    """

    band: str | int | None = None
    column: str = VALUE
    bands: Sequence[str] = ()
    nodata: float | None = None


class SampleColumns:
    """Batches of the samples of one band.

    Parameters
    ----------
    samples
        In any layout.
    selection : Selection
    needed : sequence of str
        Columns without which the picture cannot be drawn.
    wanted : sequence of str
        Columns that it shows if they are there.

    Attributes
    ----------
    names : list of str
        The columns of the table.
    band : str
        What is drawn, once a batch has been read.
    exact_crs : str, optional
        CRS of the points, where an EPSG code is not all of it and the table carries it.
    """

    def __init__(self, samples: Any, selection: Selection, needed: Sequence[str], wanted: Sequence[str] = ()):
        self._stream = table_stream(samples, "samples", INPUTS)
        self.names = list(self._stream.schema.names)
        exact = (self._stream.schema.metadata or {}).get(POINT_EXACT_CRS_KEY)
        self.exact_crs = None if exact is None else exact.decode()
        self._selection = selection
        missing = [name for name in needed if name not in self.names]
        if missing:
            near = did_you_mean(missing[0], self.names)
            raise InputError(f"the samples lack column {missing[0]!r}{near}; they have {listed(self.names, 40)}")
        self._kept = [name for name in dict.fromkeys((*needed, *wanted)) if name in self.names]
        self.band = "" if selection.band is None else str(selection.band)
        self._seen: list[str] = []
        self._values = self._chosen_values()

    def _chosen_values(self) -> Any:
        """How the values of a batch are found: by the layout."""
        types = self._stream.schema
        selection = self._selection
        if VALUES in self.names and _is_list(types.field(VALUES).type):
            return self._of_lists
        if "band" in self.names and (selection.column in self.names or selection.column != VALUE):
            if selection.column not in self.names:
                near = did_you_mean(selection.column, self.names)
                numbers = [name for name in self.names if _is_number(types.field(name).type)]
                raise InputError(f"the samples lack column {selection.column!r}{near}; give one of {listed(numbers)}")
            return self._of_rows
        there = self._band_columns()
        if "band" in self.names:
            raise InputError(f"the table lacks column {VALUE!r}; give column=, one of {listed(there)}")
        return self._of_columns(there)

    def _band_columns(self) -> list[str]:
        """With ``layout="columns"``, the columns that may be bands: numbers that no other column of samples has."""
        fields = self._stream.schema
        others = RESERVED | set(optional_columns()) | {"geometry_id"}
        names = [name for name in self.names if name not in others and _is_number(fields.field(name).type)]
        if "collection" in self.names and "raster_crs" in self.names:
            first, last = self.names.index("collection"), self.names.index("raster_crs")
            between = [name for name in names if first < self.names.index(name) < last]
            return between or names
        return names

    def _of_columns(self, there: list[str]) -> Any:
        band = self._selection.band
        if band is None:
            band = self._only(there)
        if band not in self.names or not _is_number(self._stream.schema.field(band).type):
            raise InputError(_no_band(band, there))
        self.band = str(band)
        return lambda batch: (batch, _column(batch, self.band))

    def _of_lists(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.Array]:
        lists = _column(batch, VALUES)
        size = _list_size(lists)
        bands, band = list(self._selection.bands), self._selection.band
        if bands and size is not None and len(bands) != size:
            raise InputError(f"bands are {listed(bands)}, but the samples have lists of {size} values")
        if band is None and (len(bands) == 1 or size == 1):
            band = 0
        if isinstance(band, str) and band in bands:
            band = bands.index(band)
        if not isinstance(band, int) or isinstance(band, bool):
            known = listed(bands) if bands else f"numbers from 0 to {(size or 1) - 1}, or names with bands=[...]"
            raise InputError(f"band is {band!r}, but the samples have lists of values; give one of {known}")
        if size is not None and not 0 <= band < size:
            raise InputError(f"band is {band}, but the samples have lists of {size} values; give 0 to {size - 1}")
        self.band = bands[band] if bands else f"band {band}"
        return batch, pc.list_element(lists, band) if size is not None else pa.nulls(len(batch), pa.float64())

    def _of_rows(self, batch: pa.RecordBatch) -> tuple[pa.RecordBatch, pa.Array]:
        names = _text(_column(batch, "band"))
        self._seen = list(dict.fromkeys((*self._seen, *pc.unique(names).drop_null().to_pylist())))
        band = self._selection.band
        if band is None:
            band = self._only(self._seen) if self._seen else ""
        self.band = str(band)
        chosen = batch.filter(pc.equal(names, self.band))
        return chosen, _column(chosen, self._selection.column)

    def _only(self, bands: list[str]) -> str:
        if len(bands) != 1:
            several = f"several bands: {listed(bands)}" if bands else "no band"
            raise InputError(f"the samples have {several}; give band=, the one to draw")
        return bands[0]

    def __iter__(self) -> Iterator[Batch]:
        rows = 0
        for batch in self._stream:
            rows += len(batch)
            chosen, column = self._values(self._needed(batch))
            value = _numbers(column, self.band)
            value[~self._valid(chosen, value)] = np.nan
            yield Batch(value, {name: _column(chosen, name) for name in self._kept})
        if not rows:
            raise InputError("the samples have no rows")
        if self._values == self._of_rows and self.band not in self._seen:
            raise InputError(_no_band(self.band, self._seen))

    def _needed(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The columns that are read, in types that Arrow can filter."""
        read = (*self._kept, "band", "status", "nodata", VALUES, self._selection.column, self.band)
        names = [name for name in dict.fromkeys(read) if name in self.names]
        return pa.RecordBatch.from_arrays([_column(batch, name) for name in names], names=names)

    def _valid(self, batch: pa.RecordBatch, value: NDArray[np.float64]) -> NDArray[np.bool_]:
        valid = np.isfinite(value)
        if "status" in self.names:
            among = pa.array(DRAWN_STATUSES, pa.string())
            valid &= pc.is_in(_text(_column(batch, "status")), value_set=among).to_numpy(zero_copy_only=False)
        if "nodata" in self.names and _is_number(self._stream.schema.field("nodata").type):
            valid &= value != _numbers(_column(batch, "nodata"), "nodata")
        return valid if self._selection.nodata is None else valid & (value != self._selection.nodata)


def _no_band(band: Any, there: Sequence[str]) -> str:
    return f"the samples lack band {band!r}{did_you_mean(str(band), there)}; they have {listed(there, 80)}"


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    column = batch.column(batch.schema.get_field_index(name))
    column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    return column.cast(pa.string()) if column.type in (pa.string_view(), pa.large_string()) else column


def _text(column: pa.Array) -> pa.Array:
    return column if pa.types.is_string(column.type) else column.cast(pa.string())


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _list_size(lists: pa.Array) -> int | None:
    """Values in each list; None where all are null."""
    if pa.types.is_fixed_size_list(lists.type):
        return int(lists.type.list_size)
    return pc.max(pc.list_value_length(lists)).as_py()


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or kind == pa.null()


def _numbers(column: pa.Array, name: str) -> NDArray[np.float64]:
    if not _is_number(column.type):
        raise InputError(f"column {name!r} has {column.type}; numbers can be drawn")
    return np.array(column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)


def _moments(column: pa.Array, name: str) -> NDArray[np.datetime64]:
    try:
        return column.cast(pa.timestamp("us"), safe=False).to_numpy(zero_copy_only=False).astype("datetime64[us]")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"column {name!r} has {column.type}, which are not datetimes: {error}") from error
