"""Checksums of a collection's records and bands in column ``checksums``, which reveal damage to the index.

They belong to records, not to files or row groups, so a collection that another tool has filtered, sorted, split or
rewritten still passes. Files of Rasteret and of older releases have no checksums and are read without this check.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rasteret_beam.collection.parquet.layout import band_names
from rasteret_beam.errors import CollectionError
from rasteret_beam.kernels.storage.checksums import row_checksums
from rasteret_beam.schema import BAND_EXTRA_TYPE, BAND_METADATA_TYPE, CHECKSUMS, EXTRA_SUFFIX, METADATA_SUFFIX

FOR_RASTERET = ("pixel_scale", "tiepoint", "extra_samples")
"""Fields of a band's metadata that this package does not read."""

FIELDS = {
    METADATA_SUFFIX: tuple(name for name in BAND_METADATA_TYPE.names if name not in FOR_RASTERET),
    EXTRA_SUFFIX: tuple(BAND_EXTRA_TYPE.names),
}

SHARED = ("id", "assets", CHECKSUMS)
"""Columns with facts of every band."""

Columns = Mapping[str, pa.Array]
Sums = NDArray[np.int32]


class Checksums:
    """The columns that a collection's checksums cover, and the comparison with the stored checksums.

    Parameters
    ----------
    schema : pyarrow.Schema
        Of the collection.
    """

    def __init__(self, schema: pa.Schema):
        self._fields = {field.name: field for field in schema}
        self._paths: dict[str, dict[str, tuple[str, ...]]] = {}
        stored = self._fields.get(CHECKSUMS)
        self.bands = frozenset(stored.type.field("bands").type.names) if stored is not None else frozenset()

    def paths(self, band: str) -> dict[str, tuple[str, ...]]:
        """The facts of a band that its checksum covers, and the place of each in the collection's columns."""
        if band not in self._paths:
            parts: list[tuple[tuple[str, ...], pa.StructType, tuple[str, ...]]]
            parts = [(("assets", band), self._fields["assets"].type.field(band).type, ("href", "band_index"))]
            for suffix, names in FIELDS.items():
                if band + suffix in self._fields:
                    parts.append(((band + suffix,), self._fields[band + suffix].type, names))
            self._paths[band] = {
                name: (*above, name) for above, kind, names in parts for name in names if name in set(kind.names)
            }
        return self._paths[band]

    def columns(self, number: int, band: str) -> dict[str, tuple[str, ...]]:
        """The columns that :meth:`check` needs for a band, named with its number; empty without checksums."""
        if band not in self.bands:
            return {}
        facts = {f"{name}{number}": path for name, path in self.paths(band).items()}
        return {"id": ("id",), f"checksum{number}": (CHECKSUMS, "bands", band), **facts}

    def check(self, columns: Columns, row: int, bands: Sequence[str], source: str) -> None:
        """Refuse a record, at a row of these columns, if a band differs from its checksum.

        Raises
        ------
        CollectionError
        """
        alike: dict[tuple[str, ...], list[int]] = {}
        for number, band in enumerate(bands):  # bands with the same columns, usually all of them, are compared at once
            if band in self.bands:
                alike.setdefault(tuple(self.paths(band)), []).append(number)
        for names, numbers in alike.items():

            def together(name: str, numbers: list[int] = numbers) -> pa.Array:
                return pa.concat_arrays([columns[f"{name}{number}"].slice(row, 1) for number in numbers])

            ids = pa.concat_arrays([columns["id"].slice(row, 1)] * len(numbers))
            found = row_checksums({"id": ids, **{name: together(name) for name in names}})
            at = first_other(found, together("checksum"))
            if at is not None:
                what = f"band {bands[numbers[at]]}"
                raise _damaged(source, ids[0].as_py(), what, found[at], together("checksum")[at].as_py())


def first_other(found: Sums, stored: pa.Array) -> int | None:
    """The first stored checksum [n] that differs; nulls are skipped."""
    known = stored.is_valid().to_numpy(zero_copy_only=False)
    wrong = np.flatnonzero(known & (found != pc.fill_null(stored, 0).to_numpy(zero_copy_only=False)))
    return int(wrong[0]) if len(wrong) else None


def record_columns(names: Sequence[str]) -> list[str]:
    """The columns among these that the checksum of a record covers."""
    grids = ["grids"] if "grids" in names else [name for name in ("crs", "proj:epsg") if name in names]
    return ["id", "datetime", *grids]


def check_records(light: pa.Table, source: str) -> None:
    """Refuse records if a value that routing reads differs from the checksum.

    Parameters
    ----------
    light : Table
        Their :func:`record_columns` and, where the collection has checksums, ``checksum``.

    Raises
    ------
    CollectionError
    """
    if "checksum" in light.column_names:
        columns = {name: light[name].combine_chunks() for name in record_columns(light.column_names)}
        _check_records(columns, light["checksum"].combine_chunks(), source)


def _check_records(columns: Columns, stored: pa.Array, source: str) -> None:
    found = row_checksums(columns)
    at = first_other(found, stored)
    if at is not None:
        what = f"a value of {', '.join(columns)}"
        raise _damaged(source, columns["id"][at].as_py(), what, found[at], stored[at].as_py())


def _damaged(source: str, record_id: str, what: str, found: int, stored: int) -> CollectionError:
    return CollectionError(
        f"record {record_id!r} of {source}: {what} was changed after the collection was written (its checksum is "
        f"{_hex(found)}, in column {CHECKSUMS} {_hex(stored)}). Build the collection again or, if the change is "
        f"intended, drop column {CHECKSUMS} from its files"
    )


def _hex(checksum: int) -> str:
    return f"{int(checksum) % (1 << 32):08x}"


def with_checksums(table: pa.Table, source: str) -> pa.Table:
    """A collection's table with column ``checksums`` computed again.

    Raises
    ------
    CollectionError
        The existing checksums reveal damage.
    """
    if CHECKSUMS in table.column_names:
        check_table(table, source)
        table = table.drop_columns([CHECKSUMS])
    parts = _Table(table)
    bands = band_names(table.schema)
    arrays = [pa.array(part, type=pa.int32()) for part in (parts.records(), *map(parts.band, bands))]
    kind = pa.struct([(band, pa.int32()) for band in bands])
    of_bands = pa.StructArray.from_arrays(arrays[1:], fields=list(kind)) if bands else pa.nulls(len(table), kind)
    return table.append_column(CHECKSUMS, pa.StructArray.from_arrays([arrays[0], of_bands], names=["record", "bands"]))


def check_table(table: pa.Table, source: str) -> None:
    """Refuse a table with all columns of a collection if a record or a band differs from its checksum.

    Raises
    ------
    CollectionError
    """
    parts = _Table(table)
    stored = parts.column(CHECKSUMS)
    _check_records(parts.of_records(), pc.struct_field(stored, "record"), source)
    for band in band_names(table.schema):
        if band in parts.checksums.bands:
            found, written = parts.band(band), pc.struct_field(stored, ["bands", band])
            at = first_other(found, written)
            if at is not None:
                record_id = parts.column("id")[at].as_py()
                raise _damaged(source, record_id, f"band {band}", found[at], written[at].as_py())


class _Table:
    """The columns of a table by name, and the checksums [n] of its rows."""

    def __init__(self, table: pa.Table):
        self.checksums = Checksums(table.schema)
        # One lookup for all: finding a name in a table of a thousand columns takes a millisecond.
        self._columns = dict(zip(table.column_names, table.columns, strict=True))

    def column(self, name: str) -> pa.Array:
        combined = self._columns[name].combine_chunks()
        if name in SHARED:
            self._columns[name] = pa.chunked_array([combined])
        return combined

    def of_records(self) -> dict[str, pa.Array]:
        return {name: self.column(name) for name in record_columns(list(self._columns))}

    def records(self) -> Sums:
        return row_checksums(self.of_records())

    def band(self, band: str) -> Sums:
        paths = self.checksums.paths(band)
        held = {name: self.column(name) for name in {"id", *(path[0] for path in paths.values())}}
        facts = {name: pc.struct_field(held[column], list(inner)) for name, (column, *inner) in paths.items()}
        return row_checksums({"id": held["id"], **facts})
