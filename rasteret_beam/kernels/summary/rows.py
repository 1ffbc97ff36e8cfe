"""What a summary needs of batches of the sample table, of any layout, as arrays."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasteret_beam.columns import BANDS_AFTER, VALUE, VALUES
from rasteret_beam.errors import InputError, listed
from rasteret_beam.kernels.summary.tally import Ints
from rasteret_beam.statistics import NAMES, percentile_of

NEEDED = ("point_index", "point_x", "point_y", "record_id", "datetime")
LAST_OF_BANDS = "raster_crs"
STATUS = "status"
Column = NDArray[Any]


class Series(NamedTuple):
    """A column of numbers that is summarised: the values of a band, or a statistic of the pixels around the points."""

    band: str
    statistic: str = ""

    @property
    def label(self) -> str:
        return f"{self.band} {self.statistic}".strip()


@dataclass(frozen=True)
class Shape:
    """How a sample table is laid out.

    Attributes
    ----------
    layout : str
        One of :data:`rasteret_beam.columns.LAYOUTS`.
    bands : tuple of str
        Of a wide layout, in the order of columns or lists; without names ``1``, ``2``, ... for lists.
    columns : {series: column}
        In the layout "columns" of each band; otherwise of the values (of band "") and of each statistic.
    has_status : bool
    """

    layout: str
    bands: tuple[str, ...]
    columns: tuple[tuple[Series, str], ...]
    has_status: bool

    @property
    def read(self) -> list[str]:
        """The columns that are needed."""
        own = ["band"] if self.layout == "long" else []
        more = [STATUS] if self.has_status else []
        return [*NEEDED, "point_crs", *own, *more, *dict.fromkeys(name for _, name in self.columns)]


def shape_of(schema: pa.Schema, bands: Sequence[str] | None = None) -> Shape:
    """The shape of a sample table.

    Parameters
    ----------
    schema : Schema
    bands : sequence of str, optional
        Names of the bands of a wide layout, in order.

    Raises
    ------
    InputError
        It lacks columns of the sample table.
    """
    names = schema.names
    missing = [name for name in (*NEEDED, "point_crs") if name not in names]
    if missing:
        raise InputError(f"the samples lack column(s) {listed(missing)}; they have {listed(names)}")
    status = STATUS in names
    if VALUE in names and "band" in names:
        columns = [(Series("", each), each or VALUE) for each in ("", *_statistics_after(names, VALUE))]
        return Shape("long", tuple(bands or ()), tuple(columns), status)
    if VALUES in names:
        size = getattr(schema.field(VALUES).type, "list_size", len(bands or ()))
        given = tuple(bands or (str(1 + number) for number in range(size)))
        columns = [(Series("", each), each or VALUES) for each in ("", *_statistics_after(names, VALUES))]
        return Shape("values", given, tuple(columns), status)
    if BANDS_AFTER not in names or LAST_OF_BANDS not in names:
        raise InputError(f"the samples have neither column value nor values, nor columns of bands: {listed(names)}")
    between = names[names.index(BANDS_AFTER) + 1 : names.index(LAST_OF_BANDS)]
    found = _band_columns([name for name in between if _is_number(schema.field(name).type)], bands)
    return Shape("columns", tuple(dict.fromkeys(each.band for each, _ in found)), tuple(found), status)


def _is_statistic(name: str) -> bool:
    return name in NAMES or percentile_of(name) is not None


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _statistics_after(names: Sequence[str], column: str) -> list[str]:
    found = []
    for name in names[names.index(column) + 1 :]:
        if not _is_statistic(name):
            break
        found.append(name)
    return found


def _band_columns(names: Sequence[str], bands: Sequence[str] | None) -> list[tuple[Series, str]]:
    """Columns of bands, each followed by those of its statistics."""
    found: list[tuple[Series, str]] = []
    for name in names:
        last = found[-1][0].band if found else ""
        statistic = name.removeprefix(f"{last}_") if last and name not in (bands or ()) else name
        is_statistic = statistic != name and _is_statistic(statistic)
        found.append((Series(last, statistic) if is_statistic else Series(name), name))
    return found


class Part(NamedTuple):
    """Rows of one band, or in a wide layout of all, as arrays.

    ``values`` are, by series, numbers [n] and which of them are null, or None. ``moments`` are microseconds since 1970
    of rows with a datetime, ``undated`` the number of the others. ``has_record`` are the rows of a record, None
    where all are. ``status`` are codes [n] of ``status_names``.
    """

    band: str
    x: Column
    y: Column
    values: dict[Series, tuple[Column, NDArray[np.bool_] | None]]
    moments: Ints
    undated: int
    has_record: NDArray[np.bool_] | None
    status: Column | None
    status_names: list[str]


def parts(batch: pa.RecordBatch, shape: Shape) -> Iterator[Part]:
    """Rows of a batch by band."""
    if shape.layout != "long":
        yield _part(batch, shape, "")
        return
    for band, rows in by_name(batch.column("band")):
        yield _part(batch if rows is None else batch.take(pa.array(rows)), shape, band)


def by_name(column: pa.Array) -> Iterator[tuple[str, Ints | None]]:
    """The different texts of a column and the rows that have each; None for all rows."""
    one = constant_text(column)
    if one is not None:
        yield one, None
        return
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    codes = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False).astype(np.int64)
    names = [*map(str, encoded.dictionary.to_pylist()), ""]
    if len(codes) and (codes == codes[0]).all():
        yield names[codes[0]], None
        return
    order = np.argsort(codes.astype(np.int16) if len(names) < 2**15 else codes, kind="stable")
    edges = np.append(np.flatnonzero(np.diff(codes[order], prepend=-1)), len(codes))
    for first, stop in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        yield names[codes[order[first]]], np.sort(order[first:stop])


def constant_text(column: pa.Array) -> str | None:
    """The text that all rows of a column have, if it can be told by comparing its bytes; else None."""
    if column.type != pa.string() or not len(column) or column.null_count:
        return None
    _, offsets, data = column.buffers()
    edges = np.frombuffer(offsets, dtype=np.int32)[column.offset : column.offset + len(column) + 1]
    size = int(edges[1] - edges[0])
    if size and not ((edges[1:] - edges[:-1]) == size).all():
        return None
    held = np.frombuffer(data, dtype=np.uint8)[edges[0] : edges[-1]] if data is not None else np.empty(0, np.uint8)
    if not size or not (held[size:] == held[:-size]).all():
        return None
    return str(column[0].as_py())


def _part(batch: pa.RecordBatch, shape: Shape, band: str) -> Part:
    moments = batch.column("datetime")
    dated = moments.drop_null() if moments.null_count else moments
    record = batch.column("record_id")
    status = batch.column(STATUS) if shape.has_status else None
    codes, names = (None, []) if status is None else _coded(status)
    return Part(
        band,
        batch.column("point_x").to_numpy(zero_copy_only=False),
        batch.column("point_y").to_numpy(zero_copy_only=False),
        _values(batch, shape, band),
        dated.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).to_numpy(zero_copy_only=False),
        len(moments) - len(dated),
        record.is_valid().to_numpy(zero_copy_only=False) if record.null_count else None,
        codes,
        names,
    )


def _coded(column: pa.Array) -> tuple[Column, list[str]]:
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    codes = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)
    return codes, [*map(str, encoded.dictionary.to_pylist()), "none"]


def _values(batch: pa.RecordBatch, shape: Shape, band: str) -> dict[Series, tuple[Column, NDArray[np.bool_] | None]]:
    found: dict[Series, tuple[Column, NDArray[np.bool_] | None]] = {}
    for series, name in shape.columns:
        column = batch.column(name)
        if shape.layout == "long":
            found[series._replace(band=band)] = numbers(column)
        elif shape.layout == "columns":
            found[series] = numbers(column)
        else:
            for place, (values, null) in enumerate(_lists(column, len(shape.bands), name)):
                found[series._replace(band=shape.bands[place])] = values, null
    return found


def numbers(column: pa.Array) -> tuple[Column, NDArray[np.bool_] | None]:
    """The values of a column, and which are null."""
    if not column.null_count:
        return column.to_numpy(zero_copy_only=False), None
    null = column.is_null().to_numpy(zero_copy_only=False)
    return pc.fill_null(column, 0).to_numpy(zero_copy_only=False), null


def _lists(column: pa.Array, size: int, name: str) -> Iterator[tuple[Column, NDArray[np.bool_] | None]]:
    """The values of each place of lists of one size, and which are null."""
    if not pa.types.is_fixed_size_list(column.type) or column.type.list_size != size:
        lengths = set(pc.unique(pc.list_value_length(column)).to_pylist()) - {None}
        if lengths - {size}:
            raise InputError(
                f"column {name} has lists of {listed(sorted(lengths))} values, but there are {size} bands; give bands="
            )
        column = column.cast(pa.list_(column.type.value_type, size))
    flat = column.values.slice(column.offset * size, len(column) * size)
    values, null = numbers(flat)
    values, null = values.reshape(-1, size), null.reshape(-1, size) if null is not None else None
    missing = column.is_null().to_numpy(zero_copy_only=False) if column.null_count else None
    for place in range(size):
        of_place = null[:, place] if null is not None else None
        if missing is not None:
            of_place = missing if of_place is None else of_place | missing
        yield np.ascontiguousarray(values[:, place]), of_place
